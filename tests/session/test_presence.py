"""Whether there is a control plane at all, where nothing of it could be read."""

from __future__ import annotations

import json

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from muxsim.session.control.presence import Presence, inquire
from session.fake_backend import fake_session
from session.test_control import Lake, connect, control_of, step
from session.test_session import life
from transports import messages
from transports.messages import decode, error_code, member

NO_METHOD = {"error": {"code": -32601, "message": "Method not found"}}
LISTED = {"resources": [{"uri": "memo://insights"}]}
NO_TEMPLATES = {"resourceTemplates": []}


class Foreign(Lake):
    """A server with resources of its own, which answers in its own way for what it does not have."""

    def __init__(self, answer, *, lists=LISTED, templates=NO_TEMPLATES, capabilities=None):
        super().__init__()
        self.answer = answer
        self.lists = lists
        self.templates = templates
        self.capabilities = {"resources": {}} if capabilities is None else capabilities
        self.asked: list[str] = []

    def read(self, request):
        uri = msgspec.json.decode(member(request.params, "uri"))
        self.reads.append(uri)
        return said(request, self.answer(uri))

    def answers(self):
        return {
            "initialize": lambda request: messages.result(request.id, {"capabilities": self.capabilities}),
            "tools/call": self.call,
            "resources/read": self.read,
            "resources/list": lambda request: self.page(request, self.lists),
            "resources/templates/list": lambda request: self.page(request, self.templates),
        }

    def page(self, request, given):
        self.asked.append(request.method)
        return said(request, given(request) if callable(given) else given)


def said(request, answer):
    """A result, or an error where it is one."""
    members = answer if "error" in answer else {"result": answer}
    return decode(json.dumps({"jsonrpc": "2.0", "id": request.id, **members}).encode())


def fault(text, code=0):
    return lambda uri: {"error": {"code": code, "message": text.format(uri=uri, scheme=uri.partition(":")[0])}}


def text_of_any(text):
    return lambda uri: {"contents": [{"uri": uri, "text": text.format(uri=uri)}]}


def play(server, calls=2, **spec):
    """The control plane beside each of some calls."""
    session, _ = fake_session(server.answers(), **spec)
    attachment, transport = connect(session)
    for id in range(1, calls + 1):
        step(attachment, id)
    return [control_of(message) for message, _ in transport.sent[-calls:]]


OF_ANY_URI = [
    fault("Unsupported URI scheme: {scheme}"),
    fault("Error reading {uri}", -32603),
    fault("list index out of range"),
    fault("Access to {uri} is under the control of nobody", -1),
    text_of_any("{uri}: not found"),
    text_of_any('{{"error": "no {uri}"}}'),
    lambda uri: {"contents": []},
    lambda uri: {},
]


@pytest.mark.parametrize("answer", OF_ANY_URI)
async def test_a_server_that_lists_no_control_plane_and_has_one_answer_for_any_uri_has_none(answer):
    server = Foreign(answer)
    assert play(server) == [None, None]
    assert (len(server.reads), len(server.asked)) == (4, 2), "it is asked once in a session"


@pytest.mark.parametrize("lists", [NO_METHOD, {}, {"error": {"code": 0, "message": "Unsupported"}}])
async def test_a_server_that_says_at_its_start_that_it_has_no_resources_needs_no_list_of_them(lists):
    assert play(Foreign(fault("what?"), lists=lists, templates=lists, capabilities={"tools": {}})) == [None, None]


CONTROL = {"resources": [{"uri": "file:///map"}, {"uri": "Control://Status"}]}
TEMPLATED = {"resourceTemplates": [{"uriTemplate": "memo://{id}"}, {"uriTemplate": "control://{part}"}]}


def on_second_page(request):
    second = member(request.params, "cursor") is not None
    return CONTROL if second else {**LISTED, "nextCursor": "2"}


@pytest.mark.parametrize("answer", OF_ANY_URI)
@pytest.mark.parametrize(
    "names",
    [{"lists": CONTROL}, {"templates": TEMPLATED}, {"lists": on_second_page}],
    ids=["in a list", "by a template", "on a second page"],
)
async def test_one_that_names_it_and_cannot_give_it_has_a_problem_with_each_call(answer, names):
    server = Foreign(answer, **names)
    for control in play(server):
        assert control["reward"] is None
        assert control["problem"]
    assert len(server.asked) <= 3, "what it has named is not looked for again"


