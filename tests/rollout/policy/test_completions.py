"""An endpoint's answers as replies."""

import json

import pytest

from muxsim.rollouts.policy.completions import NoCompletion, StreamedCompletion, reply_of
from muxsim.rollouts.trajectory import Usage


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


def test_arguments_that_come_parsed_are_written_again():
    assert calls_of(reply_of(completion({"tool_calls": [called("a", {"x": 1}, id="i")]}), 0)) == [("i", "a", '{"x":1}')]


@pytest.mark.parametrize(
    "answer",
    ["<html>", None, [], {}, {"choices": []}, {"choices": [{}]}, {"choices": None}, {"choices": [None]}],
)
def test_an_answer_that_is_no_completion_says_so(answer):
    with pytest.raises(NoCompletion, match="the answer is no chat completion"):
        reply_of(answer, 0)


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
        ({"logprobs": None, "token_ids": None}, {}, None),
    ],
)
def test_tokens_are_kept_wherever_the_endpoint_puts_them(choice, rest, tokens):
    assert reply_of(completion({"content": ""}, choice=choice, **rest), 0).tokens == tokens


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


def test_a_message_is_complete_with_its_finish_reason():
    assert not streamed(chunk({"content": "a"})).is_complete
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
    assert calls_of(reply) == [("x", "a", "{}"), ("y", "b", "{}")]


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
