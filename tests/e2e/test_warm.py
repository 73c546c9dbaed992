"""Warm slots with real environments, and in a real muxsim. Rows are those of the table of faults."""

from __future__ import annotations

import json
import signal
import urllib.request
from dataclasses import replace

import pytest
import trio
from harness import ROOT, muxsim_serve
from serve.machine import eventually, gone, processes_with

from muxsim.admission.admission import Capacity
from muxsim.admission.pool import open_pool
from muxsim.config import Config, load
from muxsim.observe.counters import Counters
from muxsim.observe.events import Events
from muxsim.rollouts.environments.pool import LocalPool
from muxsim.session.registry import open_sessions

pytestmark = pytest.mark.children

START = 120  # s; on a machine that is busy with other tests
SEEDS = (0, 7)
GAMES = {
    "treasure_grid": ("move", [{"direction": direction} for direction in ("up", "right", "down", "left") * 5]),
    "frozen_lake": ("lake_move", [{"action": action} for action in ("RIGHT", "DOWN", "LEFT") * 5]),
}


def game(env):
    """The spec of one of the examples."""
    if env == "treasure_grid" and not (ROOT / "js_servers" / "treasure-grid" / "node_modules").exists():
        pytest.skip("npm ci was not run in js_servers/treasure-grid")
    return load(ROOT / "examples" / "muxsim.toml").environments[env]


def env_is_python(spec):
    return spec.command.endswith("python") or "python3" in spec.command


async def directly(function, *args):
    return await function(*args)


async def episodes(spec):
    """What a client sees of an episode for each seed, and what became of the slots."""
    config, played = Config(environments={spec.name: spec}, default=spec.name), []
    tool, moves = GAMES[spec.name]
    counters = Counters()
    capacity = Capacity(max_sessions=2, max_pending=0, queue_timeout=1, max_starting=2)
    async with (
        open_pool(capacity, events=Events(counters)) as pool,
        open_sessions(pool, config.environments, Events()) as sessions,
    ):
        local = LocalPool(config, sessions, directly)
        pool.keep_warm([spec])
        if spec.warm and env_is_python(spec):
            await (await local.open(spec.name, 1)).close()  # the first session of all learns for the zygote
        for seed in SEEDS:
            if spec.warm:
                await eventually(lambda: pool.statistics().placement.warm[spec.name].ready, within=START)
            environment = await local.open(spec.name, seed)
            opened = replace(environment.opened, start_seconds=0, handshake_seconds=0, workspace=None)
            results = [await environment.call(tool, move) for move in moves]
            played.append((opened, [(one.content, one.is_error, one.control) for one in results]))
            await environment.close()
        return played, counters


@pytest.mark.parametrize("env", GAMES)
async def test_a_seed_gives_the_same_episode_from_a_slot_and_from_a_fresh_process(env):
    spec = game(env)
    with trio.fail_after(120):
        fresh, _ = await episodes(spec)
        warm, counters = await episodes(replace(spec, warm=1))
    assert warm == fresh
    assert warm[0] != warm[1]
    assert counters.total("slots_used") == len(SEEDS)
    assert counters.total("slots_missed") == (1 if env_is_python(spec) else 0)


def health(url):
    with urllib.request.urlopen(f"{url}/health", timeout=60) as answer:
        return json.load(answer)


async def test_slots_are_filled_before_anybody_asks_and_gone_when_muxsim_is_killed(tmp_path):
    """H7."""
    script = tmp_path / "server.mjs"
    script.write_text("process.stdin.resume();\n")
    mark = f"warm-{tmp_path.name}"
    config = f'[environments.wait]\ncommand = "node"\nargs = ["{script}"]\nwarm = 2\nenv = {{ MARK = "{mark}" }}\n'
    with muxsim_serve(tmp_path, config, env={"TMPDIR": str(tmp_path)}) as running:
        await eventually(lambda: health(running.url)["warm"]["wait"]["ready"] == 2, within=START)
        pids = processes_with(mark)
        assert len(pids) == 2
        running.stop(signal.SIGKILL)
        await gone(*pids)
