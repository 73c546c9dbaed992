"""What TRL sees of an environment: its class, its methods, and what they give. Of TRL itself nothing is needed."""

import base64
import inspect
import io
import pickle
from typing import Any, Literal

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

import muxsim.adapters.trl_environment as trl_environment
from adapters.fakes import MOVE, FakePool, said, text_block
from muxsim.adapters.dialogue import EpisodeBroken, EpisodeOver
from muxsim.adapters.trl_environment import CallRefused, environment
from muxsim.adapters.typed_tools import typed_tool
from muxsim.errors import Busy, StartError, UnknownEnvironment
from muxsim.rollouts.data.trajectory import Control
from muxsim.rollouts.environments.environment import CallTimeout, EnvironmentGone, Tool, ToolResult


async def in_thread(function, *args):
    with anyio.fail_after(60):
        return await anyio.to_thread.run_sync(function, *args)


def methods_for_trl(cls):
    """The functions that TRL finds, and how it looks for them."""
    return {name for name, _ in inspect.getmembers(cls, predicate=inspect.isfunction) if not name.startswith("_")}


async def test_its_tools_and_what_trl_asks_for_are_all_that_it_shows():
    def play(pool):
        cls = environment(pool, "lake")
        assert cls.__name__ == "lake"
        assert methods_for_trl(cls) == {"reset", "get_reward", "move"}
        assert pool.sessions[0].closed
        signature = inspect.signature(cls().move)
        assert str(signature) == "(direction: Literal['left', 'right'], steps: int = 1) -> str"
        assert inspect.getdoc(cls.move) == (
            "Move one tile.\n\nArgs:\n    direction: direction\n    steps: steps (default 1)"
        )

    await in_thread(play, FakePool())


async def test_an_episode_has_the_rows_seed_and_the_rewards_that_only_the_trainer_sees():
    def play(pool):
        one = environment(pool, "lake")()
        prompt = [{"role": "user", "content": "Cross it."}]
        assert one.reset(prompt=prompt, seed=7, level="easy") == "\n\nWalk.\nGo."
        assert one.seed == 7
        assert one.move(direction="left") == "A step."
        assert one.move("right", steps=2) == "The goal."
        assert (one.ended, one.calls) == (True, 2)
        with pytest.raises(EpisodeOver):
            one.move(direction="left")
        assert one.get_reward() == 1.5
        assert one.get_reward() == 1.5
        session = pool.sessions[-1]
        assert session.called == [("move", {"direction": "left"}), ("move", {"direction": "right", "steps": 2})]
        assert session.closed

    await in_thread(play, FakePool(said("A step.", 0.5), said("The goal.", 1.0, terminated=True)))


async def test_a_reset_ends_the_session_before_it_and_gives_a_random_seed_where_the_row_has_none():
    def play(pool):
        one = environment(pool, "lake")()
        assert one.reset(seed=None, prompt=[{"role": "user", "content": ""}]) == "Walk.\nGo."
        first = one.seed
        one.reset()
        assert one.seed != first
        one.reset(seed=3.0)
        assert one.seed == 3
        assert [session.closed for session in pool.sessions[1:]] == [1, 1, 0]
        for wrong in (-1, 2**31, "7", True, 1.5):
            with pytest.raises(ValueError, match="a seed is a whole number"):
                one.reset(seed=wrong)
        other = environment(pool, "lake", seed_column="level")()
        with pytest.raises(ValueError, match="no such column; it has seed"):
            other.reset(seed=1)

    await in_thread(play, FakePool())


@pytest.mark.parametrize(
    "failure",
    [
        EnvironmentGone("it exited with status 1"),
        CallTimeout("move: no answer within 60 s"),
        said("A step.", None, problem="control://reward is secret-plane"),
    ],
)
async def test_a_broken_episode_has_no_reward_and_tells_the_model_nothing_of_why(failure, caplog):
    def play(pool):
        one = environment(pool, "lake")()
        one.reset(seed=1)
        one.move(direction="left")
        for _ in range(2):
            with pytest.raises(EpisodeBroken) as raised:
                one.move(direction="left")
            assert str(raised.value) == "the environment has failed: no call is made any more"
        assert one.get_reward() is None
        assert one.failure
        assert one.failure in caplog.text
        one.reset(seed=1)
        assert one.failure is None
        assert one.get_reward() == 0

    await in_thread(play, FakePool(said("A step.", 5.0), failure))


async def test_an_episode_whose_environment_counts_otherwise_at_its_end_has_no_reward(caplog):
    def play(pool):
        one = environment(pool, "lake")()
        one.reset(seed=1)
        one.move(direction="left")
        assert one.get_reward() is None
        assert "control://status says otherwise" in caplog.text

    await in_thread(play, FakePool(said("A step.", 0.5), counts=False))


