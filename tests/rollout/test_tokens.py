"""Tokens of replies, and rows of them: what was read, what was sampled, and nothing that nobody told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.rollouts.data.tokens import TurnTokens, links, segments, turn_tokens

IDS = st.lists(st.integers(0, 2**31 - 1), max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just("token_id:7"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["content", "token", "token_id", "logprob", "token_ids", "token_logprobs"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


def turn(prompt, completion, logprobs=None):
    return TurnTokens(prompt, completion, logprobs, "")


def entry(token, logprob=-0.5, **more):
    return {"token": token, "logprob": logprob, "bytes": None, "top_logprobs": [], **more}


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        (None, TurnTokens()),
        ({}, TurnTokens(problem="the endpoint told no prompt_token_ids and no token_ids")),
        ({"prompt_token_ids": [1, 2], "token_ids": [3]}, turn([1, 2], [3])),
        ({"prompt_token_ids": [1], "token_ids": []}, turn([1], [])),
        (
            {"prompt_token_ids": [1], "token_ids": [3, 4], "logprobs": [entry("a"), entry("b", -1)]},
            turn([1], [3, 4], [-0.5, -1.0]),
        ),
        ({"prompt_token_ids": [1], "token_ids": [3], "logprobs": [-0.5]}, turn([1], [3], [-0.5])),
        # vLLM's return_tokens_as_token_ids, and the member of its own that others have.
        (
            {"prompt_token_ids": [1], "logprobs": [entry("token_id:31"), entry("token_id:9")]},
            turn([1], [31, 9], [-0.5, -0.5]),
        ),
        ({"prompt_token_ids": [1], "logprobs": {"content": [entry("a", token_id=4)]}}, turn([1], [4], [-0.5])),
        (
            {"prompt_token_ids": [1], "logprobs": {"tokens": ["a"], "token_logprobs": [-0.25], "token_ids": [8]}},
            turn([1], [8], [-0.25]),
        ),
        # Numbers for other tokens than there are, and what is no number, are no log probabilities.
        ({"prompt_token_ids": [1], "token_ids": [3, 4], "logprobs": [entry("a")]}, turn([1], [3, 4])),
        ({"prompt_token_ids": [1], "token_ids": [3], "logprobs": [entry("a", None)]}, turn([1], [3])),
        ({"prompt_token_ids": [1], "token_ids": [3], "logprobs": [entry("a", float("nan"))]}, turn([1], [3])),
    ],
)
def test_a_reply_has_the_tokens_that_its_endpoint_told(recorded, told):
    assert turn_tokens(recorded) == told


@pytest.mark.parametrize("wrong", [[1, "2"], [1, -1], [True], [2**31], "12", [1.0], {}])
def test_ids_that_are_none_are_no_ids(wrong):
    assert turn_tokens({"prompt_token_ids": [1], "token_ids": wrong}).completion is None
    assert turn_tokens({"prompt_token_ids": wrong, "token_ids": [1]}).prompt is None


def test_two_accounts_of_the_same_tokens_that_differ_are_a_problem():
    told = turn_tokens({"prompt_token_ids": [1], "token_ids": [3], "logprobs": [entry("token_id:4")]})
    assert told.problem == "token_ids and logprobs name other tokens"
    assert segments([told]) == []


def test_replies_whose_prompts_go_on_are_one_segment_with_only_the_sampled_tokens_in_its_mask():
    (one,) = segments([turn([1, 2], [3, 4], [-0.1, -0.2]), turn([1, 2, 3, 4, 5, 6], [7], [-0.3])])
    assert (one.prompt, one.completion, one.mask) == ([1, 2], [3, 4, 5, 6, 7], [1, 1, 0, 0, 1])
    assert one.logprobs == [-0.1, -0.2, None, None, -0.3]
    assert one.scored() == [-0.1, -0.2, 0.0, 0.0, -0.3]
    assert (one.turn, one.turns, one.begins) == (0, 2, "")


def test_a_prompt_that_does_not_go_on_begins_a_segment_and_says_where_it_differs():
    first, second, third = segments([turn([1, 2], [3]), turn([1, 2, 9, 5], [7]), turn([1, 2], [4])])
    assert (second.prompt, second.completion, second.mask, second.turn) == ([1, 2, 9, 5], [7], [1], 1)
    where = "the prompt of reply 1 does not begin with what was read and sampled before: token 2 is 9, it was 3"
    assert (first.begins, second.begins) == ("", where)
    assert third.begins.endswith("it has 2 tokens, there were 5")


def test_a_reply_without_ids_is_in_no_segment_and_the_next_begins_one():
    first, last = segments([turn([1], [2]), TurnTokens(), turn([1, 2, 3], [4])])
    assert (first.turns, last.turn, last.prompt) == (1, 2, [1, 2, 3])
    assert last.begins == "reply 1: the endpoint told no token ids"


def test_a_segment_with_a_sampled_token_of_unknown_probability_has_no_log_probabilities_for_trainers():
    (one,) = segments([turn([1], [2], [-0.5]), turn([1, 2], [3])])
    assert one.logprobs == [-0.5, None]
    assert one.scored() is None


@given(st.lists(st.tuples(IDS, IDS, st.booleans(), st.booleans()), max_size=6))
def test_a_segment_is_what_the_model_read_and_sampled_token_for_token(episode):
    turns, known = [], []
    for between, sampled, goes_on, told in episode:
        prompt = [*known, *between] if goes_on else between
        turns.append(turn(prompt, sampled) if told else TurnTokens())
        known = [*prompt, *sampled]
    found = segments(turns)
    assert sum(one.turns for one in found) == sum(not one.problem for one in turns)
    for one in found:
        assert len(one.completion) == len(one.mask) == len(one.logprobs)
        of_it = turns[one.turn : one.turn + one.turns]
        assert one.prompt + one.completion == of_it[-1].prompt + of_it[-1].completion
        sampled = [id for id, is_sampled in zip(one.completion, one.mask, strict=True) if is_sampled]
        assert sampled == [id for each in of_it for id in each.completion]
        end = len(one.prompt)
        for each in of_it:  # and each sampled token stands where the model had it
            start = len(each.prompt)
            place = start - len(one.prompt)
            assert one.mask[place : place + len(each.completion)] == [1] * len(each.completion)
            assert not any(one.mask[end - len(one.prompt) : place])
            end = start + len(each.completion)
    assert len(list(links(turns))) == len(turns)


@given(st.dictionaries(st.sampled_from(["prompt_token_ids", "token_ids", "logprobs", "problem"]), JSON))
def test_whatever_an_endpoint_says_is_read_as_ids_and_numbers_or_as_nothing(recorded):
    told = turn_tokens(recorded)
    for ids in (told.prompt, told.completion):
        assert ids is None or all(type(one) is int and 0 <= one < 2**31 for one in ids)
    assert told.logprobs is None or len(told.logprobs) == len(told.completion)
    segments([told, told])
