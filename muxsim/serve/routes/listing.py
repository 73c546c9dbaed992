"""Lists of sessions: which ones, a page at a time, and what is told of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from muxsim.session.endings import Past
from muxsim.session.registry import Sessions
from muxsim.session.session import Session
from muxsim.session.states import State

PAGE: Final = 100
"""How many sessions a page has, unless another number is asked for."""

LONGEST_PAGE: Final = 1000
_PARAMETERS: Final = ("env", "state", "owner", "seed", "cause", "limit", "after")
_STATES: Final = tuple(state.value for state in State)


@dataclass(frozen=True, slots=True)
class Look:
    """Which sessions are looked for: those of which each of ``facts`` is so, and after the one of this number."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    limit: int = PAGE
    after: int = 0

    @property
    def back(self) -> bool:
        """Whether it is about sessions that have ended, too."""
        return self.facts.get("state") == State.ENDED.value or "cause" in self.facts

    def admits(self, one: Session | Past) -> bool:
        """Whether this is one of those."""
        if one.number <= self.after:
            return False
        known = facts_of(one)
        return all(known[name] == value for name, value in self.facts.items())


def look_for(asked: Mapping[str, Any]) -> Look:
    """What parameters ask for, of a URL or a question. Raises ValueError, which says what they may be."""
    given = {name: str(value) for name, value in asked.items() if value is not None}
    for name in given:
        if name not in _PARAMETERS:
            raise ValueError(f"sessions are looked for by {', '.join(_PARAMETERS)}, not by {name!r}")
    facts: dict[str, Any] = {name: given[name] for name in ("env", "state", "owner", "cause") if name in given}
    if facts.get("state", _STATES[0]) not in _STATES:
        raise ValueError(f"state {facts['state']!r} must be one of {', '.join(_STATES)}")
    if "seed" in given:
        facts["seed"] = _whole(given, "seed", 0)
    limit = min(_whole(given, "limit", 1), LONGEST_PAGE) if "limit" in given else PAGE
    return Look(facts, limit, _whole(given, "after", 0) if "after" in given else 0)


def _whole(given: Mapping[str, str], name: str, least: int) -> int:
    text = given[name]
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) >= least):
        raise ValueError(f"{name} {text!r} must be a whole number from {least}")
    return int(text)


def page_of(sessions: Sessions, look: Look, tell: Callable[[Session | Past], dict[str, Any] | None]) -> dict[str, Any]:
    """A page of those that are looked for, oldest first, and where the ``next`` one begins; null for the last.

    ``tell`` gives what is told of each; None leaves it out.
    """
    all_of_them: list[Session | Past] = [*sessions.all()]
    if look.back:
        all_of_them = sorted([*all_of_them, *sessions.ended()], key=lambda one: one.number)
    rows: list[dict[str, Any]] = []
    last = 0
    for one in all_of_them:
        if look.admits(one) and (row := tell(one)) is not None:
            if len(rows) == look.limit:
                return {"sessions": rows, "next": str(last)}
            rows.append(row)
            last = one.number
    return {"sessions": rows, "next": None}


def facts_of(one: Session | Past) -> dict[str, Any]:
    """What can be looked for."""
    if isinstance(one, Past):
        cause: str | None = one.ending.cause
        state, env = State.ENDED.value, one.env
    else:
        cause = None if one.ending is None else one.ending.cause
        state, env = one.state.value, one.spec.name
    return {"env": env, "state": state, "owner": one.owner, "seed": one.seed, "cause": cause}


def outline(session: Session) -> dict[str, Any]:
    """What can be told of a session without its id, which opens it."""
    statistics, now = session.statistics(), trio.current_time()
    ending, left = session.ending, session.lease_left(now)
    return {
        "number": session.number,
        "env": session.spec.name,
        "seed": session.seed,
        "state": session.state.value,
        "owner": session.owner,
        "peer": session.peer,
        "pid": session.pid,
        "age": round(now - session.created, 3),
        "lease": session.lease,
        "lease_left": None if left is None else round(left, 1),
        "attachments": statistics.attachments,
        "calls": statistics.calls,
        "in_flight": statistics.in_flight,
        **({} if ending is None else {"cause": ending.cause}),
    }


def outline_of_past(past: Past) -> dict[str, Any]:
    """The same of one that has ended; ``ended`` is how many seconds ago."""
    return {
        "number": past.number,
        **facts_of(past),
        "peer": past.peer,
        "pid": None,
        "age": round(past.ended - past.created, 3),
        "ended": round(trio.current_time() - past.ended, 3),
        "why": past.ending.said,
    }


def told(one: Session | Past) -> dict[str, Any]:
    """What whoever may see a session is told of it, wherever it is in its life."""
    return {"id": one.id, **(outline_of_past(one) if isinstance(one, Past) else outline(one))}


def inside(session: Session) -> dict[str, Any]:
    """What else there is to know of a session that lives, for whoever runs muxsim: a look at all of it."""
    now, idle_since = trio.current_time(), session.idle_since
    workspace = session.folder.path
    return {
        "shared": session.shared,
        "protocol": session.agreed_version,
        "idle": None if idle_since is None else round(now - idle_since, 3),
        "workspace": None if workspace is None else str(workspace),
        "clients": [
            {
                "transport": one.kind,
                "principal": one.principal,
                "peer": one.peer,
                "silent": round(now - one.last_heard, 3),
            }
            for one in session.conversation.clients
        ],
        "stderr": list(session.last_words),
    }
