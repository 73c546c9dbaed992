"""H14: the n-th system call of each kind fails, for n = 1 and so on until none is left to fail.

What is done each time: a session is opened, used and ended. It may fail, once; nothing of it may be left, and the next
one has to work.
"""

import errno
import os

import pytest
import trio
from enclosed import enclosed_sessions

from muxsim.errors import Busy, StartError
from muxsim.supervise import backend, cgroups, enclosure, pool, process
from muxsim.supervise import guardian as wire
from transports import pipe
from transports.messages import Kind

pytestmark = [pytest.mark.children]

ENOUGH = 200
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
    for module in (backend, cgroups, enclosure, pipe, pool, process, wire):
        if hasattr(module, "os"):
            monkeypatch.setattr(module, "os", faulty)


async def one_session(here):
    """How often it failed, seen from its client."""
    try:
        client = await here.open(env={"BIG": BIG})
    except (StartError, Busy):
        return 1
    answers = [] if client.greeting.kind is Kind.ERROR else [await client.call("say", text="hello")]
    failed = [answer for answer in (client.greeting, *answers) if answer.kind is Kind.ERROR]
    client.session.end("test", "enough")
    await client.session.wait_ended()
    return len(failed)


def left_over(here, before):
    """What is more than before: processes, descriptors, folders."""
    statistics = here.pool.statistics().processes
    return {
        "alive": statistics.alive,
        "starting": statistics.starting,
        "marked": sorted(wire.marked(here.pool._launcher._token)),
        "descriptors": sorted(open_descriptors().items() - before.items()),
        "folders": sorted(path.name for path in here.pool._root.iterdir()),
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
    with trio.move_on_after(3):
        while left_over(here, before) != NOTHING:  # noqa: ASYNC110 - nothing tells when
            await trio.sleep(0.01)
    assert left_over(here, before) == NOTHING


@pytest.mark.fault("H14")
@pytest.mark.parametrize(
    ("call", "number", "after"),
    [
        ("pipe2", errno.EMFILE, False),
        ("set_blocking", errno.EBADF, False),
        ("memfd_create", errno.ENOMEM, False),
        ("pidfd_open", errno.EMFILE, False),
        ("read", errno.EIO, False),
        ("write", errno.EIO, False),
        ("writev", errno.EIO, False),
        ("close", errno.EIO, True),  # Linux has closed it all the same
    ],
)
async def test_any_call_of_ours_may_fail(monkeypatch, call, number, after):
    async with enclosed_sessions() as here:
        assert await one_session(here) == 0
        before = open_descriptors()
        for nth in range(1, ENOUGH):
            faulty = FaultyOS(call, nth, number, after=after)
            with monkeypatch.context() as patch, trio.fail_after(5):
                fail_here(patch, faulty)
                failures = await one_session(here)
                await settles(here, before)
            assert failures <= 1
            assert await one_session(here) == 0
            if faulty.calls < nth:
                break
        assert faulty.calls < nth
