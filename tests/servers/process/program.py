"""A small program that embeds a Launcher, to be killed, starved or hosted. Prints one line of JSON when it is set up.

python program.py family      stubborn children with every kind of grandchild, then waits for ever
python program.py forked      one stubborn child, and a plain fork of the program that outlives it
python program.py terminal    a child that echoes; says how it fared once SIGINT has come
python program.py starved     spawns until no descriptor is left, frees some, and spawns again
python program.py crowded     as an ordinary user, spawns where no more processes are allowed
python program.py describe    what a child was given
python program.py recycled    in a pid namespace, lets the few pids there come round
python program.py guest       plain spawn and end with trio as asyncio's guest
"""

import asyncio
import fcntl
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import termios

import trio

from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import AT_ONCE, EndTimes

CHILD = (sys.executable, "-I", "-S", str(pathlib.Path(__file__).with_name("child.py")))
PATIENT = EndTimes(stdin_close=60, term=60)
CAT = Command(("cat",), {"PATH": os.defpath}, "/")
TRUE = Command(("true",), {"PATH": os.defpath}, "/")
NOBODY = 65534
PIDS = 400
RESERVED_PIDS = 300  # the kernel gives these once only


def say(**fields):
    print(json.dumps(fields), flush=True)


async def read_line(process):
    data = b""
    while not data.endswith(b"\n"):
        await trio.lowlevel.wait_readable(process.stdout)
        more = os.read(process.stdout, 1024)
        assert more, f"end of output after {data!r}"
        data += more
    return data.decode().strip()


async def family():
    async with Launcher.open() as launcher:
        pids = []
        for kind in ("group", "setsid", "double", "bare", "bare-double"):
            command = Command((*CHILD, "stubborn", "start", kind, "forever"), {}, "/")
            process = await launcher.spawn(command, session=kind)
            pids += [process.pid, int(await read_line(process))]
        say(pids=[launcher.statistics().guardian_pid, *pids])
        await trio.sleep_forever()


async def forked():
    async with Launcher.open() as launcher:
        process = await launcher.spawn(Command((*CHILD, "stubborn", "ready", "forever"), {}, "/"), session="a")
        await read_line(process)
        fork = os.fork()
        if fork == 0:
            signal.pause()
        say(pids=[launcher.statistics().guardian_pid, process.pid], fork=fork)
        await trio.sleep_forever()


async def terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    async with Launcher.open() as launcher:
        process = await launcher.spawn(CAT, session="a")
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            say(ready=True)
            async for _ in signals:
                break
        os.write(process.stdin, b"still here\n")
        say(echo=await read_line(process), returncode=await process.end(PATIENT))


async def starved():
    soft = len(os.listdir("/proc/self/fd")) + 40
    async with Launcher.open() as launcher:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
        processes, error = [], None
        while error is None:
            try:
                processes.append(await launcher.spawn(CAT, session="a"))
            except ProcessStartError as caught:
                error = caught
        before = launcher.statistics()
        await processes.pop().end()
        await processes.pop().end()
        again = await launcher.spawn(CAT, session="b")
        say(
            errno=error.errno,
            message=str(error),
            held=len(processes),
            alive_before=before.alive,
            recovered=again.returncode is None,
        )


async def crowded():
    python = sys.executable
    if os.getuid() == 0:  # root may always have one more
        python = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    async with Launcher.open(python=python) as launcher:
        await (await launcher.spawn(CAT, session="a")).end()
        guardian = launcher.statistics().guardian_pid
        _, hard = resource.prlimit(guardian, resource.RLIMIT_NPROC)
        resource.prlimit(guardian, resource.RLIMIT_NPROC, (0, hard))
        try:
            await launcher.spawn(CAT, session="b")
        except ProcessStartError as error:
            refused = error
        alive = launcher.statistics().alive
        resource.prlimit(guardian, resource.RLIMIT_NPROC, (hard, hard))
        returncode = await (await launcher.spawn(CAT, session="c")).end()
        say(errno=refused.errno, stage=refused.stage, message=str(refused), alive=alive, returncode=returncode)


def allow_few_pids():
    pathlib.Path("/proc/sys/kernel/pid_max").write_text(str(PIDS))


def strangers(count):
    """One process after another that has nothing to do with us; each ends when the next is asked for."""
    for _ in range(count):
        with subprocess.Popen(["sleep", "1000"]) as stranger:
            try:
                yield stranger
            finally:
                stranger.kill()


async def recycled():
    allow_few_pids()
    async with Launcher.open() as launcher:
        assert all(other.returncode is None for other in strangers(RESERVED_PIDS))
        held = await launcher.spawn(TRUE, session="a")
        await held.wait()
        assert held.pid > RESERVED_PIDS
        kept = all(other.pid != held.pid for other in strangers(2 * PIDS))
        await held.end()
        others = strangers(2 * PIDS)
        stranger = next(other for other in others if other.pid == held.pid)
        held.send_signal(signal.SIGKILL)
        await held.end()
        say(kept=kept, spared=stranger.poll() is None)
        others.close()


async def describe():
    async with Launcher.open() as launcher:
        process = await launcher.spawn(Command((*CHILD, "describe"), {}, "/"), session="a")
        say(child=json.loads(await read_line(process)))


async def plain():
    async with Launcher.open() as launcher:
        process = await launcher.spawn(CAT, session="a")
        os.write(process.stdin, b"hello\n")
        line = await read_line(process)
        polite = await process.end(PATIENT)
        killed = await launcher.spawn(CAT, session="b")
        return line, polite, await killed.end(AT_ONCE)


def guest():
    async def host():
        loop, finished = asyncio.get_running_loop(), asyncio.Event()
        outcomes = []
        trio.lowlevel.start_guest_run(
            plain,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=lambda outcome: (outcomes.append(outcome), finished.set()),
            host_uses_signal_set_wakeup_fd=True,
        )
        await finished.wait()
        return outcomes[0].unwrap()

    line, polite, killed = asyncio.run(host())
    say(line=line, polite=polite, killed=killed)


if sys.argv[1] == "guest":
    guest()
else:
    trio.run({f.__name__: f for f in (family, forked, terminal, starved, crowded, recycled, describe)}[sys.argv[1]])
