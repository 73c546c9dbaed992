"""Whatever ends a session, two seconds later nothing of it is left. Rows are those of the table of faults."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import trio
from harness import MUXSIM, STOP_LIMIT, alive, serving

from .conftest import environment
from .machine import GRACE, descendants, eventually, gone, log_lines, logged, processes_with, zygotes
from .wire import (
    ask,
    connect,
    initialize,
    live_sessions,
    modern_call,
    modern_headers,
    open_session,
    rpc,
    shake_hands,
    sse_client,
    text_of,
    tool_call,
)

pytestmark = pytest.mark.children

JSON = [("Content-Type", "application/json")]
# Seconds: what the session `idle` may be; and what a test waits for what has to come.
IDLE = 1.5
PATIENCE = 120
KINDS = ("group", "setsid", "double")


class Tree:
    """A session's backend, its grandchildren of every kind, and its folder."""

    def __init__(self, pids, workspace, mark):
        self.pids = pids
        self.workspace = workspace
        self.mark = mark

    @classmethod
    async def of(cls, client):
        """Give the session of this client a tree."""
        who = await client.value("who")
        backend, env = who["pid"], who["env"]
        grandchildren = [(await client.value("spawn", kind=kind))["pid"] for kind in KINDS]
        workspace = await client.text("scribble")
        # The kernel shows of a forked backend not its own environment but its zygote's, save for the mark.
        tree = cls([backend, *grandchildren], workspace, env["MUXSIM_PROCESS"])
        assert workspace == env["MUXSIM_WORKSPACE"]
        assert all(map(alive, tree.pids))
        assert sorted(processes_with(tree.mark)) == sorted(tree.pids)
        return tree

    def workspace_is_gone(self):
        return not os.path.exists(self.workspace)

    async def gone(self, within=GRACE):
        """Wait until nothing of it is left."""
        await gone(*self.pids, within=within)
        await eventually(self.workspace_is_gone, within)
        assert processes_with(self.mark) == []


# ---- by its client


@pytest.mark.fault("C20", "C21")
async def test_deleting_with_the_session_header_leaves_nothing(client):
    """C20, C21."""
    tree = await Tree.of(client)
    assert (await client.delete()).status == 204
    await tree.gone()
    assert (await client.post(rpc(1, "ping"))).status == 404


async def test_deleting_by_url_is_answered_when_no_process_is_left(muxsim, client):
    tree = await Tree.of(client)
    with trio.fail_after(GRACE):
        assert (await ask(muxsim.url, "DELETE", f"/sessions/{client.id}")).status == 204
    assert not any(map(alive, tree.pids))
    await tree.gone()


@pytest.mark.fault("C19")
async def test_a_stubborn_session_is_gone_in_time_under_the_default_limits(tmp_path):
    """C19: neither the end of stdin nor SIGTERM ends it, and both get their full time."""
    async with serving(tmp_path, environment("stubborn", "--stubborn")) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp")
        tree = await Tree.of(client)
        assert (await client.delete()).status == 204
        await tree.gone()


async def test_closing_the_sse_stream_leaves_nothing(muxsim):
    async with sse_client(muxsim.url) as (connection, post, events):
        pids = []
        for number, kind in enumerate(KINDS):
            await post(tool_call(number, "spawn", {"kind": kind}))
            pids.append(int(text_of((await events.next()).json()).partition(":")[2].strip(" }")))
        (session,) = await live_sessions(muxsim)
        assert all(map(alive, [*pids, session["pid"]]))
        connection.drop()
    await gone(session["pid"], *pids)
    assert (await ask(muxsim.url, "GET", f"/sessions/{session['id']}")).status == 404


@pytest.mark.fault("L18")
async def test_a_client_that_goes_before_its_handshake_is_answered_leaves_nothing(muxsim):
    """L18: it never learns the session's id, so nobody could end that session."""
    async with connect(muxsim.url) as connection:
        await connection.send("POST", "/mcp?env=slow&seed=77", JSON, json.dumps(initialize()).encode())
        started = await logged(muxsim, event="session.started", env="slow", seed=77)
        connection.drop()
    await gone(started["pid"])
    assert await live_sessions(muxsim) == []


# ---- by time


