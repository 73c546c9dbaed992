"""The gateways that the end-to-end tests share, and what each test has to leave behind: nothing."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import trio
from harness import Running, muxsim_serve

from .games import EXAMPLES, GAMES, play_directly

# Seconds. muxsim needs less than two; a machine may be busy with others.
GRACE = 30.0
_LOOK_AGAIN = 0.02

HERE = Path(__file__).resolve().parent
SERVERS = HERE / "servers.toml"


@dataclass
class Gateway:
    """A running `muxsim serve`, and the config that it serves."""

    config: Path
    running: Running

    @property
    def url(self):
        return self.running.url

    @property
    def pid(self):
        return self.running.process.pid

    def health(self):
        """What ``GET /health`` says."""
        return httpx2.get(f"{self.url}/health").raise_for_status().json()

    def sessions_started(self):
        """How many sessions there have been, by the log."""
        events = [json.loads(line)["event"] for line in self.running.log.read_text().splitlines()]
        return events.count("session.started")

    def wait_empty(self):
        """Wait until no session is left; nothing tells us when."""
        deadline = time.monotonic() + GRACE
        while (health := self.health())["sessions"] and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN)
        assert health["sessions"] == 0, f"sessions are left {GRACE} s after the test"


@pytest.fixture(scope="package")
def _examples(tmp_path_factory):
    with muxsim_serve(tmp_path_factory.mktemp("examples"), EXAMPLES) as running:
        yield Gateway(EXAMPLES, running)


@pytest.fixture
def examples(_examples):
    """The examples' config, served. Afterwards none of the test's sessions is left."""
    yield _examples
    _examples.wait_empty()


@pytest.fixture(scope="package")
def npm_cache(tmp_path_factory):
    """Where muxsim installs what npx names: empty before the first of these tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="package")
def _servers(tmp_path_factory, npm_cache):
    with muxsim_serve(tmp_path_factory.mktemp("servers"), SERVERS, env={"MUXSIM_CACHE": str(npm_cache)}) as running:
        yield Gateway(SERVERS, running)


@pytest.fixture
def servers(_servers, npm_cache, monkeypatch):
    """The config servers.toml, served; ``muxsim stdio`` finds what it has installed too. Nothing is left afterwards."""
    monkeypatch.setenv("MUXSIM_CACHE", str(npm_cache))
    yield _servers
    _servers.wait_empty()


@pytest.fixture(scope="package")
def references():
    """By environment, the transcript of its game when it is played with no muxsim between."""

    async def play_all():
        played = {}
        with trio.fail_after(60):
            for game in GAMES:
                played[game.env] = await play_directly(game)
        return played

    return trio.run(play_all)
