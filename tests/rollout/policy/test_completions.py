"""An endpoint's answers as replies."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from muxsim.rollouts.data.trajectory import Usage
from muxsim.rollouts.policy.completions import StreamedCompletion, failure_in, reply_of
from muxsim.rollouts.policy.failures import Cause
from muxsim.rollouts.policy.json_text import decoded_piece


def completion(message, *, choice=(), **rest):
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop", **dict(choice)}], **rest}


def called(name, arguments, **rest):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **rest}


def chunk(delta=None, *, choice=(), **rest):
    if delta is None and not choice:
        return {"choices": [], **rest}
    return {"choices": [{"index": 0, "delta": delta or {}, **dict(choice)}], **rest}


def streamed(*chunks):
    whole = StreamedCompletion()
    for each in chunks:
        whole.add(each)
    return whole


def calls_of(reply):
    return [
        (call["id"], call["function"]["name"], call["function"]["arguments"]) for call in reply.message["tool_calls"]
    ]


def test_a_message_keeps_what_models_and_servers_need_of_it():
    reply = reply_of(
        completion(
            {"role": "assistant", "content": "hm", "refusal": None, "annotations": [], "reasoning_content": "so"},
            usage={"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
        ),
        0,
    )
    assert reply.message == {"role": "assistant", "content": "hm", "reasoning_content": "so"}
    assert reply.usage == Usage(prompt_tokens=5, completion_tokens=2, total_tokens=7)
    assert reply.tokens is None
    assert reply.finish_reason == "stop"


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (None, Usage()),
        ({"prompt_tokens": 3, "completion_tokens": None}, Usage(prompt_tokens=3, total_tokens=3)),
        ({"prompt_tokens": 3, "completion_tokens": 4}, Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)),
        ({"prompt_tokens": "3", "completion_tokens": -1, "total_tokens": float("inf")}, Usage()),
        ([3, 4], Usage()),
    ],
)
def test_usage_is_read_as_far_as_it_goes(usage, read):
    assert reply_of(completion({"content": ""}, usage=usage), 0).usage == read


def test_tool_calls_are_kept_as_they_were_written():
    reply = reply_of(completion({"content": None, "tool_calls": [called("move", '{"a": ', id="x")]}), 0)
    assert calls_of(reply) == [("x", "move", '{"a": ')]


def test_tool_calls_without_an_id_get_one_of_their_turn():
    both = [called("a", "{}"), called("b", "{}", id="")]
    assert [name for name, *_ in calls_of(reply_of(completion({"tool_calls": both}), 4))] == ["call_4_0", "call_4_1"]


@pytest.mark.parametrize("ids", [("x", "x"), ("x", None), (None, None), ("call_2_1", ""), ("taken", "x"), (7, {})])
def test_every_call_of_a_conversation_has_an_id_of_its_own(ids):
    message = {"tool_calls": [called("a", "{}", id=given) for given in ids]}
    made = [name for name, *_ in calls_of(reply_of(completion(message), 2, ["taken", "call_2_0"]))]
    assert len({*made, "taken", "call_2_0"}) == 4
    assert all(isinstance(name, str) and name for name in made)


def test_a_call_without_a_function_has_its_name_in_itself():
    assert calls_of(reply_of(completion({"tool_calls": [{"id": "x", "name": "a", "arguments": {"to": 1}}]}), 0)) == [
        ("x", "a", '{"to":1}')
    ]


SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}


def test_what_a_model_adds_to_its_message_and_calls_is_kept_and_what_is_empty_is_not():
    details = [{"type": "reasoning.text", "text": "hm", "signature": "s", "format": "anthropic-claude-v1"}]
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "so"}]
    call = {
        "id": "x",
        "type": "function",
        "function": {"name": "a", "arguments": "{}", "note": 1},
        "index": 0,
        **SIGNED,
    }
    message = {"role": "assistant", "content": parts, "reasoning_details": details, "tool_calls": [call], **SIGNED}
    reply = reply_of(completion({**message, "audio": None, "annotations": [], "refusal": None, "function_call": {}}), 0)
    assert reply.message == message


def test_arguments_that_come_parsed_are_written_again():
    assert calls_of(reply_of(completion({"tool_calls": [called("a", {"x": 1}, id="i")]}), 0)) == [("i", "a", '{"x":1}')]


@pytest.mark.parametrize("answer", ["<html>", None, [], {}, 7, {"object": "list"}])
def test_what_is_no_completion_stays_none(answer):
    failure = failure_in(answer)
    assert failure.message.startswith("the answer is no chat completion")
    assert not failure.passing


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": []},
        {"choices": [{}]},
        {"choices": None},
        {"choices": [None]},
        completion(None),
        completion({"tool_calls": {"name": "move"}}),
        completion({"tool_calls": ["move"]}),
        completion({"content": ""}, choice={"finish_reason": "tool_calls"}),
        completion(
            {"content": None, "function_call": {"name": "move", "arguments": "{}"}},
            choice={"finish_reason": "function_call"},
        ),
        completion({"content": ""}, choice={"finish_reason": "error"}),
        completion({"content": ""}, choice={"error": {"code": 502, "message": "upstream broke"}}),
        {"error": {"code": 503, "message": "no provider"}, "choices": []},
        [{"error": {"code": 503, "message": "no provider"}}],
        {"object": "error", "message": "the engine died"},
        {"detail": "not now"},
    ],
)
def test_a_completion_without_its_message_may_come_with_the_next_try(answer):
    assert failure_in(answer).passing


def test_an_error_inside_an_answer_has_its_own_status_and_what_it_has_cost():
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    failure = failure_in(completion({"content": ""}, choice={"error": {"code": 429, "message": "full"}}, usage=usage))
    assert (failure.cause, failure.status, failure.message) == (Cause.RATE_LIMIT, 429, "full")
    assert failure.usage.total_tokens == 7


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "tool_calls", None, "eos", 7])
def test_a_message_with_a_call_is_one_whatever_the_reason_for_its_end(reason):
    answer = completion({"tool_calls": [called("a", "{}", id="i")]}, choice={"finish_reason": reason})
    assert failure_in(answer) is None
    assert calls_of(reply_of(answer, 0)) == [("i", "a", "{}")]
    assert reply_of(answer, 0).finish_reason == (None if reason is None else str(reason))


ENTRIES = [{"token": "a", "logprob": -0.5, "top_logprobs": []}, {"token": "b", "logprob": -0.1, "top_logprobs": []}]


@pytest.mark.parametrize(
    ("choice", "rest", "tokens"),
    [
        (
            {"token_ids": [4, 5], "logprobs": {"content": ENTRIES}},
            {"prompt_token_ids": [1, 2, 3], "prompt_logprobs": [None]},
            {"prompt_token_ids": [1, 2, 3], "token_ids": [4, 5], "logprobs": ENTRIES, "prompt_logprobs": [None]},
        ),
        (
            {"prompt_token_ids": [1], "token_ids": [4]},
            {"prompt_token_ids": None},
            {"prompt_token_ids": [1], "token_ids": [4]},
        ),
        ({"logprobs": {"tokens": ["a"]}}, {}, {"logprobs": {"tokens": ["a"]}}),
        (
            {"token_ids": [4]},
            {"usage": {"prompt_tokens": 1, "completion_tokens": 2}},
            {"token_ids": [4], "problem": "1 token_ids came of 2 that were counted"},
        ),
        ({"logprobs": None, "token_ids": None}, {}, None),
    ],
)
def test_tokens_are_kept_wherever_the_endpoint_puts_them(choice, rest, tokens):
    assert reply_of(completion({"content": ""}, choice=choice, **rest), 0).tokens == tokens


def test_log_probabilities_in_lists_of_their_own_are_put_together_from_their_pieces():
    pieces = [{"tokens": ["a"], "token_logprobs": [-0.5], "token_ids": [4]}, {"tokens": ["b"], "token_ids": [5]}]
    whole = streamed(
        *[chunk({"content": "a"}, choice={"logprobs": piece}) for piece in [*pieces, {"tokens": None}, None]]
    )
    tokens = reply_of(whole.completion(), 0).tokens
    assert tokens == {"logprobs": {"tokens": ["a", "b"], "token_logprobs": [-0.5], "token_ids": [4, 5]}}


def test_text_is_put_together_from_its_pieces():
    whole = streamed(
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning_content": "think"}),
        chunk({"reasoning_content": "ing"}),
        chunk({"content": "go "}),
        chunk({"content": "left"}),
        chunk(choice={"finish_reason": "length"}),
        chunk(usage={"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}),
    )
    reply = reply_of(whole.completion(), 0)
    assert reply.message == {"role": "assistant", "content": "go left", "reasoning_content": "thinking"}
    assert reply.usage.total_tokens == 3
    assert reply.finish_reason == "length"


def test_a_stream_that_says_that_it_is_over_is_complete_if_it_said_something():
    for chunks, complete in (([chunk({"content": "a"})], True), ([chunk({"role": "assistant", "content": ""})], False)):
        whole = streamed(*chunks)
        whole.end()
        assert whole.is_complete is complete


def test_content_that_comes_as_lists_is_put_together_by_its_parts():
    def thinks(text):
        return [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]

    whole = streamed(
        chunk({"content": ""}),
        chunk({"content": thinks("h")}),
        chunk({"content": thinks("m")}),
        chunk({"content": [{"type": "text", "text": "go "}]}),
        chunk({"content": "left"}),
        chunk(choice={"finish_reason": "stop"}),
    )
    assert reply_of(whole.completion(), 0).message["content"] == [
        *thinks("hm"),
        {"type": "text", "text": "go left"},
    ]


def test_reasoning_details_are_put_together_by_their_index():
    def detail(**more):
        return chunk({"reasoning_details": [{"type": "reasoning.text", "index": 0, "format": "x", **more}]})

    other = {"type": "reasoning.encrypted", "index": 1, "data": "abc"}
    whole = streamed(
        detail(text="h"),
        detail(text="m", signature=None),
        detail(signature="sig"),
        chunk({"reasoning_details": [other]}),
    )
    assert reply_of(whole.completion(), 0).message["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "format": "x", "text": "hm", "signature": "sig"},
        other,
    ]


def test_signatures_of_streamed_calls_and_messages_are_kept():
    call = {"index": 0, "id": "x", "type": "function", "function": {"name": "a", "arguments": "{}"}, **SIGNED}
    whole = streamed(chunk({"tool_calls": [call], **SIGNED}))
    message = reply_of(whole.completion(), 0).message
    assert message["extra_content"] == message["tool_calls"][0]["extra_content"] == SIGNED["extra_content"]
    assert "index" not in message["tool_calls"][0]


@pytest.mark.parametrize("halves", [(r"\ud83d", r"\ude00"), (b"\xf0\x9f", b"\x98\x80")], ids=["escapes", "bytes"])
def test_halves_of_a_character_are_joined_when_the_other_half_comes(halves):
    whole = StreamedCompletion()
    for half in (*halves, halves[0]):
        text = half if isinstance(half, bytes) else half.encode()
        whole.add(decoded_piece(b'{"choices":[{"delta":{"content":"' + text + b'"}}]}'))
    content = reply_of(whole.completion(), 0).message["content"]
    assert content in ("\U0001f600\ufffd", "\U0001f600\ufffd\ufffd")
    json.dumps(content).encode()


def test_an_error_in_a_stream_has_its_own_status():
    failed = StreamedCompletion().add(chunk({"content": ""}, choice={"finish_reason": "error"}, error={"code": 502}))
    assert (failed.status, failed.passing) == (502, True)
    failed = StreamedCompletion().add(
        chunk({"content": "a"}, choice={"finish_reason": "error", "error": {"code": 429}})
    )
    assert failed.cause is Cause.RATE_LIMIT


OF_STREAMS = ["choices", "delta", "index", "usage", "finish_reason", "error", "logprobs", "message"]
OF_MESSAGES = ["role", "content", "reasoning", "type", "text", "tool_calls", "id", "function", "name", "arguments"]
CHUNKS = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*OF_STREAMS, *OF_MESSAGES]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@example([{"choices": [{"finish_reason": [None]}]}])
@given(st.lists(st.dictionaries(st.sampled_from(["choices", "usage", "token_ids"]), CHUNKS), max_size=4))
def test_whatever_a_stream_says_it_is_a_reply_or_a_failure(chunks):
    whole = StreamedCompletion()
    for each in chunks:
        if whole.add(each) is not None:
            return
    if failure_in(whole.completion()) is None:
        json.dumps(reply_of(whole.completion(), 0).message)


@given(CHUNKS)
def test_whatever_an_answer_is_it_is_a_reply_or_a_failure(answer):
    given = {"choices": [{"message": answer, "finish_reason": "stop"}]}
    if failure_in(given) is None:
        json.dumps(reply_of(given, 0).message)


def test_a_message_is_complete_with_its_finish_reason():
    assert not streamed(chunk({"content": "a"})).is_complete
    assert not streamed(chunk({"content": "a"}, choice={"finish_reason": ""})).is_complete
    assert streamed(chunk({"content": "a"}), chunk(choice={"finish_reason": "stop"})).is_complete


def piece(index=None, *, call_id=None, name=None, arguments=None):
    function = {key: value for key, value in {"name": name, "arguments": arguments}.items() if value is not None}
    call = {"function": function} | ({} if index is None else {"index": index}) | ({"id": call_id} if call_id else {})
    return chunk({"tool_calls": [call]})


STREAMS = {
    "interleaved": [
        piece(0, call_id="x", name="a", arguments=""),
        piece(1, call_id="y", name="b", arguments="{"),
        piece(0, arguments="{}"),
        piece(1, arguments="}"),
    ],
    "the id with every piece": [
        piece(0, call_id="x", name="a", arguments="{"),
        piece(0, call_id="x", arguments="}"),
        piece(1, call_id="y", name="b", arguments="{}"),
    ],
    "whole calls that all have index 0": [
        piece(0, call_id="x", name="a", arguments="{}"),
        piece(0, call_id="y", name="b", arguments="{}"),
    ],
    "whole calls that all have the same id": [
        piece(0, call_id="x", name="a", arguments="{}"),
        piece(0, call_id="x", name="b", arguments="{}"),
    ],
    "whole calls without ids": [
        piece(0, name="a", arguments="{}"),
        piece(0, name="b", arguments="{}"),
    ],
    "the name with every piece": [
        piece(0, call_id="x", name="a", arguments=""),
        piece(0, call_id="x", name="a", arguments="{"),
        piece(0, call_id="x", name="a", arguments="}"),
        piece(1, call_id="y", name="b", arguments="{}"),
    ],
    "no index": [
        piece(call_id="x", name="a", arguments="{"),
        piece(arguments="}"),
        piece(call_id="y", name="b", arguments="{}"),
    ],
    "parsed arguments": [
        piece(0, call_id="x", name="a", arguments={}),
        piece(1, call_id="y", name="b", arguments={}),
    ],
}


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS.keys())
def test_tool_calls_are_put_together_from_their_pieces(chunks):
    reply = reply_of(streamed(*chunks).completion(), 0)
    assert [(name, arguments) for _, name, arguments in calls_of(reply)] == [("a", "{}"), ("b", "{}")]
    assert len({name for name, *_ in calls_of(reply)}) == 2


def test_streamed_calls_without_an_id_get_one_of_their_turn():
    reply = reply_of(streamed(piece(0, name="a", arguments="{}"), piece(1, name="b")).completion(), 2)
    assert calls_of(reply) == [("call_2_0", "a", "{}"), ("call_2_1", "b", "")]


def test_streamed_tokens_are_put_together():
    whole = streamed(
        chunk({"role": "assistant"}, prompt_token_ids=[1, 2]),
        chunk({"content": "a"}, choice={"token_ids": [4], "logprobs": {"content": ENTRIES[:1]}}),
        chunk({"content": "b"}, choice={"token_ids": [5], "logprobs": {"content": ENTRIES[1:]}}),
        chunk(choice={"finish_reason": "stop", "logprobs": None, "token_ids": []}),
    )
    tokens = {"prompt_token_ids": [1, 2], "token_ids": [4, 5], "logprobs": ENTRIES}
    assert reply_of(whole.completion(), 0).tokens == tokens


def test_other_choices_of_a_stream_are_left_alone():
    other = {"choices": [{"index": 1, "delta": {"content": "other"}}]}
    whole = streamed(chunk({"content": "a"}), other)
    assert reply_of(whole.completion(), 0).message["content"] == "a"


def test_a_completion_that_was_streamed_has_no_part_in_its_chunks():
    first = piece(0, call_id="x", name="a", arguments="{")
    before = json.dumps(first)
    streamed(first, piece(0, arguments="}"))
    assert json.dumps(first) == before
