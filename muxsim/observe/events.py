"""What can happen in a muxsim: one type for each thing, and one stream of them, which nobody needs to listen to.

The log, the counters and programs that want to know listen; whoever does something only tells. Times are in seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, ClassVar, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from muxsim.observe.traffic import Traffics
from transports.messages import Message

FAILURES: Final = frozenset({"backend_exited", "guardian_died", "start_timeout", "restore_failed", "internal_error"})
"""The causes of a session's end that nobody wished for."""

FIRST_START: Final = "first_start"
"""In the place of a setting: a session waits until an environment that has not started yet turns out to do so."""

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


class Caused(SessionEvent, frozen=True, kw_only=True):
    """Likewise, because of a client's request.

    ``principal`` is the caller's name, ``peer`` the address, ``request`` its X-Request-ID, ``traceparent`` as W3C Trace
    Context has it.
    """

    principal: str | None = None
    peer: str | None = None
    request: str | None = None
    traceparent: str | None = None


class SessionOpening(Caused, frozen=True):
    """Somebody wants it: the ``principal`` whose it will be, from the address ``peer``."""

    name: ClassVar[str] = "session.opening"
    tracestate: str | None = None


class SessionOpenFailed(SessionEvent, frozen=True):
    """It will not be. ``refused``: there was no room for it, which is no fault of its environment's."""

    name: ClassVar[str] = "session.open_failed"
    error: str
    refused: bool | None = None


class SessionStarted(SessionEvent, frozen=True):
    """It has a backend, after ``seconds`` beside those in the queue: ``fresh``, a ``fork``, or from a ``slot``."""

    name: ClassVar[str] = "session.started"
    way: str = "fresh"
    seconds: float = 0.0


class SessionReady(SessionEvent, frozen=True):
    """Its backend has answered for the first time, after ``seconds``: ``start`` it took, the rest its client."""

    name: ClassVar[str] = "session.ready"
    seconds: float
    way: str = "fresh"
    start: float = 0.0


class SessionRestored(SessionEvent, frozen=True):
    """Another backend has taken the place of the one that it had, with the conversation going on."""

    name: ClassVar[str] = "session.restored"


class ClientAttached(Caused, frozen=True):
    """A client takes part, over this transport: the ``attachment`` of this number."""

    name: ClassVar[str] = "session.attached"
    transport: str
    attachment: int | None = None


class ClientDetached(Caused, frozen=True):
    """A client has gone for good."""

    name: ClassVar[str] = "session.detached"
    transport: str
    attachment: int | None = None


class CallEnded(Caused, frozen=True, kw_only=True):
    """A client's request to it is over, ``seconds`` after it came; only who follows calls is told."""

    # The target is the tool or prompt that it names; received and sent are bytes of request and answer, 0 without one.
    # The error is a JSON-RPC code, "tool_error" where a tool says that it has failed, or the cause where the answer is
    # muxsim's own, or there is none; None for a success.
    name: ClassVar[str] = "session.call"
    method: str
    target: str | None = None
    id: int | str
    seconds: float
    received: int
    sent: int
    error: str | None = None
    attachment: int | None = None


class BackendStderr(SessionEvent, frozen=True):
    """Its backend has written a line on stderr."""

    name: ClassVar[str] = "backend.stderr"
    line: str


class BackendRejected(SessionEvent, frozen=True):
    """Its backend has written a line on stdout that is no message: its beginning, and ``again`` from the sixth on."""

    name: ClassVar[str] = "backend.rejected"
    line: str
    error: str
    again: bool | None = None


class BackendExited(SessionEvent, frozen=True):
    """Its backend has ended by itself: ``status 0``, another ``status``, a signal, ``pipe closed``, a bound,
    or ``guardian_died``."""

    name: ClassVar[str] = "backend.exited"
    cause: str


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


class SessionEnded(Caused, frozen=True):
    """Nothing is left of it, ``seconds`` after it was made, ``by`` whom, where somebody with a name wanted that.
    ``stderr``: what a backend said last whose end it was. Its processes took ``closing`` seconds of those to end."""

    name: ClassVar[str] = "session.ended"
    cause: str
    text: str
    exit_status: int | None
    stderr: tuple[str, ...] | None
    seconds: float
    by: str | None = None
    closing: float | None = None


