"""What verl's rollout worker sees of an environment: an agent loop. A stand-in has verl's interface."""

import json
from types import SimpleNamespace

import anyio
import pytest

from adapters.fakes import FakePool, said, stand_in
from muxsim.adapters.dialogue import EpisodeBroken
from muxsim.adapters.written_calls import calls_in
from muxsim.errors import StartError
from muxsim.rollouts.environments.environment import EnvironmentGone

LEFT = '<tool_call>{"name": "move", "arguments": {"direction": "left"}}</tool_call>'
PROMPT = [{"role": "user", "content": "Cross it."}]


class Base:
    """`AgentLoopBase` with a token for each character, and a model that says one reply after the other."""

    def __init__(self, *, replies, room=10_000, turns=0, format="hermes"):
        multi_turn = SimpleNamespace(format=format, max_assistant_turns=turns)
        self.rollout_config = SimpleNamespace(multi_turn=multi_turn, response_length=room)
        self.tokenizer = None
        self.server_manager = self
        self.replies = iter(replies)
        self.asked = []

    async def generate(self, *, request_id, prompt_ids, sampling_params):
        self.asked.append((request_id, "".join(map(chr, prompt_ids)), sampling_params))
        ids = list(map(ord, next(self.replies)))
        return SimpleNamespace(token_ids=ids, log_probs=[-1.0] * len(ids), extra_fields={"global_steps": 3})

    async def ct_build_initial_tokens(self, messages, tools=None):
        return list(map(ord, json.dumps({"messages": messages, "tools": [tool["function"]["name"] for tool in tools]})))

    async def ct_merge_assistant_token(self, ids, new, mask, logprobs=None, assistant_logprobs=None):
        return (
            SimpleNamespace(token_ids=ids + new),
            mask + [1] * len(new),
            (logprobs or []) + (assistant_logprobs or []),
        )

    async def ct_merge_context_msg(self, before, after, ids, mask, logprobs=None, tools=None):
        new = list(map(ord, json.dumps(after[len(before) :])))
        padded = None if logprobs is None else logprobs + [0.0] * len(new)
        return SimpleNamespace(token_ids=ids + new), mask + [0] * len(new), padded


class Parser:
    stop_token_ids = ()

    @classmethod
    def get_tool_parser(cls, name, tokenizer):
        assert name == "hermes"
        return cls()

    async def extract_tool_calls(self, ids, tools=None):
        text = "".join(map(chr, ids))
        calls = [SimpleNamespace(name=name, arguments=json.dumps(arguments)) for name, arguments in calls_in(text)]
        return text.partition("<tool_call>")[0], calls


@pytest.fixture
def verl(monkeypatch):
    loop = {"AgentLoopBase": Base, "AgentLoopOutput": SimpleNamespace, "AgentLoopMetrics": SimpleNamespace}
    return stand_in(
        monkeypatch,
        "muxsim.adapters.verl_loop",
        verl__experimental__agent_loop__agent_loop=loop,
        verl__experimental__agent_loop__tool_parser={"ToolParser": Parser},
    )


async def play(verl, pool, replies, row=None, **options):
    base = {name: options.pop(name) for name in ("room", "turns") if name in options}
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


@pytest.mark.parametrize(("bounds", "calls"), [({"turns": 1}, 0), ({"room": len(LEFT) + 5}, 1), ({"max_calls": 1}, 1)])
async def test_a_sample_ends_where_verl_or_the_user_bounds_it(bounds, calls, verl):
    pool = FakePool(*[said("One.", 0.5)] * 3)
    _, output = await play(verl, pool, [LEFT] * 3, **bounds)
    assert len(pool.sessions[0].called) == calls
    assert output.reward_score == 0.5 * calls
    assert "".join(map(chr, output.response_ids)) == LEFT


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
