"""One zygote process (inside/zygote.py), as muxsim sees it: what it is asked, and what it says."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec
import trio

from muxsim.inside import wire
from muxsim.processes.command import Command, ProcessStartError, confinement_of
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import AT_ONCE, Process
from muxsim.runtime.boundary import first_of

# Seconds without any fork while some are waited for: then a zygote counts as hanging.
FORK_SILENCE: Final = 5.0
# A zygote that has lived so long, in seconds, or forked so often, was sound.
SOUND_AGE: Final = 30.0
SOUND_FORKS: Final = 20

_STDERR_KEPT = 2000
_SHOWN = 200
# Of pids and errnos: a C int.
_LARGEST_NUMBER = 2**31 - 1


class ZygoteFailed(Exception):
    """A zygote is no use. ``culprit`` is the module at fault, if it is one that can be left out."""

    def __init__(self, why: str, culprit: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.culprit = culprit


class Nonsense(Exception):
    """What came over a zygote's channel is no report of the zygote's."""


class Importing(msgspec.Struct, tag_field="kind", tag="importing"):
    module: str


class Ready(msgspec.Struct, tag_field="kind", tag="ready"):
    modules: int


class FoundUnfit(msgspec.Struct, tag_field="kind", tag="culprit"):
    module: str
    why: str


class Refused(msgspec.Struct, tag_field="kind", tag="refused"):
    why: str


class Stale(msgspec.Struct, tag_field="kind", tag="stale"):
    ref: int
    why: str


class Forked(msgspec.Struct, tag_field="kind", tag="forked"):
    ref: int
    pid: Annotated[int, msgspec.Meta(gt=0, le=_LARGEST_NUMBER)]


class Failed(msgspec.Struct, tag_field="kind", tag="failed"):
    ref: int
    stage: str
    errno: Annotated[int, msgspec.Meta(ge=0, le=_LARGEST_NUMBER)] | None


Report = Importing | Ready | FoundUnfit | Refused | Stale | Forked | Failed
"""What a zygote says, see zygote.py."""


@dataclass
class _Answer:
    settled: trio.Event = field(default_factory=trio.Event)
    pid: int = 0
    error: Exception | None = None


class Zygote:
    """One zygote process. `run` follows it to its end."""

    def __init__(self, launcher: Launcher, process: Process, tag: str) -> None:
        self.process = process
        self.began = trio.current_time()
        self.forks = 0
        self.studies = 0
        self.ready = trio.Event()
        self.gone = trio.Event()
        self.why = ""
        self.stale = False
        self.culprit: str | None = None
        self._launcher = launcher
        self._importing: str | None = None
        self._tag = tag
        self._channel = socket.socket(fileno=process.channel)
        self._answers: dict[int, _Answer] = {}
        self._next_ref = 0
        self._progress = trio.current_time()
        self._said = b""
        process.hand_over("channel")
        process.close_stdin()

    def __repr__(self) -> str:
        state = "gone" if self.gone.is_set() else "ready" if self.ready.is_set() else f"importing {self._importing}"
        return f"<Zygote {self.process.pid}: {state}, {self.forks} forks>"

    @property
    def sound(self) -> bool:
        """Whether it has shown that it works."""
        return self.forks >= SOUND_FORKS or trio.current_time() - self.began >= SOUND_AGE

    async def run(self) -> None:
        """Read what it says until it ends, and end whatever is left of it then."""
        try:
            # What a module has started may hold the channel open.
            await while_read(self.process, self._keep, self.process.wait, self._read)
        finally:
            try:
                self._hear_the_rest()
                with trio.CancelScope(shield=True):
                    returncode = await self.process.end(AT_ONCE)
                self._bury(returncode)
            finally:  # whatever goes wrong above, nobody waits for this zygote any more
                self._close()
                self.gone.set()

    def instruct(self, recipe: Mapping[str, Any]) -> None:
        """Tell it what it is for, which is all that it waits for. Raises OSError."""
        packet = wire.pack({"kind": "recipe", "tag": self._tag, **recipe})
        try:
            wire.send(self._channel, packet)
        finally:
            packet.close()

    async def retire(self) -> None:
        """Let it finish what was asked of it, and exit."""
        while self._answers:
            await next(iter(self._answers.values())).settled.wait()
            await trio.lowlevel.checkpoint()
        self.stop()

    def stop(self) -> None:
        """Let it exit; `run` sees to it."""
        self._close()

    async def wait_ready(self, deadline: float) -> None:
        """Wait until it can fork. Raises `ZygoteFailed`, with the module that it hangs in past the deadline."""
        with trio.move_on_at(deadline):
            await first_of(self.gone.wait, self.ready.wait)
        if self.ready.is_set() and not self.gone.is_set():
            return
        if not self.gone.is_set():
            self.culprit = self._importing
            self.why = f"was still importing {self._importing} after {trio.current_time() - self.began:.0f} s"
            self.stop()
            await self.gone.wait()
        raise ZygoteFailed(self.why, self.culprit)

    async def fork(self, command: Command, session: str, *, early: bool) -> Process:
        """A backend that waits for its order (`Prepared`), confined as ``command`` says.

        One that is ``early`` has time before it.
        Raises `ZygoteFailed` or `ProcessStartError`.
        """

        async def make(mark: str, streams: tuple[int, ...]) -> int:
            order = {"kind": "fork", "mark": mark, "confinement": confinement_of(command), "early": early}
            return await self._fork(order, streams)

        process = await self._launcher.adopt(self.process, make, session=session)
        self.forks += 1
        return process

    def study(self, pid: int) -> None:
        """Have it see which pages a fork of it uses, which later forks then fetch early."""
        self.studies += 1
        with contextlib.suppress(OSError):
            wire.send(self._channel, wire.pack({"kind": "study", "pid": pid}))

    async def _fork(self, order: wire.Message, streams: tuple[int, ...]) -> int:
        self._next_ref = ref = self._next_ref + 1
        order["ref"] = ref
        try:
            packet = wire.pack(order, streams)
        except OSError as error:
            raise ZygoteFailed(f"could not be asked to fork: {error.strerror}") from error
        answer = self._answers[ref] = _Answer()
        self._progress = max(self._progress, trio.current_time()) if len(self._answers) > 1 else trio.current_time()
        try:
            await self._send(packet)
            await self._wait(answer)
        finally:
            packet.close()
            del self._answers[ref]
        if answer.error is not None:
            raise answer.error
        return answer.pid

    async def _send(self, packet: wire.Packet) -> None:
        while True:
            try:
                wire.send(self._channel, packet)
            except BlockingIOError:
                try:
                    await trio.lowlevel.wait_writable(self._channel)
                except trio.ClosedResourceError:
                    raise ZygoteFailed(self.why or "has ended") from None
            except OSError as error:
                raise ZygoteFailed(self.why or f"could not be asked to fork: {error.strerror}") from error
            else:
                return

    async def _wait(self, answer: _Answer) -> None:
        while not answer.settled.is_set():
            deadline = self._progress + FORK_SILENCE
            with trio.move_on_at(deadline):
                await answer.settled.wait()
            if not answer.settled.is_set() and self._progress + FORK_SILENCE <= trio.current_time():
                self.why = f"did not fork within {FORK_SILENCE:g} s"
                self.stop()
                raise ZygoteFailed(self.why)

    # what it says

    async def _read(self) -> None:
        while self._channel.fileno() >= 0:  # it may have been stopped before anybody began to read
            try:
                await trio.lowlevel.wait_readable(self._channel)
                received = wire.receive(self._channel)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                return
            for fd in received.fds:
                os.close(fd)
            if received.message is None:
                return
            self._hear(received.message)

    def _hear_the_rest(self) -> None:
        with contextlib.suppress(OSError, wire.Unreadable, Nonsense):  # it has ended in any case
            while (received := wire.receive(self._channel)).message is not None:
                for fd in received.fds:
                    os.close(fd)
                self._hear(received.message)

    def _hear(self, message: wire.Message) -> None:
        """Take one report. Raises `Nonsense` for what is none: whoever says it is no use as a zygote."""
        if message.pop("tag", None) != self._tag:
            raise Nonsense(f"something in {self!r} that is not the zygote has said {str(message)[:_SHOWN]}")
        try:
            report = msgspec.convert(message, type=Report)
        except msgspec.ValidationError as error:
            raise Nonsense(f"{self!r} has said {str(message)[:_SHOWN]}: {error}") from None
        self._take(report)

    def _take(self, report: Report) -> None:
        match report:
            case Importing(module):
                self._importing = module
            case Ready():
                self._importing = None
                self.ready.set()
            case FoundUnfit(module, why):
                self.why, self.culprit = why, module
            case Refused(why):
                self.why = why
            case Stale(ref, why):
                self.why, self.stale = why, True
                self._settle(ref, error=ZygoteFailed(why))
            case Forked(ref, pid):
                self._settle(ref, pid=pid)
            case Failed(ref, stage, number):
                number = number or errno.EAGAIN
                why = f"could not fork ({stage}): {os.strerror(number)}"
                self._settle(ref, error=ProcessStartError(number, stage, why))

    def _settle(self, ref: int, *, pid: int = 0, error: Exception | None = None) -> None:
        self._progress = trio.current_time()
        if answer := self._answers.get(ref):
            answer.pid, answer.error = pid, error
            answer.settled.set()

    def _keep(self, said: bytes) -> None:
        self._said = (self._said + said)[-_STDERR_KEPT:]

    def _bury(self, returncode: int) -> None:
        if not self.why:
            last = self._said.decode("utf-8", "replace").strip().rpartition("\n")[2]
            self.why = f"ended with status {returncode}" + (f", saying {last!r}" if last else "")
        for answer in self._answers.values():
            if not answer.settled.is_set():
                answer.error = ZygoteFailed(self.why)
                answer.settled.set()

    def _close(self) -> None:
        if self._channel.fileno() >= 0:
            trio.lowlevel.notify_closing(self._channel)
            self._channel.close()


async def while_read(
    process: Process, hear: Callable[[bytes], object], *waits: Callable[[], Awaitable[object]]
) -> None:
    """Wait for the first of these, and read meanwhile, so that the process never waits for room to write."""
    async with trio.open_nursery() as nursery:
        for fd in (process.stdout, process.stderr):
            nursery.start_soon(_read_on, fd, hear)
        await first_of(*waits)
        nursery.cancel_scope.cancel()


async def _read_on(fd: int, hear: Callable[[bytes], object]) -> None:
    try:
        while True:
            await trio.lowlevel.wait_readable(fd)
            data = os.read(fd, 65536)
            if not data:
                return
            hear(data)
    except (OSError, ValueError, trio.ClosedResourceError):
        return
