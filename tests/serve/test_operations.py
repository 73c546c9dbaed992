"""What an operator asks of a running muxsim: `muxsim ctl`, `muxsim ps`, SIGHUP. And how it stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from functools import partial

import harness
import pytest
import trio
from harness import MUXSIM, alive, patient, serving

from muxsim.config import load
from muxsim.serve.operate.operations import compare
from muxsim.serve.operate.running import at

from .conftest import NAUGHTY, environment
from .machine import descendants, eventually, gone, log_lines, logged
from .test_lifetimes import Tree, terminal_program
from .wire import ask, connect, initialize, open_session, shake_hands, text_of, tool_call

pytestmark = pytest.mark.children

ORIGIN = ("Origin", "https://app.example")
ALLOWED = 'allowed_origins = ["https://app.example"]\n'


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    """A place of its own for the sockets, where no other muxsim of this machine is."""
    folder = tmp_path / "runtime"
    monkeypatch.setenv("MUXSIM_RUNTIME_DIR", str(folder))
    return folder


async def command(*args):
    """`muxsim` with these arguments: exit status, stdout and stderr."""
    done = await trio.run_process([*MUXSIM, *args], capture_stdout=True, capture_stderr=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def answer(*args):
    """What a command prints with --json."""
    status, out, problem = await command(*args, "--json")
    assert (status, problem) == (0, "")
    return json.loads(out)


def config_of(tmp_path):
    return tmp_path / "config" / "muxsim.toml"


def rewrite(tmp_path, config):
    """Have another config in the file of the one that is served."""
    config_of(tmp_path).write_text(patient(config))


# ---- looking


async def test_ps_lists_sessions_with_the_memory_of_their_trees(tmp_path):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp?seed=7")
        before = (await answer("ps"))["sessions"][0]["memory"]
        tree = await Tree.of(client)
        async with client.posting(tool_call("waiting", "hang")):

            async def in_flight():
                return (await client.session())["in_flight"]

            await eventually(in_flight)
            found = await answer("ps")
        (session,) = found["sessions"]
        assert found["muxsims"] == [muxsim.process.pid]
        wanted = {"id": client.id, "env": "naughty", "seed": 7, "state": "ready", "in_flight": 1, "attachments": 1}
        wanted |= {"number": 1, "owner": None, "peer": "127.0.0.1"}
        assert wanted.items() <= session.items()
        assert session["calls"] >= 2, "that of the tree's processes, and the one in flight"
        assert session["pid"] in tree.pids
        assert session["memory"] > before > 2**20
        status, shown, _ = await command("ps")
        assert status == 0
        assert client.id in shown
        assert "\n1 session, " in shown


async def test_status_tells_what_runs_and_which_bounds_were_met(tmp_path):
    async with serving(tmp_path, "[server]\nmax_url = 100\n" + environment("naughty")) as muxsim:
        await ask(muxsim.url, "GET", "/" + "x" * 200)
        status = await answer("ctl", "status")
        assert status["pid"] == muxsim.process.pid
        assert status["url"] == muxsim.url
        assert status["config"] == str(config_of(tmp_path))
        assert (status["state"], status["sessions"], status["limits"]) == ("serving", 0, {"max_url": 1})
        _, shown, _ = await command("ctl", "status")
        assert muxsim.url in shown


async def test_without_a_muxsim_there_is_nobody_to_ask(runtime):
    status, out, problem = await command("ctl", "status")
    assert (status, out) == (2, "")
    assert "no muxsim is serving" in problem
    status, out, problem = await command("ps")
    assert (status, problem) == (0, "")
    assert out.startswith("no muxsim is serving as this user (none in ")


async def test_of_several_muxsims_one_has_to_be_chosen(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with serving(tmp_path / "a", environment("one")) as one, serving(tmp_path / "b", environment("two")) as two:
        status, _, problem = await command("ctl", "status")
        assert status == 2
        assert f"{one.process.pid}" in problem
        assert f"{two.process.pid}" in problem
        assert (await answer("ctl", "status", "--pid", str(two.process.pid)))["environments"] == ["two"]
        await open_session(one.url, env="one")
        await open_session(two.url, env="two")
        assert {row["env"] for row in (await answer("ps"))["sessions"]} == {"one", "two"}
        status, _, problem = await command("ctl", "status", "--pid", "1")
        assert status == 2
        assert "no muxsim with pid 1" in problem


async def test_the_socket_is_its_users_alone_and_goes_with_muxsim(tmp_path, runtime):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        path = runtime / f"{muxsim.process.pid}.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
        assert await trio.to_thread.run_sync(muxsim.stop) == 0
        assert not path.exists()


async def test_a_socket_left_by_one_that_was_killed_is_nobody(tmp_path, runtime):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        path = runtime / f"{muxsim.process.pid}.sock"
        muxsim.process.kill()
        await trio.to_thread.run_sync(muxsim.process.wait)
        assert path.exists()
        assert (await answer("ps"))["muxsims"] == []
        assert not path.exists()


async def test_a_folder_open_to_others_is_not_used_and_muxsim_serves_all_the_same(tmp_path, runtime):
    runtime.mkdir()
    runtime.chmod(0o777)
    async with serving(tmp_path, environment("naughty")) as muxsim:
        problem = (await logged(muxsim, event="muxsim.no_operator_socket"))["problem"]
        assert "chmod 700" in problem
        assert (await ask(muxsim.url, "GET", "/ready")).status == 200
    assert (await command("ctl", "status"))[0] == 2


async def test_nonsense_on_the_socket_is_answered_or_dropped_and_stops_nobody(tmp_path, runtime):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        told = []
        for question in (b"{}\n", b'{"command": "explode"}\n', b"[]\n", b"no json\n", b"x" * 100_000, b"\n", b""):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(60)
                with at(runtime, muxsim.process.pid) as address:
                    connection.connect(address)
                try:
                    connection.sendall(question)
                    connection.shutdown(socket.SHUT_WR)
                    told.append(connection.recv(1000))
                except (BrokenPipeError, ConnectionResetError):
                    told.append(b"")
        assert [b"there is no command" in one for one in told] == [True, True, True, False, False, False, False]
        assert (await answer("ctl", "status"))["state"] == "serving"


# A muxsim in which each of these fails the first time that it is called.
WITH_BUGS = """
import sys
from muxsim.serve.operate import host, operations
from muxsim.session import registry as sessions
from muxsim.admission import pool
def fail_once(owner, name):
    real, calls = getattr(owner, name), []
    def failing(*args, **named):
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("a bug in " + name)
        return real(*args, **named)
    setattr(owner, name, failing)
