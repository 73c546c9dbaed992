"""What came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Record:
    """What happened, and what must not have."""

    answers: Counter = field(default_factory=Counter)
    steps: Counter = field(default_factory=Counter)
    lives: Counter = field(default_factory=Counter)
    wrongs: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)  # MiB of muxsim, every five seconds
    trouble: int = 0  # how often something fatal was done to muxsim's own processes

    def wrong(self, life, what):
        steps = " ".join(map(str, life.steps))
        self.wrongs.append(f"slot {life.slot} life {life.number} ({life.env} by {life.way}): {what}\n    [{steps}]")


class Violation(Exception):
    """A promise that was not kept."""


class Gone(Exception):
    """The session has ended, which something of its plan has brought about."""


def is_answer(message):
    return "method" not in message and ("result" in message or "error" in message)
