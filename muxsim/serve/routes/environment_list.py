"""What `GET /envs` has of each environment: where it is, and for whoever may look inside, how it fares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from muxsim.admission.pool import Pool
from muxsim.observe.news import EnvironmentNews, News
from muxsim.serve.auth.callers import Caller, Scope
from muxsim.session.registry import Sessions
from muxsim.spec import EnvSpec

_WAYS: Final = ("fresh", "fork", "slot")
# An error may have paths of this machine in it, and what an environment says: nothing for agents.
_INSIDE: Final = (Scope.TRAINER, Scope.MONITOR)


Located: TypeAlias = Callable[[EnvSpec, Iterable[str]], Mapping[str, str]]
"""Gives where an environment is found, with these wires of trainers."""


class EnvironmentList:
    """Of one muxsim. ``now`` gives the seconds since 1970; ``wires`` are what trainers find beside its endpoints."""

    def __init__(
        self, sessions: Sessions, pool: Pool, news: News, now: Callable[[], float], wires: Iterable[str]
    ) -> None:
        self._sessions = sessions
        self._pool = pool
        self._news = news
        self._now = now
        self._wires = tuple(wires)

    def rows(self, caller: Caller, urls: Located | None) -> list[dict[str, Any]]:
        """All that can be had, with their ``urls`` where somebody asks who can use these."""
        specs = self._sessions.specs()
        rows = [_outside(spec, {} if urls is None else urls(spec, self._wires)) for spec in specs]
        if any(scope in caller.scope for scope in _INSIDE):
            live = Counter(session.spec.name for session in self._sessions.all())
            waiting, starting = self._pool.under_way()
            broken = self._pool.statistics().leases.breakers_open
            for row, spec in zip(rows, specs, strict=True):
                name, news = spec.name, self._news.of(spec.name)
                row["state"] = news.state(broken=name in broken)
                row["retry_after"] = round(max(0.0, news.broken_until - self._now()), 1) if name in broken else None
                row |= {"live": live[name], "waiting": waiting[name], "starting": starting[name]}
                row |= {"opens": news.opens, "failures": news.failures, "starts": _starts(news)}
                row["error"] = _error(news, caller)
        return rows


def _outside(spec: EnvSpec, urls: Mapping[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {"name": spec.name, "shared": spec.shared}
    row |= {"mcp": urls["mcp"], "urls": urls} if urls else {}
    return row | ({"collect": spec.collect} if spec.collect else {})


def _starts(news: EnvironmentNews) -> dict[str, dict[str, float]]:
    """Of each way that any of the last starts has come: how many, and how long they took, in seconds."""
    return {
        way: {"count": len(kept), "median": round(median, 4), "p99": round(news.quantile(way, 0.99), 4)}
        for way in _WAYS
        if (kept := news.starts.get(way)) and (median := news.median(way)) is not None
    }


def _error(news: EnvironmentNews, caller: Caller) -> dict[str, Any] | None:
    failure = news.last_failure
    if failure is None:
        return None
    # What a backend has said may be of somebody else's session.
    stderr = {"stderr": failure.stderr} if caller.scope is Scope.ADMIN else {}
    return {"time": round(failure.time, 3), "text": failure.text, **stderr}
