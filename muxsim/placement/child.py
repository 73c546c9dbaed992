"""A backend on this machine: one child process, its pipes, and what it says on its way out."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from muxsim.placement.backend import GUARDIAN_DIED, BackendExit, BackendListener
from muxsim.processes.enclosure import Enclosure
from muxsim.processes.process import EndTimes, Process, Way
from muxsim.spec import Limits
from transports.errors import LineTooLong, LineTorn, RemoteProtocolError
from transports.interfaces import Watch
from transports.messages import Message
from transports.pipe import PipeTransport

# After a backend has exited, or closed one of its pipes, for what it wrote before to arrive: it is in the pipe already.
_LAST_WORDS: Final = 0.25
# For word of an exit that has happened: its guardian may be behind, on a busy machine.
_LATE_WORD: Final = 5.0
_STDERR_READ: Final = 64 * 1024
# A longer line is cut: it is for people.
STDERR_LINE: Final = 4096
# Lines per second and session that reach the log, with as many at once after a pause; the ring always has the last.
_LOGGED_PER_SECOND: Final = 50


class Child:
    """A `muxsim.placement.backend.Backend`: `run` reads it until it is finished; `end` ends its whole tree."""

    def __init__(
        self,
        process: Process,
        limits: Limits,
        listener: BackendListener,
        watch: Watch | None = None,
        enclosure: Enclosure | None = None,
        workspace: Path | None = None,
    ) -> None:
        self.workspace = workspace
        """Its folder, which outlives it."""
        self._process = process
        self._enclosure = Enclosure() if enclosure is None else enclosure
        self._limits = limits
        self._listener = listener
        self._violation: LineTooLong | None = None
        self.on_message: Callable[[], bool] | None = None
        self._silent = trio.Event()
        # Until it exits or says no more. A task for either would be 2 KiB more for each session.
        self._talking = trio.CancelScope()
        self._stderr = StderrRing(limits.stderr_lines, listener.stderr)
        stdin, stdout = process.stdin, process.stdout
        self._pipe = PipeTransport(stdout, stdin, self, limits.max_line, watch)
        process.hand_over("stdin", "stdout", close_stdin=self._pipe.stop_sending)

    def __repr__(self) -> str:
        return f"<Child {self._process!r} {self._pipe!r}>"

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def way(self) -> Way:
        """How its process was had."""
        return self._process.way

    @property
    def congested(self) -> bool:
        """Whether the child is far behind in reading its stdin."""
        return self._pipe.congested

    @property
    def last_words(self) -> tuple[str, ...]:
        """The last lines of the child's stderr, oldest first."""
        return self._stderr.lines()

    def send(self, message: Message) -> None:
        """Write one message to the child's stdin, or queue it; dropped once the child has gone."""
        self._pipe.send(message)

    async def run(self) -> BackendExit:
        """Read the child until it exits, closes a pipe, or breaks the line limit; returns how it ended.

        The child may still run then: `end` it. Its exit is known from the process, never from the end of its stdout,
        which a grandchild may hold open.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._drain_stderr)
            nursery.start_soon(self._pipe.run)
            with self._talking:
                await self._process.wait()
            if self._violation is None:
                with trio.move_on_after(_LAST_WORDS):
                    await self._process.wait()
                    await self._silent.wait()
                    await self._stderr.closed.wait()
                if self._process.has_exited():
                    with trio.move_on_after(_LATE_WORD):
                        await self._process.wait()
            nursery.cancel_scope.cancel()
        return self._describe()

    async def end(self) -> int:
        """End the child and everything it started; returns its exit status. Bounded, and not to be cancelled."""
        times = EndTimes(stdin_close=self._limits.eof_timeout, term=self._limits.term_timeout)
        try:
            async with trio.open_nursery() as nursery:
                # A child that still writes must find a reader, or it would need a signal to end.
                nursery.start_soon(self._pipe.discard)
                nursery.start_soon(self._drain_stderr)
                exit_status = await self._process.end(times)
                nursery.cancel_scope.cancel()
        finally:
            try:
                self._pipe.abort()
            finally:
                await self._enclosure.close()
        return exit_status

    async def _drain_stderr(self) -> None:
        try:
            while True:
                await trio.lowlevel.wait_readable(self._process.stderr)
                data = os.read(self._process.stderr, _STDERR_READ)
                if not data:
                    break
                self._stderr.receive_data(data, trio.current_time())
                if self._listener.traffic is not None:
                    self._listener.traffic.wrote(len(data))
        except (OSError, ValueError, trio.ClosedResourceError):
            # The descriptor is -1 once the process has ended.
            pass
        self._stderr.close()

    def _describe(self) -> BackendExit:
        code, limit = self._process.returncode, ""
        cause = "status 0" if code == 0 else "status"
        if self._process.unguarded:
            reason = "the backend was killed, since muxsim's helper process (the guardian) has died"
            return BackendExit(reason, code, self._stderr.lines(), cause=GUARDIAN_DIED)
        if self._violation is not None:
            reason, limit = f"of what the backend wrote, {self._violation.message}", "max_line"
        elif code is None and self._process.has_exited():
            reason = "the backend exited"
        elif code is None:
            reason, cause = "the backend closed its stdin or stdout while it was running", "pipe closed"
        elif met := self._enclosure.verdict(self._process.pid, code):
            reason, limit = f"the backend was killed: {met.text} ({met.setting})", met.setting
        elif code < 0:
            reason, cause = f"the backend was killed by {signal_name(-code)}", signal_name(-code)
        else:
            reason = f"the backend exited with status {code}"
        return BackendExit(reason, code, self._stderr.lines(), limit, limit or cause)

    # ---- what the pipe tells (transports.pipe.LineReceiver)

    def receive(self, message: Message) -> None:
        """Pass a message on."""
        if self.on_message is not None and not self.on_message():
            self.on_message = None
        self._listener.from_backend(message)

    def rejected(self, line: bytes, error: RemoteProtocolError) -> None:
        """Real servers print on stdout: such lines are skipped."""
        if isinstance(error, LineTooLong):
            self._violation = error
        elif not isinstance(error, LineTorn):  # its calls get the reason of the end
            self._listener.unreadable(line, error)

    def disconnected(self) -> None:
        """The child says no more."""
        self._silent.set()
        self._talking.cancel()

    def drained(self) -> None:
        """Let those go on who wait to write."""
        self._listener.backend_drained()

    @property
    def ready(self) -> bool:
        """Whether the clients keep up. If not the child is not read: its pipe fills, and it waits too."""
        return self._listener.clients_ready

    async def wait_ready(self) -> None:
        """Wait until `ready`."""
        await self._listener.wait_clients_ready()


def signal_name(number: int) -> str:
    """``SIGTERM``, and ``SIGRTMIN+3`` for one of the real-time signals, most of which Python has no name for."""
    try:
        return signal.Signals(number).name
    except ValueError:
        if signal.SIGRTMIN < number < signal.SIGRTMAX:
            return f"SIGRTMIN+{number - signal.SIGRTMIN}"
        return f"signal {number}"  # of which the C library keeps the first few to itself


@dataclass(slots=True)
class StderrRing:
    """The last lines of a child's stderr, and a bounded flow of them to ``report``."""

    size: int
    report: Callable[[str], None]
    closed: trio.Event = field(default_factory=trio.Event)
    _lines: list[str] = field(default_factory=list)
    _partial: bytes = b""
    _allowance: float = _LOGGED_PER_SECOND
    _refilled: float = 0.0
    _silenced: int = 0

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes that came at ``now``."""
        self._allowance = min(_LOGGED_PER_SECOND, self._allowance + (now - self._refilled) * _LOGGED_PER_SECOND)
        self._refilled = now
        *complete, rest = (self._partial + data).split(b"\n")
        for line in complete:
            self._add(line)
        if len(rest) > STDERR_LINE:
            self._add(rest)
            rest = b""
        self._partial = rest

    def close(self) -> None:
        """Take what is left as the last line."""
        if self._partial:
            self._add(self._partial)
            self._partial = b""
        self.closed.set()

    def lines(self) -> tuple[str, ...]:
        """The last lines, oldest first."""
        return tuple(self._lines)

    def _add(self, line: bytes) -> None:
        text = line[:STDERR_LINE].decode("utf-8", "replace").rstrip()
        if not text:
            return
        self._lines.append(text)
        if len(self._lines) > self.size:
            del self._lines[0]
        if self._allowance < 1:
            self._silenced += 1
            return
        self._allowance -= 1
        if self._silenced:
            self.report(f"({self._silenced} lines left out here)")
            self._silenced = 0
        self.report(text)
