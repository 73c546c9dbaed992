"""Lines of a backend that are nearly, or oddly, answers to what it was asked: nobody waits for ever."""

from __future__ import annotations

import json

import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mcp.shared.dispatcher import coerce_request_id
from mcp_types import JSONRPCError, JSONRPCResponse, jsonrpc_message_adapter
from session.fake_backend import fake_session

from muxsim.session.attachment import Attachment
from transports import messages
from transports.memory import MemoryTransport
from transports.messages import Kind

from .strategies import LINES, encoded
from .test_backend import say

ASKED = 3
# Of ids 1 to 3, which the router gives out in this order, and of others: how they are written, and which they mean.
SPELLED = {
    b"1": 1,
    b"2": 2,
    b"3": 3,
    b'"1"': 1,
    b"1.0": 1,
    b"1e0": 1,
    b'" 2"': 2,
    b'"2.0"': 2,
    b'"\\u0031"': 1,
    **dict.fromkeys((b"-0", b"4", b"null", b"true", b"[1]", b'"x"')),
}
IDS = st.sampled_from(list(SPELLED))
DEEP = (b"[" * 300 + b"]" * 300, b"[" * 5000 + b"]" * 5000)
ODD = st.sampled_from(
    [
        *(b"{}", b"null", b"[]", b'"x"', b"NaN", b"[NaN,-Infinity]", b"-NaN", b"01", b"1.", b"1e400", b"9" * 5000),
        *(rb'"\ud83d"', rb'{"\ude00":"\ud83d\ude00"}', b'"\xff"', b'"\x01"', b'"\x00"', b"'x'", b"tru", b""),
        *(*DEEP, '"\u2028\r"'.encode(), b'{"code":1,"message":""}', b'{"t":"\\\\ud83d NaN \\" Infinity"}'),
        *(b'{"id":2,"result":{}}', b'{"code":-32601,"message":"\\ud83d"}'),
    ]
)
NAMES = st.sampled_from([b"result", b"error"])
MEMBERS = st.one_of(
    st.tuples(st.just(b"id"), IDS),
    st.tuples(st.just(b"jsonrpc"), st.sampled_from([b'"2.0"'] * 4 + [b'"1.0"', b"2.0"])),
    st.tuples(NAMES | st.sampled_from([b"method", b"params", b"x", b"\\u0069d"]), ODD),
)
FRAMES = [*[b"%b"] * 6, b"\xef\xbb\xbf%b", b"[%b]", b"[%b,%b]", b" %b ", b"x%b", b"%b,", b"\x00%b"]


@st.composite
def answers(draw):
    """An answer whose members are in any order, odd, doubled or missing, in a frame that is odd too."""
    members = draw(st.lists(MEMBERS, max_size=3))
    if draw(st.booleans()):
        members += [(b"jsonrpc", b'"2.0"'), (b"id", draw(IDS)), (draw(NAMES), draw(ODD))]
    between = draw(st.sampled_from([b",", b" , "]))
    body = b"{%b}" % between.join(b'"%b": %b' % member for member in draw(st.permutations(members)))
    return draw(st.sampled_from(FRAMES)).replace(b"%b", body)


class Asked:
    """A session with `ASKED` requests in flight."""

    def __init__(self):
        self.session, self.backend = fake_session({})
        self.transport = MemoryTransport()
        attachment = Attachment(self.session, "memory")
        attachment.connect(self.transport)
        self.session.attach(attachment)
        for number in range(ASKED):
            attachment.receive(messages.request(f"call {number + 1}", "tools/call", {}))
        assert [message.id for message in self.backend.sent] == [1, 2, 3]

    def answered(self):
        """The answers by the backend's ids; nothing was answered twice."""
        came = [message for message, _ in self.transport.sent if message.is_answer]
        by_id = {int(message.id.removeprefix("call ")): message for message in came}
        assert len(by_id) == len(came)
        return by_id


def read_by_sdk(line):
    """What the Python SDK's client takes for an answer: (id, kind); None if it takes it for none."""
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return None
    if not isinstance(message, JSONRPCResponse | JSONRPCError) or message.id is None:
        return None
    return coerce_request_id(message.id), Kind.RESULT if isinstance(message, JSONRPCResponse) else Kind.ERROR


@given(st.lists(answers() | LINES, min_size=1, max_size=4))
@example([rb'{"jsonrpc":"2.0","id":1,"result":{"text":"cut \ud83d"}}'])
@example([b'{"jsonrpc":"2.0","id":1,"result":{"n":NaN}}'])
@example([b'{"jsonrpc":"2.0","id":1,"result":{},"error":null}', b'[{"jsonrpc":"2.0","id":2,"result":{}}]'])
@example([b'{"jsonrpc":"2.0","id":1,"method":"initialize","error":{"code":0,"message":""}}'])
@settings(max_examples=500)
def test_whatever_a_child_writes_each_request_is_answered_or_can_still_be_and_none_twice(lines):
    async def play():
        case = Asked()
        for line in b"\n".join(lines).split(b"\n"):
            open_before = {1, 2, 3} - set(case.answered())
            say(case.session, line)
            read = read_by_sdk(line)
            if read is not None and read[0] in open_before:
                # Of an error and a result in one message the SDK takes what its types let it.
                assert case.answered()[read[0]].kind is read[1] or (b"result" in line and b"error" in line)
        left = {1, 2, 3} - set(case.answered())
        for id in left:
            say(case.session, encoded({"jsonrpc": "2.0", "id": id, "result": {}}))
        assert set(case.answered()) == {1, 2, 3}
        assert all(case.answered()[id].kind is Kind.RESULT for id in left)
        for message, _ in case.transport.sent:
            json.loads(message.encode(), parse_int=str)

    trio.run(play)


@given(IDS, ODD, NAMES, st.booleans())
@settings(max_examples=300)
def test_what_names_a_request_and_says_that_it_answers_it_is_its_answer_readable_or_not(id, payload, name, last):
    async def play():
        case = Asked()
        payload_member, id_member = b'"%b":%b' % (name, payload), b'"id":' + id
        members = (payload_member, id_member) if last else (id_member, payload_member)
        say(case.session, b'{"jsonrpc":"2.0",%b,%b}' % members)
        assert set(case.answered()) == {SPELLED[id]} - {None}

    trio.run(play)
