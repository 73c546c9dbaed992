"""H15: a bug of ours in any task of a session, injected, ends that session and no other.

Real children, so that it also shows that nothing of them is left.
"""

import functools
import inspect

import pytest
import trio
from harness import alive
from processes.enclosed import enclosed_sessions

from muxsim.observe.events import SessionCrashed
from muxsim.placement.child import Child, StderrRing
from muxsim.processes.process import Process
from muxsim.session.conversation import Conversation
from muxsim.session.life import Life
from transports.messages import Kind
from transports.pipe import PipeTransport

pytestmark = [pytest.mark.children]


class Bug:
    """Lets the first call of a method fail from the time on when it is armed."""

    def __init__(self, monkeypatch, owner, name):
        self.armed = False
        self.bitten = 0
        real = getattr(owner, name)

        def bite():
            if self.armed:
                self.armed = False
                self.bitten += 1
                raise RuntimeError("a bug of ours")

        @functools.wraps(real)
        def call(*args, **kwargs):
            bite()
            return real(*args, **kwargs)

        @functools.wraps(real)
        async def call_async(*args, **kwargs):
            bite()
            return await real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call_async if inspect.iscoroutinefunction(real) else call)


# What runs in a session's tasks: when each starts, whenever something happens in it, and while the session ends.
STARTING = [
    (Life, "_follow_backends"),
    (Life, "_keep_time"),
    (Life, "_next_deadline"),
    (Child, "run"),
    (Child, "_drain_stderr"),
    (PipeTransport, "run"),
    (Process, "wait"),
]
WORKING = [
    (Child, "receive"),
    (Conversation, "from_backend"),
    (StderrRing, "receive_data"),
]
ENDING = [
    (Life, "_emit_end"),
    (PipeTransport, "discard"),
    (StderrRing, "close"),
    (Process, "_ask_to_exit"),
]


@pytest.mark.fault("H15")
@pytest.mark.parametrize(("owner", "name"), STARTING)
async def test_a_task_that_fails_as_it_starts_ends_its_session_alone(monkeypatch, owner, name):
    bug = Bug(monkeypatch, owner, name)
    async with enclosed_sessions() as here:
        other = await here.open()
        bug.armed = True
        victim = await here.open()
        await nobody_but(victim, here, other, bug)


@pytest.mark.fault("H15")
@pytest.mark.parametrize(("owner", "name"), WORKING)
async def test_a_task_that_fails_at_its_work_ends_its_session_alone(monkeypatch, owner, name):
    bug = Bug(monkeypatch, owner, name)
    async with enclosed_sessions() as here:
        other, victim = await here.open(), await here.open()
        bug.armed = True
        with trio.fail_after(60):
            answer = await victim.call("exit" if owner is StderrRing else "say")
        assert answer.kind is Kind.ERROR
        await nobody_but(victim, here, other, bug)


@pytest.mark.fault("H15")
@pytest.mark.parametrize(("owner", "name"), ENDING)
async def test_a_session_that_fails_as_it_ends_takes_no_other_along(monkeypatch, owner, name):
    bug = Bug(monkeypatch, owner, name)
    async with enclosed_sessions() as here:
        other, victim = await here.open(), await here.open()
        bug.armed = True
        victim.session.end("test", "enough")
        await nobody_but(victim, here, other, bug)


async def nobody_but(victim, here, other, bug):
    with trio.fail_after(60):
        await victim.session.wait_ended()
    assert bug.bitten == 1
    assert [(event.session, "a bug of ours" in event.traceback) for event in here.events(SessionCrashed)] == [
        (victim.session.id, True)
    ]
    assert not alive(victim.pid)
    assert await other.is_alive()
    third = await here.open()
    assert await third.is_alive()
