"""What NeMo Gym's gymnasium_agent sees of an environment: a resources server.

A stand-in has its interface; NeMo Gym itself plays in an environment of its own.
"""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from harness import ROOT
from own_environments import other_python, python_with
from pydantic import BaseModel

from adapters.fakes import FakePool, said, stand_in
from muxsim.adapters.dialogue import EpisodeBroken
from muxsim.adapters.running import running
from muxsim.rollouts.environments.environment import EnvironmentGone


def response(*calls):
    """A response of the model's, with a message and these calls."""
    made = [
        SimpleNamespace(type="function_call", name=name, arguments=arguments, call_id=f"call-{place}")
        for place, (name, arguments) in enumerate(calls)
    ]
    return SimpleNamespace(output=[SimpleNamespace(type="message"), *made])


@pytest.fixture
def serve(monkeypatch):
    """Makes a server over a pool of the test's."""

    class Server(BaseModel):
        config: BaseModel

    nemo = stand_in(
        monkeypatch,
        "muxsim.adapters.nemo_server",
        nemo_gym__base_resources_server={"BaseResourcesServerConfig": BaseModel},
        nemo_gym__openai_utils={"NeMoGymResponse": SimpleNamespace},
        nemo_gym__server_utils={"SESSION_ID_KEY": "session_id"},
        resources_servers__gymnasium={"GymnasiumServer": Server},
    )

    def serve(pool, **settings):
        monkeypatch.setattr(nemo, "kept", lambda source, token: running(pool))
        return nemo.MuxsimServer(config=nemo.MuxsimServerConfig(source="muxsim.toml", env="lake", **settings))

    return serve


async def test_a_rollout_is_an_episode_of_the_rows_seed(serve):
    pool = FakePool(said("One.", 0.5), said("The goal.", 1.0, terminated=True))
    server = serve(pool)
    with anyio.fail_after(60):
        told = {"seed": 7, "supports_explicit_close": True, "supports_step_idempotency": True}
        assert await server.reset({"seed": 7}, "a") == ("Walk.\n\nGo.", told)
        observation, reward, terminated, truncated, info = await server.step(
            response(("move", '{"direction": "left"}'), ("move", "{")), {}, "a"
        )
        assert (observation, reward, terminated, truncated) == (None, 0.5, False, False)
        first, second = info["tool_outputs"]
        assert first == {"call_id": "call-0", "output": "One."}
        assert second["output"].startswith("arguments are an object in JSON")
        _, reward, terminated, _, _ = await server.step(response(("move", {}), ("move", {})), {}, "a")
        assert (reward, terminated) == (1.0, True)
        await server.close_session("a")
        await server.close_session("a")
    assert [session.closed for session in pool.sessions] == [1]
    with pytest.raises(ValueError, match="reset first"):
        await server.step(response(), {}, "a")


async def test_a_response_without_a_call_and_the_last_call_truncate_it(serve):
    server = serve(FakePool(said("One.", 0.5)), max_calls=1)
    with anyio.fail_after(60):
        await server.reset({}, "a")
        assert (await server.step(response(), {}, "a"))[1:4] == (0.0, False, True)
        await server.reset({}, "a")
        assert (await server.step(response(("move", {})), {}, "a"))[1:4] == (0.5, False, True)
        await server.close_session("a")


async def test_a_step_that_is_asked_again_is_made_once_and_answered_alike_also_when_it_was_the_last(serve):
    """NeMo Gym's client asks again when a connection breaks, whether or not the step was made."""
    pool = FakePool(said("One.", 0.5), said("The goal.", 1.0, terminated=True))
    server = serve(pool)
    told = []

    async def step(request):
        told.append(await server.step(response(("move", {})), {"_ng_step_request_id": request}, "a"))

    with anyio.fail_after(60):
        await server.reset({"seed": 7}, "a")
        async with anyio.create_task_group() as at_once:
            at_once.start_soon(step, "first")
            at_once.start_soon(step, "first")
        await step("second")
        await server.close_session("a")  # as its endpoint does it after an episode's last step
        await step("second")
        assert [one[1] for one in told] == [0.5, 0.5, 1.0, 1.0]
        assert told[2] == told[3]
        assert (len(pool.sessions[0].called), pool.sessions[0].closed) == (2, 1)
        await server.reset({"seed": 8}, "a")
        assert pool.sessions[1].called == []
        await server.close_session("a")


async def test_what_has_broken_or_is_not_scored_is_an_error_and_no_reward(serve):
    server = serve(FakePool(EnvironmentGone("torn")))
    with anyio.fail_after(60):
        await server.reset({}, "a")
        with pytest.raises(EpisodeBroken):
            await server.step(response(("move", {})), {}, "a")
        await server.close_session("a")
        unscored = FakePool(published=False)
        with pytest.raises(ValueError, match="no control plane"):
            await serve(unscored).reset({}, "a")
        assert unscored.sessions[0].closed
        with pytest.raises(ValueError, match="no session"):
            await server.reset({}, None)
        with pytest.raises(ValueError, match="a seed is a whole number"):
            await server.reset({"seed": "x"}, "a")


# As docs/adapters/trainers.md has it.
OVERRIDES = ["mcp>=2.3"]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What came of episodes that NeMo Gym's own agent has played."""
    python = python_with(
        "nemo", "nemo-gym==0.4.0", extras=("examples",), python=other_python("3.12"), overrides=OVERRIDES
    )
    folder = tmp_path_factory.mktemp("nemo")
    script = Path(__file__).parent / "own" / "nemo_plays.py"
    command = [python, script, ROOT / "examples" / "muxsim.toml", folder / "told.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "told.json").read_text())


@pytest.mark.large
@pytest.mark.network
@pytest.mark.children
def test_its_own_agent_plays_each_row_as_an_episode_of_its_seed(told):
    *walks, quiet, refused = told["rollouts"]
    assert [{name: walk[name] for name in ("heard", "reward", "ended")} for walk in walks] == [
        {name: walk[name] for name in ("heard", "reward", "ended")} for walk in told["expected"]
    ]
    for walk, expected in zip(walks, told["expected"], strict=True):
        assert walk["asked"].endswith(expected["state"])
    assert {walk["reward"] for walk in walks} == {0.0, 1.0}
    assert (quiet["reward"], quiet["ended"]) == (0.0, [False, True])
    assert refused["status"] == 500
    assert "a seed is a whole number" in refused["told"]


@pytest.mark.large
@pytest.mark.network
@pytest.mark.children
def test_an_agent_that_gives_an_episode_up_ends_it(told):
    closed = told["closed"]
    assert (closed["ends"], closed["closed"]) == (True, [200, 200])
    assert "reset first" in closed["after"]
