"""The wall between an agent and the control plane, as a property of whole conversations."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import get_args

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mcp_types.methods import CLIENT_NOTIFICATIONS, CLIENT_REQUESTS

sys.path.insert(0, str(Path(__file__).parent.parent / "servers"))

from folding import SECRET, Folding

from muxsim.observe.events import Events
from muxsim.placement.backend import BackendExit
from muxsim.session import agent_answers, agent_requests
from muxsim.session.agent_view import AgentAttachment
from muxsim.session.attachment import Attachment
from muxsim.session.session import Session
from muxsim.spec import EnvSpec
from session.agents import lines
from session.fake_backend import fake_session
from transports import messages
from transports.errors import RemoteProtocolError
from transports.memory import MemoryTransport
from transports.messages import Kind

HANDSHAKE = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}'
)


class FoldingBackend:
    """Stands for a backend whose child is `Folding`; what it is sent is answered at once."""

    pid = 4711
    congested = False
    way = "fresh"

    def __init__(self, session, server):
        self.session = session
        self.server = server
        self.heard = []

    def send(self, message):
        line = message.encode()
        self.heard.append(line)
        for answer in self.server.receive(line):
            if self.session.live:
                self.session.seam.from_backend(messages.decode(json.dumps(answer).encode()))


def conversation(lines, *, first, control):
    """Everything that an agent is sent in a conversation of these lines, and what reached the server."""
    session = Session("s" * 32, EnvSpec(name="folding", command="fake", control=control), 7, Events())
    backend = FoldingBackend(session, Folding(first=first))
    session.use(backend)
    attachment, transport = AgentAttachment(session, "memory"), MemoryTransport()
    attachment.connect(transport)
    session.attach(attachment)
    for line in (HANDSHAKE, *lines):
        try:
            attachment.receive(messages.decode(line))
        except RemoteProtocolError as error:
            attachment.rejected(line, error)
    attachment.receive(messages.request("last", "tools/call", {"name": "look"}))
    session.end("backend_exited", "the backend exited with status 3", BackendExit("gone", 3, (f"reward={SECRET}",)))
    attachment.receive(messages.request("late", "ping"))
    return b"\n".join(message.encode() for message, _ in transport.sent), backend.heard


async def in_trio(work):
    await trio.lowlevel.checkpoint()
    return work()


@settings(max_examples=300)
@given(st.lists(lines(), max_size=6), st.booleans(), st.booleans())
@example([b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"con\\ttrol://reward"}}'], False, False)
@example(
    [b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///map","URI":"reward"}}'], False, False
)
@example([b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{},"PARAMS":{"uri":"reward"}}'], False, False)
@example(
    [b'{"jsonrpc":"2.0","id":1,"method":"no/such"}', b'{"jsonrpc":"2.0","id":1,"method":"resources/list"}'], True, True
)
def test_no_conversation_yields_a_byte_of_what_only_the_control_plane_and_stderr_contain(lines, first, control):
    said, _ = trio.run(in_trio, lambda: conversation(lines, first=first, control=control))
    assert SECRET.encode() not in said
    assert b"control://" not in said


@given(lines())
def test_what_reaches_the_server_has_no_name_that_is_not_known_and_no_uri_that_was_not_judged(line):
    _, heard = trio.run(in_trio, lambda: conversation([line], first=False, control=False))
    for sent in map(json.loads, heard):
        assert sent.keys() <= {"jsonrpc", "id", "method", "params", "result", "error"}
        params = sent.get("params", {})
        assert all(name == name.strip() and name.isascii() for name in params)
        assert not {name.lower() for name in params} & {"params", "control"} - {"params"}
        assert not str(params.get("uri", "x:")).lower().lstrip().startswith("control")


async def test_a_server_that_folds_names_has_the_secret_to_tell():
    """Without the wall the property would be about nothing."""
    server = Folding()
    for line in (
        b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"con\\ttrol://reward"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///map","URI":"control://reward"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"resources/list","PARAMS":{}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look"}}',
    ):
        assert SECRET in json.dumps(server.receive(line)), line


@pytest.mark.parametrize("first", [False, True])
async def test_what_an_agent_may_have_it_gets(first):
    wishes = {
        "read": ("resources/read", {"uri": " file:///map\n"}),
        "list": ("resources/list", {}),
        "templates": ("resources/templates/list", {}),
        "complete": ("completion/complete", {"ref": {"type": "ref/resource", "uri": "file:///{path}"}, "argument": {}}),
        "prompt": ("prompts/get", {"name": "p"}),
        "call": ("tools/call", {"name": "look"}),
    }
    asked = [
        json.dumps({"jsonrpc": "2.0", "id": id, "method": m, "params": p}).encode() for id, (m, p) in wishes.items()
    ]
    said, heard = conversation(asked, first=first, control=False)
    results = {one["id"]: one["result"] for one in map(json.loads, said.splitlines()) if "result" in one}
    text = {"type": "text", "text": "a wall\tto the north, control: none"}
    assert results["read"]["contents"] == [{"uri": "file:///answer", "text": "the text of file:///map"}]
    assert [one["uri"] for one in results["list"]["resources"]] == ["file:///map"]
    assert results["list"]["cacheScope"] == "private", "others may have more"
    assert [one["uriTemplate"] for one in results["templates"]["resourceTemplates"]] == ["file:///{path}"]
    assert results["complete"]["completion"]["values"] == ["map"]
    assert results["prompt"]["messages"] == [{"role": "user", "content": text}]
    assert results["call"]["content"] == [text]
    assert results["call"]["structuredContent"] == {"seen": [{"uri": "file:///map"}]}
    assert results["call"]["_meta"] == {"deeper": {}}
    assert json.loads(heard[1])["params"]["uri"] == "file:///map", "in the form that was judged"


async def test_a_second_request_under_an_id_in_flight_does_not_change_what_the_first_may_hear():
    session, backend = fake_session({})
    attachment, transport = AgentAttachment(session, "memory"), MemoryTransport()
    attachment.connect(transport)
    session.attach(attachment)
    attachment.receive(messages.decode(HANDSHAKE))
    for method in ("resources/list", "ping", "resources/read", "no/such"):
        attachment.receive(messages.request(1, method, {}))
    listing = next(sent for sent in backend.sent if sent.method == "resources/list")
    session.seam.from_backend(messages.result(listing.id, {"resources": [{"uri": "control://reward"}, {"uri": "a:b"}]}))
    answer, about = transport.sent[-1]
    assert about == 1
    assert json.loads(answer.encode())["result"] == {"resources": [{"uri": "a:b"}]}
    assert [about for message, about in transport.sent if message.kind is Kind.ERROR] == [None] * 3


def attached(kind, session):
    attachment, transport = kind(session, "memory"), MemoryTransport()
    attachment.connect(transport)
    session.attach(attachment)
    return attachment, transport


def error_in(transport):
    [(message, _)] = transport.sent
    return json.loads(message.encode())["error"]


async def test_an_agent_is_told_that_its_backend_died_and_a_trainer_how():
    session, _ = fake_session({})
    running = [attached(kind, session) for kind in (AgentAttachment, Attachment)]
    for attachment, _ in running:
        attachment.receive(messages.request("running", "tools/call", {"name": "x"}))
    session.end("backend_exited", "the backend exited with status 3", BackendExit("died", 3, ("reward=0.75",)))
    late = [attached(kind, session) for kind in (AgentAttachment, Attachment)]
    for attachment, _ in late:
        attachment.receive(messages.request("late", "ping"))
    agents, trainers = zip(*([error_in(transport) for _, transport in pair] for pair in (running, late)), strict=True)
    assert [error["data"] for error in agents] == [{"cause": "backend_exited"}] * 2
    assert not any("3" in error["message"] for error in agents)
    for error in trainers:
        assert error["data"] == {"cause": "backend_exited", "exit_status": 3, "stderr": ["reward=0.75"]}
        assert "status 3" in error["message"]


async def test_a_method_that_nobody_knows_is_refused_and_goes_no_further():
    """A server may have any: there is no telling what it reads from its params."""
    session, backend = fake_session({})
    attachment, transport = AgentAttachment(session, "memory"), MemoryTransport()
    attachment.connect(transport)
    attachment.receive(messages.request(1, "vendor/read", {"key": "reward"}))
    attachment.receive(messages.notification("notifications/vendor", {"key": "reward"}))
    assert [(messages.error_code(message), about) for message, about in transport.sent] == [(-32601, 1)]
    assert backend.sent == []


def test_the_methods_and_params_that_an_agent_may_use_are_those_of_the_protocol():
    """Only those: a new one is for somebody to think about."""
    for registry, known in (
        (CLIENT_REQUESTS, agent_requests.REQUESTS),
        (CLIENT_NOTIFICATIONS, agent_requests.NOTIFICATIONS),
    ):
        protocol = {}
        for (method, _), model in registry.items():
            protocol.setdefault(method, set()).update(params_of(model))
        tasks = {
            method for method in known if method.startswith("tasks/")
        }  # an extension, which the SDK has no table of
        assert {method: {*known[method], "_meta"} for method in known.keys() - tasks} == protocol


def params_of(model):
    """The names of the params of one of the SDK's requests."""
    annotation = model.model_fields["params"].annotation
    kinds = [kind for kind in (get_args(annotation) or (annotation,)) if hasattr(kind, "model_fields")]
    return {field.alias or name for kind in kinds for name, field in kind.model_fields.items()} | {"_meta"}


