"""H14: the n-th system call of each kind fails, for n = 1 and so on until none is left to fail.

What is done each time: a session is opened, used and ended. It may fail, once; nothing of it may be left, and the next
one has to work.
"""

import contextlib
import errno
import os
import sys

import pytest
import trio
from harness import SERVERS
from serve.machine import eventually

from muxsim import inside
from muxsim.errors import Busy, StartError
from muxsim.inside import proc, wire
from muxsim.observe.counters import Counters
from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import EndTimes
from processes.enclosed import enclosed_sessions
from processes.launching import counted, unswept
from transports.messages import Kind

pytestmark = [pytest.mark.children]

ENOUGH = 200
CAT = Command(("cat",), {"PATH": os.defpath}, "/")
BIG = "x" * 2 * wire.PACKET_LIMIT


class FaultyOS:
    """The module `os`, in which the nth call of one function fails; before it does anything, or after."""

    def __init__(self, name, nth, number, *, after=False):
        self._name, self._nth, self._number, self._after = name, nth, number, after
        self.calls = 0

    def __getattr__(self, name):
        real = getattr(os, name)
        return (lambda *args, **kwargs: self._call(real, *args, **kwargs)) if name == self._name else real

    def _call(self, real, *args, **kwargs):
        self.calls += 1
        if self.calls != self._nth:
            return real(*args, **kwargs)
        if self._after:
            real(*args, **kwargs)
        raise OSError(self._number, os.strerror(self._number))


