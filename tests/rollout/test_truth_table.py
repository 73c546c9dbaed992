"""Every way in which a call, a control read, a start, a reply or a tape can fail, by who fails, and what a row says.

Real environments, played by a policy that opens one door after the other. Who fails: the environment, muxsim, the
endpoint, the policy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing
from harness import SERVERS

import muxsim
from muxsim.rollouts.data.trajectory import VALID_ENDS, EndReason
from muxsim.rollouts.environments.environment import MachineryFailed
from muxsim.rollouts.policy.messages import assistant_calls, turn_of
from muxsim.rollouts.policy.playback import PlaybackPolicy, RecordingPolicy
from muxsim.rollouts.policy.protocol import PolicyError, RateLimited, Reply, TokenLimit

pytestmark = pytest.mark.children

LIMIT = 120
# Of the game: four doors, and 0.5 for each.
WHOLE = 2.0


@dataclass(frozen=True)
class Row:
    """``total`` is None where nothing may be scored; ``words`` lead to the mistake, and stand in error or stderr."""

    who: str
    how: str
    end: EndReason
    total: float | None
    words: str = ""


ENVIRONMENT = [
    Row("environment", "crash", EndReason.ENV_CRASHED, None, "Segmentation fault, as it were"),
    Row("environment", "hang", EndReason.TOOL_TIMEOUT, None, "open: no answer within"),
    Row("environment", "malformed-result", EndReason.ENV_FAILED, None, "the result is malformed: "),
    Row("environment", "no-content", EndReason.ENV_FAILED, None, "neither content nor structuredContent"),
    Row("environment", "nan", EndReason.ENV_FAILED, None, "a reward could not be read: the reward is null"),
    Row("environment", "torn", EndReason.ENV_FAILED, None, "the backend's answer could not be read: not JSON"),
    Row("environment", "meta-malformed", EndReason.ENV_FAILED, None, "the control plane is malformed: "),
    Row("environment", "control-gone", EndReason.ENV_FAILED, None, "control://status: the disk is on fire"),
    Row("environment", "control-gone-at-once", EndReason.ENV_FAILED, None, "control://status: the disk is on fire"),
    Row("environment", "status-malformed", EndReason.ENV_FAILED, None, "terminated is not true or false"),
    Row("environment", "says-failed", EndReason.ENV_FAILED, None, "step 2: the simulator is gone"),
    Row("environment", "reward-lies", EndReason.ENV_FAILED, None, "control://reward: 100, and by control://status"),
    Row("environment", "own-lies", EndReason.ENV_FAILED, None, "come to 11.5, and control://status says 2"),
    Row("environment", "own-silent", EndReason.ENV_FAILED, None, "come to 1.5, and control://status says 2"),
    Row("environment", "no-start", EndReason.ENV_START_FAILED, None, "no world today"),
    Row("environment", "tools-null", EndReason.ENV_START_FAILED, None, "tools/list is malformed"),
    Row("environment", "tools-nameless", EndReason.ENV_START_FAILED, None, "missing required field `name`"),
    Row("environment", "tools-endless", EndReason.ENV_START_FAILED, None, "nextCursor 'again' has been there before"),
    # What can be told after all is no failure, and an agent's mistake is none of the environment's.
    Row("nobody", "nothing", EndReason.TERMINATED, WHOLE),
    Row("nobody", "own-then-exits", EndReason.TERMINATED, WHOLE),
    Row("nobody", "foreign", EndReason.MAX_STEPS, None),
    Row("nobody", "reward-unreadable", EndReason.TERMINATED, WHOLE),
    Row("policy", "refuse", EndReason.TERMINATED, WHOLE),
    Row("policy", "is-error", EndReason.TERMINATED, WHOLE),
]


class Opens:
    """Opens a door with each turn."""

    async def next_message(self, conversation, tools, seed):
        await trio.lowlevel.checkpoint()
        return Reply(assistant_calls([("open", {})], turn_of(conversation)))


class Says(Opens):
    """Opens a door, and then says or raises something else."""

    def __init__(self, then):
        self.then = then

    async def next_message(self, conversation, tools, seed):
        if turn_of(conversation) < 1:
            return await super().next_message(conversation, tools, seed)
        if isinstance(self.then, Exception):
            raise self.then
        return self.then


def environment(folder, how, server="broken_environment.py", **more):
    file = folder / "muxsim.toml"
    lines = ["[environments.game]", f"command = {json.dumps(str(SERVERS / server))}", f"args = [{json.dumps(how)}]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in {"warm": 0, "zygote": False, **more}.items()]
    file.write_text("\n".join(lines) + "\n")
    return file


async def play(file, policy, **options) -> Any:
    with trio.fail_after(LIMIT):
        async with muxsim.open_pool(file) as pool:
            rows = [{"id": "row", "env": "game", "seed": 0}]
            (trajectory,) = await muxsim.rollout(pool, rows, policy=policy, **{"max_steps": 9, **options})
            return trajectory


def check(trajectory, row):
    said = "\n".join([trajectory.error or "", *trajectory.stderr])
    assert (trajectory.end_reason, trajectory.total_reward) == (row.end, row.total), said
    assert trajectory.valid is (row.end in VALID_ENDS)
    assert row.words in said
    assert not [message for message in trajectory.messages if row.words and row.words in str(message.get("content"))]
    called = [call["id"] for message in trajectory.messages for call in message.get("tool_calls") or ()]
    assert called == [message["tool_call_id"] for message in trajectory.messages if message["role"] == "tool"]


@pytest.mark.parametrize("row", ENVIRONMENT, ids=lambda row: row.how)
async def test_what_an_environment_does_is_in_its_row(tmp_path, row):
    patience = 2.0 if row.end is EndReason.TOOL_TIMEOUT else 60.0
    trajectory = await play(environment(tmp_path, row.how), Opens(), call_timeout=patience)
    check(trajectory, row)


GYM = [
    Row("environment", "step-raises", EndReason.ENV_FAILED, None, "ConnectionError: the simulator does not answer"),
    Row("environment", "nan-reward", EndReason.ENV_FAILED, None, "the reward is not finite but nan"),
    Row("environment", "inf-reward", EndReason.ENV_FAILED, None, "the reward is not finite but inf"),
    Row("environment", "none-reward", EndReason.ENV_FAILED, None, "the reward is not a number but None"),
    Row("environment", "text-reward", EndReason.ENV_FAILED, None, "the reward is not a number but '1.0'"),
    Row("environment", "odd-terminated", EndReason.ENV_FAILED, None, "terminated is not a bool but 'no'"),
    Row("environment", "odd-info", EndReason.ENV_FAILED, None, "the info is not a dict but None"),
    Row("environment", "no-tuple", EndReason.ENV_FAILED, None, "terminated, truncated and info but None"),
    Row("environment", "four-members", EndReason.ENV_FAILED, None, "and info but (0, 0.0, False, {})"),
    Row("environment", "endless-info", EndReason.ENV_FAILED, None, "what holds itself, or is nested without an end"),
    Row("environment", "reset-alone", EndReason.ENV_START_FAILED, None, "what reset returned is not a tuple"),
    Row("environment", "reset-odd-info", EndReason.ENV_START_FAILED, None, "what reset returned: the info is not a"),
    Row("environment", "describes-nothing", EndReason.ENV_START_FAILED, None, "describe returned None, which is no"),
    Row("environment", "describe-raises", EndReason.ENV_FAILED, None, "KeyError: 'nowhere'"),
    Row("environment", "reset-raises", EndReason.ENV_START_FAILED, None, "ConnectionError: no simulator at port 7"),
    Row("nobody", "nothing", EndReason.MAX_STEPS, 3.0),
]


class Steps(Opens):
    """Takes a step of the author kit's own tool with each turn."""

    async def next_message(self, conversation, tools, seed):
        await trio.lowlevel.checkpoint()
        return Reply(assistant_calls([("step", {"action": 0})], turn_of(conversation)))


