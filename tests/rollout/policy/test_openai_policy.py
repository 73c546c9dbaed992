"""Models over HTTP: the real openai package against a real server on loopback, on trio and on asyncio."""

import base64
import json
import sys
import time
from email.utils import formatdate

import anyio
import anyio.lowlevel
import pytest
from servers.chat_completions import calls, chat_server, fails, hangs, refused, says, with_tokens

from muxsim.rollouts.data.trajectory import Usage
from muxsim.rollouts.policy.fireworks import FireworksPolicy
from muxsim.rollouts.policy.messages import tool_messages
from muxsim.rollouts.policy.openai import OpenAIPolicy, PolicyStatistics
from muxsim.rollouts.policy.playback import PlayedEpisode, current_episode
from muxsim.rollouts.policy.protocol import PolicyError, RateLimited, TokenLimit
from muxsim.rollouts.policy.retries import RetryRule

LIMIT = 60
QUICK = RetryRule(attempts=3, patience=5, first_delay=0.01, longest_delay=0.02)
GO = [{"role": "system", "content": "Play."}, {"role": "user", "content": "Go."}]
MOVE = {
    "type": "function",
    "function": {
        "name": "move",
        "description": "Move.",
        "parameters": {"type": "object", "properties": {"to": {"type": "string"}}},
    },
}


@pytest.fixture
def server():
    with chat_server() as running:
        yield running


@pytest.fixture(params=["trio", "asyncio"])
def run(request):
    """Runs a coroutine function on a loop of its own, under a deadline."""

    def run(function, *arguments):
        async def limited():
            with anyio.fail_after(LIMIT):
                return await function(*arguments)

        return anyio.run(limited, backend=request.param)

    return run


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "FIREWORKS_API_KEY"):
        monkeypatch.delenv(name, raising=False)


async def ask(server, conversation=GO, tools=(MOVE,), seed=7, **options):
    async with OpenAIPolicy("tiny", **{"base_url": server.url, "retries": QUICK, **options}) as policy:
        return await policy.next_message(conversation, list(tools), seed)


def asking(server, **options):
    async def asked():
        return await ask(server, **options)

    return asked


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_call_comes_back_with_its_usage(server, run, stream):
    server.play(calls("move", {"to": "the left"}))
    reply = run(asking(server, stream=stream))
    (call,) = reply.message["tool_calls"]
    assert call["function"] == {"name": "move", "arguments": '{"to": "the left"}'}
    assert reply.message["role"] == "assistant"
    assert reply.usage == Usage(prompt_tokens=11, completion_tokens=7, total_tokens=18)
    assert reply.finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
def test_several_tool_calls_keep_their_order(server, run, stream):
    server.play(calls("move", {"to": "a"}, "move", {"to": "b"}))
    reply = run(asking(server, stream=stream))
    assert [json.loads(call["function"]["arguments"])["to"] for call in reply.message["tool_calls"]] == ["a", "b"]
    assert len({call["id"] for call in reply.message["tool_calls"]}) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_message_without_a_tool_call_is_a_reply(server, run, stream):
    server.play(says("I would rather not."))
    reply = run(asking(server, stream=stream))
    assert reply.message == {"role": "assistant", "content": "I would rather not."}


@pytest.mark.parametrize("stream", [False, True])
def test_malformed_arguments_are_kept_as_the_model_wrote_them(server, run, stream):
    server.play(calls("move", '{"to": "le'))
    reply = run(asking(server, stream=stream))
    assert reply.message["tool_calls"][0]["function"]["arguments"] == '{"to": "le'


@pytest.mark.parametrize("stream", [False, True])
def test_token_ids_and_log_probabilities_are_kept(server, run, stream):
    server.play(with_tokens(says("ab"), prompt=[1, 2, 3], tokens=[4, 5], logprobs=[("a", -0.5), ("b", -0.1)]))
    reply = run(asking(server, stream=stream, token_ids=True, logprobs=True, top_logprobs=2))
    assert reply.tokens["prompt_token_ids"] == [1, 2, 3]
    assert reply.tokens["token_ids"] == [4, 5]
    assert [entry["logprob"] for entry in reply.tokens["logprobs"]] == [-0.5, -0.1]
    body = server.requests[0].body
    assert (body["return_token_ids"], body["logprobs"], body["top_logprobs"]) == (True, True, 2)


