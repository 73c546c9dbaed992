"""One structured line on stderr for each thing that happens."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO, cast

import msgspec
import structlog

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
_to_json: Final = structlog.processors.JSONRenderer()
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
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    log = EventLog(level, stream, RecentLines(kept))
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        *(
            [log.keep, _printable, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
            if console
            else [log.render]
        ),
    ]

    def notice(lines: int) -> str:
        told = events.LogLinesLeftOut(lines)
        line: Any = {"event": told.name, **fields_of(told)}
        for process in processors:
            line = process(None, "warning", line)
        return f"{line}\n"

    sink = LogSink(sys.stderr.fileno(), buffer, notice, lambda: stream.emit(events.LogLinesLeftOut(1)))
    file: Any = sink
    if console and sys.stderr.isatty():
        file = StatusLine(sink, sys.stderr.fileno())
        stream.subscribe(file)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),  # `EventLog` knows the levels
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", file)),
        cache_logger_on_first_use=True,
    )
    # uvicorn and asyncio report with the standard library's logging: their words are lines of this log too.
    logging.basicConfig(handlers=[_IntoThisLog(log)], level=logging.WARNING, force=True)
    stream.subscribe(log)
    return log


def for_people(line: dict[str, Any], *, colors: bool) -> str:
    """A line of the log, as it is on a terminal."""
    return str(structlog.dev.ConsoleRenderer(colors=colors)(None, "", _printable(None, "", line)))


def _printable(logger: object, name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Have nothing that a client or a child has said move the cursor of whoever reads the log, or hide in it."""
    for key, value in line.items():
        if isinstance(value, str) and key != "exception" and not value.isprintable():
            line[key] = "".join(one if one.isprintable() else repr(one)[1:-1] for one in value)
    return line


class _IntoThisLog(logging.Handler):
    def __init__(self, log: EventLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= self._log.least:
            structlog.get_logger().log(
                record.levelno, record.getMessage().strip(), logger=record.name, exc_info=record.exc_info
            )


class EventLog:
    """A listener for `muxsim.observe.events.Events`, which logs what is of the level at least that was set last."""

    def __init__(self, level: str, stream: Events, recent: RecentLines) -> None:
        self.least = _number(level)
        """Of what is of no environment with a level of its own."""
        self.recent = recent
        """The last lines."""
        self._of_env: dict[str, int] = {}
        self._stream = stream
        self._logger = structlog.get_logger()
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
            self._logger.log(level, event.name, **fields)
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

    # ---- processors of structlog's

    def render(self, logger: object, name: str, line: MutableMapping[str, Any]) -> str:
        """The line as JSON, which is kept."""
        session = line.get("session")
        text = str(_to_json(logger, name, line))
        self.recent.keep(session, text, is_last=line.get("event") in _LAST_NAMES)
        return text

    def keep(self, logger: object, name: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Keep the line as JSON, whatever becomes of it."""
        self.render(logger, name, dict(line))
        return line


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
