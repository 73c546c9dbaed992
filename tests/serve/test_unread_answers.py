"""Answers that clients leave in their connections, whichever way they went."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
from harness import serving

from .conftest import environment
from .machine import eventually, own_descriptors
from .test_connections import posted
from .wire import ask, connect, request_bytes, shake_hands, tool_call

pytestmark = pytest.mark.children

MIB = 2**20
CONFIG = """[server]
max_buffered = "64 KiB"
max_unread = "24 MiB"
stall_timeout = {stall}
log_level = "debug"
allowed_origins = ["https://app.example"]
"""
WAYS = {"short": [], "ordinary": [("Origin", "https://app.example")]}


async def limits(url):
    return (await ask(url, "GET", "/health")).json()["limits"]


async def read_all(connection):
    """Everything that still comes, until the connection ends in whatever way."""
    length = 0
    try:
        while data := await connection.stream.receive_some(2**20):
            length += len(data)
    except trio.BrokenResourceError:
        pass
    return length


@pytest.mark.fault("L5")
@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_that_is_not_read_is_dropped_in_time_and_counted(tmp_path, way):
    """L5."""
    async with serving(tmp_path, CONFIG.format(stall=1) + environment("naughty")) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp")
        async with connect(muxsim.url) as connection:
            await connection.stream.send_all(posted(client, tool_call(1, "big", {"mib": 16}), WAYS[way]))

            async def cut():
                return (await limits(muxsim.url))["stall_timeout"] == 1

            await eventually(cut, within=120)
            assert await read_all(connection) < 16 * MIB
        assert await client.text("say", text="goes on") == "goes on"


@pytest.mark.fault("L5")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("by", ["its client", "whoever made it"])
async def test_an_answer_that_is_not_read_goes_with_its_session(tmp_path, way, by):
    """L5: its memory comes back when the session is deleted."""
    async with serving(tmp_path, CONFIG.format(stall=600) + environment("naughty")) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp")
        before = own_descriptors(muxsim.process.pid)
        async with connect(muxsim.url) as connection:
            await connection.stream.send_all(posted(client, tool_call(1, "big", {"mib": 16}), WAYS[way]))

            async def waits():
                return (await limits(muxsim.url))["max_buffered"] >= 1

            await eventually(waits, within=120)
            if by == "its client":
                assert (await client.delete()).status == 204
            else:
                assert (await ask(muxsim.url, "DELETE", f"/sessions/{client.id}")).status == 204

            async def cut():
                return (await limits(muxsim.url))["stall_timeout"] == 1

            await eventually(cut, within=120)
            await eventually(lambda: own_descriptors(muxsim.process.pid) < before, within=120)
            assert await read_all(connection) < 16 * MIB


@pytest.mark.fault("L5")
async def test_past_the_budget_of_a_client_all_its_backends_wait_until_it_reads(tmp_path):
    """L5: nothing is lost to one that reads on."""
    async with serving(tmp_path, CONFIG.format(stall=600) + environment("naughty")) as muxsim:
        clients = [await shake_hands(muxsim.url, "/mcp") for _ in range(3)]
        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(connect(muxsim.url)) for _ in clients]
            for client, connection in zip(clients, connections, strict=True):
                await connection.stream.send_all(posted(client, tool_call(1, "big", {"mib": 20})))

            async def over():
                return (await limits(muxsim.url))["max_unread"] >= 1

            await eventually(over, within=120)
            async with trio.open_nursery() as nursery:
                for connection in connections:
                    nursery.start_soon(read_answer, connection)


async def read_answer(connection):
    assert len((await connection.answer()).body) > 20 * MIB


async def test_requests_whose_answers_are_not_read_are_not_taken(tmp_path):
    """L5: of those on one connection, the next is begun when the client has read the one before."""
    async with serving(tmp_path, CONFIG.format(stall=600) + environment("naughty")) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp")
        async with connect(muxsim.url) as connection:
            calls = b"".join(posted(client, tool_call(number, "big", {"mib": 8})) for number in range(4))
            await connection.stream.send_all(calls + request_bytes("127.0.0.1", "GET", "/ready"))

            async def waits():
                return (await limits(muxsim.url))["max_buffered"] >= 1

            await eventually(waits, within=120)
            for number in range(4):
                assert (await connection.answer()).json()["id"] == number
            assert (await connection.answer()).status == 200
