"""Who gets a session when there are too many, too fast, too broken or too few descriptors, from a real muxsim."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from harness import serving
from serve.conftest import environment
from serve.wire import ask, initialize, shake_hands

pytestmark = pytest.mark.children

LIMIT = 60


def settings(**values):
    lines = [f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}" for name, value in values.items()]
    return "\n".join(["[server]", *lines, "", ""])


def breaking(name, log, *, works_if):
    """An environment that notes each start in ``log`` and exits at once, unless there is a file ``works_if``."""
    script = (
        "import os, sys\n"
        f"os.write(os.open({str(log)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND), b'+')\n"
        f"if not os.path.exists({str(works_if)!r}): sys.exit('broken')\n"
        f"os.execv(sys.executable, [sys.executable, '-I', '-S', {str(NAUGHTY)!r}])\n"
    )
    file = log.with_suffix(".py")
    file.write_text(script)
    return f'[environments.{name}]\ncommand = "{sys.executable}"\nargs = ["-I", "-S", "{file}"]\n'


NAUGHTY = Path(__file__).resolve().parent.parent / "servers" / "naughty.py"


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
async def test_an_environment_that_exits_at_its_start_is_tried_so_often_and_then_once_per_window(tmp_path, at_once):
    """C4: 20 opens start no more than the limit; after the window there is one probe, and it decides."""
    log, repaired = tmp_path / "starts", tmp_path / "repaired"
    broken = breaking("broken", log, works_if=repaired) + "max_failed_starts = 3\nfailed_start_window = 2.0\n"
    async with muxsim_with(tmp_path, broken + environment("naughty")) as muxsim:
        if at_once:
            answers = await open_many(muxsim.url, 20, "broken")
        else:
            answers = [(await open_many(muxsim.url, 1, "broken"))[0] for _ in range(20)]
        assert log.read_text() == "+++"
        assert len(refused(answers, 503, "max_failed_starts")) == 17
        assert len(opened(await open_many(muxsim.url, 1))) == 1
        await trio.sleep(2)
        answers = await open_many(muxsim.url, 10, "broken")
        assert log.read_text() == "++++"
        assert len(refused(answers, 503, "max_failed_starts")) == 9
        repaired.touch()
        await trio.sleep(2)
        assert len(opened(await open_many(muxsim.url, 1, "broken"))) == 1
        assert len(opened(await open_many(muxsim.url, 5, "broken"))) == 5


@pytest.mark.fault("L22")
async def test_of_sixty_opens_ten_run_some_wait_their_time_and_the_others_are_refused_at_once(tmp_path):
    """L22: and those that run are not harmed."""
    config = settings(max_sessions=10, max_pending=20, queue_timeout=1.0) + environment("naughty")
    async with muxsim_with(tmp_path, config) as muxsim:
        first = await shake_hands(muxsim.url)
        answers = await open_many(muxsim.url, 59)
        assert len(opened(answers)) == 9
        assert len(refused(answers, 503, "server.max_pending")) + len(refused(answers, 503, "server.queue_timeout")) == 50
        assert len(refused(answers, 503, "server.queue_timeout")) == 20
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
            answer = await other.ask("POST", "/mcp?env=naughty", JSON, b"%s" % initialize_bytes())
            assert answer.status == 200


JSON = [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]


def initialize_bytes():
    import json

    return json.dumps(initialize()).encode()
