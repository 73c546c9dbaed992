"""A hand on a running muxsim: `ctl end` and `ctl inspect`, filters of `ps`, and the same over HTTP for the admin."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import pytest
import trio
from harness import MUXSIM, serving
from harness import ROOT as ROOT_FOLDER
from typer.testing import CliRunner

from muxsim.cli.main import app
from muxsim.cli.operator import show_answer

from .conftest import environment
from .machine import eventually, gone, logged
from .test_auth import ADA, BOB, ROOT, bearer
from .test_operations import answer, command
from .wire import ask, open_session, rpc, shake_hands, tool_call

pytestmark = pytest.mark.children

MONITOR = "m" * 40


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("MUXSIM_RUNTIME_DIR", str(tmp_path / "runtime"))


def guarded(folder):
    """A config with tokens, which lie in the folder."""
    tokens = folder / "config" / "tokens"
    tokens.parent.mkdir()
    tokens.write_text(f"ada trainer {ADA}\nbob trainer {BOB}\nboard monitor {MONITOR}\nroot admin {ROOT}\n")
    tokens.chmod(0o600)
    return '[server.auth]\ntokens_file = "tokens"\n' + environment("naughty")


async def test_a_session_is_ended_by_the_beginning_of_its_id_and_its_client_is_told(tmp_path):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        one = await open_session(muxsim.url, id="episode-1")
        client = await shake_hands(muxsim.url, "/s/episode-1/mcp")
        await open_session(muxsim.url, id="episode-10")
        await open_session(muxsim.url, id="episode-2")
        status, _, problem = await command("ctl", "end", "episode")
        assert status == 2
        assert "episode-1, episode-10, episode-2" in problem
        assert "no session has an id" in (await command("ctl", "end", "nobody"))[2]
        assert (await command("ctl", "end", "episode-1"))[1] == "session episode-1 has ended\n", "though -10 begins so"
        await gone(one["pid"])
        told = (await client.post(rpc(1, "ping"))).error
        assert told["data"] == {"cause": "deleted", "by": "the operator"}
        assert (await logged(muxsim, event="session.ended", session="episode-1"))["by"] == "the operator"
        status, _, problem = await command("ctl", "end", "episode-1")
        assert (status, problem.startswith("muxsim: session episode-1 has ended already: ")) == (2, True), problem
        assert (await answer("ctl", "inspect", "episode-1"))["state"] == "ended"
        found = await answer("ctl", "end", "episode-2")
        assert (found["id"], found["state"], found["cause"]) == ("episode-2", "ended", "deleted")
        assert [row["id"] for row in (await answer("ps"))["sessions"]] == ["episode-10"]


async def test_a_command_that_needs_a_session_says_so_and_others_take_none():
    for words, told in (
        (("end",), "Missing argument 'SESSION'"),
        (("status", "x"), "unexpected extra argument"),
        (("drain", "--env", "x"), "No such option"),
        (("end", "x", "--wait"), "No such option"),
        (("loglevel", "loud"), "'debug', 'info', 'warning', 'error'"),
        (("loglevel", "--env", "naughty"), "name a level"),
        (("loglevel", "--env", ""), "name a level"),
        (("ending",), "No such command"),
    ):
        ended = CliRunner().invoke(app, ["ctl", *words])
        assert (ended.exit_code, told in ended.stderr) == (2, True), ended.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("status", "which bounds were met"),
        ("end", "when nothing of it is left"),
        ("inspect", "how it ended"),
        ("reload", "One with a fault changes nothing"),
        ("drain", "--wait"),
        ("resume", "after drain"),
        ("loglevel", "debug, info, warning or error"),
        ("stop", "drain_timeout"),
    ],
)
async def test_each_command_has_a_help_of_its_own(name, words):
    shown = " ".join(CliRunner().invoke(app, ["ctl", name, "--help"]).stdout.split())
    assert f"muxsim ctl {name}" in shown
    assert words in shown
    assert "--pid" in shown
    assert ("SESSION" in shown) == (name in ("end", "inspect"))


async def test_a_session_can_be_looked_into(tmp_path):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp?seed=5")
        await client.text("stderr_flood", mib=0)
        inside = await answer("ctl", "inspect", client.id[:6])
        assert (inside["id"], inside["seed"], inside["calls"]) == (client.id, 5, 1)
        assert [(one["transport"], one["peer"]) for one in inside["clients"]] == [("streamable-http", "127.0.0.1")]
        assert inside["protocol"] == client.version
        assert inside["stderr"][-1] == "the last line"
        shown = (await command("ctl", "inspect", client.id))[1]
        assert client.id in shown
        assert "the last line" in shown
        assert (await client.post(tool_call(9, "exit", {"status": 3}))).error
        await gone(inside["pid"])
        past = await answer("ctl", "inspect", client.id)
        assert (past["state"], past["cause"]) == ("ended", "backend_exited")
        assert "status 3" in past["why"]


async def test_ps_finds_sessions_by_what_is_so_and_goes_through_all_pages(tmp_path, monkeypatch):
    async with serving(tmp_path, environment("naughty") + environment("other")) as muxsim:
        await open_session(muxsim.url, env="naughty", seed=1)
        await open_session(muxsim.url, env="other", seed=1)
        await open_session(muxsim.url, env="other", seed=2)
        assert [row["env"] for row in (await answer("ps", "--seed", "1"))["sessions"]] == ["naughty", "other"]
        assert [row["seed"] for row in (await answer("ps", "--env", "other"))["sessions"]] == [1, 2]
        status, _, problem = await command("ps", "--state", "dead")
        assert status == 2
        assert "ended" in problem


async def test_what_a_program_has_written_moves_no_operators_cursor(capsys):
    show_answer("inspect", {"id": "x\x1b[2J", "stderr": ["\x1b[31mred\x07"]}, as_json=False)
    shown = capsys.readouterr().out
    assert "red" in shown
    assert not {"\x1b", "\x07"} & set(shown)


async def test_ps_watches_until_it_is_interrupted(tmp_path):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        process = await trio.lowlevel.open_process([*MUXSIM, "ps", "--watch", "--json"], stdout=subprocess.PIPE)
        lines = b""
        await open_session(muxsim.url)
        with trio.fail_after(60):
            while b'"env":"naughty"' not in lines:
                lines += await process.stdout.receive_some()
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
        assert [json.loads(line)["muxsims"] for line in lines.splitlines()[:1]] == [[muxsim.process.pid]]


async def test_over_http_others_than_the_admin_see_what_their_scope_may_and_change_nothing(tmp_path, monkeypatch):
    async with serving(tmp_path, guarded(tmp_path)) as muxsim:
        made = await open_session(muxsim.url, [bearer(ADA)], seed=3)
        await open_session(muxsim.url, [bearer(BOB)], seed=4)
        at = ("--url", muxsim.url)
        monkeypatch.setenv("MUXSIM_TOKEN", MONITOR)
        rows = (await answer("ps", *at))["sessions"]
        assert [(row["seed"], row["owner"], row["memory"]) for row in rows] == [(3, "ada", None), (4, "bob", None)]
        assert made["id"] not in [row["id"] for row in rows]
        assert "2 sessions" in (await command("ps", *at))[1]
        assert (await answer("ps", "--owner", "bob", *at))["sessions"][0]["seed"] == 4
        status = await answer("ctl", "status", *at)
        assert (status["state"], status["sessions"], status["pid"]) == ("serving", 2, None)
        assert "serving" in (await command("ctl", "status", *at))[1]
        monkeypatch.setenv("MUXSIM_TOKEN", ADA)
        (row,) = (await answer("ps", *at))["sessions"]
        assert (row["id"], row["owner"]) == (made["id"], "ada")
        for token in (ADA, MONITOR):
            monkeypatch.setenv("MUXSIM_TOKEN", token)
            for words in (("end", made["id"]), ("drain",), ("stop",), ("inspect", made["id"]), ("loglevel",)):
                status, _, problem = await command("ctl", *words, *at)
                assert (status, problem) == (2, "muxsim: this needs a token with the scope admin\n")
        monkeypatch.setenv("MUXSIM_TOKEN", "x" * 40)
        assert "not valid" in (await command("ps", *at))[2]


async def test_the_admin_does_the_same_over_http_and_nobody_else(tmp_path, monkeypatch):
    monkeypatch.setenv("MUXSIM_TOKEN", ROOT)
    async with serving(tmp_path, guarded(tmp_path)) as muxsim:
        made = await open_session(muxsim.url, [bearer(ADA)], seed=3)
        for token in (ADA, BOB, MONITOR):
            for name in ("status", "drain", "stop", "end", "inspect", "sessions"):
                refused = await ask(muxsim.url, "POST", f"/operate/{name}", [bearer(token)], {"session": made["id"]})
                assert refused.status == 403
        at = ("--url", muxsim.url)
        (row,) = (await answer("ps", *at))["sessions"]
        assert (row["id"], row["owner"], row["peer"]) == (made["id"], "ada", "127.0.0.1")
        assert (await answer("ctl", "status", *at))["sessions"] == 1
        told = (await ask(muxsim.url, "POST", "/operate/environments", [bearer(ROOT)], {})).json()["environments"]
        assert [(one["name"], one["live"]) for one in told] == [("naughty", 1)]
        assert (await answer("ctl", "inspect", made["id"][:5], *at))["seed"] == 3
        assert (await answer("ctl", "drain", *at))["state"] == "draining"
        assert (await logged(muxsim, event="muxsim.draining"))["by"] == "root from 127.0.0.1"
        assert (await answer("ctl", "resume", *at))["state"] == "serving"
        assert (await command("ctl", "reload", *at))[1] == "nothing has changed\n"
        assert (await answer("ctl", "end", made["id"], *at))["cause"] == "deleted"
        assert (await logged(muxsim, event="session.ended", session=made["id"]))["by"] == "root"
        status, _, problem = await command("ctl", "end", made["id"], *at)
        assert (status, "has ended already" in problem) == (2, True)
        missing = await ask(muxsim.url, "POST", "/operate/explode", [bearer(ROOT)], {})
        assert (missing.status, "there is no command" in missing.error["message"]) == (404, True)
        commands = missing.error["message"].partition("use one of ")[2].split(", ")
        (table,) = re.findall(r"\n\| COMMAND .*?\n\n", (ROOT_FOLDER / "docs/operations.md").read_text(), re.DOTALL)
        named = re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in table.splitlines()[3:] if row))
        assert sorted(named) == sorted(commands), "docs/operations.md says what each takes"
        status, out, _ = await command("ctl", "stop", *at)
        assert (status, "is stopping" in out) == (0, True)
        await eventually(lambda: muxsim.process.poll() is not None)


async def test_what_a_command_does_not_know_is_not_passed_over(tmp_path):
    async with serving(tmp_path, guarded(tmp_path)) as muxsim:
        for name, given, words in (
            ("stop", {"session": "x"}, "stop takes nothing, not 'session'"),
            ("drain", {"wait": True}, "drain takes nothing, not 'wait'"),
            ("end", {"session": "x", "env": "naughty"}, "end takes session, not 'env'"),
            ("loglevel", {"levle": "debug"}, "loglevel takes level and env, not 'levle'"),
            ("loglevel", {"env": "naughty"}, "name a level"),
            ("loglevel", {"level": "debug", "env": ""}, "no environment is called ''"),
            ("logs", {"after": "nan"}, "after must be the whole number"),
            ("logs", {"wait": "x"}, "wait true or seconds"),
            ("sessions", {"envs": "naughty"}, "not by 'envs'"),
        ):
            refused = await ask(muxsim.url, "POST", f"/operate/{name}", [bearer(ROOT)], given)
            assert (refused.status, words in refused.error["message"]) == (409, True), refused.error
        assert (await ask(muxsim.url, "GET", "/ready")).status == 200


async def test_without_tokens_nobody_does_it_over_http_and_a_page_never(tmp_path):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        refused = await ask(muxsim.url, "POST", "/operate/stop", body={})
        assert (refused.status, "muxsim ctl" in refused.error["message"]) == (403, True)
        status, _, problem = await command("ctl", "stop", "--url", muxsim.url)
        assert (status, "token" in problem) == (2, True)
    (tmp_path / "guarded").mkdir()
    async with serving(tmp_path / "guarded", guarded(tmp_path / "guarded")) as muxsim:
        form = [bearer(ROOT), ("Content-Type", "application/x-www-form-urlencoded")]
        assert (await ask(muxsim.url, "POST", "/operate/stop", form, b"x=1")).status == 415
        evil = [bearer(ROOT), ("Origin", "https://evil.example")]
        assert (await ask(muxsim.url, "POST", "/operate/stop", evil, {})).status == 403
        assert (await ask(muxsim.url, "POST", "/operate/stop", [bearer(ROOT)], b"[1]")).status in (400, 415)
        assert (await ask(muxsim.url, "GET", "/operate/stop", [bearer(ROOT)])).status == 405
        assert (await command("ctl", "status", "--url", "http://127.0.0.1:1"))[0] == 2


async def test_another_name_sees_none_of_them_in_a_page_and_a_monitor_no_whole_id(tmp_path):
    async with serving(tmp_path, guarded(tmp_path)) as muxsim:
        made = await open_session(muxsim.url, [bearer(ADA)])
        for query in ("limit=10", "owner=ada", f"seed={made['seed']}"):
            assert (await ask(muxsim.url, "GET", f"/sessions?{query}", [bearer(BOB)])).json()["sessions"] == []
            listed = await ask(muxsim.url, "GET", f"/sessions?{query}", [bearer(MONITOR)])
            (row,) = listed.json()["sessions"]
            assert (row["owner"], "urls" in row, made["id"].encode() in listed.body) == ("ada", False, False)
        await ask(muxsim.url, "DELETE", f"/sessions/{made['id']}", [bearer(ADA)])
        for token, count in ((ADA, 1), (BOB, 0), (MONITOR, 1), (ROOT, 1)):
            page = (await ask(muxsim.url, "GET", "/sessions?cause=deleted", [bearer(token)])).json()
            assert len(page["sessions"]) == count
            assert all(("why" in row) is (token != MONITOR) for row in page["sessions"])
