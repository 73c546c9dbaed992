"""What is said in sessions: calls with their seconds and bytes, errors, stderr, by environment. Pure.

It happens too often for an event each time. Whoever has it before him counts it here, where anybody wants to know.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

from muxsim.observe.distribution import Distribution

CALL_SECONDS: Final = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
"""The bounds by which calls are counted."""

METHODS: Final = frozenset(
    {
        "completion/complete",
        "initialize",
        "logging/setLevel",
        "ping",
        "prompts/get",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/subscribe",
        "resources/templates/list",
        "resources/unsubscribe",
        "server/discover",
        "subscriptions/listen",
        "tasks/cancel",
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tasks/update",
        "tools/call",
        "tools/list",
    }
)
"""What MCP lets a client ask; whatever else one asks is `OTHER`."""

OTHER: Final = "other"
BACKEND: Final = "backend"
"""The kind of an error that is the backend's own answer; other kinds are muxsim's."""


class Calls(Distribution):
    """Those of one method that a backend has answered, with the bytes of their requests and of their answers."""

    __slots__ = ("answers", "requests")

    def __init__(self) -> None:
        super().__init__(CALL_SECONDS)
        self.requests = 0
        self.answers = 0


class Traffic:
    """Of all sessions of one environment since the start."""

    __slots__ = ("calls", "errors", "stderr_bytes")

    def __init__(self) -> None:
        self.calls: dict[str, Calls] = {}
        self.errors: Counter[str] = Counter()
        """By kind: `BACKEND`, or what muxsim has answered in its stead."""
        self.stderr_bytes = 0

    def __repr__(self) -> str:
        return f"<Traffic {self.calls}>"

    def answered(self, method: str, seconds: float, request: int, answer: int) -> None:
        """A call was answered by the backend: it took so long, and its request and answer so many bytes."""
        calls = self.calls.get(method) or self._calls_of(method)
        # On the way of every call: as `Distribution.add`, without being called.
        calls.counts[bisect_left(CALL_SECONDS, seconds)] += 1
        calls.sum += seconds
        calls.requests += request
        calls.answers += answer

    def failed(self, kind: str) -> None:
        """A client was answered an error of this kind."""
        self.errors[kind] += 1

    def wrote(self, size: int) -> None:
        """A backend has written so many bytes on stderr."""
        self.stderr_bytes += size

    def _calls_of(self, method: str) -> Calls:
        return self.calls.setdefault(method if method in METHODS else OTHER, Calls())


class Traffics:
    """The traffic of every environment, each made when the first session of it is."""

    def __init__(self) -> None:
        self._by_env: dict[str, Traffic] = {}

    def of(self, env: str) -> Traffic:
        """That of this environment."""
        return self._by_env.setdefault(env, Traffic())

    def all(self) -> list[tuple[str, Traffic]]:
        """That of each, with its name."""
        return list(self._by_env.items())
