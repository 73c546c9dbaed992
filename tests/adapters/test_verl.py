"""What verl's rollout worker sees of an environment: an agent loop.

A stand-in has verl's interface; its own worker plays in an environment of its own.
"""

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from harness import ROOT
from own_environments import for_training

from adapters.fakes import FakePool, said, stand_in
from muxsim.adapters.dialogue import EpisodeBroken
from muxsim.adapters.written_calls import calls_in
from muxsim.errors import StartError
from muxsim.rollouts.environments.environment import EnvironmentGone

LEFT = '<tool_call>{"name": "move", "arguments": {"direction": "left"}}</tool_call>'
PROMPT = [{"role": "user", "content": "Cross it."}]


class Base:
    """`AgentLoopBase` with a token for each character, and a model that says one reply after the other."""

    def __init__(self, *, replies, room=10_000, turns=0, user_turns=None, deterministic=False, format="hermes"):
        multi_turn = SimpleNamespace(format=format, max_assistant_turns=turns, max_user_turns=user_turns)
        self.rollout_config = SimpleNamespace(
            multi_turn=multi_turn, response_length=room, full_determinism=deterministic
        )
        self.tokenizer = None
        self.server_manager = self
        self.replies = iter(replies)
        self.asked = []
        self.rendered = []

    async def generate(self, *, request_id, prompt_ids, sampling_params):
        self.asked.append((request_id, "".join(map(chr, prompt_ids)), sampling_params))
        ids = list(map(ord, next(self.replies)))
        turn = len(self.asked)
        steps = {"global_steps": 3, "min_global_steps": turn, "max_global_steps": turn, "spec_num_draft_tokens": 2}
        known = {"extra_fields": steps, "num_preempted": turn, "routed_experts": [turn] * (len(prompt_ids) + len(ids))}
        return SimpleNamespace(token_ids=ids, log_probs=[-1.0] * len(ids), **known)

    async def ct_build_initial_tokens(self, messages, tools=None):
        return list(map(ord, json.dumps({"messages": messages, "tools": [tool["function"]["name"] for tool in tools]})))

    async def ct_merge_assistant_token(self, ids, new, mask, logprobs=None, assistant_logprobs=None):
        return (
            SimpleNamespace(token_ids=ids + new),
            mask + [1] * len(new),
            (logprobs or []) + (assistant_logprobs or []),
        )

    async def ct_merge_context_msg(self, before, after, ids, mask, logprobs=None, tools=None):
        self.rendered.append(after)
        new = list(
            map(ord, json.dumps([{"role": one["role"], "content": one["content"]} for one in after[len(before) :]]))
        )
        padded = None if logprobs is None else logprobs + [0.0] * len(new)
        return SimpleNamespace(token_ids=ids + new), mask + [0] * len(new), padded


class Parser:
    stop_token_ids = ()

    @classmethod
    def get_tool_parser(cls, name, tokenizer):
        assert name == "hermes"
        return cls()

    async def extract_tool_calls(self, ids, tools=None):
        self.tools = tools
        text = "".join(map(chr, ids))
        calls = [
            SimpleNamespace(name=name, arguments=json.dumps(arguments), tool_call_id=f"{name}:{place}")
            for place, (name, arguments) in enumerate(calls_in(text))
        ]
        return text.partition("<tool_call>")[0], calls


class ToolSchema:
    model_validate = staticmethod(lambda schema: schema)


@pytest.fixture
def verl(monkeypatch):
    loop = {"AgentLoopBase": Base, "AgentLoopOutput": SimpleNamespace, "AgentLoopMetrics": SimpleNamespace}
    return stand_in(
        monkeypatch,
        "muxsim.adapters.verl_loop",
        verl__experimental__agent_loop__agent_loop=loop,
        verl__experimental__agent_loop__tool_parser={"ToolParser": Parser},
        verl__tools__schemas={"OpenAIFunctionToolSchema": ToolSchema},
    )


async def play(verl, pool, replies, row=None, **options):
    base = {name: options.pop(name) for name in ("room", "turns", "user_turns", "deterministic") if name in options}
    loop = verl.MuxsimAgentLoop(replies=replies, source=pool, env="lake", **base, **options)
    with anyio.fail_after(60):
        output = await loop.run({"temperature": 1.0}, raw_prompt=PROMPT, **(row or {"extra_info": {"seed": 7}}))
    return loop, output


async def test_a_sample_is_an_episode_of_its_seed_with_a_mask_of_what_the_model_wrote(verl):
    pool = FakePool(said("One.", 0.5), said("The goal.", 1.0, terminated=True))
    loop, output = await play(verl, pool, [f"I go. {LEFT}", LEFT])
    [session] = pool.sessions
    assert (session.seed, session.closed, len(session.called)) == (7, 1, 2)
    prompt = "".join(map(chr, output.prompt_ids))
    assert '"tools": ["move"]' in prompt
    assert "Cross it.\\n\\nGo." in prompt
    response = list(zip(map(chr, output.response_ids), output.response_mask, strict=True))
    assert "".join(one for one, mine in response if mine) == f"I go. {LEFT}{LEFT}"
    assert "".join(one for one, mine in response if not mine) == '[{"role": "tool", "content": "One."}]'
    assert len(output.response_logprobs) == len(output.response_ids)
    assert (output.reward_score, output.num_turns) == (1.5, 4)
    assert output.extra_fields["muxsim_seed"] == 7
    assert output.extra_fields["global_steps"] == 3
    assert len({request for request, *_ in loop.asked}) == 1