# ---- the pool


class OpenRefused(Named, frozen=True):
    """A session of ``env`` was refused, or waited in vain, because of a bound: the setting of this name. ``client`` is
    whose it would have been: a principal's name, or an address."""

    name: ClassVar[str] = "pool.refused"
    env: str
    limit: str
    client: str | None = None


class OpenQueued(Named, frozen=True):
    """A session of ``env`` has to wait, because of a bound: the setting of this name, or `FIRST_START`."""

    name: ClassVar[str] = "pool.queued"
    env: str
    limit: str
    session: str | None = None


class OpenWaited(Named, frozen=True):
    """A session of ``env`` waits no more, after ``seconds`` in the queue; ``admitted``: it is its turn."""

    name: ClassVar[str] = "pool.waited"
    env: str
    seconds: float
    admitted: bool
    session: str | None = None


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


# ---- starts: processes, and what makes them fast


class GuardianStarted(Named, frozen=True):
    """The process runs that starts all others; the first one, or in the place of one that has died."""

    name: ClassVar[str] = "process.guardian_started"
    pid: int


class GuardianDied(Named, frozen=True):
    """It has ended unasked, and so many processes of sessions with it."""

    name: ClassVar[str] = "process.guardian_died"
    pid: int
    exit_status: int | None
    processes: int


class GuardianConfused(Named, frozen=True):
    """It has said what cannot be understood; one of the first few such answers."""

    name: ClassVar[str] = "process.guardian_confused"
    pid: int
    exception: BaseException


class ProcessStarted(Named, frozen=True):
    """A process runs: a session's, one kept ready, a zygote or an installer."""

    name: ClassVar[str] = "process.started"
    pid: int


class ProcessNotStarted(Named, frozen=True):
    """A process could not be started, because of what went wrong at this stage."""

    name: ClassVar[str] = "process.not_started"
    stage: str
    errno: int | None


class ProcessEnded(Named, frozen=True):
    """A process has ended, and all that it had started, unless something survives SIGKILL: then it is not ``swept``."""

    name: ClassVar[str] = "process.ended"
    pid: int
    swept: bool


class LeftoversKilled(Named, frozen=True):
    """So many processes were killed that others had left behind, or would not end themselves."""

    name: ClassVar[str] = "process.leftovers_killed"
    processes: int


class BoundsNotKept(Named, frozen=True):
    """Bounds of an environment, by setting, that nobody keeps for want of a cgroup."""

    name: ClassVar[str] = "process.bounds_not_kept"
    env: str
    settings: tuple[str, ...]
    why: str


class NotPrivate(Named, frozen=True):
    """Sessions have no views of their own of what was installed for an environment; they see it as ``instead`` says."""

    name: ClassVar[str] = "process.not_private"
    env: str
    folders: tuple[str, ...]
    why: str
    instead: str


class WallsNotKept(Named, frozen=True):
    """What ``sandbox = "landlock"`` does not keep out on this kernel."""

    name: ClassVar[str] = "process.walls_not_kept"
    walls: tuple[str, ...]
    why: str


class StartedFresh(Named, frozen=True):
    """A backend of a Python environment with a zygote had to be started without it."""

    name: ClassVar[str] = "start.fresh"
    env: str


class StartedLearning(Named, frozen=True):
    """A backend runs that notes what it imports."""

    name: ClassVar[str] = "start.learner"
    env: str


class Forked(Named, frozen=True):
    """A zygote has made a fork, for a session that waits, or to be ready for one."""

    name: ClassVar[str] = "start.forked"
    env: str


class NotForkable(Named, frozen=True):
    """Sessions of this environment have no zygote."""

    name: ClassVar[str] = "start.not_forkable"
    env: str
    why: str


class StartsAfresh(Named, frozen=True):
    """Sessions of this environment do without their zygote, for now or for good; told once."""

    name: ClassVar[str] = "start.afresh"
    env: str
    why: str
    advice: str = "zygote = false turns it off"


