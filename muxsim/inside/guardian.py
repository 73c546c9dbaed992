"""The guardian: a small process that forks every child and sees to it that nothing outlives its use.

`muxsim.processes.process.Launcher` starts it as `python -I -S guardian.py LAUNCHER_PID TOKEN FOLDER CGROUP`, with its
end of a SOCK_SEQPACKET socket as standard input. It removes FOLDER and CGROUP, where they are not empty words, when the
launcher has gone. It stands apart so that it can be a child subreaper (orphans of any depth come back to it, and to no
one else) without changing the program that embeds muxsim, and so that it is still there when that program is killed.
It has one thread and imports only the standard library.

Each packet is one JSON object whose `"kind"` names it:

    to the guardian                                          its answer
    spawn {ref, argv, env, cwd, umask, confinement} + fds    spawned {ref, pid} + pidfd, or failed {ref, stage, errno}
    adopt {ref, pid, mark}                                   spawned {ref, pid} + pidfd, or failed {ref, stage, errno}
    remember {pid}                                           remembered {pid}
    signal {pid, signals}                                    none; goes to the child's process group
    sweep {pid}                                              swept {pid, killed, left}
    clear {}                                                 cleared {killed}
    (nothing)                                                exited {pid, status}, when a child has ended

`confinement` holds what is to bound the child, each key if it is wanted; `confine` applies it:

    cgroup        the folder of a cgroup v2, which is there already, to enter
    nice          what is added to the niceness
    no_new_privs  true: nothing it runs gains privileges (setuid, file capabilities)
    rlimits       {number of RLIMIT_*: [soft, hard]}

`status` is what subprocess calls a returncode. The three descriptors become the child's 0, 1 and 2, and a fourth its
`CHANNEL`. A child that has
ended stays a zombie until `sweep`: its pid, which is its group's and its session's number too, belongs to nobody else
for as long as anyone may still signal it.

The module is run by its path, so it imports nothing of muxsim; process.py imports the wire format from here.
"""

from __future__ import annotations

import array
import contextlib
import errno
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from stat import S_ISREG
from typing import Any, NamedTuple, NoReturn

try:
    import ctypes
except ImportError:  # a Python built without libffi: no prctl, so neither subreaper nor PDEATHSIG
    ctypes = None  # type: ignore[assignment]

MARK = "MUXSIM_PROCESS"
"""Environment variable of every child, `<launcher token>.<number>`: tells whose tree an orphan belongs to."""

LAUNCHER_GONE_GRACE = 0.5
"""Seconds for children to end by themselves once their launcher has died and their stdin is at its end."""

LAUNCHER_GONE_TERM = 0.4
"""Seconds after SIGTERM, in the same case. With the grace before, it leaves one of the promised two seconds spare."""

UNKILLABLE = 5.0
"""Seconds after which a process that survives SIGKILL (it hangs in the kernel, or is root's) is given up."""

SHORT_OF_MEMORY = 5.0
"""Seconds for the kernel to have memory for a message again."""

HIDING_LIMIT = 0.1
"""Seconds that sweeps wait for an orphan without an environment, which may be in an exec, to show whose it is."""

ROUND = 0.01
"""Seconds between two looks at a tree that is being killed, if no SIGCHLD comes first."""

ITSELF = "itself"
"""Name of the cgroup, in a pool's, that the launcher and we are in where we had to leave the one above."""

PACKET_LIMIT = 32 * 1024
"""Bytes of a message sent as a packet; a longer one travels in a memfd (a socket buffer holds about 200 KiB)."""

DESCRIPTORS = 4
"""Most descriptors in one packet: three streams, and a memfd."""

CHANNEL = 3
"""The descriptor of a child's channel: no standard one, which any library may read, write or close."""

STREAMS = 3

SHOWN = 200
"""Bytes of one that cannot be read which an error shows."""

LARGEST = 64 * 1024 * 1024
"""Bytes of a message that travels in a memfd."""

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

Message = dict[str, Any]


def close(fd: int) -> None:
    """Close a descriptor, which Linux does also where it says that something went wrong on the way."""
    try:
        os.close(fd)
    except OSError as error:
        if error.errno == errno.EBADF:  # it was closed before, and may be somebody else's by now: a bug of ours
            raise


# --- the wire, used by both ends ---


