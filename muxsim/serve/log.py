"""One structured line for each event of a session's life, on stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Any, Final, TextIO, cast

import structlog

from muxsim.events import SessionEvent, What
from muxsim.session.session import FAILURES

_LEVELS: Final = {
    What.OPENING: "debug",
    What.STDERR: "info",
    What.REJECTED: "warning",
    What.OPEN_FAILED: "warning",
    What.CRASHED: "error",
}


def configure(log_format: str, level: str) -> None:
    """Write JSON lines, or lines for people where stderr is a terminal or "console" was asked for."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()) if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Sink(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    # uvicorn and asyncio report with the standard library's logging: their words are lines of this log too.
    logging.basicConfig(handlers=[_IntoThisLog()], level=logging.WARNING, force=True)


class _Sink:
    """stderr, whose reader may go: then there is no log, but the sessions go on and can still be ended."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


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
    return _LEVELS.get(event.what, "info")
