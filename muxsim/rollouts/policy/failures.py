"""What an endpoint says in place of a message, and whose fault that is. Pure.

Errors come with a status, in a body whose status was 200, in a choice, and in the middle of a stream; as OpenAI's
object, as Google's, which may stand in a list, as FastAPI's ``detail``, as plain text. Wherever one comes, it is read
here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from math import isfinite
from typing import Final

import msgspec

from muxsim.rollouts.data.trajectory import Usage

_TOO_MANY_REQUESTS: Final = 429
# Request timeout and conflict besides the rate limit: statuses below 500 that a second try may cure.
_PASSING: Final = frozenset({408, 409, _TOO_MANY_REQUESTS})
# Enough to tell what is wrong, and no page of HTML from a proxy.
_LONGEST_MESSAGE: Final = 300
# No server nests its errors deeper, but a hostile one may.
_DEEPEST: Final = 8
_TOLD_BY: Final = ("message", "detail", "errors", "error", "msg")

# Of the account, whatever is asked: no key, no money. OpenAI says the second with a 429, which no waiting cures.
_NO_ACCOUNT: Final = frozenset({401, 402})
_SPENT: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_NO_ENTRY: Final = frozenset({403, 404, 405})
# Statuses with which endpoints say that they do not take this request, which another may not share.
_OF_REQUEST: Final = frozenset({400, 413, 415, 422})
_FILTERED: Final = "content_filter"

# The status that is meant, where there is only a word: in a 200, or in a stream. Lower case.
_STATUS_OF_WORD: Final[Mapping[str, int]] = {
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "too_many_requests": 429,
    "resource_exhausted": 429,
    "server_error": 500,
    "internal_error": 500,
    "internal_server_error": 500,
    "api_error": 500,
    "internal": 500,
    "unavailable": 503,
    "overloaded_error": 529,
    "timeout": 504,
    "timeout_error": 504,
    "deadline_exceeded": 504,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "unauthenticated": 401,
    "insufficient_quota": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "not_found": 404,
    "model_not_found": 404,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "tool_use_failed": 400,
    "content_filter": 400,
    "invalid_argument": 400,
    "invalid_request_error": 400,
}
_STATUS: Final = re.compile("[45][0-9][0-9]")
_OVERFLOW_WORDS: Final = frozenset({"context_length_exceeded", "exceed_context_size_error"})
# How OpenAI, vLLM, SGLang, llama.cpp, TGI, Anthropic, Google, Mistral, Fireworks, xAI, Bedrock, Cohere, Qwen, Zhipu and
# Moonshot put it.
_OVERFLOW: Final = re.compile(
    r"context (?:length|size|window|limit)|maximum (?:model|prompt) length|(?:prompt|input).{0,40}too (?:long|large)"
    r"|token count.{0,40}exceeds|too many tokens|`inputs` tokens \+|longer than the (?:maximum )?model"
    r"|reduce the length of the messages|range of input length|prompt exceeds|exceed\w* (?:the )?model token limit",
    re.IGNORECASE | re.DOTALL,
)
# Refused as too many calls are, though it would be by itself too: more tokens than the account may ask for in a minute.
_TOO_LARGE: Final = re.compile(
    r"request too large|must be reduced in order to run|reduce your message size", re.IGNORECASE
)
_NO_MODEL_WORDS: Final = frozenset({"model_not_found", "invalid_model"})
_NO_MODEL: Final = re.compile(
    r"(?:no such|unknown|invalid) model|model\b.{0,80}(?:not exist|not found|doesn.t exist)|not a valid model",
    re.IGNORECASE | re.DOTALL,
)


class Cause(Enum):
    """Whose fault a failure is."""

    FAULT = auto()
    """The endpoint's own, or the way to it."""
    RATE_LIMIT = auto()
    """It asked for fewer calls."""
    NO_ACCOUNT = auto()
    """It takes nothing from whoever asks: key or money are missing."""
    NO_ENTRY = auto()
    """It has not what is asked for: model, address."""
    REQUEST = auto()
    """It does not take this request."""
    OVERFLOW = auto()
    """The conversation is longer than the model can read."""
    TOOL_CALL = auto()
    """The model wrote a tool call that the endpoint could not read: `Failure.written`."""


@dataclass(frozen=True)
class Failure:
    """A call that gave no message. ``status`` is None where there was no answer; ``retry_after`` is in seconds.

    ``passing`` says whether a second try may fare better. ``usage`` is what the call has cost all the same, ``silence``
    the seconds in which it had no answer.
    """

    message: str
    status: int | None = None
    retry_after: float | None = None
    passing: bool = True
    cause: Cause = Cause.FAULT
    written: str = ""
    usage: Usage = field(default_factory=Usage)
    silence: float = 0.0

    @property
    def is_rate_limit(self) -> bool:
        """Whether the endpoint asked for fewer calls."""
        return self.cause is Cause.RATE_LIMIT


