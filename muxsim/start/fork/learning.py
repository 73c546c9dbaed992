"""Finds out what an environment's script imports: its first backend, a learner (inside/learner.py), notes it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from muxsim import inside
from muxsim.inside.as_main import LEARNING, TAG_BYTES
from muxsim.observe.events import StartedLearning
from muxsim.processes.command import Command
from muxsim.processes.process import AT_ONCE, Process
from muxsim.runtime.boundary import Part
from muxsim.start.fork.client import while_read
from muxsim.start.fork.content import Content
from muxsim.start.fork.fleet import Fleet
from muxsim.start.fork.learned import Learned, key_of, read_names

# Seconds for a learner to begin with the script: an interpreter starts in 0.02, on a crowded machine in one.
LEARNER_LIMIT: Final = 10.0
# Seconds without an answer from the learner, as when nobody talks to it, after which nobody waits for it.
LEARNER_PATIENCE: Final = 3.0
# Seconds for a rehearsed script to exit when nobody talks to it any more.
REHEARSAL_LIMIT: Final = 10.0

# What a rehearsed script is asked, all at once: so much has it import what it puts off until it is used.
_REHEARSED: Final = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
    b'"clientInfo":{"name":"muxsim","version":"1"}}}\n'
    b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
    b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}\n'
)
_STDERR_READ, _STDERR_READS = 65536, 4
_SHOWN = 200
# Reads until the word of a learner is there, before which a `.pth` file, say, may have printed.
_MOST_NOISE = 10_000


class CannotLearn(Exception):
    """The interpreter does not get as far as the script when ours is in between."""


class Learning:
    """What is known of the modules of one environment.

    ``tell`` is called with False when there is enough for a zygote, and with True when one of before is outdated.
    """

    def __init__(self, env: str, content: Content, fleet: Fleet, part: Part, tell: Callable[[bool], None]) -> None:
        self._env = env
        self._program = content.program
        self._fleet = fleet
        self._part = part
        self._tell = tell
        self._key = key_of(content)
        self.learned = fleet.store.load(self._key) or Learned()
        self._answered: trio.Event | None = None
        self._began = trio.current_time()
        self._file = Path(os.devnull)

    @property
    def has_begun(self) -> bool:
        """Whether there is a learner, or was one of any use."""
        return self._answered is not None or bool(self.learned.modules)

    async def begin(self, command: Command, session: str) -> Process:
        """A backend that learns. Raises `CannotLearn`, or ProcessStartError."""
        answered = self._answered = trio.Event()
        try:
            return await self._start(command, session)
        except BaseException:
            self._forget(answered)
            raise

    async def rehearse(self, command: Command, session: str) -> None:
        """Learn without a session: run the script once, with a client that leaves. Raises as `begin` does."""
        process = await self.begin(command, session)
        try:
            with contextlib.suppress(OSError):  # it has ended, which is told of
                os.write(process.stdin, _REHEARSED)
            process.close_stdin()
            with trio.move_on_after(REHEARSAL_LIMIT):
                await while_read(process, len, process.wait)
        finally:
            with trio.CancelScope(shield=True):
                await process.end(AT_ONCE)
        self._take()

    async def wait(self) -> None:
        """Wait until the learner has answered its first request, though not for long."""
        if self._answered is not None:
            with trio.move_on_at(self._began + LEARNER_PATIENCE):
                await self._answered.wait()
            self._take()

    def leave_out(self, module: str, why: str) -> None:
        """Remember that a zygote cannot hold this module."""
        self._keep(replace(self.learned, left_out={**self.learned.left_out, module: why}))

    async def _start(self, command: Command, session: str) -> Process:
        fleet, program = self._fleet, self._program
        file = fleet.new_file(f"learned-{self._env}")
        head = (program.python, *program.options)
        argv = (*head, *inside.LEARNER, str(file), str(len(program.given)))
        argv += program.command_line(command.argv) or command.argv
        file.touch()  # to write into a file that is there is all that a confined one may be let
        process = await fleet.launcher.spawn(replace(command, argv=argv).writing(str(file)), session=session)
        tag = secrets.token_hex(TAG_BYTES).encode()
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and says nothing
                os.write(process.stdin, tag)
            if not await _begins(process, LEARNING % tag):
                raise CannotLearn(
                    f"its interpreter could not run the script for learning what it imports{_why(process)}"
                )
        except BaseException:
            with trio.CancelScope(shield=True):
                await process.end(AT_ONCE)
            raise
        fleet.events.emit(StartedLearning(self._env))
        self._file, self._began = file, trio.current_time()
        self._part.start_soon(self._follow_learner, process)
        fleet.listen(self._part, process, self._learner_answered)
        return process

    async def _follow_learner(self, process: Process) -> None:
        """Take what it has imported later too, for the next zygote and the next run."""
        await process.wait()
        self._fleet.hooks.pop(process, None)
        if self._take():
            self._tell(True)
        self._file.unlink(missing_ok=True)
        if self._answered is not None:
            self._forget(self._answered)

    def _learner_answered(self) -> bool:
        self.learned = replace(self.learned, seconds=trio.current_time() - self._began)
        self._take()
        if self._answered is not None:
            self._answered.set()
        self._tell(False)
        return False

    def _take(self) -> bool:
        """Read what the learner has noted; whether there is more of it than before."""
        names = read_names(self._file)
        if not names or names == self.learned.modules:
            return False
        self._keep(replace(self.learned, modules=names))
        return True

    def _keep(self, learned: Learned) -> None:
        self.learned = learned
        self._fleet.store.save(self._key, learned)

    def _forget(self, answered: trio.Event) -> None:
        answered.set()
        if self._answered is answered and not self.learned.modules:
            self._answered = None


def _why(process: Process) -> str:
    """The last that it has said, if it has."""
    said = b""
    with contextlib.suppress(OSError):  # BlockingIOError among them: there is no more
        for _ in range(_STDERR_READS):  # it may go on and on
            said = os.read(process.stderr, _STDERR_READ) or said
    last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
    return f": {last[:_SHOWN]}" if last else ""


async def _begins(process: Process, word: bytes) -> bool:
    """Whether a learner gets as far as the script: it says this word then; what was said before is nothing to anybody.

    Not a byte is read of what the script says.
    """
    said = b""
    with trio.move_on_after(LEARNER_LIMIT):
        for _ in range(_MOST_NOISE):
            missing = len(word) - _begun(word, said)
            if not missing:
                return True
            await trio.lowlevel.wait_readable(process.stdout)
            more = os.read(process.stdout, missing)
            if not more:
                return False
            said = (said + more)[-len(word) :]
    return False


def _begun(word: bytes, said: bytes) -> int:
    """How many bytes of the word there are at the end of what was said."""
    return next(count for count in range(len(word), -1, -1) if said.endswith(word[:count]))
