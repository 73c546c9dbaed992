"""Two load generators with one closed loop: one call in flight per session, over bare pipes or over streamable HTTP.

Both run on one epoll in the benchmark's own process and do as little as they can: on a small machine they share the
cores with what they measure. Their own CPU per call is part of every sample.
"""

import contextlib
import gc
import json
import os
import select
import socket
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

PROTOCOL_VERSION = "2025-06-18"
MODERN_VERSION = "2026-07-28"  # has no handshake
_META = "io.modelcontextprotocol/"
_CLIENT = {"name": "gateway-benchmark", "version": "1"}
READ_SIZE = 1 << 16  # a larger buffer is mapped and unmapped by malloc on every read
ANSWER_TIMEOUT = 30.0  # seconds; a closed loop that stands still this long has lost an answer
CLOSE_TIMEOUT = 10.0
NEWLINE = 10
CRLF = b"\r\n"
INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


class BrokenRun(Exception):
    """The server under test closed, refused, or gave a session an answer that was not its own."""


class Lane(Protocol):
    """One session as the closed loop sees it. Its descriptors do not block."""

    @property
    def read_fd(self) -> int: ...

    @property
    def write_fd(self) -> int: ...

    def request(self, body: bytes) -> bytes:
        """The bytes that carry `body`, one JSON-RPC message."""

    def receive(self) -> bytes | None:
        """Read once. The answer's JSON-RPC message when that completed it, else None."""


def call(number: int, tool: str, arguments: str) -> bytes:
    """A `tools/call` as clients write it; `arguments` is JSON."""
    return (
        f'{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}'
    ).encode()


def modern_call(number: int, tool: str, arguments: str) -> bytes:
    """As `call`, for a revision that has no handshake: it says who asks."""
    meta = {"protocolVersion": MODERN_VERSION, "clientInfo": _CLIENT, "clientCapabilities": {}}
    named = json.dumps({_META + key: value for key, value in meta.items()})
    return call(number, tool, arguments).removesuffix(b"}}") + f',"_meta":{named}}}}}'.encode()


def initialize() -> bytes:
    params = {"protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": _CLIENT}
    return json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).encode()


class PipeLane:
    """A backend of its own on two bare pipes."""

    def __init__(self, command: Sequence[str], stderr: int | None = None) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, bufsize=0
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.read_fd = self.process.stdout.fileno()
        self.write_fd = self.process.stdin.fileno()
        os.set_blocking(self.read_fd, False)
        os.set_blocking(self.write_fd, False)
        self._parts: list[bytes] = []

    def request(self, body: bytes) -> bytes:
        return body + b"\n"

    def receive(self) -> bytes | None:
        data = os.read(self.read_fd, READ_SIZE)
        if not data:
            raise BrokenRun("the backend closed its stdout")
        if data[-1] == NEWLINE and not self._parts:
            return data
        self._parts.append(data)
        if data[-1] != NEWLINE:
            return None
        data = b"".join(self._parts)
        self._parts.clear()
        return data

    def open(self) -> None:
        converse(self, initialize())
        os.write(self.write_fd, self.request(INITIALIZED))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(CLOSE_TIMEOUT)


