"""A real `muxsim serve` for tests, as a user starts it: a command in a folder that is not the config's."""

from __future__ import annotations

import gc
import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import trio
import trio.testing

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
        file.write_text(patient(config))
    else:
        file = config
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    log = folder / "muxsim.log"
    where = () if "--unix" in options else ("--port", "0")
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*MUXSIM, "serve", str(file), *where, "--log-format", "json", *options],
            cwd=elsewhere,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout is not None
        found = re.search(r"(https?://|unix:)\S+", process.stdout.readline())
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


def patient(config: str) -> str:
    """The text of a muxsim.toml that waits for clients on a busy machine, unless it says how long it does."""
    ours = "".join(f"{key} = 600\n" for key in ("header_timeout", "body_timeout") if key not in config)
    table = re.compile(r"^\[server\]\n", re.MULTILINE)
    if table.search(config):
        return table.sub(lambda found: found[0] + ours, config, count=1)
    return f"{config}\n[server]\n{ours}"


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


async def cancelled_once_it_waits(function: Callable[..., Awaitable[object]], *args: object) -> bool:
    """Begin something and cancel it as soon as nothing goes on but what it waits for; whether that cut it short."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(function, *args)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return nursery.cancel_scope.cancelled_caught


async def given_time(attempt: Callable[[float], Awaitable[object]], *seconds: float) -> None:
    """`attempt` with a time that the product is to keep to, and with ever more, until this machine is fast enough.

    For what has to be done within a time that is tested itself: a fault shows with every one of them.
    """
    for time in seconds[:-1]:
        with suppress(Exception):
            await attempt(time)
            return
    await attempt(seconds[-1])


class Gate:
    """What a child waits at, `naughty` for one, until a test opens it: for all who wait, and who come later."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(path)
        # For both ways, or there would have to be a reader.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def open(self) -> None:
        """Let them go on."""
        os.write(self._fd, b"x")

    def shut(self) -> None:
        """Let those who come from now on wait again."""
        os.read(self._fd, 4096)

    def close(self) -> None:
        """Give its descriptor back."""
        os.close(self._fd)


def ours() -> Counter[str]:
    """How many objects this process has of each type that muxsim makes, for itself or for a connection."""
    rooms = ("muxsim.", "transports.", "uvicorn.")
    types = (type(one) for one in gc.get_objects())
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in types)
    return Counter(name for name in names if name.startswith(rooms))


class Collector:
    """Has a muxsim that is served with `env` collect its garbage, so that what its memory holds is what it keeps.

    What is over and refers to itself, as a session and its connections do, waits for Python's collector. What of it was
    in use at a collection of the middle generation waits for a full one, of which there is one in some 400 sessions.
    """

    _SITE = f"""
import gc, json, os, threading
from collections import Counter
{inspect.getsource(ours)}
def collect():
    pipe = os.environ["COLLECTOR"]
    asked, done = (open(pipe + name, mode, 0) for name, mode in ((".asked", "rb"), (".done", "wb")))
    while asked.read(1):
        gc.collect()
        with open(pipe + ".found", "w") as found:
            json.dump(ours(), found)
        done.write(b"x")
threading.Thread(target=collect, daemon=True).start()
"""

    def __init__(self, folder: Path) -> None:
        site = folder / "collector"
        site.mkdir()
        (site / "sitecustomize.py").write_text(self._SITE)
        pipe = site / "pipe"
        self._found = Path(f"{pipe}.found")
        self.env = {"PYTHONPATH": str(site), "COLLECTOR": str(pipe)}
        self._ends = []
        for name in (".asked", ".done"):
            os.mkfifo(f"{pipe}{name}")
            self._ends.append(os.open(f"{pipe}{name}", os.O_RDWR))

    async def collect(self) -> Counter[str]:
        """Wait until it has collected all there is; returns the objects of `ours` that it has then."""
        os.write(self._ends[0], b"x")
        await anyio.to_thread.run_sync(os.read, self._ends[1], 1, abandon_on_cancel=True)
        return Counter(json.loads(self._found.read_text()))

    def close(self) -> None:
        """Give its descriptors back."""
        for end in self._ends:
            os.close(end)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
