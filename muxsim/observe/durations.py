"""How long things took that are told as events: starts, waits in the queue, installs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from muxsim.observe import events
from muxsim.observe.distribution import Distribution
from muxsim.observe.events import Event


class Timed(NamedTuple):
    """What an event adds to: the name and the bounds of what is counted; the fields it is counted by; its seconds."""

    name: str
    bounds: tuple[float, ...]
    labels: tuple[str, ...]
    seconds: str


START: Final = "session_start_seconds"
WAIT: Final = "queue_wait_seconds"
INSTALL: Final = "install_seconds"

TIMED: Final[Mapping[type[Event], Timed]] = {
    events.SessionReady: Timed(START, (0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0), ("env", "way"), "start"),
    events.OpenWaited: Timed(WAIT, (0.01, 0.1, 1.0, 5.0, 15.0, 60.0), ("env",), "seconds"),
    events.InstallFinished: Timed(INSTALL, (1.0, 5.0, 15.0, 60.0, 300.0), ("env",), "seconds"),
}
"""What is timed; other events are not."""


class Durations:
    """A listener for `muxsim.observe.events.Events`, which counts how long things took."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, tuple[str, ...]], Distribution] = {}

    def __repr__(self) -> str:
        return f"<Durations {self._known}>"

    def __call__(self, event: Event) -> None:
        """Count it."""
        timed = TIMED.get(type(event))
        if timed is not None:
            key = timed.name, tuple(getattr(event, label) for label in timed.labels)
            known = self._known.get(key) or self._known.setdefault(key, Distribution(timed.bounds))
            known.add(getattr(event, timed.seconds))

    def of(self, name: str) -> dict[tuple[str, ...], Distribution]:
        """What is counted under this name, by its labels."""
        return {labels: one for (other, labels), one in list(self._known.items()) if other == name}
