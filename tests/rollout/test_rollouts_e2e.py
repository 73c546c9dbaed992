"""Rollouts with real environments: over every wire, from Python on trio and asyncio, and by the command."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from contextlib import asynccontextmanager

import anyio
import httpx2
import pytest
from anyio.lowlevel import checkpoint
from cli.terminal import muxsim
from harness import MUXSIM, ROOT, SERVERS, serving
from servers.chat_completions import USAGE, calls, chat_server, fails, hangs, refused, says, with_tokens

import muxsim as library
from muxsim.observe.events import SessionEnded, SessionStarted
from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.data.trajectory import EndReason
from muxsim.rollouts.policy.messages import assistant_calls, turn_of
from muxsim.rollouts.policy.protocol import Reply
from muxsim.rollouts.policy.random import RandomPolicy

from .runs import config, mixed, played, told, treasure

pytestmark = pytest.mark.children

LIMIT = 300  # s, on a machine that is busy with others
WIRES = ("trio", "asyncio", "http", "sse")
# With random actions some of these reach their own end and others do not.
SEEDS = (("frozen_lake", 2), ("treasure_grid", 1), ("frozen_lake", 8), ("treasure_grid", 2))
ROWS = [{"id": f"{env}-{seed}", "env": env, "seed": seed, "system_prompt": "Play."} for env, seed in SEEDS]
MOST_STEPS = 30


class Watched:
    """A policy that keeps everything it was given, as text."""

    def __init__(self, policy):
        self.policy = policy
        self.given = []

    async def next_message(self, conversation, tools, seed):
        self.given.append(json.dumps([list(conversation), list(tools)]))
        return await self.policy.next_message(conversation, tools, seed)


@asynccontextmanager
async def pool_over(wire, folder, file, **options):
    """The environments of a config in this process, or behind a serving muxsim."""
    if wire in ("trio", "asyncio"):
        async with library.open_pool(file, **options) as pool:
            yield pool
        return
    async with serving(folder, file) as running, library.connect(running.url, wire=wire) as pool:
        yield pool


def on(wire, function, *arguments):
    """Run it on the loop that the wire is for, in bounded time."""

    async def bounded():
        with anyio.fail_after(LIMIT):
            return await function(*arguments)

    return anyio.run(bounded, backend="asyncio" if wire in ("asyncio", "http") else "trio")


async def play(wire, folder, policy):
    async with pool_over(wire, folder, mixed(folder)) as pool:
        return await library.rollout(pool, ROWS, policy=policy, max_steps=MOST_STEPS, max_concurrent=4)


@pytest.fixture(scope="module")
def over_each_wire(tmp_path_factory):
    """The same mixed run over each wire: trajectories, and what the policy was given."""
    runs = {}
    for wire in WIRES:
        policy = Watched(RandomPolicy())
        runs[wire] = on(wire, play, wire, tmp_path_factory.mktemp(wire), policy), policy.given
    return runs


@pytest.mark.parametrize("wire", WIRES)
def test_each_episode_goes_on_past_its_first_step_and_ends_by_itself(over_each_wire, wire):
    trajectories, _ = over_each_wire[wire]
    assert [trajectory.id for trajectory in trajectories] == [row["id"] for row in ROWS]
    assert all(trajectory.valid and trajectory.total_reward is not None for trajectory in trajectories)
    assert min(len(trajectory.steps) for trajectory in trajectories) > 1
    assert {trajectory.end_reason for trajectory in trajectories} == {EndReason.TERMINATED, EndReason.MAX_STEPS}
    assert len({len(trajectory.steps) for trajectory in trajectories}) > 2
    for trajectory in trajectories:
        over = [step.control.terminated or step.control.truncated for step in trajectory.steps]
        assert over[:-1] == [False] * (len(over) - 1)
        assert over[-1] == (trajectory.end_reason is not EndReason.MAX_STEPS)


@pytest.mark.parametrize("wire", WIRES)
def test_each_tool_message_has_its_control_plane(over_each_wire, wire):
    trajectories, _ = over_each_wire[wire]
    for trajectory in trajectories:
        planes = [message["metadata"]["control_plane"] for message in trajectory.messages if message["role"] == "tool"]
        assert [plane["reward"] for plane in planes] == [step.control.reward for step in trajectory.steps]
        assert all(plane.keys() == {"reward", "terminated", "truncated", "step", "info"} for plane in planes)


@pytest.mark.parametrize("wire", WIRES)
def test_nothing_of_the_control_plane_is_given_to_the_policy(over_each_wire, wire):
    _, given = over_each_wire[wire]
    words = ("metadata", "control_plane", "muxsim/control", "reward", "terminated", "truncated", "prob")
    assert len(given) > len(ROWS)
    assert [word for word in words for text in given if word in text] == []


@pytest.mark.parametrize("wire", WIRES[1:])
def test_a_run_is_the_same_over_every_wire(over_each_wire, wire):
    here, there = ([told(trajectory) for trajectory in over_each_wire[name][0]] for name in (WIRES[0], wire))
    assert there == here


def test_python_and_javascript_take_part_in_one_run(over_each_wire):
    trajectories, _ = over_each_wire["trio"]
    assert {trajectory.env for trajectory in trajectories} == {"frozen_lake", "treasure_grid"}
    assert len({trajectory.session for trajectory in trajectories}) == len(ROWS)


# A backend that dies


TALKER = """\
import sys
import gymnasium
from muxsim.mcpgym import GymServer

