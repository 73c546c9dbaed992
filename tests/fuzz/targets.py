"""What is fuzzed, as functions of bytes that raise when a promise is broken. Hypothesis and atheris both call them."""

from __future__ import annotations

import json

import msgspec

from transports.errors import LineTooLong, RemoteProtocolError
from transports.framing import LineFramer
from transports.messages import Kind, batch, decode, error_code, member, members_of
from transports.sse_codec import EventReader, encode_event
from transports.unread import unread

MAX_LINE = 256
CODES = (-32700, -32600)


def framing(data: bytes) -> None:
    """However a stream is cut, it gives the same lines; what waits is bounded."""
    whole, cut = _lines([data]), _lines([data[start : start + 7] for start in range(0, len(data), 7)])
    assert whole == cut


def _lines(pieces):
    framer, lines = LineFramer(MAX_LINE), []
    try:
        for piece in pieces:
            for line in framer.receive_data(piece):
                lines.append(line)
            assert framer.waiting <= MAX_LINE
    except LineTooLong:
        assert framer.waiting == 0
        return lines, "too long"
    assert not any(b"\n" in line or not line.strip() or len(line) > MAX_LINE for line in lines)
    return lines, framer.rest()


def envelope(data: bytes) -> None:
    """Bytes are a message that can be relayed, or a refusal with a code; nothing else comes out."""
    unread(data)
    assert all(one.startswith(b"{") for one in batch(data))
    try:
        message = decode(data)
    except RemoteProtocolError as error:
        refusal = error
    else:
        _relayed(message)
        return
    assert refusal.code in CODES


def _relayed(message):
    line = message.encode()
    assert b"\n" not in line
    assert b"\r" not in line
    line.decode()
    _is_json(line)
    again = decode(line)
    assert _identity(again) == _identity(message)
    assert again.encode() == line == b"".join(message.pieces())
    _look_inside(message)
    strict = message.well_formed()
    assert _identity(strict) == _identity(message)
    try:
        msgspec.json.decode(strict.encode())
    except msgspec.ValidationError as error:
        if "out of range" not in str(error):  # a number is JSON however large, and nobody here reads it as one
            raise
    if message.id is not None:
        renamed = decode(message.with_id(17).encode())
        assert _identity(renamed) == (message.kind, 17, int, message.method)
        back = renamed.with_id(message.id, message.members["id"])
        assert _identity(decode(back.encode())) == _identity(message)


def _identity(message):
    return message.kind, message.id, type(message.id), message.method


def _look_inside(message):
    assert isinstance(message.meta, dict)
    member(message.params, "_meta", "progressToken")
    members_of(message.params)
    if message.kind is Kind.ERROR:
        error_code(message)


def _is_json(line):
    try:
        json.loads(line)
    except RecursionError:
        pass  # deeper than Python's own parser goes
    except ValueError as error:
        if "digits" not in str(error):  # more than Python's own limit for a number
            raise


def events(data: bytes) -> None:
    """An event stream gives the same events however it is cut, and gives back what was encoded."""
    whole, cut = EventReader(), EventReader()
    expected = list(whole.receive_data(data))
    assert [one for start in range(len(data)) for one in cut.receive_data(data[start : start + 1])] == expected
    payload = data.replace(b"\n", b"").replace(b"\r", b"")
    if payload:
        assert list(EventReader().receive_data(encode_event(payload, id="1-2", retry_ms=5))) == [payload]


TARGETS = {"framing": framing, "envelope": envelope, "events": events}

# What a search by coverage starts from.
SEEDS = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","_meta":{"progressToken":"t"}}}',
    b'{"jsonrpc":"2.0","id":"a","result":{"content":[]}}\n{"jsonrpc":"2.0","method":"notifications/x"}\r\n',
    b'{"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "\\ud83d\\ude00 \xe2\x98\x83"}}',
    b"event: message\r\nid: 1-2\r\nretry: 5\r\ndata: {}\r\n\r\n: ping\n\ndata: a\ndata:b\n\n",
)
