"""The examples as people start them: seeds, frames, the control plane, the configs, and the listings of the docs."""

import base64
import importlib
import importlib.util
import io
import json
import re
import string
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
import trio
from harness import ROOT
from mcp import Client, StdioServerParameters
from PIL import Image

from muxsim.config import load

from .children import DEADLINE, played

# Python's own about the wheel of Box2D, once it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")

EXAMPLES = ROOT / "examples"
CONFIG = EXAMPLES / "muxsim.toml"
MIXED = EXAMPLES / "mixed_pool"
KEY = "muxsim/control"
ASK = {KEY: True}


@dataclass(frozen=True)
class Example:
    """An environment of the configs, and a few calls of its tool that do not end its episode."""

    env: str
    tool: str
    calls: tuple[dict, ...]
    options: tuple[str, ...] = ()

    @property
    def server(self):
        return EXAMPLES / self.env / "server.py"


LAKE = Example("frozen_lake", "lake_move", tuple({"action": move} for move in ("DOWN", "UP", "LEFT")))
CLIFF = Example("cliff_walking", "step", tuple({"action": "UP"} for _ in range(9)), options=("--slippery",))
BLACKJACK = Example("blackjack", "step", ({"action": "HIT"},))
LANDER = Example("lunar_lander", "fire", ({"engine": "MAIN", "frames": 20}, {"engine": "LEFT"}, {"engine": "NOTHING"}))
GRID = Example("treasure_grid", "move", ({"direction": "left"}, {"direction": "up"}))

PYTHON = (LAKE, CLIFF, BLACKJACK, LANDER)
ALL = (*PYTHON, GRID)


def named(examples):
    return pytest.mark.parametrize("example", examples, ids=lambda example: example.env)


async def resource(client, name):
    [contents] = (await client.read_resource(f"control://{name}")).contents
    assert contents.mime_type == "application/json"
    return json.loads(contents.text)


async def transcript(client, example, meta=ASK):
    """Everything that a client sees of the calls of the example, images included."""
    seen = [await resource(client, "initial_state")]
    for arguments in example.calls:
        result = await client.call_tool(example.tool, arguments, meta=meta)
        seen.append(result.model_dump(mode="json"))
    return [*seen, *[await resource(client, name) for name in ("reward", "status", "info")]]


async def direct(example, seed):
    async with played(example.server, *example.options, "--seed", seed) as client:
        return await transcript(client, example)


async def side_by_side(*plays):
    results = [None] * len(plays)

    async def run(index, function, *arguments):
        results[index] = await function(*arguments)

    async with trio.open_nursery() as nursery:
        for index, play in enumerate(plays):
            nursery.start_soon(run, index, *play)
    return results


@pytest.fixture
def module():
    """Load an example's server without a process of its own."""

    def loaded(example):
        spec = importlib.util.spec_from_file_location(f"{example.env}_server", example.server)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return loaded


# Every example


@pytest.mark.children
@named(PYTHON)
async def test_same_seed_and_calls_give_the_same_bytes_in_two_processes(example):
    first, second, other = await side_by_side((direct, example, "11"), (direct, example, "11"), (direct, example, "12"))
    assert first == second
    assert first[0]["seed"] == 11
    assert first[1:] != other[1:]


@pytest.mark.children
@named(PYTHON)
async def test_the_control_plane_is_in_a_result_only_when_asked(example):
    async with played(example.server, *example.options, "--seed", "11") as client:
        [initial, *unasked, reward, status, info] = await transcript(client, example, meta=None)
        for result in unasked:
            assert KEY not in (result["meta"] or {})
            assert result["structured_content"] is None
            assert "reward" not in json.dumps(result["content"])
    [initial_again, *asked, reward_again, status_again, info_again] = await direct(example, "11")
    assert [result["content"] for result in asked] == [result["content"] for result in unasked]
    assert (initial, reward, status, info) == (initial_again, reward_again, status_again, info_again)
    rewards = [result["meta"][KEY]["reward"] for result in asked]
    assert rewards[-1] == reward["reward"]
    assert sum(rewards) == pytest.approx(status["total_reward"])
    assert [result["meta"][KEY]["step"] for result in asked] == list(range(1, len(asked) + 1))


