"""One structured line on stderr for each thing that happens."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Protocol

import msgspec

from muxsim.observe import events
from muxsim.observe.events import Event, Events
from muxsim.observe.log_sink import LogSink
from muxsim.observe.recent import RecentLines
from muxsim.observe.status_line import StatusLine

_SILENT: Final = 0
_LAST: Final = (events.SessionEnded, events.SessionOpenFailed)
_LAST_NAMES: Final = frozenset(one.name for one in _LAST)
_OF_AN_OPENING: Final = frozenset(
    {
        *(events.OpenQueued, events.OpenWaited, events.SessionOpenFailed, events.SessionStarted, events.SessionReady),
    }
)
LEVELS: Final = ("debug", "info", "warning", "error")
"""What can be logged at least, by name."""
_library: Final = logging.getLogger("muxsim")
_LEVELS: Final[Mapping[type[Event], int]] = {
    events.SessionOpening: logging.INFO,
    events.SessionOpenFailed: logging.WARNING,
    events.SessionStarted: logging.INFO,
    events.SessionReady: logging.INFO,
    events.SessionRestored: logging.INFO,
    events.ClientAttached: logging.INFO,
    events.ClientDetached: logging.INFO,
    events.CallEnded: logging.DEBUG,
    events.BackendStderr: logging.INFO,
    events.BackendRejected: logging.WARNING,
    events.BackendExited: logging.DEBUG,
    events.SessionLimit: logging.WARNING,
    events.SessionCrashed: logging.ERROR,
    events.SessionEnded: logging.INFO,
    events.OpenRefused: logging.DEBUG,
    events.OpenQueued: logging.INFO,
    events.OpenWaited: logging.INFO,
    events.BreakerOpened: logging.WARNING,
    events.MachineExhausted: logging.DEBUG,
    events.GuardianStarted: logging.DEBUG,
    events.GuardianDied: logging.ERROR,
    events.GuardianConfused: logging.ERROR,
    events.ProcessStarted: logging.DEBUG,
    events.ProcessNotStarted: logging.DEBUG,
    events.ProcessEnded: logging.DEBUG,
    events.LeftoversKilled: logging.DEBUG,
    events.BoundsNotKept: logging.WARNING,
    events.NotPrivate: logging.WARNING,
    events.WallsNotKept: logging.WARNING,
    events.StartedFresh: logging.DEBUG,
    events.StartedLearning: logging.DEBUG,
    events.Forked: logging.DEBUG,
    events.NotForkable: logging.INFO,
    events.StartsAfresh: logging.WARNING,
    events.ZygoteStarted: logging.DEBUG,
    events.ZygoteFailed: logging.WARNING,
    events.ZygoteOutdated: logging.INFO,
    events.ZygoteLeavesOut: logging.WARNING,
    events.SlotUsed: logging.DEBUG,
    events.SlotMissed: logging.DEBUG,
    events.SlotDied: logging.DEBUG,
    events.SlotsKeepDying: logging.WARNING,
    events.SlotsReplaced: logging.DEBUG,
    events.SlotsNotHad: logging.WARNING,
    events.SlotsLeaveOut: logging.INFO,
    events.InstallStarted: logging.INFO,
    events.InstallFinished: logging.INFO,
    events.InstallVerified: logging.DEBUG,
    events.InstallFailed: logging.DEBUG,
    events.CacheNotWritten: logging.WARNING,
    events.InstallRemoved: logging.INFO,
    events.LockOutdated: logging.WARNING,
    events.RunsAsItStands: logging.WARNING,
    events.KeysNotHad: logging.WARNING,
    events.KeysOutdated: logging.WARNING,
    events.TokenUnverified: logging.DEBUG,
    events.TokenRefused: logging.WARNING,
    events.HTTPLimit: logging.DEBUG,
    events.HTTPRequest: logging.INFO,
    events.NoRequest: logging.WARNING,
    events.ConfigNote: logging.WARNING,
    events.TokensInTheClear: logging.WARNING,
    events.NoOperatorSocket: logging.WARNING,
    events.OperatorSocketMoved: logging.INFO,
    events.ConfigReloaded: logging.INFO,
    events.RestartNeeded: logging.WARNING,
    events.ReloadFailed: logging.ERROR,
    events.Draining: logging.INFO,
    events.Resumed: logging.INFO,
    events.Stopping: logging.INFO,
    events.DrainTimeout: logging.WARNING,
    events.StoodStill: logging.WARNING,
    events.LogLevelSet: logging.INFO,
    events.DescriptorsShort: logging.WARNING,
    events.LogLinesLeftOut: _SILENT,  # the sink writes it itself, as soon as it can
    events.PartFailed: logging.ERROR,
    events.SignalFailed: logging.ERROR,
    events.CommandFailed: logging.ERROR,
}


def configure(log_format: str, level: str, buffer: int, kept: int, stream: Events) -> EventLog:
    """Write JSON lines, or lines for people where stderr is a terminal or "console" was asked for.

    What ``stream`` tells is written from now on, and what is said with the standard library's logging. ``buffer`` bytes
    may wait for whoever reads them; past that, lines are left out, which the stream is told. The last lines of ``kept``
    bytes in all can be had from what this returns.
    """
    terminal = sys.stderr.isatty()
    console = log_format == "console" or (log_format == "auto" and terminal)
    log = EventLog(level, stream, RecentLines(kept), _renderer(colors=terminal) if console else None)

    def notice(lines: int) -> str:
        told = events.LogLinesLeftOut(lines)
        return f"{log.line(logging.WARNING, told.name, fields_of(told))}\n"

    sink = LogSink(sys.stderr.fileno(), buffer, notice, lambda: stream.emit(events.LogLinesLeftOut(1)))
    log.file = sink
    if console and terminal:
        log.file = status = StatusLine(sink, sys.stderr.fileno())
        stream.subscribe(status)
    # uvicorn and asyncio report with the standard library's logging: their words are lines of this log too.
    logging.basicConfig(handlers=[_IntoThisLog(log)], level=logging.WARNING, force=True)
    stream.subscribe(log)
    return log


def for_people(line: dict[str, Any], *, colors: bool) -> str:
    """A line of the log, as it is on a terminal."""
    return _renderer(colors=colors)(line)


def _renderer(*, colors: bool) -> Callable[[dict[str, Any]], str]:
    from structlog.dev import ConsoleRenderer  # noqa: PLC0415 - slow to import, and most servers log JSON

    render = ConsoleRenderer(colors=colors)
    return lambda line: str(render(None, "", _printable(line)))


def _printable(line: dict[str, Any]) -> dict[str, Any]:
    """Have nothing that a client or a child has said move the cursor of whoever reads the log, or hide in it."""
    for key, value in line.items():
        if isinstance(value, str) and key != "exception" and not value.isprintable():
            line[key] = "".join(one if one.isprintable() else repr(one)[1:-1] for one in value)
    return line


class _Written(Protocol):
    def write(self, text: str) -> object: ...
    def flush(self) -> None: ...


class _IntoThisLog(logging.Handler):
    def __init__(self, log: EventLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= self._log.least:
            fields = {"logger": record.name, "exc_info": record.exc_info}
            self._log.write(record.levelno, record.getMessage().strip(), fields)


class EventLog:
    """A listener for `muxsim.observe.events.Events`, which logs what is of the level at least that was set last.

    ``shown`` makes the text of a line, which is JSON without one.
    """

    def __init__(
        self, level: str, stream: Events, recent: RecentLines, shown: Callable[[dict[str, Any]], str] | None = None
    ) -> None:
        self.least = _number(level)
        """Of what is of no environment with a level of its own."""
        self.recent = recent
        """The last lines."""
        self.file: _Written = sys.stderr
        """Where the lines go."""
        self._writing = threading.Lock()  # other threads' words are lines too, by way of the library's logging
        self._shown = shown
        self._of_env: dict[str, int] = {}
        self._stream = stream
        self._causes: dict[str, tuple[str | None, dict[str, str]]] = {}
        self._follow_calls()

    def set_level(self, level: str, env: str | None, by: str) -> None:
        """Log what is of this level at least from now on: of one environment, or of all, none of which differs then."""
        told = events.LogLevelSet(level, env, by)
        was_silent = self.least > logging.INFO
        if not was_silent:  # the change is a line itself, while one is written
            self._stream.emit(told)
        if env is None:
            self._of_env.clear()
            self.least = _number(level)
        else:
            self._of_env[env] = _number(level)
        self._follow_calls()
        if was_silent:
            self._stream.emit(told)

    def levels(self) -> dict[str, Any]:
        """The least level that is logged, and that of each environment with one of its own."""
        of_env = {env: logging.getLevelName(level).lower() for env, level in self._of_env.items()}
        return {"level": logging.getLevelName(self.least).lower(), "environments": of_env}

    def _follow_calls(self) -> None:
        # They cost something from when somebody wants to know of them.
        least = min(self.least, *self._of_env.values()) if self._of_env else self.least
        self._stream.follow_calls(self, wanted=least <= logging.DEBUG)

    def __call__(self, event: Event) -> None:
        """Log it."""
        kind, level, least = type(event), level_of(event), self.least
        if kind is events.SessionOpening:
            self._remember(event)
        if self._of_env:
            least = self._of_env.get(getattr(event, "env", ""), least)
        # Before anything is made for it: sessions are opened by the hundred.
        if level >= least and level is not _SILENT:
            fields = fields_of(event)
            if self._causes:
                self._name_causes(kind, fields)
            self.write(level, event.name, fields)
        if self._causes and kind in _LAST:
            self._causes.pop(getattr(event, "session", ""), None)

    def _remember(self, event: Any) -> None:
        """Whose a session is, and which request has asked for it."""
        of_request = {"request": event.request, "traceparent": event.traceparent}
        if event.principal is not None or any(of_request.values()):
            self._causes[event.session] = event.principal, {name: text for name, text in of_request.items() if text}

    def _name_causes(self, kind: type, fields: dict[str, Any]) -> None:
        """Add whose the session is to each of its lines, and to those of its opening the request that asks for it."""
        principal, of_request = self._causes.get(fields.get("session", ""), (None, {}))
        if principal is not None:
            fields.setdefault("principal", principal)
        if kind in _OF_AN_OPENING:
            fields.update(of_request)

    def write(self, level: int, name: str, fields: dict[str, Any]) -> None:
        """Write a line of what is called so, and keep it."""
        line = self.line(level, name, fields)
        with self._writing:
            self.file.write(f"{line}\n")
            self.file.flush()

    def line(self, level: int, name: str, fields: dict[str, Any]) -> str:
        """The line, which is kept as JSON, however it is shown."""
        line = {**fields, "event": name, "level": logging.getLevelName(level).lower(), "timestamp": _now()}
        exception = _traceback(line.pop("exc_info", None))
        if exception is not None:
            line["exception"] = exception
        text = json.dumps(line, default=repr)
        self.recent.keep(line.get("session"), text, is_last=name in _LAST_NAMES)
        return text if self._shown is None else self._shown(line)


def _now() -> str:
    return f"{datetime.now(UTC).replace(tzinfo=None).isoformat()}Z"


def _traceback(
    of: BaseException | tuple[type[BaseException] | None, BaseException | None, TracebackType | None] | None,
) -> str | None:
    exception = of[1] if isinstance(of, tuple) else of
    return None if exception is None else "".join(traceback.format_exception(exception)).removesuffix("\n")


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


class LibraryLog:
    """Says with the standard library's logging what its user is not told otherwise: all but what happens to sessions.

    For programs that have sessions without being a server, whose log is theirs.
    """

    def __call__(self, event: Event) -> None:
        """Log it."""
        level = level_of(event)
        if isinstance(event, events.SessionEvent) or level is _SILENT or not _library.isEnabledFor(level):
            return
        fields = fields_of(event)
        exception = fields.pop("exc_info", None)
        words = " ".join(f"{name}={value!r}" for name, value in fields.items())
        _library.log(level, "%s %s", event.name, words, exc_info=exception)


def level_of(event: Event) -> int:
    """How much an event matters."""
    match event:
        case events.SessionEnded(cause=cause) if cause in events.FAILURES:
            return logging.WARNING
        case events.SessionLimit(again=True) | events.BackendRejected(again=True):
            return logging.DEBUG
        case events.TokenRefused(again=True) | events.CacheNotWritten(again=True):
            return logging.DEBUG
    return _LEVELS[type(event)]


def fields_of(event: Event) -> dict[str, Any]:
    """What is known of it, by name; of an exception, what a logger makes a traceback of."""
    names = {"exception": "exc_info"}
    known = msgspec.structs.asdict(event)
    return {names.get(name, name): value for name, value in known.items() if value is not None}
