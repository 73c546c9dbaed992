"""Sessions whose workspace begins as a folder, however their process is started."""

from __future__ import annotations

import os
import sys
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from serve.machine import eventually

from muxsim.errors import PlaceError
from muxsim.provision.preflight import problems
from muxsim.spec import EnvSpec, Limits
from start.playing import (
    LIMITS,
    Played,
    in_time,  # noqa: F401
    learn,
    own_cache,  # noqa: F401
    script,
    slots_counted,
    some_pool,
    starts,
)

pytestmark = pytest.mark.children

# What it finds, and then leaves beside it.
LOOKS = """
import os
PLACE = os.environ["MUXSIM_WORKSPACE"]
FOUND = {name: open(os.path.join(PLACE, name)).read() for name in sorted(os.listdir(PLACE))}
open(os.path.join(PLACE, "left"), "w").write("mine")
HERE = os.getcwd()
"""
WAYS = {"fresh": {"zygote": False}, "fork": {"warm": 0}, "waiting": {"warm": 1}}


@pytest.fixture
def prepared(tmp_path):
    folder = tmp_path / "prepared"
    folder.mkdir()
    (folder / "task.txt").write_text("as it was")
    return folder


def looks(tmp_path, prepared, **fields):
    return script(tmp_path / "own", LOOKS, workspace_from=str(prepared), **fields)


@asynccontextmanager
async def ready_pool(spec):
    """A pool in which what can be ready for a session is."""
    async with some_pool() as pool:
        pool.keep_warm([spec])
        if spec.zygote:
            await learn(pool, spec)
        await eventually(lambda: waits(pool, spec), within=60)
        yield pool


def waits(pool, spec):
    return not spec.warm or pool.statistics().placement.warm[spec.name].ready == spec.warm


async def found(pool, spec, seed=1):
    async with Played(pool, spec, seed) as played:
        pass
    return played.told


@pytest.mark.parametrize("way", WAYS)
async def test_each_session_begins_with_the_folder_and_has_it_for_itself(tmp_path, prepared, way):
    spec = looks(tmp_path, prepared, **WAYS[way])
    async with ready_pool(spec) as pool:
        for _ in range(2):
            assert (await found(pool, spec))["FOUND"] == {"task.txt": "as it was"}
            await eventually(lambda: waits(pool, spec), within=60)
        assert slots_counted(pool, spec, "used") == (2 if way == "waiting" else 0)
        assert starts(pool, "fork") >= (2 if way == "fork" else 0)
        root = pool.placement.folders.root
    assert sorted(os.listdir(prepared)) == ["task.txt"]
    assert not root.exists()


async def test_one_that_waits_begins_anew_when_the_folder_has_changed(tmp_path, prepared):
    spec = looks(tmp_path, prepared, warm=1)
    async with ready_pool(spec) as pool:
        (prepared / "task.txt").write_text("another")
        (prepared / "more.txt").write_text("more")
        assert (await found(pool, spec))["FOUND"] == {"task.txt": "another", "more.txt": "more"}
        assert slots_counted(pool, spec, "used") == 1


@pytest.mark.parametrize("way", WAYS)
async def test_the_folder_can_be_chosen_by_the_seed(tmp_path, prepared, way):
    for seed in (1, 7):
        (prepared / str(seed) / "repo").mkdir(parents=True)
        (prepared / str(seed) / "repo" / "task.txt").write_text(f"of {seed}")
    text = LOOKS.replace("PLACE = ", "PLACE = os.environ['MUXSIM_WORKSPACE'] + '/repo' #")
    spec = script(tmp_path / "own", text, workspace_from=f"{prepared}/{{seed}}", cwd="{workspace}/repo", **WAYS[way])
    async with ready_pool(spec) as pool:
        told = await found(pool, spec, 7)
        assert told["FOUND"] == {"task.txt": "of 7"}
        assert told["HERE"] == told["PLACE"]
        assert slots_counted(pool, spec, "used") == (1 if way == "waiting" else 0)


