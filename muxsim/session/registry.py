"""All sessions of one muxsim: made, found and ended."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypedDict, Unpack

import trio

from muxsim.admission.admission import Refusal
from muxsim.admission.pool import Lease, Pool
from muxsim.errors import Busy, SessionExists, UnknownEnvironment
from muxsim.observe.events import Events, SessionOpenFailed, SessionOpening
from muxsim.runtime.boundary import background
from muxsim.runtime.soon import may_wait
from muxsim.session.endings import Endings, Past, past_of
from muxsim.session.held_folder import HeldFolder
from muxsim.session.session import Session
from muxsim.spec import EnvSpec
from transports.origin import Origin

# 128 bits that nobody guesses; hexadecimal, so that an id can stand in a URL, a header and a file name.
_ID_BYTES: Final = 16
# Not "..", nor anything that a command would take for an option: an id may become a path, or an argument.
_CHOSEN_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
# A client may look for the muxsim that takes the place of one that is drained.
DRAINING: Final = Refusal("draining", "this muxsim takes no new sessions: it is being drained", 5.0)
# Seeds that every environment and file format takes: non-negative, 32 bits with the sign.
SEED_LIMIT: Final = 2**31


class Wanted(TypedDict, total=False):
    """What is wanted of a session. What is left out, or None, is as if nobody had asked for it."""

    seed: int | None
    """Drawn if it is left open."""

    id: str | None
    """Drawn if it is left open."""

    ttl: float | None
    """Seconds that it may live; as long as the spec has it if it is left open."""

    lease: float | None
    """Seconds after which it ends unless its lease is renewed; without end if it is left open."""

    client: str | None
    """Whose share of the pool it counts for; else nobody's."""

    owner: str | None
    """The principal whose session it is."""

    asked_from: str | None
    """The address that the wish has come from."""

    origin: Origin | None
    """The request that asks for it."""


