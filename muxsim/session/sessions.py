"""All sessions of one muxsim: made, found and ended."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from muxsim.errors import Busy, SessionExists, UnknownEnvironment
from muxsim.events import Events, SessionEvent, What
from muxsim.session.session import Session
from muxsim.spec import EnvSpec
from muxsim.supervise.pool import Lease, Pool

# 128 bits that nobody guesses; hexadecimal, so that an id can stand in a URL, a header and a file name.
_ID_BYTES: Final = 16
# Not "..", nor anything that a command would take for an option: an id may become a path, or an argument.
_CHOSEN_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
# Seconds after which a client may look for the muxsim that takes the place of one that is drained.
_DRAINING_RETRY: Final = 5.0
# Seeds that every environment and file format takes: non-negative, 32 bits with the sign.
SEED_LIMIT: Final = 2**31


class Sessions:
    """Makes sessions on leases of a pool and knows those that live. Runs on trio; open it with `open_sessions`."""

    def __init__(self, pool: Pool, specs: Mapping[str, EnvSpec], events: Events, nursery: trio.Nursery) -> None:
        self._pool = pool
        self._specs = specs
        self._events = events
        self._nursery = nursery
        self._sessions: dict[str, Session] = {}
        self._reserved: set[str] = set()
        self._shared: dict[str, tuple[EnvSpec, Session]] = {}
        self._sharing: dict[str, trio.Lock] = {}
        self._populated = trio.Event()
        self.draining = False
        """Whether no new session is made any more; those that run go on."""

    def __repr__(self) -> str:
        return f"<Sessions {len(self._sessions)} live>"

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, id: str) -> Session | None:
        """The live session with this id."""
        return self._sessions.get(id)

    def all(self) -> list[Session]:
        """The live sessions, oldest first."""
        return list(self._sessions.values())

    async def wait_for_any(self) -> None:
        """Wait until there is a session."""
        await self._populated.wait()

    def use(self, specs: Mapping[str, EnvSpec]) -> None:
        """Make new sessions of these environments from now on; those that run go on."""
        self._specs = specs

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

    async def open(
        self,
        env: str,
        *,
        seed: int | None = None,
        id: str | None = None,
        ttl: float | None = None,
        client: str | None = None,
        owner: str | None = None,
    ) -> Session:
        """Start a session: wait for a lease, then for the start of a process.

        ``seed`` None draws one. ``client`` is whose share of the pool it counts for; None is no client's. ``owner`` is
        the principal whose session it is. Raises `UnknownEnvironment`, `SessionExists`, `Busy` or `StartError`.
        """
        spec = self.spec(env)
        return await self._open(
            spec, self._new_id(id), _seed_or_random(seed), ttl=ttl, client=client, owner=owner, lasting=False
        )

    async def shared(self, env: str) -> Session:
        """The lasting session of a shared environment, started if there is none."""
        spec = self.spec(env)
        async with self._sharing.setdefault(env, trio.Lock()):
            made_for, session = self._shared.get(env, (None, None))
            if session is not None and session.live and made_for == spec:
                return session
            new = await self._open(spec, self._new_id(None), _seed_or_random(None), lasting=True)
            if session is not None:
                session.let_go()  # the config has changed: it goes on for the clients it has
            self._shared[env] = spec, new
            return new

    async def end_all(self, cause: str, text: str) -> None:
        """End every session, all at once, and wait until nothing of them is left."""
        ending = self.all()
        for session in ending:
            session.end(cause, text)
        for session in ending:
            await session.wait_ended()

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

    async def _open(
        self,
        spec: EnvSpec,
        id: str,
        seed: int,
        *,
        lasting: bool,
        ttl: float | None = None,
        client: str | None = None,
        owner: str | None = None,
    ) -> Session:
        if self.draining:
            raise Busy("this muxsim takes no new sessions: it is being drained", _DRAINING_RETRY)
        self._reserved.add(id)
        try:
            details = {"owner": owner} if owner else {}
            self._events.emit(SessionEvent(What.OPENING, id, spec.name, seed, details=details))
            lease = await self._pool.acquire(spec, client)
            try:
                session = Session(id, lease.spec, seed, self._events, ttl=ttl, lasting=lasting, owner=owner)
                backend = await self._pool.start(lease, seed=seed, session=id, listener=session)
                session.use(backend, _Progress(self._pool, lease))
            except BaseException:
                await self._pool.release(lease)
                raise
        except Exception as error:
            self._events.emit(SessionEvent(What.OPEN_FAILED, id, spec.name, seed, details={"error": str(error)}))
            raise
        finally:
            self._reserved.discard(id)
        self._sessions[id] = session
        self._populated.set()
        self._nursery.start_soon(self._carry, session, lease)
        return session

    async def _carry(self, session: Session, lease: Lease) -> None:
        try:
            await session.run()
        finally:
            del self._sessions[session.id]
            if not self._sessions:
                self._populated = trio.Event()
            if session.failed_to_start:
                self._pool.failed(lease)
            await self._pool.release(lease)


@dataclass(frozen=True, slots=True)
class _Progress:
    """Tells the pool how far a session's start is."""

    pool: Pool
    lease: Lease

    def asked(self) -> None:
        self.pool.asked(self.lease)

    def answered(self) -> None:
        self.pool.answered(self.lease)


def _seed_or_random(seed: int | None) -> int:
    return secrets.randbelow(SEED_LIMIT) if seed is None else seed


@asynccontextmanager
async def open_sessions(pool: Pool, specs: Mapping[str, EnvSpec], events: Events) -> AsyncIterator[Sessions]:
    """Sessions for the length of a block; on the way out all are ended."""
    service = trio.open_nursery()
    sessions = Sessions(pool, specs, events, await service.__aenter__())
    try:
        yield sessions
    finally:
        with trio.CancelScope(shield=True):
            await sessions.end_all("shutdown", "muxsim is shutting down")
        # Without the block's exception: the nursery serves, and must not wrap in a group what is not its own.
        await service.__aexit__(None, None, None)
