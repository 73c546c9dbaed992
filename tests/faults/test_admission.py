"""Who gets a session when there are too many, too fast, too broken or too few descriptors, from a real muxsim."""

from __future__ import annotations

import json
import os
import resource
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio
from harness import SERVERS, given_time, serving
from serve.conftest import environment
from serve.machine import descriptors, eventually, logged
from serve.wire import BOTH, Connection, ask, connect, initialize, shake_hands

from muxsim import inside
from muxsim.admission.admission import Capacity
from muxsim.admission.pool import open_pool
from muxsim.errors import Busy
from muxsim.observe.counters import Counters
from muxsim.observe.events import Events
from muxsim.session.registry import open_sessions
from muxsim.spec import EnvSpec

pytestmark = pytest.mark.children

LIMIT = 600
NAUGHTY = SERVERS / "naughty.py"


def settings(**values):
    lines = [f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}" for name, value in values.items()]
    return "\n".join(["[server]", *lines, "", ""])


def breaking(name, log, *, works_if):
    """An environment that exits at once without a file ``works_if``; in ``log``, "+" is a start and "-" an end."""
    script = (
        "import os, sys\n"
        f"note = os.open({str(log)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "os.write(note, b'+')\n"
        f"if not os.path.exists({str(works_if)!r}): os.write(note, b'-'); sys.exit('broken')\n"
        f"os.execv(sys.executable, [sys.executable, '-I', '-S', {str(NAUGHTY)!r}])\n"
    )
    file = log.with_suffix(".py")
    file.write_text(script)
    return f'[environments.{name}]\ncommand = "{sys.executable}"\nargs = ["-I", "-S", "{file}"]\n'


@asynccontextmanager
async def muxsim_with(folder, config):
    with trio.fail_after(LIMIT):
        async with serving(folder, config) as muxsim:
            yield muxsim


async def open_many(url, count, env="naughty"):
    """So many opens at once; their answers."""
    answers = []

    async def open_one():
        answers.append(await ask(url, "POST", f"/mcp?env={env}", body=initialize()))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(open_one)
    return answers


def opened(answers):
    return [answer for answer in answers if answer.status == 200 and "result" in answer.messages[0]]


def refused(answers, status, setting):
    """The answers that are such a refusal, each with a time to come back after."""
    found = [answer for answer in answers if answer.status == status]
    for answer in found:
        assert setting in answer.error["message"]
        assert int(answer.headers["retry-after"]) >= 1
    return found


async def statistics(url):
    return (await ask(url, "GET", "/health")).json()


@pytest.mark.fault("C4")
@pytest.mark.parametrize("at_once", [True, False])
async def test_an_environment_that_exits_at_its_start_is_tried_so_often(tmp_path, at_once):
    """C4: 20 opens start no more than the limit; others are not concerned."""
    log = tmp_path / "starts"
    broken = breaking("broken", log, works_if=tmp_path / "never")
    broken += "max_failed_starts = 3\nfailed_start_window = 3600.0\n"
    async with muxsim_with(tmp_path, broken + environment("naughty")) as muxsim:
        if at_once:
            answers = await open_many(muxsim.url, 20, "broken")
        else:
            answers = [(await open_many(muxsim.url, 1, "broken"))[0] for _ in range(20)]
        assert log.read_text().count("+") == 3
        assert len(refused(answers, 503, "max_failed_starts")) == 17
        assert len(opened(await open_many(muxsim.url, 1))) == 1


@pytest.mark.fault("C4")
async def test_after_the_window_an_environment_that_has_failed_is_tried_by_one_start_which_decides(tmp_path):
    """C4: muxsim's clock, which a busy machine makes slower than others, says when the window is over."""
    log, repaired = tmp_path / "starts", tmp_path / "repaired"
    broken = breaking("broken", log, works_if=repaired) + "max_failed_starts = 1\nfailed_start_window = 0.3\n"
    async with muxsim_with(tmp_path, broken) as muxsim:

        async def try_it():
            before = log.read_text().count("+") if log.exists() else 0
            answers = await open_many(muxsim.url, 10, "broken")
            found = opened(answers)
            starts = log.read_text().count("+") - before
            assert found or len(refused(answers, 503, "max_failed_starts")) == 10 - starts
            return found

        async def tried_again():
            assert not await try_it()
            return log.read_text().count("+") >= 4

        await eventually(tried_again)
        assert log.read_text() == "+-" * log.read_text().count("+"), "one after the other"
        repaired.touch()
        await eventually(try_it)
        assert len(opened(await open_many(muxsim.url, 5, "broken"))) == 5