@pytest.mark.fault("L4")
async def test_an_idle_session_leaves_nothing(muxsim, gate):
    """L4: its client has gone without a word."""
    client = await shake_hands(muxsim.url, "/mcp?env=idle")
    async with client.posting(tool_call(7, "slow", {"until": gate.path})) as connection:
        # With a call in flight it is not idle, however long all this takes.
        tree = await Tree.of(client)
        gate.open()
        await connection.answer()
    await time_is_up(muxsim, client.id, tree, "idle_timeout", IDLE)
    assert (await client.post(rpc(1, "ping"))).status == 404


@pytest.mark.fault("L4")
async def test_a_session_past_its_ttl_leaves_nothing(muxsim):
    """L4: whatever it does."""
    for ttl in (1, 4, 16, 64):  # until one lives for long enough to have all that is to end with it
        session = await open_session(muxsim.url, ttl=ttl)
        try:
            client = await shake_hands(muxsim.url, f"/s/{session['id']}/mcp")
            tree = await Tree.of(client)
        except Exception:
            if not log_lines(muxsim, event="session.ended", session=session["id"], cause="ttl"):
                raise
            continue
        await time_is_up(muxsim, session["id"], tree, "ttl", ttl)
        assert (await client.post(rpc(1, "ping"))).status == 404
        return
    pytest.fail("a session that may live for a minute had no time for a few calls")


async def time_is_up(muxsim, id, tree, cause, seconds):
    """Wait until a session has been ended for that, and nothing of it is left."""
    ended = await logged(muxsim, event="session.ended", session=id, within=PATIENCE)
    assert ended["cause"] == cause
    assert ended["seconds"] >= seconds - 0.1  # what is told is rounded
    await tree.gone()


async def another_is_idle(muxsim):
    """Wait until a session that nobody uses has been ended for that."""
    other = await shake_hands(muxsim.url, "/mcp?env=idle")
    await logged(muxsim, event="session.ended", session=other.id, cause="idle_timeout")


@pytest.mark.fault("L4")
async def test_a_call_in_flight_and_an_open_stream_keep_a_session_from_being_idle(muxsim, gate):
    """L4: for longer than another lives, which nobody uses."""
    client = await shake_hands(muxsim.url, "/mcp?env=idle")
    async with client.posting(tool_call(7, "slow", {"until": gate.path})) as connection:
        await eventually_in_flight(client)
        await another_is_idle(muxsim)
        async with client.listening():  # before the call is over, or it might be idle in between
            gate.open()
            assert text_of((await connection.answer()).messages[-1]) == "at last"
            await another_is_idle(muxsim)
            assert await client.text("say", text="still here") == "still here"
    await logged(muxsim, event="session.ended", session=client.id, cause="idle_timeout")


@pytest.mark.fault("L3", "L4")
async def test_a_cancelled_call_does_not_keep_a_session_from_being_idle(muxsim):
    """L3, L4: its answer will never come."""
    client = await shake_hands(muxsim.url, "/mcp?env=idle")
    async with client.posting(tool_call("c", "hang")):
        await eventually_in_flight(client)
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "c"}}
        assert (await client.post(cancelled)).status == 202
    await logged(muxsim, event="session.ended", session=client.id, cause="idle_timeout")


@pytest.mark.fault("L2", "L4")
async def test_a_call_left_by_a_2026_client_does_not_keep_a_session_from_being_idle(muxsim):
    """L2, L4."""
    session = await open_session(muxsim.url, env="idle")
    path = f"/s/{session['id']}/mcp"
    message = modern_call(1, "hang")
    async with connect(muxsim.url) as connection:
        await connection.send("POST", path, modern_headers(message), json.dumps(message).encode())

        async def in_flight():
            return (await ask(muxsim.url, "GET", f"/sessions/{session['id']}")).json()["in_flight"]

        await eventually(in_flight)
    await logged(muxsim, event="session.ended", session=session["id"], cause="idle_timeout")


async def eventually_in_flight(client):
    async def in_flight():
        return (await client.session())["in_flight"]

    await eventually(in_flight)


async def test_a_ttl_can_be_asked_for(muxsim):
    session = await open_session(muxsim.url, ttl=0.4)
    ended = await logged(muxsim, event="session.ended", session=session["id"], cause="ttl")
    assert ended["seconds"] >= 0.4


# ---- with muxsim


