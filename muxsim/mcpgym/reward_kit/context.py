"""What a tool is told of its call: as much of FastMCP's `Context` as one session in one process has."""

import logging
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

logger = logging.getLogger(__name__)


def _nobody() -> SimpleNamespace:
    # Who plays is muxsim's to know. The seed came with the process, so no server need look for it here.
    return SimpleNamespace(clientInfo=None)


@dataclass(frozen=True)
class _Session:
    client_params: SimpleNamespace = field(default_factory=_nobody)


@dataclass(frozen=True)
class Context:
    """Annotate a parameter of a tool with it, and the tool is given one; no agent sees that parameter.

    What is logged or reported goes to stderr, and so into muxsim's log.
    """

    request_id: str = ""
    client_id: str | None = None
    session: _Session = field(default_factory=_Session)

    def __class_getitem__(cls, _parameters: Any) -> "type[Context]":
        return cls

    async def log(self, level: str, message: str, **_extra: Any) -> None:
        """Log a message."""
        logger.log(logging.getLevelNamesMapping().get(level.upper(), logging.INFO), "%s", message)

    async def debug(self, message: str, **_extra: Any) -> None:
        """Log a message."""
        await self.log("debug", message)

    async def info(self, message: str, **_extra: Any) -> None:
        """Log a message."""
        await self.log("info", message)

    async def warning(self, message: str, **_extra: Any) -> None:
        """Log a message."""
        await self.log("warning", message)

    async def error(self, message: str, **_extra: Any) -> None:
        """Log a message."""
        await self.log("error", message)

    async def report_progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Log how far it is."""
        await self.log("info", f"{progress:g} of {total}: {message or ''}")
