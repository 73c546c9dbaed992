"""The rollout loop, played with environments and policies that do what each test tells them."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
import trio

from muxsim.errors import Busy, MuxsimError, StartError, UnknownEnvironment
from muxsim.rollouts.data.kept_files import Collect
from muxsim.rollouts.data.rows import DatasetError
from muxsim.rollouts.data.trajectory import VALID_ENDS, Control, EndReason, Usage
from muxsim.rollouts.environments.environment import (
    CallTimeout,
    EnvironmentFailed,
    EnvironmentGone,
    MachineryFailed,
    Opened,
    Tool,
    ToolResult,
)
from muxsim.rollouts.play.options import RolloutOptions
from muxsim.rollouts.play.runner import episodes, rollout
from muxsim.rollouts.policy.messages import assistant_calls, turn_of
from muxsim.rollouts.policy.playback import current_episode
from muxsim.rollouts.policy.protocol import PolicyError, RateLimited, Reply, TokenLimit

from .samples import image_block, png, text_block

STEP = Tool("step", "Go on.", {"type": "object", "properties": {"to": {"type": "string"}}})
SEEN = text_block("you see a lake")
LIMIT = 60


# Environments and policies


def result(*content, reward=0.0, is_error=False, control=True, **more):
    """What a call gave; without ``control`` the server has no control plane."""
    plane = Control(reward=reward, **more) if control else None
    return ToolResult(list(content) or [SEEN], is_error=is_error, control=plane)


@dataclass
class FakeEnvironment:
    """Gives one after the other of ``results``, raising those that are exceptions; the last again and again."""

    env: str
    seed: int
    results: list
    pool: FakePool
    opened: Opened
    id: str = "session-1"
    calls: list = field(default_factory=list)
    timeouts: list = field(default_factory=list)
    rewards: list = field(default_factory=list)

    async def call(self, tool, arguments, *, timeout=None):
        self.calls.append((tool, arguments))
        self.timeouts.append(timeout)
        await anyio.lowlevel.checkpoint()
        given = self.results[min(len(self.calls), len(self.results)) - 1]
        if callable(given):
            given = await given()
        if isinstance(given, Exception):
            raise given
        if given.control is not None:
            self.rewards.append(given.control.reward or 0.0)
        return given

    async def earned(self, *, timeout=None, over=False):
        await anyio.lowlevel.checkpoint()
        if isinstance(self.pool.earns, Exception):
            raise self.pool.earns
        return float(sum(self.rewards)) if self.rewards else self.pool.earns

    async def finish(self):
        await anyio.lowlevel.checkpoint()
        self.pool.finished.append(self.seed)

    async def close(self):
        await anyio.lowlevel.checkpoint()  # raises in a cancelled task, unless the runner shields it
        self.pool.closed.append(self.seed)


class FakePool:
    """Opens environments that give ``results``; ``by_seed`` has those of some seeds. ``starts`` are raised first.

    ``earns`` is what an environment says at the end of an episode whose calls have told nothing.
    """

    environments = ("lake",)

    def __init__(self, *results, by_seed=None, starts=(), state=None, earns=None):
        self.results = list(results) or [result()]
        self.by_seed = by_seed or {}
        self.starts = list(starts)
        self.earns = earns
        self.state = {"observation": "a lake"} if state is None else state
        self.opened = []
        self.finished = []
        self.closed = []
        self.asked = []

    async def open(self, env, seed, *, start_timeout=None):
        self.asked.append((anyio.current_time(), env, seed, start_timeout))
        await anyio.lowlevel.checkpoint()
        if self.starts:
            fault = self.starts.pop(0)
            if fault is not None:
                raise fault
        opened = Opened("Cross it.", (STEP,), start_seconds=0.5, handshake_seconds=0.25, initial_state=self.state)
        results = self.by_seed.get(seed, self.results)
        self.opened.append(FakeEnvironment(env, seed, results, self, opened, id=f"session-{seed}"))
        return self.opened[-1]


class Decides:
    """A policy made of a function of the conversation; keeps what it was given."""

    def __init__(self, decide=None):
        self.decide = decide or (lambda conversation: calls("on"))
        self.conversations = []
        self.seeds = []
        self.tools = []

    async def next_message(self, conversation, tools, seed):
        self.conversations.append(json.loads(json.dumps(conversation)))
        self.seeds.append(seed)
        self.tools.append(tools)
        await anyio.lowlevel.checkpoint()
        decided = self.decide(conversation)
        if isinstance(decided, Exception):
            raise decided
        return decided if isinstance(decided, Reply) else Reply(decided)


def calls(*directions):
    return assistant_calls([("step", {"to": to}) for to in directions], 0)


def raw_call(arguments, name="step"):
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}


def rows(*seeds):
    return [{"id": f"row-{seed}", "env": "lake", "seed": seed} for seed in seeds or (0,)]


async def play(pool, policy=None, *seeds, **options):
    with trio.fail_after(LIMIT * 100):  # of the mocked clock, where there is one
        return await rollout(pool, rows(*seeds), policy=policy or Decides(), **options)


async def play_one(pool, policy=None, **options):
    (trajectory,) = await play(pool, policy, **options)
    return trajectory


async def forever():
    await anyio.sleep_forever()


class Diary:
    """A watcher that writes down what it is told."""

    def __init__(self):
        self.told = []

    def started(self, trajectory):
        self.told.append(("started", trajectory.id, len(trajectory.steps)))

    def stepped(self, trajectory):
        self.told.append(("stepped", trajectory.id, len(trajectory.steps)))

    def ended(self, trajectory):
        self.told.append(("ended", trajectory.id, trajectory.end_reason.value))


# How episodes end


async def test_an_episode_goes_on_until_the_environment_says_that_it_is_over():
    pool = FakePool(result(reward=0.0), result(reward=0.5), result(reward=1.0, terminated=True))
    trajectory = await play_one(pool)
    assert (trajectory.end_reason, trajectory.valid, trajectory.total_reward) == (EndReason.TERMINATED, True, 1.5)
    assert [step.index for step in trajectory.steps] == [0, 1, 2]
    assert pool.closed == [0]


async def test_a_truncated_episode_is_valid():
    trajectory = await play_one(FakePool(result(), result(truncated=True)))
    assert (trajectory.end_reason, trajectory.valid, len(trajectory.steps)) == (EndReason.TRUNCATED, True, 2)


async def test_an_episode_that_is_terminated_and_truncated_counts_as_terminated():
    trajectory = await play_one(FakePool(result(terminated=True, truncated=True)))
    assert trajectory.end_reason is EndReason.TERMINATED


async def test_an_episode_stops_at_its_step_limit():
    trajectory = await play_one(FakePool(), max_steps=3)
    assert (trajectory.end_reason, trajectory.valid, len(trajectory.steps)) == (EndReason.MAX_STEPS, True, 3)


async def test_a_reply_without_a_tool_call_ends_the_episode():
    def decide(conversation):
        return calls("on") if turn_of(conversation) < 2 else {"role": "assistant", "content": "I give up."}

    trajectory = await play_one(FakePool(), Decides(decide))
    assert (trajectory.end_reason, trajectory.valid, len(trajectory.steps)) == (EndReason.NO_TOOL_CALL, True, 2)
    assert trajectory.messages[-1] == {"role": "assistant", "content": "I give up."}


async def test_a_call_without_an_answer_in_time_ends_the_episode_as_invalid():
    pool = FakePool(result(reward=1.0), CallTimeout("step: no answer within 7 s"))
    trajectory = await play_one(pool, call_timeout=7)
    assert (trajectory.end_reason, trajectory.valid) == (EndReason.TOOL_TIMEOUT, False)
    assert trajectory.total_reward is None
    assert trajectory.error == "step: no answer within 7 s"
    assert (pool.opened[0].timeouts, pool.closed) == ([7, 7], [0])


async def test_an_episode_past_its_time_ends_with_what_it_has(autojump_clock):
    pool = FakePool(result(reward=1.0), forever)
    trajectory = await play_one(pool, episode_timeout=20)
    assert (trajectory.end_reason, trajectory.valid, len(trajectory.steps)) == (EndReason.EPISODE_TIMEOUT, False, 1)
    assert (trajectory.total_reward, trajectory.error) == (None, "over 20 s")
    assert pool.closed == [0]


async def test_the_time_of_an_episode_counts_its_start(autojump_clock):
    class Slow(FakePool):
        async def open(self, env, seed, *, start_timeout=None):
            await anyio.sleep_forever()

    trajectory = await play_one(Slow(), episode_timeout=20)
    assert (trajectory.end_reason, trajectory.messages) == (EndReason.EPISODE_TIMEOUT, [])


async def test_a_crash_ends_its_episode_alone_and_keeps_the_last_words():
    crash = EnvironmentGone("the backend was killed", stderr=("Traceback", "out of memory"))
    pool = FakePool(result(), result(reward=1.0, terminated=True), by_seed={1: [result(reward=1.0), crash]})
    first, second, third = await play(pool, None, 0, 1, 2)
    assert (second.end_reason, second.valid, second.total_reward) == (EndReason.ENV_CRASHED, False, None)
    assert (second.error, second.stderr) == ("the backend was killed", ["Traceback", "out of memory"])
    assert len(second.steps) == 1
    assert [(one.end_reason, one.total_reward) for one in (first, third)] == [(EndReason.TERMINATED, 1.0)] * 2
    assert sorted(pool.closed) == [0, 1, 2]


@pytest.mark.parametrize("fault", [StartError("server.py does not exist"), UnknownEnvironment("no lake")])
async def test_an_environment_that_does_not_start_is_no_sample_of_the_policy(fault):
    trajectory = await play_one(FakePool(starts=[fault]))
    assert (trajectory.end_reason, trajectory.valid) == (EndReason.ENV_START_FAILED, False)
    assert (trajectory.error, trajectory.steps, trajectory.session) == (str(fault), [], "")


async def test_the_start_timeout_is_the_pools_to_keep():
    pool = FakePool()
    await play_one(pool, start_timeout=3, max_steps=1)
    assert [start_timeout for *_, start_timeout in pool.asked] == [3]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (PolicyError("the endpoint said no"), EndReason.POLICY_ERROR),
        (RateLimited("429 for ten minutes"), EndReason.RATE_LIMITED),
    ],
)
async def test_what_a_policy_says_is_why_its_episode_is_invalid(fault, reason):
    pool = FakePool(result(reward=1.0))
    policy = Decides(lambda conversation: fault if turn_of(conversation) == 2 else calls("on"))
    trajectory = await play_one(pool, policy)
    assert (trajectory.end_reason, trajectory.valid, trajectory.total_reward) == (reason, False, None)
    assert (trajectory.error, len(trajectory.steps), pool.closed) == (str(fault), 2, [0])


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS"])
async def test_a_reply_that_was_cut_off_ends_its_episode_with_what_it_has_earned(reason):
    def decide(conversation):
        return Reply(calls("on"), finish_reason=reason if turn_of(conversation) else "tool_calls")

    trajectory = await play_one(FakePool(result(reward=1.0)), Decides(decide))
    assert (trajectory.end_reason, trajectory.valid, trajectory.total_reward) == (EndReason.TOKEN_LIMIT, True, 1.0)
    assert len(trajectory.steps) == 1
    assert reason in trajectory.error


async def test_a_conversation_that_the_model_cannot_read_any_more_is_the_policys_doing():
    policy = Decides(lambda conversation: TokenLimit("too long") if turn_of(conversation) else calls("on"))
    trajectory = await play_one(FakePool(result(reward=1.0)), policy)
    assert (trajectory.end_reason, trajectory.valid, trajectory.total_reward) == (EndReason.TOKEN_LIMIT, True, 1.0)
    assert trajectory.error == "too long"


async def test_why_a_reply_ended_is_on_record_and_not_shown_to_the_policy():
    policy = Decides(lambda conversation: Reply(calls("on"), finish_reason="tool_calls"))
    trajectory = await play_one(FakePool(), policy, max_steps=2)
    replies = [message for message in trajectory.messages if message["role"] == "assistant"]
    assert [reply["metadata"] for reply in replies] == [{"finish_reason": "tool_calls"}] * 2
    assert "finish_reason" not in json.dumps(policy.conversations)


async def test_what_tries_have_cost_that_gave_no_message_counts():
    spent = Usage(prompt_tokens=5, total_tokens=5)
    fault = RateLimited("no more", usage=spent, throttled=2.0)
    policy = Decides(lambda conversation: fault if turn_of(conversation) else Reply(calls("on"), spent, throttled=1.5))
    trajectory = await play_one(FakePool(), policy)
    assert (trajectory.usage.total_tokens, trajectory.times.throttled) == (10, 3.5)


async def test_a_result_with_structured_content_alone_is_shown_as_json():
    given = ToolResult([], is_error=False, control=None, structured={"door": "open"})
    policy = Decides()
    await play_one(FakePool(given), policy, max_steps=2)
    assert policy.conversations[-1][-1]["content"] == '{"door":"open"}'


async def test_an_exception_of_a_policy_ends_its_episode_and_no_other():
    class Fails(Decides):
        async def next_message(self, conversation, tools, seed):
            if seed == 1:
                raise ValueError("no idea")
            return await super().next_message(conversation, tools, seed)

    pool = FakePool(result(terminated=True))
    first, second = await play(pool, Fails(), 0, 1)
    assert (second.end_reason, second.error) == (EndReason.POLICY_ERROR, "ValueError: no idea")
    assert (first.end_reason, first.valid) == (EndReason.TERMINATED, True)
    assert sorted(pool.closed) == [0, 1]


async def test_cancelling_leaves_complete_trajectories(autojump_clock):
    pool, diary, seen = FakePool(result(reward=1.0), forever), Diary(), []

    class Keeps(Diary):
        def ended(self, trajectory):
            seen.append(trajectory)

    with trio.move_on_after(30) as scope:
        await rollout(pool, rows(0, 1), policy=Decides(), watchers=[diary, Keeps()])
    assert scope.cancelled_caught
    assert [(one.end_reason, one.valid, len(one.steps)) for one in seen] == [(EndReason.CANCELLED, False, 1)] * 2
    assert [told[0] for told in diary.told].count("ended") == 2
    assert sorted(pool.closed) == [0, 1]


def test_cancelling_on_asyncio_closes_the_environments_too():
    seen, closed = [], []

    class Environment:
        id, env, seed, opened = "s", "lake", 0, Opened(tools=(STEP,), initial_state={"observation": "a lake"})

        async def call(self, tool, arguments, *, timeout=None):
            await anyio.sleep_forever()

        async def close(self):
            await anyio.lowlevel.checkpoint()
            closed.append(True)

    class Pool:
        environments = ("lake",)

        async def open(self, env, seed, *, start_timeout=None):
            return Environment()

    class Keeps(Diary):
        def started(self, trajectory):
            scope.cancel()

        def ended(self, trajectory):
            seen.append(trajectory.end_reason)

    scope = None

    async def main():
        nonlocal scope
        with anyio.fail_after(LIMIT), anyio.CancelScope() as scope:
            await rollout(Pool(), rows(0), policy=Decides(), watchers=[Keeps()])

    anyio.run(main, backend="asyncio")
    assert (seen, closed) == ([EndReason.CANCELLED], [True])


def test_every_end_reason_of_the_list_is_reached_here():
    tested = Path(__file__).read_text(encoding="utf-8")
    assert [reason.name for reason in EndReason if f"EndReason.{reason.name}" not in tested] == []
    assert {reason.value for reason in VALID_ENDS} == {
        "terminated",
        "truncated",
        "max_steps",
        "no_tool_call",
        "token_limit",
    }


# Starts on a full pool


async def test_a_full_pool_is_asked_again_after_the_time_it_names(autojump_clock):
    pool = FakePool(result(terminated=True), starts=[Busy("full", 5.0), Busy("full", 40.0)])
    trajectory = await play_one(pool)
    first, second, third = (at for at, *_ in pool.asked)
    assert 5.0 <= second - first <= 7.5
    assert 40.0 <= third - second <= 60.0
    assert (trajectory.end_reason, trajectory.valid) == (EndReason.TERMINATED, True)


async def test_a_pool_that_stays_full_fails_the_start_after_so_many_tries(autojump_clock):
    pool = FakePool(starts=[Busy("all sessions are taken", 1.0)] * 9)
    trajectory = await play_one(pool, start_tries=4)
    assert (len(pool.asked), trajectory.end_reason) == (4, EndReason.ENV_START_FAILED)
    assert (trajectory.error, trajectory.valid) == ("all sessions are taken", False)


async def test_no_more_episodes_than_allowed_are_under_way(autojump_clock):
    class Counts(Diary):
        now = most = 0

        def started(self, trajectory):
            self.now += 1
            self.most = max(self.most, self.now)

        def ended(self, trajectory):
            self.now -= 1

    async def slowly():
        await anyio.sleep(1)
        return result(terminated=True)

    counts = Counts()
    trajectories = await play(FakePool(slowly), None, *range(10), max_concurrent=3, watchers=[counts])
    assert (counts.most, len(trajectories)) == (3, 10)


# What a policy gets, and what is recorded


async def test_the_control_plane_is_recorded_and_hidden_from_the_policy():
    pool = FakePool(
        result(reward=0.25, step=1, info={"secret": "hole"}), result(reward=1.0, step=2, info={}, terminated=True)
    )
    policy = Decides()
    trajectory = await play_one(pool, policy)
    tool = [message for message in trajectory.messages if message["role"] == "tool"]
    assert [message["metadata"]["control_plane"] for message in tool] == [
        {"reward": 0.25, "terminated": False, "truncated": False, "step": 1, "info": {"secret": "hole"}},
        {"reward": 1.0, "terminated": True, "truncated": False, "step": 2, "info": {}},
    ]
    given = json.dumps([policy.conversations, policy.tools])
    assert [word for word in ("metadata", "reward", "terminated", "secret", "control") if word in given] == []


async def test_a_conversation_is_the_policys_own_and_whatever_it_does_to_it_is_not_on_record():
    kept = []

    def vandalize(conversation):
        kept.append(list(conversation))
        conversation[0]["content"] = "nothing"
        conversation.clear()
        return calls("on")

    trajectory = await play_one(FakePool(), Decides(vandalize), max_steps=3)
    assert [len(each) for each in kept] == [2, 4, 6]
    assert trajectory.messages[0]["content"] != "nothing"
    assert all(now is before for now, before in zip(kept[2], kept[1], strict=False))  # each was copied once


async def test_whatever_a_policy_does_to_what_it_was_given_and_has_given_is_not_on_record():
    class Vandal:
        def __init__(self):
            self.given = []

        async def next_message(self, conversation, tools, seed):
            for earlier in self.given:
                earlier.message.clear()
            for message in conversation:
                for call in message.get("tool_calls") or ():
                    call["function"]["arguments"] = "overwritten"
            for tool in tools:
                tool["function"]["parameters"].clear()
            tools.clear()
            self.given.append(Reply(calls("on"), tokens={"token_ids": [1]}))
            return self.given[-1]

    trajectory = await play_one(FakePool(), Vandal(), max_steps=3)
    said = [message for message in trajectory.messages if message["role"] == "assistant"]
    assert said == [calls("on")] * 3
    assert trajectory.tools == [STEP.for_chat()]


async def test_whatever_a_reward_function_does_to_what_it_was_given_is_not_on_record():
    def reward(trajectory):
        trajectory.id, trajectory.end_reason, trajectory.valid = "another", "won", False
        trajectory.messages.clear()
        trajectory.steps[0].arguments.clear()
        trajectory.steps.clear()
        return 1.0

    trajectory = await play_one(FakePool(result(terminated=True)), reward=reward)
    assert (trajectory.id, trajectory.end_reason, trajectory.valid) == ("row-0", EndReason.TERMINATED, True)
    assert [step.arguments for step in trajectory.steps] == [{"to": "on"}]
    assert len(trajectory.messages) == 4
    assert trajectory.total_reward == 1.0


async def test_a_conversation_starts_with_the_rows_prompts_and_the_first_observation():
    row = {"id": "r", "seed": 3, "system_prompt": "Be brief.", "user_prompt_template": "{observation}! Seed {seed}."}
    policy = Decides()
    (trajectory,) = await rollout(FakePool(), [row], policy=policy, max_steps=1)
    assert policy.conversations[0] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a lake! Seed 3."},
    ]
    assert trajectory.tools == [STEP.for_chat()]
    assert (trajectory.env, trajectory.seed, trajectory.session) == ("lake", 3, "session-3")
    assert trajectory.initial_state == {"observation": "a lake"}
    assert (trajectory.times.start, trajectory.times.handshake) == (0.5, 0.25)


async def test_what_the_row_carries_for_rewards_comes_with_the_trajectory():
    row = {"id": "r", "env": "lake", "prompt": "Go.", "info": {"answer": 42}, "evaluation_criteria": "by 42"}
    (trajectory,) = await rollout(FakePool(), [row], policy=Decides(), max_steps=1)
    assert (trajectory.info, trajectory.evaluation_criteria) == ({"answer": 42}, "by 42")


def repr_of_20(value):
    return f"{value!r:.20}"


DEEP = [f'{{"to": {"[" * depth}{"]" * depth}}}' for depth in (500, 950, 2_000, 100_000)]


@pytest.mark.parametrize("raw", ['{"to": ', "[1, 2]", '"on"', 7, "null", *DEEP, json.loads(DEEP[0])], ids=repr_of_20)
async def test_malformed_arguments_are_an_error_that_the_policy_sees_and_the_environment_does_not(raw):
    pool = FakePool()
    policy = Decides(lambda conversation: raw_call(raw) if turn_of(conversation) == 0 else calls("on"))
    trajectory = await play_one(pool, policy, max_steps=2)
    assert pool.opened[0].calls == [("step", {"to": "on"})]
    first = trajectory.steps[0]
    assert (first.is_error, first.control, first.called) == (True, None, False)
    assert "the arguments are not" in policy.conversations[1][-1]["content"]
    assert (trajectory.end_reason, trajectory.total_reward) == (EndReason.MAX_STEPS, 0.0)


@pytest.mark.parametrize("raw", ["", None, "{}", {}])
async def test_a_call_without_arguments_has_none(raw):
    pool = FakePool()
    await play_one(pool, Decides(lambda conversation: raw_call(raw)), max_steps=1)
    assert pool.opened[0].calls == [("step", {})]


async def test_parallel_tool_calls_are_steps_of_one_reply():
    pool = FakePool()
    trajectory = await play_one(pool, Decides(lambda conversation: calls("a", "b", "c")), max_steps=6)
    assert [arguments["to"] for _, arguments in pool.opened[0].calls] == ["a", "b", "c"] * 2
    roles = [message["role"] for message in trajectory.messages if message["role"] in ("assistant", "tool")]
    assert roles == ["assistant", "tool", "tool", "tool"] * 2
    ids = [message["tool_call_id"] for message in trajectory.messages if message["role"] == "tool"]
    assert ids == [step.call_id for step in trajectory.steps]
    assert [step.model_seconds > 0 for step in trajectory.steps] == [True, False, False] * 2


async def test_calls_behind_the_one_that_ended_the_episode_are_not_made():
    pool = FakePool(result(reward=1.0, terminated=True))
    trajectory = await play_one(pool, Decides(lambda conversation: calls("a", "b")))
    assert (len(pool.opened[0].calls), trajectory.end_reason) == (1, EndReason.TERMINATED)


async def test_images_of_parallel_calls_follow_all_results_of_their_reply():
    pool, policy = FakePool(result(SEEN, image_block(png(1, 2, 3)))), Decides(lambda conversation: calls("a", "b"))
    trajectory = await play_one(pool, policy, max_steps=4)
    roles = [message["role"] for message in policy.conversations[1]]
    assert roles[-5:] == ["assistant", "tool", "tool", "user", "user"]
    assert policy.conversations[1][-1]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert [message["role"] for message in trajectory.messages[-5:]] == ["assistant", "tool", "tool", "user", "user"]


async def test_a_tools_own_error_is_a_step_and_the_episode_goes_on():
    pool = FakePool(result(text_block("no such way"), is_error=True), result(reward=1.0, terminated=True))
    trajectory = await play_one(pool)
    assert [step.is_error for step in trajectory.steps] == [True, False]
    assert (trajectory.end_reason, trajectory.total_reward) == (EndReason.TERMINATED, 1.0)


async def test_usage_is_summed_and_tokens_are_kept_for_each_reply():
    tokens = {"prompt_token_ids": [1, 2], "token_ids": [3], "logprobs": None}
    usage = Usage(prompt_tokens=10, completion_tokens=2, total_tokens=12)
    policy = Decides(lambda conversation: Reply(calls("on"), usage, tokens if turn_of(conversation) else None))
    trajectory = await play_one(FakePool(), policy, max_steps=3)
    assert trajectory.usage == Usage(prompt_tokens=30, completion_tokens=6, total_tokens=36)
    assert trajectory.tokens == [None, tokens, tokens]


async def test_watchers_are_told_of_the_start_each_step_and_the_end():
    diary = Diary()
    await play_one(FakePool(result(), result(terminated=True)), watchers=[diary])
    assert diary.told == [
        ("started", "row-0", 0),
        ("stepped", "row-0", 1),
        ("stepped", "row-0", 2),
        ("ended", "row-0", "terminated"),
    ]


# Scores


async def test_a_server_without_a_control_plane_is_unscored():
    trajectory = await play_one(FakePool(result(control=False)), max_steps=2)
    assert (trajectory.valid, trajectory.total_reward, trajectory.error) == (True, None, None)
    assert [step.control for step in trajectory.steps] == [None, None]
    assert [message for message in trajectory.messages if "metadata" in message] == []


async def test_a_reward_function_scores_a_server_without_a_control_plane():
    pool = FakePool(result(control=False))
    trajectory = await play_one(pool, max_steps=2, reward=lambda trajectory: len(trajectory.steps) / 4)
    assert trajectory.total_reward == 0.5


async def test_a_reward_function_replaces_the_environments_score():
    pool = FakePool(result(reward=1.0, terminated=True))
    assert (await play_one(pool, reward=lambda trajectory: -3)).total_reward == -3.0


async def test_a_reward_function_that_fails_leaves_its_episode_unscored_and_says_why():
    def reward(trajectory):
        raise KeyError("answer")

    trajectory = await play_one(FakePool(result(terminated=True)), reward=reward)
    assert (trajectory.valid, trajectory.total_reward) == (True, None)
    assert trajectory.error == "the reward function failed: KeyError: 'answer'"


async def test_a_reward_function_is_not_asked_about_an_episode_that_the_machinery_broke():
    pool = FakePool(EnvironmentGone("gone"))
    trajectory = await play_one(pool, reward=lambda trajectory: pytest.fail("asked"))
    assert trajectory.total_reward is None


@pytest.mark.parametrize("is_error", [True, False])
async def test_a_reward_that_could_not_be_read_ends_its_episode_and_is_never_counted_as_0(is_error):
    unread = result(reward=None, problem="control://reward: no answer in 5 s", is_error=is_error)
    trajectory = await play_one(FakePool(result(reward=1.0), unread, result(reward=1.0, terminated=True)))
    assert (trajectory.end_reason, trajectory.valid) == (EndReason.ENV_FAILED, False)
    assert (trajectory.total_reward, len(trajectory.steps)) == (None, 2)
    assert trajectory.error == "a reward could not be read: control://reward: no answer in 5 s"


async def test_a_reward_that_could_not_be_read_is_no_matter_where_a_function_scores():
    unread = result(reward=None, problem="control://reward: no answer in 5 s")
    trajectory = await play_one(FakePool(unread), reward=lambda trajectory: 3.0, max_steps=2)
    assert (trajectory.end_reason, trajectory.total_reward) == (EndReason.MAX_STEPS, 3.0)


async def test_an_episode_without_a_scored_call_has_earned_what_its_environment_says():
    bye = Decides(lambda conversation: {"role": "assistant", "content": "bye"})
    refused = result(reward=None, is_error=True, control=False)
    for pool, policy in ((FakePool(earns=0.0), bye), (FakePool(refused, earns=0.0), None)):
        trajectory = await play_one(pool, policy, max_steps=2)
        assert (trajectory.valid, trajectory.total_reward) == (True, 0.0)
    trajectory = await play_one(FakePool(earns=None), bye)
    assert (trajectory.valid, trajectory.total_reward) == (True, None)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (EnvironmentFailed("step 3 raised", stderr=("Traceback",)), EndReason.ENV_FAILED),
        (EnvironmentGone("it exited", stderr=("Traceback",)), EndReason.ENV_CRASHED),
        (MachineryFailed("HTTP status 502"), EndReason.MACHINERY_FAILED),
        (CallTimeout("no answer"), EndReason.TOOL_TIMEOUT),
    ],
)
async def test_who_has_failed_is_why_an_episode_is_invalid(fault, reason):
    bye = Decides(lambda conversation: {"role": "assistant", "content": "bye"})
    for pool, policy in ((FakePool(result(reward=1.0), fault), None), (FakePool(earns=fault), bye)):
        trajectory = await play_one(pool, policy)
        assert (trajectory.end_reason, trajectory.valid, trajectory.total_reward) == (reason, False, None)
        assert (trajectory.error, trajectory.stderr) == (str(fault), list(getattr(fault, "stderr", ())))


async def test_a_bug_of_a_pool_is_not_the_policys():
    trajectory = await play_one(FakePool(ZeroDivisionError("oh")))
    assert (trajectory.end_reason, trajectory.error) == (EndReason.MACHINERY_FAILED, "ZeroDivisionError: oh")


def unanswered(messages):
    called = [call["id"] for message in messages for call in message.get("tool_calls") or ()]
    answered = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    return [id for id in called if id not in answered] + [id for id in answered if id not in called]


@pytest.mark.parametrize(
    ("results", "options", "told"),
    [
        ([result(SEEN, image_block(png(1, 2, 3)), terminated=True)], {}, "(not called: the episode had ended)"),
        ([result()], {"max_steps": 1}, "(not called: the episode had ended)"),
        ([EnvironmentGone("dead")], {}, "(no result: the episode ended before it came)"),
        ([forever], {"episode_timeout": 5}, "(no result: the episode ended before it came)"),
    ],
)
async def test_every_call_has_a_tool_message_however_its_episode_ends(results, options, told, autojump_clock):
    trajectory = await play_one(FakePool(*results), Decides(lambda conversation: calls("a", "b", "c")), **options)
    assert unanswered(trajectory.messages) == []
    tools = [message["content"] for message in trajectory.messages if message["role"] == "tool"]
    assert (len(tools), told in tools, tools[-1]) == (3, True, "(not called: the episode had ended)")


async def test_a_reply_that_was_cut_off_still_has_a_tool_message_for_each_of_its_calls():
    policy = Decides(lambda conversation: Reply(calls("a", "b"), finish_reason="length"))
    trajectory = await play_one(FakePool(earns=0.0), policy)
    assert (trajectory.end_reason, unanswered(trajectory.messages)) == (EndReason.TOKEN_LIMIT, [])


async def test_an_environment_whose_tools_change_shows_the_new_ones_with_the_next_turn():
    fly = Tool("fly", "Up.", {"type": "object"})
    policy = Decides()
    changed = dataclasses.replace(result(), tools=(fly,))
    trajectory = await play_one(FakePool(result(), changed, result()), policy, max_steps=3)
    assert policy.tools == [[STEP.for_chat()], [STEP.for_chat()], [fly.for_chat()]]
    assert trajectory.tools == [STEP.for_chat()]
    assert [(change.step, change.tools) for change in trajectory.tools_changed] == [(1, [fly.for_chat()])]


async def test_the_total_is_the_sum_of_what_the_steps_earned():
    trajectory = await play_one(FakePool(result(reward=0.1)), max_steps=3)
    assert math.isclose(trajectory.total_reward, 0.3)


# Rows, groups, resuming


async def test_trajectories_come_in_the_order_of_the_rows(autojump_clock):
    async def late():
        await anyio.sleep(5)
        return result(terminated=True)

    trajectories = await play(FakePool(result(terminated=True), by_seed={3: [late]}), None, 3, 1, 2)
    assert [one.id for one in trajectories] == ["row-3", "row-1", "row-2"]


async def test_a_group_shares_its_start_and_differs_in_its_policies():
    policy = Decides()
    trajectories = await play(FakePool(result(terminated=True)), policy, 7, rollouts_per_row=3)
    assert [(one.id, one.row, one.sample, one.seed) for one in trajectories] == [
        ("row-7#0", "row-7", 0, 7),
        ("row-7#1", "row-7", 1, 7),
        ("row-7#2", "row-7", 2, 7),
    ]
    assert 7 in policy.seeds
    assert len(set(policy.seeds)) == 3


async def test_what_has_been_played_is_not_played_again():
    pool = FakePool(result(terminated=True))
    trajectories = await play(pool, None, 0, 1, 2, skip=frozenset({"row-0", "row-2"}))
    assert [one.id for one in trajectories] == ["row-1"]
    assert [seed for _, _, seed, _ in pool.asked] == [1]


async def test_a_row_for_an_environment_that_the_pool_lacks_is_refused_before_anything_starts():
    pool = FakePool()
    with pytest.raises(DatasetError, match=r'row 0: env = "lakes": no such environment; did you mean lake\?'):
        await rollout(pool, [{"id": "r", "env": "lakes"}], policy=Decides())
    assert pool.asked == []


async def test_options_may_be_given_as_one_object():
    pool = FakePool()
    (trajectory,) = await rollout(pool, rows(0), policy=Decides(), options=RolloutOptions(max_steps=2))
    assert len(trajectory.steps) == 2


async def test_what_an_episode_leaves_is_a_line_when_printed_without_its_images():
    picture = image_block(png(1, 2, 3))
    pool = FakePool(result(text_block("you see\na lake"), picture, reward=0.5, terminated=True))
    trajectory = await play_one(pool, Decides(lambda _: calls("x" * 10_000)))
    result_of_call = pool.results[0]
    for printed in map(repr, (trajectory, trajectory.steps[0], result_of_call)):
        assert "\n" not in printed
        assert picture["data"] not in printed
        assert len(printed) < 400
        assert "reward 0.5" in printed
    assert repr(trajectory) == "<Trajectory 'row-0': lake seed 0, 1 step, terminated, reward 0.5>"


# What nothing more will come of


async def test_an_environment_that_never_starts_ends_its_waiting_episodes_with_its_last_words():
    pool = FakePool(
        starts=[StartError("it exited with status 1\nTraceback\nModuleNotFoundError: No module named 'gym'")] * 99
    )
    trajectories = await play(pool, None, *range(20), max_concurrent=2)
    assert len(pool.asked) < 5
    assert {(one.end_reason, one.valid) for one in trajectories} == {(EndReason.ENV_START_FAILED, False)}
    assert all("ModuleNotFoundError: No module named 'gym'" in one.error for one in trajectories)


async def test_who_waits_on_a_full_pool_is_woken_when_its_environment_is_given_up(autojump_clock):
    broken, full = StartError("broken"), Busy("three starts of lake have failed", 1000.0)
    pool = FakePool(starts=[full, full, broken, broken, broken, *[full] * 99])
    trajectories = await play(pool, None, *range(5), max_concurrent=5)
    assert trio.current_time() - pool.asked[0][0] < 1000
    assert {one.end_reason for one in trajectories} == {EndReason.ENV_START_FAILED}


async def test_an_environment_that_has_started_once_is_not_given_up():
    broken = StartError("bad luck")
    pool = FakePool(result(terminated=True), starts=[broken, None, *[broken] * 5, None])
    trajectories = await play(pool, None, *range(8), max_concurrent=1)
    assert [one.valid for one in trajectories] == [False, True, *[False] * 5, True]


async def test_a_policy_that_nothing_more_can_be_had_of_ends_the_run_at_once(autojump_clock):
    ended = []

    class Keeps(Diary):
        def ended(self, trajectory):
            ended.append(trajectory)

    policy = Decides(lambda conversation: PolicyError("401: no such key", ends_run=True))
    pool = FakePool(result(terminated=True))
    with pytest.raises(PolicyError, match=r"^401: no such key$"):
        await play(pool, policy, *range(99), max_concurrent=3, watchers=[Keeps()])
    assert len(policy.conversations) <= 3
    assert EndReason.POLICY_ERROR in {one.end_reason for one in ended} <= {EndReason.POLICY_ERROR, EndReason.CANCELLED}
    assert sorted(pool.closed) == sorted(one.seed for one in pool.opened)


async def test_what_was_ended_before_a_run_is_given_up_has_been_handed_over():
    policy = Decides(lambda conversation: PolicyError("spent", ends_run=True) if policy.seeds[-1] == 2 else calls("on"))
    got = []

    async def take():
        pool = FakePool(result(terminated=True))
        async for trajectory in episodes(pool, rows(0, 1, 2, 3), policy=policy, max_concurrent=1):
            got.append((trajectory.seed, trajectory.end_reason))

    with pytest.raises(PolicyError, match="spent"):
        await take()
    assert got == [(0, EndReason.TERMINATED), (1, EndReason.TERMINATED), (2, EndReason.POLICY_ERROR)]


# Policies and watchers that other people write


async def test_a_policy_that_raises_leaves_its_traceback_in_the_row():
    def decide(conversation):
        return {}["left"]

    trajectory = await play_one(FakePool(), Decides(decide))
    assert (trajectory.end_reason, trajectory.error) == (EndReason.POLICY_ERROR, "KeyError: 'left'")
    assert trajectory.traceback.startswith("Traceback (most recent call last):")
    assert "in decide" in trajectory.traceback
    assert "/rollouts/play/runner.py" not in trajectory.traceback


def leaves(*given):
    raise SystemExit(0)


async def test_a_policy_or_a_reward_function_that_exits_ends_its_episode_and_not_the_program():
    trajectory = await play_one(FakePool(), Decides(leaves))
    assert (trajectory.end_reason, trajectory.error) == (EndReason.POLICY_ERROR, "SystemExit: 0")
    assert "in leaves" in trajectory.traceback
    trajectory = await play_one(FakePool(result(terminated=True)), reward=leaves)
    assert (trajectory.valid, trajectory.total_reward) == (True, None)
    assert "SystemExit" in trajectory.error


class Returns:
    def __init__(self, value):
        self.value = value

    async def next_message(self, conversation, tools, seed):
        await anyio.lowlevel.checkpoint()
        return self.value


ASSISTANT = {"role": "assistant", "content": "hi"}


@pytest.mark.parametrize(
    ("returned", "wanted"),
    [
        (None, "has to return a Reply (muxsim.rollouts.policy.protocol), not NoneType"),
        (ASSISTANT, "has to return a Reply (muxsim.rollouts.policy.protocol), not dict"),
        (Reply("left"), "whose message is a dict with role 'assistant', not 'left'"),
        (Reply({"content": "hi"}), "with role 'assistant'"),
        (Reply({**ASSISTANT, "tool_calls": {"name": "step"}}), "has tool_calls as [{"),
        (Reply({**ASSISTANT, "tool_calls": [{"name": "step"}]}), "has tool_calls as [{"),
        (Reply({**ASSISTANT, "content": object()}), "that is JSON"),
        (Reply({**ASSISTANT, "content": "\ud83d"}), "that is JSON"),
        (Reply(ASSISTANT, usage={"total_tokens": 3}), "whose usage is a Usage"),
        (Reply(ASSISTANT, tokens={"token_ids": {1j}}), "that is JSON"),
        (Reply(ASSISTANT, throttled=None), "whose throttled is a number of seconds"),
    ],
)
async def test_a_wrong_return_of_a_policy_says_what_is_wanted(returned, wanted):
    trajectory = await play_one(FakePool(), Returns(returned))
    assert (trajectory.end_reason, trajectory.valid, trajectory.steps) == (EndReason.POLICY_ERROR, False, [])
    assert wanted in trajectory.error


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Decides(lambda conversation: 1 // 0), "the policy only raises: ZeroDivisionError: "),
        (Returns(None), "has to return a Reply"),
    ],
)
async def test_a_policy_that_never_gives_a_message_fails_the_run_once(policy, words):
    pool = FakePool()
    with pytest.raises(PolicyError, match=words):
        await play(pool, policy, *range(500), max_concurrent=2)
    assert len(pool.opened) < 20


async def test_a_policy_that_has_given_a_message_fails_episode_by_episode():
    policy = Decides(lambda conversation: 1 // 0 if policy.seeds[-1] else calls("on"))
    trajectories = await play(FakePool(result(terminated=True)), policy, *range(30), max_concurrent=1)
    assert [one.valid for one in trajectories] == [True, *[False] * 29]


class NoPolicy:
    async def next_message(self, conversation):
        return Reply(ASSISTANT)


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        (object(), "is no policy: it has no method next_message"),
        (Decides, "is a class: the policy is an instance of it"),
        (NoPolicy(), r"next_message has to take \(conversation, tools, seed\)"),
    ],
)
async def test_what_is_no_policy_fails_the_run_once_and_before_anything_starts(policy, problem):
    pool = FakePool()
    with pytest.raises(PolicyError, match=problem):
        await rollout(pool, rows(0, 1), policy=policy)
    assert pool.asked == []


async def test_a_watcher_that_lacks_a_method_fails_the_run_before_anything_starts():
    class Half:
        def started(self, trajectory):
            pass

    class Awaited(Diary):
        async def ended(self, trajectory):
            pass

    pool = FakePool()
    for watcher, problem in ((Half(), r"has no method stepped\(trajectory\)"), (Awaited(), r"ended\(\) is async")):
        with pytest.raises(MuxsimError, match=problem):
            await rollout(pool, rows(0, 1), policy=Decides(), watchers=[watcher])
    assert pool.asked == []


@pytest.mark.parametrize("call", ["started", "stepped", "ended"])
async def test_a_watcher_that_raises_harms_neither_episodes_nor_other_watchers(call, caplog):
    class Raises(Diary):
        pass

    def fail(trajectory):
        raise OSError("the disk is full")

    bad, good = Raises(), Diary()
    setattr(bad, call, fail)
    trajectories = await play(FakePool(result(), result(terminated=True)), None, 0, 1, watchers=[bad, good])
    assert [one.valid for one in trajectories] == [True, True]
    assert len(good.told) == 8
    assert len([record for record in caplog.records if "the disk is full" in record.message]) == 1


# Reward functions


@pytest.mark.parametrize(
    ("returned", "total", "scores"),
    [
        (2, 2.0, {}),
        (True, 1.0, {}),
        ({"reward": 0.5}, 0.5, {}),
        ({"reward": -1, "format": 1, "length": 0.25}, -1.0, {"format": 1.0, "length": 0.25}),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_reward_is_a_number_or_a_dict_with_one(returned, total, scores, is_async):
    async def later(trajectory):
        await anyio.lowlevel.checkpoint()
        return returned

    reward = later if is_async else lambda trajectory: returned
    trajectory = await play_one(FakePool(result(terminated=True)), reward=reward)
    assert (trajectory.total_reward, trajectory.scores, trajectory.error) == (total, scores, None)


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        (math.nan, "nan: a reward is a finite number"),
        (math.inf, "inf: a reward is a finite number"),
        ({"reward": math.nan}, "reward = nan: a reward is a finite number"),
        ({"reward": 1, "format": math.inf}, "format = inf: a reward is a finite number"),
        ({"score": 1}, "which has no 'reward'"),
        (None, "None: a reward is a number, or a dict of numbers"),
        ("3", "'3': a reward is a number"),
        ([1.0], "[1.0]: a reward is a number"),
        ({"reward": "high"}, "reward = 'high': a reward is a number"),
    ],
)
async def test_what_is_no_reward_is_never_0_and_says_what_is_wanted(returned, problem):
    trajectory = await play_one(FakePool(result(reward=1.0, terminated=True)), reward=lambda trajectory: returned)
    assert (trajectory.total_reward, trajectory.scores) == (None, {})
    assert problem in trajectory.error


async def test_a_reward_function_sees_the_workspace_while_it_is_there(tmp_path):
    seen = []

    class WithFolder(FakePool):
        async def open(self, env, seed, *, start_timeout=None):
            environment = await super().open(env, seed, start_timeout=start_timeout)
            environment.opened = replace(environment.opened, workspace=tmp_path)
            return environment

    def reward(trajectory, workspace):
        seen.append((workspace, pool.finished.copy(), pool.closed.copy(), trajectory.end_reason))
        return 1

    pool = WithFolder(result(terminated=True))
    assert (await play_one(pool, reward=reward)).total_reward == 1.0
    assert seen == [(tmp_path, [0], [], EndReason.TERMINATED)], "its files are final, and there"
    assert pool.closed == [0]


class Keeper:
    """A watcher that keeps files."""

    def __init__(self, pool):
        self.pool = pool
        self.kept = []

    def started(self, trajectory):
        """Nothing to keep yet."""

    stepped = ended = started

    def keep_files(self, trajectory, workspace, collect):
        self.kept.append((trajectory.end_reason, workspace, collect.patterns, self.pool.closed.copy()))
        trajectory.files_problem = f"{len(self.pool.finished)} finished"


def with_files(workspace, *results, **more):
    """A pool whose environments have files to keep."""

    class WithFiles(FakePool):
        async def open(self, env, seed, *, start_timeout=None):
            environment = await super().open(env, seed, start_timeout=start_timeout)
            collect = Collect(("*.png",), 100, 10)
            environment.opened = replace(environment.opened, workspace=workspace, collect=collect)
            return environment

    return WithFiles(*results, **more)


async def hangs():
    await anyio.sleep_forever()


@pytest.mark.parametrize(
    ("given", "end"),
    [
        (result(terminated=True), EndReason.TERMINATED),
        (result(truncated=True), EndReason.TRUNCATED),
        (EnvironmentGone("it died"), EndReason.ENV_CRASHED),
        (EnvironmentFailed("it failed"), EndReason.ENV_FAILED),
        (CallTimeout("too late"), EndReason.TOOL_TIMEOUT),
        (hangs, EndReason.EPISODE_TIMEOUT),
    ],
)
async def test_files_are_kept_however_an_episode_ends_behind_its_processes_and_before_its_workspace(
    tmp_path, given, end
):
    pool = with_files(tmp_path, given)
    keeper = Keeper(pool)
    trajectory = await play_one(pool, watchers=[keeper], episode_timeout=5)
    assert trajectory.end_reason == end
    assert keeper.kept == [(end, tmp_path, ("*.png",), [])]
    assert trajectory.files_problem == "1 finished"
    assert pool.closed == [0]


async def test_files_are_kept_before_a_reward_function_has_touched_them_and_its_failure_is_its_own(tmp_path):
    order = []

    def reward(trajectory, workspace):
        order.append(trajectory.files_problem)
        raise ZeroDivisionError

    pool = with_files(tmp_path, result(terminated=True))
    trajectory = await play_one(pool, watchers=[Keeper(pool)], reward=reward)
    assert order == ["1 finished"]
    assert (trajectory.total_reward, trajectory.valid) == (None, True)
    assert "ZeroDivisionError" in trajectory.error


async def test_files_of_another_machine_are_missed_on_record(tmp_path):
    pool = with_files(None, result(reward=1.0, terminated=True))
    keeper = Keeper(pool)
    trajectory = await play_one(pool, watchers=[keeper])
    assert (keeper.kept, trajectory.total_reward) == ([], 1.0)
    assert trajectory.files_problem == "its files are on another machine: play there to keep them"


@pytest.mark.parametrize("reward", [None, lambda trajectory, workspace: 1.0], ids=["its own", "a function"])
async def test_processes_that_do_not_end_leave_nothing_to_be_scored(tmp_path, reward):
    pool = with_files(tmp_path, result(reward=1.0, terminated=True))
    keeper = Keeper(pool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeEnvironment, "finish", lambda self: anyio.sleep_forever())
        trajectory = await play_one(pool, watchers=[keeper], reward=reward)
    assert (trajectory.end_reason, trajectory.total_reward) == (EndReason.MACHINERY_FAILED, None)
    assert "did not end within 15 s" in trajectory.error
    assert keeper.kept == []


async def test_an_episode_that_is_not_valid_in_the_end_has_no_reward(monkeypatch):
    async def close(self):
        raise OSError("the disk is gone")

    monkeypatch.setattr(FakeEnvironment, "close", close)
    for options in ({}, {"reward": lambda trajectory: {"reward": 1.0, "style": 0.5}}):
        trajectory = await play_one(FakePool(result(reward=1.0, terminated=True)), **options)
        assert (trajectory.end_reason, trajectory.valid) == (EndReason.MACHINERY_FAILED, False)
        assert (trajectory.total_reward, trajectory.scores) == (None, {})


async def test_a_reward_function_that_raises_leaves_its_traceback_in_the_row():
    def reward(trajectory):
        return trajectory.info["answer"]

    trajectory = await play_one(FakePool(result(terminated=True)), reward=reward)
    assert trajectory.total_reward is None
    assert "in reward" in trajectory.traceback


async def test_an_episode_whose_scoring_was_cut_off_is_not_over(autojump_clock):
    async def reward(trajectory):
        await anyio.sleep_forever()

    seen = []

    class Keeps(Diary):
        def ended(self, trajectory):
            seen.append((trajectory.end_reason, trajectory.valid, trajectory.total_reward))

    with trio.move_on_after(5):
        await rollout(FakePool(result(terminated=True)), rows(0), policy=Decides(), reward=reward, watchers=[Keeps()])
    assert seen == [(EndReason.CANCELLED, False, None)]


async def test_scoring_does_not_count_as_an_episodes_time(autojump_clock):
    async def reward(trajectory):
        await anyio.sleep(100)
        return 1

    trajectory = await play_one(FakePool(result(terminated=True)), reward=reward, episode_timeout=10)
    assert (trajectory.end_reason, trajectory.total_reward) == (EndReason.TERMINATED, 1.0)


async def test_what_was_asked_in_vain_is_counted_where_the_time_of_an_episode_ends_first(autojump_clock):
    class Slow(Decides):
        async def next_message(self, conversation, tools, seed):
            try:
                await anyio.sleep_forever()
            finally:
                current_episode.get().spent.add(Usage(prompt_tokens=3, completion_tokens=1, total_tokens=4))

    trajectory = await play_one(FakePool(), Slow(), episode_timeout=5)
    assert (trajectory.end_reason, trajectory.usage.total_tokens) == (EndReason.EPISODE_TIMEOUT, 4)


@pytest.mark.parametrize("reward", [1.0, lambda: 1.0, lambda trajectory, workspace, more: 1.0])
async def test_what_is_no_reward_function_fails_the_run_before_anything_starts(reward):
    pool = FakePool()
    with pytest.raises(MuxsimError, match="a reward is a function of the trajectory"):
        await rollout(pool, rows(0), policy=Decides(), reward=reward)
    assert pool.asked == []
