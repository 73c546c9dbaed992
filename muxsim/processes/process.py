"""Child processes: started, signalled and ended with everything they started, through a guardian (guardian.py).

Nothing else in muxsim starts a backend. A `Launcher` owns one guardian process; each `Process` has one way out, `end`,
which is bounded and also ends grandchildren, those that called setsid included. Needs Linux 5.4 and trio, which may run
as a guest of another loop.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import resource
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Literal

import trio

from muxsim import inside
from muxsim.inside import proc, wire
from muxsim.inside.descriptors import close
from muxsim.inside.estate import Estate
from muxsim.processes import strays
from muxsim.runtime.boundary import background

ANSWER_LIMIT = 0.5
"""Seconds that a cancelled spawn waits, so as to leave no child; an answer after that ends it in the background."""

GUARDIAN_EXIT_LIMIT = 3.0
"""Seconds for the guardian to exit when the launcher closes; it needs at most one, with nothing stuck in the kernel."""

RESEND_PAUSE = 0.01
"""Seconds until a message is sent again that the kernel had no memory for."""

READ_AT_ONCE = 64
"""Answers of the guardian that are taken before others have their turn."""

MOST_COMPLAINTS = 10
"""How many answers that make no sense the log shows."""

DEATH_LIMIT = 1.0
"""Seconds for a process to be gone after SIGKILL before its exit is reported without having been seen."""


_log = logging.getLogger(__name__)

Stream = Literal["stdin", "stdout", "stderr", "channel"]

Fork = Callable[[str, tuple[int, ...]], Awaitable[int]]
"""Makes a process with this mark and these streams, which it takes over, and returns its pid."""


@dataclass(frozen=True)
class Command:
    """What to run.

    A first word without a slash is looked up on the PATH of `env`; one with a slash is relative to `cwd`. `env` is the
    whole environment, to which only `MUXSIM_PROCESS` is added, by which the guardian finds what the process leaves
    behind. `rlimits` maps `resource.RLIMIT_*` to (soft, hard); a `umask` of None leaves the launcher's; `nice` is added
    to its niceness. With `no_new_privs` no setuid program or file capability gives it, or what it runs, more rights.
    `cgroup` is the folder of a cgroup v2 for it to be in.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    umask: int | None = None
    rlimits: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    nice: int = 0
    no_new_privs: bool = False
    cgroup: str = ""


@dataclass(frozen=True)
class EndTimes:
    """Seconds that each step of a process's way out may take; their sum bounds the whole.

    `stdin_close`: from closing its stdin, where a sound stdio server exits, to SIGTERM. `term`: from SIGTERM to
    SIGKILL. `kill`: for SIGKILL to take effect on the whole tree. The defaults keep within two seconds a process that
    ignores everything that can be ignored. A step of 0 is left out.
    """

    stdin_close: float = 0.5
    term: float = 1.0
    kill: float = 1.0

    def hastened(self, other: EndTimes) -> EndTimes:
        """These, or what `other` has that is shorter. SIGKILL is not made to work faster by less patience."""
        return EndTimes(min(self.stdin_close, other.stdin_close), min(self.term, other.term), self.kill)


AT_ONCE = EndTimes(stdin_close=0, term=0)
"""No steps before SIGKILL."""


class ProcessStartError(OSError):
    """A process could not be started, and nothing of it is left.

    `stage` says where: "command" (what was asked for makes no sense), "descriptors", "fork", "prepare", "chdir",
    "cgroup", "nice", "no_new_privs", "rlimits", "exec", "guardian" (the helper process is gone) or "closed" (the
    launcher is).
    """

    def __init__(self, number: int, stage: str, message: str) -> None:
        super().__init__(number, message)
        self.stage = stage

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(frozen=True)
class LauncherStatistics:
    """`starting` and `alive` are now, the rest since the launcher was opened.

    `leftovers_killed` counts processes that children had left behind or would not end themselves, `unswept` the ends
    that had to give up on something that survives SIGKILL.
    """

    guardian_pid: int | None
    guardians_started: int
    starting: int
    alive: int
    spawned: int
    failed: int
    ended: int
    leftovers_killed: int
    unswept: int


@dataclass
class _Counts:
    next_number: int = 0
    guardians_started: int = 0
    spawned: int = 0
    failed: int = 0
    ended: int = 0
    leftovers_killed: int = 0
    unswept: int = 0


