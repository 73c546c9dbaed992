"""One structured line for each event of a session's life, on stderr."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, TextIO, cast

import structlog

from muxsim.events import SessionEvent, What
from muxsim.serve.log_sink import LogSink
from muxsim.session.session import FAILURES

_LEVELS: Final = {
    What.OPENING: "debug",
    What.STDERR: "info",
    What.REJECTED: "warning",
    What.LIMIT: "warning",
    What.OPEN_FAILED: "warning",
    What.CRASHED: "error",
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


class _IntoThisLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage().strip(), logger=record.name, exc_info=record.exc_info
        )


def log_event(event: SessionEvent) -> None:
    """A listener for `muxsim.events.Events`."""
    fields: dict[str, Any] = {"session": event.session, "env": event.env, "seed": event.seed}
    if event.pid is not None:
        fields["pid"] = event.pid
    details = {key: value for key, value in event.details.items() if value is not None}
    getattr(structlog.get_logger(), _level(event))(event.what.value, **fields, **details)


def _level(event: SessionEvent) -> str:
    if event.what is What.ENDED and event.details.get("cause") in FAILURES:
        return "warning"
    if event.what is What.LIMIT and event.details.get("again"):
        return "debug"
    return _LEVELS.get(event.what, "info")