def test_what_was_set_is_sent_and_nothing_else(server, run):
    run(
        asking(
            server,
            temperature=0.0,
            top_p=0.9,
            max_tokens=50,
            parallel_tool_calls=False,
            extra_body={"top_k": 3},
            headers={"X-Run": "12"},
            api_key="sk-1",
        )
    )
    run(asking(server, send_seed=False, tools=(), parallel_tool_calls=False))
    full, bare = server.requests
    assert full.body == {
        "model": "tiny",
        "messages": GO,
        "tools": [MOVE],
        "temperature": 0.0,
        "top_p": 0.9,
        "max_tokens": 50,
        "parallel_tool_calls": False,
        "seed": 7,
        "top_k": 3,
    }
    assert full.headers["x-run"] == "12"
    assert full.headers["authorization"] == "Bearer sk-1"
    assert bare.body == {"model": "tiny", "messages": GO}


def test_seed_0_is_sent(server, run):
    run(asking(server, seed=0))
    assert server.requests[0].body["seed"] == 0


def test_the_frames_of_a_tool_reach_the_model_behind_its_message(server, run):
    frames = [b"frame one", b"frame two"]
    images = [{"type": "image", "mimeType": "image/png", "data": base64.b64encode(data).decode()} for data in frames]
    server.play(calls("move", {}, "move", {}), says("nice"))

    async def play():
        async with OpenAIPolicy("tiny", base_url=server.url) as policy:
            first = (await policy.next_message(GO, [MOVE], 7)).message
            told = [tool_messages(call["id"], [image]) for call, image in zip(first["tool_calls"], images, strict=True)]
            results = [message for message, _ in told] + [shown for _, shown in told]
            await policy.next_message([*GO, first, *results], [MOVE], 7)

    run(play)
    assert server.requests[1].images == [("image/png", data) for data in frames]
    assert [message["role"] for message in server.requests[1].body["messages"]] == [
        *("system", "user", "assistant"),
        *("tool", "tool", "user", "user"),
    ]


def test_only_the_last_images_are_shown_if_so_wished(server, run):
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(data).decode()}"}}
        for data in (b"1", b"2", b"3")
    ]
    run(asking(server, conversation=[{"role": "user", "content": parts}], max_images=1))
    assert server.requests[0].images == [("image/png", b"3")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "failure", [fails(500), fails(503), fails(408), fails(409), refused()], ids=lambda failure: failure.status
)
def test_what_may_pass_is_tried_again(server, run, failure, stream):
    server.play(failure, failure, says("at last"))
    assert run(asking(server, stream=stream)).message["content"] == "at last"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "answer",
    [
        says("too late to matter").but(cut_after=2),
        says("too late to matter").but(error_after=2),
        says("").but(finish_reason=None),
    ],
    ids=["cut", "an error in the stream", "nothing in it"],
)
def test_a_stream_that_breaks_off_is_begun_again(server, run, answer):
    server.play(answer, says("whole"))
    assert run(asking(server, stream=True)).message["content"] == "whole"


def test_an_answer_that_breaks_off_is_asked_for_again(server, run):
    server.play(fails(200).but(cut_after=5), says("whole"))
    assert run(asking(server)).message["content"] == "whole"


def test_failures_that_go_on_end_the_patience(server, run):
    server.otherwise = fails(500, "the GPU is on fire")
    with pytest.raises(PolicyError) as caught:
        run(asking(server))
    assert not isinstance(caught.value, RateLimited)
    assert str(caught.value).startswith(f"model 'tiny' at {server.url}: 500: the GPU is on fire (gave up after 3 calls")
    assert len(server.requests) == 3


def test_refusals_that_go_on_are_told_from_other_failures(server, run):
    server.otherwise = refused()
    rule = RetryRule(patience=0.05, first_delay=0.01, longest_delay=0.01)
    with pytest.raises(RateLimited, match=r"model 'tiny' at http://127.*: 429: slow down \(gave up after \d+ calls"):
        run(asking(server, retries=rule))
    assert len(server.requests) > 3


@pytest.mark.parametrize(
    ("failure", "shown"),
    [
        (fails(400, "max_tokens\n is too large"), "400: max_tokens is too large"),
        (fails(401, "no such key"), "401: no such key"),
        (fails(404, "no such model"), "404: no such model"),
        (fails(400).but(body=b'{"detail": "seed is unknown"}'), "400: seed is unknown"),
        (fails(400).but(body=b'{"error": "bad"}'), "400: bad"),
        (fails(403).but(body=b"<html>no</html>", headers={"content-type": "text/html"}), "403: <html>no</html>"),
        (fails(422).but(body=b""), "422: Unprocessable"),
        (refused(code="insufficient_quota"), "429: slow down"),
        (fails(500, "never", headers={"x-should-retry": "false"}), "500: never"),
    ],
)
def test_what_will_not_pass_ends_at_once_and_says_what_it_is(server, run, failure, shown):
    server.play(failure)
    with pytest.raises(PolicyError) as caught:
        run(asking(server))
    assert str(caught.value).startswith(f"model 'tiny' at {server.url}: {shown}")
    assert not isinstance(caught.value, RateLimited)
    assert len(server.requests) == 1


