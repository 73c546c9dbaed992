"""A pool behind a URL, whose muxsim answers as each test says."""

from __future__ import annotations

import anyio
import httpx2
import pytest
import trio

from muxsim.errors import Busy, StartError, UnknownEnvironment
from muxsim.rollouts.remote import RemotePool

LIMIT = 10
URL = "http://muxsim.test"
MADE = {
    "id": "one",
    "seed": 4,
    "urls": {"mcp": f"{URL}/s/one/mcp", "sse": f"{URL}/s/one/sse", "session": f"{URL}/sessions/one"},
}


async def refusal(answer, wire="http"):
    """What opening raises, and the requests that were made."""
    requests = []

    def handle(request):
        requests.append(f"{request.method} {request.url.path}")
        return answer(request)

    async with (
        httpx2.AsyncClient(transport=httpx2.MockTransport(handle)) as http,
        anyio.create_task_group() as tasks,
    ):
        pool = RemotePool(URL, http, tasks, wire, ("lake",))
        with trio.fail_after(LIMIT), pytest.raises((Busy, StartError, UnknownEnvironment)) as caught:
            await pool.open("lake", 4)
        tasks.cancel_scope.cancel()
    return caught.value, requests


def says(status, message, **headers):
    return lambda request: httpx2.Response(status, json={"error": {"message": message}}, headers=headers)


async def test_a_full_muxsim_says_when_to_come_again():
    fault, _ = await refusal(says(503, "all sessions are taken", **{"retry-after": "7"}))
    assert (type(fault), str(fault), fault.retry_after) == (Busy, "all sessions are taken", 7.0)


async def test_an_environment_that_is_not_served_is_named():
    fault, _ = await refusal(says(404, "no environment is called lake"))
    assert (type(fault), str(fault)) == (UnknownEnvironment, "no environment is called lake")


async def test_a_start_that_failed_there_has_its_reason():
    fault, _ = await refusal(says(502, "server.py does not exist"))
    assert (type(fault), str(fault)) == (StartError, "server.py does not exist")


async def test_a_muxsim_that_cannot_be_reached_is_a_failed_start():
    def nobody(request):
        raise httpx2.ConnectError("refused")

    fault, _ = await refusal(nobody)
    assert str(fault) == f"{URL} cannot be reached: refused"


@pytest.mark.parametrize("wire", ["http", "sse"])
async def test_a_session_that_cannot_be_spoken_to_is_not_left_behind(wire):
    def answer(request):
        if request.url.path == "/sessions":
            return httpx2.Response(201, json=MADE)
        return httpx2.Response(204 if request.method == "DELETE" else 404)

    fault, requests = await refusal(answer, wire)
    assert isinstance(fault, StartError)
    assert requests[-1] == "DELETE /sessions/one"
    assert requests.count("DELETE /sessions/one") == 1
