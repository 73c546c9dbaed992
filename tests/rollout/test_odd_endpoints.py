"""Rollouts with endpoints as they are: what they do is read, and what is a mistake leads to it."""

import pytest
import trio
from servers import odd_endpoints as odd
from servers.chat_completions import chat_server, fails, hangs, refused, says

from muxsim.rollouts.data.trajectory import EndReason
from muxsim.rollouts.play.runner import rollout
from muxsim.rollouts.policy.openai import OpenAIPolicy
from muxsim.rollouts.policy.protocol import PolicyError
from muxsim.rollouts.policy.retries import RetryRule

from .test_runner import FakePool, rows

LIMIT = 300  # s, on a machine that is busy with others
QUICK = RetryRule(attempts=2, patience=5, first_delay=0.01, longest_delay=0.02)


@pytest.fixture
def server():
    with chat_server() as running:
        yield running


async def play(server, number=1, *, at="", **options):
    with trio.fail_after(LIMIT):
        async with OpenAIPolicy("tiny", base_url=f"{server.url}{at}", retries=QUICK, api_key="k", **options) as policy:
            given = [{**row, "prompt": f"Prompt {index}."} for index, row in enumerate(rows(*range(number)))]
            return await rollout(FakePool(), given, policy=policy, max_concurrent=1, max_steps=5)


HOPELESS = [
    (odd.a_web_page, "the answer is no chat completion: <!doctype html>", "(asked at http://127.0.0.1:"),
    (odd.no_such_path, "404: Not Found (asked at http://127.0.0.1:", "/v1/chat/completions)"),
    (odd.no_such_key, "401: Incorrect API key provided", ""),
    (odd.no_such_model, "404: The model `tiny` does not exist.", ""),
    (odd.no_such_model_by_400, "400: Model Not Exist", ""),
    (odd.no_money, "402: Insufficient credits", ""),
    (odd.no_tool_parser, '400: "auto" tool choice requires --enable-auto-tool-choice', ""),
    (odd.another_parameter, "Use 'max_completion_tokens' instead.", ""),
    (odd.a_prompt_that_is_too_long, "400: This model's maximum context length is 10 tokens", ""),
    (
        lambda request: fails(500, "CUDA error: no kernel image is available"),
        "500: CUDA error",
        "gave up after 2 calls",
    ),
    (lambda request: refused(retry_after=3600), "429: slow down", "gave up after 1 call: it asks to wait 3600 s"),
    (lambda request: hangs(), "no answer within 0.1 s", "gave up after 2 calls"),
]


@pytest.mark.parametrize(("endpoint", "words", "more"), HOPELESS, ids=lambda value: getattr(value, "__name__", None))
async def test_an_endpoint_that_never_answers_ends_the_run_at_once_with_its_words(server, endpoint, words, more):
    server.otherwise = endpoint
    with pytest.raises(PolicyError) as caught:
        await play(server, 50, timeout=0.1 if "0.1 s" in words else LIMIT)
    assert words in str(caught.value)
    assert more in str(caught.value)
    assert len(server.requests) <= 3


async def test_an_endpoint_that_has_never_answered_is_given_up_when_its_silence_uses_up_the_patience(server):
    server.otherwise = hangs()
    rule = RetryRule(attempts=50, patience=0.5, first_delay=0.01)
    async with OpenAIPolicy("tiny", base_url=server.url, timeout=0.3, retries=rule) as policy:
        with trio.fail_after(LIMIT), pytest.raises(PolicyError, match=r"no answer within 0\.3 s .*after 2 calls"):
            await rollout(FakePool(), rows(0), policy=policy)
    assert len(server.requests) <= 2


async def test_an_endpoint_that_has_answered_before_fails_its_episode_alone(server):
    server.otherwise = odd.a_filter
    trajectories = await play(server, 3)
    assert [one.end_reason for one in trajectories] == [
        EndReason.NO_TOOL_CALL,
        EndReason.POLICY_ERROR,
        EndReason.NO_TOOL_CALL,
    ]
    assert "400: The response was filtered" in trajectories[1].error


async def test_a_key_that_runs_out_ends_a_run_that_went_well(server):
    server.play(says("Fine."), says("Fine."))
    server.otherwise = lambda request: fails(429, "You exceeded your current quota", code="insufficient_quota")
    with pytest.raises(PolicyError, match="429: You exceeded your current quota"):
        await play(server, 50)
    assert len(server.requests) == 3


async def test_a_context_that_is_full_is_the_policys_doing(server):
    server.otherwise = odd.a_full_context
    (trajectory,) = await play(server)
    assert (trajectory.end_reason, trajectory.valid, len(trajectory.steps)) == (EndReason.TOKEN_LIMIT, True, 1)


async def test_a_tool_call_that_its_endpoint_cannot_read_is_the_policys_doing(server):
    server.otherwise = odd.a_bad_tool_call
    (trajectory,) = await play(server)
    assert (trajectory.end_reason, trajectory.valid) == (EndReason.NO_TOOL_CALL, True)
    assert trajectory.messages[-1]["content"] == "<function=step>{to: on}"
    assert trajectory.messages[-1]["metadata"] == {"finish_reason": "tool_use_failed"}


@pytest.mark.parametrize(
    ("endpoint", "stream", "steps"),
    [(odd.google, False, 1), (odd.ollama, False, 2), (odd.mistral, False, 1), (odd.openrouter, True, 1)],
)
async def test_an_endpoint_with_ways_of_its_own_is_played_with(server, endpoint, stream, steps):
    server.otherwise = endpoint
    (trajectory,) = await play(server, stream=stream)
    assert (trajectory.end_reason, trajectory.error, len(trajectory.steps)) == (EndReason.NO_TOOL_CALL, None, steps)
    assert len({step.call_id for step in trajectory.steps}) == steps
    assert trajectory.messages[-1]["content"] == "Done."


async def test_a_stream_that_is_cut_in_a_character_and_ends_without_a_reason_is_read(server):
    server.otherwise = odd.half_an_emoji
    (trajectory,) = await play(server, stream=True)
    assert trajectory.messages[-1] == {"role": "assistant", "content": "\U0001f600"}


async def test_a_provider_that_breaks_behind_its_status_is_tried_again(server):
    server.play(odd.a_provider_that_breaks(server), says("Done."))
    (trajectory,) = await play(server)
    assert trajectory.messages[-1]["content"] == "Done."


async def test_what_throttling_costs_is_seen(server):
    server.play(refused(retry_after_ms=300), says("Done."))
    async with OpenAIPolicy("tiny", base_url=server.url, retries=QUICK) as policy:
        with trio.fail_after(LIMIT):
            (trajectory,) = await rollout(FakePool(), rows(0), policy=policy)
        assert (policy.statistics().answered, policy.statistics().throttled) == (1, 1)
    assert 0.3 <= trajectory.times.throttled <= trajectory.times.model
