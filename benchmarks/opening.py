"""Opening sessions, from the first byte of a handshake to the first tool's result: one at a time, or all at once."""

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from drivers import (
    INITIALIZED,
    MODERN_VERSION,
    BrokenRun,
    HttpLane,
    PipeLane,
    call,
    converse,
    initialize,
    modern_call,
    read_until,
)
from environments import Environment, session_path

START_TIMEOUT = 600.0


def open_by_hand(command: Sequence[str], environment: Environment) -> float:
    """Seconds from starting the server on bare pipes to its first result; it is ended then."""
    begun = time.perf_counter()
    lane = PipeLane(command, stderr=subprocess.DEVNULL)
    try:
        lane.open()
        check(environment, read_until(lane, environment.shows, converse(lane, first_call(environment))))
        return time.perf_counter() - begun
    finally:
        with contextlib.suppress(OSError):
            lane.close()


class Manner(Protocol):
    """How a client comes to its first result: what it sends, message by message, each after the answer before."""

    @property
    def path(self) -> Callable[[Environment, int], str]:
        """Where the first message goes, by seed."""

    def messages(self, lane: HttpLane, environment: Environment, seed: int) -> Generator[bytes, bytes, None]:
        """Yields requests and is sent their answers. Raises BrokenRun for a wrong one."""


@dataclass(frozen=True)
class ByHandshake:
    """Revisions up to 2025-11-25."""

    path: Callable[[Environment, int], str]

    def messages(self, lane: HttpLane, environment: Environment, seed: int) -> Generator[bytes, bytes, None]:
        yield initialize()
        lane.learn()
        yield INITIALIZED
        check(environment, (yield first_call(environment)))


AS_USUAL = ByHandshake(session_path)  # muxsim makes a session of it


class ByRequest:
    """Revision 2026-07-28, which has no handshake: a session is asked of muxsim, and the first call is the next."""

    def path(self, environment: Environment, seed: int) -> str:
        return "/sessions"

    def messages(self, lane: HttpLane, environment: Environment, seed: int) -> Generator[bytes, bytes, None]:
        wish = {"env": environment.name, **({"seed": seed} if environment.seeded else {})}
        session = json.loads((yield json.dumps(wish).encode()))["id"]
        headers = {"MCP-Protocol-Version": MODERN_VERSION, "Mcp-Method": "tools/call", "Mcp-Name": environment.tool}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        lane.move(f"/s/{session}/mcp", lines, end_at=f"/sessions/{session}")
        check(environment, (yield modern_call(1, environment.tool, environment.arguments)))


def open_session(port: int, manner: Manner, environment: Environment, seed: int) -> tuple[float, HttpLane]:
    """Seconds from the first byte of the first request to the first result, and the live session."""
    _, (opening,) = open_at_once(port, manner, environment, [seed])
    return opening.seconds, opening.lane


def first_call(environment: Environment) -> bytes:
    return call(1, environment.tool, environment.arguments)


def check(environment: Environment, answer: bytes) -> None:
    if environment.shows not in answer or b'"isError":true' in answer:
        raise BrokenRun(f"{environment.tool} was answered {answer[:200]!r}")


class Opening:
    """A session's way to its first result, an answer at a time."""

    def __init__(self, port: int, manner: Manner, environment: Environment, seed: int) -> None:
        self.lane = HttpLane("127.0.0.1", port, manner.path(environment, seed))
        self.seconds = 0.0
        self._messages = manner.messages(self.lane, environment, seed)
        self._first = self.lane.request(next(self._messages))

    def begin(self) -> None:
        self._begun = time.perf_counter()
        self._send(self._first)

    def readable(self) -> bool:
        """Go on with what has come; True when the first call is answered."""
        answer = self.lane.receive()
        if answer is None:
            return False
        try:
            following = self._messages.send(answer)
        except StopIteration:
            self.seconds = time.perf_counter() - self._begun
            return True
        self._send(self.lane.request(following))
        return False

    def _send(self, data: bytes) -> None:
        if os.write(self.lane.write_fd, data) != len(data):
            raise BrokenRun("the server does not read")


def open_at_once(
    port: int, manner: Manner, environment: Environment, seeds: Iterable[int]
) -> tuple[float, list[Opening]]:
    """Ask for a session of each seed at once; seconds until each has answered its first call."""
    openings = [Opening(port, manner, environment, seed) for seed in seeds]
    try:
        return _await_all(openings), openings
    except BaseException:
        for opening in openings:
            opening.lane.close()
        raise


def _await_all(openings: Sequence[Opening]) -> float:
    by_fd = {opening.lane.read_fd: opening for opening in openings}
    with contextlib.closing(select.epoll()) as poll:
        for fd in by_fd:
            poll.register(fd, select.EPOLLIN)
        begun = time.perf_counter()
        for opening in openings:
            opening.begin()
        waiting = len(openings)
        while waiting:
            ready = poll.poll(START_TIMEOUT)
            if not ready:
                raise BrokenRun(f"{waiting} sessions did not answer in {START_TIMEOUT:.0f} s")
            for fd, _ in ready:
                waiting -= by_fd[fd].readable()
        return time.perf_counter() - begun
