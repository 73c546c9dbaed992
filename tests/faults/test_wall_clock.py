"""H10: the wall clock jumps by a day, either way, and nobody's time is over or longer for it."""

from __future__ import annotations

from datetime import datetime

import pytest
from harness import serving
from serve.conftest import environment
from serve.machine import eventually, log_lines, logged
from serve.wire import ask, shake_hands, tool_call

pytestmark = pytest.mark.children

DAY = 86_400
# What a jump of the system's clock is to a Python program; the machine's own is not ours to set.
JUMPING = """
import datetime, os, time
real, now = time.time, datetime.datetime
def jump():
    try:
        return int(open(os.environ["JUMP"]).read() or 0)
    except OSError:
        return 0
class Jumping(now):
    @classmethod
    def now(cls, tz=None):
        return now.now(tz) + datetime.timedelta(seconds=jump())
time.time = lambda: real() + jump()
datetime.datetime = Jumping
"""


@pytest.mark.fault("H10")
@pytest.mark.parametrize("jump", [DAY, -DAY])
async def test_a_jump_of_the_wall_clock_ends_nothing_and_keeps_nothing(tmp_path, jump, gate):
    site, moved = tmp_path / "site", tmp_path / "jump"
    site.mkdir()
    (site / "sitecustomize.py").write_text(JUMPING)
    times = "call_timeout = 600\nidle_timeout = 600\nttl = 6000"
    config = environment("naughty", extra=times) + environment("brief", extra="idle_timeout = 2")
    variables = {"PYTHONPATH": str(site), "JUMP": str(moved)}
    async with serving(tmp_path, config, env=variables) as muxsim:
        brief = await shake_hands(muxsim.url, "/envs/brief/mcp")
        call = tool_call("a", "slow", {"until": gate.path})
        async with brief.posting(call) as held:  # so that it is there at the jump, and idle only afterwards
            client, idle = [await shake_hands(muxsim.url, "/envs/naughty/mcp") for _ in range(2)]
            async with client.posting(call) as waiting:

                async def in_flight():
                    return all([(await one.session())["in_flight"] for one in (brief, client)])

                await eventually(in_flight)
                moved.write_text(str(jump))
                gate.open()
                for connection in (held, waiting):
                    assert (await connection.answer()).messages[-1]["id"] == "a"
        assert await idle.text("say", text="still here") == "still here"
        ended = await logged(muxsim, event="session.ended", within=120)
        assert (ended["session"], ended["cause"]) == (brief.id, "idle_timeout")
        assert 1.5 < ended["seconds"] < DAY / 2
        assert await client.text("say", text="still here") == "still here"
        assert (await ask(muxsim.url, "GET", "/ready")).status == 200
        times = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in log_lines(muxsim)]
        assert abs(times[-1] - times[0]) > DAY / 2, "the clock did jump, as far as muxsim can see"
