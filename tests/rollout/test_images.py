import base64
import hashlib

import pytest

from muxsim.rollouts.data.images import ImageFolder, is_reference, reference, with_data, with_references

from .samples import image_block, image_part, png

RED, BLUE = png(255, 0, 0), png(0, 0, 255)


def name_of(content):
    return f"images/{hashlib.sha256(content).hexdigest()}.png"


def test_blocks_and_parts_refer_to_files_and_get_their_data_back(tmp_path):
    folder = ImageFolder(tmp_path)
    value = [
        {"role": "tool", "content": [{"type": "text", "text": "look"}, image_part(RED)]},
        [{**image_block(BLUE), "annotations": {"audience": ["user"]}}],
    ]
    stored = with_references(value, folder.put)
    assert stored == [
        {
            "role": "tool",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": name_of(RED)}},
            ],
        },
        [
            {
                "type": "image",
                "mimeType": "image/png",
                "annotations": {"audience": ["user"]},
                "path": name_of(BLUE),
            }
        ],
    ]
    assert (tmp_path / name_of(RED)).read_bytes() == RED
    assert with_data(stored, folder.get) == value


def test_the_same_image_is_stored_once(tmp_path):
    for _ in range(2):
        folder = ImageFolder(tmp_path)
        assert with_references([image_block(RED), image_part(RED)], folder.put)[0]["path"] == name_of(RED)
    assert [path.name for path in (tmp_path / "images").iterdir()] == [name_of(RED).removeprefix("images/")]


def test_a_reference_can_be_made_without_storing():
    assert with_references(image_block(RED), reference)["path"] == name_of(RED)


@pytest.mark.parametrize(
    "value",
    [
        {"type": "image", "data": "not base64!", "mimeType": "image/png"},
        {"type": "image", "data": "aGk=", "mimeType": "application/x-sh"},
        {"type": "image", "data": 7, "mimeType": "image/png"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:text/html;base64,aGk="}},
        {"type": "image_url"},
        {"type": "text", "text": "data:image/png;base64,aGk="},
        {"type": "resource", "resource": {"uri": "x://y", "blob": "aGk="}},
        "text",
        None,
    ],
)
def test_what_is_no_image_that_can_be_stored_stays_as_it_is(tmp_path, value):
    assert with_references(value, ImageFolder(tmp_path).put) == value
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "images/../../secret.png",
        "/etc/passwd",
        "images/" + "0" * 64 + ".sh",
        "images/" + "0" * 63 + ".png",
        "images/" + "0" * 64 + ".png\n",
        7,
    ],
)
def test_no_other_file_can_be_read_by_a_row(tmp_path, path):
    def get(name):
        raise AssertionError(f"{name} was read")

    assert not is_reference(path)
    for value in ({"type": "image", "path": path}, {"type": "image_url", "image_url": {"url": path}}):
        assert with_data(value, get) == value


def test_a_file_that_is_missing_leaves_the_reference(tmp_path):
    block = {"type": "image", "mimeType": "image/png", "path": name_of(RED)}
    assert with_data(block, ImageFolder(tmp_path).get) == block
    assert ImageFolder(tmp_path).size(name_of(RED)) is None


def test_an_image_url_may_be_a_plain_string(tmp_path):
    folder = ImageFolder(tmp_path)
    part = {"type": "image_url", "image_url": f"data:image/png;base64,{base64.b64encode(RED).decode()}"}
    stored = with_references(part, folder.put)
    assert stored == {"type": "image_url", "image_url": name_of(RED)}
    assert with_data(stored, folder.get) == part
