"""What endpoints say in place of a message, in their own words."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.rollouts.policy.failures import Cause, failure_of, is_passing, retry_after

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC).timestamp()


def read(body, status=None, **headers):
    return failure_of(body, status, headers, NOW)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "later"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Sat, 99 Nov 2026 12:00:30 GMT"}, None),
    ],
)
def test_what_a_refusal_asks_for_is_read_from_its_headers(headers, seconds):
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("status", "headers", "passing"),
    [
        (400, {}, False),
        (401, {}, False),
        (404, {}, False),
        (408, {}, True),
        (409, {}, True),
        (422, {}, False),
        (429, {}, True),
        (500, {}, True),
        (503, {}, True),
        (500, {"x-should-retry": "false"}, False),
        (400, {"x-should-retry": "true"}, True),
        (400, {"x-should-retry": "maybe"}, False),
    ],
)
def test_some_statuses_pass_and_others_stay(status, headers, passing):
    assert is_passing(status, headers) is passing


def test_a_wait_may_be_asked_for_inside_the_error():
    details = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure"}, {"retryDelay": "30s"}]
    error = [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "quota", "details": details}}]
    assert read(error, 429).retry_after == 30.0
    assert failure_of(error, 429, {"retry-after": "2"}, NOW).retry_after == 2.0


# As OpenAI, vLLM (two), SGLang, llama.cpp, TGI, Anthropic, Google, Mistral, Fireworks, xAI, Groq, Qwen, Zhipu,
# Moonshot, GitHub and a router say it.
OVERFLOWS = [
    (400, {"message": "maximum context length is 100 tokens", "code": "context_length_exceeded"}),
    (400, {"message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"}),
    (400, {"message": "The decoder prompt (length 5000) is longer than the maximum model length of 4096."}),
    (400, {"message": "The input (5000 tokens) is longer than the model's context length (4096 tokens)."}),
    (400, {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"}),
    (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"}),
    (400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8"}}),
    (
        400,
        [{"error": {"code": 400, "message": "The input token count (9) exceeds the maximum number of tokens allowed"}}],
    ),
    (400, {"message": "Prompt contains 9 tokens, too large for model with 8 maximum context length"}),
    (400, {"error": {"message": "The prompt is too long: 9, model maximum context length: 8"}}),
    (400, {"error": "This model's maximum prompt length is 8 but the request contains 9 tokens."}),
    (400, {"error": {"message": "Please reduce the length of the messages or completion.", "code": None}}),
    (400, {"error": {"code": "invalid_parameter_error", "message": "Range of input length should be [1, 129024]"}}),
    (400, {"error": {"code": "1261", "message": "Prompt exceeds max length"}}),
    (400, {"error": {"message": "Invalid request: Your request exceeded model token limit: 8192"}}),
    (400, {"error": {"message": "prompt token count of 9 exceeds the limit of 8"}}),
    (None, {"error": {"message": "This endpoint's maximum context length is 8 tokens.", "code": 400}}),
]


@pytest.mark.parametrize(("status", "body"), OVERFLOWS)
def test_a_conversation_that_is_too_long_is_told_from_other_refusals(status, body):
    failure = read(body, status)
    assert (failure.cause, failure.passing) == (Cause.OVERFLOW, False)


@pytest.mark.parametrize(
    ("status", "body", "cause", "passing"),
    [
        (401, {"message": "no such key"}, Cause.NO_ACCOUNT, False),
        (402, {"message": "Insufficient Balance"}, Cause.NO_ACCOUNT, False),
        (429, {"message": "quota", "code": "insufficient_quota"}, Cause.NO_ACCOUNT, False),
        (429, {"message": "slow down"}, Cause.RATE_LIMIT, True),
        (429, {"message": "Limit 30000, Used 29000, Requested 2000. Try again in 2s."}, Cause.RATE_LIMIT, True),
        (429, {"message": "Request too large for m on TPM: Limit 30000, Requested 34000."}, Cause.REQUEST, False),
        (413, {"message": "Request too large for m", "code": "rate_limit_exceeded"}, Cause.REQUEST, False),
        (None, {"error": {"code": "rate_limit_exceeded", "message": "Request too large"}}, Cause.REQUEST, False),
        (403, "forbidden", Cause.NO_ENTRY, False),
        (404, {"message": "The model `x` does not exist.", "code": 404}, Cause.NO_ENTRY, False),
        (400, {"message": "Model Not Exist"}, Cause.NO_ENTRY, False),
        (400, {"message": "Invalid model: x", "type": "invalid_model"}, Cause.NO_ENTRY, False),
        (400, {"error": {"message": "x is not a valid model ID", "code": 400}}, Cause.NO_ENTRY, False),
        (400, {"message": "max_tokens is too large"}, Cause.REQUEST, False),
        (400, {"message": "Unsupported parameter: 'max_tokens'"}, Cause.REQUEST, False),
        (400, {"code": "content_filter", "message": "the prompt was filtered"}, Cause.REQUEST, False),
        (422, {"detail": [{"loc": ["body", "seed"], "msg": "no seeds here"}]}, Cause.REQUEST, False),
        (500, "", Cause.FAULT, True),
        (529, {"error": {"type": "overloaded_error", "message": "Overloaded"}}, Cause.FAULT, True),
        (418, {"message": "a teapot"}, Cause.FAULT, False),
        (None, {"error": {"code": 502, "message": "Provider returned error"}}, Cause.FAULT, True),
        (None, {"error": {"code": "502", "message": "Provider returned error"}}, Cause.FAULT, True),
        (None, {"error": {"code": 429, "message": "Provider returned error"}}, Cause.RATE_LIMIT, True),
        (None, {"error": {"code": "rate_limit_exceeded", "type": "requests"}}, Cause.RATE_LIMIT, True),
        (None, [{"error": {"status": "RESOURCE_EXHAUSTED", "message": "quota"}}], Cause.RATE_LIMIT, True),
        (None, {"error": {"status": "UNAVAILABLE", "message": "model is overloaded"}}, Cause.FAULT, True),
        (None, {"error": "the engine died"}, Cause.FAULT, True),
        (None, {"error": {"code": 40303, "message": "vLLM of old"}}, Cause.FAULT, True),
        (None, {"error": {"code": 401, "message": "no"}}, Cause.NO_ACCOUNT, False),
    ],
)
def test_whose_fault_a_failure_is_follows_from_its_status_and_words(status, body, cause, passing):
    failure = read(body, status)
    assert (failure.cause, failure.passing) == (cause, passing)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "plain"}}, "plain"),
        ({"error": "text"}, "text"),
        ({"detail": "seed is unknown"}, "seed is unknown"),
        ({"detail": [{"loc": ["body", "seed"], "msg": "no seeds here"}]}, "body.seed: no seeds here"),
        ({"message": {"detail": [{"msg": "inside"}]}}, "inside"),
        ([{"error": {"message": "in a list"}}], "in a list"),
        ("<html>no</html>", "<html>no</html>"),
        ({"error": {"message": "a\n  b"}}, "a b"),
        ({"error": {"code": 7}}, '{"code":7}'),
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": "the GPU fell off", "provider": "x"}}},
            "Provider returned error: the GPU fell off",
        ),
        (
            {
                "error": {
                    "message": "Provider returned error",
                    "metadata": {"raw": {"error": {"message": "it is full"}}},
                }
            },
            "Provider returned error: it is full",
        ),
    ],
)
def test_a_failure_has_the_words_of_whoever_knows(body, message):
    assert read(body, 500).message == message


def test_what_a_model_wrote_that_its_endpoint_cannot_read_is_kept():
    error = {"message": "Failed to call a function.", "code": "tool_use_failed", "failed_generation": "<function=mo"}
    failure = read({"error": error}, 400)
    assert (failure.cause, failure.passing, failure.written) == (Cause.TOOL_CALL, False, "<function=mo")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "detail", "details", "code", "type", "status", "metadata", "raw", "retryDelay"]
            )
            | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.none() | st.integers(400, 599))
def test_whatever_an_error_looks_like_it_is_read(body, status):
    failure = read(body, status)
    assert len(failure.message) < 400
    assert status is None or failure.status == status
