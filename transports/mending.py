"""JSON as the SDKs' own parsers take it, made into what any parser takes. Pure: bytes in, bytes out.

Python's json writes ``NaN``, JavaScript's writes half of an emoji that was cut in two as ``\\ud83d``, and runtimes
write a byte order mark before all else. A strict decoder refuses the message for each.
What is mended here is validated by such a decoder afterwards: nothing is let through that is not JSON.

Every pattern takes each byte once, whatever stands there, for what is mended may be hostile and 64 MiB long.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from msgspec import Raw

_HALF_DIGITS: Final = rb"[dD][89a-fA-F][0-9a-fA-F]{2}"
_PAIR: Final = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
# What is no half of a surrogate pair, as much of it as there is, and then a half or the end.
_UP_TO_HALF: Final = re.compile(
    rb"((?:[^\\]++|\\[^u]|\\u(?!" + _HALF_DIGITS + rb")|" + _PAIR + rb")*+)(?:\\u(" + _HALF_DIGITS + rb")|(\\?)\Z)"
)
# What is no constant, strings as a whole, and then a constant, or all the rest where no JSON could go on like that.
_UP_TO_CONSTANT: Final = re.compile(
    rb'((?:[^"NI-]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|-(?!Infinity))*+)(?:(NaN|-?Infinity)|(.*))', re.DOTALL
)
# Stands in for "\\u" in front of a half while a strict decoder looks, and for itself.
_MARK, _MARKED_HALF, _MARKED_MARK = b"\x7f", b"\x7f1", b"\x7f0"
# What may stand around a message and is no part of it: white space, as some SDKs trim all that Unicode has, byte order
# marks, and the NUL that a string of C ends with.
_AROUND: Final = "\ufeff\u0085\u00a0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
BLANK: Final = b"\x00\t\n\x0b\x0c\r " + _AROUND.encode()
"""The bytes of all that: beside each other they are no JSON, whichever of them stand there."""
_USUAL_BEGINNINGS: Final = (b"{", b"[", b" ", b"\t", b"\r", b"\n")
_USUAL_ENDS: Final = (b"}", b"]", b" ", b"\t", b"\r", b"\n")
_members: Final = msgspec.json.Decoder(dict[str, Raw])
_elements: Final = msgspec.json.Decoder(list[Raw])


def mended(data: bytes) -> bytes:
    """``data`` without what stands around it, such as a byte order mark, and with null for numbers that JSON has not.

    Python's SDK sends null for these too. What is not UTF-8 stays as it is: nobody knows what was meant.
    """
    if data[:1] not in _USUAL_BEGINNINGS:
        data = data.lstrip(BLANK)
    if data[-1:] not in _USUAL_ENDS:
        data = data.rstrip(BLANK)
    if b"NaN" in data or b"Infinity" in data:
        data = _UP_TO_CONSTANT.sub(lambda found: found[1] + (b"null" if found[2] else found[3]), data)
    return data


def well_formed(data: bytes) -> bytes:
    """The same JSON with U+FFFD for each half of a surrogate pair, which is no character and has no UTF-8."""
    return _UP_TO_HALF.sub(lambda found: found[1] + (found[3] if found[2] is None else rb"\ufffd"), data)


def members(data: bytes) -> dict[str, Raw]:
    """The members of an object in which halves of surrogate pairs may stand; the values are the very bytes that came.

    A member whose name has one is left out. Raises as msgspec does.
    """
    found = _members.decode(_marked(data))
    return {
        name.replace(_MARKED_MARK.decode(), _MARK.decode()): _unmarked(raw)
        for name, raw in found.items()
        if _MARKED_HALF.decode() not in name
    }


def elements(data: bytes) -> list[Raw]:
    """The elements of an array, as `members`."""
    return [_unmarked(raw) for raw in _elements.decode(_marked(data))]


def value(raw: bytes | Raw) -> Any:
    """What JSON says, halves of surrogate pairs as U+FFFD. Raises as msgspec does."""
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        if b"\\u" not in bytes(raw):
            raise
    return msgspec.json.decode(well_formed(bytes(raw)))


def _marked(data: bytes) -> bytes:
    return _UP_TO_HALF.sub(
        lambda found: found[1] + (found[3] if found[2] is None else _MARKED_HALF + found[2]),
        data.replace(_MARK, _MARKED_MARK),
    )


def _unmarked(raw: Raw) -> Raw:
    return Raw(bytes(raw).replace(_MARKED_HALF, rb"\u").replace(_MARKED_MARK, _MARK))