class Process:
    """A running child, or one that has ended; made by `Launcher.spawn`, and its spawner's to `end`.

    `stdin`, `stdout` and `stderr` are our ends of its pipes: non-blocking descriptors, closed by this object unless
    they are handed over (-1 afterwards). Who waits on one when it is closed gets trio.ClosedResourceError. `channel`,
    which is -1 unless it was asked for, is such an end too: of its descriptor `descriptors.CHANNEL`.
    """

    def __init__(self, guardian: _Guardian, pid: int, pidfd: int, start: _Start) -> None:
        self.pid = pid
        self.session = start.session
        self.mark = start.mark
        self.returncode: int | None = None
        self.stdin, self.stdout, self.stderr, self.channel = start.pipes
        self._guardian = guardian
        self._pidfd = pidfd
        self._close_stdin: Callable[[], None] | None = None
        self._exited = trio.Event()
        self._remembered = trio.Event()
        self._swept = trio.Event()
        self._ended = trio.Event()
        self._times: EndTimes | None = None
        self._step: tuple[str, trio.CancelScope] | None = None

    def __repr__(self) -> str:
        if self._ended.is_set():
            state = f"ended, returncode {self.returncode}"
        elif self.returncode is not None:
            state = f"exited, returncode {self.returncode}"
        else:
            state = "running" if self._times is None else "ending"
        return f"<Process {self.pid} of session {self.session!r}: {state}>"

    async def wait(self) -> int:
        """Wait until it has exited, whoever may still hold its pipes open; returns the returncode.

        That is its exit status, or the negative number of the signal that ended it. What it started may live on, and
        its pid stays taken, until `end`.
        """
        await self._exited.wait()
        assert self.returncode is not None
        return self.returncode

    def has_exited(self) -> bool:
        """Whether it has exited, or at least its first thread has, though its guardian may not have said so yet."""
        if self.returncode is not None or self._pidfd < 0:
            return True
        # Its pid stays its own until it is swept. The pidfd would tell only when the last thread has gone too.
        stat = proc.read_stat(self.pid)
        return stat is None or stat.state == b"Z"

    def send_signal(self, number: int) -> None:
        """Signal this process alone. Harmless when it is gone: its pid can never mean another one here."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def hand_over(self, *streams: Stream, close_stdin: Callable[[], None] | None = None) -> None:
        """Leave these descriptors to a new owner, who has their numbers already and closes them.

        `close_stdin` is the new owner's way to close stdin, which `end` begins with; it must not block.
        """
        for stream in streams:
            setattr(self, stream, -1)
        self._close_stdin = close_stdin

    def close_stdin(self) -> None:
        """Give it the end of its input. Harmless when done before."""
        close_it, self._close_stdin = self._close_stdin, None
        if close_it is not None:
            close_it()
        self.stdin = _close_end(self.stdin)

    @trio.lowlevel.enable_ki_protection
    async def end(self, times: EndTimes = EndTimes()) -> int:
        """End it and everything it started, release what it holds, and return its returncode.

        Steps, each with its time: close stdin; SIGTERM and SIGCONT to its group; SIGKILL to its whole tree. If it has
        exited already only the last is taken. No cancellation cuts this short. Further calls wait for the first one
        and can only make it faster; afterwards they return at once.
        """
        with trio.CancelScope(shield=True):
            if self._times is None:
                self._times = times
                await self._way_out()
            else:
                self._hasten(times)
                await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def _way_out(self) -> None:
        try:
            await self._ask_to_exit()
        finally:
            try:
                with self._step_of("kill"):
                    await self._guardian.sweep(self)
                    await self._exited.wait()
            finally:
                self._release()

    async def _ask_to_exit(self) -> None:
        if self._has_time_to("stdin_close"):
            with self._step_of("stdin_close"):
                # Before it can exit: afterwards nothing tells whose child was one that hides its origin.
                await self._guardian.remember(self)
                self.close_stdin()
                await self._exited.wait()
            self.close_stdin()
        if self._has_time_to("term"):
            with self._step_of("term"):
                self._guardian.signal(self, signal.SIGTERM, signal.SIGCONT)
                await self._exited.wait()

    def _has_time_to(self, step: str) -> bool:
        return self.returncode is None and getattr(self._times, step) > 0

    @contextmanager
    def _step_of(self, name: str) -> Iterator[None]:
        with trio.move_on_after(getattr(self._times, name)) as scope:
            self._step = (name, scope)
            yield
        self._step = None

    def _hasten(self, times: EndTimes) -> None:
        assert self._times is not None
        self._times = self._times.hastened(times)
        if self._step is not None:
            name, scope = self._step
            scope.deadline = min(scope.deadline, trio.current_time() + getattr(self._times, name))

    def _release(self) -> None:
        if not self._exited.is_set():
            # SIGKILL is pending if the guardian could not send it either; it ends whenever the kernel lets it.
            self.send_signal(signal.SIGKILL)
            self._set_exited(-signal.SIGKILL)
        self._guardian.forget(self, swept=self._swept.is_set())
        ends = self.stdin, self.stdout, self.stderr, self.channel
        self.stdin, self.stdout, self.stderr, self.channel = map(_close_end, ends)
        close(self._pidfd)
        self._pidfd = -1
        self._ended.set()

    def _set_exited(self, returncode: int) -> None:
        if self.returncode is None:
            self.returncode = returncode
            self._exited.set()

    async def _die_unguarded(self) -> None:
        """Its guardian is gone, so it got SIGKILL from the kernel; see to it, and report it."""
        if self._pidfd >= 0 and self.returncode is None:
            self.send_signal(signal.SIGKILL)
            with trio.move_on_after(DEATH_LIMIT), contextlib.suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(self._pidfd)
        self._set_exited(-signal.SIGKILL)
        self._remembered.set()


class _Start:
    """A spawn or an adoption in flight, which has no command. Settled when it has a process or an error."""

    def __init__(
        self, number: int, mark: str, command: Command | None, session: str, pipes: tuple[int, int, int, int]
    ) -> None:
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
        self.process = process
        self.settled.set()

    def close(self) -> None:
        for fd in self.pipes:
            if fd >= 0:
                close(fd)

    def fail(self, number: int, stage: str) -> None:
        self.close()
        self.error = ProcessStartError(number, stage, _explain(number, stage, self.command))
        self.settled.set()


class _Guardian:
    """One guardian process: the channel to it, and whatever waits for its answers."""

    def __init__(self, python: str, token: str, estate: Estate, counts: _Counts, nursery: trio.Nursery) -> None:
        self.gone = False
        self.finished = trio.Event()
        self.starts: dict[int, _Start] = {}
        self.processes: dict[int, Process] = {}
        self.cleared = trio.Event()
        self._token = token
        self._counts = counts
        self._nursery = nursery
        self._outbox: deque[tuple[wire.Packet, _Start | None]] = deque()
        self._stalled = trio.Event()
        self._resend_after = -math.inf
        self._reading = trio.CancelScope()
        self._nonsense = 0
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
            self._child = _start_guardian(python, token, estate, theirs)
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
        counts.guardians_started += 1

    @property
    def pid(self) -> int:
        return self._child.pid

    # what is asked of it

    def spawn(self, command: Command, session: str, *, channel: bool, lent: int | None) -> _Start:
        number, mark = self._next_mark()
        order = order_of(command, mark)
        theirs, ours = _open_pipes(channel=channel, lent=lent)
        start = _Start(number, mark, command, session, ours)
        try:
            packet = wire.pack({**order, "ref": number}, theirs)
        except OSError as error:
            start.fail(error.errno or errno.EMFILE, "descriptors")
            return start
        self.starts[number] = start
        self._post(packet, start)
        return start

    async def adopt(self, fork: Fork, session: str) -> _Start:
        number, mark = self._next_mark()
        theirs, ours = _open_pipes()
        start = _Start(number, mark, None, session, ours)
        try:
            pid = await fork(mark, theirs)  # which has closed them even if it fails
        except BaseException:
            start.close()  # the end of its stdin ends a fork of which we have not heard
            raise
        if self.gone:
            start.fail(errno.EPIPE, "guardian")
            return start
        self.starts[number] = start
        self._post(wire.pack({"kind": "adopt", "ref": number, "pid": pid, "mark": mark}), start)
        return start

    def _next_mark(self) -> tuple[int, str]:
        number = self._counts.next_number
        self._counts.next_number += 1
        # Of one length, since a fork writes its own over the one that its process was started with.
        return number, f"{self._token}.{number:010d}"

    async def abandon(self, start: _Start) -> None:
        """Nobody wants this process any more: end it, now or as soon as it is there."""
        start.abandoned = True
        await start.settled.wait()
        if start.process is not None:
            await start.process.end(AT_ONCE)

    def signal(self, process: Process, *numbers: int) -> None:
        self._post(wire.pack({"kind": "signal", "pid": process.pid, "signals": numbers}))

    async def remember(self, process: Process) -> None:
        self._post(wire.pack({"kind": "remember", "pid": process.pid}))
        await process._remembered.wait()

    async def sweep(self, process: Process) -> None:
        self._post(wire.pack({"kind": "sweep", "pid": process.pid}))
        await process._swept.wait()

    def clear(self) -> None:
        """End whatever earlier guardians of this launcher left behind; asked first, when nothing is its own yet."""
        self._post(wire.pack({"kind": "clear"}))

    def forget(self, process: Process, *, swept: bool) -> None:
        if self.processes.get(process.pid) is process:
            del self.processes[process.pid]
        self._counts.ended += 1
        self._counts.unswept += not swept

    def shut_down(self) -> None:
        """The last that is asked of it: to end what is left, and exit."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        self._reading.deadline = trio.current_time() + GUARDIAN_EXIT_LIMIT

    # the channel

    def _post(self, packet: wire.Packet, start: _Start | None = None) -> None:
        if self.gone:
            packet.close()
            return
        self._outbox.append((packet, start))
        if len(self._outbox) == 1:
            self._flush()

    def _flush(self) -> None:
        """Send what the channel takes; `_write` waits for room for the rest."""
        while self._outbox:
            packet, start = self._outbox[0]
            try:
                wire.send(self._channel, packet)
            except BlockingIOError:
                self._stalled.set()
                return
            except (BrokenPipeError, ConnectionResetError):
                break  # the reader sees its end too, and fails what is in flight
            except OSError as error:
                if start is None:
                    # Nobody could be told, and an end must not be lost: the kernel is short of memory for it now.
                    self._hold_back()
                    return
                # The kernel takes no more descriptors in flight (ETOOMANYREFS) or has no memory for them.
                del self.starts[start.number]
                start.fail(error.errno or errno.EMFILE, "descriptors")
            self._outbox.popleft()
            packet.close()
        self._drop_outbox()
        if self._stalled.is_set():
            self._stalled = trio.Event()

    def _hold_back(self) -> None:
        self._stalled.set()
        self._resend_after = trio.current_time() + RESEND_PAUSE

    def _drop_outbox(self) -> None:
        while self._outbox:
            self._outbox.popleft()[0].close()

    @trio.lowlevel.enable_ki_protection
    async def serve(self, replace: Callable[[], Awaitable[None]]) -> None:
        """Take its answers until it exits. `replace` is called if it goes unasked and leaves processes behind."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as writing:
                writing.start_soon(self._write)
                with self._reading:
                    await self._read()
                writing.cancel_scope.cancel()
            await self._bury()
            await self._lose_everything(replace)
            self.finished.set()

    async def _write(self) -> None:
        while True:
            await self._stalled.wait()
            await trio.sleep_until(self._resend_after)
            await trio.lowlevel.wait_writable(self._channel)
            self._flush()

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
            _log.error("muxsim's helper process %d said what cannot be understood", self.pid, exc_info=error)

    # its answers

    def _on_spawned(self, message: wire.Message, fds: list[int]) -> None:
        start = self.starts.pop(message["ref"])
        if not fds:  # our own limit was reached, and the kernel dropped it
            self._post(wire.pack({"kind": "sweep", "pid": message["pid"]}))
            start.fail(errno.EMFILE, "descriptors")
            return
        process = Process(self, message["pid"], fds.pop(0), start)
        self.processes[process.pid] = process
        self._counts.spawned += 1
        start.succeed(process)
        if start.abandoned:
            self._nursery.start_soon(process.end, AT_ONCE)

    def _on_failed(self, message: wire.Message, _: list[int]) -> None:
        self.starts.pop(message["ref"]).fail(message["errno"], message["stage"])

    def _on_exited(self, message: wire.Message, _: list[int]) -> None:
        if process := self.processes.get(message["pid"]):
            process._set_exited(message["status"])

    def _on_remembered(self, message: wire.Message, _: list[int]) -> None:
        if process := self.processes.get(message["pid"]):
            process._remembered.set()

    def _on_swept(self, message: wire.Message, _: list[int]) -> None:
        # From here on the pid may be another process's, perhaps our next one's.
        if process := self.processes.pop(message["pid"], None):
            self._counts.leftovers_killed += message["killed"]
            if message["left"] == 0:
                process._swept.set()

    def _on_cleared(self, message: wire.Message, _: list[int]) -> None:
        self._counts.leftovers_killed += message["killed"]
        self.cleared.set()

    # its end

    async def _bury(self) -> None:
        self.gone = True
        self._drop_outbox()
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
                nursery.start_soon(process._die_unguarded)
        if starts or processes:
            await replace()
        for process in processes:
            process._swept.set()
        self.cleared.set()


class Launcher:
    """Starts processes and owns every one of them, through one guardian, which it replaces if that is killed."""

    def __init__(self, nursery: trio.Nursery, python: str, end_times: EndTimes, estate: Estate) -> None:
        self._nursery = nursery
        self._python = python
        self._end_times = end_times
        self._estate = estate
        self._token = strays.new_token()
        self._counts = _Counts()
        self._guardians: list[_Guardian] = []
        self._closed = False

    def __repr__(self) -> str:
        now = self.statistics()
        state = "closed" if self._closed else f"guardian {now.guardian_pid}"
        return f"<Launcher: {state}, {now.alive} alive, {now.starting} starting>"

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        *,
        python: str = sys.executable,
        end_times: EndTimes = EndTimes(),
        folder: str = "",
        cgroup: str = "",
    ) -> AsyncIterator[Launcher]:
        """A launcher for the length of a block, after which no process of its is left.

        `python` runs the guardian. Processes not yet ended are, all at once, within `end_times`. If nobody is left
        to do so but the guardian, `folder` is removed then, and `cgroup`, a pool's group with those of its sessions.
        """
        async with background() as nursery:
            launcher = cls(nursery, python, end_times, Estate(folder, cgroup))
            try:
                launcher._guardian()
                yield launcher
            finally:
                with trio.CancelScope(shield=True):
                    await launcher._close()

    @trio.lowlevel.enable_ki_protection
    async def spawn(self, command: Command, *, session: str, channel: bool = False, lent: int | None = None) -> Process:
        """Start `command`; many may be in flight at once. Returns once the program itself runs.

        With `channel` it has a SOCK_SEQPACKET socket beside its pipes, for messages both ways; a descriptor that is
        `lent` comes after these. Raises ProcessStartError, and then, as when cancelled, leaves neither a child nor a
        descriptor.
        """
        try:
            guardian = self._guardian()
            start = guardian.spawn(command, session, channel=channel, lent=lent)
        except ProcessStartError:
            self._counts.failed += 1
            raise
        return await self._settled(guardian, start)

    @trio.lowlevel.enable_ki_protection
    async def adopt(self, parent: Process, fork: Fork, *, session: str) -> Process:
        """Take in a process that `parent` has forked and orphaned: from then on it is a child like any other.

        Raises ProcessStartError if it is not there or not ours, and whatever `fork` raises.
        """
        guardian = parent._guardian
        try:
            start = await guardian.adopt(fork, session)
        except ProcessStartError:
            self._counts.failed += 1
            raise
        return await self._settled(guardian, start)

    async def _settled(self, guardian: _Guardian, start: _Start) -> Process:
        try:
            await start.settled.wait()
        except trio.Cancelled:
            with trio.move_on_after(ANSWER_LIMIT, shield=True):
                await guardian.abandon(start)
            raise
        if start.error is not None:
            self._counts.failed += 1
            raise start.error
        assert start.process is not None
        return start.process

    def hasten(self) -> None:
        """End everything at once, whoever is ending it politely already."""
        for guardian in self._guardians:
            for process in guardian.processes.values():
                self._nursery.start_soon(process.end, AT_ONCE)

    def statistics(self) -> LauncherStatistics:
        guardians = [guardian for guardian in self._guardians if not guardian.gone]
        processes = [process for guardian in self._guardians for process in guardian.processes.values()]
        return LauncherStatistics(
            guardian_pid=guardians[-1].pid if guardians else None,
            guardians_started=self._counts.guardians_started,
            starting=sum(len(guardian.starts) for guardian in self._guardians),
            alive=sum(process.returncode is None for process in processes),
            spawned=self._counts.spawned,
            failed=self._counts.failed,
            ended=self._counts.ended,
            leftovers_killed=self._counts.leftovers_killed,
            unswept=self._counts.unswept,
        )

    def _guardian(self) -> _Guardian:
        """The guardian in use; a new one if there is none."""
        if self._closed:
            raise ProcessStartError(errno.ESHUTDOWN, "closed", "this launcher is closed: open another one")
        if not self._guardians or self._guardians[-1].gone:
            try:
                guardian = _Guardian(self._python, self._token, self._estate, self._counts, self._nursery)
            except OSError as error:
                message = f"cannot start muxsim's helper process with {self._python!r}: {error}"
                raise ProcessStartError(error.errno or errno.EAGAIN, "guardian", message) from error
            self._guardians = [other for other in self._guardians if not other.finished.is_set()]
            self._guardians.append(guardian)
            if self._counts.guardians_started > 1:
                guardian.clear()
            self._nursery.start_soon(guardian.serve, self._replace)
        return self._guardians[-1]

    async def _replace(self) -> None:
        """The guardian was killed: its children die with it, but what those had started needs another to find it."""
        if self._closed:
            return
        with trio.move_on_after(proc.UNKILLABLE), contextlib.suppress(ProcessStartError):  # the next spawn says it
            await self._guardian().cleared.wait()

    async def _close(self) -> None:
        self._closed = True
        async with trio.open_nursery() as ending:
            for guardian in self._guardians:
                for process in guardian.processes.values():
                    ending.start_soon(process.end, self._end_times)
        for guardian in self._guardians:
            guardian.shut_down()


def _start_guardian(python: str, token: str, estate: Estate, channel: socket.socket) -> subprocess.Popen[bytes]:
    # Not trio's own: that starts children on a worker thread, and PDEATHSIG is about threads. In a session of its
    # own, no terminal's SIGINT reaches it or its children; its stderr is ours, should it ever have a fault to show.
    return subprocess.Popen(
        [python, "-I", "-S", inside.GUARDIAN, str(os.getpid()), token, *estate],
        env={**os.environ, strays.GUARDIAN_MARK: token},
        stdin=channel.fileno(),
        stdout=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


def _open_pipes(*, channel: bool = False, lent: int | None = None) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
    """Pipes for stdin, stdout and stderr, and a channel, or -1: the child's ends and ours, which do not block.

    All or none.
    """
    fds: list[int] = []
    with _all_or_none(fds):
        for _ in range(3):
            fds += os.pipe2(os.O_CLOEXEC)
        fds += _open_channel() if channel else ()
        theirs, ours = (fds[0], fds[3], fds[5], *fds[6:7]), (fds[1], fds[2], fds[4], *fds[7:])
        for fd in ours:
            os.set_blocking(fd, False)
        if lent is not None:
            theirs = (*theirs, os.dup(lent))
    return theirs, (ours[0], ours[1], ours[2], ours[3] if channel else -1)


@contextmanager
def _all_or_none(fds: Iterable[int]) -> Iterator[None]:
    """Close these descriptors if there are none for the rest of a process's, which then cannot be started."""
    try:
        yield
    except OSError as error:
        for fd in fds:
            close(fd)
        number = error.errno or errno.EMFILE
        raise ProcessStartError(number, "descriptors", f"no pipes for a new process: {_advise(number)}") from error


