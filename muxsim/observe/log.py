"""One structured line for each event of a session's life, on stderr."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, TextIO, cast

import structlog

from muxsim.config import Config
from muxsim.observe.events import SessionEvent, What
from muxsim.observe.log_sink import LogSink
from muxsim.session.session import FAILURES

_LEVELS: Final = {
    What.OPENING: logging.DEBUG,
    What.STDERR: logging.INFO,
    What.REJECTED: logging.WARNING,
    What.LIMIT: logging.WARNING,
    What.OPEN_FAILED: logging.WARNING,
    What.CRASHED: logging.ERROR,
}


def configure(log_format: str, level: str, buffer: int) -> LogSink:
    """Write JSON lines, or lines for people where stderr is a terminal or "console" was asked for.

    ``buffer`` bytes may wait for whoever reads them; what is left out past that is counted by the sink.
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
        event: Any = {"event": "log.lines_left_out", "lines": lines, "setting": "log_buffer"}
        for process in processors:
            event = process(None, "warning", event)
        return f"{event}\n"

    sink = LogSink(sys.stderr.fileno(), buffer, notice)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", sink)),
        cache_logger_on_first_use=True,
    )
    # uvicorn and asyncio report with the standard library's logging: their words are lines of this log too.
    logging.basicConfig(handlers=[_IntoThisLog()], level=logging.WARNING, force=True)
    return sink


def log_notes(config: Config) -> None:
    """Log what the reader of a config should be told."""
    for note in config.notes:
        structlog.get_logger().warning("config.note", note=note)


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

    def __call__(self, event: SessionEvent) -> None:
        """Log it."""
        level = _level(event)
        if level < self._least:
            return  # before anything is made for it: sessions are opened by the hundred
        fields: dict[str, Any] = {"session": event.session, "env": event.env, "seed": event.seed}
        if event.pid is not None:
            fields["pid"] = event.pid
        details = {key: value for key, value in event.details.items() if value is not None}
        self._logger.log(level, event.what.value, **fields, **details)


def _level(event: SessionEvent) -> int:
    if event.what is What.ENDED and event.details.get("cause") in FAILURES:
        return logging.WARNING
    if event.what is What.LIMIT and event.details.get("again"):
        return logging.DEBUG
    return _LEVELS.get(event.what, logging.INFO)
