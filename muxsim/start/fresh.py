"""A process that is started when it is ordered: in a folder of its own, and enclosed as its spec says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from muxsim.errors import PlaceError
from muxsim.processes.command import Command
from muxsim.processes.enclosure import Enclosures
from muxsim.processes.process import Process
from muxsim.spec import EnvSpec
from muxsim.start.folders import Folders
from muxsim.start.order import Order, Started
from muxsim.start.shortage import EXHAUSTED, no_more

Spawn = Callable[[EnvSpec, Command], Awaitable[Process]]
"""Starts a command, which is what the spec gives for one session. Raises ProcessStartError."""


class Fresh:
    """Starts what is ordered, by ``spawn``."""

    def __init__(self, enclosures: Enclosures, folders: Folders, environ: Mapping[str, str], spawn: Spawn) -> None:
        self._enclosures = enclosures
        self._folders = folders
        self._environ = environ
        self._spawn = spawn

    async def start(self, order: Order) -> Started:
        """Start it; nothing of it is left where that fails. Raises ProcessStartError, `StartError` or `Busy`."""
        folder = order.workspace or self._new_folder(order.spec)
        workspace = str(folder)
        try:
            if order.workspace is None:
                await self._folders.begin(folder, order.template, order.spec)
            process, enclosure = await self._enclosures.start(
                order.spec, order.launch(workspace, self._environ), workspace, lambda one: self._spawn(order.spec, one)
            )
        except BaseException:
            if order.workspace is None:
                await self._folders.remove(folder)
            raise
        return Started(process, enclosure, folder)

    def _new_folder(self, spec: EnvSpec) -> Path:
        try:
            return self._folders.make(spec.name)
        except OSError as error:
            text = f"environment {spec.name!r}: no folder for its session: {error}"
            raise (no_more(text) if error.errno in EXHAUSTED else PlaceError(text)) from error