def _open_channel() -> tuple[int, int]:
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return theirs.detach(), ours.detach()


def _close_end(fd: int) -> int:
    if fd >= 0:
        trio.lowlevel.notify_closing(fd)
        close(fd)
    return -1


def order_of(command: Command, mark: str) -> wire.Message:
    """What the guardian, or a process that waits for its order, is told of `command`."""
    # Not the session's id: it opens the session's URLs, and many servers show their environment to the agent.
    env = {**command.env, proc.MARK: mark}
    _check_command(command, env)
    return {
        "kind": "spawn",
        "argv": list(command.argv),
        "env": env,
        "cwd": os.path.abspath(command.cwd),
        "umask": command.umask,
        "confinement": confinement_of(command),
    }


def confinement_of(command: Command) -> wire.Message:
    """What `inside.confine` is to apply."""
    wanted = {
        "cgroup": command.cgroup,
        "nice": command.nice,
        "no_new_privs": command.no_new_privs,
        "rlimits": dict(command.rlimits),
    }
    return {key: value for key, value in wanted.items() if value}


def _check_command(command: Command, env: Mapping[str, str]) -> None:
    """Refuse here what would only confuse later; the rest the kernel knows best. Raises ProcessStartError."""
    fault = None
    if not command.argv or not command.argv[0]:
        fault = "the command is empty: name the program to run"
    elif "\0" in "".join((*command.argv, *env, *env.values(), command.cwd)):
        fault = f"cannot start {command.argv[0]!r}: its arguments, environment or cwd hold a NUL character"
    elif "" in env or "=" in "".join(env):
        bad = [name for name in env if not name or "=" in name]
        fault = f"cannot start {command.argv[0]!r}: {bad[0]!r} cannot be the name of an environment variable"
    if fault is not None:
        raise ProcessStartError(errno.EINVAL, "command", fault)


