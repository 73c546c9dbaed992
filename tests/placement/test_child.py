"""How a backend's end is told, by a process that is none: what it says comes when a test wants it to."""

from __future__ import annotations

import os

import pytest
import trio

from muxsim.placement.child import Child
from muxsim.spec import Limits


class Nobody:
    """Listens to a backend that says nothing."""

    clients_ready = True

    def stderr(self, line):
        raise AssertionError(line)


class Closed:
    """A process whose pipes are closed on its side, and of which word that it has exited comes so much later."""

    pid = 1
    unguarded = False

    def __init__(self, *, exited, told_after):
        self.exited = exited
        self.told_after = told_after
        self.returncode = None
        (self.stdout, *others), (self.stderr, *more), (left, self.stdin) = os.pipe(), os.pipe(), os.pipe()
        for fd in (*others, *more, left):
            os.close(fd)

    def hand_over(self, *streams, close_stdin):
        """The pipe closes what it has been given."""

    def has_exited(self):
        return self.exited

    async def wait(self):
        await trio.sleep(self.told_after)
        self.returncode = 4
        return 4


async def ending_of(process):
    backend = Child(process, Limits(), Nobody())
    try:
        with trio.fail_after(60):
            return await backend.run()
    finally:
        backend._pipe.abort()
        os.close(process.stderr)


async def test_a_backend_that_has_exited_is_not_said_to_run_because_word_of_it_is_late(autojump_clock):
    ending = await ending_of(Closed(exited=True, told_after=2))
    assert (ending.reason, ending.returncode) == ("the backend exited with status 4", 4)


@pytest.mark.parametrize(
    ("exited", "reason"),
    [(True, "the backend exited"), (False, "the backend closed its stdin or stdout while it was running")],
)
async def test_word_of_an_exit_is_not_waited_for_for_ever(autojump_clock, exited, reason):
    ending = await ending_of(Closed(exited=exited, told_after=1e6))
    assert (ending.reason, ending.returncode) == (reason, None)
