"""The feed of one session: what its clients and its backend say, and what an agent is not told of that."""

from __future__ import annotations

import json
import sys

import pytest
from harness import SERVERS, muxsim_serve

from .test_auth import ADA, BOB, ENVIRON, HELPER, ROOT, bearer, with_tokens
from .test_wall import CONFIG as WALLED
from .test_wall import no_secret
from .test_watch import STREAM, watching
from .wire import ask, open_session, shake_hands

pytestmark = pytest.mark.children

PICTURES = SERVERS / "pictures.py"
CONFIG = f"""
{WALLED}
[environments.pictures]
command = "{sys.executable}"
args = ["-I", "-S", "{PICTURES}"]
[environments.common]
command = "{sys.executable}"
args = ["-I", "-S", "{PICTURES}"]
shared = true
[environments.telling]
command = "{sys.executable}"
args = ["-I", "-S", "{SERVERS / "scored.py"}"]
control = true
"""
FEED = "/watch/sessions/{}"
EVE = "e" * 40
WITH_EVE = {variable: f"{tokens}\neve monitor {EVE}" for variable, tokens in ENVIRON.items()}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with muxsim_serve(with_tokens(tmp_path_factory.mktemp("watched")), CONFIG, env=WITH_EVE) as running:
        yield running


@pytest.fixture
def url(guarded):
    return guarded.url


async def played(url, env, token=ADA):
    """A session of an environment, and a client of it."""
    session = await open_session(url, [bearer(ADA)], env=env)
    return session["id"], await shake_hands(url, f"/s/{session['id']}/mcp", headers=[bearer(token)])


def message(kind, method, source="server"):
    """A filter for messages of the feed."""

    def find(type, data):
        fits = type == "message" and (data["kind"], data["method"], data["from"]) == (kind, method, source)
        return data if fits else None

    return find


async def test_a_call_and_its_result_come_with_what_they_hold_and_how_long_it_took(muxsim):
    client = await shake_hands(muxsim.url)
    (session,) = (await ask(muxsim.url, "GET", "/sessions")).json()["sessions"]
    async with watching(muxsim.url, FEED.format(session["id"])) as feed:
        fact = await feed.event("session")
        assert (fact["env"], fact["state"], fact["controls"]) == ("naughty", "ready", True)
        assert fact["urls"] == session["urls"]
        assert [one["transport"] for one in fact["attachments"]] == ["streamable-http"]
        assert await client.text("say", text="<b>hello</b>") == "<b>hello</b>"
        asked = await feed.until(message("request", "tools/call", "client"))
        assert json.loads(asked["body"])["arguments"] == {"text": "<b>hello</b>"}
        answer = await feed.until(message("result", "tools/call"))
        assert (answer["id"], answer["attachment"]) == (asked["id"], asked["attachment"])
        assert answer["seconds"] > 0
        assert json.loads(answer["body"])["content"][0]["text"] == "<b>hello</b>"
        processes = await feed.event("processes")
        assert session["pid"] in [process["pid"] for process in processes["processes"]]
        await ask(muxsim.url, "DELETE", f"/sessions/{session['id']}")
        ended = await feed.event("ended")
        assert (ended["cause"], ended["failed"]) == ("deleted", False)
        fact = [data for type, data in feed.told if type == "session"][-1]
        assert (fact["state"], fact["pid"], fact["attachments"], fact["in_flight"]) == ("ended", None, [], 0)


async def test_progress_log_and_stderr_come_as_they_are_written(muxsim):
    client = await shake_hands(muxsim.url)
    (session,) = (await ask(muxsim.url, "GET", "/sessions")).json()["sessions"]
    async with watching(muxsim.url, FEED.format(session["id"])) as feed:
        await feed.event("session")
        await client.call("log")
        await feed.until(message("notification", "notifications/message"))
        await client.call("stderr_flood", lines=3)
        await feed.event("stderr")


async def test_a_long_body_is_cut_and_says_how_much_of_it_is_missing(muxsim):
    client = await shake_hands(muxsim.url)
    (session,) = (await ask(muxsim.url, "GET", "/sessions")).json()["sessions"]
    async with watching(muxsim.url, FEED.format(session["id"])) as feed:
        await feed.event("session")
        await client.call("say", text="x" * 100_000)
        answer = await feed.until(message("result", "tools/call"))
        assert len(answer["body"]) + answer["cut"] > 100_000
        assert len(answer["body"]) < 20_000


async def test_an_image_comes_as_it_is_and_can_be_asked_for_and_nothing_else_is_sent_as_one(url):
    id, client = await played(url, "pictures")
    async with watching(url, FEED.format(id), ADA) as feed:
        await feed.event("session")
        await client.call("draw", mime="image/png")
        frame = await feed.event("frame")
        answer = await feed.until(message("result", "tools/call"))
        assert answer["images"] == [frame["image"]]
        assert json.loads(answer["body"])["content"][0]["data"] == ""
        image = await ask(url, "GET", f"/watch/sessions/{id}/images/1", [bearer(ADA)])
        assert (image.headers["content-type"], image.body[:4]) == ("image/png", b"\x89PNG")
        await client.call("draw", mime="image/svg+xml")
        await feed.until(lambda type, data: type == "frame" and data["image"]["number"] == 2)
        image = await ask(url, "GET", f"/watch/sessions/{id}/images/2", [bearer(ADA)])
        assert image.headers["content-type"] == "application/octet-stream"
        assert "sandbox" in image.headers["content-security-policy"]
        for wrong in ("3", "-1", "x", "9" * 40):
            assert (await ask(url, "GET", f"/watch/sessions/{id}/images/{wrong}", [bearer(ADA)])).status == 404