UNDECIDED = {
    "no such method": {"lists": NO_METHOD, "templates": NO_METHOD},
    "nothing": {"lists": {}, "templates": {}},
    "an error": {"lists": {"error": {"code": -32603, "message": "the disk is on fire"}}},
    "no list": {"lists": {"resources": 7}},
    "pages without end": {"lists": lambda request: {**LISTED, "nextCursor": "again"}},
}


@pytest.mark.parametrize("more", UNDECIDED.values(), ids=UNDECIDED)
async def test_where_its_lists_do_not_tell_a_failure_is_a_problem_of_the_call(more):
    for control in play(Foreign(fault("the disk is on fire"), **more)):
        assert "the disk is on fire" in control["problem"]


async def test_a_failure_that_is_of_the_control_plane_alone_is_a_problem_though_no_list_names_it():
    def answer(uri):
        return fault("the disk is on fire" if uri.startswith("control:") else "Unknown resource")(uri)

    server = Foreign(answer)
    session, _ = fake_session(server.answers())
    attachment, transport = connect(session)
    step(attachment, 1)
    assert "the disk is on fire" in control_of(transport.sent[-1][0])["problem"]
    server.answer = text_of_any('{{"reward": 0.5, "terminated": false, "step": 2, "total_reward": 1.0}}')
    step(attachment, 2)
    assert control_of(transport.sent[-1][0])["reward"] == 1.0, "what both calls have earned"


async def test_what_a_config_says_is_there_is_not_taken_for_absent_for_a_failure():
    for control in play(Foreign(fault("the disk is on fire")), control=True):
        assert "the disk is on fire" in control["problem"]


async def test_a_control_plane_that_a_result_had_in_it_is_never_absent():
    server = Foreign(lambda uri: {"error": {"code": -32002, "message": "Resource not found"}})
    own = {"muxsim/control": {"reward": 1.0, "terminated": False, "truncated": False, "step": 1, "info": {}}}
    metas = [own, {}]
    server.call = lambda request: messages.result(request.id, {"content": [], "_meta": metas.pop(0)})
    first, second = play(server)
    assert first["reward"] == 1.0
    assert "Resource not found" in second["problem"]


async def test_a_list_that_does_not_come_is_waited_for_once_and_within_bounds(autojump_clock):
    server = Foreign(fault("Unsupported URI scheme: {scheme}"))
    answers = {**server.answers(), "resources/list": lambda request: None}
    async with life() as one:
        one.backend._answers |= answers
        attachment, transport = connect(one.session)
        step(attachment, 1)
        await trio.sleep(30)
        assert "Unsupported" in control_of(transport.sent[-1][0])["problem"]


async def test_no_client_hears_of_what_is_asked():
    server = Foreign(OF_ANY_URI[0])
    session, _ = fake_session(server.answers())
    _other, silent = connect(session)
    attachment, transport = connect(session)
    before = len(silent.sent), len(transport.sent)
    step(attachment, 5)
    assert (len(silent.sent), len(transport.sent)) == (before[0], before[1] + 1)


def decided(reads, lists, templates, nobodys, **options):
    """What comes of an inquiry whose questions are answered with these."""
    said = {"resources/list": lists, "resources/templates/list": templates, "resources/read": nobodys}
    questions = inquire(reads, **{"declared": False, "capable": True, **options})
    try:
        method, _ = next(questions)
        while True:
            method, _ = questions.send(said[method])
    except StopIteration as end:
        return end.value


VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | st.sampled_from(["", "control://status", "control://", "memo://x", "no", "{"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["resources", "resourceTemplates", "uri", "uriTemplate", "contents", "message", "code"]),
            inner,
        )
    ),
    max_leaves=8,
)
ANSWERS = st.tuples(st.sampled_from(["result", "error"]), VALUES).map(
    lambda pair: (
        decode(json.dumps({"jsonrpc": "2.0", "id": 1, pair[0]: pair[1]}).encode())
        if pair[1] is not None
        else decode(b'{"jsonrpc": "2.0", "id": 1, "result": {}}')
    )
)


@given(ANSWERS, ANSWERS, ANSWERS, ANSWERS)
def test_whatever_a_server_answers_it_is_decided_and_what_lists_a_control_plane_has_one(read, lists, templates, other):
    reads = dict.fromkeys(("reward", "status", "info"), read)
    assert isinstance(decided(reads, lists, templates, other), Presence)
    naming = messages.result(1, CONTROL)
    found = decided(reads, naming, templates, other)
    assert found is Presence.PRESENT or error_code(reads["reward"]) in (-32002, -32601)
