"""What an operator has to see: each trouble is a line of the log at its usual level, whoever has caused it."""

from __future__ import annotations

import os
import signal

import pytest
from harness import muxsim_serve

from .conftest import environment
from .machine import descendants, eventually, has_zygote, log_lines, logged, zygotes
from .wire import ask, shake_hands

pytestmark = pytest.mark.children

TOKEN = "r" * 40
ROOT = ("Authorization", f"Bearer {TOKEN}")
NEEDY = '[environments.needy]\ncommand = "python3"\nrequirements = ["six"]\nargs = ["-c", "pass"]\n'
CONFIG = '[server]\n[server.auth]\ntokens_env = "TOKENS"\n' + environment("naughty") + NEEDY


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A muxsim whose cache cannot be written: a file is in its place."""
    folder = tmp_path_factory.mktemp("troubles")
    (folder / "cache").write_text("")
    env = {"TOKENS": f"root admin {TOKEN}\nada agent {TOKEN[1:]}x", "MUXSIM_CACHE": str(folder / "cache")}
    with muxsim_serve(folder, CONFIG, env=env) as running:
        yield running


async def test_refused_tokens_are_a_line(running):
    for _ in range(5):
        assert (await ask(running.url, "GET", "/sessions", [("Authorization", "Bearer nobodys")])).status == 401
        assert (await ask(running.url, "GET", "/sessions", [("Authorization", f"Bearer {TOKEN[1:]}x")])).status == 403
    lines = [
        (line["reason"], line.get("principal"), line["level"]) for line in log_lines(running, event="auth.refused")
    ]
    assert lines == [("unknown", None, "warning"), ("scope", "ada", "warning")]


async def test_a_cache_that_cannot_be_written_is_a_line_when_modules_are_learned_and_when_packages_are_to_be_installed(
    running,
):
    client = await shake_hands(running.url, "/mcp?env=naughty", headers=[ROOT])
    await logged(running, event="cache.not_written", folder=f"{running.log.parent}/cache/python", level="warning")
    assert (await client.delete()).status == 204
    refused = await ask(running.url, "POST", "/sessions", [ROOT], body={"env": "needy"})
    assert (refused.status, "name another place with MUXSIM_CACHE" in refused.error["message"]) == (502, True)
    assert "see that" in refused.error["message"]
    await logged(running, event="cache.not_written", folder=f"{running.log.parent}/cache/environments", level="warning")


async def test_a_zygote_that_is_killed_is_a_line(running):
    client = await shake_hands(running.url, "/mcp?env=naughty", headers=[ROOT])
    await eventually(lambda: has_zygote(running.process.pid), 60)
    os.kill(max(zygotes(running.process.pid)), signal.SIGKILL)
    await logged(running, event="zygote.failed", env="naughty", level="warning")
    assert (await client.delete()).status == 204


async def test_a_guardian_that_is_killed_is_a_line_and_what_its_sessions_end_of(running):
    client = await shake_hands(running.url, "/mcp?env=naughty", headers=[ROOT])
    guardian, *_ = descendants(running.process.pid)
    os.kill(guardian, signal.SIGKILL)
    await logged(running, event="process.guardian_died", pid=guardian, exit_status=-9, level="error")
    await logged(running, event="session.ended", session=client.id, cause="guardian_died", level="warning")
    assert (await client.post({"jsonrpc": "2.0", "id": 1, "method": "ping"})).error["data"]["cause"] == "guardian_died"