class ZygoteStarted(Named, frozen=True):
    """A zygote is importing."""

    name: ClassVar[str] = "zygote.started"
    env: str


class ZygoteFailed(Named, frozen=True):
    """A zygote has died, or could not be made."""

    name: ClassVar[str] = "zygote.failed"
    env: str
    why: str


class ZygoteOutdated(Named, frozen=True):
    """What a zygote has imported has changed since."""

    name: ClassVar[str] = "zygote.outdated"
    env: str
    why: str


class ZygoteLeavesOut(Named, frozen=True):
    """A zygote cannot hold this module; sessions import it themselves."""

    name: ClassVar[str] = "zygote.leaves_out"
    env: str
    module: str
    why: str


class SlotUsed(Named, frozen=True):
    """A session has got a process that was ready."""

    name: ClassVar[str] = "slot.used"
    env: str


class SlotMissed(Named, frozen=True):
    """A session has found none of the processes ready that its environment wants."""

    name: ClassVar[str] = "slot.missed"
    env: str


class SlotDied(Named, frozen=True):
    """A process that was to be ready has ended by itself, or could not be had."""

    name: ClassVar[str] = "slot.died"
    env: str
    why: str


class SlotsKeepDying(Named, frozen=True):
    """So many in a row have, and sessions start without."""

    name: ClassVar[str] = "slot.keep_dying"
    env: str
    why: str


class SlotsReplaced(Named, frozen=True):
    """So many processes that were ready, or about to be, are replaced for their age, or since something has changed."""

    name: ClassVar[str] = "slot.replaced"
    env: str
    slots: int


class SlotsNotHad(Named, frozen=True):
    """``warm`` of this environment has no effect."""

    name: ClassVar[str] = "slot.not_had"
    env: str
    warm: int
    why: str


class SlotsLeaveOut(Named, frozen=True):
    """Processes that are ready have loaded all but this module, which ``reads`` what only a session has."""

    name: ClassVar[str] = "slot.leave_out"
    env: str
    module: str
    reads: str


# ---- what a start needs installed


class InstallStarted(Named, frozen=True):
    """What an environment needs is not there, and is being installed: ``what`` was asked for, into ``place``."""

    name: ClassVar[str] = "install.started"
    env: str
    place: str
    what: list[str]


class InstallFinished(Named, frozen=True):
    """What an environment needs has been installed, after so many seconds."""

    name: ClassVar[str] = "install.finished"
    env: str
    place: str
    seconds: float
    bytes: int
    packages: int


class InstallVerified(Named, frozen=True):
    """What is installed for an environment is whole, starts, and is what was asked for."""

    name: ClassVar[str] = "install.verified"
    env: str
    place: str


class InstallFailed(Named, frozen=True):
    """What an environment needs could not be had."""

    name: ClassVar[str] = "install.failed"
    env: str
    error: str


class CacheNotWritten(Named, frozen=True):
    """What was to be kept in muxsim's own cache could not be: it is read-only, say, or the disk is full."""

    name: ClassVar[str] = "cache.not_written"
    folder: str
    error: str
    again: bool | None = None


class InstallRemoved(Named, frozen=True):
    """What was installed for an environment has been removed, to the last file."""

    name: ClassVar[str] = "install.removed"
    env: str
    place: str
    bytes: int


class LockOutdated(Named, frozen=True):
    """What an environment needs is found anew, since the lock beside its config was written for something else."""

    name: ClassVar[str] = "install.lock_outdated"
    env: str
    why: str


class RunsAsItStands(Named, frozen=True):
    """Only npx or uvx itself can tell what an environment's command line runs."""

    name: ClassVar[str] = "install.as_it_stands"
    env: str
    because: str
    costs: str


# ---- connections and requests, and who comes in


class KeysNotHad(Named, frozen=True):
    """There are no keys by which tokens could be told: nobody gets in with one."""

    name: ClassVar[str] = "auth.no_keys"
    error: str


class KeysOutdated(Named, frozen=True):
    """New keys cannot be had from ``source``; the old ones are used on."""

    name: ClassVar[str] = "auth.old_keys"
    source: str
    error: str


