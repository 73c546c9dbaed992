"""Old scripts find their names where they have always imported them, and read results in eval-protocol's words."""

import copy
import importlib
import json
import pickle
import subprocess
import sys

import pytest

import muxsim.compat.reward_kit as rk
from muxsim.compat.reward_kit.old_paths import BELOW

from .test_rollout import going, play
from .walks import Walks

pytestmark = pytest.mark.filterwarnings("ignore:.*reward-kit:DeprecationWarning")

# As scripts of both packages write them.
IMPORTS = """
import {kit} as rk
import {kit}.mcp_env
from {kit}.mcp_env import DatasetRow, LLMBasePolicy, MCPToolCall, Trajectory, load_jsonl, make, rollout, test_mcp
from {kit}.mcp_env import FireworksPolicy, GeneralMCPVectorEnv, MCPVectorEnv
from {kit}.mcp.types import DatasetRow, MCPSession, MCPToolCall, Trajectory
from {kit}.mcp.execution.policy import FireworksPolicy, LLMBasePolicy, OpenAIPolicy
from {kit}.mcp.session.manager import GeneralMCPVectorEnv
from {kit}.mcp import EnvironmentAdapter, GymProductionServer, LLMBasePolicy, McpGym
from {kit}.mcp.adapter import EnvironmentAdapter
from {kit}.mcp.mcpgym import McpGym, control_plane_endpoint
from {kit}.playback_policy import PlaybackPolicyBase
from {kit}.utils.static_policy import RandomPolicy, StaticPolicy
from {kit}.types import DatasetRow, MCPSession, MCPToolCall, TerminationReason, Trajectory
from {kit}.models import EvaluationRow, InputMetadata, Message, Status
from {kit}.common_utils import load_jsonl
assert MCPToolCall is rk.MCPToolCall and MCPVectorEnv is GeneralMCPVectorEnv
assert rk.mcp.types.Trajectory is Trajectory is rk.Trajectory
assert LLMBasePolicy is rk.mcp_env.LLMBasePolicy and issubclass(StaticPolicy, PlaybackPolicyBase)
print("imported")
"""


def run(*arguments, cwd=None):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


ALIASED = "import sys, muxsim.compat.reward_kit as ours; sys.modules['eval_protocol'] = ours\n"


def test_scripts_import_what_they_have_always_imported():
    texts = [IMPORTS.replace("{kit}", "muxsim.compat.reward_kit"), ALIASED + IMPORTS.format(kit="eval_protocol")]
    assert run("-c", "".join(texts)) == "imported\nimported\n"


STARS = """
from {kit}.mcp.types import *
from {kit}.mcp_env import *
assert LLMBasePolicy and MCPSession and Trajectory and make and rollout
assert "gymnasium" not in sys.modules
from {kit}.mcp import *
assert McpGym and EnvironmentAdapter and control_plane_endpoint
print("imported")
"""


@pytest.mark.parametrize("kit", ["muxsim.compat.reward_kit", "eval_protocol"])
def test_scripts_import_all_at_once_what_they_have_always_imported(kit):
    assert run("-c", ALIASED + STARS.format(kit=kit)) == "imported\n"


def test_a_star_gives_every_name_in_each_old_module():
    for below in BELOW:
        given = {}
        exec(f"from {rk.__name__}.{below} import *", given)
        assert set(rk.__all__) <= given.keys()


def test_a_script_is_run_as_it_is(tmp_path):
    script = tmp_path / "play.py"
    both = "".join(IMPORTS.format(kit=kit) for kit in ("reward_kit", "eval_protocol"))
    script.write_text(f"{both}\nimport sys\nimport beside\nprint(sys.argv, __name__)\n")
    (tmp_path / "beside.py").write_text("")
    told = run("-m", "muxsim.compat.reward_kit", str(script), "--steps", "8")
    assert told == f"imported\nimported\n{[str(script), '--steps', '8']} __main__\n"
    told = run("-m", "muxsim.compat.reward_kit", "-m", "play", "x", cwd=tmp_path)
    assert told.endswith("'x'] __main__\n")


def test_what_cannot_be_run_is_said():
    for wrong, says in (((), "usage: "), (("nowhere.py",), "there is no file nowhere.py")):
        command = [sys.executable, "-m", "muxsim.compat.reward_kit", *wrong]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert says in done.stderr


