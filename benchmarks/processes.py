"""Servers under test as processes: started in a group of their own, measured through /proc, ended by id."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

READY_TIMEOUT = 30.0
END_TIMEOUT = 5.0  # seconds from SIGTERM to SIGKILL, and from the server's end to the count of what it left
POLL_SECONDS = 0.02
TICK = os.sysconf("SC_CLK_TCK")
TOLERATED_TICKS = 0.5  # a child that ends takes its ticks out of the sum, so less than one counts as none
LOG_TAIL = 300  # characters of a failed server's output that are shown
ZYGOTE = "zygote"  # the first word after inside/begin.py
URL = re.compile(r"http://[\d.]+:(\d+)")


class NotReady(Exception):
    """The server did not come up."""


def stat_fields(pid: int) -> list[str]:
    """What `/proc/PID/stat` has after the name, from the state on; nothing for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


@dataclass(frozen=True)
class Process:
    """A process as it was seen. The start time tells it from a later one with the same pid."""

    pid: int
    parent: int
    started: int
    cpu: float

    @classmethod
    def read(cls, pid: int) -> "Process | None":
        fields = stat_fields(pid)
        if not fields or fields[0] == "Z":
            return None
        cpu = (int(fields[11]) + int(fields[12])) / TICK
        return cls(pid=pid, parent=int(fields[1]), started=int(fields[19]), cpu=cpu)

    def lives(self) -> bool:
        now = Process.read(self.pid)
        return now is not None and now.started == self.started


def tree(root: int) -> list[Process]:
    """The process and all its living descendants."""
    found = (Process.read(int(name)) for name in os.listdir("/proc") if name.isdigit())
    by_parent: dict[int, list[Process]] = {}
    everything = {process.pid: process for process in found if process is not None}
    for process in everything.values():
        by_parent.setdefault(process.parent, []).append(process)
    members = [everything[root]] if root in everything else []
    for member in members:  # grows while it is walked
        members += by_parent.get(member.pid, [])
    return members


def cpu_seconds(root: int) -> float:
    """CPU of the process and all its living descendants so far."""
    return sum(member.cpu for member in tree(root))


def settle(root: int, quiet: float, limit: float) -> None:
    """Wait until the tree has used no CPU for so many seconds: nothing of the last session is still going on."""
    deadline = time.monotonic() + limit
    before, since = cpu_seconds(root), time.monotonic()
    while time.monotonic() - since < quiet and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        now = cpu_seconds(root)
        if abs(now - before) > TOLERATED_TICKS / TICK:
            before, since = now, time.monotonic()


def zombies(root: int) -> int:
    """Dead children of the tree that nobody has reaped."""
    members = {member.pid for member in tree(root)}
    states = (stat_fields(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return sum(fields[0] == "Z" and int(fields[1]) in members for fields in states if fields)


def descriptors(root: int) -> int:
    """Open files of the whole tree."""
    count = 0
    for member in tree(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            count += len(os.listdir(f"/proc/{member.pid}/fd"))
    return count


def pss_mib(pid: int) -> float:
    """Proportional set size in MiB; 0.0 for a process that is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0.0


def runs(pid: int, script: str) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return script.encode() in arguments


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server under test and everything it starts."""

    def __init__(self, command: Sequence[str], port: int) -> None:
        """`port` 0: the server picks one and prints its URL. Raises NotReady if there is no such command."""
        self.port = port
        self.left_behind = 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
            )
        except OSError as error:
            self._log.close()
            raise NotReady(str(error)) from error
        self.pid = self._process.pid

    def wait_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None:
                raise NotReady(f"ended with status {self._process.returncode}: {self.log_tail()}")
            if time.monotonic() > deadline:
                raise NotReady(f"not ready in {READY_TIMEOUT:.0f} s: {self.log_tail()}")
            time.sleep(POLL_SECONDS)

    def _answers(self) -> bool:
        if not self.port:
            printed = URL.search(self.log())
            if printed is None:
                return False
            self.port = int(printed[1])
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def log(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def log_tail(self) -> str:
        return " ".join(self.log()[-LOG_TAIL:].split()) or "it printed nothing"

    def cpu_seconds(self) -> float:
        """CPU of the proxy's own process, without its children."""
        process = Process.read(self.pid)
        return process.cpu if process else 0.0

    def pss(self) -> tuple[float, float]:
        """MiB of the proxy's own process, and of the whole tree."""
        return pss_mib(self.pid), sum(pss_mib(member.pid) for member in tree(self.pid))

    def count(self, script: str) -> int:
        """How many descendants run `script`, those included that a zygote of muxsim's has forked to run it."""
        below = [member.pid for member in tree(self.pid) if member.pid != self.pid]
        forks = sum(runs(pid, ZYGOTE) for pid in below) - 1  # the zygote itself has the same command line
        return sum(runs(pid, script) for pid in below) + max(forks, 0)

    def end(self) -> None:
        """SIGTERM, SIGKILL past the deadline, then whatever is left of the tree, which is counted."""
        members = tree(self.pid)
        self._signal_group(signal.SIGTERM)
        try:
            self._process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._signal_group(signal.SIGKILL)
            self._process.wait()
        deadline = time.monotonic() + END_TIMEOUT
        while any(member.lives() for member in members) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        for member in members:
            if member.lives():
                self.left_behind += 1
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGKILL)
        self._log.close()

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)