class TokenUnverified(Named, frozen=True):
    """An issuer's token was no good, for a reason that nobody else is told."""

    name: ClassVar[str] = "auth.unverified"
    reason: str


class TokenRefused(Named, frozen=True):
    """A request was refused for its token: it is not known here, or good for less than was asked, then it has a
    ``principal``. ``again``: others were told of a moment ago, from the same address or many."""

    name: ClassVar[str] = "auth.refused"
    reason: str
    peer: str
    principal: str | None = None
    again: bool | None = None


class HTTPLimit(Named, frozen=True):
    """A connection or request has met a bound: the setting of this name."""

    name: ClassVar[str] = "http.limit"
    limit: str


class HTTPRequest(Named, frozen=True):
    """A request is over, with so many bytes written, after ``seconds``; no ``status``: its client had gone before."""

    name: ClassVar[str] = "http.request"
    method: str
    path: str
    status: int | None
    bytes: int
    seconds: float
    peer: str | None
    principal: str | None
    request: str | None


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


class OperatorSocketMoved(Named, frozen=True):
    """Who had its folder removed, or could have no socket, can be reached again by `muxsim ctl`."""

    name: ClassVar[str] = "muxsim.operator_socket"
    path: str


class ConfigReloaded(Named, frozen=True):
    """Another config is in use: what it changes, environments and settings by name, whose tokens, and ``by`` whom."""

    name: ClassVar[str] = "muxsim.reloaded"
    added: tuple[str, ...] | None
    changed: tuple[str, ...] | None
    removed: tuple[str, ...] | None
    applied: tuple[str, ...] | None
    restart: tuple[str, ...] | None
    tokens: tuple[str, ...] | None = None
    by: str | None = None


class RestartNeeded(Named, frozen=True):
    """The new config changes settings that only a restart changes."""

    name: ClassVar[str] = "muxsim.restart_needed"
    settings: tuple[str, ...]


class ReloadFailed(Named, frozen=True):
    """The new config is not in use, for this reason."""

    name: ClassVar[str] = "muxsim.reload_failed"
    problem: str
    by: str | None = None


class Draining(Named, frozen=True):
    """It takes no new session any more; so many are left."""

    name: ClassVar[str] = "muxsim.draining"
    sessions: int
    by: str | None = None


class Resumed(Named, frozen=True):
    """It takes new sessions again, and has so many."""

    name: ClassVar[str] = "muxsim.resumed"
    sessions: int
    by: str | None = None


class Stopping(Named, frozen=True):
    """It ends, with so many sessions."""

    name: ClassVar[str] = "muxsim.stopping"
    sessions: int
    by: str | None = None


class DrainTimeout(Named, frozen=True):
    """So many sessions still had calls in flight when their time was over, as it ends."""

    name: ClassVar[str] = "muxsim.drain_timeout"
    busy_sessions: int


class StoodStill(Named, frozen=True):
    """Neither it nor the machine did anything for so long; no deadline is held against anybody."""

    name: ClassVar[str] = "muxsim.stood_still"
    seconds: float


class LogLevelSet(Named, frozen=True):
    """What is of this level at least is logged from now on, of one environment or of all."""

    name: ClassVar[str] = "log.level_set"
    least: str
    env: str | None
    by: str


