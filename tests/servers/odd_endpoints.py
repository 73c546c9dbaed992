"""Endpoints as they are: each answers a request in a way that some server does, or that follows from a mistake.

A fixture is a function of a `chat_completions.Request`. Those that can be played with make one call, and then end.
"""

import json

from servers.chat_completions import Answer, calls, fails, says


def _json(body, status=200, kind="application/json"):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status=status, body=text, headers={"content-type": kind})


def _events(*chunks, done=True):
    lines = [chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode() for chunk in chunks]
    body = b"".join(b"data: " + line + b"\n\n" for line in [*lines, *([b"[DONE]"] if done else [])])
    return _json(body, kind="text/event-stream")


def _choice(message, reason="stop", **more):
    return {"choices": [{"index": 0, "message": message, "finish_reason": reason, **more}]}


def _delta(delta, **more):
    return {"choices": [{"index": 0, "delta": delta, **more}]}


def played(request):
    """How many results the model has seen."""
    return sum(message["role"] == "tool" for message in request.body["messages"])


def a_web_page(request):
    """The base URL is that of something else."""
    return _json(b"<!doctype html><title>Welcome to nginx!</title>", kind="text/html")


def no_such_path(request):
    """The base URL lacks its /v1."""
    return _json({"detail": "Not Found"}, 404)


def no_such_key(request):
    return fails(401, "Incorrect API key provided: sk-…", code="invalid_api_key")


def no_such_model(request):
    """vLLM."""
    error = {"object": "error", "message": "The model `tiny` does not exist.", "type": "NotFoundError", "code": 404}
    return _json(error, 404)


def no_such_model_by_400(request):
    """DeepSeek."""
    return fails(400, "Model Not Exist", type="invalid_request_error")


def no_money(request):
    """OpenRouter, whose status is 200 where its provider's was not."""
    return _json({"error": {"message": "Insufficient credits", "code": 402}, "user_id": "u"})


def no_tool_parser(request):
    """vLLM that was started without one."""
    return fails(400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')


def another_parameter(request):
    """OpenAI's newer models."""
    text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    return fails(400, text, code="unsupported_parameter", param="max_tokens")


def a_filter(request):
    """Azure, of one prompt among others."""
    if "1" in request.body["messages"][-1]["content"]:
        return fails(400, "The response was filtered due to the prompt", code="content_filter")
    return says("Fine.")


def a_full_context(request):
    """vLLM, from the second turn on."""
    if played(request):
        return fails(
            400, "This model's maximum context length is 100 tokens. However, you requested 120 tokens", code=400
        )
    return calls("step", {"to": "on"})


def a_prompt_that_is_too_long(request):
    return fails(400, "This model's maximum context length is 10 tokens. However, you requested 120 tokens", code=400)


def a_bad_tool_call(request):
    """Groq shows what the model wrote in an error."""
    text = "Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details."
    return fails(400, text, code="tool_use_failed", failed_generation="<function=step>{to: on}")


def google(request):
    """Its errors stand in a list; it signs calls and wants the signature back."""
    signed = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    if not played(request):
        call = {"id": "", "type": "function", "function": {"name": "step", "arguments": "{}"}, **signed}
        return _json(_choice({"role": "assistant", "tool_calls": [call]}, "stop"))
    given = [call for message in request.body["messages"] for call in message.get("tool_calls") or ()]
    if all(call.get("extra_content") == signed["extra_content"] for call in given):
        return says("Done.")
    error = {"code": 400, "message": "a function call is missing its thought_signature", "status": "INVALID_ARGUMENT"}
    return _json([{"error": error}], 400)


def ollama(request):
    """Arguments come as objects, and all calls have one id or none."""
    if played(request):
        return _json({**_choice({"role": "assistant", "content": "Done."}), "usage": None})
    made = [{"id": "call_0", "index": 0, "function": {"name": "step", "arguments": {"to": to}}} for to in "ab"]
    return _json(_choice({"role": "assistant", "content": "", "tool_calls": made}, "stop"))


def mistral(request):
    """Content is a list of chunks, thinking among them, and wants to come back as it was."""
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "So:"},
    ]
    given = [message["content"] for message in request.body["messages"] if message["role"] == "assistant"]
    if played(request):
        return says("Done.") if given == [content] else fails(400, "the thinking is missing")
    call = {"id": "D681PevKs", "function": {"name": "step", "arguments": "{}"}, "index": 0}
    return _json(
        _choice({"role": "assistant", "content": content, "tool_calls": [call], "prefix": False}, "tool_calls")
    )


def openrouter(request):
    """Reasoning details come in pieces, with the provider's signature, and go back whole."""
    details = [
        {"type": "reasoning.text", "text": "hmm", "signature": "sig", "format": "anthropic-claude-v1", "index": 0}
    ]
    given = [message.get("reasoning_details") for message in request.body["messages"] if message["role"] == "assistant"]
    if played(request):
        return (
            _events(_delta({"content": "Done."}, finish_reason="stop"))
            if given == [details]
            else fails(400, "unsigned")
        )
    piece = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": 0}
    call = {"index": 0, "id": "x", "type": "function", "function": {"name": "step", "arguments": "{}"}}
    return _events(
        _delta({"role": "assistant", "content": "", "reasoning_details": [{**piece, "text": "h"}]}),
        _delta({"reasoning_details": [{**piece, "text": "mm"}]}),
        _delta({"reasoning_details": [{**piece, "signature": "sig"}]}),
        _delta({"tool_calls": [call]}, finish_reason="tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}},
    )


def half_an_emoji(request):
    """A stream cut in the middle of a character, that ends without a finish reason."""
    return _events(rb'{"choices":[{"delta":{"content":"\ud83d"}}]}', rb'{"choices":[{"delta":{"content":"\ude00"}}]}')


def a_provider_that_breaks(request):
    """The status was sent before the provider broke."""
    return _json(
        _choice({"role": "assistant", "content": ""}, "error", error={"code": 502, "message": "upstream broke"})
    )