for owner, name in {bugs}:
    fail_once(owner, name)
from muxsim.cli import main
main()
"""


def with_bugs(monkeypatch, *bugs):
    monkeypatch.setattr(harness, "MUXSIM", (sys.executable, "-c", WITH_BUGS.format(bugs=f"[{', '.join(bugs)}]")))


@pytest.mark.fault("H15")
async def test_a_bug_in_an_answer_is_told_and_the_next_question_is_answered(tmp_path, monkeypatch):
    with_bugs(monkeypatch, "(operations.Operations, '_status')", "(operations, 'compare')")
    async with serving(tmp_path, environment("naughty")) as muxsim:
        status, _, problem = await command("ctl", "status")
        assert status != 0
        assert "a bug in _status" in problem
        assert (await answer("ctl", "status"))["state"] == "serving"
        muxsim.process.send_signal(signal.SIGHUP)
        failed = await logged(muxsim, event="muxsim.signal_failed", within=60)
        muxsim.process.send_signal(signal.SIGHUP)
        await logged(muxsim, event="muxsim.reloaded", within=60)
    assert "a bug in compare" in failed["exception"]
    assert "a bug in _status" in log_lines(muxsim, event="muxsim.command_failed")[0]["exception"]


@pytest.mark.fault("H15")
@pytest.mark.parametrize(
    "bug",
    [
        "(pool.Pool, 'turn_away')",
        "(host._Server, 'stop_accepting')",
        "(host._Host, '_drain')",
        "(sessions.Sessions, 'end_all')",
    ],
)
async def test_a_signal_stops_muxsim_whatever_fails_on_the_way(tmp_path, monkeypatch, bug):
    with_bugs(monkeypatch, bug)
    async with serving(tmp_path, environment("naughty")) as muxsim:
        await open_session(muxsim.url)
        assert await trio.to_thread.run_sync(muxsim.stop) == 0
    assert "a bug in" in log_lines(muxsim, event="muxsim.signal_failed")[0]["exception"]


async def test_while_memory_is_short_it_is_neither_ready_nor_well_and_says_so_before_anybody_has_asked(tmp_path):
    async with serving(tmp_path, "[server]\nmemory_limit = '1%'\n" + environment("naughty")) as muxsim:
        ready = await ask(muxsim.url, "GET", "/ready")
        assert (ready.status, ready.json()) == (503, {"ready": False, "reason": "memory_limit"})
        assert ready.headers["retry-after"] == "5"
        health = await ask(muxsim.url, "GET", "/health")
        assert (health.status, health.json()["status"], health.json()["reason"]) == (200, "refusing", "memory_limit")


async def test_without_room_for_one_more_to_wait_it_is_not_ready_until_a_place_comes_back(tmp_path):
    async with serving(tmp_path, "[server]\nmax_sessions = 1\nmax_pending = 0\n" + environment("naughty")) as muxsim:
        session = await open_session(muxsim.url)
        ready = await ask(muxsim.url, "GET", "/ready")
        assert (ready.status, ready.json()) == (503, {"ready": False, "reason": "max_pending"})
        assert (await ask(muxsim.url, "GET", "/health")).json()["reason"] == "max_pending"
        assert (await ask(muxsim.url, "DELETE", f"/sessions/{session['id']}")).status == 204
        assert (await ask(muxsim.url, "GET", "/ready")).status == 200


async def test_it_is_not_ready_while_the_default_environment_is_left_alone_and_another_ones_fault_is_its_own(tmp_path):
    limits = "max_failed_starts = 1\nfailed_start_window = 600"
    failing = [environment(name, "--exit", "7", extra=limits) for name in ("leaving", "other")]
    async with serving(tmp_path, '[server]\ndefault = "leaving"\n' + "\n".join(failing)) as muxsim:
        for env, status in (("other", 200), ("leaving", 503)):
            await ask(muxsim.url, "POST", f"/mcp?env={env}", body=initialize())
            await logged(muxsim, event="pool.breaker_opened", env=env, within=60)
            ready = await ask(muxsim.url, "GET", "/ready")
            assert ready.status == status
        assert ready.json() == {"ready": False, "reason": "max_failed_starts"}
        assert 500 < int(ready.headers["retry-after"]) <= 600


# ---- reloading


@pytest.mark.parametrize("way", ["ctl", "SIGHUP"])
async def test_a_changed_config_is_for_new_sessions_and_running_ones_go_on(tmp_path, way):
    first = environment("kept", "--seed", "1") + environment("gone") + environment("common", extra="shared = true")
    then = (
        "[server]\nport = 1\nmax_url = 200\ndrain_timeout = 1\n"
        + environment("kept", "--seed", "2", extra='env = { LEVEL = "2" }')
        + environment("new")
        + environment("common", extra='shared = true\nenv = { LEVEL = "2" }')
    )
    async with serving(tmp_path, first, "--log-level", "info") as muxsim:
        kept, gone_one = (
            await shake_hands(muxsim.url, "/envs/kept/mcp"),
            await shake_hands(muxsim.url, "/envs/gone/mcp"),
        )
        common = await shake_hands(muxsim.url, "/envs/common/mcp")
        rewrite(tmp_path, then)
        if way == "ctl":
            told = await answer("ctl", "reload")
            assert told == {
                "added": ["new"],
                "changed": ["kept", "common"],
                "removed": ["gone"],
                "applied": ["max_url", "drain_timeout"],
                "restart": [],
                "tokens": [],
            }, "the port was given on the command line, which still counts"
        else:
            muxsim.process.send_signal(signal.SIGHUP)
        told = await logged(muxsim, event="muxsim.reloaded")
        assert (told["changed"], told["removed"]) == (["kept", "common"], ["gone"])
        for client in (kept, gone_one, common):
            assert "LEVEL" not in (await client.value("who"))["env"]
        for env, level in (("kept", "2"), ("new", None), ("common", "2")):
            client = await shake_hands(muxsim.url, f"/envs/{env}/mcp")
            assert (await client.value("who"))["env"].get("LEVEL") == level
        assert (await ask(muxsim.url, "POST", "/sessions", body={"env": "gone"})).status == 404
        assert [one["name"] for one in (await ask(muxsim.url, "GET", "/envs")).json()["environments"]] == [
            "kept", "new", "common"
        ]  # fmt: skip
        assert (await ask(muxsim.url, "GET", "/" + "x" * 300)).status == 414


async def test_a_config_with_a_fault_changes_nothing_and_says_why(tmp_path):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        rewrite(tmp_path, "[environments.other]\ncommand = 7\n")
        status, out, problem = await command("ctl", "reload")
        assert (status, out) == (2, "")
        assert "[environments.other] command = 7: must be a string" in problem
        assert "stays in use" in problem
        assert "command = 7" in (await logged(muxsim, event="muxsim.reload_failed"))["problem"]
        config_of(tmp_path).unlink()
        assert "does not exist" in (await command("ctl", "reload"))[2]
        assert (await open_session(muxsim.url))["state"] == "started"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[server.auth]\ntokens_file = 'gone'\n", "gone: cannot be read"),
        ("[server]\ntls_cert = 'gone.pem'\n", "gone.pem"),
        ("[environments.other]\ncommand = 'python3'\nargs = ['gone.py']\n", "gone.py, which"),
    ],
)
async def test_a_reload_refuses_what_a_check_would(tmp_path, config, words):
    async with serving(tmp_path, environment("naughty")):
        rewrite(tmp_path, config + environment("naughty"))
        status, out, problem = await command("ctl", "reload")
        assert (status, out) == (2, "")
        assert words in problem
        assert (await answer("ctl", "status"))["environments"] == ["naughty"]
        rewrite(tmp_path, environment("naughty"))
        assert await command("ctl", "reload") == (0, "nothing has changed\n", "")


async def test_a_config_that_takes_long_to_read_keeps_nobody_waiting_but_the_next_who_reads_it(tmp_path):
    told = {}

    async def reload(which):
        told[which] = await command("ctl", "reload")

    async with serving(tmp_path, environment("naughty")) as muxsim:
        config = config_of(tmp_path)
        text = config.read_text()
        config.unlink()
        os.mkfifo(config)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reload, "first")
            with await trio.to_thread.run_sync(config.open, "w") as pipe:  # waits for who reads it
                config.unlink()
                config.write_text(text + environment("more"))
                nursery.start_soon(reload, "next")
                assert (await answer("ctl", "status"))["environments"] == ["naughty"]
                assert (await open_session(muxsim.url))["state"] == "started"
                assert told == {}
                pipe.write(text)
    assert told == {
        "first": (0, "nothing has changed\n", ""),
        "next": (0, "added: more\nsettings in use now: default\n", ""),
    }


async def test_an_environment_that_has_failed_all_along_keeps_no_reload_from_being_done(tmp_path):
    broken = environment("naughty") + "[environments.broken]\ncommand = '/no/such/program'\n"
    async with serving(tmp_path, broken):
        rewrite(tmp_path, broken + "[environments.more]\ncommand = 'python3'\nargs = ['-V']\n")
        assert await command("ctl", "reload") == (0, "added: more\n", "")


def with_tokens(folder, text, name="tokens"):
    """A config with these lines of tokens in a file of that name."""
    (folder / "config").mkdir(exist_ok=True)
    file = folder / "config" / name
    file.write_text(text)
    file.chmod(0o600)
    return f"[server.auth]\ntokens_file = '{name}'\n" + environment("naughty")


async def test_a_reload_says_whose_tokens_have_changed_and_no_token(tmp_path):
    config = with_tokens(tmp_path, f"ada trainer {'a' * 32}\nbob agent {'b' * 32}\nroot admin {'r' * 32}\n")
    async with serving(tmp_path, config) as muxsim:
        assert (await command("ctl", "reload"))[1] == "nothing has changed\n"
        with_tokens(tmp_path, f"ada trainer {'c' * 32}\neve agent {'e' * 32}\nroot admin {'r' * 32}\n")
        told = (await answer("ctl", "reload"))["tokens"]
        assert told == ["added eve (agent)", "replaced ada (trainer)", "removed bob (agent)"]
        await logged(muxsim, event="muxsim.reloaded", tokens=told)
        rewrite(tmp_path, with_tokens(tmp_path, f"root admin {'r' * 32}\n", "others"))
        told = await answer("ctl", "reload")
        assert told["restart"] == [], "another file is read like a changed one"
        assert told["tokens"] == ["removed ada (trainer)", "removed eve (agent)"]


async def test_settings_that_need_a_restart_are_named(tmp_path):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        rewrite(tmp_path, "[server]\nmemory_limit = '50%'\nhost = '127.0.0.2'\n" + environment("naughty"))
        status, out, _ = await command("ctl", "reload")
        assert (status, out) == (0, "settings that need a restart: host, memory_limit\n")
        assert (await logged(muxsim, event="muxsim.restart_needed"))["settings"] == ["host", "memory_limit"]


async def test_a_restart_is_asked_for_as_long_as_what_runs_differs_from_the_config_and_no_longer(tmp_path):
    async with serving(tmp_path, environment("naughty")):
        rewrite(tmp_path, "[server]\npublic_url = 'https://lab.example'\n" + environment("naughty"))
        for _ in range(2):
            assert (await command("ctl", "reload"))[1] == "settings that need a restart: public_url\n"
        rewrite(tmp_path, environment("naughty"))
        assert (await command("ctl", "reload"))[1] == "nothing has changed\n"


async def test_the_bounds_on_sessions_can_be_changed_while_some_are_open_and_others_wait(tmp_path):
    async with serving(tmp_path, "[server]\nmax_sessions = 1\n" + environment("naughty")) as muxsim:
        first = await shake_hands(muxsim.url)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake_hands, muxsim.url)
            await eventually(partial(waiting, muxsim.url, 1))
            rewrite(tmp_path, "[server]\nmax_sessions = 2\n" + environment("naughty"))
            assert (await command("ctl", "reload"))[0] == 0
        rewrite(tmp_path, "[server]\nmax_sessions = 1\nmax_pending = 0\n" + environment("naughty"))
        assert (await command("ctl", "reload"))[0] == 0
        assert (await ask(muxsim.url, "POST", "/sessions", body={"env": "naughty"})).status == 503
        assert await first.text("say", text="still here") == "still here"


async def test_what_single_clients_may_have_can_be_changed(tmp_path):
    less = "[server]\nmax_sessions_per_client = 1\n" + environment("naughty")
    async with serving(tmp_path, less) as muxsim:
        await open_session(muxsim.url)
        assert (await ask(muxsim.url, "POST", "/sessions", body={"env": "naughty"})).status == 429
        rewrite(tmp_path, less + '[server.clients."127.0.0.1"]\nmax_sessions_per_client = 2\n')
        assert (await command("ctl", "reload"))[1] == "settings in use now: clients\n"
        await open_session(muxsim.url)
        refused = await ask(muxsim.url, "POST", "/sessions", body={"env": "naughty"})
        assert refused.status == 429
        assert "server.clients.127.0.0.1.max_sessions_per_client" in refused.error["message"]


async def waiting(url, count):
    return (await ask(url, "GET", "/health")).json()["waiting"] == count


async def test_a_muxsim_without_a_file_has_nothing_to_read_again(tmp_path):
    await trio.to_thread.run_sync(_reload_without_a_file, tmp_path)


def _reload_without_a_file(tmp_path):
    server = [*MUXSIM, "serve", "--port", "0", "--", "python3", "-I", "-S", str(NAUGHTY)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(server, cwd=tmp_path, **streams) as process:
        process.stdout.readline()
        told = subprocess.run([*MUXSIM, "ctl", "reload"], capture_output=True, text=True, timeout=60, check=False)
        assert told.returncode == 2
        assert "not with a config" in told.stderr
        process.terminate()


async def test_a_comparison_names_what_is_different(tmp_path):
    def config(text):
        path = tmp_path / "muxsim.toml"
        path.write_text(text)
        return load(path)

    one = config("[environments.a]\ncommand = 'a'\n[environments.b]\ncommand = 'b'\n[server]\ncall_timeout = 5\n")
    other = config("[environments.a]\ncommand = 'a'\n[environments.c]\ncommand = 'b'\n[server]\ncall_timeout = 6\n")
    changes = compare(one, one, other)
    assert (changes.added, changes.removed) == (("c",), ("b",))
    assert changes.changed == ("a",), "limits of [server] are its environments'"
    assert compare(one, one, one).changed == ()
    assert compare(one, one, config("[environments.a]\ncommand = 'a'\n")).applied == ("default",)


# ---- stopping


async def test_drained_it_takes_no_new_sessions_and_the_others_go_on(tmp_path):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp")
        assert (await answer("ctl", "drain"))["state"] == "draining"
        assert (await ask(muxsim.url, "GET", "/ready")).status == 503
        refused = await ask(muxsim.url, "POST", "/sessions", body={})
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert await client.text("say", text="still here") == "still here"
        assert (await answer("ctl", "resume"))["state"] == "serving"
        assert (await ask(muxsim.url, "GET", "/ready")).status == 200
        await open_session(muxsim.url, id="another")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drained_and_empty, muxsim)
            await logged(muxsim, event="muxsim.draining", sessions=2)
            for id in ("another", client.id):
                assert (await ask(muxsim.url, "DELETE", f"/sessions/{id}")).status == 204
        status, out, _ = await command("ctl", "stop")
        assert (status, out) == (0, f"muxsim {muxsim.process.pid} has stopped\n")
        assert muxsim.process.wait(60) == 0


async def drained_and_empty(muxsim):
    """Drain it, and wait until it has no session."""
    told = await answer("ctl", "drain", "--wait")
    assert (told["state"], told["sessions"]) == ("draining", 0)


@pytest.mark.fault("H6")
async def test_calls_may_take_their_drain_time_on_either_way_H6(tmp_path, gate):
    """H6: longer than uvicorn waits by itself. New connections are refused meanwhile."""
    async with serving(tmp_path, f"[server]\ndrain_timeout = 20\n{ALLOWED}" + environment("naughty")) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp")
        statuses = []

        async def call(id, headers=()):
            found = await client.post(tool_call(id, "slow", {"until": gate.path}), headers)
            statuses.append((found.status, text_of(found.messages[-1])))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, 1)
            nursery.start_soon(call, 2, [ORIGIN])

            async def both():
                return (await client.session())["in_flight"] == 2

            await eventually(both)
            muxsim.process.send_signal(signal.SIGTERM)
            await logged(muxsim, event="muxsim.stopping")
            with pytest.raises(OSError, match=r"."):
                await ask(muxsim.url, "GET", "/ready")
            gate.open()
        assert statuses == [(200, "at last")] * 2
        assert await trio.to_thread.run_sync(muxsim.process.wait, 5) == 0
        assert log_lines(muxsim, event="muxsim.drain_timeout") == []


@pytest.mark.fault("H6")
async def test_while_it_stops_it_is_not_ready(tmp_path, gate):
    """H6: seen on a connection from before."""
    async with serving(tmp_path, "[server]\ndrain_timeout = 20\n" + environment("naughty")) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp")
        async with connect(muxsim.url) as early, client.posting(tool_call(1, "slow", {"until": gate.path})) as late:
            assert (await early.ask("GET", "/ready")).json() == {"ready": True}

            async def in_flight():
                return (await client.session())["in_flight"]

            await eventually(in_flight)
            muxsim.process.send_signal(signal.SIGTERM)
            await logged(muxsim, event="muxsim.stopping")
            ready = await early.ask("GET", "/ready")
            assert (ready.status, ready.json()) == (503, {"ready": False, "reason": "draining"})
            gate.open()
            assert text_of((await late.answer()).json()) == "at last"


@pytest.mark.fault("H6")
async def test_the_second_signal_waits_neither_for_calls_nor_for_stubborn_children_H6(tmp_path):
    """H6."""
    slow = "eof_timeout = 600\nterm_timeout = 600"
    config = "[server]\ndrain_timeout = 600\n" + environment("naughty", "--stubborn", extra=slow)
    async with serving(tmp_path, config) as muxsim:
        clients = [await shake_hands(muxsim.url, "/mcp") for _ in range(2)]
        trees = [await Tree.of(client) for client in clients]
        async with clients[0].posting(tool_call("waiting", "hang")):
            muxsim.process.send_signal(signal.SIGTERM)
            await logged(muxsim, event="muxsim.stopping")
            assert muxsim.process.poll() is None
            assert await trio.to_thread.run_sync(muxsim.stop) == 0  # and not after 600 s
        for tree in trees:
            await tree.gone()


@pytest.mark.fault("H6")
async def test_the_second_signal_may_come_while_sessions_end_H6(tmp_path):
    """H6."""
    config = environment("naughty", "--stubborn", extra="eof_timeout = 600\nterm_timeout = 600")
    async with serving(tmp_path, config) as muxsim:
        tree = await Tree.of(await shake_hands(muxsim.url, "/mcp"))
        muxsim.process.send_signal(signal.SIGTERM)
        await logged(muxsim, event="muxsim.stopping")
        assert muxsim.process.poll() is None
        assert await trio.to_thread.run_sync(muxsim.stop) == 0  # and not after 600 s
        await tree.gone()


@pytest.mark.fault("H9")
async def test_a_terminal_that_is_closed_stops_muxsim_cleanly_H9(tmp_path):
    """H9: SIGHUP from a terminal is no wish for a new config."""
    (tmp_path / "muxsim.toml").write_text(environment("naughty"))
    with terminal_program(tmp_path, *MUXSIM, "serve", "--port", "0") as (process, terminal):
        output = await terminal.read_until("Ctrl-C stops.")
        url = next(word for word in output.split() if word.startswith("http://"))
        tree = await Tree.of(await shake_hands(url, "/mcp"))
        helpers = descendants(process.pid)
        os.close(terminal.fd)
        terminal.fd = os.open(os.devnull, os.O_RDONLY)
        with trio.fail_after(60):
            assert await trio.to_thread.run_sync(process.wait) == 0
        await tree.gone()
        await gone(*helpers)


async def test_hangups_without_a_terminal_end_nobody(tmp_path):
    """H9."""
    config = environment("naughty")
    async with serving(tmp_path, config) as muxsim:
        muxsim.process.send_signal(signal.SIGPIPE)
        muxsim.process.send_signal(signal.SIGHUP)
        muxsim.process.send_signal(signal.SIGHUP)
        await eventually(lambda: len(log_lines(muxsim, event="muxsim.reloaded")) >= 1)
        assert alive(muxsim.process.pid)
        assert (await ask(muxsim.url, "GET", "/ready")).status == 200


# ---- clearing up


@pytest.mark.fault("H7")
async def test_reap_ends_and_removes_what_a_muxsim_left_that_was_killed_with_its_guardian(tmp_path, monkeypatch):
    """H7: where even the guardian was killed. Another muxsim and its sessions are not touched."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    config = environment("naughty", extra=with_notes(tmp_path))
    async with serving(tmp_path / "a", config) as dead, serving(tmp_path / "b", config) as other:
        dead_tree = await Tree.of(await rewriting(tmp_path, dead.url))
        client = await shake_hands(other.url, "/mcp")
        other_tree = await Tree.of(client)
        assert json.loads((await command("reap", "--dry-run", "--json", "--pid", str(dead.process.pid)))[1]) == []
        guardian = descendants(dead.process.pid)[0]
        os.kill(dead.process.pid, signal.SIGSTOP)  # or it would have another one
        os.kill(guardian, signal.SIGKILL)
        os.kill(dead.process.pid, signal.SIGKILL)
        await trio.to_thread.run_sync(dead.process.wait)
        found = json.loads((await command("reap", "--dry-run", "--json", "--pid", str(dead.process.pid)))[1])
        assert {row["kind"] for row in found} == {"process", "folder"}
        assert {row["pid"] for row in found if row["pid"]} <= set(dead_tree.pids)
        assert not dead_tree.workspace_is_gone()
        status, out, problem = await command("reap", "--pid", str(dead.process.pid))
        assert (status, problem) == (0, "")
        assert "gone" in out
        await dead_tree.gone()
        assert list(temporary.glob(f"muxsim-{dead.process.pid}-*")) == []
        assert all(map(alive, other_tree.pids))
        assert await client.text("say", text="still here") == "still here"
        again = await command("reap", "--pid", str(dead.process.pid))
        assert again == (0, "nothing of a dead muxsim is left\n", "")


@pytest.mark.fault("H7")
async def test_a_muxsim_that_is_killed_leaves_no_folder(tmp_path, monkeypatch):
    """H7: the guardian removes it."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    async with serving(tmp_path, environment("naughty", extra=with_notes(tmp_path))) as muxsim:
        tree = await Tree.of(await rewriting(tmp_path, muxsim.url))
        muxsim.process.kill()
        await tree.gone()
        await eventually(lambda: not list(temporary.glob("muxsim-*")))
    assert (tmp_path / "notes" / "old").exists()


def with_notes(folder):
    """The setting that has a private folder with one file in it."""
    (folder / "notes").mkdir()
    (folder / "notes" / "old").write_text("")
    return f'private = ["{folder / "notes"}"]'


async def rewriting(folder, url):
    """A client whose session has written in its private folder, and removed what was in it."""
    client = await shake_hands(url, "/mcp")
    for tool, name in (("touch", "new"), ("remove", "old")):
        assert json.loads(await client.text(tool, path=str(folder / "notes" / name))) == {"result": None}
    return client
