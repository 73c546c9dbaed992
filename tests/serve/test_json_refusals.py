"""Refusals of whoever writes them, in the one form that clients get."""

from __future__ import annotations

import json

import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from muxsim.serve.http.json_refusals import JSONRefusals

HTTP = {"type": "http", "method": "PUT"}


async def answer_of(app):
    """The status, headers and body that an application's answer has in the end, and what it raised."""
    events, raised = [], None

    async def send(event):
        events.append(event)

    try:
        await JSONRefusals(app)(HTTP, None, send)
    except Exception as error:
        raised = error
    start, *bodies = events
    headers = dict(start["headers"])
    body = b"".join(event.get("body", b"") for event in bodies)
    if b"content-length" in headers:
        assert int(headers[b"content-length"]) == len(body)
    return start["status"], headers, body, raised


@pytest.mark.parametrize(
    "response",
    [
        PlainTextResponse("Disallowed CORS origin", 400, {"vary": "Origin"}),
        PlainTextResponse("Method Not Allowed", 405, {"allow": "GET", "vary": "Origin"}),
        PlainTextResponse("no" * 10_000, 502, {"vary": "Origin"}, "text/html"),
    ],
    ids=["preflight", "method", "page"],
)
async def test_a_refusal_in_any_other_form_becomes_json_and_keeps_its_headers(response):
    status, headers, body, _ = await answer_of(response)
    assert (status, headers[b"content-type"], headers[b"vary"]) == (
        response.status_code, b"application/json", b"Origin"
    )  # fmt: skip
    assert json.loads(body)["error"]["message"]


async def test_what_is_no_refusal_or_json_already_stays_as_it_is():
    for response in (PlainTextResponse("hello"), JSONResponse({"error": "x"}, 404)):
        assert await answer_of(response) == (
            response.status_code, dict(response.raw_headers), response.body, None
        )  # fmt: skip


async def test_an_application_that_fails_has_answered_in_json_and_is_heard_of():
    async def app(scope, receive, send):
        raise ZeroDivisionError

    status, _, body, raised = await answer_of(app)
    assert (status, json.loads(body)["error"]["code"]) == (500, -32603)
    assert isinstance(raised, ZeroDivisionError)
