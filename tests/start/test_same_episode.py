"""Every Python example plays the same episode for the same seed, however its process was started."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from harness import ROOT
from serve.machine import eventually

from muxsim.admission.pool import capacity_of, open_pool
from muxsim.config import ServerSettings, load
from muxsim.observe.counters import Counters
from muxsim.observe.events import Events
from muxsim.session.control.own_client import OwnClient
from muxsim.session.registry import open_sessions
from start.playing import starts

pytestmark = pytest.mark.children

EXAMPLES = load(ROOT / "examples" / "muxsim.toml").environments
# An import of all of them takes seconds on a machine that is busy with other tests.
LIMIT = 300  # s, on a machine that is busy with others
PLAYED = {
    "frozen_lake": ("lake_move", [{"action": move} for move in ("DOWN", "RIGHT", "UP", "LEFT", "DOWN")]),
    "cliff_walking": ("step", [{"action": move} for move in ("UP", "UP", "RIGHT", "RIGHT", "LEFT", "UP")]),
    "blackjack": ("step", [{"action": "HIT"}, {"action": "HIT"}]),
    "lunar_lander": ("fire", [{"engine": "MAIN", "frames": 20}, {"engine": "LEFT"}, {"engine": "NOTHING"}]),
}
HANDSHAKE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


async def episode(sessions, env, seed):
    """All that the environment answers, the control plane included, as bytes."""
    session = await sessions.open(env, seed=seed)
    client = OwnClient(session)
    answers = [await client.ask("initialize", HANDSHAKE, LIMIT)]
    client.notify("notifications/initialized")
    answers.append(await client.ask("tools/list", {}, LIMIT))
    tool, calls = PLAYED[env.removesuffix("_fresh")]
    for arguments in calls:
        params = {"name": tool, "arguments": arguments, "_meta": {"muxsim/control": True}}
        answers.append(await client.ask("tools/call", params, LIMIT))
    session.end("test", "played")
    await session.wait_ended()
    return [bytes(answer.members["result"]) for answer in answers]


@pytest.mark.parametrize("env", PLAYED)
async def test_a_fork_plays_what_a_fresh_process_plays(env, tmp_path, monkeypatch):
    monkeypatch.setenv("MUXSIM_CACHE", str(tmp_path / "cache"))
    fresh = replace(EXAMPLES[env], name=f"{env}_fresh", zygote=False)
    specs = {env: EXAMPLES[env], fresh.name: fresh}
    async with (
        open_pool(capacity_of(ServerSettings()), events=Events(Counters())) as pool,
        open_sessions(pool, specs, pool.events) as sessions,
    ):
        with trio.fail_after(LIMIT):
            learner = await episode(sessions, env, 3)
            await eventually(
                lambda: any(zygote.ready.is_set() for zygote in pool.placement.starter.zygotes.fleet.alive),
                within=LIMIT,
            )
            forks = [await episode(sessions, env, seed) for seed in (3, 3, 4)]
            assert starts(pool, "fork") == 3
            assert forks[0] == forks[1] == learner == await episode(sessions, fresh.name, 3)
            assert forks[2] == await episode(sessions, fresh.name, 4)
            assert forks[0] != forks[2]
