"""What a running muxsim says of its sessions: one JSON line for each thing that happens. Rows: table of faults."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from contextlib import closing, contextmanager
from functools import partial

import httpx2
import pytest
import trio
from harness import MUXSIM, SERVERS, STOP_LIMIT, Gate, given_time, serving

from .conftest import environment
from .machine import eventually, log_lines, logged, memory
from .wire import ask, connect, open_session, rpc, shake_hands, text_of, tool_call

pytestmark = pytest.mark.children


async def test_each_event_of_a_sessions_life_is_one_line_with_session_env_seed_and_pid(muxsim):
    client = await shake_hands(muxsim.url, "/mcp?env=naughty&seed=42")
    pid = (await client.value("who"))["pid"]
    await client.call("not_json")
    await client.delete()
    ended = await logged(muxsim, event="session.ended", session=client.id)
    lines = log_lines(muxsim, session=client.id)
    assert [line["event"] for line in lines if not line["event"].startswith("backend.")] == [
        "session.opening",
        "session.started",
        "session.attached",
        "session.call",
        "session.ready",
        "session.call",
        "session.call",
        "session.detached",
        "session.ended",
    ]
    for line in lines:
        assert (line["env"], line["seed"]) == ("naughty", 42)
        assert line.get("pid") == (None if line["event"] == "session.opening" else pid)
        assert {"timestamp", "level"} <= line.keys()
    started = next(line for line in lines if line["event"] == "session.started")
    assert started["way"] in ("fork", "fresh")
    assert started["seconds"] > 0
    calls = [line for line in lines if line["event"] == "session.call"]
    assert [(call["method"], call.get("target"), call["attachment"]) for call in calls] == [
        ("initialize", None, 1),
        ("tools/call", "who", 1),
        ("tools/call", "not_json", 1),
    ]
    assert (ended["cause"], ended["text"]) == ("client_gone", "the client has gone")
    assert ended["seconds"] >= 0
    rejected = [line for line in lines if line["event"] == "backend.rejected"]
    assert [line["line"] for line in rejected] == ["Listening on stdio", "{ not json", "INFO: ☃"]


async def test_stderr_of_a_backend_appears_under_its_session(muxsim):
    one, other = await shake_hands(muxsim.url), await shake_hands(muxsim.url)
    await one.call("exit", say=["words of one", "  indented", "", "\x1b[31mred\x1b[0m ☃"])
    await logged(muxsim, event="session.ended", session=one.id)
    said = [line["line"] for line in log_lines(muxsim, event="backend.stderr", session=one.id)]
    assert said == ["naughty starts", "words of one", "  indented", "\x1b[31mred\x1b[0m ☃"]
    assert [line["line"] for line in log_lines(muxsim, event="backend.stderr", session=other.id)] == ["naughty starts"]


@pytest.mark.fault("C2")
async def test_a_dead_backend_is_a_warning_with_its_exit_status_and_last_words(muxsim, client):
    """C2."""
    await client.call("exit", code=3)
    ended = await logged(muxsim, event="session.ended", session=client.id)
    assert (ended["level"], ended["cause"], ended["exit_status"]) == ("warning", "backend_exited", 3)
    assert ended["stderr"][-1] == "I am leaving"


@pytest.mark.fault("H3")
async def test_a_failed_start_is_a_warning_that_says_why(muxsim):
    """H3."""
    await ask(muxsim.url, "POST", "/sessions", body={"env": "missing", "seed": 5, "id": "will-not-be"})
    failed = await logged(muxsim, event="session.open_failed", session="will-not-be")
    assert (failed["level"], failed["env"], failed["seed"]) == ("warning", "missing", 5)
    assert "there is no such file" in failed["error"]


@pytest.mark.fault("C17")
async def test_a_flood_on_stderr_says_how_much_of_it_was_left_out(muxsim, client):
    """C17."""
    await client.call("stderr_flood", mib=4)
    await client.call("exit")
    await logged(muxsim, event="session.ended", session=client.id)
    said = [line["line"] for line in log_lines(muxsim, event="backend.stderr", session=client.id)]
    assert len(said) < 200
    assert any("lines left out" in line for line in said)


async def test_every_line_of_the_log_is_json_whatever_came_over_the_wire(muxsim):
    """What uvicorn reports is a line like any other."""
    async with connect(muxsim.url) as connection:
        await connection.stream.send_all(b"\x00\x01\x02\r\n\r\n")
        await connection.closed_by_server()
    await logged(muxsim, logger="uvicorn.error", event="Invalid HTTP request received.")
    assert log_lines(muxsim, level="error") == []


async def test_a_level_leaves_out_what_is_below_it(tmp_path):
    config = "[server]\nlog_level = 'warning'\n" + environment("naughty")
    async with serving(tmp_path, config) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp")
        await client.call("exit")
        await logged(muxsim, event="session.ended")
        assert {line["level"] for line in log_lines(muxsim)} == {"warning"}


@pytest.mark.fault("H8")
async def test_a_muxsim_that_stood_still_ends_nobody_when_it_goes_on(tmp_path):
    """H8: with every time shorter than the pause; what is in flight is answered, what is idle is not ended."""
    await given_time(partial(stands_still, tmp_path), 4, 12, 60)


async def stands_still(tmp_path, seconds):
    folder = tmp_path / f"{seconds}"
    folder.mkdir()
    with closing(Gate(folder / "gate")) as gate:
        await stands_still_in(folder, gate, seconds)


async def stands_still_in(folder, gate, seconds):
    times = "\n".join(f"{name} = {seconds}" for name in ("call_timeout", "idle_timeout", "ttl", "handshake_timeout"))
    config = f"[server]\nheader_timeout = {seconds}\n" + environment("naughty", extra=times)
    async with serving(folder, config) as muxsim:
        idle, busy = [await shake_hands(muxsim.url, "/mcp") for _ in range(2)]
        message = tool_call(7, "slow", {"until": gate.path})
        async with connect(muxsim.url) as half, busy.posting(message) as waiting:
            await half.stream.send_all(b"GET /health HTTP/1.1\r\n")
            await eventually(partial(in_flight, busy))
            muxsim.process.send_signal(signal.SIGSTOP)
            await trio.sleep(seconds * 1.5)
            gate.open()
            muxsim.process.send_signal(signal.SIGCONT)
            await half.stream.send_all(b"Host: localhost\r\n\r\n")
            assert (await half.answer()).status == 200
            assert text_of((await waiting.answer()).messages[-1]) == "at last"
        for client in (idle, busy):
            assert await client.text("say", text="still here") == "still here"
        assert (await logged(muxsim, event="muxsim.stood_still"))["seconds"] > seconds
        # From there on their times go on.
        await eventually(lambda: len(log_lines(muxsim, event="session.ended")) == 2, within=120)
        assert {line["cause"] for line in log_lines(muxsim, event="session.ended")} <= {"idle_timeout", "ttl"}


async def in_flight(client):
    return (await client.session())["in_flight"]


async def test_the_urls_of_a_session_are_told_for_the_host_that_was_asked(muxsim):
    port = muxsim.url.rpartition(":")[2]
    for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
        answer = await ask(muxsim.url, "POST", "/sessions", [("Host", host)], {"env": "naughty"})
        assert answer.json()["urls"]["mcp"].startswith(f"http://{host}/s/")


async def test_sessions_on_their_own_url_and_by_handshake_are_the_same_to_the_log(muxsim):
    session = await open_session(muxsim.url, seed=9)
    client = await shake_hands(muxsim.url, f"/s/{session['id']}/mcp")
    assert (await client.post(rpc(1, "ping"))).json()["result"] == {}
    attached = await logged(muxsim, event="session.attached", session=session["id"])
    assert (attached["transport"], attached["seed"], attached["pid"]) == ("streamable-http", 9, session["pid"])
    assert attached["peer"] == "127.0.0.1"
    assert client.id not in json.dumps(log_lines(muxsim)), "a client's own id opens its session"


@pytest.mark.fault("H17")
async def test_a_log_that_nobody_reads_any_more_stops_neither_sessions_nor_muxsim_H17(tmp_path):
    with trio.fail_after(60):
        await trio.to_thread.run_sync(_serve_without_a_log, tmp_path)


@pytest.mark.fault("H17")
async def test_a_log_whose_reader_is_asleep_stalls_no_session_H17(tmp_path):
    """H17: a full pipe on stderr. Memory is bounded, what is left out is counted, and told when the reader wakes up."""
    with trio.fail_after(240):
        await trio.to_thread.run_sync(_serve_to_a_sleeping_reader, tmp_path)


@contextmanager
def _serve_to_a_pipe(folder, *command, full=False):
    """A muxsim whose log goes to a small pipe: its process and URL, and the pipe's other end."""
    reads, writes = os.pipe()
    size = fcntl.fcntl(writes, fcntl.F_SETPIPE_SZ, 4096)
    if full:
        os.write(writes, b"x" * size)
    command = [*MUXSIM, "serve", "--port", "0", "--log-format", "json", *command]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=writes, text=True)
    os.close(writes)
    try:
        with open(reads, "rb", buffering=0) as log, process.stdout:
            yield process, process.stdout.readline().split()[-1], log
    finally:
        process.kill()
        process.wait()


