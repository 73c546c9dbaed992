"""What has become of each environment's sessions: for whoever looks now, and was not there when it happened."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from muxsim.observe import events
from muxsim.observe.events import FAILURES, Event

STARTS_KEPT: Final = 256
"""Of each way, those that the median is of, and the 99th percentile."""

EnvironmentState: TypeAlias = Literal["ok", "broken", "failed", "installing"]
"""``broken``: starts keep failing, and none is tried for a while; ``failed``: the last one did."""

_MOST_STARTS: Final = 4096
"""Of those since somebody has asked last."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, when (seconds since 1970), and what the backend had said on stderr."""

    time: float
    text: str
    stderr: tuple[str, ...] = ()


@dataclass(slots=True)
class EnvironmentNews:
    """Of one environment, since this process began."""

    opens: int = 0
    failures: int = 0
    last_failure: Failure | None = None
    failing: bool = False
    """Whether the last session that was to start, or to be played to its end, did not."""
    installing: bool = False
    broken_until: float = 0.0
    """Until when nothing is started, if its breaker is open (seconds since 1970)."""
    starts: dict[str, deque[float]] = field(default_factory=dict)

    def median(self, way: str) -> float | None:
        """Of the seconds of the last starts in this way; None if there was none."""
        kept = self.starts.get(way)
        return statistics.median(kept) if kept else None

    def quantile(self, way: str, share: float) -> float:
        """What so large a share of these took at most; there has to be one."""
        kept = sorted(self.starts[way])
        return kept[max(0, math.ceil(share * len(kept)) - 1)]

    def state(self, *, broken: bool) -> EnvironmentState:
        """How it fares; ``broken`` is whether its breaker is open."""
        if broken:
            return "broken"
        if self.installing:
            return "installing"
        return "failed" if self.failing else "ok"


class News:
    """A listener for `muxsim.observe.events.Events`. ``now`` gives the seconds since 1970."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._news: dict[str, EnvironmentNews] = {}
        self._starts: deque[float] = deque(maxlen=_MOST_STARTS)
        self._hears: Mapping[type[Event], Callable[[Any], None]] = {
            events.SessionStarted: self._started,
            events.SessionReady: self._ready,
            events.SessionOpenFailed: self._not_opened,
            events.SessionEnded: self._ended,
            events.BreakerOpened: self._broken,
            events.InstallStarted: self._installing,
            events.InstallFinished: self._installed,
            events.InstallFailed: self._not_installed,
        }

    def __repr__(self) -> str:
        return f"<News of {len(self._news)} environments>"

    def __call__(self, event: Event) -> None:
        """Take note of it."""
        hear = self._hears.get(type(event))
        if hear is not None:
            hear(event)

    def of(self, env: str) -> EnvironmentNews:
        """What is known of an environment."""
        news = self._news.get(env)
        if news is None:
            news = self._news[env] = EnvironmentNews()
        return news

    def starts_taken(self) -> list[float]:
        """How long the starts took since this was asked last, in seconds: the last of them if they were many."""
        taken = list(self._starts)
        self._starts.clear()
        return taken

    def _started(self, event: events.SessionStarted) -> None:
        news = self.of(event.env)
        news.opens += 1
        news.failing = False

    def _ready(self, event: events.SessionReady) -> None:
        kept = self.of(event.env).starts.setdefault(event.way, deque(maxlen=STARTS_KEPT))
        kept.append(event.start)
        self._starts.append(event.start)

    def _not_opened(self, event: events.SessionOpenFailed) -> None:
        if not event.refused:
            self._fail(event.env, event.error)

    def _ended(self, event: events.SessionEnded) -> None:
        if event.cause in FAILURES:
            self._fail(event.env, event.text, event.stderr or ())

    def _fail(self, env: str, text: str, stderr: tuple[str, ...] = ()) -> None:
        news = self.of(env)
        news.failures += 1
        news.failing = True
        news.last_failure = Failure(self._now(), text, stderr)

    def _broken(self, event: events.BreakerOpened) -> None:
        self.of(event.env).broken_until = self._now() + event.seconds

    def _installing(self, event: events.InstallStarted) -> None:
        self.of(event.env).installing = True

    def _installed(self, event: events.InstallFinished) -> None:
        self.of(event.env).installing = False

    def _not_installed(self, event: events.InstallFailed) -> None:
        self.of(event.env).installing = False