def _explain(number: int, stage: str, command: Command | None) -> str:
    if command is None:
        return f"cannot take in a forked process ({stage}): {_advise(number)}"
    return explain_spawn(number, stage, command)


def explain_spawn(number: int, stage: str, command: Command) -> str:
    """Why a start failed with this errno at this stage (``chdir``, ``exec`` …), and what to do about it."""
    start = f"cannot start {command.argv[0]!r}"
    if stage == "guardian":
        return f"{start}: muxsim's helper process has died, see stderr; another try gets a new one"
    if stage == "chdir":
        return f"{start} in {command.cwd!r}: {os.strerror(number)}; cwd must be a folder that may be entered"
    if stage == "exec":
        return f"{start} in {command.cwd!r}: {_explain_exec(number, command)}"
    if stage in confinement_of(command):
        return f"{start}: {os.strerror(number)} {_explain_confinement(stage, command)}"
    return f"{start} ({stage}): {_advise(number)}"


def _explain_confinement(stage: str, command: Command) -> str:
    return {
        "cgroup": f"while it entered its cgroup, {command.cgroup}",
        "nice": f"while it was made {command.nice} nicer",
        "no_new_privs": "while it was kept from gaining privileges; set no_new_privs = false",
        "rlimits": f"while setting its limits, {_describe_rlimits(command.rlimits)}",
    }[stage]


