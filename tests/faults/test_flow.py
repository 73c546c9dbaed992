"""A backend that reads nothing: its clients are told so, in time, and muxsim holds no more of theirs than it has to."""

from __future__ import annotations

import pytest
import trio
from serve.conftest import environment
from serve.machine import eventually, memory
from serve.wire import ask, modern_call, modern_headers, open_session, shake_hands, tool_call

pytestmark = pytest.mark.children

MIB = 2**20
QUICK = "eof_timeout = 0.1\nterm_timeout = 0.1"
CONFIG = "\n".join(
    [
        environment("naughty"),
        environment("hurried", extra=f"call_timeout = 0.5\n{QUICK}"),
        environment("narrow", extra=f"max_waiting = 3\n{QUICK}"),
    ]
)
PADDING = "x" * MIB


@pytest.mark.fault("C29")
async def test_c29_calls_for_a_backend_that_never_reads_again_end_with_an_error_in_time(muxsim):
    """Also those that never reached its pipe, over each transport."""
    session = await open_session(muxsim.url, env="hurried")
    path = f"/s/{session['id']}"
    client = await shake_hands(muxsim.url, f"{path}/mcp")
    assert "call_timeout" in (await client.call("stop_itself"))["error"]["message"]
    errors = []

    async def call(number):
        answer = await client.post(tool_call(number, "measure", {"text": PADDING}))
        errors.append((answer.status, answer.error["code"]))
        assert "call_timeout" in answer.error["message"]

    async def call_modern():
        message = modern_call(1, "measure", {"text": PADDING})
        answer = await ask(muxsim.url, "POST", f"{path}/mcp", modern_headers(message)[1:], message)
        assert (answer.json()["id"], answer.error["code"]) == (1, -32001)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(10, 20):
                nursery.start_soon(call, number)
        await call_modern()
    assert errors == [(200, -32001)] * 10
    assert (await client.delete()).status == 204


@pytest.mark.fault("C29")
async def test_c29_no_more_calls_than_max_waiting_wait_for_a_backend_to_read(muxsim, gate):
    """One more is refused at once, and those that wait go on when it reads."""
    client = await shake_hands(muxsim.url, "/mcp?env=narrow")
    before, answers = memory(muxsim.pid), []

    async def call(number):
        answers.append(await client.post(tool_call(number, "measure", {"text": PADDING})))

    async def blocked():
        return (await client.session())["in_flight"]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.post, tool_call(1, "block", {"until": gate.path}))
        await eventually(blocked)
        for number in range(10, 30):
            nursery.start_soon(call, number)
        await eventually(lambda: len(answers) >= 10)
        gate.open()
    refused = [answer for answer in answers if answer.status == 503]
    assert 10 <= len(refused) <= 17
    for answer in refused:
        assert "max_waiting" in answer.error["message"]
        assert int(answer.headers["retry-after"]) >= 1
    assert all("result" in answer.messages[-1] for answer in answers if answer.status == 200)
    assert memory(muxsim.pid) - before < 48 * MIB
