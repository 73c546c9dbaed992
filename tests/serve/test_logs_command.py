"""`muxsim logs`, `muxsim ctl loglevel`, and the same by HTTP."""

from __future__ import annotations

import json

import pytest
import trio
from harness import patient, serving

from .conftest import environment
from .machine import eventually, log_lines
from .test_operations import answer, command, runtime  # noqa: F401 - a fixture
from .wire import ask, open_session, shake_hands

pytestmark = pytest.mark.children

DEBUG = "[server]\nlog_level = 'debug'\n"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TOKENS = "ada trainer {ada}\nada agent {agent}\nroot admin {root}\nsight monitor {sight}\n"
ADA, AGENT, ROOT, SIGHT = (letter * 32 for letter in "abcd")


def bearer(token):
    return ("Authorization", f"Bearer {token}")


async def test_the_lines_of_a_session_tell_its_story_in_order_with_who_asked_and_by_which_request(tmp_path):
    (tmp_path / "tokens").write_text(TOKENS.format(ada=ADA, agent=AGENT, root=ROOT, sight=SIGHT))
    (tmp_path / "tokens").chmod(0o600)
    config = f"[server]\nlog_level = 'debug'\n[server.auth]\ntokens_file = '{tmp_path}/tokens'\n"
    async with serving(tmp_path, config + environment("naughty")) as muxsim:
        opening = [bearer(ADA), ("X-Request-ID", "lab-1"), ("traceparent", TRACE)]
        await ask(muxsim.url, "POST", "/sessions", opening, {"id": "story", "seed": 5})
        client = await shake_hands(muxsim.url, "/s/story/mcp", headers=[bearer(ADA), ("X-Request-ID", "lab-2")])
        assert await client.text("say", text="hello") == "hello"
        ending = [bearer(ADA), ("X-Request-ID", "lab-3")]
        assert (await ask(muxsim.url, "DELETE", "/sessions/story", ending)).status == 204
        _, shown, _ = await command("logs", "--json", "--follow", "stor")
        lines = [json.loads(line) for line in shown.splitlines()]
        assert {(line["session"], line["env"], line["seed"]) for line in lines} == {("story", "naughty", 5)}
        assert {line["principal"] for line in lines} == {"ada"}
        story = [line["event"] for line in lines if line["event"] != "backend.stderr"]
        assert story == [
            "session.opening",
            "session.started",
            "session.attached",
            "session.call",
            "session.ready",
            "session.call",
            "session.ended",
        ]
        opened, started, attached, shaken, ready, called, ended = [
            line for line in lines if line["event"] != "backend.stderr"
        ]
        for line in (opened, started, ready):
            assert (line["request"], line["traceparent"]) == ("lab-1", TRACE)
        for line in (attached, shaken, called):
            assert (line["request"], line["attachment"]) == ("lab-2", 1)
        assert (ended["request"], ended["by"]) == ("lab-3", "ada")
        assert "traceparent" not in ended
        assert (called["method"], called["target"]) == ("tools/call", "say")
        assert lines == log_lines(muxsim, session="story"), "nothing else is shown than what is in the log"
        assert not {ADA, AGENT, ROOT} & set(muxsim.log.read_text().split('"')), "no token stands in it"

        of_admin = await ask(muxsim.url, "GET", "/sessions/story/logs?follow=1", [bearer(ROOT)])
        assert of_admin.headers["content-type"].startswith("application/x-ndjson")
        assert [json.loads(line) for line in of_admin.body.splitlines()] == lines
        assert (await ask(muxsim.url, "GET", "/sessions/other/logs", [bearer(ROOT)])).status == 404
        for token in (ADA, AGENT, SIGHT):
            assert (await ask(muxsim.url, "GET", "/sessions/story/logs", [bearer(token)])).status == 403
            assert (await ask(muxsim.url, "PUT", "/loglevel", [bearer(token)], {"level": "debug"})).status == 403


