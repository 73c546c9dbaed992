"""Sessions by request: made, seen, listed and deleted, and refused when there are too many. Rows: table of faults."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from harness import alive, serving

from .conftest import environment
from .machine import GRACE, eventually, gone, log_lines, logged
from .wire import ask, connect, initialize, live_sessions, open_session, rpc, shake_hands, text_of

pytestmark = pytest.mark.children

JSON = [("Content-Type", "application/json")]


async def test_a_new_session_is_described_with_its_own_urls(muxsim):
    answer = await ask(muxsim.url, "POST", "/sessions", body={"env": "naughty", "seed": 7})
    session = answer.json()
    assert answer.status == 201
    assert answer.headers["location"] == f"/sessions/{session['id']}"
    assert (session["env"], session["seed"], session["state"]) == ("naughty", 7, "started")
    assert alive(session["pid"])
    urls = session["urls"]
    assert urls["mcp"] == f"{muxsim.url}/s/{session['id']}/mcp"
    assert urls["sse"] == f"{muxsim.url}/s/{session['id']}/sse"
    assert urls["handle"] == f"{muxsim.url}/s/{session['id']}/mcp?env=naughty&seed=7"
    assert (session["lease"], session["lease_left"]) == (None, None)
    client = await shake_hands(muxsim.url, f"/s/{session['id']}/mcp")
    assert (await client.value("who"))["pid"] == session["pid"]
    seen = (await ask(muxsim.url, "GET", f"/sessions/{session['id']}")).json()
    assert (seen["state"], seen["attachments"], seen["in_flight"]) == ("ready", 1, 0)


async def test_what_is_left_of_a_lease_is_told_and_a_handle_is_the_session_it_is_told_of(muxsim):
    made = (await ask(muxsim.url, "POST", "/sessions", body={"env": "naughty", "seed": 7, "lease": 600})).json()
    seen = (await ask(muxsim.url, "GET", f"/sessions/{made['id']}")).json()
    assert seen["lease"] == 600
    assert 0 < seen["lease_left"] <= 600
    client = await shake_hands(muxsim.url, made["urls"]["handle"].removeprefix(muxsim.url))
    assert (await client.value("who"))["pid"] == made["pid"]


async def test_sessions_are_listed_oldest_first(muxsim):
    made = [(await open_session(muxsim.url))["id"] for _ in range(3)]
    assert [session["id"] for session in await live_sessions(muxsim)] == made


async def test_a_session_ends_with_its_url_and_not_with_one_of_its_clients(muxsim):
    session = await open_session(muxsim.url)
    path = f"/s/{session['id']}/mcp"
    one, other = await shake_hands(muxsim.url, path), await shake_hands(muxsim.url, path)
    assert (await one.delete()).status == 204
    assert (await one.post(rpc(1, "ping"))).status == 404
    assert await other.text("say", text="still here") == "still here"
    assert (await ask(muxsim.url, "DELETE", f"/sessions/{session['id']}")).status == 204
    assert (await other.post(rpc(1, "ping"))).status == 404
    await gone(session["pid"])


BAD_WISHES = [
    (b"{", 400, "truncated"),
    (b"[]", 400, "object"),
    (b"null", 400, "object"),
    (b'{"env":"naughty","sede":1}', 400, "sede"),
    (b'{"env":1}', 400, "env"),
    (b'{"env":"nobody"}', 404, "nobody"),
    (b'{"env":"../naughty"}', 404, "../naughty"),
    (b'{"env":"--help"}', 404, "--help"),
    (b'{"env":"naughty; touch /tmp/x"}', 404, "naughty"),
    (b'{"env":"naughty","seed":-1}', 400, "seed"),
    (b'{"env":"naughty","seed":2147483648}', 400, "seed"),
    (b'{"env":"naughty","seed":"7"}', 400, "seed"),
    (b'{"env":"naughty","seed":1.5}', 400, "seed"),
    (b'{"env":"naughty","seed":true}', 400, "seed"),
    (b'{"env":"naughty","ttl":0}', 400, "ttl"),
    (b'{"env":"naughty","ttl":-1}', 400, "ttl"),
    (b'{"env":"naughty","ttl":"never"}', 400, "ttl"),
    (b'{"env":"naughty","ttl":1e999}', 400, "ttl"),
    (b'{"env":"naughty","ttl":NaN}', 400, "body"),
    (b'{"env":"naughty","id":""}', 400, "id"),
    (b'{"env":"naughty","id":"../x"}', 400, "id"),
    (b'{"env":"naughty","id":"a b"}', 400, "id"),
    (b'{"env":"naughty","id":"%s"}' % (b"x" * 65), 400, "id"),
    (b'{"env":"naughty","id":"\xff"}', 400, "body"),
    (b'{"env":"%s"}' % (b"x" * 70000), 413, "body"),
]


@pytest.mark.fault("L26")
@pytest.mark.parametrize(("body", "status", "word"), BAD_WISHES)
async def test_a_wish_that_cannot_be_granted_is_refused_before_anything_starts(muxsim, body, status, word):
    """L26."""
    openings = len(log_lines(muxsim, event="session.opening"))
    answer = await ask(muxsim.url, "POST", "/sessions", JSON, body)
    assert answer.status == status
    assert word in answer.error["message"]
    assert len(log_lines(muxsim, event="session.opening")) == openings


async def test_a_wish_in_another_content_type_is_refused(muxsim):
    """A form of another site cannot say that it is JSON."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        answer = await ask(muxsim.url, "POST", "/sessions", [("Content-Type", kind)], b'{"env":"naughty"}')
        assert answer.status == 415