@pytest.mark.fault("H6", "H7")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("options", [(), ("--stubborn",)], ids=["polite", "stubborn"])
async def test_however_muxsim_ends_nothing_of_any_session_is_left(tmp_path, number, options):
    """H6, H7: by default limits, three sessions of four processes each, one with a call in flight, and a zygote."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    async with serving(tmp_path, environment("naughty", *options), env={"TMPDIR": str(temporary)}) as muxsim:
        clients = [await shake_hands(muxsim.url, "/mcp") for _ in range(3)]
        trees = [await Tree.of(client) for client in clients]
        await eventually(lambda: zygotes(muxsim.process.pid))
        helpers = [muxsim.process.pid, *descendants(muxsim.process.pid)]
        async with clients[0].posting(tool_call("waiting", "hang")):
            await eventually_in_flight(clients[0])
            muxsim.process.send_signal(number)
            await gone(*(pid for tree in trees for pid in tree.pids))
        await gone(*helpers)
        status = await trio.to_thread.run_sync(muxsim.process.wait)
    assert status == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert [processes_with(tree.mark) for tree in trees] == [[], [], []]
    assert all(tree.workspace_is_gone() for tree in trees)


@pytest.mark.fault("H6")
async def test_a_second_signal_ends_muxsim_at_once(tmp_path):
    """H6: without the time for calls to finish, and with nothing left behind all the same."""
    config = "[server]\ndrain_timeout = 600\n" + environment("naughty")
    async with serving(tmp_path, config) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp")
        tree = await Tree.of(client)
        async with client.posting(tool_call("waiting", "hang")):
            await eventually_in_flight(client)
            muxsim.process.send_signal(signal.SIGTERM)
            await logged(muxsim, event="muxsim.stopping")
            assert muxsim.process.poll() is None
            with trio.fail_after(GRACE):
                assert await trio.to_thread.run_sync(muxsim.stop) == 0
        await tree.gone()


@pytest.mark.fault("H6")
@pytest.mark.parametrize(("tool", "drain"), [("slow", 600), ("hang", 1)])
async def test_at_shutdown_calls_may_still_finish_and_the_rest_get_an_error(tmp_path, gate, tool, drain):
    """H6."""
    config = f"[server]\ndrain_timeout = {drain}\n" + environment("naughty")
    async with serving(tmp_path, config) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp")
        async with client.posting(tool_call(7, tool, {"until": gate.path})) as connection:
            await eventually_in_flight(client)
            muxsim.process.send_signal(signal.SIGTERM)
            await logged(muxsim, event="muxsim.stopping")
            gate.open()
            answer = (await connection.answer()).messages[-1]
        if tool == "slow":
            assert text_of(answer) == "at last"
        else:
            assert answer["error"]["data"] == {"cause": "shutdown"}
        assert await trio.to_thread.run_sync(muxsim.process.wait, STOP_LIMIT) == 0


@pytest.mark.fault("H9")
async def test_ctrl_c_in_a_terminal_reaches_muxsim_only_and_stops_it_cleanly(tmp_path):
    """H9: a terminal sends SIGINT to its whole foreground group."""
    (tmp_path / "muxsim.toml").write_text(environment("naughty"))
    with terminal_program(tmp_path, *MUXSIM, "serve", "--port", "0") as (process, terminal):
        output = await terminal.read_until("Ctrl-C stops.")
        url = next(word for word in output.split() if word.startswith("http://"))
        tree = await Tree.of(await shake_hands(url, "/mcp"))
        os.write(terminal.fd, b"\x03")
        output += await terminal.read_until(None)
        assert await trio.to_thread.run_sync(process.wait) == 0
        await tree.gone()
    assert "Traceback" not in output
    assert "KeyboardInterrupt" not in output


TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


@contextmanager
def terminal_program(folder, *argv):
    """A program in the foreground of a terminal of its own, and the side of the terminal where a person sits."""
    ours, theirs = pty.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    take = (sys.executable, "-I", "-S", "-c", TAKE_TERMINAL)
    process = subprocess.Popen([*take, *argv], cwd=folder, start_new_session=True, **streams)
    os.close(theirs)
    try:
        yield process, Terminal(ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


class Terminal:
    """The side of a terminal where a person sits."""

    def __init__(self, fd):
        self.fd = fd
        os.set_blocking(fd, False)

    async def read_until(self, wanted):
        """What it shows, up to ``wanted`` or, if that is None, to its end."""
        shown = b""
        while wanted is None or wanted.encode() not in shown:
            await trio.lowlevel.wait_readable(self.fd)
            try:
                shown += os.read(self.fd, 65536)
            except OSError:  # how a terminal's end shows
                break
        return shown.decode()