@pytest.mark.parametrize("row", GYM, ids=lambda row: row.how)
async def test_an_authors_mistake_is_named_and_is_no_sample_of_the_policy(tmp_path, row):
    trajectory = await play(environment(tmp_path, row.how, "broken_gym.py"), Steps(), max_steps=3)
    check(trajectory, row)
    if row.end is EndReason.ENV_FAILED:
        assert trajectory.stderr[-1].startswith(("ConnectionError: ", "TypeError: ", "ValueError: ", "KeyError: "))


BYE = {"role": "assistant", "content": "bye"}
REPLIES = [
    (Row("policy", "no call", EndReason.NO_TOOL_CALL, 0.5), Reply(BYE)),
    (Row("endpoint", "withheld", EndReason.POLICY_ERROR, None, "withheld"), Reply(BYE, finish_reason="content_filter")),
    (Row("policy", "cut off", EndReason.TOKEN_LIMIT, 0.5, "finish_reason"), Reply(BYE, finish_reason="length")),
    (Row("policy", "context full", EndReason.TOKEN_LIMIT, 0.5, "8192"), TokenLimit("more than 8192 tokens")),
    (Row("endpoint", "refused", EndReason.POLICY_ERROR, None, "401"), PolicyError("401: no such key")),
    (Row("endpoint", "throttled", EndReason.RATE_LIMITED, None, "429"), RateLimited("429: slow down")),
    (Row("policy", "raises", EndReason.POLICY_ERROR, None, "ValueError: no idea"), ValueError("no idea")),
    (Row("policy", "no reply", EndReason.POLICY_ERROR, None, "has to return a Reply"), 7),
    (
        Row("policy", "bad arguments", EndReason.MAX_STEPS, 0.5),
        Reply(
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "open", "arguments": "{"}}],
            }
        ),
    ),
]


