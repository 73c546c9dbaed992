"""What goes on in the whole server, as rows: looked at a few times a second, and only while somebody watches."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

import msgspec
import trio

from muxsim.admission.pool import Pool
from muxsim.observe.counters import Counters
from muxsim.observe.events import FAILURES, Event, SessionEnded, SessionOpenFailed, SessionOpening, SessionStarted
from muxsim.observe.news import EnvironmentNews, News
from muxsim.serve.auth.callers import Caller, Scope
from muxsim.serve.watch import feed
from muxsim.session.registry import Sessions
from muxsim.session.sampler import Sampler
from muxsim.session.session import Session
from muxsim.spec import EnvSpec

# Seconds for which a session that has ended is shown, and how many of the newest.
_ENDED_SHOWN: Final = 600.0
_MOST_ENDED: Final = 1000
# What has gone is told to readers that are no further behind than this; others get all of it anew.
_GONE_KEPT: Final = 20_000
# Environments, and sessions that are only counted, are looked at every so many looks.
_SELDOM: Final = 4
# Characters of a session's id that a monitor is shown, as in `GET /sessions`.
_SHOWN: Final = 8
_KEY: Final = secrets.token_bytes(16)


@dataclass(slots=True)
class _Line:
    """One row, whose it is, and at which look it became what it is; ``told`` is what is compared."""

    version: int
    row: feed.SessionRow
    owner: str | None
    shared: bool
    told: tuple[object, ...]


class Board:
    """All that anybody may see of the server. A listener for `muxsim.observe.events.Events`, for ends and beginnings.

    `look` makes it current; a reader gets what has changed since the ``version`` that it had last.
    """

    def __init__(
        self,
        sessions: Sessions,
        pool: Pool,
        sampler: Sampler,
        recent: News,
        counters: Counters,
        default_env: Callable[[], str | None],
        now: Callable[[], float],
    ) -> None:
        self._sessions = sessions
        self._pool = pool
        self._sampler = sampler
        self._recent = recent
        self._counters = counters
        self._default_env = default_env
        self._now = now
        # Noted of every opening, also while nobody looks: what it looks like is for whoever does.
        self._opening: dict[str, tuple[float, SessionOpening]] = {}
        self._ended: OrderedDict[str, _Line] = OrderedDict()
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._gone: deque[tuple[int, _Line]] = deque(maxlen=_GONE_KEPT)
        self._environments: dict[str, tuple[int, feed.Environment]] = {}
        self._gone_environments: list[tuple[int, str]] = []
        self._bounds: dict[str, tuple[int, feed.Bound]] = {}
        self._knows_bounds = False
        self._counts: Counter[tuple[str, feed.SessionState, str | None, str | None, bool]] = Counter()
        self._counts_version = 0
        self._looks = 0
        self.version = 0
        """Counts up with every look that found something changed."""
        self.since = 0
        """Who is behind this version cannot be told what has changed: they need all of it."""
        self.counting = False
        """Whether there are too many sessions to list them."""

    def __repr__(self) -> str:
        return f"<Board of {len(self._lines)} sessions, version {self.version}>"

    # ---- what happens between two looks, and while nobody looks

    def __call__(self, event: Event) -> None:
        """Take note of a session that opens, or has ended: neither is among those that live."""
        kind = type(event)
        if kind is SessionOpening:
            assert isinstance(event, SessionOpening)
            self._opening[event.session] = self._now(), event
        elif kind is SessionStarted or kind is SessionOpenFailed:
            assert isinstance(event, SessionStarted | SessionOpenFailed)
            self._opening.pop(event.session, None)
        elif kind is SessionEnded:
            assert isinstance(event, SessionEnded)
            self._end(event)

    def _end(self, event: SessionEnded) -> None:
        session = self._sessions.get(event.session)
        if session is None:
            return
        now = self._now()
        row = _row(session, "ended", now, now - event.seconds, end=event.cause)
        self._ended[event.session] = _Line(0, row, session.owner, session.shared, ("ended", now))
        if len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)

    # ---- a look

    def look(self) -> None:
        """Make everything current."""
        before, version = self.version, self.version + 1
        self._looks += 1
        seldom = self._looks % _SELDOM == 1
        live = self._sessions.all()
        self._forget_ended()
        counting = len(live) + len(self._opening) + len(self._ended) > feed.MOST_ROWS
        if counting is not self.counting:
            self.counting = counting
            self._start_over(version)
        if not counting:
            self._look_at_each(live, version)
        elif seldom or not self._counts:
            self._count(live, version)
        if seldom:
            self._look_at_environments(live, version)
            self._look_at_bounds(version)
        if self.version == before and self._changed_in(version):
            self.version = version

    def rest(self) -> None:
        """Forget what is only for readers: there are none."""
        self._start_over(self.version + 1)
        self._looks = 0
        self._environments.clear()
        self._bounds.clear()
        self._knows_bounds = False
        self._gone_environments.clear()

    def _start_over(self, version: int) -> None:
        self._lines.clear()
        self._gone.clear()
        self._counts.clear()
        self._counts_version = self.version = self.since = version

    def _changed_in(self, version: int) -> bool:
        newest = next(reversed(self._lines.values()), None)
        return (
            (newest is not None and newest.version == version)
            or bool(self._gone and self._gone[-1][0] == version)
            or self._counts_version == version
            or any(one[0] == version for one in self._environments.values())
            or any(one[0] == version for one in self._gone_environments)
            or any(one[0] == version for one in self._bounds.values())
        )

    def _forget_ended(self) -> None:
        until = self._now() - _ENDED_SHOWN
        while self._ended and next(iter(self._ended.values())).row.since < until:
            self._ended.popitem(last=False)

    def _look_at_each(self, live: list[Session], version: int) -> None:
        lines, now = self._lines, self._now()
        offset = now - trio.current_time()
        there = {session.id for session in live}
        for session in live:
            conversation = session.conversation
            told = (session.state, conversation.calls_made, conversation.router.in_flight)
            line = lines.get(session.id)
            if line is None or line.told != told:
                opened = session.created + offset
                same = line is not None and line.told[0] is session.state
                since = line.row.since if line is not None and same else opened if line is None else now
                row = _row(session, session.state.value, since, opened)
                self._put(_Line(version, row, session.owner, session.shared, told))
        for line in self._others(there):
            known = lines.get(line.row.id)
            if known is None or known.told != line.told:
                line.version = version
                self._put(line)
        if len(lines) > len(there):
            kept = there | self._opening.keys() | self._ended.keys()
            for id in [id for id in lines if id not in kept]:
                line = lines.pop(id)
                if len(self._gone) == _GONE_KEPT:
                    self.since = self._gone[0][0]
                self._gone.append((version, line))

    def _others(self, there: set[str]) -> Iterator[_Line]:
        """Those that open, or have ended, unless they are ``there``: an id may be used again."""
        for time, event in self._opening.values():
            if event.session not in there:
                yield _opening(event, time)
        for id, line in self._ended.items():
            if id not in there and id not in self._opening:
                yield line

    def _put(self, line: _Line) -> None:
        self._lines[line.row.id] = line
        self._lines.move_to_end(line.row.id)

    def _count(self, live: list[Session], version: int) -> None:
        counts: Counter[tuple[str, feed.SessionState, str | None, str | None, bool]] = Counter(
            (session.spec.name, session.state.value, None, session.owner, session.shared) for session in live
        )
        for line in self._others({session.id for session in live}):
            counts[line.row.env, line.row.state, line.row.end, line.owner, line.shared] += 1
        if counts != self._counts:
            self._counts, self._counts_version = counts, version

    def _look_at_environments(self, live: list[Session], version: int) -> None:
        alive = Counter(session.spec.name for session in live)
        self._sampler.look()
        usage = self._sampler.by_environment()
        waiting, starting = self._pool.under_way()
        statistics = self._pool.statistics()
        broken, default, now = frozenset(statistics.leases.breakers_open), self._default_env(), self._now()
        specs = self._sessions.specs()
        for spec in specs:
            name, news = spec.name, self._recent.of(spec.name)
            warm = statistics.placement.warm.get(name)
            made = feed.Environment(
                name=name,
                kind=kind_of(spec),
                shared=spec.shared,
                default=name == default,
                state=news.state(broken=name in broken),
                retry_after=round(max(0.0, news.broken_until - now), 1) if name in broken else None,
                live=alive[name],
                warm=0 if warm is None else warm.ready,
                wanted_warm=0 if warm is None else warm.wanted,
                waiting=waiting[name],
                starting=starting[name],
                opens=news.opens,
                failures=news.failures,
                starts=feed.Starts(fresh=news.median("fresh"), fork=news.median("fork"), slot=news.median("slot")),
                memory=usage[name].memory if name in usage else 0,
                error=None if news.last_failure is None else _told(news),
            )
            known = self._environments.get(name)
            if known is None or known[1] != made:
                self._environments[name] = (version, made)
        for name in self._environments.keys() - {spec.name for spec in specs}:
            del self._environments[name]
            self._gone_environments.append((version, name))

    def _look_at_bounds(self, version: int) -> None:
        for setting, met in self._counters.limits().items():
            known = self._bounds.get(setting)
            if met and (known is None or known[1].met != met):
                # When it was met before anybody looked nobody has written down.
                last = self._now() if self._knows_bounds else None
                self._bounds[setting] = (version, feed.Bound(setting=setting, met=met, last=last))
        self._knows_bounds = True

    # ---- for readers

    def snapshot(self, caller: Caller, history: list[feed.Sample]) -> feed.Snapshot:
        """All that a caller may see."""
        return feed.Snapshot(
            environments=[for_caller(made, caller) for _, made in self._environments.values()],
            sessions=[row for line in self._lines.values() if (row := _seen(line, caller)) is not None],
            counts=self._counted(caller) if self.counting else None,
            bounds=[bound for _, bound in self._bounds.values()],
            history=history,
        )

    def changes(self, caller: Caller, since: int) -> feed.Change | None:
        """What a caller may see of what has changed since a version; None if nothing of that."""
        sessions = [row for line in self._newer(since) if (row := _seen(line, caller)) is not None]
        gone = [row.id for version, line in self._gone if version > since and (row := _seen(line, caller)) is not None]
        change = feed.Change(
            sessions=sessions,
            gone=gone,
            counts=self._counted(caller) if self.counting and self._counts_version > since else None,
            environments=[for_caller(made, caller) for version, made in self._environments.values() if version > since],
            gone_environments=[name for version, name in self._gone_environments if version > since],
            bounds=[bound for version, bound in self._bounds.values() if version > since],
        )
        return change if any(msgspec.structs.astuple(change)) else None

    def _newer(self, since: int) -> Iterator[_Line]:
        for line in reversed(self._lines.values()):
            if line.version <= since:
                return
            yield line

    def _counted(self, caller: Caller) -> list[feed.Count]:
        seen: Counter[tuple[str, feed.SessionState, str | None]] = Counter()
        for (env, state, end, owner, shared), sessions in self._counts.items():
            if _is_whole(caller, owner, shared=shared) or Scope.MONITOR in caller.scope:
                seen[env, state, end] += sessions
        return [feed.Count(env=env, state=state, end=end, sessions=count) for (env, state, end), count in seen.items()]


def _opening(event: SessionOpening, time: float) -> _Line:
    row = feed.SessionRow(
        id=event.session,
        env=event.env,
        seed=event.seed,
        owner=event.principal,
        state="opening",
        since=time,
        opened=time,
        calls=0,
        in_flight=0,
        end=None,
        failed=False,
    )
    return _Line(0, row, event.principal, False, ("opening", time))


def _is_whole(caller: Caller, owner: str | None, *, shared: bool) -> bool:
    """Whether a caller may have all of a session, and open it."""
    return Scope.TRAINER in caller.scope and caller.sees(owner, shared=shared)


def _seen(line: _Line, caller: Caller) -> feed.SessionRow | None:
    """What a caller may see of a session; a monitor has no id by which it could be opened."""
    if _is_whole(caller, line.owner, shared=line.shared):
        return line.row
    return msgspec.structs.replace(line.row, id=_unopened(line.row.id)) if Scope.MONITOR in caller.scope else None


def _unopened(id: str) -> str:
    """Another id that is as good for telling sessions apart, with the beginning that lists and logs have too."""
    return f"{id[: min(_SHOWN, len(id) // 2)]}~{hashlib.blake2b(id.encode(), key=_KEY, digest_size=6).hexdigest()}"


def _row(
    session: Session, state: feed.SessionState, since: float, opened: float, *, end: str | None = None
) -> feed.SessionRow:
    return feed.SessionRow(
        id=session.id,
        env=session.spec.name,
        seed=session.seed,
        owner=session.owner,
        state=state,
        since=round(since, 3),
        opened=round(opened, 3),
        calls=session.conversation.calls_made,
        in_flight=session.conversation.in_flight,
        end=end,
        failed=end in FAILURES,
    )


def _told(news: EnvironmentNews) -> feed.Failure:
    assert news.last_failure is not None
    failure = news.last_failure
    return feed.Failure(time=round(failure.time, 3), text=failure.text, stderr=list(failure.stderr))


def for_caller(environment: feed.Environment, caller: Caller) -> feed.Environment:
    """The environment as a caller may see it: what a backend said may be of somebody else's session."""
    error = environment.error
    if error is None or not error.stderr or caller.scope == Scope.ADMIN:
        return environment
    return msgspec.structs.replace(environment, error=msgspec.structs.replace(error, stderr=[]))


_INTERPRETERS: Final = (("python", "python"), ("pypy", "python"), ("node", "node"), ("npx", "npx"), ("uvx", "uvx"))


def kind_of(spec: EnvSpec) -> str:
    """What an environment's command is, by its name."""
    path = PurePath(spec.command)
    suffixes = {".py": "python", ".js": "node", ".mjs": "node", ".cjs": "node"}
    if path.suffix in suffixes:
        return suffixes[path.suffix]
    return next((kind for begin, kind in _INTERPRETERS if path.name.startswith(begin)), "program")
