"""Policies that ask a model, against an endpoint of this machine."""

import pytest
from servers.chat_completions import calls, chat_server, says

import muxsim.compat.reward_kit as rk
from muxsim.rollouts.policy.protocol import PolicyError

from .walks import Walks, rows

pytestmark = pytest.mark.filterwarnings("ignore:.*reward-kit:DeprecationWarning")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("EP_PLAYBACK_FILE", "REWARD_KIT_PLAYBACK_FILE", "OPENAI_API_KEY", "FIREWORKS_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def endpoint():
    with chat_server() as server:
        yield server


async def test_a_model_is_asked_with_the_old_arguments_and_may_be_asked_again(endpoint):
    policy = rk.OpenAIPolicy("tiny", temperature=0.7, max_tokens=64, base_url=endpoint.url, reasoning_effort="low")
    for _ in range(2):  # a rollout closes what it has opened
        endpoint.play(*[calls("go", {"action": "ON"})] * 3)
        [played] = await rk.rollout(rk.make(Walks(), dataset=rows(1)), policy=policy)
        assert played.total_reward == 3.0
        assert played.usage["total_tokens"] == 54
    body = endpoint.requests[-1].body
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("tiny", 0.7, 64)
    assert body["reasoning_effort"] == "low"
    assert "seed" not in body
    assert [tool["function"]["name"] for tool in body["tools"]] == ["go"]
    assert {key for message in body["messages"] for key in message} <= {"role", "content", "tool_calls", "tool_call_id"}


async def test_a_model_that_says_enough_ends_the_episode(endpoint):
    endpoint.play(calls("go", {"action": "ON"}), says("Enough."))
    policy = rk.OpenAIPolicy("tiny", base_url=endpoint.url)
    [played] = await rk.rollout(rk.make(Walks(), dataset=rows(1)), policy=policy)
    assert (played.steps, played.termination_reason) == (1, "stop")


async def test_newer_models_are_given_their_own_limit(endpoint):
    endpoint.play(says("Enough."))
    policy = rk.OpenAIPolicy("tiny", base_url=endpoint.url, max_completion_tokens=9, num_retries=3)
    await rk.rollout(rk.make(Walks(), dataset=rows(1)), policy=policy)
    body = endpoint.requests[-1].body
    assert body["max_completion_tokens"] == 9
    assert not {"max_tokens", "num_retries"} & body.keys()


@pytest.mark.parametrize(
    ("kind", "key"), [(rk.OpenAIPolicy, "OPENAI_API_KEY"), (rk.FireworksPolicy, "FIREWORKS_API_KEY")]
)
def test_a_key_that_is_missing_is_named(kind, key, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(PolicyError, match=key):
        kind("some/model")


def test_a_model_of_fireworks_keeps_its_arguments(monkeypatch):
    monkeypatch.setenv("FIREWORKS_API_KEY", "k")
    policy = rk.FireworksPolicy("accounts/fireworks/models/qwen3", 0.3, "on-demand", 100)
    assert (policy.model_id, policy.temperature, policy.deployment_type, policy.max_tokens) == (
        *("accounts/fireworks/models/qwen3", 0.3, "on-demand", 100),
    )


async def test_a_model_can_be_asked_by_hand_in_both_forms(endpoint):
    policy = rk.OpenAIPolicy("tiny", base_url=endpoint.url)
    schema = {"name": "go", "description": "", "input_schema": {"type": "object", "properties": {}}}
    history = [{"role": "user", "content": "Go."}]
    endpoint.play(calls("go", {"action": "ON"}), calls("go", {"action": "ON"}))
    [call], usage, _ = await policy([schema], 0, history)
    assert (call.tool_name, call.arguments, usage["total_tokens"]) == ("go", {"action": "ON"}, 18)
    assert history[-1]["role"] == "assistant"
    [call] = await policy([[schema]], [None], ["Walk."], ["Go."])
    assert call.tool_name == "go"
    await policy.aclose()