def make(seed):
    print(f"the lake of seed {seed} freezes", file=sys.stderr, flush=True)
    return gymnasium.make("FrozenLake-v1")

GymServer("talker", make).run()
"""


class Kills:
    """A random policy that kills the backend of one seed before its third action, and waits for ``then``."""

    def __init__(self, seed, pid_of, then):
        self.seed = seed
        self.pid_of = pid_of
        self.then = then

    async def next_message(self, conversation, tools, seed):
        await checkpoint()
        if seed == self.seed and turn_of(conversation) == 2:
            os.kill(await self.pid_of(seed), signal.SIGKILL)
            await self.then()
        return await RandomPolicy().next_message(conversation, tools, seed)


@pytest.mark.parametrize("noticed", [False, True], ids=["at once", "noticed before the call"])
@pytest.mark.parametrize("wire", ["trio", "asyncio", "http", "sse"])
def test_a_backend_that_is_killed_ends_its_episode_alone(tmp_path, wire, noticed):
    (tmp_path / "talker.py").write_text(TALKER)
    file = config(tmp_path, talker=tmp_path / "talker.py", treasure_grid=ROOT / "js_servers" / "treasure-grid")
    rows = [{"id": "killed", "env": "talker", "seed": 5}]
    rows += [{"id": f"other-{seed}", "env": "treasure_grid", "seed": seed} for seed in (2, 3)]

    async def run():
        pids = {}

        def listen(event):
            if isinstance(event, SessionStarted):
                pids[event.seed] = event.pid
            elif isinstance(event, SessionEnded):
                del pids[event.seed]

        async def pid_of(seed):
            if wire in ("http", "sse"):
                async with httpx2.AsyncClient() as client:
                    listed = (await client.get(f"{pool.url}/sessions")).json()["sessions"]
                pids.clear()
                pids.update({session["seed"]: session["pid"] for session in listed})
            return pids.get(seed)

        async def gone():
            with anyio.fail_after(60):
                while noticed and await pid_of(5) is not None:
                    await checkpoint()

        options = {} if wire in ("http", "sse") else {"on_event": listen}
        async with pool_over(wire, tmp_path, file, **options) as pool:
            return await library.rollout(pool, rows, policy=Kills(5, pid_of, gone), max_steps=20)

    killed, *others = on(wire, run)
    assert (killed.end_reason, killed.valid, killed.total_reward) == (EndReason.ENV_CRASHED, False, None)
    assert len(killed.steps) == 2
    assert "the lake of seed 5 freezes" in killed.stderr
    assert "SIGKILL" in killed.error
    assert [(other.valid, other.total_reward is None) for other in others] == [(True, False)] * 2
    assert {other.end_reason for other in others} <= {EndReason.MAX_STEPS, EndReason.TERMINATED}


# The command


def rollout(folder, *options, **more):
    return muxsim(folder, "rollout", *options, **more)


class LastTool:
    """Calls the last of the tools that it is shown."""

    async def next_message(self, conversation, tools, seed):
        await checkpoint()
        name = tools[-1]["function"]["name"]
        return Reply(assistant_calls([(name, {})], turn_of(conversation)))


@pytest.mark.parametrize("wire", WIRES)
def test_a_server_that_asks_and_whose_tools_change_gives_the_same_trajectory_over_every_wire(wire, tmp_path):
    async def play_it():
        async with pool_over(wire, tmp_path, config(tmp_path, growing=SERVERS / "growing.py")) as pool:
            rows = [{"id": "row", "env": "growing", "seed": 0}]
            return await library.rollout(pool, rows, policy=LastTool(), max_steps=3)

    (trajectory,) = on(wire, play_it)
    assert [step.tool for step in trajectory.steps] == ["look", "fly", "fly"], trajectory.error
    assert json.loads(trajectory.steps[0].content[0]["text"]) == [{}, {"roots": []}, "no"]
    assert [change.step for change in trajectory.tools_changed] == [0]
    assert [tool["function"]["name"] for tool in trajectory.tools_changed[0].tools] == ["look", "fly"]


def two_in_a_shared_session(wire, tmp_path, server, **options):
    """Two episodes, one after the other."""
    file = config(tmp_path, game=SERVERS / server)
    file.write_text(file.read_text() + "shared = true\n")

    async def play_it():
        async with pool_over(wire, tmp_path, file) as pool:
            rows = [{"id": f"row-{seed}", "env": "game", "seed": seed} for seed in (1, 2)]
            return await library.rollout(pool, rows, max_concurrent=1, **options)

    return on(wire, play_it)


@pytest.mark.parametrize("wire", WIRES)
def test_a_shared_environment_goes_on_after_an_episode_and_has_its_own_seed(wire, tmp_path):
    first, second = two_in_a_shared_session(wire, tmp_path, "growing.py", policy=LastTool(), max_steps=1)
    assert (first.valid, second.valid) == (True, True), (first.error, second.error)
    assert (first.session, first.seed) == (second.session, second.seed)
    assert second.steps[0].tool == "fly", "it is the one that the first has played with"


class OneCall:
    """A call in the first episode, and none in the others."""

    called = False

    async def next_message(self, conversation, tools, seed):
        await checkpoint()
        if not self.called:
            self.called = True
            return Reply(assistant_calls([("open", {})], 0))
        return Reply({"role": "assistant", "content": "."})


@pytest.mark.parametrize("wire", WIRES)
def test_an_episode_in_a_shared_session_has_earned_what_its_own_calls_have(wire, tmp_path):
    first, second = two_in_a_shared_session(wire, tmp_path, "broken_environment.py", policy=OneCall())
    assert (first.total_reward, second.total_reward) == (0.5, 0.0), (first.error, second.error)


@pytest.fixture
def folder(tmp_path):
    treasure(tmp_path)
    return tmp_path


def test_more_rollouts_than_before_extend_a_run_and_another_environment_does_not(tmp_path):
    script = tmp_path / "game.py"
    script.write_text((ROOT / "tests" / "servers" / "hidden_dice.py").read_text())
    config(tmp_path, game=script)
    options = ("muxsim.toml", "--max-steps", "1", "--output", "run")
    assert rollout(tmp_path, *options, "--rollouts", "1").status == 0
    assert rollout(tmp_path, *options, "--rollouts", "2", "--resume").status == 0
    assert played(tmp_path / "run").keys() == {"game-0", "game-1"}
    assert rollout(tmp_path, *options, "--rollouts", "1", "--resume").status == 0
    with script.open("a") as file:
        file.write("# another\n")
    again = rollout(tmp_path, *options, "--rollouts", "2", "--resume")
    assert (again.status, "game: game.py has changed" in again.stderr) == (2, True)


def test_a_run_behind_a_url_knows_its_environment_again_in_the_words_of_a_local_one(tmp_path):
    script = tmp_path / "game.py"
    script.write_text((ROOT / "tests" / "servers" / "hidden_dice.py").read_text())
    file = config(tmp_path, game=script)

    async def run():
        async with serving(tmp_path, file) as running:
            options = ("--url", running.url, "--max-steps", "1", "--output", "run")
            made = await anyio.to_thread.run_sync(lambda: rollout(tmp_path, *options, "--rollouts", "1"))
            more = await anyio.to_thread.run_sync(lambda: rollout(tmp_path, *options, "--rollouts", "2", "--resume"))
            with script.open("a") as changed:
                changed.write("# another\n")
            again = await anyio.to_thread.run_sync(lambda: rollout(tmp_path, *options, "--rollouts", "3", "--resume"))
            return made, more, again

    made, more, again = on("trio", run)
    assert (made.status, more.status, again.status) == (0, 0, 2), again.stderr
    assert "game: game.py has changed" in again.stderr
    assert "does not tell" not in more.stderr
    assert RunFolder(tmp_path / "run").config.parts["game"].keys() == {"game.py", "package gymnasium"}


def test_a_run_is_resumed_with_what_is_missing(folder):
    options = ("muxsim.toml", "--rollouts", "4", "--max-steps", "6", "--output", "run")
    assert rollout(folder, *options).status == 0
    rows = folder / "run" / "rollouts.jsonl"
    first = played(folder / "run")
    kept = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join(kept[:2]) + kept[2][:100])  # as a kill leaves it
    again = rollout(folder, *options, "--resume")
    now = played(folder / "run")
    before = [json.loads(line)["id"] for line in kept[:2]]
    assert again.status == 0
    assert len([line for line in again.stderr.splitlines() if line.startswith("[")]) == 2
    assert {id: told(now[id]) for id in now} == {id: told(first[id]) for id in first}
    assert [now[id].session for id in before] == [first[id].session for id in before]
    assert RunFolder(folder / "run").metrics().complete


def test_rows_are_piped_in_drawn_in_an_order_that_is_on_record_and_resumed(folder):
    rows = "id,start,answer\n" + "".join(f"task-{number},{number},x\n" for number in range(6))
    options = ("muxsim.toml", "--dataset", "-", "--column", "seed=start", "--column", "info=*", "--max-steps", "2")
    chosen = (*options, "--output", "run", "--shuffle", "--seed", "5", "--limit", "3")
    made = rollout(folder, *chosen, input=rows)
    assert made.status == 0, made.stderr
    episodes = played(folder / "run")
    assert len(episodes) == 3
    assert all(one.id == f"task-{one.seed}" and one.info == {"answer": "x"} for one in episodes.values())
    described = RunFolder(folder / "run").config
    assert (described.dataset, described.options["shuffle"], described.options["limit"]) == ("-", 5, 3)
    (folder / "run" / "rollouts.jsonl").write_text("")
    assert rollout(folder, *chosen, "--resume", input=rows).status == 0
    assert played(folder / "run").keys() == episodes.keys()
    other = rollout(folder, *options, "--output", "run", "--limit", "3", "--resume", input=rows)
    assert (other.status, "options.shuffle was 5, is null" in other.stderr) == (2, True)


def test_a_run_over_sse_is_on_record_and_replays_where_it_was_made(folder):
    async def run():
        async with serving(folder, folder / "muxsim.toml") as running:
            options = ("--url", running.url, "--transport", "sse", "--rollouts", "2", "--max-steps", "5")
            made = await anyio.to_thread.run_sync(lambda: rollout(folder, *options, "--output", "run"))
            more = "--output", "run", "--rollouts", "3", "--resume"
            resumed = await anyio.to_thread.run_sync(lambda: rollout(folder, *options, *more))
            again = await anyio.to_thread.run_sync(lambda: muxsim(folder, "replay", "run"))
            return made, resumed, again

    made, resumed, again = on("trio", run)
    assert (made.status, resumed.status, again.status) == (0, 0, 0)
    assert again.stdout.startswith("3 of 3 episodes are the same")


def test_a_run_is_shown_as_a_page_and_exported(folder):
    assert rollout(folder, "muxsim.toml", "--rollouts", "2", "--max-steps", "5", "--output", "run").status == 0
    shown = muxsim(folder, "view", "run")
    chat = muxsim(folder, "export", "run", "chat.jsonl")
    atif = muxsim(folder, "export", "run", "atif", "--format", "atif")
    assert [finished.status for finished in (shown, chat, atif)] == [0, 0, 0]
    page = (folder / "run" / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "treasure_grid-1" in page
    lines = [json.loads(line) for line in (folder / "chat.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert all(line["messages"] and line["tools"] for line in lines)
    files = sorted((folder / "atif").rglob("*.json"))
    assert len(files) == 2
    assert json.loads(files[0].read_text())["schema_version"].startswith("ATIF-v1")


ERRORS = {
    "both": (("muxsim.toml", "--url", "http://127.0.0.1:1"), "name a config, or a serving muxsim with --url, not both"),
    "no such file": (("nothing.toml",), "nothing.toml: does not exist"),
    "unknown environment": (("muxsim.toml", "--env", "treasure"), "did you mean treasure_grid?"),
    "nobody answers": (("--url", "http://127.0.0.1:1"), "no muxsim answers at http://127.0.0.1:1"),
    "unknown policy": (("muxsim.toml", "--policy", "best"), "there is no such policy"),
    "no key": (("muxsim.toml", "--policy", "openai:tiny"), "set OPENAI_API_KEY"),
    "a reward that is not there": (("muxsim.toml", "--reward", "nothing:here"), "there is no module 'nothing'"),
    "arguments of no reward": (("muxsim.toml", "--reward-option", "a=1"), "name the function with --reward"),
    "no argument": (("muxsim.toml", "--policy-option", "fast"), "policy-option = fast: write NAME=VALUE"),
    "no object": (("muxsim.toml", "--extra-body", "[1]"), "extra-body = [1]: write a JSON object"),
    "no JSON": (("muxsim.toml", "--extra-body", "{top_k: 3}"), "this is not JSON"),
    "no dataset": (("muxsim.toml", "--dataset", "rows.jsonl"), "rows.jsonl: cannot be read"),
    "a limit of no dataset": (("muxsim.toml", "--limit", "3"), "--limit goes with --dataset"),
    "no column": (("muxsim.toml", "--dataset", "rows.csv", "--column", "prompt"), "column = prompt: write KEY=COLUMN"),
    "existing output": (("muxsim.toml", "--output", "full"), "full is not empty"),
}


def test_the_config_beside_it_is_played_where_none_is_named(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    nothing = rollout(tmp_path / "empty")
    assert nothing.status == 2
    assert "there is no muxsim.toml in" in nothing.complaint
    assert "name a config, or a serving muxsim with --url" in nothing.complaint
    finished = rollout(folder, "--max-steps", "1", "--output", "run")
    assert finished.status == 0, finished.complaint


@pytest.mark.parametrize("what", ERRORS)
def test_what_stops_a_run_before_it_starts_is_told_in_one_line(folder, what):
    (folder / "full").mkdir()
    (folder / "full" / "letter.txt").write_text("dear")
    arguments, complaint = ERRORS[what]
    finished = rollout(folder, *arguments, env={"OPENAI_API_KEY": ""})
    assert (finished.status, finished.stdout) == (2, "")
    assert finished.complaint.startswith("muxsim: ")
    assert complaint in finished.complaint
    assert not (folder / "runs").exists()


# Models


WAYS = ("up", "left", "down", "right")


def walks(request):
    """Goes round, by the number of results it has seen."""
    seen = sum(message["role"] == "tool" for message in request.body["messages"])
    return calls("move", {"direction": WAYS[seen % len(WAYS)]})


def model(server):
    return ("--policy", "openai:test", "--base-url", server.url)


def test_a_model_plays_by_its_endpoint(folder):
    with chat_server() as server:
        server.otherwise = walks
        options = ("muxsim.toml", "--rollouts", "2", "--max-steps", "4", "--output", "run", "--temperature", "0.5")
        finished = rollout(folder, *options, *model(server))
    runs = played(folder / "run")
    assert finished.status == 0
    assert len(server.requests) == sum(len(run.steps) for run in runs.values())
    assert all(step.tool == "move" and not step.is_error for run in runs.values() for step in run.steps)
    assert {request.body["temperature"] for request in server.requests} == {0.5}
    assert [tool["function"]["name"] for tool in server.requests[0].body["tools"]] == ["look", "move"]
    assert "control_plane" not in json.dumps([request.body for request in server.requests])
    assert all(run.usage.total_tokens == 18 * len(run.steps) for run in runs.values())


def walks_and_tells_its_tokens(request):
    """As `walks`; each result is three tokens of the next prompt."""
    seen = sum(message["role"] == "tool" for message in request.body["messages"])
    prompt, sampled = [1, 2], list(range(100, 100 + USAGE["completion_tokens"]))
    for _ in range(seen):
        prompt = [*prompt, *sampled, 7, 8, 9]
    return with_tokens(walks(request), prompt, sampled, [("token", -0.5)] * len(sampled))


def test_the_tokens_of_a_model_are_asked_for_recorded_and_exported(folder):
    with chat_server() as server:
        server.otherwise = walks_and_tells_its_tokens
        options = ("muxsim.toml", "--max-steps", "3", "--output", "run", "--token-ids", "--logprobs")
        assert rollout(folder, *options, *model(server)).status == 0
    assert all(request.body["return_token_ids"] for request in server.requests)
    exported = muxsim(folder, "export", "run", "rows.jsonl", "--format", "trl")
    assert (exported.status, exported.stdout, exported.stderr) == (0, "rows.jsonl: 1 rows\n", "")
    row = json.loads((folder / "rows.jsonl").read_text())
    sampled = [1] * USAGE["completion_tokens"]
    assert row["env_mask"] == [*sampled, 0, 0, 0, *sampled, 0, 0, 0, *sampled]
    assert row["logprobs"] == [-0.5 * bit for bit in row["env_mask"]]
    assert (row["prompt_ids"], row["turns"], row["segments"]) == ([1, 2], 3, 1)


def test_a_model_is_shown_the_frames_of_its_flight(tmp_path):
    file = config(tmp_path, lunar_lander=ROOT / "examples" / "lunar_lander" / "server.py")
    with chat_server() as server:
        server.otherwise = lambda request: calls("fire", {"engine": "MAIN", "frames": 3})
        options = (file.name, "--rollouts", "1", "--max-steps", "3", "--output", "run")
        finished = rollout(tmp_path, *options, *model(server))
    images = server.requests[-1].images
    assert finished.status == 0
    assert len(images) >= 2
    assert {(media, data[:8]) for media, data in images} == {("image/png", b"\x89PNG\r\n\x1a\n")}
    assert len(set(images)) == len(images)
    stored = list((tmp_path / "run" / "images").glob("*.png"))
    assert {data for _, data in images} < {file.read_bytes() for file in stored}
    assert b"base64" not in (tmp_path / "run" / "rollouts.jsonl").read_bytes()


def test_text_only_is_compared_with_vision_by_the_same_policy_with_and_without_frames(tmp_path):
    file = config(tmp_path, lunar_lander=ROOT / "examples" / "lunar_lander" / "server.py")
    options = (file.name, "--rollouts", "3", "--max-steps", "30")
    requests = {}
    for name, *more in (("vision",), ("text", "--no-images")):
        with chat_server() as server:
            # One that brakes where it sees the ground, and falls where it does not.
            server.otherwise = lambda request: calls("fire", {"engine": "MAIN" if request.images else "NOTHING"})
            finished = rollout(tmp_path, *options, *more, "--output", name, *model(server))
            requests[name] = server.requests
        assert finished.status == 0
    assert all(request.images for request in requests["vision"])
    assert not any(request.images for request in requests["text"])
    # It is told that there is one, and the prompt is plain text, which any endpoint takes.
    *_, last = requests["text"][-1].body["messages"]
    assert last["content"].startswith("x ")
    assert last["content"].endswith("\n[image, not shown]")
    assert all(isinstance(one["content"], str | None) for one in requests["text"][-1].body["messages"])
    # The frames that it was not shown are on record, where a person may look at them.
    assert any(block["type"] == "image" for run in played(tmp_path / "text").values() for block in run.steps[0].content)
    told = json.loads(muxsim(tmp_path, "compare", "vision", "text", "--price", "1,2", "--json").stdout)
    [difference] = told["differences"]
    reward = difference["figures"]["reward"]
    assert (difference["pairs"], reward["pairs"], reward["less"] + reward["more"], difference["differs"]) == (
        3,
        3,
        3,
        [],
    )
    assert "the policy of text was shown no images, the other was" in difference["notes"]
    assert {"steps", "tokens", "cost", "success", "seconds", "valid"} < set(difference["figures"])
    # What nobody sees is another run: it is not resumed as this one.
    again = rollout(tmp_path, *options, "--output", "text", "--resume", *model(server))
    assert (again.status, "options.images was false" in again.complaint) == (2, True)


MINE = """
class Walks:
    def __init__(self, way):
        self.way = way

    async def next_message(self, conversation, tools, seed):
        from muxsim.rollouts.policy.messages import assistant_calls, turn_of
        from muxsim.rollouts.policy.protocol import Reply

        return Reply(assistant_calls([("move", {"direction": self.way})], turn_of(conversation)))


