"""Policies as a command line names them."""

import re

import pytest

from muxsim.errors import ConfigError
from muxsim.rollouts.policy.fireworks import FireworksPolicy
from muxsim.rollouts.policy.names import FORMS, policy_from_spec
from muxsim.rollouts.policy.openai import OpenAIPolicy
from muxsim.rollouts.policy.protocol import PolicyError
from muxsim.rollouts.policy.random import RandomPolicy
from muxsim.rollouts.policy.scripted import ScriptedPolicy

URL = "http://127.0.0.1:1/v1"


def test_random():
    policy = policy_from_spec("random", {"seed": 3, "temperature": None})
    assert isinstance(policy, RandomPolicy)
    assert policy.seed == 3


def test_scripted(tmp_path):
    (tmp_path / "moves.json").write_text("[1, 2]")
    policy = policy_from_spec(f"scripted:{tmp_path}/moves.json")
    assert isinstance(policy, ScriptedPolicy)
    assert repr(policy) == "ScriptedPolicy(2 actions)"


def test_openai_with_a_colon_in_the_name_of_the_model():
    policy = policy_from_spec("openai:llama3:8b", {"base_url": URL, "temperature": 0.0, "stream": True, "top_p": None})
    assert type(policy) is OpenAIPolicy
    assert (policy.model, policy.base_url, policy.temperature, policy.stream) == ("llama3:8b", URL, 0.0, True)


def test_fireworks():
    policy = policy_from_spec("fireworks:kimi", {"api_key": "fw-1", "max_tokens": 5})
    assert isinstance(policy, FireworksPolicy)
    assert (policy.model, policy.max_tokens) == ("accounts/fireworks/models/kimi", 5)


@pytest.mark.parametrize(
    ("spec", "options", "why"),
    [
        ("greedy", {}, "policy = greedy: there is no such policy; choose from random, scripted:FILE, openai:MODEL"),
        ("", {}, "there is no such policy"),
        ("random:3", {}, "policy = random:3: write random, with nothing behind it"),
        ("openai", {}, "policy = openai: write openai:MODEL"),
        ("scripted:", {}, "write scripted:FILE"),
        ("random", {"temperature": 1}, "policy = random: random takes no 'temperature'"),
        ("openai:m", {"temprature": 1}, "openai takes no 'temprature'; did you mean 'temperature'?"),
        ("openai:m", {"model": "n"}, "openai takes no 'model'"),
    ],
)
def test_what_there_is_not_is_refused_with_advice(spec, options, why):
    with pytest.raises(ConfigError, match=re.escape(why)):
        policy_from_spec(spec, options)


def test_what_the_policy_itself_lacks_is_its_own_error(monkeypatch):
    monkeypatch.delenv("FIREWORKS_API_KEY", raising=False)
    with pytest.raises(PolicyError, match="FIREWORKS_API_KEY"):
        policy_from_spec("fireworks:kimi")
    with pytest.raises(PolicyError, match=r"gone\.json"):
        policy_from_spec("scripted:gone.json")


def test_all_forms_are_listed_for_a_help_text():
    assert FORMS == ("random", "scripted:FILE", "openai:MODEL", "fireworks:MODEL")