def test_a_module_that_neither_has_is_not_found():
    for name in ("pytest", "mcp.nothing", "mcp.types.more"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"{rk.__name__}.{name}")
    for below in BELOW:
        assert not hasattr(importlib.import_module(f"{rk.__name__}.{below}"), "nothing_of_the_kind")


async def test_what_was_played_is_read_as_a_row_of_eval_protocols():
    [first, _] = await play(Walks(), going("ON", "WRONG", "ON"), model_id="mine")
    assert [message.role for message in first.messages[:3]] == ["system", "user", "assistant"]
    call = first.messages[2].tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("go", {"action": "ON"})
    results = [message.control_plane_step for message in first.messages if message.control_plane_step]
    assert [step["reward"] for step in results] == first.rewards == [1.0, 0.0, 1.0, 1.0]
    assert [step["step"] for step in results] == [0, 1, 2, 3]
    assert [bool(step.get("termination_reason")) for step in results] == [False, False, False, True]
    assert first.get_terminated()
    assert first.get_steps() == len(results)
    assert first.get_total_reward() == sum(step["reward"] for step in results)
    assert first.get_termination_reason() == rk.TerminationReason.CONTROL_PLANE_SIGNAL == "control_plane_signal"
    assert first.rollout_status.is_finished()
    assert (first.usage.prompt_tokens, first.usage["total_tokens"]) == (0, 0)
    assert (first.get_system_message().content, first.last_assistant_message().content) == ("Walk.", None)
    assert (len(first.get_user_messages()), first.get_conversation_length()) == (1, len(first.messages))
    assert (first.input_metadata.row_id, first.get_input_metadata("completion_params")) == ("row-0", {"model": "mine"})
    assert first.tools[0]["name"] == "go"
    assert first.messages[0].name is None
    with pytest.raises(AttributeError):
        _ = first.messages[0].nothing_of_the_kind
    assert json.loads(json.dumps(first.messages)) == first.messages
    assert pickle.loads(pickle.dumps(first.messages)) == copy.deepcopy(first.messages) == first.messages


async def test_what_has_failed_is_an_error_and_no_reward_that_nobody_knows_is_a_number():
    [played, _] = await play(Walks(rewards=(1.0, None)))
    assert played.rollout_status.is_error()
    assert "a reward could not be read" in played.rollout_status.message
    assert not played.get_terminated()
    told = [message.control_plane_step for message in played.messages if message.control_plane_step]
    assert [step["reward"] for step in told] == [1.0, None]


async def test_rows_of_a_script_of_eval_protocols_are_played_and_told_of():
    info = {"user_prompt_template": "See {observation}.", "environment_context": {"seed": 1}}
    said = [rk.Message(role="system", content="Walk.")]
    row = rk.EvaluationRow(said, input_metadata=rk.InputMetadata("r1", dataset_info=info), ground_truth="there")
    assert row.rollout_status.is_running()
    [played] = await rk.rollout(Walks(), going(), evaluation_rows=[row])
    assert (played.session.seed, played.get_system_message().content) == (1, "Walk.")
    assert (played.input_metadata, played.ground_truth) == (row.input_metadata, "there")


async def test_what_is_written_anywhere_in_a_message_is_kept():
    [played, _] = await play(Walks(), going("ON"), model_id="mine")
    recorded = copy.deepcopy(played.conversation_history)
    said = next(message for message in played.messages if message.tool_calls)
    calls = said.tool_calls
    calls[0].function.name = "come"
    calls.append({"id": "more", "function": {"name": "go"}})
    said.tool_calls[-1].function.arguments = "{}"
    assert calls is said.tool_calls is said["tool_calls"]
    assert [call.function.name for call in said.tool_calls] == ["come", "go"]
    told = said.model_dump()
    assert told == json.loads(json.dumps(said))
    assert {type(told), type(told["tool_calls"][1]["function"])} == {dict}
    told["tool_calls"][1]["function"]["name"] = "stay"
    assert said.tool_calls[1].function.name == "go"
    step = next(message.control_plane_step for message in played.messages if message.control_plane_step)
    step.reward = 7.0
    assert any(message.get("control_plane_step", {}).get("reward") == 7.0 for message in played.messages)
    assert played.conversation_history == recorded

    parts = rk.Message(role="user", content=[{"type": "text", "text": "Walk."}])
    parts.content[0].text = "Run."
    assert parts == {"role": "user", "content": [{"type": "text", "text": "Run."}]}
    played.usage.details = {"cached": 1}
    played.usage.details.cached = 2
    assert played.usage["details"] == {"cached": 2}
