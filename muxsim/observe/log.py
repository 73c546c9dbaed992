"""One structured line on stderr for each thing that happens."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, Final, TextIO, cast

import msgspec
import structlog

from muxsim.observe import events
from muxsim.observe.events import Event, Events
from muxsim.observe.log_sink import LogSink
from muxsim.observe.status_line import StatusLine

_SILENT: Final = 0
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
    events.ZygoteFailed: logging.DEBUG,
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
    events.InstallRemoved: logging.INFO,
    events.LockOutdated: logging.WARNING,
    events.RunsAsItStands: logging.WARNING,
    events.KeysNotHad: logging.WARNING,
    events.KeysOutdated: logging.WARNING,
    events.TokenRefused: logging.DEBUG,
    events.HTTPLimit: logging.DEBUG,
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
    events.LogLinesLeftOut: _SILENT,  # the sink writes it itself, as soon as it can
    events.PartFailed: logging.ERROR,
    events.SignalFailed: logging.ERROR,
    events.CommandFailed: logging.ERROR,
}


def configure(log_format: str, level: str, buffer: int, stream: Events) -> None:
    """Write JSON lines, or lines for people where stderr is a terminal or "console" was asked for.

    What ``stream`` tells is written from now on, and what is said with the standard library's logging. ``buffer`` bytes
    may wait for whoever reads them; past that, lines are left out, which the stream is told.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else structlog.processors.JSONRenderer()
    )
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        renderer,
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
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", file)),
        cache_logger_on_first_use=True,
    )
    # uvicorn and asyncio report with the standard library's logging: their words are lines of this log too.
    logging.basicConfig(handlers=[_IntoThisLog()], level=logging.WARNING, force=True)
    log = EventLog(level)
    stream.subscribe(log)
    stream.follow_calls(log, wanted=level == "debug")


class _IntoThisLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage().strip(), logger=record.name, exc_info=record.exc_info
        )


class EventLog:
    """A listener for `muxsim.observe.events.Events`, which logs what is of this level at least."""

    def __init__(self, level: str) -> None:
        self._least = logging.getLevelNamesMapping()[level.upper()]
        self._logger = structlog.get_logger()

    def __call__(self, event: Event) -> None:
        """Log it."""
        level = level_of(event)
        # Before anything is made for it: sessions are opened by the hundred.
        if level >= self._least and level is not _SILENT:
            self._logger.log(level, event.name, **fields_of(event))


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
    return _LEVELS[type(event)]


def fields_of(event: Event) -> dict[str, Any]:
    """What is known of it, by name; of an exception, what a logger makes a traceback of."""
    names = {"exception": "exc_info"}
    known = msgspec.structs.asdict(event)
    return {names.get(name, name): value for name, value in known.items() if value is not None}
