"""Real children, started and ended by a Launcher, and what is to be seen of them."""

import contextlib
import json
import os
import pathlib
import select
import subprocess
import sys

import trio

from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.process import EndTimes

SERVERS = pathlib.Path(__file__).parents[1] / "servers" / "process"
ROOT = pathlib.Path(__file__).parents[2]
PATH = {"PATH": os.defpath}
CAT = Command(("cat",), PATH, "/")
TRUE = Command(("true",), PATH, "/")
BRISK = EndTimes(stdin_close=0.1, term=0.1)
PATIENT = EndTimes(stdin_close=600, term=600)
GRANDCHILDREN = ["group", "setsid", "double"]


def child(*words, env=None):
    argv = (sys.executable, "-I", "-S", str(SERVERS / "child.py"), *words)
    return Command(argv, {} if env is None else env, "/")


def shell(script):
    return Command(("sh", "-c", script), PATH, "/")


def open_descriptors():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found


async def read_line(process):
    data = b""
    with trio.fail_after(60):
        while not data.endswith(b"\n"):
            await trio.lowlevel.wait_readable(process.stdout)
            more = os.read(process.stdout, 65536)
            assert more, f"end of output after {data!r}"
            data += more
    return data.decode().rstrip("\n")


class Watched:
    """Some process on this machine, which need not be ours; its end can be waited for."""

    def __init__(self, pid):
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._pidfd)

    @property
    def alive(self):
        return not select.select([self._pidfd], [], [], 0)[0]

    async def gone(self):
        with trio.fail_after(60):
            await trio.lowlevel.wait_readable(self._pidfd)


async def start_family(launcher, kind, *then, session="a"):
    process = await launcher.spawn(child("start", kind, *then), session=session)
    return process, Watched(int(await read_line(process)))


async def outcome(launcher, command):
    try:
        process = await launcher.spawn(command, session="a")
    except ProcessStartError as error:
        return error
    await process.end()
    return None


def run_program(mode, *wrapper):
    done = subprocess.run(
        [*wrapper, sys.executable, str(SERVERS / "program.py"), mode],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
        check=True,
    )
    return json.loads(done.stdout)


@contextlib.contextmanager
def running_program(mode, **options):
    program = subprocess.Popen(
        [sys.executable, str(SERVERS / "program.py"), mode],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )
    try:
        yield program, json.loads(program.stdout.readline())
    finally:
        program.kill()
        program.wait()
        program.stdout.close()


@contextlib.contextmanager
def stranger(program="cat", **options):
    """A process that is no guardian's; it runs, and its environment can be read, when this begins."""
    process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, **options)
    with process:
        try:
            process.stdin.write(b"\n")
            process.stdout.read(1)
            yield process
        finally:
            process.kill()


def counted(launcher, counter):
    """What the listener has counted of a launcher that was opened with `Counters` for one."""
    return launcher._emit.total(counter)


def unswept(launcher):
    """How many ends had to give up on something that survives SIGKILL."""
    return counted(launcher, "processes_ended") - counted(launcher, "processes_swept")