async def test_without_a_name_the_default_environment_is_meant(muxsim):
    answer = await ask(muxsim.url, "POST", "/sessions", JSON, b"")
    assert (answer.status, answer.json()["env"]) == (201, "naughty")


async def test_a_seed_reaches_the_backend_whatever_it_is(muxsim):
    """Seed 0 is a seed."""
    for seed in (0, 1, 2**31 - 1):
        session = await open_session(muxsim.url, seed=seed)
        assert session["seed"] == seed
        who = await (await shake_hands(muxsim.url, f"/s/{session['id']}/mcp")).value("who")
        assert who["argv"] == ["--seed", str(seed)]
        assert who["env"]["MUXSIM_SEED"] == str(seed)
    client = await shake_hands(muxsim.url, "/mcp?env=naughty&seed=0")
    assert (await client.value("who"))["argv"] == ["--seed", "0"]


async def test_without_a_seed_each_session_draws_one_and_says_which(muxsim):
    sessions = [await open_session(muxsim.url) for _ in range(3)]
    assert len({session["seed"] for session in sessions}) == 3
    for session in sessions:
        who = await (await shake_hands(muxsim.url, f"/s/{session['id']}/mcp")).value("who")
        assert who["argv"] == ["--seed", str(session["seed"])]


@pytest.mark.fault("L26")
@pytest.mark.parametrize("seed", ["-1", "2147483648", "1.5", "one", "1;2", "0x10", "%D9%A1", "--1"])
async def test_a_seed_in_a_url_that_is_none_is_refused_before_anything_starts(muxsim, seed):
    """L26: the last but one is a digit, but of another script."""
    openings = len(log_lines(muxsim, event="session.opening"))
    answer = await ask(muxsim.url, "POST", f"/mcp?env=naughty&seed={seed}", body=initialize(5))
    assert answer.status == 400
    assert answer.json()["id"] == 5
    assert "seed" in answer.error["message"]
    assert len(log_lines(muxsim, event="session.opening")) == openings


async def test_an_id_can_be_chosen_and_is_free_again_after_its_session(muxsim):
    assert (await open_session(muxsim.url, id="My.own_id-1"))["id"] == "My.own_id-1"
    answer = await ask(muxsim.url, "POST", "/sessions", body={"env": "naughty", "id": "My.own_id-1"})
    assert answer.status == 409
    assert "My.own_id-1" in answer.error["message"]
    assert (await ask(muxsim.url, "DELETE", "/sessions/My.own_id-1")).status == 204
    assert (await open_session(muxsim.url, id="My.own_id-1"))["id"] == "My.own_id-1"


async def test_of_many_who_choose_one_id_at_once_one_gets_it(muxsim):
    """Also while its session is only starting."""
    statuses = []

    async def wish():
        statuses.append((await ask(muxsim.url, "POST", "/sessions", body={"env": "naughty", "id": "same"})).status)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(wish)
    assert sorted(statuses) == [201] + [409] * 9


@pytest.mark.fault("L15")
async def test_drawn_ids_have_128_random_bits(muxsim):
    """L15."""
    ids = [(await open_session(muxsim.url))["id"] for _ in range(5)]
    assert len(set(ids)) == 5
    assert all(len(bytes.fromhex(id)) == 16 for id in ids)


@pytest.mark.fault("H3")
@pytest.mark.parametrize(
    ("env", "word"),
    [("missing", "there is no such file"), ("not_executable", "chmod"), ("nowhere", "cwd must be a folder")],
)
async def test_a_command_that_cannot_be_run_is_an_error_that_says_why(muxsim, env, word):
    """H3: of a request as of a handshake, and of the SSE pair."""
    answer = await ask(muxsim.url, "POST", "/sessions", body={"env": env})
    assert answer.status == 502
    assert env in answer.error["message"]
    assert word in answer.error["message"]
    answer = await ask(muxsim.url, "POST", f"/mcp?env={env}", body=initialize(5))
    assert (answer.status, answer.json()["id"]) == (200, 5)
    assert word in answer.error["message"]
    assert (await ask(muxsim.url, "GET", f"/sse?env={env}")).status == 502
    assert await live_sessions(muxsim) == []


