"""What calls leave in the numbers of their environment, and what counting them costs."""

import sys

import pytest

from muxsim.observe.events import Events
from muxsim.observe.traffic import Traffics
from muxsim.session.attachment import Attachment
from muxsim.session.codes import BUSY
from muxsim.session.session import Session
from muxsim.spec import EnvSpec, Limits
from transports import messages
from transports.memory import MemoryTransport

from .fake_backend import FakeBackend

# Functions that are called for one call more than without: its numbers are taken down, for the bytes of both messages.
FEW = 3


class World:
    """A session that has shaken hands, and counts or not."""

    def __init__(self, *, counting, answers=None, **limits):
        events = Events()
        events.traffics = Traffics() if counting else None
        self.session = Session("s" * 32, EnvSpec(name="fake", command="fake", limits=Limits(**limits)), 7, events)
        greet = {"initialize": lambda request: messages.result(request.id, {})}
        self.backend = FakeBackend(greet | (answers or {}))
        self.backend.session = self.session
        self.session.use(self.backend)
        self.client = self.attach()
        self.ask(0, "initialize")
        self.traffic = events.traffics.of("fake") if counting else None

    def attach(self, **options):
        attachment = Attachment(self.session, "memory", **options)
        attachment.connect(MemoryTransport())
        self.session.attach(attachment)
        return attachment

    def ask(self, id, method, params=None, client=None):
        (client or self.client).receive(as_it_comes(messages.request(id, method, params or {})))


def as_it_comes(message):
    """A message that has been read, and not made."""
    return messages.decode(message.encode())


def say(request):
    return as_it_comes(messages.result(request.id, {"said": True}))


async def test_a_call_is_counted_once_it_is_answered_and_what_muxsim_reads_itself_is_not():
    world = World(counting=True, answers={"tools/call": say, "resources/read": say})
    world.ask(1, "tools/call", {"name": "say"})
    world.ask(2, "made/up")
    world.ask(3, "resources/read", {"uri": "control://reward"}, world.attach(aside=True))
    assert {name: calls.count for name, calls in world.traffic.calls.items()} == {"initialize": 1, "tools/call": 1}
    unanswered = world.backend.sent[-2]
    assert unanswered.method == "made/up"
    world.session.seam.from_backend(messages.error(unanswered.id, -32601, "no such method"))
    assert world.traffic.calls["other"].count == 1
    assert world.traffic.errors == {"backend": 1}


async def test_errors_of_muxsims_own_are_counted_by_what_they_say():
    world = World(counting=True, max_in_flight=1)
    world.ask(1, "tools/call", {"name": "hang"})
    world.ask(2, "ping")
    assert messages.error_code(world.client.transport.sent[-1][0]) == BUSY
    world.session.end("deleted", "bye")
    world.ask(3, "ping")
    assert world.traffic.errors == {"busy": 1, "session_ended": 2}
    assert world.traffic.calls.keys() == {"initialize"}


@pytest.mark.parametrize("method", ["tools/call", "ping"])
async def test_counting_costs_a_call_no_more_than_a_few_functions(method):
    plain, counting = (World(counting=counts, answers={method: say}) for counts in (False, True))
    for world in (plain, counting):
        world.ask(1, method, {"name": "say"})  # the first is that of its method
    assert called(counting, method) - called(plain, method) <= FEW


def called(world, method):
    request, functions = as_it_comes(messages.request(2, method, {"name": "say"})), []
    answer = say(messages.request(3, method))
    world.backend._answers[method] = lambda _: answer
    sys.setprofile(lambda frame, event, _: functions.append(frame.f_code.co_qualname) if event == "call" else None)
    try:
        world.client.receive(request)
    finally:
        sys.setprofile(None)
    return len(functions)