async def judge(trajectory, workspace, *, scale):
    return {"reward": scale * len(trajectory.steps), "has_workspace": workspace is not None and workspace.is_dir()}
"""


def test_a_policy_and_a_reward_of_the_users_own_play_and_score(folder):
    (folder / "mine.py").write_text(MINE)
    options = ("muxsim.toml", "--rollouts", "2", "--max-steps", "2", "--output", "run")
    mine = ("--policy", "python:mine:Walks", "--policy-option", "way=up", "--reward", "mine:judge")
    finished = rollout(folder, *options, *mine, "--reward-option", "scale=0.5")
    assert finished.status == 0, finished.stderr
    runs = played(folder / "run").values()
    assert [(run.total_reward, run.scores, len(run.steps)) for run in runs] == [(1.0, {"has_workspace": 1.0}, 2)] * 2
    described = RunFolder(folder / "run").config
    source = {"mine.py": hashlib.sha256((folder / "mine.py").read_bytes()).hexdigest()[:16]}
    assert described.policy == {"kind": "python", "class": "mine:Walks", "way": "up"}
    assert described.options["reward"] == {"function": "mine:judge", "scale": 0.5}
    assert source.items() <= described.parts["the policy"].items() & described.parts["the reward"].items()
    again = rollout(folder, *options, *mine, "--reward-option", "scale=2", "--resume")
    assert (again.status, "options.reward" in again.complaint) == (2, True)
    (folder / "mine.py").write_text(MINE + "\n")
    changed = rollout(folder, *options, *mine, "--reward-option", "scale=0.5", "--resume")
    assert (changed.status, "the policy: mine.py has changed" in changed.complaint) == (2, True)


FAULTY = """
class Raises:
    async def next_message(self, conversation, tools, seed):
        return self.weights["move"]

    weights = {}

    async def aclose(self):
        raise OSError("the weights cannot be let go of")


