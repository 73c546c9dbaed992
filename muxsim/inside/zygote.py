"""The zygote: imports what an environment imports, once, and forks a backend for each session.

    python [options] begin.py zygote

with the environment's own interpreter and its options; standard library only. `muxsim.start.fork.keeper` starts it. Its
descriptor `descriptors.CHANNEL` is a SOCK_SEQPACKET socket, with the packets of wire.py. The first that comes is its
recipe, see `importing.Recipe`. All that it says carries the tag of that, which nothing that it imports can guess:

    from the zygote                          to it, and its answer
    importing {module}                       fork {ref, mark, confinement, early} + 3 fds
    culprit {module, why}, and it exits          forked {ref, pid}, from the fork itself
    refused {why}, and it exits                  failed {ref, stage, errno}
    ready {modules}                              stale {ref, why}, and it exits
                                             study {pid}, a fork that has played a little; no answer

A fork is orphaned at once, so that the guardian, the nearest subreaper, becomes its parent. It then waits on its stdin
for its order (start/prepared.py), and runs the script as `__main__`. One that is `early`, before there is a
session, has time to fetch the pages that it will use (pages.py).
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import types
from typing import Any

from muxsim.inside import as_main, confine, descriptors, held, libc, proc, wire
from muxsim.inside.fork import Fork
from muxsim.inside.freshness import Freshness
from muxsim.inside.importing import Culprit, Importer, Recipe
from muxsim.inside.randomness import Randomness

ADOPTION_LOOK = 0.0002
"""Seconds between two looks at whether the process between has gone, which takes about as long."""

BEGUN = 8
"""The status of a fork made on trial that has got as far as its script; none that has met its end on the way."""


class Zygote:
    """One thread, blocked in poll but while it forks."""

    def __init__(self, recipe: Recipe, channel: socket.socket, names: list[str], startup: frozenset[str]) -> None:
        self._recipe = recipe
        self._names = names
        self._startup = startup
        self._guardian_pid = os.getppid()
        self._mark_address = self._find_mark()
        self._channel = channel
        self._randomness = Randomness()
        self._script = None if as_main.is_module(recipe.words) else recipe.words[0]
        self._is_container = self._script is not None and as_main.is_container(self._script)
        self._code: types.CodeType | None = None
        self._compiled: object = None
        self._held = held.Held()

    def run(self) -> as_main.Program:
        """Serve until the launcher goes; returns in each fork, with what it is to run."""
        folder = self._prepare_path()
        self._randomness.watch()
        try:
            Importer(self._recipe, folder, self._tell).run()
        except Culprit as culprit:
            self._tell({"kind": "culprit", "module": culprit.module, "why": culprit.why})
            os._exit(0)
        finally:
            self._randomness.unwatch()
        if folder is not None:
            sys.path.remove(folder)
        self._fork = Fork(self._recipe.options, self._names, self._randomness)
        self._freshness = Freshness(folder, self._startup)
        if fault := self._freshness.fault():
            self._tell({"kind": "refused", "why": fault})
            os._exit(0)
        self._compile()
        self._settle()
        self._try()
        self._tell({"kind": "ready", "modules": len(sys.modules)})
        return self._serve()

    def _prepare_path(self) -> str | None:
        """Import from where the script will; returns the folder that the path begins with for it, if one does."""
        sys.argv[:] = self._recipe.words[:1]
        if self._is_container:
            sys.path.insert(0, self._recipe.words[0])
        elif as_main.safe_path():
            return None
        else:
            sys.path.insert(0, as_main.script_folder(self._script) if self._script else os.getcwd())
        return sys.path[0]

    def _settle(self) -> None:
        sys.stdout.flush()  # what imports have printed is not for every fork to say again
        sys.stderr.flush()
        self._held.hold({*self._startup, "__main__"})
        gc.collect()
        gc.disable()
        gc.freeze()
        if trim := getattr(libc.LIBC, "malloc_trim", None):
            trim(0)

    def _try(self) -> None:
        """Have one fork begin, and exit with it if it cannot: imports may have broken what every fork needs."""
        argv = [sys.executable, *[""] * self._recipe.options, *self._recipe.words]
        text = json.dumps({"argv": argv, "env": {}, "cwd": "/", "umask": None}).encode()
        reading, writing = os.pipe()
        os.write(writing, len(text).to_bytes(4, "big") + text)
        os.close(writing)
        fds = [reading, os.dup(1), os.dup(2)]
        if (pid := os.fork()) == 0:
            try:
                self._become(fds, early=False)
                os._exit(BEGUN)
            except BaseException as error:  # as in `Importer._import`
                os.write(2, f"a fork of it cannot begin: {type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(1)
        for fd in fds:
            os.close(fd)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != BEGUN:
            os._exit(1)

    def _serve(self) -> as_main.Program:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while True:
            poll.poll()
            try:
                received = wire.receive(self._channel)
            except BlockingIOError:
                continue
            if received.message is None:
                os._exit(0)
            if received.message["kind"] == "study":
                self._fork.pages.study(received.message["pid"])
                continue
            program = self._answer(received.message, received.fds, received.complete)
            if program is not None:
                return program
            for fd in received.fds:
                os.close(fd)

    def _answer(self, order: Any, fds: list[int], complete: bool) -> as_main.Program | None:
        if fault := self._freshness.fault():
            self._tell({"kind": "stale", "ref": order["ref"], "why": fault})
            os._exit(0)
        if not complete or len(fds) < descriptors.STREAMS:
            self._fail(order, "descriptors", errno.EMFILE)
            return None
        self._compile()
        try:
            middle = os.fork()
        except OSError as error:
            self._fail(order, "fork", error.errno)
            return None
        if middle == 0:
            return self._orphan(order, fds)
        if os.waitpid(middle, 0)[1] != 0:
            self._fail(order, "fork", errno.ECHILD)
        return None

    def _orphan(self, order: Any, fds: list[int]) -> as_main.Program:
        """In the process between: fork the backend, and exit, so that the guardian becomes its parent."""
        middle = os.getpid()
        try:
            self._write_mark(order["mark"])
            pid = os.fork()
        except OSError as error:
            self._fail(order, "fork", error.errno)
            os._exit(0)
        if pid:
            os._exit(0)
        try:
            os.setsid()
            confine.confine(order["confinement"])
            self._wait_adoption(middle)
            self._tell({"kind": "forked", "ref": order["ref"], "pid": os.getpid()})
        except confine.Unconfined as error:
            self._fail(order, error.key, error.number)
            os._exit(1)
        except OSError as error:
            self._fail(order, "prepare", error.errno)
            os._exit(1)
        return self._become(fds, early=order["early"])

    def _wait_adoption(self, middle: int) -> None:
        """Be tied to the guardian: whatever becomes of it becomes of us."""
        while os.getppid() == middle:
            if not hasattr(os, "pidfd_open"):  # an interpreter that was built for older kernels
                time.sleep(ADOPTION_LOOK)
                continue
            try:
                pidfd = os.pidfd_open(middle)
            except ProcessLookupError:
                break
            select.select([pidfd], [], [])
            os.close(pidfd)
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._guardian_pid:
            os._exit(1)

    def _become(self, fds: list[int], *, early: bool) -> as_main.Program:
        self._channel.close()
        return self._fork.become(fds, self._code, early=early)

    def _compile(self) -> None:
        """Have the script's code ready, as it stands in the file now."""
        if self._script is None or self._is_container:
            return
        try:
            found = os.stat(self._script)
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp != self._compiled:
                self._code, self._compiled = as_main.compile_script(self._script), stamp
        except (OSError, SyntaxError, ValueError):
            self._code = self._compiled = None  # the backend will say it

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            wire.send(self._channel, wire.pack({**message, "tag": self._recipe.tag}))
        except OSError:
            os._exit(0)  # the launcher is gone

    def _fail(self, order: Any, stage: str, number: int | None) -> None:
        self._tell({"kind": "failed", "ref": order["ref"], "stage": stage, "errno": number})

    # the mark by which the guardian tells whose a process is

    def _find_mark(self) -> int:
        """Where in our memory the kernel, and so /proc/<pid>/environ, has the value of the mark."""
        entry = f"{proc.MARK}=".encode()
        assert libc.LIBC is not None
        environ = ctypes.POINTER(ctypes.c_void_p).in_dll(libc.LIBC, "environ")
        at = 0
        while environ[at] is not None:
            if ctypes.string_at(environ[at], len(entry)) == entry:
                return int(environ[at]) + len(entry)
            at += 1
        raise LookupError(f"{proc.MARK} is not in the environment")

    def _write_mark(self, mark: str) -> None:
        value = mark.encode()
        if len(value) != len(ctypes.string_at(self._mark_address)):
            raise OSError(errno.EINVAL, "marks are of one length")
        ctypes.memmove(self._mark_address, value, len(value))


def main(words: list[str], names: list[str], startup: frozenset[str]) -> as_main.Program:
    channel = socket.socket(fileno=descriptors.CHANNEL)
    channel.set_inheritable(False)
    select.select([channel], [], [])
    recipe = wire.receive(channel).message
    if recipe is None:
        os._exit(0)
    return Zygote(Recipe(**{name: recipe[name] for name in Recipe._fields}), channel, names, startup).run()