@pytest.mark.parametrize(("row", "then"), REPLIES, ids=lambda one: getattr(one, "how", ""))
async def test_what_a_reply_is_or_is_not_is_in_its_row(tmp_path, row, then):
    trajectory = await play(environment(tmp_path, "nothing"), Says(then), max_steps=2)
    assert (trajectory.end_reason, trajectory.total_reward) == (row.end, row.total)
    assert trajectory.valid is (row.end in VALID_ENDS)
    assert row.words in (trajectory.error or "")


class Silent(Opens):
    async def next_message(self, conversation, tools, seed):
        await trio.lowlevel.checkpoint()
        return Reply(BYE)


async def test_an_episode_without_a_call_has_earned_what_the_environment_says(tmp_path):
    trajectory = await play(environment(tmp_path, "nothing"), Silent())
    assert (trajectory.end_reason, trajectory.valid, trajectory.total_reward) == (EndReason.NO_TOOL_CALL, True, 0.0)


async def hangs(environment):
    await environment.call("open", {})


async def test_a_refusal_of_muxsims_own_is_never_an_observation(tmp_path):
    """Of as many requests as may be in flight the rollout's own call is one too many."""
    file = environment(tmp_path, "hang", max_in_flight=1)
    with trio.fail_after(LIMIT):
        async with muxsim.open_pool(file) as pool:
            busy = await pool.open("game", 0)
            await busy.call("open", {})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(hangs, busy)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(MachineryFailed, match="max_in_flight"):
                    await busy.call("open", {})
                nursery.cancel_scope.cancel()
            await busy.close()


TAPES = [("used up", 2, {}), ("another prompt", 9, {"user_prompt_template": "Go."}), ("another seed", 9, {"seed": 1})]


@pytest.mark.parametrize(("how", "steps", "changes"), TAPES, ids=lambda one: one if isinstance(one, str) else "")
async def test_a_tape_is_played_where_it_was_recorded_and_nowhere_else(tmp_path, how, steps, changes):
    file, tape = environment(tmp_path, "nothing"), tmp_path / "tape.jsonl"
    row = {"id": "row", "env": "game", "seed": 0}
    with trio.fail_after(LIMIT):
        async with muxsim.open_pool(file) as pool:
            recorder = RecordingPolicy(Opens(), tape)
            (first,) = await muxsim.rollout(pool, [row], policy=recorder, max_steps=steps)
            (same,) = await muxsim.rollout(pool, [row], policy=PlaybackPolicy(tape), max_steps=steps)
            (other,) = await muxsim.rollout(pool, [{**row, **changes}], policy=PlaybackPolicy(tape), max_steps=9)
    assert (first.valid, same.total_reward) == (True, first.total_reward)
    assert (other.end_reason, other.total_reward) == (EndReason.POLICY_ERROR, None)
