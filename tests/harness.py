"""A real `muxsim serve` for tests, as a user starts it: a command in a folder that is not the config's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

ROOT = Path(__file__).resolve().parent.parent
SERVERS = ROOT / "tests" / "servers"
MUXSIM = (sys.executable, "-m", "muxsim")
START_LIMIT = 120
STOP_LIMIT = 60


@dataclass
class Running:
    """A muxsim that is ready at ``url``; ``log`` holds its stderr, JSON lines."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait for its exit status."""
        self.process.send_signal(number)
        return self.process.wait(STOP_LIMIT)


@contextmanager
def muxsim_serve(
    folder: Path, config: str | Path, *options: str, env: dict[str, str] | None = None
) -> Iterator[Running]:
    """Serve ``config`` (a path, or the text of a muxsim.toml) on a free port; ended at the block's end."""
    if isinstance(config, str):
        file = folder / "config" / "muxsim.toml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(config)
    else:
        file = config
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    log = folder / "muxsim.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*MUXSIM, "serve", str(file), "--port", "0", "--log-format", "json", *options],
            cwd=elsewhere,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout is not None
        found = re.search(r"https?://\S+", process.stdout.readline())
        assert found is not None, f"muxsim did not start:\n{log.read_text()}"
        yield Running(found[0], process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()


@asynccontextmanager
async def serving(
    folder: Path, config: str | Path, *options: str, env: dict[str, str] | None = None
) -> AsyncIterator[Running]:
    """`muxsim_serve` for async tests, which must not block their loop while it starts and stops."""
    manager = muxsim_serve(folder, config, *options, env=env)
    running = await anyio.to_thread.run_sync(manager.__enter__)
    try:
        yield running
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(manager.__exit__, None, None, None)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
