"""The guardian: a small process that forks every child and sees to it that nothing outlives its use.

`muxsim.processes.client` starts it as `python -I -S guardian.py LAUNCHER_PID TOKEN FOLDER CGROUP`, with its end of a
SOCK_SEQPACKET socket as standard input. It removes FOLDER and CGROUP, where they are not empty words, when the launcher
has gone. It stands apart so that it can be a child subreaper (orphans of any depth come back to it, and to no one else)
without changing the program that embeds muxsim, and so that it is still there when that program is killed. It has one
thread and imports only the standard library.

Each packet is one JSON object whose `"kind"` names it:

    to the guardian                                          its answer
    spawn {ref, argv, env, cwd, umask, confinement} + fds    spawned {ref, pid} + pidfd, or failed {ref, stage, errno}
    adopt {ref, pid, mark}                                   spawned {ref, pid} + pidfd, or failed {ref, stage, errno}
    remember {pid}                                           remembered {pid}
    signal {pid, signals}                                    none; goes to the child's process group
    sweep {pid}                                              swept {pid, killed, left}
    clear {}                                                 cleared {killed}
    (nothing)                                                exited {pid, status}, when a child has ended

`confinement` is what is to bound the child (confine.py), `status` what subprocess calls a returncode. The three
descriptors become the child's 0, 1 and 2, and a fourth its `CHANNEL`. A child that has ended stays a zombie until
`sweep`: its pid, which is its group's and its session's number too, belongs to nobody else for as long as anyone may
still signal it.

It is run by its path, without muxsim: it and what it imports of this folder need the standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

if __name__ == "__main__":  # by its path, in an interpreter that need not have muxsim: there is this folder of it alone
    for name, folder in (("muxsim", []), ("muxsim.inside", [os.path.dirname(os.path.abspath(__file__))])):
        sys.modules[name] = type(sys)(name)
        sys.modules[name].__path__ = folder

from muxsim.inside import wire
from muxsim.inside.descriptors import STREAMS, close
from muxsim.inside.estate import Estate
from muxsim.inside.libc import PR_SET_CHILD_SUBREAPER, prctl
from muxsim.inside.proc import (
    MARK,
    ROUND,
    UNKILLABLE,
    Stat,
    children_of,
    environment,
    exit_status,
    families,
    marked,
    read_stat,
    rounds,
    signal_exactly,
)
from muxsim.inside.spawn import fork
from muxsim.inside.tree import Hiding, Orphan, Tree

LAUNCHER_GONE_GRACE = 0.5
"""Seconds for children to end by themselves once their launcher has died and their stdin is at its end."""

LAUNCHER_GONE_TERM = 0.4
"""Seconds after SIGTERM, in the same case. With the grace before, it leaves one of the promised two seconds spare."""

SHORT_OF_MEMORY = 5.0
"""Seconds for the kernel to have memory for a message again."""


class Starting(NamedTuple):
    """A child between fork and exec."""

    ref: int
    pid: int
    mark: str


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
            received = wire.receive(self._channel)
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

    def _send(self, message: wire.Message, *fds: int) -> None:
        try:
            packet = wire.pack(message, fds)
            if fds:
                wire.send(self._channel, packet)
            else:
                self._insist(packet)
        except (BrokenPipeError, ConnectionResetError):
            self._launcher_gone = True

    def _insist(self, packet: wire.Packet) -> None:
        """Send what has to arrive, and what nobody is there to be told of: every child would die with us."""
        for _ in rounds(SHORT_OF_MEMORY):
            try:
                wire.send(self._channel, packet)
            except OSError as error:
                if error.errno not in (errno.ENOBUFS, errno.ENOMEM):
                    raise
            else:
                return
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    def _fail(self, ref: int | None, stage: str, number: int) -> None:
        self._send({"kind": "failed", "ref": ref, "stage": stage, "errno": number})

    # spawning

    def _spawn(self, order: wire.Message, fds: Sequence[int]) -> None:
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
        failure = os.read(report, wire.PACKET_LIMIT)
        close(report)
        if failure:
            os.waitpid(start.pid, 0)
            self._fail(start.ref, *json.loads(failure))
            return
        self._take_in(start)

    def _adopt(self, order: wire.Message, _fds: Sequence[int]) -> None:
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

    def _remember(self, message: wire.Message, _fds: Sequence[int]) -> None:
        pid = message["pid"]
        if tree := self._trees.get(pid):
            tree.remember(families([pid]))
        self._send({"kind": "remembered", "pid": pid})

    def _signal(self, message: wire.Message, _fds: Sequence[int]) -> None:
        if message["pid"] in self._trees:
            for number in message["signals"]:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(message["pid"], number)

    def _sweep(self, message: wire.Message, _fds: Sequence[int]) -> None:
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

    def _clear(self, _message: wire.Message, _fds: Sequence[int]) -> None:
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


def wake_on_sigchld() -> int:
    """A descriptor that becomes readable with every SIGCHLD."""
    wakeup, wakeup_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wakeup_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wakeup


def drain(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(fd, wire.PACKET_LIMIT):
            pass


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