class Packet(NamedTuple):
    """A message ready to be sent. It owns its descriptors: `close` it once it is sent or given up."""

    data: bytes
    fds: tuple[int, ...]

    def close(self) -> None:
        for fd in self.fds:
            close(fd)


class Received(NamedTuple):
    """`message` is None at the end of the channel. `complete` is False if descriptors were lost for want of room."""

    message: Message | None
    fds: list[int]
    complete: bool


def pack(message: Message, fds: Sequence[int] = ()) -> Packet:
    """Encode `message`; takes over `fds`, and closes them if a memfd was needed and there is none to be had."""
    data = json.dumps(message, separators=(",", ":")).encode()
    packet = Packet(data, tuple(fds))
    if len(data) <= PACKET_LIMIT:
        return packet
    try:
        memory = os.memfd_create("muxsim-message", os.MFD_CLOEXEC)
    except OSError:
        packet.close()
        raise
    packet = Packet(json.dumps({"kind": "memfd", "ref": message.get("ref")}).encode(), (*fds, memory))
    try:
        with open(memory, "wb", closefd=False) as file:
            file.write(data)
    except OSError:
        packet.close()
        raise
    return packet


def send(channel: socket.socket, packet: Packet) -> None:
    """Send and leave `packet` open: a non-blocking channel may ask for another try."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", packet.fds))] if packet.fds else []
    channel.sendmsg([packet.data], ancillary)


class Unreadable(Exception):
    """What came is no message. The channel still works."""


def receive(channel: socket.socket) -> Received:
    """The next message; BlockingIOError if there is none. The descriptors are the caller's, close-on-exec.

    Raises `Unreadable`, and has closed the descriptors then.
    """
    room = socket.CMSG_LEN(DESCRIPTORS * array.array("i").itemsize)
    flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
    try:
        data, ancillary, seen, _ = channel.recvmsg(2 * PACKET_LIMIT, room, flags)
    except (ConnectionResetError, BrokenPipeError):
        return Received(None, [], complete=True)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    complete = not seen & socket.MSG_CTRUNC
    if not data:
        return Received(None, list(fds), complete)
    try:
        if seen & socket.MSG_TRUNC:
            raise Unreadable("it is longer than a packet may be")
        message = decode(data)
        if message["kind"] == "memfd" and complete:
            message = decode(contents(fds.pop()))
    except (ValueError, TypeError, LookupError, RecursionError, OSError) as error:
        for fd in fds:
            close(fd)
        raise Unreadable(f"{error!r}: {data[:SHOWN]!r}") from error
    except Unreadable:
        for fd in fds:
            close(fd)
        raise
    return Received(message, list(fds), complete)


def decode(data: bytes) -> Message:
    message = json.loads(data)
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise TypeError("a message is an object with a kind")
    return message


def contents(memory: int) -> bytes:
    """What is in a memfd, which is closed; nothing that reading could wait for, or that has no end."""
    try:
        found = os.fstat(memory)
        if not S_ISREG(found.st_mode) or found.st_size > LARGEST:
            raise ValueError("no file, or too large a one")
        return os.pread(memory, found.st_size, 0)
    finally:
        close(memory)


# --- looking at processes ---


class Stat(NamedTuple):
    """What /proc/<pid>/stat says. A pid and its `started` (clock ticks since boot) together name one process ever."""

    state: bytes
    parent: int
    group: int
    session: int
    started: int


def read_stat(pid: int) -> Stat | None:
    # Every opening of a session with a process that waited comes here: a file object would double the time.
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            line = os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError:
        return None
    # The name, in brackets before these, may hold spaces and brackets of its own.
    fields = line[line.rindex(b")") + 2 :].split()
    return Stat(fields[0], int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]))


def environment(pid: int) -> bytes:
    """What `pid` was started with, each entry between NULs.

    Empty, without a NUL, if there is nothing to be read; so it looks also while a process is in an exec, or exits.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            content = file.read()
    except OSError:
        return b""
    return b"\0" + content + b"\0" if content else b""


def all_pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def has_children_files() -> bool:
    """Whether the kernel was built with CONFIG_PROC_CHILDREN, as distributions do."""
    pid = os.getpid()
    return os.path.exists(f"/proc/{pid}/task/{pid}/children")


CHILDREN_FILES = has_children_files()