@pytest.mark.children
@named(ALL)
async def test_an_example_is_played_through_muxsim_as_directly(example):
    arguments = ["-m", "muxsim", "stdio", str(CONFIG), "--env", example.env, "--seed", "11", "--log-level", "warning"]
    with trio.fail_after(DEADLINE):
        async with Client(StdioServerParameters(command=sys.executable, args=arguments)) as client:
            assert example.tool in [tool.name for tool in (await client.list_tools()).tools]
            seen = await transcript(client, example)
    assert seen[0]["seed"] == 11
    assert not any(result["is_error"] for result in seen[1:-3])
    if example is not GRID:
        assert seen == await direct(example, "11")


def test_the_config_has_every_example_and_begins_and_ends_with_the_two_of_the_demo():
    names = list(load(CONFIG).environments)
    assert sorted(names) == sorted(example.env for example in ALL)
    assert (names[0], names[-1]) == (LAKE.env, GRID.env)


@named(PYTHON)
def test_the_readme_shows_the_row_of_the_config(example):
    config = CONFIG.read_text()
    [row] = re.findall(r"```toml\n(.*?)```", (example.server.parent / "README.md").read_text(), re.DOTALL)
    assert row in config


# The mixed pool


def test_the_mixed_pool_is_made_of_rows_of_the_examples_in_two_languages():
    # They differ in the folder that they run in, which is that of their config.
    mixed, rows = [
        {name: replace(spec, cwd="") for name, spec in load(config).environments.items()}
        for config in (MIXED / "muxsim.toml", CONFIG)
    ]
    assert mixed == {name: rows[name] for name in mixed}
    assert {GRID.env, LAKE.env} < set(mixed)


