"""Muxsim's end of a guardian's channel: what is asked of it, and whatever waits for its answers."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import trio

from muxsim import inside
from muxsim.inside import wire
from muxsim.inside.descriptors import close
from muxsim.inside.estate import Estate
from muxsim.observe.events import (
    GuardianConfused,
    GuardianDied,
    GuardianStarted,
    LeftoversKilled,
    Listener,
    ProcessEnded,
    ProcessStarted,
)
from muxsim.processes.command import Command, ProcessStartError, order_of
from muxsim.processes.explain import explain
from muxsim.processes.outbox import Outbox
from muxsim.processes.owner import GUARDIAN_MARK
from muxsim.processes.pipes import Pipes, open_pipes
from muxsim.processes.process import AT_ONCE, DEATH_LIMIT, Process

GUARDIAN_EXIT_LIMIT = 3.0
"""Seconds for the guardian to exit when the launcher closes; it needs at most one, with nothing stuck in the kernel."""

READ_AT_ONCE = 64
"""Answers of the guardian that are taken before others have their turn."""

MOST_COMPLAINTS = 10
"""How many answers that make no sense the log shows."""

Fork = Callable[[str, tuple[int, ...]], Awaitable[int]]
"""Makes a process with this mark and these streams, which it takes over, and returns its pid."""


class Start:
    """A spawn or an adoption in flight, which has no command. Settled when it has a process or an error."""

    def __init__(self, number: int, mark: str, command: Command | None, session: str, pipes: Pipes) -> None:
        self.number = number
        self.mark = mark
        self.command = command
        self.session = session
        self.settled = trio.Event()
        self.process: Process | None = None
        self.error: ProcessStartError | None = None
        self.abandoned = False
        self.pipes = pipes

    def succeed(self, process: Process) -> None:
        """There is a process."""
        self.process = process
        self.settled.set()

    def close(self) -> None:
        """Close our ends of its pipes."""
        for fd in self.pipes:
            if fd >= 0:
                close(fd)

    def fail(self, number: int, stage: str) -> None:
        """There is none."""
        self.close()
        self.error = ProcessStartError(number, stage, explain(number, stage, self.command))
        self.settled.set()


class Client:
    """One guardian process, as a launcher sees it; ``numbers`` name what all of a launcher's start."""

    def __init__(
        self, python: str, token: str, estate: Estate, numbers: Iterator[int], nursery: trio.Nursery, emit: Listener
    ) -> None:
        self._emit = emit
        self.gone = False
        self.finished = trio.Event()
        self.starts: dict[int, Start] = {}
        self.processes: dict[int, Process] = {}
        self.cleared = trio.Event()
        self._token = token
        self._numbers = numbers
        self._nursery = nursery
        self._reading = trio.CancelScope()
        self._nonsense = 0
        self._shut_down = False
        self._answers: dict[str, Callable[[wire.Message, list[int]], None]] = {
            "spawned": self._on_spawned,
            "failed": self._on_failed,
            "exited": self._on_exited,
            "remembered": self._on_remembered,
            "swept": self._on_swept,
            "cleared": self._on_cleared,
        }
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._channel.setblocking(False)
            self._outbox = Outbox(self._channel)
            self._child = _start_guardian(python, token, estate, theirs)
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
        emit(GuardianStarted(self.pid))

    @property
    def pid(self) -> int:
        return self._child.pid

    # what is asked of it

    def spawn(self, command: Command, session: str, *, channel: bool, lent: int | None) -> Start:
        number, mark = self._next_mark()
        order = order_of(command, mark)
        theirs, ours = open_pipes(channel=channel, lent=lent)
        start = Start(number, mark, command, session, ours)
        try:
            packet = wire.pack({**order, "ref": number}, theirs)
        except OSError as error:
            start.fail(error.errno or errno.EMFILE, "descriptors")
            return start
        self._ask(start, packet)
        return start

    async def adopt(self, fork: Fork, session: str) -> Start:
        number, mark = self._next_mark()
        theirs, ours = open_pipes()
        start = Start(number, mark, None, session, ours)
        try:
            pid = await fork(mark, theirs)  # which has closed them even if it fails
        except BaseException:
            start.close()  # the end of its stdin ends a fork of which we have not heard
            raise
        if self.gone:
            start.fail(errno.EPIPE, "guardian")
            return start
        self._ask(start, wire.pack({"kind": "adopt", "ref": number, "pid": pid, "mark": mark}))
        return start

    def _ask(self, start: Start, packet: wire.Packet) -> None:
        def refused(error: OSError) -> None:
            del self.starts[start.number]
            start.fail(error.errno or errno.EMFILE, "descriptors")

        self.starts[start.number] = start
        self._outbox.post(packet, refused)

    def _next_mark(self) -> tuple[int, str]:
        number = next(self._numbers)
        # Of one length, since a fork writes its own over the one that its process was started with.
        return number, f"{self._token}.{number:010d}"

    async def abandon(self, start: Start) -> None:
        """Nobody wants this process any more: end it, now or as soon as it is there."""
        start.abandoned = True
        await start.settled.wait()
        if start.process is not None:
            await start.process.end(AT_ONCE)

    def signal(self, process: Process, *numbers: int) -> None:
        self._tell("signal", pid=process.pid, signals=numbers)

    def remember(self, process: Process) -> None:
        self._tell("remember", pid=process.pid)

    def sweep(self, process: Process) -> None:
        self._tell("sweep", pid=process.pid)

    def clear(self) -> None:
        """End whatever earlier guardians of this launcher left behind; asked first, when nothing is its own yet."""
        self._tell("clear")

    def _tell(self, kind: str, **fields: Any) -> None:
        self._outbox.post(wire.pack({"kind": kind, **fields}))

    def forget(self, process: Process, *, swept: bool) -> None:
        if self.processes.get(process.pid) is process:
            del self.processes[process.pid]
        self._emit(ProcessEnded(process.pid, swept))

    def shut_down(self) -> None:
        """The last that is asked of it: to end what is left, and exit."""
        self._shut_down = True
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        self._reading.deadline = trio.current_time() + GUARDIAN_EXIT_LIMIT

    # the channel

    @trio.lowlevel.enable_ki_protection
    async def serve(self, replace: Callable[[], Awaitable[None]]) -> None:
        """Take its answers until it exits. `replace` is called if it goes unasked and leaves processes behind."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as writing:
                writing.start_soon(self._outbox.run)
                with self._reading:
                    await self._read()
                writing.cancel_scope.cancel()
            await self._bury()
            if not self._shut_down:
                self._emit(GuardianDied(self.pid, self._child.returncode, len(self.processes)))
            await self._lose_everything(replace)
            self.finished.set()

    async def _read(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._channel)
            with contextlib.suppress(BlockingIOError):
                for _ in range(READ_AT_ONCE):
                    if not self._read_one():
                        return

    def _read_one(self) -> bool:
        """Take one answer; False at the end of the channel. What makes no sense is for nobody, and ends nobody."""
        try:
            received = wire.receive(self._channel)
        except wire.Unreadable as error:
            self._complain(error)
            return True
        if received.message is None:
            return False
        try:
            self._answers[received.message["kind"]](received.message, received.fds)
        except Exception as error:  # of all that wait only one is not told, and its time will be over
            self._complain(error)
        for fd in received.fds:  # that nobody has taken
            close(fd)
        return True

    def _complain(self, error: Exception) -> None:
        self._nonsense += 1
        if self._nonsense <= MOST_COMPLAINTS:
            self._emit(GuardianConfused(self.pid, error))

    # its answers

    def _on_spawned(self, message: wire.Message, fds: list[int]) -> None:
        start = self.starts.pop(message["ref"])
        if not fds:  # our own limit was reached, and the kernel dropped it
            self._tell("sweep", pid=message["pid"])
            start.fail(errno.EMFILE, "descriptors")
            return
        process = Process(self, message["pid"], fds.pop(0), session=start.session, mark=start.mark, pipes=start.pipes)
        self.processes[process.pid] = process
        self._emit(ProcessStarted(process.pid))
        start.succeed(process)
        if start.abandoned:
            self._nursery.start_soon(process.end, AT_ONCE)

    def _on_failed(self, message: wire.Message, _: list[int]) -> None:
        self.starts.pop(message["ref"]).fail(message["errno"], message["stage"])

    def _on_exited(self, message: wire.Message, _: list[int]) -> None:
        if process := self.processes.get(message["pid"]):
            process.on_exited(message["status"])

    def _on_remembered(self, message: wire.Message, _: list[int]) -> None:
        if process := self.processes.get(message["pid"]):
            process.on_remembered()

    def _on_swept(self, message: wire.Message, _: list[int]) -> None:
        # From here on the pid may be another process's, perhaps our next one's.
        if process := self.processes.pop(message["pid"], None):
            self._killed(message["killed"])
            if message["left"] == 0:
                process.on_swept()

    def _on_cleared(self, message: wire.Message, _: list[int]) -> None:
        self._killed(message["killed"])
        self.cleared.set()

    def _killed(self, count: int) -> None:
        if count:
            self._emit(LeftoversKilled(count))

    # its end

    async def _bury(self) -> None:
        self.gone = True
        self._outbox.close()
        self._channel.close()
        if not self._reading.cancelled_caught:
            await self._see_it_exit(GUARDIAN_EXIT_LIMIT)
        if self._child.poll() is None:
            self._child.kill()
            await self._see_it_exit(DEATH_LIMIT)
        self._child.poll()

    async def _see_it_exit(self, seconds: float) -> None:
        with trio.move_on_after(seconds), contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self.pid)
            try:
                await trio.lowlevel.wait_readable(pidfd)
            finally:
                close(pidfd)

    async def _lose_everything(self, replace: Callable[[], Awaitable[None]]) -> None:
        starts, processes = list(self.starts.values()), list(self.processes.values())
        self.starts.clear()
        for start in starts:
            start.fail(errno.EPIPE, "guardian")
        async with trio.open_nursery() as nursery:
            for process in processes:
                nursery.start_soon(process.die_unguarded)
        if starts or processes:
            await replace()
        for process in processes:
            process.on_swept()
        self.cleared.set()


def _start_guardian(python: str, token: str, estate: Estate, channel: socket.socket) -> subprocess.Popen[bytes]:
    # Not trio's own: that starts children on a worker thread, and PDEATHSIG is about threads. In a session of its
    # own, no terminal's SIGINT reaches it or its children; its stderr is ours, should it ever have a fault to show.
    return subprocess.Popen(
        [python, "-I", "-S", inside.GUARDIAN, str(os.getpid()), token, *estate],
        env={**os.environ, GUARDIAN_MARK: token},
        stdin=channel.fileno(),
        stdout=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