class ChunkedBody:
    """Takes a chunked body without trailers apart as it arrives."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._pending = b""
        self._missing = 0  # bytes of the current chunk still to come, with its CRLF
        self._last = False

    def feed(self, data: bytes) -> bool:
        """True when all of it is there."""
        while data:
            if not self._missing:
                line, found, data = (self._pending + data).partition(CRLF)
                self._pending = b"" if found else line
                if not found:
                    return False
                size = int(line.partition(b";")[0], 16)
                self._last = size == 0
                self._missing = size + len(CRLF)
            taken, data = data[: self._missing], data[self._missing :]
            self.parts.append(taken[: max(self._missing - len(CRLF), 0)])
            self._missing -= len(taken)
        return self._last and not self._missing


class HttpLane:
    """A session over streamable HTTP on one kept-alive connection."""

    def __init__(self, host: str, port: int, path: str) -> None:
        self._address = (host, port)
        self.move(path)
        self._connect()
        self._reset()

    def move(self, path: str, headers: str = "", end_at: str | None = None) -> None:
        """Post there from now on, with these headers; the session ends there too, or by a DELETE of `end_at`."""
        host, port = self._address
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nAccept: application/json, text/event-stream\r\n"
            "Accept-Encoding: identity\r\nConnection: keep-alive\r\nUser-Agent: gateway-benchmark\r\n"
            "Content-Type: application/json\r\n"
        ).encode()
        self._session_headers = headers.encode()
        self._end_at = end_at

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address, ANSWER_TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self.read_fd = self.write_fd = self._socket.fileno()

    def _reset(self) -> None:
        self._status = 0
        self._pending = b""
        self._head_lowered = b""
        self._parts: list[bytes] = []
        self._missing = 0
        self._chunked: ChunkedBody | None = None

    def request(self, body: bytes) -> bytes:
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head, self._session_headers, len(body), body)

    def receive(self) -> bytes | None:
        data = self._socket.recv(READ_SIZE)
        if not data:
            raise BrokenRun(f"the connection was closed ({self._status or 'no answer'})")
        if not self._status:
            data = self._pending + data
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._pending = head
                return None
            self._begin(head)
        if self._chunked:
            return self._finish(self._chunked.parts) if self._chunked.feed(data) else None
        self._parts.append(data)
        self._missing -= len(data)
        return None if self._missing > 0 else self._finish(self._parts)

    def _begin(self, head: bytes) -> None:
        self._status = int(head[9:12])
        self._head_lowered = lowered = head.lower()
        at = lowered.find(b"\r\ncontent-length:")
        if at >= 0:
            self._missing = int(lowered[at + 17 :].partition(b"\r\n")[0])
        elif b"\r\ntransfer-encoding: chunked" in lowered:
            self._chunked = ChunkedBody()
        elif self._status not in (202, 204):
            raise BrokenRun(f"an answer without a length: {head!r}")

    def _finish(self, parts: list[bytes]) -> bytes:
        body = b"".join(parts)
        status, head = self._status, self._head_lowered
        self._reset()
        if status >= 300:
            raise BrokenRun(f"HTTP {status}: {body[:200]!r}")
        if b"\r\ncontent-type: text/event-stream" in head:
            body = last_event(body)
        self._answer_head = head
        return body

    def open(self) -> float:
        """The handshake. Gives the seconds of its first round trip; what follows carries the session's headers."""
        begun = time.perf_counter()
        converse(self, initialize())
        taken = time.perf_counter() - begun
        self.learn()
        converse(self, INITIALIZED)
        return taken

    def learn(self) -> None:
        """Take the session's headers from the answer to `initialize`."""
        headers = f"MCP-Protocol-Version: {PROTOCOL_VERSION}\r\n".encode()
        _, found, rest = self._answer_head.partition(b"\r\nmcp-session-id:")
        if found:  # a stateless server gives none
            headers += b"Mcp-Session-Id: " + rest.partition(b"\r\n")[0].strip() + b"\r\n"
        self._session_headers = headers

    def end(self) -> None:
        """DELETE the session, whatever the server says to that, and hang up."""
        self.refresh()
        if self._end_at is not None:
            self.move(self._end_at)
        with contextlib.suppress(BrokenRun, OSError):
            os.write(self.write_fd, b"DELETE" + self.request(b"").removeprefix(b"POST"))
            if select.select([self.read_fd], [], [], CLOSE_TIMEOUT)[0]:
                self.receive()
        self.close()

    def refresh(self) -> None:
        """Connect again if the server closed the idle connection, as servers do after some seconds."""
        if select.select([self._socket], [], [], 0)[0]:
            self._socket.close()
            self._connect()

    def close(self) -> None:
        self._socket.close()


def last_event(stream: bytes) -> bytes:
    """The data of the last event that has any: the answer comes after its notifications."""
    _, found, data = (b"\n" + stream).rpartition(b"\ndata:")
    if not found:
        raise BrokenRun(f"an event stream without an answer: {stream[:200]!r}")
    return data.partition(b"\n")[0].strip()


def converse(lane: Lane, body: bytes) -> bytes:
    """One message out, as large as it may be, and its answer back, reading while writing."""
    rest = memoryview(lane.request(body))
    poll = select.poll()
    poll.register(lane.read_fd, select.POLLIN)
    poll.register(lane.write_fd, select.POLLOUT | (select.POLLIN if lane.write_fd == lane.read_fd else 0))
    while True:
        ready = dict(poll.poll(ANSWER_TIMEOUT * 1000))
        if not ready:
            raise BrokenRun(f"no answer in {ANSWER_TIMEOUT:.0f} s")
        if rest and ready.get(lane.write_fd, 0) & ~select.POLLIN:
            rest = rest[os.write(lane.write_fd, rest) :]
            if not rest:
                poll.unregister(lane.write_fd)
                poll.register(lane.read_fd, select.POLLIN)
        if ready.get(lane.read_fd, 0) & ~select.POLLOUT:
            answer = lane.receive()
            if answer is not None:
                return answer


