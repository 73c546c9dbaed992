"""Several clients of one session at once, over different transports: each gets its own answers, and nobody else's."""

import json

import pytest
import trio
from mcp import Client
from mcp.client.sse import sse_client

from .conftest import GRACE
from .peers import HTTPPeer, ModernPeer, SSEPeer, http_client, text_of, tool_call
from .python_clients import DEADLINE, posted_session
from .ts_clients import gathered

pytestmark = pytest.mark.children

# The same for everybody: what clients choose by themselves is no more different than this.
ID, TOKEN = 7, "t"
_LOOK_AGAIN = 0.02


async def seen(peer):
    """What the recorder has recorded."""
    return json.loads(await peer.call(1, "seen"))


async def record_when(peer, condition, within=DEADLINE):
    """The record, once it fulfils a condition."""
    with trio.fail_after(within):
        while not condition(record := await seen(peer)):  # noqa: ASYNC110 - the recorder does not call us
            await trio.sleep(_LOOK_AGAIN)
    return record


async def held_by(peer, count):
    """The record, once that many calls are held."""
    return await record_when(peer, lambda record: len(record["held"]) == count)


async def test_each_client_gets_the_answer_to_its_own_request_though_all_ids_and_tokens_are_the_same(servers):
    with trio.fail_after(DEADLINE):
        async with (
            posted_session(servers, "recorder") as session,
            http_client() as http,
            SSEPeer.open(http, session["urls"]["sse"]) as sse,
        ):
            url = session["urls"]["mcp"]
            watcher = await HTTPPeer.open(http, url)
            peers = {
                "http": await HTTPPeer.open(http, url),
                "another http": await HTTPPeer.open(http, url),
                "sse": sse,
                "modern": ModernPeer(http, url),
            }
            calls = {
                name: lambda name=name, peer=peer: peer.ask(tool_call(ID, "hold", {"name": name}, token=TOKEN))
                for name, peer in peers.items()
            }

            async def release():
                record = await held_by(watcher, len(peers))
                assert sorted(record["held"]) == sorted(peers)
                assert len(set(record["ids"])) == len(peers)
                assert record["handshakes"] == 1
                assert await watcher.call(ID, "release") == "released"

            came = await gathered({**calls, "release": release})
            for name in peers:
                report, answer = came[name]
                assert report["params"] == {"progressToken": TOKEN, "progress": 1, "message": name}
                assert answer["id"] == ID
                assert text_of(answer) == name


async def test_a_number_and_a_string_are_two_ids_and_come_back_as_they_were_sent(servers):
    with trio.fail_after(DEADLINE):
        async with posted_session(servers, "recorder") as session, http_client() as http:
            peer = await HTTPPeer.open(http, session["urls"]["mcp"])

            async def release():
                await held_by(peer, 2)
                await peer.call("8", "release")

            came = await gathered(
                {
                    "number": lambda: peer.ask(tool_call(7, "hold", {"name": "number"})),
                    "string": lambda: peer.ask(tool_call("7", "hold", {"name": "string"})),
                    "release": release,
                }
            )
            assert [(came[name][-1]["id"], text_of(came[name][-1])) for name in ("number", "string")] == [
                (7, "number"),
                ("7", "string"),
            ]


async def test_official_clients_on_one_session_do_not_get_in_each_others_way(servers):
    async def talk(urls, transport, mode):
        server = sse_client(urls["sse"]) if transport == "sse" else urls["mcp"]
        texts = [f"{transport} {mode} {number}" for number in range(20)]
        async with Client(server, mode=mode) as client:
            return [(await client.call_tool("echo", {"text": text})).content[0].text for text in texts] == texts

    with trio.fail_after(DEADLINE):
        async with posted_session(servers, "recorder") as session:
            ways = [(transport, mode) for transport in ("mcp", "sse") for mode in ("legacy", "auto")]
            done = await gathered({way: lambda way=way: talk(session["urls"], *way) for way in ways})
    assert done == dict.fromkeys(ways, True)


async def test_a_cancelled_call_is_cancelled_for_its_own_client_only(servers):
    with trio.fail_after(DEADLINE):
        async with (
            posted_session(servers, "recorder") as session,
            http_client() as http,
            trio.open_nursery() as nursery,
        ):
            url = session["urls"]["mcp"]
            watcher, quitter, stayer = [await HTTPPeer.open(http, url) for _ in range(3)]
            came, answered = [], trio.Event()

            async def stay():
                came.extend(await stayer.ask(tool_call(ID, "hold", {"name": "stayer"})))
                answered.set()

            nursery.start_soon(quitter.ask, tool_call(ID, "hold", {"name": "quitter"}))
            nursery.start_soon(stay)
            await held_by(watcher, 2)
            await quitter.notify("notifications/cancelled", {"requestId": ID, "reason": "enough"})
            record = await seen(watcher)
            assert (record["cancelled"], record["held"]) == (["quitter"], ["stayer"])
            await watcher.call(ID, "release")
            await answered.wait()
            assert [text_of(message) for message in came] == ["stayer"]
            nursery.cancel_scope.cancel()


async def test_a_client_of_the_new_revision_cancels_by_closing_its_connection(servers):
    with trio.fail_after(DEADLINE):
        async with posted_session(servers, "recorder") as session, http_client() as http:
            watcher = await HTTPPeer.open(http, session["urls"]["mcp"])
            modern = ModernPeer(http, session["urls"]["mcp"])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(modern.ask, tool_call(ID, "hold", {"name": "modern"}))
                await held_by(watcher, 1)
                nursery.cancel_scope.cancel()
            record = await record_when(watcher, lambda record: not record["held"], within=GRACE)
            assert record["cancelled"] == ["modern"]
            assert text_of((await modern.ask(tool_call(ID, "echo", {"text": "again"})))[-1]) == "again"


async def test_a_cancelled_call_that_is_never_answered_does_not_keep_its_session_from_idling_out(servers):
    with trio.fail_after(DEADLINE):
        async with http_client() as http, trio.open_nursery() as nursery:
            peer = await HTTPPeer.open(http, f"{servers.url}/mcp?env=fleeting")
            nursery.start_soon(peer.ask, tool_call(ID, "hold", {"name": "given up"}))
            await held_by(peer, 1)
            await peer.notify("notifications/cancelled", {"requestId": ID})
            await gone(http, f"{servers.url}/sessions/{peer.headers['Mcp-Session-Id']}", within=60)
            nursery.cancel_scope.cancel()


async def gone(http, url, within):
    """Wait until there is nothing at a URL any more."""
    with trio.fail_after(within):
        while (await http.get(url)).status_code != 404:  # noqa: ASYNC110 - it does not call us
            await trio.sleep(_LOOK_AGAIN)