def _describe_rlimits(rlimits: Mapping[int, tuple[int, int]]) -> str:
    names = {getattr(resource, name): name for name in dir(resource) if name.startswith("RLIMIT_")}
    return ", ".join(
        f"{names[number]} {limits} (muxsim's own may be {_unlimited_or(resource.getrlimit(number)[1])})"
        for number, limits in rlimits.items()
    )


def _unlimited_or(limit: int) -> str:
    return "any" if limit == resource.RLIM_INFINITY else str(limit)


def _explain_exec(number: int, command: Command) -> str:
    if number != errno.ENOENT:
        return _EXEC_ADVICE.get(number) or _advise(number)
    program = command.argv[0]
    if "/" in program:
        exists = os.path.exists(os.path.join(command.cwd, program))
        return "the interpreter that its first line (#!) names does not exist" if exists else "there is no such file"
    path = command.env.get("PATH")
    where = f"its PATH, {path}" if path is not None else f"{os.defpath}, since it is given no PATH"
    return f"there is none on {where}; install it, or name it by its full path"


_EXEC_ADVICE = {
    errno.EACCES: "it may not be executed; make it executable (chmod +x), or run it with its interpreter",
    errno.ENOEXEC: "it is no program; a script needs a first line that names its interpreter (#!)",
    errno.E2BIG: "its arguments and environment are too long together",
}


def _advise(number: int) -> str:
    reason = os.strerror(number)
    if number in (errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS):
        return f"{reason}; raise the limit (ulimit -n), or run fewer sessions"
    if number in (errno.EAGAIN, errno.ENOMEM):
        return f"{reason}; raise the limit on processes or memory (ulimit -u, the container's), or run fewer sessions"
    return reason