def fail_here(monkeypatch, faulty):
    """In whatever of ours is loaded."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("muxsim", "transports") and getattr(module, "os", None) is os:
            monkeypatch.setattr(module, "os", faulty)


async def one_session(here, **options):
    """How often it failed, seen from its client."""
    try:
        client = await here.open(env={"BIG": BIG}, **options)
    except (StartError, Busy):
        return 1
    answers = [] if client.greeting.kind is Kind.ERROR else [await client.call("say", text="hello")]
    failed = [answer for answer in (client.greeting, *answers) if answer.kind is Kind.ERROR]
    client.session.end("test", "enough")
    await client.session.wait_ended()
    return len(failed)


def left_over(here, before):
    """What is more than before: processes, descriptors, folders."""
    statistics = here.pool.statistics().placement.processes
    return {
        "alive": statistics.alive,
        "starting": statistics.starting,
        "marked": sorted(proc.marked(here.pool.placement.launcher._token)),
        "descriptors": sorted(open_descriptors().items() - before.items()),
        "folders": sorted(path.name for path in here.pool.placement.folders.root.iterdir()),
    }


NOTHING = {"alive": 0, "starting": 0, "marked": [], "descriptors": [], "folders": []}


def open_descriptors():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the one that lists them
            continue
    return found


async def settles(here, before):
    """A start that was given up is ended in the background."""
    with contextlib.suppress(trio.TooSlowError):
        await eventually(lambda: left_over(here, before) == NOTHING)
    assert left_over(here, before) == NOTHING


CALLS = [
    ("pipe2", errno.EMFILE, False),
    ("set_blocking", errno.EBADF, False),
    ("memfd_create", errno.ENOMEM, False),
    ("pidfd_open", errno.EMFILE, False),
    ("read", errno.EIO, False),
    ("write", errno.EIO, False),
    ("writev", errno.EIO, False),
    ("close", errno.EIO, True),  # Linux has closed it all the same
]


@pytest.mark.fault("H14")
@pytest.mark.parametrize(("call", "number", "after"), CALLS)
async def test_any_call_of_ours_may_fail(monkeypatch, call, number, after):
    async with enclosed_sessions() as here:
        assert await one_session(here) == 0
        before = open_descriptors()
        for nth in range(1, ENOUGH):
            faulty = FaultyOS(call, nth, number, after=after)
            with monkeypatch.context() as patch, trio.fail_after(60):
                fail_here(patch, faulty)
                failures = await one_session(here)
                await settles(here, before)
            assert failures <= 1
            assert await one_session(here) == 0
            if faulty.calls < nth:
                break
        assert faulty.calls < nth


@pytest.mark.fault("H14")
@pytest.mark.parametrize(("call", "number", "after"), CALLS)
async def test_any_call_of_ours_may_fail_where_backends_are_forked(monkeypatch, call, number, after):
    """A zygote stays from one session to the next, so what is left is looked at when the pool has closed."""
    async with enclosed_sessions() as here:
        forked = {"zygote": True, "name": "forked"}
        assert await one_session(here, **forked) == 0
        for nth in range(1, ENOUGH):
            faulty = FaultyOS(call, nth, number, after=after)
            with monkeypatch.context() as patch, trio.fail_after(60):
                fail_here(patch, faulty)
                assert await one_session(here, **forked) <= 1
            assert await one_session(here, **forked) == 0
            if faulty.calls < nth:
                break
        assert faulty.calls < nth


@pytest.mark.fault("H14")
async def test_any_message_to_the_guardian_may_fail_to_be_sent(monkeypatch):
    async with enclosed_sessions() as here:
        assert await one_session(here) == 0
        before = open_descriptors()
        for nth in range(1, ENOUGH):
            sender = FailingSend(nth)
            with monkeypatch.context() as patch, trio.fail_after(60):
                patch.setattr(wire, "send", sender)
                failures = await one_session(here)
                await settles(here, before)
            assert failures <= 1
            if sender.calls < nth:
                break
        assert sender.calls < nth


class FailingSend:
    """`wire.send`, for whose nth call the kernel has no memory."""

    def __init__(self, nth):
        self.calls, self._nth, self._real = 0, nth, wire.send

    def __call__(self, channel, packet):
        self.calls += 1
        if self.calls == self._nth:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
        self._real(channel, packet)


async def start(launcher):
    try:
        return await launcher.spawn(CAT, session="a")
    except ProcessStartError:
        return None


async def echoes(child):
    with contextlib.suppress(BrokenPipeError):
        os.write(child.stdin, b"hello\n")
    await trio.lowlevel.wait_readable(child.stdout)
    return os.read(child.stdout, 100) == b"hello\n"


async def failures_of_three(launcher):
    """One child that stays while another comes and goes, and a third: how many of them failed."""
    staying, leaving = await start(launcher), await start(launcher)
    outcomes = []
    if leaving is not None:
        outcomes.append(await echoes(leaving))
        await leaving.end(EndTimes(stdin_close=1, term=0.2))
    last = await start(launcher)
    for child in (last, staying):
        if child is not None:
            outcomes.append(await echoes(child))
            await child.end(EndTimes(stdin_close=1, term=0.2))
    return 3 - sum(outcomes)


@pytest.mark.fault("H14")
@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("pipe", "EMFILE"),
        ("fork", "EAGAIN"),
        ("setsid", "EPERM"),
        ("dup2", "EBADF"),
        ("chdir", "EIO"),
        ("pidfd_open", "EMFILE"),
        ("open", "EMFILE"),
        ("listdir", "EMFILE"),
        ("write", "EIO"),
        ("killpg", "EPERM"),
        ("close", "EIO"),
        ("send", "ENOBUFS"),
    ],
)
async def test_any_call_of_the_guardians_may_fail(monkeypatch, tmp_path, call, number):
    monkeypatch.setattr(inside, "GUARDIAN", str(SERVERS / "process" / "faulty_guardian.py"))
    for nth in range(1, ENOUGH):
        told = tmp_path / str(nth)
        monkeypatch.setenv("GUARDIAN_FAULT", f"{call} {number} {nth}")
        monkeypatch.setenv("GUARDIAN_FAULT_FILE", str(told))
        with trio.fail_after(60):
            async with Launcher.open(emit=Counters()) as launcher:
                failures = await failures_of_three(launcher)
                statistics = launcher.statistics()
        assert failures <= 1
        # One that cannot even begin is replaced; any other has children, who would die with it.
        assert counted(launcher, "guardians_started") == 1 + ((call, nth) == ("pidfd_open", 1))
        assert (statistics.alive, statistics.starting, unswept(launcher)) == (0, 0, 0)
        assert proc.marked(launcher._token) == {}
        if not told.exists():
            break
    assert not told.exists()
