"""Images in what servers say: what is taken out, and what is left as it came."""

import base64
import json

import pytest

from muxsim.serve.watch.pictures import taken_out

PIXEL = base64.b64encode(b"\x89PNG and more").decode()


def encoded(value):
    return json.dumps(value).encode()


async def test_an_image_is_taken_out_wherever_a_result_may_have_one():
    blocks = [
        {"type": "text", "text": "look"},
        {"type": "image", "data": PIXEL, "mimeType": "image/png"},
        {"type": "resource", "resource": {"uri": "x://y", "blob": PIXEL, "mimeType": "image/jpeg"}},
    ]
    left, found = taken_out(encoded({"content": blocks}))
    assert [(one.mime, one.block, one.decoded()) for one in found] == [
        ("image/png", 1, b"\x89PNG and more"),
        ("image/jpeg", 2, b"\x89PNG and more"),
    ]
    assert [one.size for one in found] == [13, 13]
    assert PIXEL.encode() not in left
    assert json.loads(left)["content"][0] == blocks[0]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"image",
        b'{"image": ',
        b'"image\xff"',
        b"[" * 100_000 + b'"image"',
        encoded({"content": [{"type": "image", "data": PIXEL, "mimeType": "text/html"}]}),
        encoded({"content": [{"type": "image", "data": PIXEL, "mimeType": "image/png\r\nx: y"}]}),
        encoded({"content": [{"type": "image", "data": [1], "mimeType": "image/png"}]}),
        encoded({"content": [{"type": "image", "data": PIXEL, "mimeType": ["image/png"]}]}),
    ],
)
async def test_what_is_no_image_stays_as_it_came(payload):
    assert taken_out(payload) == (payload, [])


async def test_what_is_no_base64_is_an_image_of_nothing():
    _, (picture,) = taken_out(encoded({"content": [{"type": "image", "data": "é", "mimeType": "image/png"}]}))
    assert picture.decoded() == b""