async def test_a_node_that_waits_has_the_folder_of_its_session(tmp_path, prepared):
    for seed in (1, 7):
        (prepared / str(seed) / "repo").mkdir(parents=True)
        (prepared / str(seed) / "repo" / "task.txt").write_text(f"of {seed}")
    (tmp_path / "tell.cjs").write_text(
        "const params = { here: process.cwd(), text: require('fs').readFileSync('task.txt', 'utf8') };\n"
        "console.log(JSON.stringify({ jsonrpc: '2.0', method: 'told', params }));\n"
        "process.stdin.resume();\n"
    )
    spec = EnvSpec(
        name="tell",
        command="node",
        args=(str(tmp_path / "tell.cjs"),),
        cwd="{workspace}/repo",
        workspace_from=f"{prepared}/{{seed}}",
        limits=LIMITS,
        warm=1,
    )
    async with some_pool() as pool:
        pool.keep_warm([spec])
        await eventually(lambda: waits(pool, spec), within=60)
        assert (await found(pool, spec, 7))["text"] == "of 7"
        assert slots_counted(pool, spec, "used") == 1


async def test_a_server_that_runs_already_is_not_used_when_the_folder_has_changed(tmp_path, prepared):
    server = looks(tmp_path, prepared)
    spec = replace(server, seeded=False, warm=2)
    async with some_pool() as pool:
        pool.keep_warm([spec])
        await eventually(lambda: waits(pool, spec), within=60)
        assert (await found(pool, spec))["FOUND"] == {"task.txt": "as it was"}
        assert slots_counted(pool, spec, "used") == 1
        (prepared / "task.txt").write_text("another")
        assert (await found(pool, spec))["FOUND"] == {"task.txt": "another"}
        await eventually(lambda: waits(pool, spec), within=60)
        assert (await found(pool, spec))["FOUND"] == {"task.txt": "another"}
        assert slots_counted(pool, spec, "used") == 2


@pytest.mark.parametrize("way", WAYS)
async def test_a_folder_that_cannot_be_copied_fails_that_opening_and_leaves_nothing(tmp_path, prepared, way):
    spec = looks(tmp_path, prepared, **WAYS[way])
    async with ready_pool(spec) as pool:
        folders = pool.placement.folders.root
        os.mkfifo(prepared / "pipe")
        with pytest.raises(PlaceError, match=r"'scripted': workspace_from: .*/pipe is a FIFO.*take it out"):
            await found(pool, spec)
        os.unlink(prepared / "pipe")
        assert (await found(pool, spec))["FOUND"] == {"task.txt": "as it was"}
        pool.keep_warm([])
        await eventually(lambda: not [one for one in folders.iterdir() if one.name.startswith("scripted-")], within=60)


async def test_a_folder_that_takes_too_long_is_named_and_given_up(tmp_path, prepared):
    # Nothing but holes to be read, and no end of them.
    for number in range(2):
        with (prepared / f"large-{number}").open("wb") as file:
            file.truncate(2**40)
    short = Limits(start_timeout=1.0)
    spec = EnvSpec(name="slow", command=sys.executable, args=("-c", ""), workspace_from=str(prepared), limits=short)
    async with some_pool() as pool:
        lease = await pool.acquire(spec)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "lseek", _no_holes)
            with trio.fail_after(60), pytest.raises(PlaceError, match=r"not copied within 0.9 s: .* start_timeout"):
                await pool.start(lease, seed=1, session="s", listener=None)
        await pool.release(lease)
        assert not [one for one in pool.placement.folders.root.iterdir() if one.name.startswith("slow-")]


def _no_holes(*_):
    raise OSError(22, "unknown here")


async def test_a_config_with_a_folder_that_is_missing_is_found_before_any_start(tmp_path, prepared):
    def found(workspace_from):
        spec = EnvSpec(name="a", command=sys.executable, workspace_from=workspace_from)
        return problems([spec], {"PATH": os.environ["PATH"]})

    assert found(str(prepared)) == found(f"{prepared}/{{seed}}") == found("") == []
    assert found(f"{prepared}/task.txt") == [f"environment 'a': workspace_from: {prepared}/task.txt: Not a directory"]
    assert found(f"{tmp_path}/none/{{seed}}") == [
        f"environment 'a': workspace_from: {tmp_path}/none: No such file or directory"
    ]


@pytest.mark.parametrize("begun_as", ["a folder", "nothing"])
async def test_what_is_run_before_there_is_a_session_leaves_nothing_in_the_folder_of_one(tmp_path, prepared, begun_as):
    """A script is rehearsed for whoever keeps some ready, with all that it writes."""
    spec = looks(tmp_path, prepared, warm=1)
    there = {"task.txt": "as it was"}
    if begun_as == "nothing":
        spec, there = replace(spec, workspace_from=""), {}
    async with some_pool() as pool:
        pool.keep_warm([spec])
        await eventually(lambda: waits(pool, spec), within=60)
        assert starts(pool, "learner") == 1
        assert (await found(pool, spec))["FOUND"] == there
        assert slots_counted(pool, spec, "used") == 1