def children_of(pid: int) -> list[int]:
    """Direct children, zombies included.

    The kernel may leave one out when a sibling is reaped while we read. Our own children are reaped by nobody else, so
    for them the list is whole; what is missed deeper down becomes our own child when its parent dies.
    """
    if not CHILDREN_FILES:
        return [other for other in all_pids() if (stat := read_stat(other)) and stat.parent == pid]
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def families(roots: Iterable[int]) -> dict[int, Stat]:
    """`roots` and everything below them."""
    found: dict[int, Stat] = {}
    to_see = list(roots)
    while to_see:
        pid = to_see.pop()
        if pid not in found and (stat := read_stat(pid)):
            found[pid] = stat
            to_see += children_of(pid)
    return found


def marked(token: str) -> dict[int, Stat]:
    """Every process on the machine that was started, directly or not, under this launcher's token."""
    entry = f"\0{MARK}={token}.".encode()
    return {pid: stat for pid in all_pids() if entry in environment(pid) and (stat := read_stat(pid))}


def signal_exactly(pid: int, started: int, number: int) -> bool:
    """Signal this very process, never another that got its pid since; False if it is gone or not ours to signal."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        stat = read_stat(pid)
        if stat is None or stat.started != started:
            return False
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        close(pidfd)
    return True


def exit_status(pid: int, *, keep: bool) -> int | None:
    """The returncode of a child that has ended, else None; reaps it unless it is to be kept."""
    options = os.WEXITED | os.WNOHANG | (os.WNOWAIT if keep else 0)
    try:
        found = os.waitid(os.P_PID, pid, options)
    except ChildProcessError:
        return None
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


# --- making a child ---


def prctl(option: int, value: int) -> bool:
    if LIBC is None:
        return False
    arguments = [ctypes.c_ulong(argument) for argument in (value, 0, 0, 0)]
    return bool(LIBC.prctl(ctypes.c_int(option), *arguments) == 0)


LIBC = ctypes.CDLL(None) if ctypes else None


def fork(order: Message, fds: Sequence[int]) -> tuple[int, int]:
    """Start making a child. Returns its pid and a pipe that ends, empty, once the child runs its program."""
    report, report_end = os.pipe()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        close(report)
        raise
    else:
        if pid == 0:
            become(order, fds, report_end, parent)
    finally:
        close(report_end)
    return pid, report


def become(order: Message, fds: Sequence[int], report: int, parent: int) -> NoReturn:
    """In the fork: turn into the program that was ordered, or say which stage failed and end."""
    stage = "prepare"
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above could tie us to it
            os._exit(127)
        report = give(fds, report)
        if order["umask"] is not None:
            os.umask(order["umask"])
        stage = "chdir"
        os.chdir(order["cwd"])
        confine(order["confinement"])
        stage = "exec"
        execute(order["argv"], order["env"])
    except Unconfined as error:
        os.write(report, json.dumps([error.key, error.number]).encode())
    except Exception as error:  # whatever is not reported would look like a child that started
        number = getattr(error, "errno", None) or errno.EINVAL
        os.write(report, json.dumps([stage, number]).encode())
    finally:
        os._exit(127)


def give(fds: Sequence[int], report: int) -> int:
    """Make these the child's first descriptors; returns where the report's is now, which may be in the way."""
    if report < len(fds):
        report = os.dup(report)  # no exec has it, and those below are taken
    for target, fd in enumerate(fds):
        if fd == target:
            os.set_inheritable(fd, True)
        else:
            os.dup2(fd, target)
    return report


class Unconfined(Exception):
    """A key of a confinement cannot be applied to this process, which must not go on."""

    def __init__(self, key: str, number: int) -> None:
        super().__init__(f"{key}: {os.strerror(number)}")
        self.key = key
        self.number = number


def confine(confinement: Message) -> None:
    """In the process that is about to become a backend: put it under its bounds. Raises `Unconfined`."""
    for key, apply in CONFINING.items():
        if key in confinement:
            try:
                apply(confinement[key])
            except (OSError, MemoryError) as error:
                raise Unconfined(key, getattr(error, "errno", None) or errno.ENOMEM) from error


def enter_cgroup(folder: str) -> None:
    with open(os.path.join(folder, "cgroup.procs"), "wb", buffering=0) as file:
        file.write(b"0")


def set_rlimits(rlimits: Mapping[str, Sequence[int]]) -> None:
    for number, (soft, hard) in rlimits.items():
        try:
            resource.setrlimit(int(number), (soft, hard))
        except ValueError as error:  # so it calls EINVAL and EPERM both
            raise OSError(errno.EINVAL if soft > hard else errno.EPERM, str(error)) from error


def forgo_privileges(wanted: bool) -> None:
    if wanted and not prctl(PR_SET_NO_NEW_PRIVS, 1):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


# In this order: whatever comes after is charged to the cgroup, and limits on memory and files come last.
CONFINING: dict[str, Callable[[Any], object]] = {
    "cgroup": enter_cgroup,
    "nice": os.nice,
    "no_new_privs": forgo_privileges,
    "rlimits": set_rlimits,
}


def execute(argv: list[str], env: Mapping[str, str]) -> NoReturn:
    failure = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for program in places(argv[0], env):
        try:
            os.execve(program, argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:  # as a shell does: perhaps a later folder has one that may be run
            failure = error
    raise failure


def places(program: str, env: Mapping[str, str]) -> list[str]:
    """Where `program` is looked for: the PATH is the child's own, never ours."""
    if "/" in program:
        return [program]
    return [os.path.join(folder or ".", program) for folder in env.get("PATH", os.defpath).split(os.pathsep)]


