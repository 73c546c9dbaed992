"""The wall between an agent and the control plane, as a property of whole conversations."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "servers"))

from folding import SECRET, Folding

from muxsim.events import Events
from muxsim.session.agent_view import AgentAttachment
from muxsim.session.session import Session
from muxsim.spec import EnvSpec
from muxsim.supervise.backend import BackendExit
from session.agents import lines
from transports import messages
from transports.errors import RemoteProtocolError
from transports.memory import MemoryTransport

HANDSHAKE = (
    b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}}'
)


class FoldingBackend:
    """Stands for a backend whose child is `Folding`; what it is sent is answered at once."""

    pid = 4711
    congested = False

    def __init__(self, session, server):
        self.session = session
        self.server = server
        self.heard = []

    def send(self, message):
        line = message.encode()
        self.heard.append(line)
        for answer in self.server.receive(line):
            if self.session.live:
                self.session.from_backend(messages.decode(json.dumps(answer).encode()))


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


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