def failure_of(body: object, status: int | None, headers: Mapping[str, str], now: float) -> Failure:
    """What an error says. ``status`` is the answer's own; None, where that was 200, looks for it in ``body``."""
    error = _error_in(body)
    words = _words_of(error)
    message = _message_of(error)
    status = status if status is not None else _status_in(error, words)
    cause = _cause(status, words, message, error)
    return Failure(
        shortened(message),
        status,
        _asked_for(error) if (asked := retry_after(headers, now)) is None else asked,
        _is_passing(cause, status, headers),
        cause,
        _written(error) if cause is Cause.TOOL_CALL else "",
    )


def _is_passing(cause: Cause, status: int | None, headers: Mapping[str, str]) -> bool:
    if cause is Cause.REQUEST and status == _TOO_MANY_REQUESTS:
        return False
    return cause in {Cause.FAULT, Cause.RATE_LIMIT, Cause.REQUEST} and (status is None or is_passing(status, headers))


def is_passing(status: int, headers: Mapping[str, str]) -> bool:
    """Whether a second try may fare better. OpenAI's ``x-should-retry`` knows better than the status."""
    advice = headers.get("x-should-retry")
    if advice in {"true", "false"}:
        return advice == "true"
    return status in _PASSING or status >= 500


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """The seconds a refusal asks to wait: ``retry-after-ms``, or ``retry-after`` as seconds or as a date.

    ``headers`` has lower-case names or does not mind; ``now`` is seconds since the epoch. None where there is nothing
    that can be read.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    return seconds if seconds is not None or text is None else _until(text, now)


def shortened(text: str) -> str:
    """One line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}…"


def _cause(status: int | None, words: frozenset[str], message: str, error: object) -> Cause:
    if words & _SPENT or status in _NO_ACCOUNT:
        return Cause.NO_ACCOUNT
    if status == _TOO_MANY_REQUESTS:
        return Cause.REQUEST if _TOO_LARGE.search(message) else Cause.RATE_LIMIT
    if "tool_use_failed" in words or (isinstance(error, dict) and "failed_generation" in error):
        return Cause.TOOL_CALL
    if words & _OVERFLOW_WORDS or (status in _OF_REQUEST and _OVERFLOW.search(message)):
        return Cause.OVERFLOW
    if words & _NO_MODEL_WORDS or status in _NO_ENTRY or (status in _OF_REQUEST and _NO_MODEL.search(message)):
        return Cause.NO_ENTRY
    return Cause.REQUEST if status in _OF_REQUEST or _FILTERED in words else Cause.FAULT


def _error_in(body: object) -> object:
    """The innermost thing that tells of an error: an object with a message, or what stands in its place."""
    for _ in range(_DEEPEST):
        if isinstance(body, list):
            body = body[0] if body else None
        elif isinstance(body, dict) and body.get("error"):
            body = body["error"]
        else:
            break
    return body


def _words_of(error: object) -> frozenset[str]:
    if not isinstance(error, dict):
        return frozenset()
    return frozenset(str(error[key]).lower() for key in ("code", "type", "status") if isinstance(error.get(key), str))


def _status_in(error: object, words: frozenset[str]) -> int | None:
    if isinstance(error, dict):
        for key in ("code", "status", "status_code", "http_status"):
            text = str(error.get(key))
            if _STATUS.fullmatch(text):
                return int(text)
    # The one that says most first: an OpenAI error's type is the same for much.
    known = sorted((_STATUS_OF_WORD[word] for word in words if word in _STATUS_OF_WORD), reverse=True)
    return known[0] if known else None


def _message_of(error: object) -> str:
    """An error's words, and those of the provider behind a router: its own are "Provider returned error"."""
    metadata = error.get("metadata") if isinstance(error, dict) else None
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    return f"{_told(error)}: {_told(raw)}" if raw else _told(error)


def _told(error: object) -> str:
    """The text in one of the forms that servers have for it."""
    for _ in range(_DEEPEST):
        if isinstance(error, list):
            error = error[0] if error else None
        elif isinstance(error, dict):
            inner = next((error[key] for key in _TOLD_BY if error.get(key)), None)
            if isinstance(inner, str) and isinstance(error.get("loc"), list):  # FastAPI: which part of the request
                return f"{'.'.join(map(str, error['loc']))}: {inner}"
            error = msgspec.json.encode(error).decode() if inner is None else inner
    return str(error or "")


def _asked_for(error: object) -> float | None:
    """The wait that Google asks for in an error's details: ``"retryDelay": "30s"``."""
    details = error.get("details") if isinstance(error, dict) else None
    delays = [one.get("retryDelay") for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    return next((_number(delay.removesuffix("s")) for delay in delays if isinstance(delay, str)), None)


def _written(error: object) -> str:
    written = error.get("failed_generation") if isinstance(error, dict) else None
    return written if isinstance(written, str) else ""


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if isfinite(number) and number >= 0 else None


def _until(date: str, now: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - now)
    except (ValueError, OverflowError):
        return None