def _serve_to_a_sleeping_reader(tmp_path):
    (tmp_path / "muxsim.toml").write_text('[server]\nlog_buffer = "16 KiB"\n' + environment("naughty"))
    with _serve_to_a_pipe(tmp_path) as (process, url, reads):
        before = memory(process.pid)
        for number in range(40):
            opened = httpx2.post(f"{url}/sessions", json={"id": f"s{number}"}, timeout=60)
            assert opened.status_code == 201
            assert httpx2.delete(f"{url}/sessions/s{number}", timeout=60).status_code == 204
        assert memory(process.pid) - before < 16 * 2**20
        dropped = httpx2.get(f"{url}/health", timeout=60).json()["limits"]["log_buffer"]
        assert dropped > 0
        log = b""
        while b"log.lines_left_out" not in log:
            log += reads.read(65536)
        process.send_signal(signal.SIGTERM)
        log += reads.readall()
        assert process.wait(STOP_LIMIT) == 0
        lines = [json.loads(line) for line in log.splitlines()]
        told = [line["lines"] for line in lines if line["event"] == "log.lines_left_out"]
        assert sum(told) == dropped


@pytest.mark.fault("H17")
async def test_a_muxsim_whose_log_is_blocked_can_be_stopped_H17(tmp_path):
    """H17: what waits is given a moment, and no more."""
    with trio.fail_after(60):
        await trio.to_thread.run_sync(_stop_with_a_blocked_log, tmp_path)


def _stop_with_a_blocked_log(tmp_path):
    (tmp_path / "muxsim.toml").write_text(environment("naughty"))
    with _serve_to_a_pipe(tmp_path, full=True) as (process, url, _):
        assert httpx2.post(f"{url}/sessions", json={}, timeout=60).status_code == 201
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_LIMIT) == 0


def _serve_without_a_log(tmp_path):
    command = ("--", sys.executable, "-I", "-S", str(SERVERS / "naughty.py"))
    with _serve_to_a_pipe(tmp_path, *command) as (process, url, reads):
        reads.close()
        assert httpx2.post(f"{url}/sessions", json={}, timeout=60).status_code == 201
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_LIMIT) == 0