async def test_what_a_step_has_earned_comes_beside_the_conversation_and_not_in_it(url):
    id, client = await played(url, "telling")
    async with watching(url, FEED.format(id), ADA) as feed:
        await feed.event("session")
        await client.call("step")
        first = await feed.event("control")
        assert (first["reward"], first["total"], first["terminated"], first["truncated"]) == (1, 1, False, False)
        await client.call("step")
        second = await feed.until(lambda type, data: type == "control" and data["total"] == 3 and data)
        answer = [data for type, data in feed.told if type == "message" and data["kind"] == "result"][-1]
        assert second["n"] == answer["n"]
        told = [data for type, data in feed.told if type == "message"]
        assert not [data for data in told if "control" in data["body"] or data["method"] == "resources/read"]
        await client.request("resources/read", {"uri": "control://reward"})
        await feed.until(lambda type, data: type == "control" and data["n"] is None and data)


async def test_what_many_say_in_a_shared_session_only_the_admin_sees(url):
    await shake_hands(url, "/envs/common/mcp", headers=[bearer(ADA)])
    listed = (await ask(url, "GET", "/sessions", [bearer(ROOT)])).json()["sessions"]
    (id,) = [one["id"] for one in listed if one["env"] == "common"]
    for token in (ADA, BOB, HELPER):
        for path in (FEED.format(id), f"{FEED.format(id)}/images/1"):
            assert (await ask(url, "GET", path, [STREAM, bearer(token)])).status == 403
    async with watching(url, FEED.format(id), ROOT) as feed:
        assert (await feed.event("session"))["env"] == "common"


@pytest.mark.parametrize("env", ["folding", "first", "telling"])
async def test_an_agent_is_told_nothing_of_control_plane_stderr_and_processes_in_any_feed(url, env):
    id, trainer = await played(url, env)
    agent = await shake_hands(url, f"/s/{id}/agent/mcp", headers=[bearer(HELPER)])
    async with watching(url, FEED.format(id), HELPER) as feed, watching(url, FEED.format(id), ADA) as whole:
        fact = await feed.event("session")
        await whole.event("session")
        assert (fact["controls"], fact["seed"], fact["pid"], list(fact["urls"])) == (False, None, None, ["agent_mcp"])
        for uri in ("control://reward", "con\ttrol://status", "CONTROL://info"):
            await trainer.request("resources/read", {"uri": uri})
            if env != "telling":  # which would die of it
                await trainer.request("resources/read", {"URI": uri})
        await trainer.request("tools/call", {"name": "step", "arguments": {}, "_meta": {"muxsim/control": True}})
        await trainer.request("resources/list")
        await trainer.request("resources/templates/list")
        await agent.request("tools/list")
        await whole.event("processes")
        await ask(url, "DELETE", f"/sessions/{id}", [bearer(ADA)])
        await feed.event("ended")
        assert {type for type, _ in feed.told} == {"session", "message", "ended"}
        said = json.dumps(feed.told).encode()
        no_secret(said)
        assert b"reward" not in said


async def test_a_session_is_shown_to_whom_it_is_there_for_and_the_whole_server_to_no_agent(url):
    id, _ = await played(url, "telling")
    path = FEED.format(id)
    assert (await ask(url, "GET", path, [STREAM, bearer(BOB)])).status == 404
    assert (await ask(url, "GET", path, [STREAM])).status == 401
    assert (await ask(url, "GET", "/watch", [STREAM, bearer(HELPER)])).status == 403
    async with watching(url, "/watch", BOB) as feed, watching(url, "/watch", ROOT) as whole:
        snapshot = await feed.event("snapshot")
        assert [row for row in snapshot["sessions"] if row["owner"] is not None] == []
        assert (await whole.row(id))["owner"] == "ada"


async def test_a_monitor_sees_all_sessions_and_nothing_that_is_said_in_one(url):
    id, _ = await played(url, "telling")
    assert (await ask(url, "GET", FEED.format(id), [STREAM, bearer(EVE)])).status == 403
    async with watching(url, "/watch", EVE) as feed:
        hello = await feed.event("hello")
        assert (hello["scope"], hello["controls"], hello["opens"], hello["ends_all"]) == (
            "monitor",
            False,
            False,
            False,
        )
        snapshot = await feed.event("snapshot")
        assert "ada" in [row["owner"] for row in snapshot["sessions"]]
        assert id not in [row["id"] for row in snapshot["sessions"]]


async def test_the_last_calls_of_each_session_are_kept_where_that_is_wanted_also_when_it_is_over(tmp_path):
    config = f'[server]\nhistory = 2\n[environments.telling]\ncommand = "{sys.executable}"\n'
    with muxsim_serve(tmp_path, config + f'args = ["-I", "-S", "{SERVERS / "scored.py"}"]\n') as running:
        session = await open_session(running.url, env="telling", id="kept")
        client = await shake_hands(running.url, "/s/kept/mcp")
        for _ in range(5):
            await client.call("step")
        await ask(running.url, "DELETE", f"/sessions/{session['id']}")
        async with watching(running.url, FEED.format("kept")) as feed:
            ended = await feed.event("ended")
            assert ended["cause"] == "deleted"
            asked = [data for type, data in feed.told if type == "message" and data["kind"] == "request"]
            assert [data["method"] for data in asked] == ["tools/call", "tools/call"]