def test_a_long_error_page_is_cut_short(server, run):
    server.play(fails(404).but(body=b"x" * 100_000, headers={"content-type": "text/html"}))
    with pytest.raises(PolicyError, match=r"x… \(asked at ") as caught:
        run(asking(server))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "media"),
    [(b"<html>hello</html>", "text/html"), (b"{nonsense", "application/json"), (b"{}", "application/json")],
)
def test_an_answer_that_is_no_completion_says_so(server, run, stream, body, media):
    server.otherwise = says("").but(status=200, body=body, headers={"content-type": media})
    with pytest.raises(PolicyError, match=r"model 'tiny' at http://127.*: the answer is no chat completion: .*[{<]"):
        run(asking(server, stream=stream))
    assert len(server.requests) == 1


PAID = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
PIECE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "wel"}}]}


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([{**PIECE, "usage": {**PAID, "total_tokens": 3}}, {**PIECE, "usage": PAID}], id="broke off"),
        pytest.param([{**PIECE, "usage": PAID}, '{"choi'], id="a piece of a piece"),
        pytest.param(
            [PIECE, {"error": {"message": "lost", "code": 503}}, {"choices": [], "usage": PAID}], id="an error"
        ),
        pytest.param([PIECE, {"error": {"message": "lost", "code": 503}, "usage": PAID}], id="in the error"),
    ],
)
def test_what_a_stream_has_cost_that_failed_is_counted(server, run, pieces):
    texts = [piece if isinstance(piece, str) else json.dumps(piece) for piece in pieces]
    body = "".join(f"data: {text}\n\n" for text in texts).encode()
    server.play(says("").but(body=body, headers={"content-type": "text/event-stream"}), says("whole"))
    reply = run(asking(server, stream=True))
    assert (reply.message["content"], len(server.requests)) == ("whole", 2)
    assert reply.usage == Usage(prompt_tokens=14, completion_tokens=8, total_tokens=22)


def test_what_calls_have_cost_is_known_where_nobody_waits_for_their_message_any_more(server, run):
    failed = {"choices": [{"message": None, "error": {"code": 502, "message": "lost"}}], "usage": PAID}
    server.play(says("").but(body=json.dumps(failed).encode(), headers={"content-type": "application/json"}), hangs())

    async def late():
        episode = PlayedEpisode(0, "late")
        current_episode.set(episode)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(asking(server))
            await anyio.to_thread.run_sync(server.wait_for_requests, 2)
            tasks.cancel_scope.cancel()
        return episode.spent

    assert run(late) == Usage(prompt_tokens=3, completion_tokens=1, total_tokens=4)


def test_a_number_is_no_rule_for_retries(server):
    with pytest.raises(PolicyError, match=r"retries is a RetryRule, as in RetryRule\(attempts=3\), and not 3"):
        OpenAIPolicy("tiny", base_url=server.url, retries=3)


@pytest.fixture
def waits(monkeypatch):
    """The waits between calls as they were wished for, none of which is waited."""
    wished = []

    async def wish(delay):
        wished.append(delay)
        await anyio.lowlevel.checkpoint()

    monkeypatch.setattr(anyio, "sleep", wish)
    return wished


@pytest.mark.parametrize("asked", [{"retry_after": "0.3"}, {"retry_after_ms": "300"}])
def test_a_wait_that_is_asked_for_is_kept(server, run, waits, asked):
    server.play(refused(**asked), says("now"))
    run(asking(server))
    (wait,) = waits
    assert 0.3 <= wait <= 0.3 * 1.25


def test_a_wait_may_be_asked_for_as_a_date(server, run, waits):
    server.play(refused(retry_after=formatdate(time.time() + 3600, usegmt=True)), says("now"))
    run(asking(server, retries=RetryRule(patience=10_000)))
    (wait,) = waits
    assert 3600 - LIMIT <= wait <= 3600 * 1.25


def test_a_wait_longer_than_the_patience_is_not_begun(server, run):
    server.play(refused(retry_after="3600"))
    with pytest.raises(RateLimited, match="slow down"):
        run(asking(server))


def test_a_server_that_hangs_is_given_up(server, run):
    server.otherwise = hangs()
    with pytest.raises(PolicyError, match=r"no answer within 0\.1 s \(gave up after 3 calls"):
        run(asking(server, timeout=0.1))
    assert len(server.requests) <= 3  # who gives up so soon may not have said what it wants