# --- the guardian itself ---


class Starting(NamedTuple):
    """A child between fork and exec."""

    ref: int
    pid: int
    mark: str


class Orphan(NamedTuple):
    """A process that has come to us, and its environment as far as it can be read."""

    pid: int
    stat: Stat
    environment: bytes


class Tree:
    """One child and all that came from it.

    `status` is the returncode once it has ended (it stays unreaped). `seen` are the descendants met so far, by pid and
    start time, and `sessions` the session ids they had: these recognise a process that has left the child's own
    session, was orphaned, and cleared its environment.
    """

    def __init__(self, pid: int, mark: str) -> None:
        self.pid = pid
        self.status: int | None = None
        self.killed: set[tuple[int, int]] = set()
        self.sweep_until: float | None = None
        self.next_round = 0.0
        self.given_up = False
        self._entry = f"\0{MARK}={mark}\0".encode()
        self._seen: dict[int, int] = {}
        self._sessions: set[int] = {pid}

    def remember(self, family: Mapping[int, Stat]) -> None:
        for pid, stat in family.items():
            self._seen[pid] = stat.started
            self._sessions.add(stat.session)

    def disown(self, pid: int) -> None:
        """This process, perhaps seen among our descendants, has a tree of its own now."""
        self._seen.pop(pid, None)
        self._sessions.discard(pid)

    def owns(self, orphan: Orphan) -> bool:
        pid, stat, environment = orphan
        return (
            stat.group == self.pid
            or stat.session in self._sessions
            or self._seen.get(pid) == stat.started
            or self._entry in environment
        )

    def kill(self, roots: Iterable[int]) -> None:
        """SIGKILL to the group (at once, so that nobody in it can fork his way out) and to `roots` with their own."""
        family = families(roots)
        self.remember(family)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        for pid, stat in family.items():
            if pid != self.pid and stat.state != b"Z":
                self.killed.add((pid, stat.started))
                signal_exactly(pid, stat.started, signal.SIGKILL)