def judge(trajectory):
    return float("nan")
"""


def test_what_a_policy_or_reward_of_the_users_own_does_wrong_is_on_record(folder):
    (folder / "faulty.py").write_text(FAULTY)
    raised = rollout(folder, "muxsim.toml", "--output", "run", "--policy", "python:faulty:Raises")
    assert raised.status == 1
    assert "the weights cannot be let go of" in raised.stderr
    assert raised.stderr.splitlines()[-1] == "muxsim: no episode is valid: KeyError: 'move'; --resume plays them"
    (run,) = played(folder / "run").values()
    assert 'self.weights["move"]' in run.traceback
    judged = rollout(folder, "muxsim.toml", "--max-steps", "1", "--output", "judged", "--reward", "faulty:judge")
    (run,) = played(folder / "judged").values()
    assert (judged.status, run.valid, run.total_reward) == (1, True, None)
    words = "1 of 1 valid episodes could not be scored: the reward function returned nan: a reward is a finite number"
    assert judged.stderr.splitlines()[-1] == f"muxsim: {words}"
    assert "nan: a reward is a finite number" in judged.stderr


def test_an_endpoint_that_refuses_for_good_ends_the_run_with_its_words_and_status_1(folder):
    with chat_server() as server:
        server.otherwise = fails(401, "no such key")
        finished = rollout(folder, "muxsim.toml", "--rollouts", "50", "--output", "run", *model(server))
    assert finished.status == 1
    assert "401: no such key; --resume plays them" in finished.stderr.splitlines()[-1]
    assert len(server.requests) <= 16
    assert not RunFolder(folder / "run").metrics().complete


def test_what_a_model_is_asked_with_comes_from_the_command_line(folder):
    chosen = ("--top-p", "0.5", "--max-completion-tokens", "7", "--top-logprobs", "2", "--extra-body", '{"top_k": 3}')
    with chat_server() as server:
        options = ("muxsim.toml", "--output", "run", "--policy-option", "parallel_tool_calls=false")
        finished = rollout(folder, *options, *model(server), *chosen)
    assert finished.status == 0
    body = server.requests[0].body
    asked = {"top_p": 0.5, "max_completion_tokens": 7, "logprobs": True, "top_logprobs": 2, "top_k": 3}
    assert {**asked, "parallel_tool_calls": False}.items() <= body.items()


def test_a_run_whose_environment_never_starts_ends_with_its_last_words_and_status_1(folder):
    (folder / "broken.py").write_text("raise SystemExit('the map is missing')")
    file = config(folder, broken=folder / "broken.py")
    finished = rollout(folder, file.name, "--rollouts", "20", "--output", "run")
    runs = played(folder / "run").values()
    assert finished.status == 1
    assert "the map is missing" in finished.stderr.splitlines()[-1]
    assert len(runs) == 20
    assert {run.end_reason for run in runs} == {EndReason.ENV_START_FAILED}
    assert all("the map is missing" in run.error for run in runs)


def test_an_endpoint_that_throttles_is_seen(folder):
    with chat_server() as server:
        server.play(*[refused(retry_after_ms=200)] * 3)
        finished = rollout(folder, "muxsim.toml", "--rollouts", "2", "--output", "run", *model(server))
    assert finished.status == 0
    assert "3 \N{MULTIPLICATION SIGN} 429, " in finished.stderr
    assert RunFolder(folder / "run").metrics().times["throttled"].total > 0.1


@pytest.mark.parametrize("variable", ["REWARD_KIT_PLAYBACK_FILE", "EP_PLAYBACK_FILE"])
def test_a_recorded_run_is_played_back_without_a_model(folder, variable):
    options = ("muxsim.toml", "--rollouts", "2", "--max-steps", "4")
    env = {variable: "tape.jsonl", "OPENAI_API_KEY": ""}
    with chat_server() as server:
        server.otherwise = walks
        recorded = rollout(folder, *options, *model(server), "--output", "one", env=env)
        tape = (folder / "tape.jsonl").read_bytes()
    again = rollout(folder, *options, "--policy", "openai:test", "--output", "two", env=env)
    assert (recorded.status, again.status) == (0, 0)
    one, two = played(folder / "one"), played(folder / "two")
    assert {id: told(two[id]) for id in two} == {id: told(one[id]) for id in one}
    assert sum(len(run.steps) for run in two.values()) > 2
    assert (folder / "tape.jsonl").read_bytes() == tape


def test_a_run_that_is_interrupted_keeps_what_it_has_and_goes_on_later(folder):
    options = ("muxsim.toml", "--rollouts", "2", "--max-steps", "4", "--output", "run")
    with chat_server() as server:
        server.otherwise = hangs()
        command = [*MUXSIM, "rollout", *options, *model(server)]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
            try:
                server.wait_for_requests(2)
                run.send_signal(signal.SIGINT)
                _, stderr = run.communicate(timeout=LIMIT)
            finally:
                run.kill()
        assert (run.returncode, "Traceback" in stderr) == (1, False)
        assert {one.end_reason for one in played(folder / "run").values()} == {EndReason.CANCELLED}
        server.otherwise = says("I would rather not.")
        again = rollout(folder, *options, *model(server), "--resume")
    assert again.status == 0
    assert {one.end_reason for one in played(folder / "run").values()} == {EndReason.NO_TOOL_CALL}
    assert len(list(RunFolder(folder / "run").failures())) == 2