@pytest.mark.fault("L17")
async def test_of_many_deletions_at_once_one_counts(muxsim, client):
    """L17."""
    pid = (await client.value("who"))["pid"]
    statuses = []

    async def delete():
        statuses.append((await ask(muxsim.url, "DELETE", f"/sessions/{client.id}")).status)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(delete)
    assert sorted(statuses) == [204] + [404] * 19
    assert not alive(pid)
    assert len(log_lines(muxsim, event="session.ended", session=client.id)) == 1


@pytest.mark.fault("L18")
async def test_deleting_a_session_answers_its_calls_with_an_error(muxsim, client):
    """L18."""
    answers = []

    async def call():
        answers.append(await client.call("hang"))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(call)

        async def in_flight():
            return (await client.session())["in_flight"] == 3

        await eventually(in_flight)
        assert (await ask(muxsim.url, "DELETE", f"/sessions/{client.id}")).status == 204
    assert [answer["error"]["data"]["cause"] for answer in answers] == ["deleted"] * 3


@pytest.mark.fault("L18")
async def test_deleting_a_session_answers_its_handshake_with_an_error(muxsim):
    """L18, at every moment of a start that takes some."""
    for delay in range(10):
        session = await open_session(muxsim.url)
        answers = []

        async def handshake(path=f"/s/{session['id']}/mcp", answers=answers):
            answers.append(await ask(muxsim.url, "POST", path, body=initialize(5)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(handshake)
            await trio.sleep(delay / 300)
            assert (await ask(muxsim.url, "DELETE", f"/sessions/{session['id']}")).status == 204
        (answer,) = answers
        assert answer.status in (200, 404)
        await gone(session["pid"])


async def test_all_clients_of_a_shared_environment_meet_in_one_session(muxsim):
    one, other = await shake_hands(muxsim.url, "/envs/common/mcp"), await shake_hands(muxsim.url, "/mcp?env=common")
    assert one.id != other.id
    assert (await one.value("who"))["pid"] == (await other.value("who"))["pid"]
    assert (await one.delete()).status == 204
    assert await other.text("say", text="still here") == "still here"
    session = await open_session(muxsim.url, env="common")
    assert session["pid"] == (await other.value("who"))["pid"]


async def test_a_shared_session_that_died_is_started_anew_for_the_next_client(muxsim):
    one = await shake_hands(muxsim.url, "/envs/common/mcp")
    assert "error" in await one.call("exit")
    other = await shake_hands(muxsim.url, "/envs/common/mcp")
    assert await other.text("say", text="here") == "here"


async def test_environments_health_and_the_start_page_are_told(muxsim, client):
    environments = (await ask(muxsim.url, "GET", "/envs")).json()
    by_name = {one["name"]: one for one in environments["environments"]}
    assert environments["default"] == "naughty"
    told = {"name": "naughty", "shared": False, "mcp": f"{muxsim.url}/envs/naughty/mcp"}
    assert told.items() <= by_name["naughty"].items()
    assert by_name["common"]["shared"] is True
    health = (await ask(muxsim.url, "GET", "/health")).json()
    assert (health["status"], health["sessions"], health["processes"]) == ("ok", 1, 1)
    assert (await ask(muxsim.url, "GET", "/ready")).json() == {"ready": True}
    assert "naughty" in (await ask(muxsim.url, "GET", "/")).json()["environments"]


# ---- when there are too many


@asynccontextmanager
async def small_muxsim(folder, *, queue_timeout=600.0):
    """One with room for two sessions, and a queue for two more."""
    server = f"[server]\nmax_sessions = 2\nmax_pending = 2\nqueue_timeout = {queue_timeout}\n"
    async with serving(folder, server + environment("naughty")) as muxsim:
        yield muxsim


async def waiting(muxsim, number):
    async def are_waiting():
        return (await ask(muxsim.url, "GET", "/health")).json()["waiting"] == number

    await eventually(are_waiting)


@pytest.mark.fault("L22")
async def test_who_finds_the_queue_full_is_sent_away_at_once(tmp_path):
    """L22: by request, handshake and SSE alike, and those who run or wait are not disturbed."""
    async with small_muxsim(tmp_path) as muxsim, trio.open_nursery() as nursery:
        one, other = await shake_hands(muxsim.url, "/mcp"), await shake_hands(muxsim.url, "/mcp")
        queued = []

        async def queue():
            queued.append(await shake_hands(muxsim.url, "/mcp"))

        nursery.start_soon(queue)
        nursery.start_soon(queue)
        await waiting(muxsim, 2)
        refusals = [
            await ask(muxsim.url, "POST", "/sessions", JSON, b""),
            await ask(muxsim.url, "POST", "/mcp", body=initialize(5)),
            await ask(muxsim.url, "GET", "/sse"),
        ]
        for refusal in refusals:
            assert refusal.status == 503
            assert int(refusal.headers["retry-after"]) >= 1
            assert "max_sessions" in refusal.error["message"]
        assert await one.text("say", text="running") == "running"
        assert queued == []
        await one.delete()
        await other.delete()
        await eventually(lambda: len(queued) == 2)
        assert [await client.text("say", text="mine") for client in queued] == ["mine", "mine"]


@pytest.mark.fault("L22")
async def test_who_waits_too_long_is_sent_away_and_the_place_goes_to_the_next(tmp_path):
    """L22."""
    async with small_muxsim(tmp_path, queue_timeout=0.4) as muxsim:
        one, _ = await shake_hands(muxsim.url, "/mcp"), await shake_hands(muxsim.url, "/mcp")
        refusal = await ask(muxsim.url, "POST", "/sessions", JSON, b"")
        assert refusal.status == 503
        assert "queue_timeout" in refusal.error["message"]
        assert "retry-after" in refusal.headers
        await one.delete()
        assert (await ask(muxsim.url, "POST", "/sessions", JSON, b"")).status == 201


@pytest.mark.fault("L22")
async def test_who_leaves_the_queue_frees_a_place_in_it(tmp_path):
    """L22: and gets no session that nobody would know of."""
    async with small_muxsim(tmp_path) as muxsim:
        one, _ = await shake_hands(muxsim.url, "/mcp"), await shake_hands(muxsim.url, "/mcp")
        async with connect(muxsim.url) as first, connect(muxsim.url) as second, connect(muxsim.url) as third:
            await first.send("POST", "/mcp", JSON, json.dumps(initialize()).encode())
            await second.send("POST", "/sessions", JSON, b"{}")
            await waiting(muxsim, 2)
            first.drop()
            second.drop()
            await waiting(muxsim, 0)
            await third.send("GET", "/sse")
            await waiting(muxsim, 1)
            third.drop()
            await waiting(muxsim, 0)
        await one.delete()
        assert len(await live_sessions(muxsim)) == 1
        client = await shake_hands(muxsim.url, "/mcp")
        assert await client.text("say", text="here") == "here"


@pytest.mark.fault("L22")
async def test_a_burst_past_the_limit_runs_as_many_as_there_is_room_for(tmp_path):
    """L22: forty at once, each deleted when it has played; never more processes than there is room for."""
    server = "[server]\nmax_sessions = 4\nmax_pending = 64\nqueue_timeout = 600\n"
    async with serving(tmp_path, server + environment("naughty")) as muxsim:
        played, processes = [], []

        async def play(number):
            client = await shake_hands(muxsim.url, "/mcp")
            played.append(int(await client.text("say", text=str(number))))
            await client.delete()

        async def all_have_played():
            processes.append((await ask(muxsim.url, "GET", "/health")).json()["processes"])
            return len(played) == 40

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(play, number)
            await eventually(all_have_played, within=60)
        assert sorted(played) == list(range(40))
        assert 1 < max(processes) <= 4


async def test_a_session_that_takes_long_to_end_delays_nobody_elses_start(tmp_path):
    config = environment("stubborn", "--stubborn") + environment("naughty")
    async with serving(tmp_path, config) as muxsim:
        stubborn = await shake_hands(muxsim.url, "/mcp?env=stubborn")
        assert (await stubborn.delete()).status == 204
        with trio.fail_after(GRACE):
            client = await shake_hands(muxsim.url, "/mcp?env=naughty")
        assert text_of(await client.call("say", text="here")) == "here"
        assert log_lines(muxsim, event="session.ended", session=stubborn.id) == []
        await logged(muxsim, event="session.ended", session=stubborn.id)


async def test_nothing_is_left_of_a_session_when_its_deletion_is_answered(muxsim):
    for _ in range(5):
        session = await open_session(muxsim.url)
        client = await shake_hands(muxsim.url, f"/s/{session['id']}/mcp")
        workspace = Path(await client.text("scribble"))
        for number in range(200):  # there is something to be removed
            (workspace / str(number)).mkdir()
        assert (await ask(muxsim.url, "DELETE", f"/sessions/{session['id']}")).status == 204
        assert not workspace.exists()  # noqa: ASYNC240 - that it is so at once is the point
