"""The wall between an agent and the control plane, on the wire: real children, and every transport that agents use."""

from __future__ import annotations

import json
import sys

import pytest
import trio
from harness import SERVERS, muxsim_serve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp.shared.inbound import NAME_BEARING_METHODS, encode_header_value
from session.agents import lines

from .test_auth import ADA as TRAINER
from .test_auth import ENVIRON, HELPER, bearer, with_tokens
from .wire import BOTH, MODERN, ask, connect, initialize, open_session, shake_hands, sse_client, tool_call

sys.path.insert(0, str(SERVERS))

from folding import SECRET

pytestmark = pytest.mark.children

AGENT, LAB = [bearer(HELPER)], [bearer(TRAINER)]
FOLDING = str(SERVERS / "folding.py")
CONFIG = f"""
[server]
max_failures = 100000
default = "folding"
[server.auth]
tokens_file = "tokens"
tokens_env = "{next(iter(ENVIRON))}"
[environments.folding]
command = "{sys.executable}"
args = ["{FOLDING}"]
[environments.first]
command = "{sys.executable}"
args = ["{FOLDING}", "--first"]
control = true
[environments.missing]
command = "/no/such/program"
"""
FEW = settings(max_examples=12, suppress_health_check=list(HealthCheck))
CONVERSATION = st.lists(lines(), min_size=1, max_size=8)
ENVIRONMENTS = st.sampled_from(["folding", "first"])
JSON = ("Content-Type", "application/json")
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "wire", "version": "0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
KNOWN_HOLES = [
    {"uri": "con\ttrol://reward"},
    {"uri": "control\n://reward"},
    {"uri": "\u0001control://reward"},
    {"uri": "file:///map", "URI": "control://reward"},
    {"uri": "{scheme}://reward"},
]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Of a muxsim that guards a server which tells whatever it is asked in any form."""
    with muxsim_serve(with_tokens(tmp_path_factory.mktemp("wall")), CONFIG, env=ENVIRON) as running:
        yield running.url


def no_secret(said):
    assert SECRET.encode() not in said
    assert b"control://" not in said


async def by_handshake(url, path, said, conversation):
    """Play a conversation over streamable HTTP, with an agent's token."""
    client = await shake_hands(url, path, headers=AGENT)
    for line in conversation:
        said.append((await client.post(line)).body)
    return client


@FEW
@given(CONVERSATION, ENVIRONMENTS)
async def test_no_conversation_over_streamable_http_yields_the_secret(url, conversation, env):
    said = []
    client = await by_handshake(url, f"/envs/{env}/mcp", said, conversation)
    await client.delete()
    no_secret(b"\n".join(said))


@FEW
@given(CONVERSATION, ENVIRONMENTS)
async def test_no_conversation_over_sse_yields_the_secret(url, conversation, env):
    """Ids may be in flight twice: all answers share one stream."""

    said = []
    with trio.fail_after(60):
        async with sse_client(url, f"/sse?env={env}", AGENT) as (_, post, events):
            async with trio.open_nursery() as nursery:
                for line in conversation:
                    nursery.start_soon(ask, url, "POST", events.endpoint, [JSON, *AGENT], line)
            await post(tool_call("last", "look"))
            while not said or b'"last"' not in said[-1]:
                said.append((await events.next()).data.encode())
    no_secret(b"\n".join(said))


def as_modern(line):
    """The headers and the body of a line as revision 2026-07-28 wants both."""
    message = json.loads(line)
    given = message.get("params", {})
    message["params"] = {**(given if isinstance(given, dict) else {}), "_meta": ENVELOPE}
    headers = [("Content-Type", "application/json"), ("Accept", BOTH), ("Mcp-Protocol-Version", MODERN)]
    headers.append(("Mcp-Method", encode_header_value(message["method"])))
    name = message["params"].get(NAME_BEARING_METHODS.get(message["method"], ""))
    if isinstance(name, str):
        headers.append(("Mcp-Name", encode_header_value(name)))
    return headers, json.dumps(message).encode()


@FEW
@given(CONVERSATION, ENVIRONMENTS)
async def test_no_conversation_of_revision_2026_07_28_yields_the_secret(url, conversation, env):
    session = await open_session(url, LAB, env=env)
    path = f"/s/{session['id']}/mcp"
    said = []
    for line in conversation:
        headers, body = as_modern(line)
        said.append((await ask(url, "POST", path, [*headers, *AGENT], body)).body)
        said.append((await ask(url, "POST", path, [*headers, *AGENT], line)).body)
    await ask(url, "DELETE", f"/sessions/{session['id']}", LAB)
    no_secret(b"\n".join(said))


@FEW
@given(CONVERSATION, ENVIRONMENTS)
async def test_no_feed_of_a_session_yields_the_secret_whatever_a_trainer_says_in_it(url, conversation, env):
    session = await open_session(url, LAB, env=env)
    trainer = await shake_hands(url, f"/s/{session['id']}/mcp", headers=LAB)
    said = b""
    with trio.fail_after(60):
        async with connect(url) as connection:
            await connection.send("GET", f"/watch/sessions/{session['id']}", [("Accept", "text/event-stream"), *AGENT])
            assert (await connection.head())[0] == 200
            agent = await shake_hands(url, f"/s/{session['id']}/mcp", headers=AGENT)
            for line in conversation:
                await trainer.post(line)
                await agent.post(line)
            await ask(url, "DELETE", f"/sessions/{session['id']}", LAB)
            async for piece in connection.body():
                said += piece
    assert b"event: ended" in said
    no_secret(said)