@pytest.mark.fault("L22")
async def test_of_sixty_opens_ten_run_some_wait_their_time_and_the_others_are_refused_at_once(tmp_path):
    """L22: and those that run are not harmed."""
    await given_time(partial(sixty_opens, tmp_path), 1.0, 8.0, 60.0)


async def sixty_opens(tmp_path, seconds):
    """All of them have to come before the first of those that wait is sent away."""
    folder = tmp_path / f"{seconds}"
    folder.mkdir()
    config = settings(max_sessions=10, max_starting=10, max_pending=20, queue_timeout=seconds) + environment("naughty")
    async with muxsim_with(folder, config) as muxsim:
        first = await shake_hands(muxsim.url)
        answers = await open_many(muxsim.url, 59)
        assert len(opened(answers)) == 9
        late = [answer for answer in answers if answer.status == 503 and "queue_timeout" in answer.error["message"]]
        assert len(refused(late, 503, "server.max_sessions")) == 20
        assert len(refused([one for one in answers if one not in late], 503, "server.max_pending")) == 30
        assert await first.text("say", text="unharmed") == "unharmed"


@pytest.mark.fault("L23")
async def test_a_flood_of_opens_from_one_address_starts_no_more_than_its_share_and_others_are_served(tmp_path):
    """L23."""
    config = settings(max_sessions_per_client=8, opens_per_second=5.0, opens_burst=40) + environment("naughty")
    async with muxsim_with(tmp_path, config) as muxsim:
        answers = await open_many(muxsim.url, 500)
        assert len(opened(answers)) == 8
        assert refused(answers, 429, "server.")
        assert len([answer for answer in answers if answer.status == 429]) == 492
        assert (await statistics(muxsim.url))["processes"] <= 8
        async with from_address("127.0.0.2", muxsim.url) as other:
            headers = [("Content-Type", "application/json"), ("Accept", BOTH)]
            answer = await other.ask("POST", "/mcp?env=naughty", headers, json.dumps(initialize()).encode())
            assert answer.status == 200


@asynccontextmanager
async def from_address(address, url):
    """A connection that comes from another address of this machine."""
    server = urlsplit(url)
    sock = trio.socket.socket()
    await sock.bind((address, 0))
    await sock.connect((server.hostname, server.port))
    with sock:
        yield Connection(trio.SocketStream(sock), server.netloc)


@pytest.mark.fault("H12")
async def test_past_the_memory_limit_opens_are_refused_and_counted(tmp_path):
    """H12: no muxsim has as little as this one may have."""
    async with muxsim_with(tmp_path, settings(memory_limit="1 MiB") + environment("naughty")) as muxsim:
        for _ in range(3):
            (answer,) = refused([await ask(muxsim.url, "POST", "/sessions", body={"env": "naughty"})], 503, "memory")
            assert "server.memory_limit" in answer.error["message"]
        now = await statistics(muxsim.url)
        assert (now["limits"]["memory_limit"], now["sessions"], now["processes"]) == (3, 0, 0)


async def test_a_hundred_sessions_asked_for_at_once_are_all_opened_by_a_muxsim_as_it_is(tmp_path):
    """Those that wait for others to have started have a place, however small the queue for places is."""
    async with muxsim_with(tmp_path, settings(max_pending=0) + environment("naughty")) as muxsim:
        assert len(opened(await open_many(muxsim.url, 100))) == 100


@pytest.mark.fault("H6")
async def test_who_waits_when_muxsim_stops_is_told_and_nothing_is_started_for_them(tmp_path):
    """H6: also when the places of others become free at that moment."""
    log = tmp_path / "starts"
    works = breaking("counted", log, works_if=tmp_path)
    async with muxsim_with(tmp_path, settings(max_sessions=1) + works) as muxsim:
        await shake_hands(muxsim.url, "/mcp?env=counted")
        answers = []

        async def wait():
            answers.append(await ask(muxsim.url, "POST", "/sessions", body={"env": "counted"}))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(wait)
            await eventually(partial(are_waiting, muxsim.url, 5))
            assert await trio.to_thread.run_sync(muxsim.stop) == 0
        assert [answer.status for answer in answers] == [503] * 5
        assert log.read_text() == "+"


