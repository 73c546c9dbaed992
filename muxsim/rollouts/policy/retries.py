"""When to ask an endpoint again. Pure: the time and the dice come as arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from muxsim.rollouts.policy.failures import Failure

# Refusals of a whole crowd must not come back in one moment: each wait grows by up to this share of itself.
_SPREAD = 0.25


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
