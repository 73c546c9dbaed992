"""Policies as a command line names them."""

import re
import sys

import pytest

from muxsim.errors import ConfigError
from muxsim.rollouts.policy import imported
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
        ("python", {}, "write python:MODULE:CLASS"),
        ("python:mine", {}, "policy = mine: write MODULE:NAME"),
        ("python:no_such_module:Mine", {}, "there is no module 'no_such_module', neither installed nor in "),
        ("python:no_such.module:Mine", {}, "there is no module 'no_such'"),
        ("python:random:Randm", {}, "random has no 'Randm'; did you mean 'Random'?"),
        ("python:datetime:date", {}, "it cannot be made: TypeError"),
        ("python:datetime:datetime.max", {}, "datetime.datetime(9999"),
        ("python:collections:OrderedDict", {}, "is no policy: it has no method next_message"),
    ],
)
def test_what_there_is_not_is_refused_with_advice(spec, options, why):
    with pytest.raises((ConfigError, PolicyError), match=re.escape(why)):
        policy_from_spec(spec, options)


def test_what_the_policy_itself_lacks_is_its_own_error(monkeypatch):
    monkeypatch.delenv("FIREWORKS_API_KEY", raising=False)
    with pytest.raises(PolicyError, match="FIREWORKS_API_KEY"):
        policy_from_spec("fireworks:kimi")
    with pytest.raises(PolicyError, match=r"gone\.json"):
        policy_from_spec("scripted:gone.json")


def test_all_forms_are_listed_for_a_help_text():
    assert FORMS == ("random", "scripted:FILE", "openai:MODEL", "fireworks:MODEL", "python:MODULE:CLASS")


MINE = """
class Mine:
    def __init__(self, step=1, fail=False):
        if fail:
            raise RuntimeError("no weights")
        self.step = step

    async def next_message(self, conversation, tools, seed):
        pass

def make(step=2):
    return Mine(step)

ready = Mine(7)

def reward(trajectory, workspace, *, scale=1.0):
    return scale

def three(a, b, c):
    return 0

class Judge:
    def __init__(self, name):
        self.name = name

    def __call__(self, trajectory):
        return 1
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path.copy())
    name = f"mine_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MINE)
    return name


@pytest.mark.parametrize(
    ("what", "options", "step"), [("Mine", {}, 1), ("Mine", {"step": 5}, 5), ("make", {}, 2), ("ready", {}, 7)]
)
def test_a_policy_of_the_users_own_is_made_with_its_options(module, what, options, step):
    assert policy_from_spec(f"python:{module}:{what}", options).step == step


@pytest.mark.parametrize(
    ("what", "options", "why"),
    [
        ("Mine", {"size": 3}, "it cannot be made: TypeError: "),
        ("Mine", {"fail": True}, "it cannot be made: RuntimeError: no weights ("),
        ("ready", {"step": 3}, "it is made already and takes no step"),
    ],
)
def test_a_policy_that_cannot_be_made_says_why_and_where(module, what, options, why):
    with pytest.raises(ConfigError, match=re.escape(why)):
        policy_from_spec(f"python:{module}:{what}", options)


def test_a_module_that_breaks_says_where(module, tmp_path):
    (tmp_path / f"{module}.py").write_text("import no_such_package\n")
    with pytest.raises(ConfigError, match=r"cannot be imported: ModuleNotFoundError: .*line 1\)"):
        policy_from_spec(f"python:{module}:Mine")


def test_a_module_or_a_class_that_exits_is_a_mistake_and_not_the_end_of_the_program(module, tmp_path):
    (tmp_path / f"{module}.py").write_text("import sys\n\n\ndef make():\n    sys.exit(0)\n")
    with pytest.raises(ConfigError, match=r"it cannot be made: SystemExit: 0 .*line 5\)"):
        policy_from_spec(f"python:{module}:make")
    (tmp_path / f"{module}_main.py").write_text("import sys\n\nsys.exit(0)\n")
    with pytest.raises(ConfigError, match=r"cannot be imported: SystemExit: 0 .*line 3\)"):
        imported.function(f"{module}_main:reward", {})


def test_a_reward_is_a_function_with_its_options_or_made_of_a_class(module):
    assert imported.function(f"{module}:reward", {"scale": 3})(None, None) == 3
    assert imported.function(f"{module}:Judge", {"name": "x"})(None) == 1


@pytest.mark.parametrize(
    ("what", "options", "why"),
    [
        ("three", {}, "it has to take (trajectory) or (trajectory, workspace)"),
        ("reward", {"size": 1}, "it has to take"),
        ("ready", {}, "a reward is a function of the trajectory"),
        ("Judge", {}, "it cannot be made: TypeError"),
        ("rewrd", {}, "did you mean 'reward'?"),
    ],
)
def test_what_is_no_reward_function_says_so(module, what, options, why):
    with pytest.raises(ConfigError, match=re.escape(why)):
        imported.function(f"{module}:{what}", options)