class Hiding:
    """The orphans whose environment cannot be read: any may be in the middle of an exec, and say whose it is soon."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], float] = {}

    def see(self, orphans: Iterable[Orphan], now: float) -> None:
        """Take note of all orphans there are now."""
        hiding = [(orphan.pid, orphan.stat.started) for orphan in orphans if not orphan.environment]
        self._since = {key: self._since.get(key, now) for key in hiding}

    def is_settled(self, now: float) -> bool:
        return all(now - since >= HIDING_LIMIT for since in self._since.values())


class Guardian:
    """One thread, one poll loop. Nothing in it blocks but a send, until the launcher reads or dies."""

    def __init__(self, channel: socket.socket, launcher: int, token: str, estate: Estate) -> None:
        self._channel = channel
        self._launcher = launcher
        self._token = token
        self._estate = estate
        self._subreaper = prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._pid = os.getpid()
        self._trees: dict[int, Tree] = {}
        self._starting: dict[int, Starting] = {}
        self._launcher_gone = False
        self._orphans_settled = True
        self._hiding = Hiding()
        self._wakeup = wake_on_sigchld()
        self._poll = select.poll()
        for fd in (channel.fileno(), launcher, self._wakeup):
            self._poll.register(fd, select.POLLIN)
        self._answers = {
            "spawn": self._spawn,
            "adopt": self._adopt,
            "remember": self._remember,
            "signal": self._signal,
            "sweep": self._sweep,
            "clear": self._clear,
        }

    def run(self) -> None:
        while not self._launcher_gone:
            for fd, _ in self._poll.poll(self._patience()):
                self._handle(fd)
            self._continue_sweeps()
        self._wind_up()

    def _patience(self) -> float | None:
        sweeping = any(tree.sweep_until is not None for tree in self._trees.values())
        return ROUND * 1000 if sweeping else None

    def _handle(self, fd: int) -> None:
        if fd == self._channel.fileno():
            self._answer()
        elif fd == self._launcher:
            self._launcher_gone = True
        elif fd == self._wakeup:
            drain(fd)
            self._collect()
        else:
            self._finish_start(fd)

    def _answer(self) -> None:
        try:
            received = receive(self._channel)
        except BlockingIOError:
            return
        try:
            if received.message is None:
                self._launcher_gone = True
            elif not received.complete:
                self._fail(received.message.get("ref"), "descriptors", errno.EMFILE)
            else:
                self._answers[received.message["kind"]](received.message, received.fds)
        finally:
            for fd in received.fds:
                close(fd)

    def _send(self, message: Message, *fds: int) -> None:
        try:
            packet = pack(message, fds)
            if fds:
                send(self._channel, packet)
            else:
                self._insist(packet)
        except (BrokenPipeError, ConnectionResetError):
            self._launcher_gone = True

    def _insist(self, packet: Packet) -> None:
        """Send what has to arrive, and what nobody is there to be told of: every child would die with us."""
        for _ in rounds(SHORT_OF_MEMORY):
            try:
                send(self._channel, packet)
            except OSError as error:
                if error.errno not in (errno.ENOBUFS, errno.ENOMEM):
                    raise
            else:
                return
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    def _fail(self, ref: int | None, stage: str, number: int) -> None:
        self._send({"kind": "failed", "ref": ref, "stage": stage, "errno": number})

    # spawning

    def _spawn(self, order: Message, fds: Sequence[int]) -> None:
        if len(fds) < STREAMS:
            self._fail(order["ref"], "descriptors", errno.EBADF)
            return
        try:
            pid, report = fork(order, fds)
        except OSError as error:
            self._fail(order["ref"], "fork", error.errno or errno.EAGAIN)
            return
        self._starting[report] = Starting(order["ref"], pid, order["env"][MARK])
        self._poll.register(report, select.POLLIN)

    def _finish_start(self, report: int) -> None:
        start = self._starting.pop(report)
        self._poll.unregister(report)
        failure = os.read(report, PACKET_LIMIT)
        close(report)
        if failure:
            os.waitpid(start.pid, 0)
            self._fail(start.ref, *json.loads(failure))
            return
        self._take_in(start)

    def _adopt(self, order: Message, _fds: Sequence[int]) -> None:
        """Take in an orphan that one of our children has forked as a backend (inside/zygote.py)."""
        pid, mark = order["pid"], order["mark"]
        stat = read_stat(pid)
        known = pid in self._trees or any(start.pid == pid for start in self._starting.values())
        if known or stat is None or stat.parent != self._pid or f"\0{MARK}={mark}\0".encode() not in environment(pid):
            self._fail(order["ref"], "adopt", errno.ESRCH)
            return
        for tree in self._trees.values():
            tree.disown(pid)
        self._take_in(Starting(order["ref"], pid, mark))

    def _take_in(self, start: Starting) -> None:
        self._trees[start.pid] = tree = Tree(start.pid, start.mark)
        try:
            self._announce(start)
        except OSError as error:  # no descriptor left, or too many on their way
            self._begin_sweep(tree)
            self._fail(start.ref, "descriptors", error.errno or errno.EMFILE)
        self._see_exit(tree)

    def _announce(self, start: Starting) -> None:
        pidfd = os.pidfd_open(start.pid)
        try:
            self._send({"kind": "spawned", "ref": start.ref, "pid": start.pid}, pidfd)
        finally:
            close(pidfd)

    # exits

    def _collect(self) -> None:
        for tree in list(self._trees.values()):
            if tree.status is None:
                self._see_exit(tree)
        orphans = self._orphans()
        if not self._trees and not self._starting:
            # Nobody is left whom they could belong to. Each that dies brings another SIGCHLD, and so another look.
            self._signal_all(families(orphans), signal.SIGKILL)

    def _see_exit(self, tree: Tree) -> None:
        tree.status = exit_status(tree.pid, keep=not tree.given_up)
        if tree.status is None:
            return
        self._send({"kind": "exited", "pid": tree.pid, "status": tree.status})
        if tree.given_up:
            del self._trees[tree.pid]

    def _orphans(self) -> dict[int, Stat]:
        """What has lost its parent and come to us; reaps those that have ended.

        When a child has ended and this, if settled, names nothing of its tree, then nothing of it is left: whatever
        it started is below it, or has become our child.
        """
        if not self._subreaper:
            return {pid: stat for pid, stat in marked(self._token).items() if pid not in self._trees}
        known = {start.pid for start in self._starting.values()} | self._trees.keys()
        strangers = [pid for pid in children_of(self._pid) if pid not in known]
        alive = [pid for pid in strangers if exit_status(pid, keep=False) is None]
        # One that has ended since it was listed may have left us children that are not on the list.
        self._orphans_settled = len(alive) == len(strangers)
        return {pid: stat for pid in alive if (stat := read_stat(pid))}

    # ending

    def _remember(self, message: Message, _fds: Sequence[int]) -> None:
        pid = message["pid"]
        if tree := self._trees.get(pid):
            tree.remember(families([pid]))
        self._send({"kind": "remembered", "pid": pid})

    def _signal(self, message: Message, _fds: Sequence[int]) -> None:
        if message["pid"] in self._trees:
            for number in message["signals"]:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(message["pid"], number)

    def _sweep(self, message: Message, _fds: Sequence[int]) -> None:
        if tree := self._trees.get(message["pid"]):
            self._begin_sweep(tree)

    def _begin_sweep(self, tree: Tree) -> None:
        now = time.monotonic()
        tree.sweep_until, tree.next_round = now + UNKILLABLE, now + ROUND
        if tree.status is None:
            tree.kill([tree.pid])
        elif not self._subreaper:
            tree.kill([])  # what else is in its group would not come to us to be found

    def _continue_sweeps(self) -> None:
        sweeping = [tree for tree in self._trees.values() if tree.sweep_until is not None]
        if not sweeping:
            return
        orphans = [Orphan(pid, stat, environment(pid)) for pid, stat in self._orphans().items()]
        now = time.monotonic()
        self._hiding.see(orphans, now)
        for tree in sweeping:
            self._sweep_once(tree, orphans, now)
        if not self._trees:
            self._collect()

    def _sweep_once(self, tree: Tree, orphans: Sequence[Orphan], now: float) -> None:
        roots = [orphan.pid for orphan in orphans if tree.owns(orphan)]
        if tree.status is None:
            roots.append(tree.pid)
        if not roots:
            if self._orphans_settled and self._hiding.is_settled(now):
                exit_status(tree.pid, keep=False)
                del self._trees[tree.pid]
                self._send_swept(tree, left=0)
        elif tree.sweep_until is not None and now >= tree.sweep_until:
            self._give_up(tree)
            self._send_swept(tree, left=len(roots))
        elif tree.status is not None or now >= tree.next_round:
            tree.kill(roots)
            tree.next_round = now + ROUND

    def _send_swept(self, tree: Tree, left: int) -> None:
        self._send({"kind": "swept", "pid": tree.pid, "killed": len(tree.killed), "left": left})

    def _give_up(self, tree: Tree) -> None:
        """Nobody asks for this child any more: reap it when it ends."""
        tree.given_up = True
        tree.sweep_until = None
        self._see_exit(tree)

    def _clear(self, _message: Message, _fds: Sequence[int]) -> None:
        """End what another guardian of the same launcher left behind. Nothing of our own has the token yet."""
        killed: set[tuple[int, int]] = set()
        quiet = 0
        for _ in rounds(UNKILLABLE):
            left = families(marked(self._token))
            killed |= self._signal_all(left, signal.SIGKILL)
            quiet = 0 if left else quiet + 1
            if quiet == 2:  # once more, for whoever was in the middle of an exec
                break
        self._send({"kind": "cleared", "killed": len(killed)})

    def _signal_all(self, processes: Mapping[int, Stat], number: int) -> set[tuple[int, int]]:
        found = {(pid, stat.started) for pid, stat in processes.items() if pid != self._pid}
        for pid, started in found:
            signal_exactly(pid, started, number)
        return found

    def _wind_up(self) -> None:
        """The launcher is gone: end everything below us, then remove what it cannot remove any more."""
        self._channel.close()
        self._end_everything()
        self._estate.clear()

    def _end_everything(self) -> None:
        """Politely for as long as we may."""
        if self._all_gone_within(LAUNCHER_GONE_GRACE):
            return
        for number in (signal.SIGTERM, signal.SIGCONT):
            self._signal_all(self._everything(), number)
        if self._all_gone_within(LAUNCHER_GONE_TERM):
            return
        for _ in rounds(UNKILLABLE):
            if self._reap_all():
                return
            self._signal_all(self._everything(), signal.SIGKILL)

    def _everything(self) -> dict[int, Stat]:
        ours = families(children_of(self._pid))
        return ours if self._subreaper else ours | families(marked(self._token))

    def _all_gone_within(self, seconds: float) -> bool:
        return any(self._reap_all() for _ in rounds(seconds))

    def _reap_all(self) -> bool:
        """Reap whoever has ended; True if nobody is left. No pid is used after this without its start time."""
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return self._subreaper or not marked(self._token)
        return False


def rounds(seconds: float) -> Iterator[None]:
    """One turn at once, then one every `ROUND` until the time is over."""
    until = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() >= until:
            return
        time.sleep(ROUND)


def wake_on_sigchld() -> int:
    """A descriptor that becomes readable with every SIGCHLD."""
    wakeup, wakeup_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wakeup


def drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(fd, PACKET_LIMIT):
            pass


class Estate(NamedTuple):
    """What the launcher leaves if it is killed: its sessions' folder and cgroup, or "" where it has none."""

    folder: str = ""
    cgroup: str = ""

    def clear(self) -> None:
        """Remove them, when nothing runs there any more. A launcher that lives does that itself, and may do it too."""
        if self.cgroup:
            clear_cgroup(self.cgroup)
        if self.folder:
            import shutil  # noqa: PLC0415 - only at the end: it would be in every fork's memory

            shutil.rmtree(self.folder, ignore_errors=True)


