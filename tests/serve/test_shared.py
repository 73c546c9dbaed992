"""Clients of one shared session, over HTTP and with a real child."""

from __future__ import annotations

import json
import signal

import pytest
from harness import serving

from .conftest import environment
from .machine import gone, logged
from .wire import EventReader, connect, shake_hands, tool_call

pytestmark = pytest.mark.children

PATH = "/envs/common/mcp"
CONFIG = environment("common", extra="shared = true") + environment("naughty")


def config_of(folder):
    return folder / "config" / "muxsim.toml"


async def test_a_client_that_does_not_read_is_cut_and_everybody_else_served_meanwhile(tmp_path):
    async with serving(tmp_path, CONFIG) as muxsim:
        stalled, other = await shake_hands(muxsim.url, PATH), await shake_hands(muxsim.url, PATH)
        pid = (await other.value("who"))["pid"]
        async with connect(muxsim.url, receive_buffer=4096) as connection:
            message = tool_call(7, "progress_flood", {"count": 4000, "size": 10_000}, {"progressToken": "mine"})
            await connection.send("POST", stalled.path, stalled.headers, json.dumps(message).encode())
            await connection.head()
            assert await other.text("say", text="here") == "here"
            await logged(muxsim, event="session.limit", limit="max_buffered", within=60)
        assert (await stalled.post(tool_call(8, "say", {"text": "back"}))).status == 404
        again = await shake_hands(muxsim.url, PATH)
        assert await again.text("say", text="back") == "back"
        assert (await other.value("who"))["pid"] == pid
        assert "Traceback" not in muxsim.log.read_text()


async def test_neither_log_lines_nor_requests_caused_by_one_clients_call_reach_another(tmp_path):
    async with serving(tmp_path, CONFIG) as muxsim:
        first, second = await shake_hands(muxsim.url, PATH), await shake_hands(muxsim.url, PATH)
        async with connect(muxsim.url) as connection:
            await connection.send("GET", second.path, [*second.headers, ("Accept", "text/event-stream")])
            await connection.head()
            events = EventReader(connection)
            assert await first.text("log", data="a secret") == "logged"
            assert "several clients share" in (await first.post(tool_call(8, "sample"))).body.decode()
            await second.delete()
            heard = [event.data for event in await events.rest() if event.data]
        assert heard == []


async def test_the_session_of_a_removed_environment_ends_with_the_reload(tmp_path):
    async with serving(tmp_path, CONFIG) as muxsim:
        client = await shake_hands(muxsim.url, PATH)
        pid = (await client.value("who"))["pid"]
        config_of(tmp_path).write_text(environment("naughty"))
        muxsim.process.send_signal(signal.SIGHUP)
        await logged(muxsim, event="session.ended", cause="reloaded", within=60)
        await gone(pid)
        assert (await client.post(tool_call(8, "say", {"text": "back"}))).status == 404