async def test_who_wants_no_broken_episode_is_told_where_trl_listens():
    def play(pool):
        one = environment(pool, "lake", on_broken="raise")()
        one.reset(seed=1)
        with pytest.raises(EpisodeBroken):
            one.move(direction="left")
        with pytest.raises(EpisodeBroken) as raised:
            one.get_reward()
        assert "torn" in raised.value.why

    await in_thread(play, FakePool(EnvironmentGone("torn")))


async def test_a_start_that_fails_breaks_the_episode_and_a_hundred_in_a_row_end_the_training(monkeypatch):
    def play(pool):
        one = environment(pool, "lake")()
        assert one.reset(seed=1) is None
        with pytest.raises(EpisodeBroken):
            one.move(direction="left")
        assert one.get_reward() is None
        assert one.reset(seed=1) is not None
        assert one.get_reward() == 0
        monkeypatch.setattr(trl_environment, "_MOST_BROKEN", 2)
        pool.starts = iter([StartError("no such file")] * 2)
        one.reset(seed=1)
        one.reset(seed=1)
        with pytest.raises(StartError, match="the last 2 episodes of lake have all broken: no such file"):
            one.reset(seed=1)

    await in_thread(play, FakePool(starts=[None, StartError("no such file")]))


async def test_a_full_pool_is_waited_for():
    def play(pool):
        assert environment(pool, "lake")().reset(seed=1) is not None

    await in_thread(play, FakePool(starts=[None, Busy("full", 0.0), Busy("full", 0.0)]))


async def test_what_a_server_refuses_is_an_error_for_the_model_and_the_episode_goes_on():
    def play(pool):
        one = environment(pool, "lake")()
        one.reset(seed=1)
        with pytest.raises(CallRefused, match="no such way"):
            one.move(direction="up")
        with pytest.raises(TypeError, match="takes 2 arguments"):
            one.move("left", 1, 2)
        assert one.move(direction="left") == "A step."
        assert one.get_reward() == 1

    refused = ToolResult(text_block("no such way"), is_error=True, control=None)
    await in_thread(play, FakePool(refused, said("A step.", 1.0)))


async def test_without_a_control_plane_there_is_a_reward_only_by_the_users_word():
    def play(pool):
        assert "get_reward" not in methods_for_trl(environment(pool, "lake"))
        cls = environment(pool, "lake", score=lambda result: (2.0, "end" in str(result.content), False))
        one = cls()
        one.reset(seed=1)
        one.move(direction="left")
        assert not one.ended
        one.move(direction="left")
        assert one.ended
        assert one.get_reward() == 4.0
        for wrong in (float("nan"), None):
            one = environment(pool, "lake", score=lambda _, wrong=wrong: (wrong, False, False))()
            one.reset(seed=1)
            with pytest.raises(EpisodeBroken):
                one.move(direction="left")
            assert one.get_reward() is None

    plain = [ToolResult(text_block(text), is_error=False, control=None) for text in ("on", "end")]
    await in_thread(play, FakePool(*plain, published=False))


async def test_max_calls_truncates_an_episode_and_leaves_its_reward():
    def play(pool):
        one = environment(pool, "lake", max_calls=1)()
        one.reset(seed=1)
        one.move(direction="left")
        with pytest.raises(EpisodeOver):
            one.move(direction="left")
        assert one.get_reward() == 1
        with pytest.raises(ValueError, match="max_calls = 0"):
            environment(pool, "lake", max_calls=0)

    await in_thread(play, FakePool(said("on", 1.0), said("on", 1.0)))


async def test_images_are_blocks_for_those_who_want_them_and_words_for_others():
    stream = io.BytesIO()
    Image.new("RGB", (2, 1)).save(stream, "PNG")
    image = {"type": "image", "data": base64.b64encode(stream.getvalue()).decode(), "mimeType": "image/png"}

    def play(pool):
        one = environment(pool, "lake")()
        assert one.reset(seed=1) == "Walk.\n[image]"
        assert one.move(direction="left") == "See.\n[image]"
        one = environment(pool, "lake", images=True)()
        assert [block["type"] for block in one.reset(seed=1, prompt=[{"content": "Go"}])] == ["text", "text", "image"]
        words, seen = one.move(direction="left")
        assert words == {"type": "text", "text": "See."}
        assert seen["image"].size == (2, 1)
        with pytest.raises(EpisodeBroken):
            one.move(direction="left")
        assert one.get_reward() is None

    torn = {**image, "data": base64.b64encode(b"no image").decode()}
    results = [
        ToolResult([*text_block("See."), one], is_error=False, control=Control(reward=0.0)) for one in (image, torn)
    ]
    await in_thread(play, FakePool(*results, state=[image]))