async def test_who_has_to_wait_is_told_of_with_why_and_how_long_and_who_waits_in_vain_with_the_end(tmp_path):
    config = "[server]\nmax_sessions = 1\nqueue_timeout = 600\n" + environment("naughty")
    async with serving(tmp_path, config) as muxsim:
        await open_session(muxsim.url, id="first")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: open_session(muxsim.url, id="second"))
            await eventually(lambda: log_lines(muxsim, session="second", event="pool.queued"))
            await ask(muxsim.url, "DELETE", "/sessions/first")
        story = log_lines(muxsim, session="second")
        assert [line["event"] for line in story][:4] == [
            *("session.opening", "pool.queued", "pool.waited", "session.started"),
        ]
        assert story[1]["limit"] == "max_sessions"
        assert story[2]["admitted"]
        assert story[2]["seconds"] > 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: open_session(muxsim.url, id="third"))
            await eventually(lambda: log_lines(muxsim, session="third", event="pool.queued"))
            nursery.cancel_scope.cancel()
        await eventually(lambda: log_lines(muxsim, session="third", event="session.open_failed"))
        assert "nobody waits" in log_lines(muxsim, session="third")[-1]["error"]


async def test_logs_follow_a_session_to_its_end_and_show_hostile_words_as_what_they_are(tmp_path):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        client = await shake_hands(muxsim.url)
        shown = []

        async def follow():
            shown.append(await command("logs", "-f", client.id[:8]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await client.call("exit", say=["\x1b[31mred\x1b]0;title\x07 \u202eleft"])
        ((status, text, problem),) = shown
        assert (status, problem) == (0, "")
        assert text.splitlines()[-1].split()[3] == "session.ended"
        assert r"\x1b[31mred\x1b]0;title\x07 \u202eleft" in text
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
        assert "no session 'nobody'" in (await command("logs", "nobody"))[2]
        assert (await command("logs"))[1].count("session.ended") == 1


async def test_the_level_can_be_changed_while_it_runs_for_one_environment_too(tmp_path):
    async with serving(tmp_path, environment("naughty") + environment("other")) as muxsim:
        one, other = (
            await shake_hands(muxsim.url, "/envs/naughty/mcp"),
            await shake_hands(muxsim.url, "/envs/other/mcp"),
        )

        async def calls():
            for client in (one, other):
                await client.text("say", text="hello")
            return [line["env"] for line in log_lines(muxsim, event="session.call")]

        assert await calls() == []
        assert await answer("ctl", "loglevel", "debug", "--env", "naughty") == {
            "level": "info",
            "environments": {"naughty": "debug"},
        }
        assert await calls() == ["naughty"]
        assert (await ask(muxsim.url, "PUT", "/loglevel", body={"level": "debug"})).json()["environments"] == {}
        assert await calls() == ["naughty", "naughty", "other"]
        await command("ctl", "loglevel", "error")
        before = len(log_lines(muxsim))
        assert len(await calls()) == 3
        await one.delete()
        assert len(log_lines(muxsim)) == before
        set_to = [(line["least"], line.get("env")) for line in log_lines(muxsim, event="log.level_set")]
        assert set_to == [("debug", "naughty"), ("debug", None), ("error", None)]
        assert (await ask(muxsim.url, "GET", "/loglevel")).json() == {"level": "error", "environments": {}}
        for wrong in ({"level": "loud"}, {"level": "debug", "env": "none"}, {"least": "debug"}, []):
            assert (await ask(muxsim.url, "PUT", "/loglevel", body=wrong)).status == 400
        for args in (("loglevel", "debug", "--env", "none"), ("status", "debug"), ("loglevel", "--env", "naughty")):
            assert (await command("ctl", *args))[0] == 2


async def test_a_level_in_the_config_is_in_use_after_a_reload(tmp_path):
    async with serving(tmp_path, environment("naughty")) as muxsim:
        file = tmp_path / "config" / "muxsim.toml"
        file.write_text(patient(DEBUG + environment("naughty")))
        assert (await answer("ctl", "reload"))["applied"] == ["log_level"]
        assert (await answer("ctl", "loglevel"))["level"] == "debug"
        (line,) = log_lines(muxsim, event="log.level_set")
        assert (line["least"], line["by"]) == ("debug", "the config")
