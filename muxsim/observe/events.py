"""What can happen in a muxsim: one type for each thing, and one stream of them, which nobody needs to listen to.

The log, the counters and programs that want to know listen; whoever does something only tells. Times are in seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ClassVar, Final, TypeAlias

import msgspec

FAILURES: Final = frozenset({"backend_exited", "start_timeout", "restore_failed", "internal_error"})
"""The causes of a session's end that nobody wished for."""

_log = logging.getLogger(__name__)


class Named(msgspec.Struct, frozen=True):
    """Anything that happens. ``name`` is what the log calls it; fields that are None are not known, or do not apply."""

    name: ClassVar[str]


# ---- sessions, in the order of their lives


class SessionEvent(Named, frozen=True):
    """Something that happened to a session; ``pid`` is its backend's, None without one."""

    session: str
    env: str
    seed: int
    pid: int | None


class SessionOpening(SessionEvent, frozen=True):
    """Somebody wants it: ``owner``, where callers have names."""

    name: ClassVar[str] = "session.opening"
    owner: str | None = None


class SessionOpenFailed(SessionEvent, frozen=True):
    """It will not be."""

    name: ClassVar[str] = "session.open_failed"
    error: str


class SessionStarted(SessionEvent, frozen=True):
    """It has a backend."""

    name: ClassVar[str] = "session.started"


class SessionReady(SessionEvent, frozen=True):
    """Its backend has answered for the first time, ``seconds`` after the session was made."""

    name: ClassVar[str] = "session.ready"
    seconds: float


class SessionRestored(SessionEvent, frozen=True):
    """Another backend has taken the place of the one that it had, with the conversation going on."""

    name: ClassVar[str] = "session.restored"


class ClientAttached(SessionEvent, frozen=True):
    """A client takes part, over this transport."""

    name: ClassVar[str] = "session.attached"
    transport: str


class ClientDetached(SessionEvent, frozen=True):
    """A client has gone for good."""

    name: ClassVar[str] = "session.detached"
    transport: str


class BackendStderr(SessionEvent, frozen=True):
    """Its backend has written a line on stderr."""

    name: ClassVar[str] = "backend.stderr"
    line: str


class BackendRejected(SessionEvent, frozen=True):
    """Its backend has written a ``line`` on stdout that is no message, of which the beginning; the first few."""

    name: ClassVar[str] = "backend.rejected"
    line: str
    error: str


class SessionLimit(SessionEvent, frozen=True):
    """It has met a bound: the setting of this name. ``again`` it may be met with every message."""

    name: ClassVar[str] = "session.limit"
    limit: str
    text: str | None = None
    again: bool | None = None


class SessionCrashed(SessionEvent, frozen=True):
    """A bug of muxsim's in this session."""

    name: ClassVar[str] = "session.crashed"
    traceback: str


class SessionEnded(SessionEvent, frozen=True):
    """Nothing is left of it, ``seconds`` after it was made. ``stderr``: what a backend said last whose end it was."""

    name: ClassVar[str] = "session.ended"
    cause: str
    text: str
    exit_status: int | None
    stderr: tuple[str, ...] | None
    seconds: float


# ---- the pool


class OpenRefused(Named, frozen=True):
    """A session of ``env`` was refused, or waited in vain, because of a bound: the setting of this name."""

    name: ClassVar[str] = "pool.refused"
    env: str
    limit: str


class OpenQueued(Named, frozen=True):
    """A session of ``env`` has to wait, because of a bound: the setting of this name."""

    name: ClassVar[str] = "pool.queued"
    env: str
    limit: str


class BreakerOpened(Named, frozen=True):
    """An environment fails to start, and is left alone for so many seconds."""

    name: ClassVar[str] = "pool.breaker_opened"
    env: str
    seconds: float


class MachineExhausted(Named, frozen=True):
    """A session could not start for want of descriptors, processes, memory or disk, which may be over soon."""

    name: ClassVar[str] = "pool.exhausted"
    env: str
    text: str


# ---- connections and requests


class HTTPLimit(Named, frozen=True):
    """A connection or request has met a bound: the setting of this name."""

    name: ClassVar[str] = "http.limit"
    limit: str


class NoRequest(Named, frozen=True):
    """What has come over a connection is no HTTP request. Name and logger are those of uvicorn's own such line."""

    name: ClassVar[str] = "Invalid HTTP request received."
    logger: str = "uvicorn.error"


# ---- muxsim as a whole


