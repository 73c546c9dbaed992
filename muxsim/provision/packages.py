"""Each environment's package, installed once for all who wait for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

from muxsim.processes.process import AT_ONCE, Command, Launcher
from muxsim.provision import npm, uv
from muxsim.provision.cache import installers_run_by
from muxsim.spec import EnvSpec

# Seconds, after an installer's exit, for what it has written to be read.
_LAST_WORDS: Final = 0.5
_READ: Final = 64 * 1024
# Bytes of its output that are kept: the last.
_MOST_SAID: Final = 1024 * 1024


class Packages:
    """Prepares specs, and remembers what came of it as long as they stay the same.

    Installers run under the eye of the launcher's guardian, as backends do: whatever becomes of muxsim, they end.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._ready: dict[str, tuple[EnvSpec, EnvSpec]] = {}
        self._preparing: dict[str, trio.Lock] = {}

    async def ready(self, spec: EnvSpec) -> EnvSpec:
        """The spec with its package installed, once; raises `PackageError`, and then the next one tries again."""
        if (known := self.known(spec)) is not None:
            return known
        async with self._preparing.setdefault(spec.name, trio.Lock()):
            if (known := self.known(spec)) is not None:
                return known
            with installers_run_by(self._run):
                ready = await uv.prepare(await npm.prepare(spec))
            self._ready[spec.name] = spec, ready
            return ready

    def known(self, spec: EnvSpec) -> EnvSpec | None:
        """The spec as `ready` gives it, if there is nothing left to do."""
        known, ready = self._ready.get(spec.name, (None, None))
        return ready if known == spec else None

    async def _run(
        self, argv: tuple[str, ...], *, cwd: Path, environ: Mapping[str, str], lock: int
    ) -> subprocess.CompletedProcess[bytes]:
        process = await self._launcher.spawn(Command(argv, environ, str(cwd)), session="installer", lent=lock)
        said = bytearray()
        try:
            process.close_stdin()
            async with trio.open_nursery() as nursery:
                for stream in (process.stdout, process.stderr):
                    nursery.start_soon(_collect, stream, said)
                await process.wait()
                # What it wrote is in the pipes; what it has left behind may hold them open.
                nursery.cancel_scope.deadline = trio.current_time() + _LAST_WORDS
        finally:
            await process.end(AT_ONCE)
        assert process.returncode is not None
        return subprocess.CompletedProcess(argv, process.returncode, bytes(said))


async def _collect(stream: int, said: bytearray) -> None:
    while True:
        await trio.lowlevel.wait_readable(stream)
        if not (data := os.read(stream, _READ)):
            return
        said += data
        del said[:-_MOST_SAID]
