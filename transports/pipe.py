"""Newline-delimited JSON over two file descriptors: a child's pipes, or our own standard streams. Runs on trio."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import stat
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from transports.errors import LineTooLong, LineTorn, RemoteProtocolError
from transports.folded import Folded
from transports.framing import NEWLINE, LineFramer
from transports.interfaces import Receiver, Watch
from transports.messages import Message, RequestId, batch, decode

DEFAULT_MAX_LINE: Final = 64 * 1024 * 1024
# What may wait for a peer that is slow to read before whoever feeds it has to wait.
HIGH_WATER: Final = 1024 * 1024
LOW_WATER: Final = 256 * 1024
# A pipe holds 64 KiB, and memory for more at a time is mapped anew for every read.
_READ_SIZE: Final = 64 * 1024
# What a pipe is made to hold when a line does not fit into what it is; only then, for the kernel counts it per user.
_WIDE_PIPE: Final = 1024 * 1024
# How long to go on reading from a peer that has closed its own reading end.
_LAST_ANSWERS: Final = 0.25


class LineReceiver(Receiver, Protocol):
    """A receiver that is also told of lines that are no messages."""

    def rejected(self, line: bytes, error: RemoteProtocolError) -> None:
        """A line that is not an MCP message; reading goes on, except after `LineTooLong` and `LineTorn`."""


@dataclass(frozen=True)
class PipeStatistics:
    """What has passed a pipe: messages each way, lines that were none, bytes cut off at the end of the stream."""

    received: int
    sent: int
    rejected: int
    torn_bytes: int
    queued_bytes: int


class PipeTransport:
    """One peer on the other side of two file descriptors, which this object owns and closes.

    ``send`` writes at once as much as the pipe takes and queues the rest. `run` reads until the peer closes its end,
    and writes what is queued; it must be running for either to go on.
    """

    def __init__(
        self,
        read_fd: int,
        write_fd: int,
        receiver: LineReceiver,
        max_line: int = DEFAULT_MAX_LINE,
        watch: Watch | None = None,
    ) -> None:
        self._read_fd = _Descriptor(read_fd)
        self._write_fd = _Descriptor(write_fd)
        self._receiver = receiver
        self._framer = LineFramer(max_line)
        self._folded = Folded(max_line)
        self._watch = watch
        self._unwatch: Callable[[], None] | None = None
        self._paused = trio.Event()
        self._queue: deque[bytes | memoryview] = deque()
        self._queued = 0
        self._queue_changed = trio.Event()
        self._all_sent = trio.Event()
        self._was_congested = False
        self._closing = False
        self._finished = False
        self._error: Exception | None = None
        self._received = self._sent = self._rejected = self._torn = 0

    def __repr__(self) -> str:
        state = "closed" if self._write_fd.closed else f"{self._queued} bytes queued"
        return f"<PipeTransport in={self._read_fd.number} out={self._write_fd.number} {state}>"

    def statistics(self) -> PipeStatistics:
        """A snapshot of the counters."""
        return PipeStatistics(self._received, self._sent, self._rejected, self._torn, self._queued)

    @property
    def congested(self) -> bool:
        """Whether more than `HIGH_WATER` bytes wait; stays True until fewer than `LOW_WATER` do."""
        return self._was_congested

    @property
    def listening(self) -> bool:
        """Always: its end is noticed."""
        return True

    @property
    def single_file(self) -> bool:
        """Always."""
        return True

    def send(self, message: Message, about: RequestId | None = None) -> None:
        """Write one message, or queue what the pipe does not take now; dropped once the peer has gone."""
        if self._write_fd.closed or self._closing:
            return
        self._sent += 1
        pieces = message.pieces()
        pieces.append(NEWLINE)
        if self._queue:
            self._enqueue(*pieces)
            return
        try:
            written = os.writev(self._write_fd.number, pieces)
        except BlockingIOError:
            written = 0
        except OSError:
            self._stop_writing()
            return
        for index, piece in enumerate(pieces):
            if written < len(piece):
                self._enqueue(memoryview(piece)[written:], *pieces[index + 1 :])
                self._write_fd.widen(self._queued)
                return
            written -= len(piece)

    def withdraw(self, about: RequestId) -> None:
        """Nothing: on a pipe a request leaves no trace here."""

    def close(self) -> None:
        """Send end of file after what is queued; reading goes on until the peer has closed too."""
        self._closing = True
        self._queue_changed.set()
        if not self._queue:
            self._stop_writing()

    def is_read(self) -> bool:
        """Whether the peer still holds its reading end open."""
        return not self._write_fd.closed and self._write_fd.has_other_end()

    async def wait_sent(self) -> None:
        """Wait until nothing is queued any more: it is in the pipe, or the peer has gone."""
        while self._queue:
            await self._all_sent.wait()

    def stop_sending(self) -> None:
        """Send end of file now; what is queued is lost."""
        self._closing = True
        self._stop_writing()

    async def discard(self) -> None:
        """Read and drop until the peer closes its end; `run` must be over."""
        while await self._read_fd.wait_readable() and self._read_fd.read(_READ_SIZE) != b"":
            pass

    def abort(self) -> None:
        """Close both descriptors now; what is queued is lost."""
        self._closing = self._finished = True
        self._stop_watching()
        self._paused.set()
        self._stop_writing()
        self._read_fd.close()

    async def run(self) -> None:
        """Read until the peer ends its stream or sends a line over the limit, and tell the receiver.

        Then write on what is sent, for the peer may still want its answers, until `close` or the peer's own end.
        """
        async with trio.open_nursery() as nursery:
            reading = trio.CancelScope()
            nursery.start_soon(self._write_queued, reading)
            try:
                with reading:
                    await (self._read() if self._watch is None else self._read_watched(self._watch))
            finally:
                self._stop_watching()
                self._take_rest()
                self._receiver.disconnected()

    async def _read(self) -> None:
        while await self._read_fd.wait_readable() and self._read_some():
            if not self._receiver.ready:
                await self._receiver.wait_ready()

    async def _read_watched(self, watch: Watch) -> None:
        """As `_read`, with another loop waiting for the descriptor; this task only wakes to pause and to finish."""
        if not self._read_fd.pollable:
            await self._read()
            return
        while not self._finished and not self._read_fd.closed:
            self._paused = trio.Event()
            self._unwatch = watch(self._read_fd.number, self._on_readable)
            try:
                await self._paused.wait()
            finally:
                self._stop_watching()
            if not self._finished:
                await self._receiver.wait_ready()
        if self._error is not None:
            raise self._error

    def _on_readable(self) -> None:
        try:
            self._finished = not self._read_some() or self._finished
        except Exception as error:  # it is for whoever runs us, not for the loop that watches
            self._error, self._finished = error, True
        if self._finished or not self._receiver.ready:
            self._stop_watching()
            self._paused.set()

    def _stop_watching(self) -> None:
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            unwatch()

    def _read_some(self) -> bool:
        """Read once and hand over what is complete; False at the end of the stream."""
        data = self._read_fd.read(_READ_SIZE)
        if data is None:
            return True
        try:
            for line in self._framer.receive_data(data):
                self._take_line(line)
        except LineTooLong as error:
            self._rejected += 1
            self._receiver.rejected(b"", error)
            return False
        return data != b""

    def _take_line(self, line: bytes) -> None:
        if not self._folded.begun:
            self._take(line)
        elif _is_message(line) or not self._folded.goes_on(line):
            self._take(self._folded.take(), is_whole=True)
            self._take(line)
        elif self._folded.complete:
            self._take(self._folded.take(), is_whole=True)

    def _take(self, line: bytes, *, is_whole: bool = False) -> None:
        """A line; or what ``is_whole``, of which nothing is to come."""
        try:
            message = decode(line)
        except RemoteProtocolError as error:
            if is_whole or not self._folded.begins(line):
                self._take_odd(line, error)
            return
        self._received += 1
        self._receiver.receive(message)

    def _take_odd(self, line: bytes, error: RemoteProtocolError) -> None:
        """A line that is not one message may be several; no batch stands in a batch."""
        if messages := batch(line):
            for message in messages:
                self._take(message, is_whole=True)
            return
        self._rejected += 1
        self._receiver.rejected(line, error)

    def _take_rest(self) -> None:
        """A message needs no newline at the end of a stream; what is none was torn."""
        line = self._framer.rest()
        if self._folded.begun:
            goes_on = not line or self._folded.goes_on(line)
            begun = self._folded.take()
            if goes_on:
                line = begun
            else:
                self._take(begun, is_whole=True)
        if not line:
            return
        try:
            decode(line)
        except RemoteProtocolError as error:
            if not batch(line):
                self._torn += len(line)
                self._receiver.rejected(line, LineTorn(error))
                return
        self._take(line, is_whole=True)

    def _enqueue(self, *pieces: bytes | memoryview) -> None:
        if not self._queue:
            self._all_sent = trio.Event()
        for piece in pieces:
            self._queue.append(piece)
            self._queued += len(piece)
        if self._queued > HIGH_WATER:
            self._was_congested = True
        self._queue_changed.set()

    async def _write_queued(self, reading: trio.CancelScope) -> None:
        while not self._write_fd.closed:
            if not self._queue:
                self._all_sent.set()
                if self._closing:
                    break
                self._queue_changed = trio.Event()
                await self._queue_changed.wait()
                continue
            try:
                await self._write_fd.wait_writable()
                self._write_some()
            except (OSError, trio.ClosedResourceError):
                break
            if self._was_congested and self._queued < LOW_WATER:
                self._was_congested = False
                self._receiver.drained()
        self._stop_writing()
        if not self._closing:
            # The peer reads no more, so it will answer no more; what it has answered already is in the pipe.
            reading.deadline = trio.current_time() + _LAST_ANSWERS

    def _write_some(self) -> None:
        try:
            written = os.writev(self._write_fd.number, _first_pieces(self._queue))
        except BlockingIOError:
            return
        self._queued -= written
        while written:
            piece = self._queue.popleft()
            if len(piece) > written:
                self._queue.appendleft(memoryview(piece)[written:])
                return
            written -= len(piece)

    def _stop_writing(self) -> None:
        self._queue.clear()
        self._all_sent.set()
        self._queued = 0
        self._write_fd.close()
        self._queue_changed.set()
        if self._was_congested:
            self._was_congested = False
            self._receiver.drained()


def _is_message(line: bytes) -> bool:
    """Whether a line is a message by itself, which stands in no other."""
    if not line.lstrip().startswith(b"{"):
        return False
    try:
        decode(line)
    except RemoteProtocolError:
        return False
    return True


def _first_pieces(queue: deque[bytes | memoryview]) -> list[bytes | memoryview]:
    # A vector is limited to IOV_MAX (1,024) pieces, and more than a few bring nothing on a 64 KiB pipe.
    return [queue[index] for index in range(min(len(queue), 16))]


class _Descriptor:
    """One file descriptor that is waited for where the kernel can, and closed once."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.closed = False
        self._widened = False
        mode = os.fstat(number).st_mode
        # epoll refuses files and devices such as /dev/null: they are always ready.
        self.pollable = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(number)
        if self.pollable:
            os.set_blocking(number, False)

    def has_other_end(self) -> bool:
        """Whether the other end of this pipe is open."""
        poll = select.poll()
        poll.register(self.number, 0)
        return not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))

    def widen(self, waiting: int) -> None:
        """Let a pipe hold more, once, if much is waiting for it; not every descriptor or user may."""
        if not self._widened and waiting > _READ_SIZE:
            self._widened = True
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.number, fcntl.F_SETPIPE_SZ, _WIDE_PIPE)

    async def wait_writable(self) -> None:
        if self.pollable:
            await trio.lowlevel.wait_writable(self.number)
        else:
            await trio.lowlevel.checkpoint()

    async def wait_readable(self) -> bool:
        """Wait for something to read; False once it was closed here."""
        if self.closed:
            return False
        try:
            if self.pollable:
                await trio.lowlevel.wait_readable(self.number)
            else:
                await trio.lowlevel.checkpoint()
        except trio.ClosedResourceError:
            return False
        return True

    def read(self, size: int) -> bytes | None:
        """Bytes, None if there are none now, or b"" at the end of the stream or once it was closed here."""
        if self.closed:
            return b""
        try:
            return os.read(self.number, size)
        except BlockingIOError:
            return None
        except OSError as error:
            # EIO is how a terminal says that its other side has gone.
            if error.errno in (errno.EIO, errno.ECONNRESET):
                return b""
            raise

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.pollable:
            trio.lowlevel.notify_closing(self.number)
        try:
            os.close(self.number)
        except OSError as error:
            # Linux closes it also where it says that something went wrong on the way; not ours any more is a bug.
            if error.errno == errno.EBADF:
                raise
