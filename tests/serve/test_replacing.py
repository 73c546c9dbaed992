"""Another process under a live session, with real children, over every transport: its clients notice nothing."""

import functools
import json
import signal
import subprocess
import sys

import pytest
import trio
from harness import ROOT, alive, serving

from .conftest import LIMIT, environment
from .machine import eventually
from .wire import EventReader, rpc, shake_hands, sse_client, text_of, tool_call

pytestmark = pytest.mark.children

COMMAND = (sys.executable, str(ROOT / "tests" / "servers" / "replacing.py"))
CONFIG = environment("naughty", "--seed", "{seed}", extra="eof_timeout = 0.1\nterm_timeout = 0.1")


@pytest.fixture
async def muxsim(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.MUXSIM", COMMAND)
    async with serving(tmp_path, CONFIG) as running:
        yield running


async def replace(process, log):
    """Have it replace its backends, and wait until its log says that it has."""
    process.send_signal(signal.SIGUSR1)
    with trio.fail_after(LIMIT):
        await eventually(lambda: "session.restored" in log.read_text())


def is_another(new, old):
    """Another process for the same seed in the same folder, and nothing left of the first."""
    return new["pid"] != old["pid"] and not alive(old["pid"]) and all(new[key] == old[key] for key in ("argv", "cwd"))


def without_id(message):
    """Requests are numbered on, whoever has the backend's place."""
    return {name: value for name, value in message.items() if name != "id"}


async def test_a_client_of_streamable_http_keeps_its_id_its_stream_and_its_seed(muxsim):
    with trio.fail_after(LIMIT):
        client = await shake_hands(muxsim.url, "/mcp?env=naughty&seed=11")
        old, told = await client.value("who"), [without_id(line) for line in await client.heard()][:2]
        async with client.listening() as standing:
            events = EventReader(standing)
            async with client.posting(tool_call("in flight", "hang")) as hanging:
                while not any(line.get("params", {}).get("name") == "hang" for line in await client.heard()):
                    await trio.lowlevel.checkpoint()
                await replace(muxsim.process, muxsim.log)
                refused = (await hanging.answer()).messages
            assert [(one["id"], one["error"]["data"]["cause"]) for one in refused] == [
                ("in flight", "backend_replaced")
            ]
            assert is_another(await client.value("who"), old)
            assert [without_id(line) for line in await client.heard()][:2] == told, "the client's own handshake"
            await client.call("list_changed")
            await events.until(lambda message: message.get("method") == "notifications/tools/list_changed")
        assert (await client.session())["state"] == "ready"
        assert (await client.delete()).status == 204


async def test_a_client_over_sse_keeps_its_stream(muxsim):
    with trio.fail_after(LIMIT):
        async with sse_client(muxsim.url) as (_, post, events):
            numbers = iter(range(1, 10_000))

            async def who():
                number = next(numbers)
                await post(tool_call(number, "who"))
                event = await events.next()
                assert event.json()["id"] == number
                return json.loads(text_of(event.json()))

            old = await who()
            await replace(muxsim.process, muxsim.log)
            assert is_another(await who(), old)


async def test_a_client_on_stdin_and_stdout_gets_one_answer_to_each_call(tmp_path):
    (tmp_path / "muxsim.toml").write_text(CONFIG)
    command = [*COMMAND, "stdio", str(tmp_path / "muxsim.toml"), "--env", "naughty"]
    log = tmp_path / "log"
    with trio.fail_after(LIMIT), log.open("w") as stderr:
        async with trio.open_nursery() as nursery:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stderr}
            process = await nursery.start(functools.partial(trio.run_process, command, **pipes))
            lines = _lines(process.stdout)

            async def ask(message):
                await process.stdin.send_all(json.dumps(message).encode() + b"\n")
                return json.loads(await anext(lines))

            numbers = iter(range(1, 10_000))

            async def who():
                number = next(numbers)
                answer = await ask(tool_call(number, "who"))
                assert answer["id"] == number
                return json.loads(text_of(answer))

            greeting = {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "t", "version": "1"},
            }
            assert "result" in await ask(rpc(0, "initialize", greeting))
            old = await who()
            await replace(process, log)
            assert is_another(await who(), old)
            await process.stdin.aclose()
            assert [line async for line in lines] == []


async def _lines(stream):
    data = b""
    async for more in stream:
        *complete, data = (data + more).split(b"\n")
        for line in complete:
            yield line
