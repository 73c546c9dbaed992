"""OpenEnv's stock clients, and what plays through them, on a muxsim that they take for a server of their own."""

import json
import os
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import anyio
import pytest
from harness import ROOT, muxsim_serve
from own_environments import python_with

import muxsim

pytestmark = [pytest.mark.children, pytest.mark.large, pytest.mark.network]

LIMIT = 240
CONFIG = ROOT / "examples" / "muxsim.toml"
SCRIPT = Path(__file__).parent / "stock_openenv.py"
WON = {"seed": 1, "tool": "lake_move", "moves": ["DOWN", "DOWN", "DOWN", "RIGHT", "RIGHT", "RIGHT"]}


@pytest.fixture(scope="module")
def python():
    return python_with("openenv", "openenv==0.10.0", alone=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with muxsim_serve(tmp_path_factory.mktemp("stock"), CONFIG) as running:
        yield running


@pytest.fixture
def url(served):
    """A muxsim whose sessions have ended when the test is over, whatever its clients did."""
    yield served.url
    deadline = time.monotonic() + 60
    while sessions(served.url) and time.monotonic() < deadline:
        time.sleep(0.05)  # nobody is told of it here
    assert sessions(served.url) == []


def sessions(url):
    with urllib.request.urlopen(f"{url}/sessions") as answer:
        return json.load(answer)["sessions"]


def play(python, scenario, url, env="frozen_lake", **arguments):
    command = [python, SCRIPT, scenario, f"{url}/envs/{env}/openenv", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def rewards_of(env, seed, tool, moves):
    """What muxsim itself says of these moves."""

    async def earn():
        async with muxsim.open_pool(CONFIG) as pool:
            session = await pool.open(env, seed)
            results = [await session.call(tool, {"action": move}) for move in moves]
            await session.close()
            return [(one.control.reward, one.control.terminated or one.control.truncated) for one in results]

    return anyio.run(earn)


def test_the_generic_client_plays_what_muxsim_plays_sync_and_async(python, url):
    expected = rewards_of("frozen_lake", **WON)
    for scenario in ("generic_sync", "generic_async"):
        found = play(python, scenario, url, **WON)
        first, *steps = found["told"]
        assert (first["reward"], first["done"], first["meta"]["seed"]) == (None, False, 1)
        assert [(one["reward"], one["done"]) for one in steps] == expected
        assert steps[-1]["meta"]["end_reason"] == "terminated"
        assert steps[-1]["meta"]["total_reward"] == 1
        assert found["state"]["step_count"] == len(expected)
        assert not any("reward" in json.dumps(one["observation"]) for one in found["told"])
        if scenario == "generic_sync":
            assert [tool["name"] for tool in found["tools"]] == ["lake_move"]
            assert found["state"]["episode_id"] == "mine"
            assert "VALIDATION_ERROR" in found["refusal"]
        else:
            assert found["beside"]["observation"] == first["observation"]


def test_the_tool_client_plays_on_one_session_from_both_sides(python, url):
    moves = {"seed": 3, "tool": "env_step", "moves": ["UP", "UP", "RIGHT"]}
    expected = rewards_of("cliff_walking", 3, "step", moves["moves"])
    found = play(python, "mcp_tools", url, "cliff_walking", **moves)
    assert [tool["name"] for tool in found["tools"]] == found["listed"] == ["env_step"]
    assert "\nx  C" in found["first"] or "x" in found["first"]
    assert found["rewards"] == [reward for reward, _ in expected[1:]]
    assert found["metadata"]["total_reward"] == sum(reward for reward, _ in expected)
    assert found["step_count"] == 3
    assert "env_step" in found["refusal"]


def test_openenvs_harness_makes_rollouts_of_it(python, url):
    found = play(python, "harness", url, **WON)
    assert found["rewards"] == [1, 1]
    assert [metrics["step_count"] for metrics in found["metrics"]] == [6, 6]
    assert found["tools"] == ["lake_move"]


def test_openenv_validates_it_as_a_server(python, url):
    validate = [python.parent / "openenv", "validate", "--url", f"{url}/envs/frozen_lake/openenv", "--json"]
    done = subprocess.run(validate, capture_output=True, text=True, timeout=LIMIT, check=False)
    report = json.loads(done.stdout)
    assert (report["passed"], report["mode"], report["summary"]["failed_criteria"]) == (True, "production", [])


def test_a_client_that_is_killed_in_an_episode_leaves_no_process(python, url):
    [session] = play(python, "killed", url, **WON)["sessions"]
    deadline = time.monotonic() + 60
    while sessions(url) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sessions(url) == [], session


# ---- verifiers


class Player(BaseHTTPRequestHandler):
    """An endpoint whose model makes the moves that win."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[dict]] = []

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(asked)
        turn = sum(one["role"] == "assistant" for one in asked["messages"])
        said = json.dumps({"tool_name": WON["tool"], "arguments": {"action": WON["moves"][turn]}})
        deltas = [({"role": "assistant", "content": said}, None), ({}, "stop")]
        events = [
            {
                "id": "x",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "player",
                "choices": [{"index": 0, "delta": delta, "finish_reason": why}],
            }
            for delta, why in deltas
        ]
        lines = [*map(json.dumps, events), "[DONE]"]
        body = "".join(f"data: {line}\n\n" for line in lines).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@contextmanager
def player():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Player)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


EVALUATION = """
model = "player"
push = false
output_dir = "{output}"
[client]
type = "eval"
base_url = "{player}"
api_key_var = "PLAYER_KEY"
[env.taskset]
id = "openenv"
base_url = "{url}/envs/frozen_lake/openenv"
resets = [{{seed = 1}}]
[env.player.harness]
id = "null"
[env.player.runtime]
type = "subprocess"
"""


def test_verifiers_evaluates_through_it_and_its_model_sees_no_reward(url, tmp_path):
    python = python_with("verifiers", "verifiers[openenv]==0.4.0", alone=True)
    with player() as endpoint:
        (tmp_path / "eval.toml").write_text(EVALUATION.format(output=tmp_path / "out", player=endpoint, url=url))
        subprocess.run(
            [python.parent / "vf-eval", "@", tmp_path / "eval.toml", "--no-rich"],
            env={**os.environ, "PLAYER_KEY": "x"},
            capture_output=True,
            timeout=LIMIT,
            check=False,
        )
    [traces] = (tmp_path / "out").rglob("traces.jsonl")
    [episode] = map(json.loads, traces.read_text().splitlines())
    [trace] = episode["traces"]
    assert trace["rewards"]["openenv_reward"]["score"] == 1
    assert (trace["stop_condition"], trace["errors"], episode["errors"]) == ("user_closed", [], [])
    shown = json.dumps([asked["messages"] for asked in Player.asked])
    assert "lake_move" in shown
    assert not [word for word in ("total_reward", "terminated", "muxsim/control") if word in shown]