class Sessions:
    """Makes sessions on leases of a pool and knows those that live. Runs on trio; open it with `open_sessions`."""

    def __init__(self, pool: Pool, specs: Mapping[str, EnvSpec], events: Events, nursery: trio.Nursery) -> None:
        self._pool = pool
        self._specs = specs
        self._events = events
        self._nursery = nursery
        self._sessions: dict[str, Session] = {}
        self._folders: set[HeldFolder] = set()
        self._endings = Endings()
        self._now = trio.lowlevel.current_clock().current_time
        self._reserved: set[str] = set()
        self._last_number = 0
        self._shared: dict[str, tuple[EnvSpec, Session]] = {}
        self._sharing: dict[str, trio.Lock] = {}
        self._naming: dict[str, trio.Lock] = {}
        self._populated = trio.Event()
        self.on_begun: Callable[[Session], None] | None = None
        """Told of each session that is there from now on; it may not raise."""
        self.draining = False
        """Whether no new session is made any more; those that run go on."""

    def __repr__(self) -> str:
        return f"<Sessions {len(self._sessions)} live>"

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, id: str) -> Session | None:
        """The live session with this id."""
        return self._sessions.get(id)

    def knows(self, id: str) -> bool:
        """Whether a session with this id lives, or is being opened."""
        return id in self._sessions or id in self._reserved

    def past(self, id: str) -> Past | None:
        """How the session with this id ends, or ended some minutes ago; None if it lives, or nobody knows of it."""
        session = self._sessions.get(id)
        return self._endings.of(id, self._now()) if session is None else past_of(session, self._now())

    def ended(self) -> list[Past]:
        """The newest sessions of which nothing is left, the latest last: some minutes' worth of them."""
        return list(self._endings.all(self._now()))

    def all(self) -> list[Session]:
        """The live sessions, oldest first."""
        return list(self._sessions.values())

    async def wait_for_any(self) -> None:
        """Wait until there is a session."""
        await self._populated.wait()

    def use(self, specs: Mapping[str, EnvSpec]) -> None:
        """Make new sessions of these environments from now on. Those that run go on, but not the lasting ones."""
        self._specs = specs
        for env in list(self._shared):
            self._let_go_if_outdated(env)

    def _let_go_if_outdated(self, env: str) -> None:
        """Nobody comes any more to the session of a removed environment; new clients of a changed one get another."""
        made_for, session = self._shared[env]
        now = self._specs.get(env)
        if now == made_for:
            return
        del self._shared[env]
        if now is None or not now.shared:
            session.end("reloaded", f"there is no shared environment {env!r} any more")
        else:
            session.let_go()

    def specs(self) -> list[EnvSpec]:
        """The environments that can be had."""
        return list(self._specs.values())

    def spec(self, env: str) -> EnvSpec:
        """The spec of an environment. Raises `UnknownEnvironment`."""
        try:
            return self._specs[env]
        except KeyError:
            raise UnknownEnvironment(
                f"no environment is called {env!r}; there are {', '.join(sorted(self._specs))}"
            ) from None

    async def open(self, env: str, **wanted: Unpack[Wanted]) -> Session:
        """Start a session, at once where neither a lease nor a process has to be waited for.

        Raises `UnknownEnvironment`, `SessionExists`, `Busy` or `StartError`.
        """
        return await self._open(self._wish(self.spec(env), wanted))

    async def shared(self, env: str) -> Session:
        """The lasting session of a shared environment, started if there is none."""
        spec = self.spec(env)
        await may_wait()
        async with self._sharing.setdefault(env, trio.Lock()):
            made_for, session = self._shared.get(env, (None, None))
            if session is not None and session.live and made_for == spec:
                return session
            new = await self._open(self._wish(spec, {}, lasting=True))
            self._shared[env] = spec, new
            self._let_go_if_outdated(env)  # it may have changed during the start
            return new

    async def named(self, id: str, spec: EnvSpec, sees: Callable[[str | None], bool], wanted: Wanted) -> Session | Past:
        """The session of an id that a URL names, made if there is none; or how it ended, where an episode has begun.

        Whoever asks at once gets the same. ``sees`` says whether sessions of an owner are there for whoever asks.
        Raises as `open` does, and `SessionExists` for one that is another's.
        """
        await may_wait()
        lock = self._naming.setdefault(id, trio.Lock())
        try:
            async with lock:
                return await self._find_or_make(id, spec, sees, {**wanted, "id": id})
        finally:
            if not lock.statistics().locked:  # so nobody waits for it either
                self._naming.pop(id, None)

    async def _find_or_make(
        self, id: str, spec: EnvSpec, sees: Callable[[str | None], bool], wanted: Wanted
    ) -> Session | Past:
        session = self._sessions.get(id)
        if session is not None and session.failed_to_start:
            await session.wait_ended()  # as if it had never been
        elif session is not None and session.live and (session.shared or sees(session.owner)):
            return session
        past = self.past(id) or self._endings.named(id)
        if past is not None and past.began and (past.shared or sees(past.owner)):
            return past
        session = await self.open(spec.name, **wanted)
        session.named = True
        return session

    async def end_all(self) -> None:
        """End every session, all at once, for muxsim is shutting down; wait until nothing of them is left."""
        ending = self.all()
        for session in ending:
            session.end("shutdown", "muxsim is shutting down")
        for session in ending:
            await session.wait_ended()
        for folder in self._folders:  # also of sessions that are over
            folder.let_all_go()

    def _new_id(self, chosen: str | None) -> str:
        if chosen is None:
            return secrets.token_hex(_ID_BYTES)
        if not _CHOSEN_ID.fullmatch(chosen):
            raise ValueError(
                f"id {chosen!r} must be 1 to 64 of A-Z, a-z, 0-9, '_', '.' and '-', and not begin with '.' or '-'"
            )
        if chosen in self._sessions or chosen in self._reserved:
            raise SessionExists(f"a session with the id {chosen!r} is there already")
        return chosen

    def _wish(self, spec: EnvSpec, wanted: Wanted, *, lasting: bool = False) -> _Wish:
        seed = wanted.get("seed")
        seed = secrets.randbelow(SEED_LIMIT) if seed is None else seed
        id, ttl = self._new_id(wanted.get("id")), wanted.get("ttl")
        asked_by = wanted.get("client"), wanted.get("owner"), lasting, wanted.get("asked_from"), wanted.get("origin")
        return _Wish(spec, id, seed, ttl, *asked_by, lease=wanted.get("lease"))

    async def _open(self, wish: _Wish) -> Session:
        if self.draining:
            raise Busy(DRAINING.text, DRAINING.retry_after)
        self._reserved.add(wish.id)
        try:
            self._tell_opening(wish)
            lease = await self._pool.acquire(wish.spec, wish.client, wish.id)
            try:
                session = self._new_session(wish, lease)
                backend = await self._pool.start(lease, seed=wish.seed, session=wish.id, listener=session.seam)
                session.use(backend, _Progress(self._pool, lease))
            except BaseException:
                await self._pool.release(lease)
                raise
        except Exception as error:
            self._tell_failed(wish, str(error), refused=isinstance(error, Busy))
            raise
        except trio.Cancelled:
            self._tell_failed(wish, "nobody waits for it any more", refused=True)
            raise
        finally:
            self._reserved.discard(wish.id)
        return self._begun(session, lease)

    def _new_session(self, wish: _Wish, lease: Lease) -> Session:
        spec, events = lease.spec, self._events
        start = partial(self._pool.start, lease, seed=wish.seed, session=wish.id)
        return Session(
            wish.id,
            spec,
            wish.seed,
            events,
            ttl=wish.ttl,
            lease=wish.lease,
            lasting=wish.lasting,
            owner=wish.owner,
            peer=wish.peer,
            start=start,
        )

    def _begun(self, session: Session, lease: Lease) -> Session:
        session.folder.path = lease.workspace
        self._folders.add(session.folder)
        self._last_number += 1
        session.number = self._last_number
        self._sessions[session.id] = session
        self._populated.set()
        self._nursery.start_soon(self._carry, session, lease)
        if self.on_begun is not None:
            self.on_begun(session)
        return session

    def _tell_opening(self, wish: _Wish) -> None:
        origin = wish.origin or Origin()
        self._events.emit(
            SessionOpening(
                wish.id,
                wish.spec.name,
                wish.seed,
                None,
                origin.tracestate,
                principal=wish.owner or None,
                peer=wish.peer or None,
                request=origin.request,
                traceparent=origin.traceparent,
            )
        )

    def _tell_failed(self, wish: _Wish, error: str, *, refused: bool = False) -> None:
        self._events.emit(SessionOpenFailed(wish.id, wish.spec.name, wish.seed, None, error, refused or None))

    async def _carry(self, session: Session, lease: Lease) -> None:
        try:
            await session.run()
        finally:
            if (past := past_of(session, self._now())) is not None:
                self._endings.remember(past, named=session.named)
            del self._sessions[session.id]
            if not self._sessions:
                self._populated = trio.Event()
            if session.failed_to_start:
                self._pool.failed(lease)
            try:
                await session.folder.wait_free()
            finally:
                await self._pool.release(lease)
                session.folder.removed()
                self._folders.discard(session.folder)


@dataclass(frozen=True, slots=True)
class _Wish:
    """A session that is to be: what was `Wanted`, and what that left open."""

    spec: EnvSpec
    id: str
    seed: int
    ttl: float | None = None
    client: str | None = None
    owner: str | None = None
    lasting: bool = False
    peer: str | None = None
    origin: Origin | None = None
    lease: float | None = None


@dataclass(frozen=True, slots=True)
class _Progress:
    """Tells the pool how far a session's start is."""

    pool: Pool
    lease: Lease

    def asked(self) -> None:
        self.pool.asked(self.lease)

    def answered(self) -> None:
        self.pool.answered(self.lease)


@asynccontextmanager
async def open_sessions(pool: Pool, specs: Mapping[str, EnvSpec], events: Events) -> AsyncIterator[Sessions]:
    """Sessions for the length of a block; on the way out all are ended."""
    async with background() as nursery:
        sessions = Sessions(pool, specs, events, nursery)
        try:
            yield sessions
        finally:
            with trio.CancelScope(shield=True):
                await sessions.end_all()
