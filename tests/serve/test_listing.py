"""`GET /sessions`: which sessions, a page at a time."""

from __future__ import annotations

import pytest

from .wire import ask, open_session, rpc, shake_hands

pytestmark = pytest.mark.children


async def listed(url, query):
    answer = await ask(url, "GET", f"/sessions?{query}")
    assert answer.status == 200, answer.body
    return answer.json()


def ids(page):
    return [row["id"] for row in page["sessions"]]


async def test_without_parameters_it_is_all_that_live_in_the_form_that_clients_know(muxsim):
    made = [(await open_session(muxsim.url))["id"] for _ in range(3)]
    answer = (await ask(muxsim.url, "GET", "/sessions")).json()
    assert answer.keys() == {"sessions"}
    assert ids(answer) == made
    assert {"id", "env", "seed", "state", "pid", "age", "attachments", "in_flight", "urls"} <= answer["sessions"][
        0
    ].keys()


async def test_pages_follow_each_other_whatever_ends_in_between(muxsim):
    made = [(await open_session(muxsim.url))["id"] for _ in range(5)]
    first = await listed(muxsim.url, "limit=2")
    assert ids(first) == made[:2]
    await ask(muxsim.url, "DELETE", f"/sessions/{made[1]}")
    await ask(muxsim.url, "DELETE", f"/sessions/{made[2]}")
    second = await listed(muxsim.url, f"limit=2&after={first['next']}")
    assert (ids(second), second["next"]) == (made[3:], None)
    numbers = [row["number"] for row in [*first["sessions"], *second["sessions"]]]
    assert numbers == sorted(set(numbers))


async def test_they_are_looked_for_by_what_is_so(muxsim):
    one = await open_session(muxsim.url, seed=1)
    other = await open_session(muxsim.url, seed=2)
    await shake_hands(muxsim.url, f"/s/{other['id']}/mcp")
    assert ids(await listed(muxsim.url, "seed=1")) == [one["id"]]
    assert ids(await listed(muxsim.url, "state=started")) == [one["id"]]
    assert ids(await listed(muxsim.url, "state=ready&env=naughty")) == [other["id"]]
    assert ids(await listed(muxsim.url, "env=naughty")) == [one["id"], other["id"]]
    assert ids(await listed(muxsim.url, "env=nobody")) == ids(await listed(muxsim.url, "owner=ada")) == []


async def test_those_that_have_ended_are_found_by_how_for_some_minutes(muxsim):
    client = await shake_hands(muxsim.url, "/mcp?env=naughty&seed=77")
    await client.post(rpc(1, "tools/call", {"name": "exit", "arguments": {"status": 3}}))
    deleted = await open_session(muxsim.url, seed=77)
    await ask(muxsim.url, "DELETE", f"/sessions/{deleted['id']}")
    (failed,) = (await listed(muxsim.url, "cause=backend_exited&seed=77"))["sessions"]
    assert (failed["id"], failed["state"], failed["cause"]) == (client.id, "ended", "backend_exited")
    assert "status 3" in failed["why"]
    assert deleted["id"] in ids(await listed(muxsim.url, "state=ended&seed=77"))
    assert client.id not in ids(await listed(muxsim.url, "seed=77"))


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("sede=1", "sede"),
        ("seed=one", "seed"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("after=%D9%A1", "after"),
        ("after=" + "9" * 40, "after"),
        ("state=dead", "ended"),
        ("seed=1&seed=2", "twice"),
    ],
)
async def test_what_cannot_be_looked_for_is_refused(muxsim, query, word):
    answer = await ask(muxsim.url, "GET", f"/sessions?{query}")
    assert answer.status == 400
    assert word in answer.error["message"]
