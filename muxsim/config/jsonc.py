"""JSON as editors write it: with comments, commas before a closing bracket, and numbers that keep their digits."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n\r]*|/\*.*?\*/', re.DOTALL)
_LAST_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)


class Written(float):
    """A number with a fraction or an exponent, and the text that it is in the file."""

    text: str

    def __new__(cls, text: str) -> Written:
        """The number that ``text`` says."""
        number = super().__new__(cls, text)
        number.text = text
        return number


def decode(text: str) -> Any:
    """What the text holds. Raises ValueError, which says where it is no JSON."""
    plain = _blanked(_LAST_COMMA, _blanked(_COMMENT, text))
    try:
        parsed = json.loads(plain, parse_float=Written, parse_constant=_refuse)
        json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("half a character (a lone surrogate) stands in one of its strings") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return parsed


def _blanked(pattern: re.Pattern[str], text: str) -> str:
    """``text`` with what is found blank, strings left alone, so that the places in messages stay right."""
    return pattern.sub(lambda match: match[1] or re.sub(r"[^\n\r]", " ", match[0]), text)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")
