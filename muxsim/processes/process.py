"""A child process, and its one way out: bounded, and for all that it has started."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import trio

from muxsim.inside import proc
from muxsim.inside.descriptors import close
from muxsim.processes.pipes import Pipes, close_end

DEATH_LIMIT = 1.0
"""Seconds for a process to be gone after SIGKILL before its exit is reported without having been seen."""

Stream = Literal["stdin", "stdout", "stderr", "channel"]
Way = Literal["fresh", "fork", "slot"]
"""How a process was had: started when it was asked for, forked from a zygote then, or taken from those kept ready."""


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


POLITELY = EndTimes()
"""The steps in their usual times."""

AT_ONCE = EndTimes(stdin_close=0, term=0)
"""No steps before SIGKILL."""


class Guard(Protocol):
    """What a process asks of its guardian, whose answers `on_…` takes."""

    def remember(self, process: Process) -> None:
        """Have what the process has started by now known as its own."""

    def signal(self, process: Process, *numbers: int) -> None:
        """Signal its group."""

    def sweep(self, process: Process) -> None:
        """End it and everything it started."""

    def forget(self, process: Process, *, swept: bool) -> None:
        """Nothing more will be asked for it."""


class Process:
    """A running child, or one that has ended; made by `Launcher.spawn`, and its spawner's to `end`.

    `stdin`, `stdout` and `stderr` are our ends of its pipes: non-blocking descriptors, closed by this object unless
    they are handed over (-1 afterwards). Who waits on one when it is closed gets trio.ClosedResourceError. `channel`,
    which is -1 unless it was asked for, is such an end too: of its descriptor `descriptors.CHANNEL`.
    """

    def __init__(self, guard: Guard, pid: int, pidfd: int, *, session: str, mark: str, pipes: Pipes) -> None:
        self.pid = pid
        self.session = session
        self.mark = mark
        self.returncode: int | None = None
        self.way: Way = "fresh"
        self.unguarded = False
        """Whether it was running when its guardian died, and so has been killed."""
        self.stdin, self.stdout, self.stderr, self.channel = pipes
        self._guard = guard
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
        self.stdin = close_end(self.stdin)

    @trio.lowlevel.enable_ki_protection
    async def end(self, times: EndTimes = POLITELY) -> int:
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
                    self._guard.sweep(self)
                    await self._swept.wait()
                    await self._exited.wait()
            finally:
                self._release()

    async def _ask_to_exit(self) -> None:
        if self._has_time_to("stdin_close"):
            with self._step_of("stdin_close"):
                # Before it can exit: afterwards nothing tells whose child was one that hides its origin.
                self._guard.remember(self)
                await self._remembered.wait()
                self.close_stdin()
                await self._exited.wait()
            self.close_stdin()
        if self._has_time_to("term"):
            with self._step_of("term"):
                self._guard.signal(self, signal.SIGTERM, signal.SIGCONT)
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
            self.on_exited(-signal.SIGKILL)
        self._guard.forget(self, swept=self._swept.is_set())
        ends = self.stdin, self.stdout, self.stderr, self.channel
        self.stdin, self.stdout, self.stderr, self.channel = map(close_end, ends)
        close(self._pidfd)
        self._pidfd = -1
        self._ended.set()

    # what its guardian tells of it

    def on_exited(self, returncode: int) -> None:
        """It has exited; what it started may live on."""
        if self.returncode is None:
            self.returncode = returncode
            self._exited.set()

    def on_remembered(self) -> None:
        """What it has started by now is known as its own."""
        self._remembered.set()

    def on_swept(self) -> None:
        """Nothing is left of it, and its pid may be another's."""
        self._swept.set()

    async def die_unguarded(self) -> None:
        """Its guardian is gone, so it got SIGKILL from the kernel; see to it, and report it."""
        if self._pidfd >= 0 and self.returncode is None:
            self.unguarded = True
            self.send_signal(signal.SIGKILL)
            with trio.move_on_after(DEATH_LIMIT), contextlib.suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(self._pidfd)
        self.on_exited(-signal.SIGKILL)
        self.on_remembered()
