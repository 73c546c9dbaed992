"""What muxsim asks a backend for itself, to check the headers of a call."""

from __future__ import annotations

import json

import trio
import trio.testing
from session.fake_backend import fake_session
from session.test_control import connect

from muxsim.serve.routes.schemas import ToolSchemas
from transports import messages

ENVELOPE = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


def tool_call(meta):
    return messages.request(1, "tools/call", {"name": "look", "arguments": {}, "_meta": meta})


async def test_the_listing_is_asked_for_under_the_envelope_of_the_call_and_with_no_other_wish_of_its_client():
    listing = {"tools": [{"name": "look", "inputSchema": {"type": "object"}}]}
    session, backend = fake_session({"tools/list": lambda request: messages.result(request.id, listing)})
    connect(session)
    wishes = {"muxsim/control": True, "MUXSIM/CONTROL": True, "progressToken": 7}
    schema = await ToolSchemas().of_call(session, tool_call({**ENVELOPE, **wishes}))
    assert schema == {"type": "object"}
    assert json.loads(backend.sent[-1].encode())["params"] == {"_meta": ENVELOPE}


async def test_a_listing_that_muxsim_asks_for_takes_no_request_of_the_servers():
    session, _ = fake_session({"tools/list": lambda request: None})
    client, heard = connect(session)
    client.receive(messages.request(5, "prompts/list"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ToolSchemas().of_call, session, tool_call(ENVELOPE))
        await trio.testing.wait_all_tasks_blocked()
        session.seam.from_backend(messages.request("s", "sampling/createMessage", {}))
        session.seam.from_backend(messages.notification("notifications/message", {"level": "info", "data": "x"}))
        nursery.cancel_scope.cancel()
    assert [(message.method, about) for message, about in heard.sent[1:]] == [
        ("sampling/createMessage", 5),
        ("notifications/message", 5),
    ]
