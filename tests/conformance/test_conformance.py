"""The official suite, against the same server directly and behind muxsim: the two result tables are equal.

Sessions by handshake are made by the suite itself, one or more a scenario. 2026-07-28 has no handshake: all of its
scenarios share one session, and so one backend, behind one session URL.
"""

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx2
import pytest
import trio

from .run import FIXTURE_FOLDER, HERE, SCENARIO_COUNTS, differences, failures, install, render, run_suite

pytestmark = [pytest.mark.conformance, pytest.mark.children]

FIXTURE = FIXTURE_FOLDER / "server.mjs"
MUXSIM = Path(sys.executable).with_name("muxsim")

# What the environment's processes carry, so that one left behind can be told from somebody else's.
RUN_VARIABLE = "MUXSIM_CONFORMANCE_RUN"

STATELESS_REVISION = "2026-07-28"
READY_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
GONE_TIMEOUT_S = 60

# The suite leaves a call's stream 10 s after it has opened, which muxsim does after `stream_silence`, and then asks for
# the answer for 5 s: it has to come in between.
CONFIG = """
[server]
stream_silence = 3
log_level = "warning"
[environments.fixture]
command = "node"
args = ["{server}", "--stdio", "--reconnection-work", "15000"]
env = {{ {variable} = "{run}" }}
"""

UrlFor = Callable[[str], Awaitable[str]]  # a revision -> the URL that serves it


@pytest.fixture(scope="session", autouse=True)
def _installed():
    for folder in (HERE, FIXTURE_FOLDER):
        install(folder)


@asynccontextmanager
async def listening(command: list[str]) -> AsyncIterator[str]:
    """Runs a server until the block ends. Yields the origin of the first URL on its stdout: `http://127.0.0.1:PORT`."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(trio.run_process, command, check=False, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        )
        with trio.fail_after(READY_TIMEOUT_S):
            origin = await first_origin(process.stdout)
        nursery.start_soon(drain, process.stdout)
        yield origin
        with trio.move_on_after(STOP_TIMEOUT_S) as patience:
            process.send_signal(signal.SIGTERM)
            await process.wait()
        nursery.cancel_scope.cancel()
    assert not patience.cancelled_caught, f"{command[0]} did not end within {STOP_TIMEOUT_S} s of SIGTERM"


async def first_origin(stdout: trio.abc.ReceiveStream) -> str:
    printed = ""
    while (match := re.search(r"(http://127\.0\.0\.1:\d+)\D", printed)) is None:
        chunk = await stdout.receive_some()
        assert chunk, f"the server ended before it named a URL: {printed!r}"
        printed += chunk.decode()
    return match[1]


async def drain(stdout: trio.abc.ReceiveStream) -> None:
    async for _ in stdout:
        pass


@asynccontextmanager
async def served_directly(tmp_path: Path) -> AsyncIterator[UrlFor]:
    async with listening(["node", str(FIXTURE), "--http", "0"]) as origin:

        async def url_for(revision: str) -> str:
            return f"{origin}/mcp"

        yield url_for


@asynccontextmanager
async def served_by_muxsim(tmp_path: Path) -> AsyncIterator[UrlFor]:
    run = uuid.uuid4().hex
    config = tmp_path / "muxsim.toml"
    config.write_text(CONFIG.format(server=FIXTURE, variable=RUN_VARIABLE, run=run))
    async with listening([str(MUXSIM), "serve", str(config), "--port", "0"]) as origin:

        async def url_for(revision: str) -> str:
            return await session_url(origin) if revision == STATELESS_REVISION else f"{origin}/mcp?env=fixture"

        yield url_for
    await gone(f"{RUN_VARIABLE}={run}")


async def session_url(origin: str) -> str:
    async with httpx2.AsyncClient() as client:
        response = await client.post(f"{origin}/sessions", json={"env": "fixture"})
    assert response.status_code == 201, response.text
    url: str = response.json()["urls"]["mcp"]
    return url if url.startswith("http") else origin + url


async def gone(setting: str) -> None:
    """Returns once no process has `setting` in its environment."""
    left: list[int] = []
    with trio.move_on_after(GONE_TIMEOUT_S):
        while left := processes_with(setting):  # noqa: ASYNC110 - /proc has no event to wait for
            await trio.sleep(0.05)
    assert not left, f"muxsim left processes behind: {left}"


def processes_with(setting: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # ended while we looked, or somebody else's
            continue
        if os.fsencode(setting) in environment:
            found.append(int(folder.name))
    return found


async def table_of(
    serving: Callable[[Path], AbstractAsyncContextManager[UrlFor]], tmp_path: Path, suite: str, revision: str
):
    async with serving(tmp_path) as url_for:
        return await run_suite(suite, revision, await url_for(revision))


@pytest.mark.parametrize(("suite", "revision"), SCENARIO_COUNTS)
async def test_a_server_behind_muxsim_gets_the_verdicts_it_gets_without(tmp_path, suite, revision):
    # One after the other: beside each other on a busy machine, the suite finds the server itself too slow.
    direct = await table_of(served_directly, tmp_path, suite, revision)
    proxied = await table_of(served_by_muxsim, tmp_path, suite, revision)
    assert failures(direct) == []
    print(f"\nbehind muxsim, suite {suite}, revision {revision}\n{render(proxied)}")
    assert failures(proxied) == []
    assert differences(direct, proxied) == []

    protection = proxied.get("dns-rebinding-protection")
    if revision == "2025-06-18":  # the suite has the scenario from 2025-11-25 on
        assert protection is None
    else:
        assert [check.status for check in protection if check.id.startswith("localhost-host-")] == ["SUCCESS"] * 2
