"""When to ask an endpoint again. Pure: the time and the dice come as arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from math import isfinite

_TOO_MANY_REQUESTS = 429
# Request timeout and conflict besides the rate limit: statuses below 500 that a second try may cure.
_PASSING = frozenset({408, 409, _TOO_MANY_REQUESTS})
# Refusals of a whole crowd must not come back in one moment: each wait grows by up to this share of itself.
_SPREAD = 0.25


@dataclass(frozen=True)
class Failure:
    """A call that gave no message. ``status`` is None where there was no answer; ``retry_after`` is in seconds."""

    message: str
    status: int | None = None
    retry_after: float | None = None
    passing: bool = True

    @property
    def is_rate_limit(self) -> bool:
        """Whether the endpoint asked for fewer calls."""
        return self.status == _TOO_MANY_REQUESTS


@dataclass(frozen=True)
class RetryRule:
    """How long to go on about one message.

    ``attempts`` bounds the calls that fail for another reason than the rate limit, the first included; ``patience`` the
    seconds spent waiting between calls, whatever the reason. Without a word from the endpoint, waits double from
    ``first_delay`` up to ``longest_delay`` seconds.
    """

    attempts: int = 5
    patience: float = 300.0
    first_delay: float = 0.5
    longest_delay: float = 30.0


@dataclass
class Retries:
    """The retries of one message; ``dice`` gives numbers from 0 to 1."""

    rule: RetryRule
    dice: Callable[[], float]
    calls: int = 0
    waited: float = 0.0
    _failed: int = field(default=0, repr=False)

    def delay_after(self, failure: Failure) -> float | None:
        """Seconds to wait before the next call; None means to give up."""
        self.calls += 1
        self._failed += not failure.is_rate_limit
        if not failure.passing or self._failed >= self.rule.attempts:
            return None
        delay = self._delay(failure.retry_after)
        if self.waited + delay > self.rule.patience:
            return None
        self.waited += delay
        return delay

    def _delay(self, retry_after: float | None) -> float:
        if retry_after is None:
            doubled = self.rule.first_delay * 2.0 ** min(self.calls - 1, 60)
            # Half of it at least, so that a low throw of the dice is no hot loop.
            return min(doubled, self.rule.longest_delay) * (0.5 + self.dice() / 2)
        return max(retry_after, self.rule.first_delay) * (1 + _SPREAD * self.dice())


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


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if isfinite(number) and number >= 0 else None


def _until(date: str, now: float) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - now)
    except ValueError:
        return None
