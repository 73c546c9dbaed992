"""A server without a state of its own, marked as shared: one backend for every client, whatever its revision."""

import json

import pytest
import trio
from harness import alive, serving
from mcp import Client
from mcp.client.sse import sse_client

from .conftest import HERE
from .games import GRID
from .peers import HTTPPeer, ModernPeer, http_client, text_of, tool_call
from .python_clients import DEADLINE, LATEST_HANDSHAKE, MODERN
from .ts_clients import gathered

pytestmark = pytest.mark.children

CONFIG = f"""
[environments.recorder]
command = "python3"
args = ["-I", "-S", "{HERE / "servers" / "recorder.py"}"]
shared = true

[environments.grid]
command = "{GRID.server[0]}"
args = ["{GRID.server[1]}", "--seed", "7"]
shared = true
"""
ID = 7


async def test_clients_of_both_eras_share_one_backend_and_each_gets_its_own_answers(tmp_path):
    with trio.fail_after(DEADLINE):
        async with serving(tmp_path, CONFIG) as running, http_client() as http:
            url = f"{running.url}/envs/recorder/mcp"
            first, second, modern = (
                await HTTPPeer.open(http, url),
                await HTTPPeer.open(http, url),
                ModernPeer(http, url),
            )
            assert first.headers["Mcp-Session-Id"] != second.headers["Mcp-Session-Id"]
            peers = {"first": first, "second": second, "modern": modern}

            async def release():
                while len(json.loads(await first.call(1, "seen"))["held"]) < len(peers):  # noqa: ASYNC110
                    await trio.sleep(0.02)
                return await second.call(2, "release")

            came = await gathered(
                {
                    **{
                        name: lambda name=name, peer=peer: peer.ask(tool_call(ID, "hold", {"name": name}))
                        for name, peer in peers.items()
                    },
                    "release": release,
                }
            )
            assert {name: (came[name][-1]["id"], text_of(came[name][-1])) for name in peers} == {
                name: (ID, name) for name in peers
            }
            records = [json.loads(text_of((await peer.ask(tool_call(3, "seen")))[-1])) for peer in peers.values()]
            assert len({record["pid"] for record in records}) == 1
            assert records[-1]["handshakes"] == 1
            assert len(set(records[-1]["ids"])) == len(peers)

            await first.close()
            await second.close()
            again = json.loads(text_of((await modern.ask(tool_call(4, "seen")))[-1]))
            assert again["pid"] == records[0]["pid"]
            assert alive(again["pid"])
        assert not alive(again["pid"])


async def test_official_clients_of_both_eras_share_a_server(tmp_path):
    with trio.fail_after(DEADLINE):
        async with serving(tmp_path, CONFIG) as running:
            url = f"{running.url}/envs/recorder"
            servers = {
                ("legacy", LATEST_HANDSHAKE): f"{url}/mcp",
                ("auto", MODERN): f"{url}/mcp",
                (MODERN, MODERN): f"{url}/mcp",
            }
            pids = set()
            for (mode, revision), server in servers.items():
                async with Client(server, mode=mode) as client:
                    assert client.protocol_version == revision
                    assert [tool.name for tool in (await client.list_tools()).tools] == [
                        "echo",
                        "hold",
                        "release",
                        "seen",
                    ]
                    pids.add(json.loads((await client.call_tool("seen")).content[0].text)["pid"])
            async with Client(sse_client(f"{url}/sse"), mode="legacy") as client:
                pids.add(json.loads((await client.call_tool("seen")).content[0].text)["pid"])
            assert len(pids) == 1


async def test_a_client_that_can_do_both_takes_the_era_that_the_backend_keeps_to(tmp_path):
    with trio.fail_after(DEADLINE):
        async with serving(tmp_path, CONFIG) as running:
            for mode in ("legacy", "auto", "legacy"):
                async with Client(f"{running.url}/envs/grid/mcp", mode=mode) as client:
                    assert client.protocol_version == LATEST_HANDSHAKE
                    looked = await client.call_tool("look")
                    assert looked.content[0].text.endswith("You look around.")