def test_the_dataset_fits_the_mixed_pool():
    rows = [json.loads(line) for line in (MIXED / "dataset.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["env"] for row in rows} == set(load(MIXED / "muxsim.toml").environments)
    for row in rows:
        assert set(row) == {
            "id",
            "env",
            "system_prompt",
            "user_prompt_template",
            "environment_context",
            "evaluation_criteria",
        }
        assert row["environment_context"]["seed"] >= 0
        assert [name for _, name, _, _ in string.Formatter().parse(row["user_prompt_template"]) if name] == [
            "observation"
        ]
    shown = (MIXED / "README.md").read_text()
    assert json.loads(re.search(r"```json\n(.*?)```", shown, re.DOTALL)[1]) == rows[0]


# Lunar Lander


def image(content):
    [block] = [block for block in content if block.type == "image"]
    assert block.mime_type == "image/png"
    shown = Image.open(io.BytesIO(base64.b64decode(block.data)))
    shown.load()
    assert shown.format == "PNG"
    return shown


def pilot(lander, state):
    """The engine that Gymnasium's own pilot would fire."""
    heuristic = importlib.import_module("gymnasium.envs.box2d.lunar_lander").heuristic
    return lander.ENGINES[heuristic(lander.server.env, state)]


@pytest.mark.children
@pytest.mark.parametrize(("options", "size"), [((), (300, 200)), (("--frame-size", "150x100"), (150, 100))])
async def test_each_answer_of_the_lander_shows_the_frame_in_the_size_that_was_asked_for(options, size):
    async with played(LANDER.server, "--seed", "11", *options, env={"DISPLAY": ""}) as client:
        frames = []
        for arguments in LANDER.calls:
            result = await client.call_tool("fire", arguments)
            assert [block.type for block in result.content] == ["text", "image"]
            frames.append(image(result.content))
        assert [frame.size for frame in frames] == [size] * len(LANDER.calls)
        assert len({frame.tobytes() for frame in frames}) == len(frames)
        text, first = (await resource(client, "initial_state"))["observation"]
        assert text["text"] in client.instructions
        assert Image.open(io.BytesIO(base64.b64decode(first["data"]))).size == size


def test_the_reward_of_a_burn_is_the_sum_over_its_frames(module):
    lander = module(LANDER)

    def flown(frames, times):
        lander.server.start(seed=3)
        content = [lander.fire("MAIN", frames) for _ in range(times)][-1]
        return content, lander.server.control

    (whole, burn), (parts, frames) = flown(30, 1), flown(1, 30)
    assert burn.total_reward == pytest.approx(frames.total_reward)
    assert (burn.step, burn.info, frames.step) == (1, {"frames": 30}, 30)
    # The picture is the one of somebody who looked at every frame: sparks of the exhaust have faded as much.
    assert whole == parts


def test_a_burn_is_over_when_the_flight_is(module):
    lander = module(LANDER)
    lander.server.start(seed=3)
    while not lander.server.control.ended:
        lander.fire("NOTHING", 50)
    control = lander.server.control
    assert control.terminated
    assert control.info["frames"] < 50
    assert control.total_reward < -100


def test_a_flight_is_cut_off_after_a_thousand_frames(module):
    lander = module(LANDER)
    lander.server.start(seed=11)
    frames = 0
    while not lander.server.control.ended:
        state = lander.server.observation.copy()
        state[1] -= 0.8  # for a pilot who lands there the flight never ends
        lander.fire(pilot(lander, state), 3)
        frames += lander.server.control.info["frames"]
    assert (lander.server.control.truncated, frames) == (True, 1000)


def test_gymnasiums_own_pilot_lands_at_the_default_length_of_a_burn(module):
    lander = module(LANDER)
    lander.server.start(seed=11)
    while not lander.server.control.ended:
        content = lander.fire(pilot(lander, lander.server.observation))
    assert lander.server.control.terminated
    assert lander.server.control.total_reward > 200
    assert content[0].text.endswith("left leg 1, right leg 1")


def test_the_engines_do_what_their_names_say(module):
    lander = module(LANDER)

    def after(engine):
        lander.server.start(seed=5)
        lander.fire(engine, 15)
        _, _, vx, vy, angle, *_ = lander.server.observation
        return vx, vy, angle

    drift = after("NOTHING")
    assert after("MAIN")[1] > drift[1] + 0.5
    (left, _, left_angle), (right, _, right_angle) = after("LEFT"), after("RIGHT")
    assert left < drift[0] < right
    assert right_angle < drift[2] < left_angle


def test_the_legs_are_named_by_their_side(module):
    lander = module(LANDER)
    lander.server.start(seed=5)
    craft = lander.server.env.unwrapped
    right, left = craft.legs
    assert left.position.x < craft.lander.position.x < right.position.x
    state = np.array([0, 0, 0, 0, -1e-9, 0, 1, 0], dtype=np.float32)
    assert lander.describe(state, lander.server.env) == (
        "x 0.000, y 0.000, vx 0.000, vy 0.000, angle 0.000, spin 0.000, left leg 0, right leg 1"
    )


# Blackjack and Cliff Walking


def text(content):
    return "\n".join(block.text for block in content)


def test_a_hand_is_told_in_words(module):
    blackjack = module(BLACKJACK)
    assert blackjack.describe((14, 1, 0), None) == "You hold 14 with no usable ace. The dealer shows an ace."
    assert blackjack.describe((21, 10, 1), None) == "You hold 21 with a usable ace. The dealer shows a 10."


@pytest.mark.children
async def test_sticking_ends_the_hand_with_a_result_that_only_the_trainer_reads():
    async with played(BLACKJACK.server, "--seed", "7") as client:
        result = await client.call_tool("step", {"action": "STICK"}, meta=ASK)
        assert text(result.content) in client.instructions
        assert result.meta[KEY]["terminated"] is True
        assert result.meta[KEY]["reward"] in (-1.0, 0.0, 1.0)
        assert (await client.call_tool("step", {"action": "HIT"})).is_error


def test_the_cliff_is_walked_along_to_its_goal(module):
    cliff = module(CLIFF)
    cliff.server.start(seed=0)
    up, right, down, _ = range(4)
    for action in (up, *[right] * 11, down):
        content = cliff.server.step(action)
    assert text(content).splitlines() == [
        *["o  o  o  o  o  o  o  o  o  o  o  o"] * 3,
        "o  C  C  C  C  C  C  C  C  C  C  x",
    ]
    assert (cliff.server.control.terminated, cliff.server.control.total_reward) == (True, -13.0)


def test_a_step_over_the_cliff_leads_back_to_the_start(module):
    cliff = module(CLIFF)
    cliff.server.start(seed=0)
    before = cliff.server.observe()
    assert cliff.server.step(1) == before
    assert (cliff.server.control.reward, cliff.server.control.ended) == (-100.0, False)


def test_walking_in_circles_at_the_cliff_ends_as_truncated(module):
    cliff = module(CLIFF)
    cliff.server.start(seed=0)
    while not cliff.server.control.ended:
        cliff.server.step(0)
    assert (cliff.server.control.truncated, cliff.server.control.step) == (True, 200)


# The listings of docs/environments.md


@pytest.fixture
def listings(tmp_path):
    """The files of the page in a folder, with its config and what npm would have installed."""
    page = (ROOT / "docs" / "environments.md").read_text()
    for language, name in (("python", "higher_or_lower.py"), ("js", "higher-or-lower.js"), ("toml", "muxsim.toml")):
        [listing] = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
        (tmp_path / name).write_text(listing)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(ROOT / "js_servers" / "treasure-grid" / "node_modules")
    return tmp_path


async def find_number(client):
    """Halve the range until the number is found; the number of guesses, and the last result."""
    low, high, guesses = 0, 99, 0
    while True:
        guess = (low + high) // 2
        result = await client.call_tool("guess", {"number": guess}, meta=ASK)
        guesses += 1
        match text(result.content):
            case "Higher.":
                low = guess + 1
            case "Lower.":
                high = guess - 1
            case "Found.":
                return guesses, guess, result


@pytest.mark.children
@pytest.mark.parametrize("env", ["higher_or_lower", "higher_or_lower_js"])
async def test_the_listings_are_environments_with_seeds_and_a_control_plane(listings, env):
    async def play(seed):
        arguments = ["-m", "muxsim", "stdio", str(listings / "muxsim.toml"), "--env", env, "--seed", str(seed)]
        with trio.fail_after(DEADLINE):
            async with Client(StdioServerParameters(command=sys.executable, args=arguments)) as client:
                assert await resource(client, "initial_state") == {
                    "observation": "Guess a number from 0 to 99.",
                    "info": {},
                    "seed": seed,
                }
                guesses, number, last = await find_number(client)
                ends = {"terminated": True, "truncated": False, "step": guesses}
                assert last.meta[KEY] == {"reward": 1.0, **ends, "info": {}}
                late = await client.call_tool("guess", {"number": number}, meta=ASK)
                assert late.is_error
                assert "the episode has ended" in text(late.content)
                assert late.meta[KEY]["reward"] is None
                assert KEY not in ((await client.call_tool("guess", {"number": number})).meta or {})
                assert await resource(client, "reward") == {"reward": 1.0, "step": guesses}
                assert await resource(client, "status") == {**ends, "total_reward": 1.0}
                assert await resource(client, "info") == {}
                return number

    numbers = await side_by_side((play, 0), (play, 7), (play, 7))
    assert numbers[1] == numbers[2] != numbers[0]
