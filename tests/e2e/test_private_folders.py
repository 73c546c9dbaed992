"""Packaged servers that keep what they know beside their own code, or in one file for all: no two sessions meet."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio
from cli.terminal import muxsim
from processes.enclosed import Client

from muxsim.admission.admission import Capacity
from muxsim.admission.pool import open_pool
from muxsim.observe.events import Events
from muxsim.processes.reach import why_not
from muxsim.session.registry import open_sessions
from muxsim.spec import Confinement, EnvSpec

pytestmark = [pytest.mark.children, pytest.mark.network]

SESSIONS = 32
CAPACITY = Capacity(max_sessions=SESSIONS, max_pending=SESSIONS, queue_timeout=120, max_starting=8)
MEMORY = ("-y", "@modelcontextprotocol/server-memory@2026.8.31")
SQLITE = ("--with", "mcp<2", "mcp-server-sqlite==2025.4.25", "--db-path")


async def at_once(spec, use, sessions_in_all=SESSIONS):
    """What comes of the use of so many sessions, each by its number, all of them open before the first is used."""
    used, opened, everybody = {}, [], trio.Event()

    async def one(sessions, number):
        client = Client(await sessions.open(spec.name))
        await client.initialize()
        opened.append(number)
        if len(opened) == sessions_in_all:
            everybody.set()
        await everybody.wait()
        used[number] = await use(client, number)

    with trio.fail_after(300):
        async with (
            open_pool(CAPACITY) as pool,
            open_sessions(pool, {spec.name: spec}, Events()) as sessions,
            trio.open_nursery() as nursery,
        ):
            for number in range(sessions_in_all):
                nursery.start_soon(one, sessions, number)
    return used


async def remember(client, number):
    entity = {"name": f"number {number}", "entityType": "number", "observations": []}
    await client.call("create_entities", entities=[entity])
    return [entity["name"] for entity in (await client.value("read_graph"))["entities"]]


async def test_each_of_many_sessions_remembers_its_own_and_nothing_of_others():
    used = await at_once(EnvSpec(name="memory", command="npx", args=MEMORY), remember)
    assert used == {number: [f"number {number}"] for number in range(SESSIONS)}
    # Nor does one that comes later, of another muxsim.
    assert await at_once(EnvSpec(name="memory", command="npx", args=MEMORY), remember, 1) == {0: ["number 0"]}


async def insert(client, number):
    await client.call("write_query", query=f"INSERT INTO notes VALUES ('number {number}')")
    return await client.text("read_query", query="SELECT text FROM notes ORDER BY text")


async def test_each_of_many_sessions_begins_with_one_database_and_writes_to_its_own(tmp_path, monkeypatch):
    # The tests' own uv lies beside their interpreter.
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    database = tmp_path / "notes.db"
    with closing(sqlite3.connect(database)) as made:
        made.executescript("CREATE TABLE notes (text); INSERT INTO notes VALUES ('before');")
    before = database.read_bytes()
    spec = EnvSpec(name="sqlite", command="uvx", args=(*SQLITE, str(database)), private=(str(tmp_path),))
    used = await at_once(spec, insert)
    assert used == {number: str([{"text": "before"}, {"text": f"number {number}"}]) for number in range(SESSIONS)}
    assert database.read_bytes() == before


@pytest.mark.skipif(why_not() is not None, reason=f"no Landlock that would do: {why_not()}")
async def test_packaged_servers_keep_what_they_know_behind_walls_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    with closing(sqlite3.connect(tmp_path / "notes.db")) as made:
        made.executescript("CREATE TABLE notes (text);")
    walls = Confinement(sandbox="landlock")
    spec = EnvSpec(name="memory", command="npx", args=MEMORY, confinement=walls)
    assert await at_once(spec, remember, 3) == {number: [f"number {number}"] for number in range(3)}
    tool = ("--with", "mcp<2", "--from", "mcp-server-sqlite==2025.4.25", "mcp-server-sqlite")
    args = (*tool, "--db-path", str(tmp_path / "notes.db"))
    spec = EnvSpec(name="sqlite", command="uvx", args=args, private=(str(tmp_path),), confinement=walls)
    used = await at_once(spec, insert, 3)
    assert used == {number: str([{"text": f"number {number}"}]) for number in range(3)}


@pytest.mark.parametrize(("setting", "independent"), [("", True), ("private = []", False)])
def test_a_check_calls_sessions_independent_that_have_views_of_their_own(tmp_path, setting, independent):
    (tmp_path / "muxsim.toml").write_text(
        f'[environments.memory]\ncommand = "npx"\nargs = {json.dumps(MEMORY)}\nseeded = false\n{setting}\n'
    )
    finished = muxsim(tmp_path, "check", "memory", "--json", "--steps", "5")
    found = {finding["name"]: finding["ok"] for finding in json.loads(finished.stdout)["findings"]}
    assert found["interleaved sessions are independent"] is independent
