"""Opening sessions, from the first byte of a handshake to the first tool's result: one at a time, or all at once."""

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Sequence

from drivers import INITIALIZED, BrokenRun, HttpLane, PipeLane, call, converse, initialize, read_until
from environments import Environment

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


def open_session(port: int, path: str, environment: Environment) -> tuple[float, HttpLane]:
    """Seconds from the handshake's request to the first result, and the live session."""
    lane = HttpLane("127.0.0.1", port, path)
    try:
        begun = time.perf_counter()
        lane.open()
        check(environment, converse(lane, first_call(environment)))
        return time.perf_counter() - begun, lane
    except BaseException:
        lane.close()
        raise


def first_call(environment: Environment) -> bytes:
    return call(1, environment.tool, environment.arguments)


def check(environment: Environment, answer: bytes) -> None:
    if environment.shows not in answer or b'"isError":true' in answer:
        raise BrokenRun(f"{environment.tool} was answered {answer[:200]!r}")


class Opening:
    """A session's handshake and first call, a message at a time."""

    def __init__(self, port: int, path: str, environment: Environment) -> None:
        self.lane = HttpLane("127.0.0.1", port, path)
        self.seconds = 0.0
        self._environment = environment
        self._steps = iter((initialize(), INITIALIZED, first_call(environment)))

    def begin(self) -> None:
        self._begun = time.perf_counter()
        self._send(next(self._steps))

    def readable(self) -> bool:
        """Go on with what has come; True when the first call is answered."""
        answer = self.lane.receive()
        if answer is None:
            return False
        if not self.lane.known:
            self.lane.learn()
        following = next(self._steps, None)
        if following is None:
            check(self._environment, answer)
            self.seconds = time.perf_counter() - self._begun
            return True
        self._send(following)
        return False

    def _send(self, body: bytes) -> None:
        data = self.lane.request(body)
        if os.write(self.lane.write_fd, data) != len(data):
            raise BrokenRun("the server does not read")


def open_at_once(port: int, paths: Sequence[str], environment: Environment) -> tuple[float, list[Opening]]:
    """Ask for all sessions at once; seconds until each has answered its first call."""
    openings = [Opening(port, path, environment) for path in paths]
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
        return time.perf_counter() - begun, openings