@pytest.mark.parametrize("env", ["folding", "first"])
@pytest.mark.parametrize("way", ["a token", "a URL"])
async def test_the_ways_that_are_known_are_closed_with_a_token_as_on_the_agents_url(url, env, way):
    session = await open_session(url, LAB, env=env)
    path, headers = f"/s/{session['id']}/mcp", AGENT
    if way == "a URL":
        path, headers = f"/s/{session['id']}/agent/mcp", LAB
    client = await shake_hands(url, path, headers=headers)
    for id, params in enumerate(KNOWN_HOLES, 10):
        answer = await client.post({"jsonrpc": "2.0", "id": id, "method": "resources/read", "params": params})
        no_secret(answer.body)
        headers, body = as_modern(
            json.dumps({"jsonrpc": "2.0", "id": id, "method": "resources/read", "params": params})
        )
        no_secret((await ask(url, "POST", path, [*headers, *(AGENT if way == "a token" else LAB)], body)).body)
    hidden = {"jsonrpc": "2.0", "id": 30, "method": "resources/read", "PARAMS": {"uri": "control://reward"}}
    no_secret((await client.post(hidden)).body)
    trainer = await shake_hands(url, f"/s/{session['id']}/mcp", headers=LAB)
    read = await trainer.request("resources/read", {"uri": "con\ttrol://reward"})
    assert SECRET in json.dumps(read), "for a trainer nothing has changed"


async def test_an_agent_gets_the_bare_fact_of_a_death_over_every_transport(url):
    die = {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "die"}}
    client = await shake_hands(url, "/envs/folding/mcp", headers=AGENT)
    said = [(await client.post(die)).body]
    session = await open_session(url, LAB, env="folding")
    headers, body = as_modern(json.dumps(die))
    said.append((await ask(url, "POST", f"/s/{session['id']}/mcp", [*headers, *AGENT], body)).body)
    with trio.fail_after(60):
        async with sse_client(url, "/sse?env=folding", AGENT) as (_, post, events):
            await post(die)
            said += [event.data.encode() for event in await events.rest() if '"error"' in event.data]
    assert len(said) == 3
    for body in said:
        no_secret(body)
        [error] = [json.loads(line)["error"] for line in body.splitlines() if b'"error"' in line]
        assert error["data"] == {"cause": "backend_exited"}
        assert "3" not in error["message"]
    trainers = await shake_hands(url, "/envs/folding/mcp", headers=LAB)
    assert SECRET in (await trainers.post(die)).body.decode(), "a trainer may read it"


async def test_an_agent_is_not_told_why_its_environment_does_not_start_and_a_trainer_is(url):
    """An installer's or an environment's last words may stand in it."""
    for headers, knows in ((AGENT, False), (LAB, True)):
        shaken = await ask(url, "POST", "/envs/missing/mcp", [("Accept", BOTH), *headers], initialize())
        streamed = await ask(url, "GET", "/sse?env=missing", [("Accept", "text/event-stream"), *headers])
        assert (shaken.status, streamed.status) == (200, 502)
        for answer in (shaken, streamed):
            assert ("/no/such/program" in answer.error["message"]) is knows


async def test_the_accept_header_alone_makes_no_difference(url):
    """An answer on an event stream goes through the same wall as one in JSON."""
    client = await shake_hands(url, "/envs/folding/mcp", headers=AGENT)
    for accept in (BOTH, "text/event-stream", "application/json"):
        for method in ("tools/call", "resources/list", "prompts/get"):
            message = {"jsonrpc": "2.0", "id": client.next_id(), "method": method, "params": {"name": "look"}}
            answer = await client.post(message, [("Accept", accept)])
            assert answer.status == 200
            no_secret(answer.body)


@pytest.mark.parametrize("env", ["gym", "grid"])
async def test_a_server_that_parses_urls_as_browsers_do_tells_an_agent_nothing(own_servers, env):
    """The author kit over pydantic, and the treasure grid over JavaScript's own `URL`."""
    trainer = await shake_hands(own_servers, f"/mcp?env={env}&seed=7")
    agent = await shake_hands(own_servers, f"/s/{trainer.id}/agent/mcp")
    told = json.dumps(await trainer.request("resources/read", {"uri": "control://initial_state"}))
    assert "observation" in told
    for uri in ("control://initial_state", "con\ttrol://initial_state", "\u0001Control://initial_state"):
        for method in ("resources/read", "resources/subscribe"):
            assert (await agent.request(method, {"uri": uri}))["error"]["code"] == -32002
    assert (await agent.request("resources/list"))["result"]["resources"] == []


@pytest.fixture(scope="module")
def own_servers(tmp_path_factory):
    """Of a muxsim with an environment of the author kit's, and one in JavaScript."""
    grid = SERVERS.parent.parent / "js_servers" / "treasure-grid" / "server.js"
    config = "\n".join(
        [
            f'[environments.gym]\ncommand = "{sys.executable}"\nargs = ["{SERVERS / "hidden_dice.py"}"]\n',
            f'[environments.grid]\ncommand = "node"\nargs = ["{grid}", "--seed", "{{seed}}"]\n',
        ]
    )
    with muxsim_serve(tmp_path_factory.mktemp("own"), config) as running:
        yield running.url