def test_a_stream_that_stays_open_behind_its_last_event_holds_nothing_up(server, run):
    server.play(says("all of it").but(linger=True), says("more"))

    async def play():
        async with OpenAIPolicy("tiny", base_url=server.url, stream=True) as policy:
            return [(await policy.next_message(GO, [], 7)).message["content"] for _ in range(2)]

    assert run(play) == ["all of it", "more"]


def test_a_server_that_streams_nothing_is_read_in_one_piece(server, run):
    body = json.dumps({"choices": [{"index": 0, "message": {"content": "whole"}, "finish_reason": "stop"}]})
    server.play(says("").but(body=body.encode()))
    assert run(asking(server, stream=True)).message["content"] == "whole"


def test_a_stream_that_is_called_something_else_is_read(server, run):
    body = b': hello\n\ndata: {"choices":[{"delta":{"content":"whole"},"finish_reason":"stop"}]}\n\ndata: [DONE]'
    server.play(says("").but(body=body, headers={"content-type": "text/plain"}))
    assert run(asking(server, stream=True)).message["content"] == "whole"


def test_a_stream_that_stalls_is_given_up(server, run):
    server.play(says("too slow").but(wait=server.gate()))
    server.otherwise = says("fast")  # as soon as it is that on this machine
    again = RetryRule(attempts=100, first_delay=0.001, longest_delay=0.001)
    assert run(asking(server, stream=True, timeout=0.3, retries=again)).message["content"] == "fast"
    assert len(server.requests) >= 2


def test_a_server_that_is_not_there_is_named(run):
    with chat_server() as gone:
        pass
    with pytest.raises(PolicyError, match=rf"model 'tiny' at {gone.url}: no connection: .*gave up after 3 calls"):
        run(asking(gone))


def test_a_call_can_be_cancelled(server, run):
    server.otherwise = hangs()

    async def cancelled():
        async with OpenAIPolicy("tiny", base_url=server.url) as policy:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(policy.next_message, GO, [MOVE], 7)
                await anyio.to_thread.run_sync(server.wait_for_requests, 1)
                tasks.cancel_scope.cancel()
            server.otherwise = says("still here")
            return await policy.next_message(GO, [MOVE], 7)

    assert run(cancelled).message["content"] == "still here"


async def crowd(policy, number, *, until=None):
    """So many calls at once; `until` is called once all have been started."""
    replies = []

    async def one():
        replies.append(await policy.next_message(GO, [MOVE], 7))

    async with anyio.create_task_group() as group:
        for _ in range(number):
            group.start_soon(one)
        if until is not None:
            await until()
    return replies


def test_no_more_calls_are_under_way_than_allowed(server, run):
    gate = server.gate()
    server.otherwise = says("ok").but(wait=gate)

    async def play():
        async with OpenAIPolicy("tiny", base_url=server.url, max_concurrent=4) as policy:

            async def open_when_full():
                await anyio.to_thread.run_sync(server.wait_for_requests, 4)
                gate.set()

            return await crowd(policy, 20, until=open_when_full)

    assert len(run(play)) == 20
    assert server.most_in_flight == 4


def test_a_crowd_that_is_refused_comes_back_as_half_of_it(server, run):
    gate = server.gate()
    server.play(*[refused(retry_after_ms=50).but(wait=gate)] * 8)

    async def play():
        async with OpenAIPolicy("tiny", base_url=server.url, max_concurrent=8, retries=QUICK) as policy:

            async def refuse_all():
                await anyio.to_thread.run_sync(server.wait_for_requests, 8)
                gate.set()

            await crowd(policy, 8, until=refuse_all)
            return policy.statistics()

    statistics = run(play)
    assert len(server.requests) == 16
    # Half of 8, and the one or two that eight successes since have earned.
    assert 4 <= statistics.allowed <= 6
    assert (statistics.under_way, statistics.waiting) == (0, 0)


def test_whoever_waits_to_be_retried_holds_no_slot(server, run):
    server.play(refused(retry_after="1"))

    async def play():
        policy = OpenAIPolicy("tiny", base_url=server.url, max_concurrent=1, retries=QUICK)
        async with policy, anyio.create_task_group() as group:
            group.start_soon(policy.next_message, GO, [MOVE], 0)
            await anyio.to_thread.run_sync(server.wait_for_requests, 1)
            await policy.next_message(GO, [MOVE], 1)

    run(play)
    assert [request.body["seed"] for request in server.requests] == [0, 1, 0]