class ConfigNote(Named, frozen=True):
    """Something that the reader of a config should be told."""

    name: ClassVar[str] = "config.note"
    note: str


class TokensInTheClear(Named, frozen=True):
    """It serves others than this machine, and without TLS."""

    name: ClassVar[str] = "muxsim.no_tls"
    advice: str = "tokens travel in the clear: set server.tls_cert"


class NoOperatorSocket(Named, frozen=True):
    """`muxsim ctl` and `muxsim ps` will not find it."""

    name: ClassVar[str] = "muxsim.no_operator_socket"
    problem: str


class ConfigReloaded(Named, frozen=True):
    """Another config is in use: what it changes, environments and settings by name."""

    name: ClassVar[str] = "muxsim.reloaded"
    added: tuple[str, ...] | None
    changed: tuple[str, ...] | None
    removed: tuple[str, ...] | None
    applied: tuple[str, ...] | None
    restart: tuple[str, ...] | None


class RestartNeeded(Named, frozen=True):
    """The new config changes settings that only a restart changes."""

    name: ClassVar[str] = "muxsim.restart_needed"
    settings: tuple[str, ...]


class ReloadFailed(Named, frozen=True):
    """The new config is not in use, for this reason."""

    name: ClassVar[str] = "muxsim.reload_failed"
    problem: str


class Draining(Named, frozen=True):
    """It takes no new session any more; so many are left."""

    name: ClassVar[str] = "muxsim.draining"
    sessions: int


class Stopping(Named, frozen=True):
    """It ends, with so many sessions."""

    name: ClassVar[str] = "muxsim.stopping"
    sessions: int


class DrainTimeout(Named, frozen=True):
    """So many sessions still had calls in flight when their time was over, as it ends."""

    name: ClassVar[str] = "muxsim.drain_timeout"
    busy_sessions: int


class StoodStill(Named, frozen=True):
    """Neither it nor the machine did anything for so long; no deadline is held against anybody."""

    name: ClassVar[str] = "muxsim.stood_still"
    seconds: float


class LogLinesLeftOut(Named, frozen=True):
    """The reader of the log does not keep up."""

    name: ClassVar[str] = "log.lines_left_out"
    lines: int
    setting: str = "log_buffer"


# ---- bugs: what is ours, and has been caught where it harms nobody


class PartFailed(Named, frozen=True):
    """Something optional of this name has failed, and is switched off; sessions do without."""

    name: ClassVar[str] = "muxsim.part_failed"
    part: str
    exception: BaseException


class SignalFailed(Named, frozen=True):
    """A step of what a signal asks for has failed; the rest is done."""

    name: ClassVar[str] = "muxsim.signal_failed"
    step: str
    exception: BaseException


class CommandFailed(Named, frozen=True):
    """An operator's command has failed."""

    name: ClassVar[str] = "muxsim.command_failed"
    command: str
    exception: BaseException


Event: TypeAlias = (
    SessionOpening
    | SessionOpenFailed
    | SessionStarted
    | SessionReady
    | SessionRestored
    | ClientAttached
    | ClientDetached
    | BackendStderr
    | BackendRejected
    | SessionLimit
    | SessionCrashed
    | SessionEnded
    | OpenRefused
    | OpenQueued
    | BreakerOpened
    | MachineExhausted
    | HTTPLimit
    | NoRequest
    | ConfigNote
    | TokensInTheClear
    | NoOperatorSocket
    | ConfigReloaded
    | RestartNeeded
    | ReloadFailed
    | Draining
    | Stopping
    | DrainTimeout
    | StoodStill
    | LogLinesLeftOut
    | PartFailed
    | SignalFailed
    | CommandFailed
)
"""All that can happen."""

Listener = Callable[[Event], None]


class Events:
    """Hands each event to every listener, at once and in order. Listeners must not block.

    One that raises is told nothing more, and missed by nobody: neither who tells nor the other listeners notice.
    """

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def __repr__(self) -> str:
        return f"<Events for {len(self.listeners)} listeners>"

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener`` with every event from now on."""
        self.listeners = (*self.listeners, listener)

    def emit(self, event: Event) -> None:
        """Tell every listener."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:  # it may be the user's own, and is told of everything
                self.listeners = tuple(one for one in self.listeners if one is not listener)
                # By the standard library, whose words reach the log too: what failed may be who writes it.
                _log.exception("a listener failed at %s, and is switched off: %.200r", event.name, listener)