async def test_what_verl_is_told_of_each_generation_is_kept_as_its_own_loop_keeps_it(verl):
    pool = FakePool(said("One."), said("Two."), said("The goal.", 1.0, terminated=True))
    _, output = await play(verl, pool, [LEFT] * 3)
    told = ("global_steps", "min_global_steps", "max_global_steps", "spec_num_draft_tokens")
    assert [output.extra_fields[name] for name in told] == [3, 1, 3, 6]
    assert output.metrics.num_preempted == 1 + 2 + 3
    # Those of the last generation, which are of all tokens before it too.
    assert output.routed_experts == [3] * (len(output.prompt_ids) + len(output.response_ids))


async def test_the_calls_of_a_reply_and_their_answers_have_the_ids_that_the_parser_found(verl):
    pool = FakePool(said("One."), said("Two."), said("The goal.", 1.0, terminated=True))
    loop, _ = await play(verl, pool, [LEFT + LEFT, LEFT])
    reply, *answers = loop.rendered[0][-3:]
    assert [call["id"] for call in reply["tool_calls"]] == ["move:0", "move:1"]
    assert [answer["tool_call_id"] for answer in answers] == ["move:0", "move:1"]


async def test_a_parser_is_told_the_tools_so_that_it_can_read_values_as_what_they_are(verl):
    loop, _ = await play(verl, FakePool(said("The goal.", 1.0, terminated=True)), [LEFT])
    [tool] = loop.parser.tools
    assert tool["function"]["name"] == "move"
    assert tool["function"]["parameters"]["properties"] == {
        "direction": {"type": "string"},
        "steps": {"type": "integer"},
    }


async def test_a_sample_that_is_to_be_the_same_each_time_asks_under_a_name_that_is(verl):
    row = {"seed": 7, "priority": 5}
    loop, _ = await play(verl, FakePool(), ["Done."], row=row, deterministic=True)
    assert [request for request, *_ in loop.asked] == ["det-5"]


@pytest.mark.parametrize(
    ("bounds", "calls"),
    [({"turns": 1}, 0), ({"user_turns": 1}, 1), ({"room": len(LEFT) + 5}, 1), ({"max_calls": 1}, 1)],
)
async def test_a_sample_ends_where_verl_or_the_user_bounds_it(bounds, calls, verl):
    pool = FakePool(*[said("One.", 0.5)] * 3)
    _, output = await play(verl, pool, [LEFT] * 3, **bounds)
    assert len(pool.sessions[0].called) == calls
    assert output.reward_score == 0.5 * calls
    written = "".join(chr(one) for one, mine in zip(output.response_ids, output.response_mask, strict=True) if mine)
    assert written == (LEFT * 2 if "user_turns" in bounds else LEFT)


async def test_what_is_no_call_is_told_to_the_model_and_a_reply_without_one_ends(verl):
    pool = FakePool(said("One.", 0.5))
    _, output = await play(verl, pool, ['<tool_call>{"name": "move", "arguments": {}}</tool_call>', "Done."])
    assert output.num_turns == 4


async def test_an_episode_that_breaks_is_played_again_and_never_scored(verl):
    pool = FakePool(EnvironmentGone("torn"), starts=[StartError("late")])
    with pytest.raises(EpisodeBroken):
        await play(verl, pool, [LEFT] * 3)
    assert [session.closed for session in pool.sessions] == [1, 1]
    with pytest.raises(ValueError, match="no control plane"):
        await play(verl, FakePool(said("One."), published=False), ["Done."])
    with pytest.raises(ValueError, match="a seed is a whole number"):
        await play(verl, FakePool(), [LEFT], row={"seed": "x"})


@pytest.mark.large
@pytest.mark.network
@pytest.mark.children
def test_its_own_worker_makes_of_rows_the_tokens_and_rewards_of_their_episodes(tmp_path):
    script = Path(__file__).parent / "own" / "verl_plays.py"
    command = [for_training(), script, ROOT / "examples" / "muxsim.toml", tmp_path]
    quiet = {"PYTHONPATH": str(ROOT / "examples" / "train_grpo"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    env = {**os.environ, **quiet}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    expected = told["expected"]
    assert told["rewards"] == [one["reward"] for one in expected]
    assert len(set(told["rewards"])) > 1
    assert told["seeds"] == [one["seed"] for one in expected]
    assert told["turns"] == [2 * one["calls"] for one in expected]
    assert told["written"] == ["".join(told["replies"][: one["calls"]]) for one in expected]
    for read, one in zip(told["read"], expected, strict=True):
        places = [read.index(text) for text in ("You play blackjack.", "Play.", *one["told"])]
        assert places == sorted(places)
    assert told["sampled"] == told["model"]
    assert told["steps"] == [[1, one["calls"]] for one in expected]
    assert told["preempted"] == [one["calls"] for one in expected]
    assert "a seed is a whole number" in told["refused"]
    assert told["arguments"] == {"far": 3, "why": "3"}