SPELT_OTHERWISE = [
    rb'"result":{"content":[],"_meta":{"muxsim\/control":"SECRET"}}',
    rb'"result":{"content":[],"_meta":{"MUXSIM\/Control":"SECRET"}}',
    rb'"error":{"code":1,"message":"no","data":{"_meta":{"muxsim\/control":"SECRET"}}}',
    rb'"result":{"content":[],"_meta":{"muxsim/control":"SECRET"},"_meta":{}}',
    rb'"result":{"content":[{"type":"resource","resource":{"uri":"control:\/\/SECRET","uri":"file:///map"}}]}',
    rb'"result":{"_meta":{"muxsim/control":"SECRET"}},"result":{}',
    rb'"result":{},"_meta":{"muxsim/control":"SECRET"}',
    rb'"result":{},"extra":{"uri":"control://reward","text":"SECRET"}',
    rb'"result":{"tools":[{"name":"look","_meta":{"ui":{"resourceUri":"control://SECRET"}}}]}',
    rb'"result":{"content":[],"structuredContent":{"control://reward":"SECRET"}}',
    rb'"result":{"content":[],"structuredContent":{"Control:reward":{"value":"SECRET"}}}',
    rb'"result":{"content":[],"structuredContent":{"uri":["file:///map","control://reward"],"value":"SECRET"}}',
    rb'"result":{"content":[],"structuredContent":{"uris":["control://SECRET"]}}',
    rb'"result":{"prompts":[{"name":"p","icons":[{"src":"control://reward","label":"SECRET"}]}]}',
    rb'"result":{"content":[{"type":"link","href":"control://SECRET"}]}',
    rb'"result":{"content":[{"type":"resource","resource":{"uri":"view-source:control://reward","text":"SECRET"}}]}',
    rb'"result":{"content":[{"type":"resource","resource":{"uri":"\ud83dcontrol://reward","text":"SECRET"}}]}',
]


@pytest.mark.parametrize("said", SPELT_OTHERWISE)
async def test_however_a_server_spells_what_is_of_the_control_plane_an_agent_does_not_hear_it(said):
    line = b'{"jsonrpc":"2.0","id":1,' + said.replace(b"SECRET", SECRET.encode()) + b"}"
    told = agent_answers.heard(messages.decode(line))
    assert told.id == 1
    assert SECRET.encode() not in told.encode()


async def test_what_is_made_anew_for_an_agent_says_the_same_where_nothing_was_of_the_control_plane():
    result = {"contents": [{"uri": "file:///a", "text": "\u00e9 \\/", "n": 1e22}], "cacheScope": "public"}
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
    assert json.loads(agent_answers.heard(messages.decode(line)).encode()) == json.loads(line)