def test_it_tells_who_is_under_way_and_who_waits(server, run):
    gate = server.gate()
    server.otherwise = says("ok").but(wait=gate)

    async def play():
        async with OpenAIPolicy("tiny", base_url=server.url, max_concurrent=2) as policy:
            seen = [policy.statistics()]

            async def look():
                await anyio.to_thread.run_sync(server.wait_for_requests, 2)
                seen.append(policy.statistics())
                gate.set()

            await crowd(policy, 5, until=look)
            return seen

    assert run(play) == [PolicyStatistics(2, 0, 0), PolicyStatistics(2, 2, 3)]


def test_hundreds_of_calls_at_once_are_answered(server, run):
    async def play():
        async with OpenAIPolicy("tiny", base_url=server.url, max_concurrent=32) as policy:
            return await crowd(policy, 300)

    assert len(run(play)) == 300
    assert server.most_in_flight <= 32


def test_one_policy_may_be_used_on_one_loop_after_another(server):
    policy = OpenAIPolicy("tiny", base_url=server.url)

    async def once():
        async with policy:
            return (await policy.next_message(GO, [MOVE], 7)).message["content"]

    said = [anyio.run(once, backend=backend) for backend in ("trio", "asyncio", "asyncio", "trio")]
    assert said == ["I have nothing more to say."] * 4


def test_a_closed_policy_connects_again(server, run):
    async def play():
        policy = OpenAIPolicy("tiny", base_url=server.url)
        await policy.next_message(GO, [MOVE], 7)
        await policy.aclose()
        await policy.next_message(GO, [MOVE], 7)
        await policy.aclose()
        await policy.aclose()

    run(play)
    assert len(server.requests) == 2


def test_the_key_comes_from_the_environment(server, run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    run(asking(server))
    assert server.requests[0].headers["authorization"] == "Bearer sk-env"


def test_the_base_url_comes_from_the_environment(server, run, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    run(asking(server, base_url=None))
    assert len(server.requests) == 1


def test_openai_itself_wants_a_key():
    with pytest.raises(PolicyError, match="gpt-x needs a key: set OPENAI_API_KEY, or base_url for a server without"):
        OpenAIPolicy("gpt-x")


def test_fireworks_wants_a_key_of_its_own(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    with pytest.raises(PolicyError, match="set FIREWORKS_API_KEY"):
        FireworksPolicy("kimi")
    monkeypatch.setenv("FIREWORKS_API_KEY", "fw-1")
    policy = FireworksPolicy("kimi", temperature=0.5)
    assert policy.model == "accounts/fireworks/models/kimi"
    assert policy.base_url == "https://api.fireworks.ai/inference/v1"
    assert policy.api_key == "fw-1"


def test_a_fireworks_policy_speaks_the_same_protocol(server, run, monkeypatch):
    monkeypatch.setenv("FIREWORKS_API_KEY", "fw-1")

    async def play():
        async with FireworksPolicy("accounts/me/deployments/d", base_url=server.url) as policy:
            return await policy.next_message(GO, [MOVE], 7)

    run(play)
    assert server.requests[0].headers["authorization"] == "Bearer fw-1"
    assert server.requests[0].body["model"] == "accounts/me/deployments/d"


def test_a_policy_shows_what_it_asks_and_no_secrets():
    policy = OpenAIPolicy("tiny", base_url="http://127.0.0.1/v1", api_key="sk-1", headers={"Authorization": "x"})
    assert "model='tiny', base_url='http://127.0.0.1/v1'" in repr(policy)
    assert "sk-1" not in repr(policy)
    assert "Authorization" not in repr(policy)


def test_an_error_shows_no_password_of_its_url(server, run):
    server.otherwise = fails(404, "gone")
    with pytest.raises(PolicyError) as caught:
        run(asking(server, base_url=server.url.replace("127", "me:secret@127")))
    assert "secret" not in str(caught.value)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(PolicyError, match=r"tiny needs the openai package: pip install 'mcp-muxsim\[openai\]'"):
        OpenAIPolicy("tiny", base_url="http://127.0.0.1/v1")


def test_no_calls_at_all_are_no_way_to_ask():
    with pytest.raises(PolicyError, match="max_concurrent must be at least 1, not 0"):
        OpenAIPolicy("tiny", base_url="http://127.0.0.1/v1", max_concurrent=0)


def test_a_context_that_is_full_is_a_limit_on_tokens_at_the_first_prompt_too(server, run):
    server.play(fails(400, "This model's maximum context length is 10 tokens", code="context_length_exceeded"))
    with pytest.raises(TokenLimit, match="maximum context length"):
        run(asking(server))