class DescriptorsShort(Named, frozen=True):
    """So few of the files that it may open are left that no session starts; told once until there are enough again."""

    name: ClassVar[str] = "muxsim.descriptors_short"
    connections: int
    advice: str = "raise the limit (ulimit -n), or lower server.max_connections and max_sessions"


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
    | CallEnded
    | BackendStderr
    | BackendRejected
    | BackendExited
    | SessionLimit
    | SessionCrashed
    | SessionEnded
    | OpenRefused
    | OpenQueued
    | OpenWaited
    | BreakerOpened
    | MachineExhausted
    | GuardianStarted
    | GuardianDied
    | GuardianConfused
    | ProcessStarted
    | ProcessNotStarted
    | ProcessEnded
    | LeftoversKilled
    | BoundsNotKept
    | NotPrivate
    | WallsNotKept
    | StartedFresh
    | StartedLearning
    | Forked
    | NotForkable
    | StartsAfresh
    | ZygoteStarted
    | ZygoteFailed
    | ZygoteOutdated
    | ZygoteLeavesOut
    | SlotUsed
    | SlotMissed
    | SlotDied
    | SlotsKeepDying
    | SlotsReplaced
    | SlotsNotHad
    | SlotsLeaveOut
    | InstallStarted
    | CacheNotWritten
    | InstallRemoved
    | LockOutdated
    | InstallFinished
    | InstallVerified
    | InstallFailed
    | RunsAsItStands
    | KeysNotHad
    | KeysOutdated
    | TokenUnverified
    | TokenRefused
    | HTTPLimit
    | HTTPRequest
    | NoRequest
    | ConfigNote
    | TokensInTheClear
    | NoOperatorSocket
    | OperatorSocketMoved
    | ConfigReloaded
    | RestartNeeded
    | ReloadFailed
    | Draining
    | Resumed
    | Stopping
    | DrainTimeout
    | StoodStill
    | LogLevelSet
    | DescriptorsShort
    | LogLinesLeftOut
    | PartFailed
    | SignalFailed
    | CommandFailed
)
"""All that can happen."""

Listener: TypeAlias = Callable[[Event], None]


class CallBegan(NamedTuple):
    """A client's request as it comes, for `CallTracer`; ``version`` is the agreed revision, "" if there is none yet."""

    session: str
    env: str
    seed: int
    method: str
    target: str | None
    id: int | str
    transport: str
    version: str
    attachment: int | None
    principal: str | None


class CallTracer(Protocol):
    """Who sees each call from its beginning to its end. It must not raise."""

    def call_began(self, call: CallBegan, request: Message) -> tuple[Message, Any]:
        """Returns the request as it is to go on, and what is to be given back at the call's end; None for nothing."""

    def call_ended(self, span: Any, call: CallEnded, message: str | None) -> None:
        """The call is over; ``message`` is what its answer says of an error."""


def unheard(event: Event) -> None:
    """Where nobody listens."""


class Events:
    """Hands each event to every listener, at once and in order. Listeners must not block.

    One that raises is told nothing more, and missed by nobody: neither who tells nor the other listeners notice.
    """

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners
        self.call_listeners: tuple[Listener, ...] = ()
        """Who is told of calls, each of which costs something as soon as there is anybody."""
        self.tracer: CallTracer | None = None
        """Who is asked at each call's beginning, too."""
        self.traffics: Traffics | None = None
        """Where sessions count what happens too often for an event, if anybody wants to know; set before the first."""

    def __repr__(self) -> str:
        return f"<Events for {len(self.listeners)} listeners>"

    def subscribe(self, listener: Listener) -> None:
        """Call ``listener`` with every event from now on."""
        self.listeners = (*self.listeners, listener)

    def follow_calls(self, listener: Listener, wanted: bool = True) -> None:
        """Call ``listener`` with each `CallEnded` too, or no more."""
        others = tuple(one for one in self.call_listeners if one is not listener)
        self.call_listeners = (*others, listener) if wanted else others

    def emit(self, event: Event) -> None:
        """Tell every listener."""
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:  # it may be the user's own, and is told of everything
                self._switch_off(listener, event)

    def tell_call(self, call: CallEnded) -> None:
        """Tell who follows calls."""
        for listener in self.call_listeners:
            try:
                listener(call)
            except Exception:  # as above
                self._switch_off(listener, call)

    def _switch_off(self, listener: Listener, event: Event) -> None:
        self.listeners = tuple(one for one in self.listeners if one is not listener)
        self.follow_calls(listener, wanted=False)
        # By the standard library, whose words reach the log too: what failed may be who writes it.
        _log.exception("a listener failed at %s, and is switched off: %.200r", event.name, listener)

    def part_failed(self, name: str, error: BaseException) -> None:
        """Tell what `muxsim.runtime.boundary` has switched off."""
        self.emit(PartFailed(name, error))