async def test_tools_of_any_name_are_called_by_it():
    names = ["reset", "get_reward", "seed", "_private", "get-state", "get state", "class", "move"]

    def play(pool):
        cls = environment(pool, "lake")
        found = {getattr(cls, name).__name__ for name in methods_for_trl(cls) if name not in ("reset", "get_reward")}
        assert found == set(names)
        one = cls()
        one.reset(seed=1)
        one.call_reset()
        one.call_get_state()
        assert [name for name, _ in pool.sessions[-1].called] == ["reset", "get-state"]

    tools = [Tool(name, "", {"type": "object"}) for name in names]
    await in_thread(play, FakePool(*[said("on")] * 2, tools=tools))


async def test_an_environment_that_is_not_there_is_said_at_once():
    with pytest.raises(UnknownEnvironment):
        await in_thread(environment, FakePool(), "sea")
    with pytest.raises(ValueError, match="on_broken"):
        environment(FakePool(), "lake", on_broken="ignore")


async def test_a_class_of_an_open_pool_does_not_pickle_and_says_what_does():
    cls = await in_thread(environment, FakePool(), "lake")
    with pytest.raises(TypeError, match="config file or a URL"):
        pickle.dumps(cls)


@pytest.mark.children
def test_a_class_of_a_config_is_made_again_where_it_is_unpickled():
    cls = environment("examples/muxsim.toml", "frozen_lake", max_calls=3)
    again = pickle.loads(pickle.dumps(cls))
    assert methods_for_trl(again) == methods_for_trl(cls) == {"reset", "get_reward", "lake_move"}
    one = again()
    assert "You are on a frozen lake" in one.reset(seed=3)
    for action in ("RIGHT", "DOWN", "LEFT"):
        assert "[" in one.lake_move(action=action)
    with pytest.raises(EpisodeOver):
        one.lake_move(action="RIGHT")
    assert one.get_reward() == 0
    again.close()
    with pytest.raises(EpisodeOver):
        one.lake_move(action="RIGHT")
    assert one.reset(seed=3) is not None
    again.close()
    assert pickle.loads(pickle.dumps(Harder)) is Harder


class Harder(trl_environment.TRLEnvironment):
    """A class that somebody wrote."""


SCHEMA = {
    "type": "object",
    "properties": {
        "from": {"type": "string", "description": "Where.\nReturns: nothing (choices: 3)"},
        "max-depth": {"type": "integer", "minimum": 1, "maximum": 50},
        "kind": {"$ref": "#/$defs/Kind"},
        "when": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "points": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        "deep": {"$ref": "#/$defs/Deep"},
    },
    "required": ["from", "kind"],
    "$defs": {
        "Kind": {"enum": ["a", "b", 3]},
        "Deep": {"type": "object", "properties": {"deep": {"$ref": "#/$defs/Deep"}}},
    },
}


def test_types_and_words_say_what_a_schema_says():
    typed = typed_tool(Tool("dig", "Dig.\n\nArgs:\n    from: where\n\nReturns:\n    a hole", SCHEMA))
    assert typed.annotations == {
        "from_": str,
        "kind": Literal["a", "b", 3],
        "max_depth": int,
        "when": str | None,
        "points": list[list[float]],
        "deep": dict,
        "return": str,
    }
    lines = typed.doc.splitlines()
    assert lines[:4] == ["Dig.", "", "Arguments:", "    from: where"]
    assert "    from_: Where. Result: nothing (choices 3)" in lines
    assert "    max_depth: max depth (at least 1; at most 50)" in lines
    assert not {"Returns:", "Raises:"} & set(typed.doc.split())
    assert typed.doc.count("Args:") == 1
    assert typed.arguments(("x",), {"max_depth": 2, "other": 1}) == {"from": "x", "max-depth": 2, "other": 1}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = (
    "type",
    "enum",
    "const",
    "anyOf",
    "items",
    "properties",
    "$ref",
    "description",
    "default",
    "minimum",
    "required",
)


@given(
    schema=st.dictionaries(st.sampled_from(KEYS), JSON | st.just("#") | st.just("array"), max_size=5), name=st.text()
)
@example(schema={"anyOf": True}, name="a")
def test_any_schema_is_some_signature(schema, name):
    typed = typed_tool(Tool("t", "", {"type": "object", "properties": {name: schema, "b": schema}, "required": ["b"]}))
    assert len(typed.names) == 2
    assert sorted(typed.names.values()) == sorted({name, "b"}) or name == "b"
    assert all(one.isidentifier() for one in typed.names)
    assert typed.function(lambda *_: None).__doc__.count("Args:") == 1


def test_move_is_what_the_fakes_say():
    assert typed_tool(MOVE).annotations["steps"] is int
    assert Any not in typed_tool(MOVE).annotations.values()