def clear_cgroup(folder: str) -> None:
    """Remove a pool's group as cgroups.py lays it out, whose last process we may be ourselves."""
    try:
        groups = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:  # it has been removed
        return
    if os.path.join(folder, ITSELF) in groups:
        # It was made to hand out controllers above, and nobody can go back there as long as they are.
        above = os.path.dirname(folder)
        stop_handing_out(folder)
        stop_handing_out(above)
        with contextlib.suppress(OSError):
            enter_cgroup(above)
    for group in (*groups, folder):
        with contextlib.suppress(OSError):  # somebody is in it still: the next muxsim finds it
            os.rmdir(group)


def stop_handing_out(folder: str) -> None:
    path = os.path.join(folder, "cgroup.subtree_control")
    with contextlib.suppress(OSError):
        with open(path, "rb") as file:
            handed_out = file.read().split()
        with open(path, "wb", buffering=0) as file:
            file.write(b" ".join(b"-" + name for name in handed_out))


def settle_signals() -> None:
    """Outlive what a terminal or a service manager sends, and let children start with every signal at its default.

    An exec undoes handlers but keeps what is ignored or blocked, and we may have been started with either.
    """
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def main() -> None:
    settle_signals()
    launcher, token, estate = int(sys.argv[1]), sys.argv[2], Estate(*sys.argv[3:])
    try:
        # Its end of the channel may live on in a fork of it; this tells of the launcher's own death.
        pidfd = os.pidfd_open(launcher)
    except ProcessLookupError:
        estate.clear()
        return
    guardian = Guardian(socket.socket(fileno=0), pidfd, token, estate)
    gc.freeze()  # what is here now is shared with every fork
    guardian.run()


if __name__ == "__main__":
    main()