async def are_waiting(url, count):
    return (await statistics(url))["waiting"] == count


# Of a muxsim that has few descriptors. It needs some for itself, and keeps an eighth of them for connections.
FEW = 96


@pytest.mark.fault("H1")
async def test_without_descriptors_opens_are_refused_and_work_again_when_some_come_back(tmp_path):
    """H1: pipes and forks. What runs is not harmed, and nothing is half made."""
    # A zygote that comes and goes takes some and gives them back.
    async with muxsim_with(tmp_path, environment("naughty", extra="zygote = false")) as muxsim:
        limit_descriptors(muxsim, FEW)
        clients, refusals = [], []
        # A connection that ends gives back the one that it had: what comes after a refusal may find room again.
        while len(refusals) < 6:
            answer = await ask(muxsim.url, "POST", "/sessions", body={"env": "naughty"})
            if answer.status == 201:
                clients.append(answer.json())
            else:
                refusals.append(answer)
        assert FEW / 3 > len(clients) > 5, "each has three of its own"
        assert refused(refusals, 503, "ulimit -n") == refusals
        assert all("'naughty'" in one.error["message"] for one in refusals)
        assert (await statistics(muxsim.url))["sessions"] == (await statistics(muxsim.url))["processes"] == len(clients)
        first = await shake_hands(muxsim.url, f"/s/{clients[0]['id']}/mcp")
        assert await first.text("say", text="unharmed") == "unharmed"
        for client in clients[:3]:
            assert (await ask(muxsim.url, "DELETE", f"/sessions/{client['id']}")).status == 204
        again = await shake_hands(muxsim.url)
        assert await again.text("say", text="back") == "back"
        await eventually(lambda: len(workspaces()) == len(clients) - 3 + 1)


@pytest.mark.fault("H1")
async def test_connections_that_take_every_descriptor_keep_others_out_only_while_they_are_there(tmp_path):
    """H1: accept."""
    async with muxsim_with(tmp_path, environment("naughty")) as muxsim:
        limit_descriptors(muxsim, FEW)
        client = await shake_hands(muxsim.url)
        async with AsyncExitStack() as stack:
            for _ in range(FEW):
                await stack.enter_async_context(connect(muxsim.url))
            await eventually(lambda: len(descriptors(muxsim.process.pid)) >= FEW - 2, within=60)
            await logged(muxsim, event="muxsim.descriptors_short", level="warning", within=60)
        # The loop closes at once what it has no descriptor for, so a client in that moment is not served.
        await eventually(lambda: len(descriptors(muxsim.process.pid)) < FEW // 2, within=60)
        assert await client.text("say", text="back") == "back"
        assert await (await shake_hands(muxsim.url)).text("say", text="new") == "new"


@pytest.mark.fault("H2")
async def test_without_processes_opens_are_refused_and_work_again_when_there_are_some(tmp_path, monkeypatch):
    """H2: every fork of the guardian fails, until it is another one's turn."""
    monkeypatch.setattr(inside, "GUARDIAN", str(SERVERS / "process" / "faulty_guardian.py"))
    monkeypatch.setenv("GUARDIAN_FAULT", "fork EAGAIN 1")
    capacity = Capacity(max_sessions=4, max_pending=0, queue_timeout=1, max_starting=4)
    spec = EnvSpec(name="game", command="cat")
    with trio.fail_after(LIMIT):
        counters = Counters()
        async with (
            open_pool(capacity, events=(events := Events(counters))) as pool,
            open_sessions(pool, {"game": spec}, events) as sessions,
        ):
            with pytest.raises(Busy, match="ulimit -u") as busy:
                await sessions.open("game")
            assert busy.value.retry_after > 0
            now = pool.statistics()
            assert (now.leases.held, now.placement.processes.alive, counters.total("machine_exhausted")) == (0, 0, 1)
            assert counters.total("breakers_opened") == 0
            assert (await sessions.open("game")).live


def limit_descriptors(muxsim, count):
    _, hard = resource.prlimit(muxsim.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(muxsim.process.pid, resource.RLIMIT_NOFILE, (count, hard))


def workspaces():
    """The folders of sessions that are there."""
    return [path for root in Path(os.environ["TMPDIR"]).glob("muxsim-*") for path in root.iterdir()]
