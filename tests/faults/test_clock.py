"""The wall clock jumps by a day, again and again, and nobody is over for it, or lives longer."""

from __future__ import annotations

import sys

import harness
import pytest
import trio
from harness import serving
from serve.conftest import environment
from serve.machine import log_lines, logged
from serve.wire import EventReader, shake_hands, text_of

pytestmark = pytest.mark.children

# Every reading of the clock is a day before or a day behind the one before it.
JUMPY = (
    "import itertools, runpy, time\n"
    "real, jumps = time.time, itertools.cycle((86400.0, -86400.0))\n"
    "time.time = lambda: real() + next(jumps)\n"
    "time.time_ns = lambda: int(time.time() * 1e9)\n"
    "runpy.run_module('muxsim', run_name='__main__')\n"
)
CONFIG = "[server]\nstream_silence = 0.2\nping_interval = 0.2\nstall_timeout = 5\n" + environment(
    "naughty", extra="call_timeout = 5\nidle_timeout = 1\nttl = 30"
)


@pytest.mark.fault("H10")
async def test_h10_a_wall_clock_that_jumps_by_a_day_ends_nothing_and_keeps_nothing_alive(tmp_path, monkeypatch):
    """Calls, streams and what may be resumed go on; an idle session still ends, after its second."""
    monkeypatch.setattr(harness, "MUXSIM", (sys.executable, "-c", JUMPY))
    async with serving(tmp_path, CONFIG) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp")
        with trio.fail_after(20):
            assert await client.text("slow", seconds=1.5) == "at last"
            async with client.listening() as connection:
                await trio.sleep(1.5)
                assert await client.text("list_changed") == "changed"
                assert (await EventReader(connection).next()).id
            answer = await client.post({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "log"}})
            assert [text_of(message) for message in answer.messages if "id" in message] == ["logged"]
            ended = await logged(muxsim, event="session.ended", session=client.id, within=5)
        assert ended["cause"] == "idle_timeout"
        assert 3 < ended["seconds"] < 10
        whats = [line["event"] for line in log_lines(muxsim, session=client.id)]
        order = ["session.started", "session.ready", "session.ended"]
        assert [what for what in whats if what in order] == order
