"""What NeMo Gym's gymnasium_agent sees of an environment: a resources server. A stand-in has the interface."""

from types import SimpleNamespace

import anyio
import pytest
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
        assert await server.reset({"seed": 7}, "a") == ("Walk.\n\nGo.", {"seed": 7})
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
