"""What it costs to tell what happens: where nobody listens, where it is counted, and where the log leaves it out."""

from __future__ import annotations

import timeit
from collections.abc import Callable

from muxsim.observe.counters import Counters
from muxsim.observe.events import Events, HTTPLimit, SessionReady
from muxsim.observe.log import EventLog
from muxsim.observe.recent import RecentLines

ROUNDS, TIMES = 200, 1_000


def nothing(event: object) -> None:
    """The yardstick: a call of a function."""


def ready() -> SessionReady:
    return SessionReady("0123456789abcdef0123456789abcdef", "frozen_lake", 7, 4711, 0.01)


def measured(call: Callable[[], object]) -> float:
    """Nanoseconds, of the round that was disturbed least."""
    return min(timeit.repeat(call, number=TIMES, repeat=ROUNDS)) / TIMES * 1e9


def main() -> None:
    silent, counted, quiet = Events(), Events(Counters()), Events()
    quiet.subscribe(EventLog("error", quiet, RecentLines(1)))
    rows: dict[str, Callable[[], object]] = {
        "a call of a function": lambda: nothing(None),
        "making an event": ready,
        "telling it, nobody listens": lambda: silent.emit(ready()),
        "telling of a bound, nobody listens": lambda: silent.emit(HTTPLimit("max_body")),
        "telling of a bound that is counted": lambda: counted.emit(HTTPLimit("max_body")),
        "telling what the log leaves out": lambda: quiet.emit(ready()),
    }
    results = {name: measured(call) for name, call in rows.items()}
    unit = results["a call of a function"]
    for name, nanoseconds in results.items():
        print(f"{name:40} {nanoseconds:7.0f} ns  {nanoseconds / unit:5.1f} calls")


if __name__ == "__main__":
    main()
