"""A session between clients of every kind and a backend that writes whatever it likes."""

from __future__ import annotations

from collections import Counter

import msgspec
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from session.fake_backend import fake_session

from muxsim.session.attachment import Attachment
from transports import messages
from transports.errors import RemoteProtocolError
from transports.framing import LineFramer
from transports.memory import MemoryTransport
from transports.messages import Kind, batch, decode

from .strategies import IDS, LINES, METHODS, PARAMS, encoded

CLIENTS = 3
MAX_LINE = 64 * 1024

# What happens, one after the other: a client asks, cancels or goes; the backend writes anything at all, or answers what
# it was asked, the so-manieth of the requests that it has seen.
ASKS = st.tuples(st.just("ask"), st.integers(0, CLIENTS - 1), st.sampled_from([1, 2, "1", "2", 0, -5]), METHODS, PARAMS)
CANCELS = st.tuples(st.just("cancel"), st.integers(0, CLIENTS - 1), IDS)
GOES = st.tuples(st.just("go"), st.integers(0, CLIENTS - 1))
SENDS = st.tuples(st.just("client says"), st.integers(0, CLIENTS - 1), LINES)
WRITES = st.tuples(st.just("write"), st.lists(LINES, max_size=3).map(b"\n".join), st.integers(1, 50))
ANSWERS = st.tuples(st.just("answer"), st.integers(0, 20), st.sampled_from(["result", "error"]), PARAMS)
EVENTS = st.one_of(ASKS, ASKS, ANSWERS, ANSWERS, WRITES, WRITES, CANCELS, GOES, SENDS)


class Case:
    """One session, its clients, and who is owed which answers."""

    def __init__(self):
        self.session, self.backend = fake_session({})
        self.framer = LineFramer(MAX_LINE)
        self.clients = []
        self.owed = [Counter() for _ in range(CLIENTS)]
        self.seen = [0] * CLIENTS
        for _ in range(CLIENTS):
            attachment = Attachment(self.session, "memory")
            attachment.connect(MemoryTransport())
            self.session.attach(attachment)
            self.clients.append(attachment)

    def ask(self, client, id, method, params):
        self._client_sends(client, decode(messages.request(id, method, params).encode()))

    def cancel(self, client, id):
        self._client_sends(client, messages.notification("notifications/cancelled", {"requestId": id}))

    def go(self, client):
        """It goes for good, and another takes its place."""
        self.clients[client].disconnected()
        self.check()
        self.owed[client].clear()
        self.seen[client] = 0
        attachment = Attachment(self.session, "memory", cancels=client == 1)
        attachment.connect(MemoryTransport())
        self.session.attach(attachment)
        self.clients[client] = attachment

    def client_says(self, client, line):
        """What is no message is answered under the ids that can still be told, but for those that are in flight."""
        try:
            message = decode(line)
        except RemoteProtocolError as error:
            before = +self.owed[client]
            for id in self.session.conversation.client_unreadable(self.clients[client], line, error):
                assert id is None or before[key(id)] == 0
        else:
            self._client_sends(client, message)

    def _client_sends(self, client, message):
        if message.kind is Kind.REQUEST:
            self.owed[client][key(message.id)] += 1
        self.clients[client].receive(message)

    def write(self, data, cut):
        for start in range(0, len(data) + 1, cut):
            for line in self.framer.receive_data(data[start : start + cut]):
                self._backend_says(line)
        for line in self.framer.receive_data(b"\n"):
            self._backend_says(line)

    def answer(self, which, member, value):
        requests = [message for message in self.backend.sent if message.kind is Kind.REQUEST]
        if requests:
            self._backend_says(encoded({"jsonrpc": "2.0", "id": requests[which % len(requests)].id, member: value}))

    def _backend_says(self, line):
        say(self.session, line)

    def check(self):
        """Nobody has got an answer that is not owed to them; what was withdrawn is owed no more."""
        for number, attachment in enumerate(self.clients):
            transport = attachment.transport
            for message, _ in transport.sent[self.seen[number] :]:
                decode(message.encode())
                if message.is_answer:
                    assert self.owed[number][key(message.id)] > 0, (message, self.owed[number])
                    self.owed[number][key(message.id)] -= 1
            self.seen[number] = len(transport.sent)
            for id in transport.withdrawn:
                self.owed[number][key(id)] -= 1
            transport.withdrawn.clear()

    def check_backend(self):
        """What the backend was sent are messages, whatever the clients sent."""
        for message in self.backend.sent:
            assert msgspec.json.decode(message.encode())["jsonrpc"] == "2.0"


def say(session, line):
    """The backend writes a line, as `transports.pipe` takes it."""
    try:
        message = decode(line)
    except RemoteProtocolError as error:
        for part in batch(line):
            say(session, part)
        if not batch(line):
            session.seam.unreadable(line, error)
    else:
        session.seam.from_backend(message)


def key(id):
    return type(id).__name__, id


@given(st.lists(EVENTS, max_size=40))
@settings(max_examples=200)
def test_every_request_is_answered_once_or_withdrawn_and_by_nobody_elses_answer(events):
    async def play():
        case = Case()
        for kind, *details in events:
            getattr(case, kind.replace(" ", "_"))(*details)
            case.check()
        case.session.end("deleted", "the test is over")
        case.check()
        assert [+owed for owed in case.owed] == [Counter()] * CLIENTS
        case.check_backend()

    trio.run(play)