def read_until(lane: Lane, mark: bytes, data: bytes = b"") -> bytes:
    """What comes until `mark` does, after `data` that has come already: notifications may stand before an answer."""
    while mark not in data:
        if not select.select([lane.read_fd], [], [], ANSWER_TIMEOUT)[0]:
            raise BrokenRun(f"nothing like {mark!r} in {ANSWER_TIMEOUT:.0f} s")
        data += lane.receive() or b""
    return data


@dataclass(frozen=True)
class Sample:
    """What one closed loop gave. Latencies in milliseconds, CPU in microseconds per call."""

    sessions: int
    calls: int
    calls_per_second: float
    p50_ms: float
    p99_ms: float
    generator_us: float


def summarize(sessions: int, latencies: list[float], seconds: float, cpu: float) -> Sample:
    if len(latencies) < 2:
        raise BrokenRun(f"{len(latencies)} calls in {seconds:.1f} s")
    cuts = statistics.quantiles(latencies, n=100)
    return Sample(
        sessions=sessions,
        calls=len(latencies),
        calls_per_second=len(latencies) / seconds,
        p50_ms=cuts[49] * 1e3,
        p99_ms=cuts[98] * 1e3,
        generator_us=cpu / len(latencies) * 1e6,
    )


def closed_loop(lanes: Sequence[Lane], seconds: float) -> Sample:
    """Keep one `echo` in flight per lane for so long; check that each answer is the lane's own."""
    clock = time.perf_counter
    poll = select.epoll()
    latencies: list[float] = []
    by_fd = {lane.read_fd: index for index, lane in enumerate(lanes)}
    marks = [b""] * len(lanes)
    sent = [0.0] * len(lanes)
    number = 0

    def send(index: int) -> None:
        nonlocal number
        number += 1
        mark = f"{index}.{number}"
        marks[index] = b'"' + mark.encode() + b'"'
        data = lanes[index].request(call(number, "echo", f'{{"text":"{mark}"}}'))
        sent[index] = clock()
        if os.write(lanes[index].write_fd, data) != len(data):
            raise BrokenRun("the server does not read")

    gc.collect()
    gc.disable()
    cpu = time.process_time()
    begun = clock()
    deadline = begun + seconds
    for index, lane in enumerate(lanes):
        poll.register(lane.read_fd, select.EPOLLIN)
        send(index)
    open_calls = len(lanes)
    try:
        while open_calls:
            ready = poll.poll(ANSWER_TIMEOUT)
            if not ready:
                raise BrokenRun(f"no answer in {ANSWER_TIMEOUT:.0f} s")
            for fd, _ in ready:
                index = by_fd[fd]
                answer = lanes[index].receive()
                if answer is None:
                    continue
                now = clock()
                if marks[index] not in answer:
                    raise BrokenRun(f"not the answer to {marks[index]!r}: {answer[:200]!r}")
                latencies.append(now - sent[index])
                if now < deadline:
                    send(index)
                else:
                    open_calls -= 1
        return summarize(len(lanes), latencies, clock() - begun, time.process_time() - cpu)
    finally:
        poll.close()
        gc.enable()


def large_result_ms(lane: Lane, mib: int, repeats: int) -> float:
    """Median milliseconds of a call that answers with `mib` MiB."""
    return large_ms(lane, call(1, "produce", f'{{"mib":{mib}}}'), mib << 20, repeats)


def large_request_ms(lane: Lane, mib: int, repeats: int) -> float:
    """Median milliseconds of a call that brings `mib` MiB."""
    return large_ms(lane, call(1, "accept", '{"data":"' + "x" * (mib << 20) + '"}'), 0, repeats)


def large_ms(lane: Lane, body: bytes, least: int, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        answer = converse(lane, body)
        times.append(time.perf_counter() - begun)
        if len(answer) < least or b'"result"' not in answer:
            raise BrokenRun(f"refused: {answer[:200]!r}")
    return statistics.median(times) * 1e3
