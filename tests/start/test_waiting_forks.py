"""Forks that wait before there is a session, with nothing of their script run.

Rows are those of the table of faults.
"""

from __future__ import annotations

import errno
import os
import re
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
import trio
from harness import alive
from serve.machine import descriptors, eventually, gone

from muxsim.spec import EnvSpec
from muxsim.start.prepared import Prepared
from start.playing import (
    LIMITS,
    PYTHON,
    Played,
    assert_sees_the_same,
    counted,
    in_time,  # noqa: F401
    learn,
    own_cache,  # noqa: F401
    probe,
    script,
    slots_counted,
    some_pool,
    starts,
    zygote_of,
)

pytestmark = pytest.mark.children

START = 120  # s; on a machine that is busy with other tests
# Says when it begins.
BEGUN = "open({begun!r}, 'a').write('x')\nimport os, sys\n"


def begins(folder, text="SEED = os.environ['MUXSIM_SEED']\n", *, warm=1, **fields):
    """A script that leaves a mark in a file when it begins, and then does this."""
    begun = folder / "begun"
    begun.touch()
    return script(folder, BEGUN.format(begun=str(begun)) + text, warm=warm, **fields), begun


@asynccontextmanager
async def waiting_pool(spec, **settings):
    """A pool with a zygote, and as many forks of it as are wanted that wait."""
    async with some_pool(**settings) as pool:
        pool.keep_warm([spec])
        await learn(pool, spec)
        await ready(pool, spec)
        yield pool


async def ready(pool, spec, number=None):
    number = (1 if spec.warm is None else spec.warm) if number is None else number
    await eventually(lambda: of(pool, spec).ready == number, within=START)


def of(pool, spec):
    return pool.statistics().placement.warm[spec.name]


def waiting(pool):
    return [slot.process.pid for slot in pool.placement.starter.warm._waiting.values()]


async def hit(pool, spec, seed=1):
    """Play a session, which has to be one that waited."""
    before = slots_counted(pool, spec, "used")
    pids = waiting(pool)
    async with Played(pool, spec, seed) as played:
        assert played.backend.pid in pids
    assert slots_counted(pool, spec, "used") == before + 1
    return played


@pytest.mark.parametrize(
    "fields",
    [
        {"warm": 1, "args": ("--seed", "{seed}")},
        {"warm": 1, "args": ("-", "--seed={seed}", "{workspace}", "{session_id}"), "env": {"FOR": "{session_id}"}},
        {"warm": 1, "args": (), "cwd": "/tmp"},
        {"warm": 1, "args": (), "env": {"TZ": "Etc/GMT-{seed}"}},
        {"warm": None, "args": ("--seed", "{seed}"), "env": {"FOR": "{seed}"}},
    ],
)
@pytest.mark.fault("C27", "C28")
async def test_a_script_cannot_tell_that_it_was_waited_for(fields):
    """C27, C28: it sees what it sees in a fresh process, its descriptors included."""
    args = fields.pop("args")
    spec = probe(*args, **fields)
    async with waiting_pool(spec) as pool:
        early = await hit(pool, spec, 7)
        async with Played(pool, replace(probe(*args, zygote=False, **fields), warm=0), 7) as fresh:
            pass

    assert_sees_the_same(early, fresh)
    assert early.status == fresh.status == 0


async def test_a_fork_that_nobody_speaks_to_keeps_nobody_waiting():
    """Who opens a hundred before speaking to any would wait as for a hundred starts, one after the other."""
    spec = probe("--seed", "{seed}", warm=1)
    async with waiting_pool(spec, max_starting=1) as pool, AsyncExitStack() as stack:
        for seed in range(4):
            played = await stack.enter_async_context(Played(pool, spec, seed))
            assert played.backend.way != "fresh"
            assert pool.statistics().leases.starting == 0


async def test_a_folder_of_each_sessions_own_is_entered_when_there_is_a_session(tmp_path):
    for seed in (1, 7):
        (tmp_path / str(seed)).mkdir()
    spec, begun = begins(tmp_path, "PLACE = os.getcwd()\n", cwd=str(tmp_path / "{seed}"))
    async with waiting_pool(spec) as pool:
        assert (await hit(pool, spec, 7)).told["PLACE"] == str(tmp_path / "7")
        assert begun.read_text() == "xx"


@pytest.mark.parametrize("ends", [True, False])
async def test_whoever_wants_waiting_ones_has_them_before_a_first_session(tmp_path, ends):
    spec, begun = begins(tmp_path, "" if ends else "import time, wave\ntime.sleep(1000)\n", warm=2)
    async with some_pool() as pool:
        pool.keep_warm([spec])
        await ready(pool, spec)
        assert begun.read_text() == "x"  # a rehearsal, which is over
        assert starts(pool, "learner") == 1
        if ends:
            await hit(pool, spec)


async def test_a_script_that_fails_when_it_is_rehearsed_is_rehearsed_once(tmp_path):
    spec, begun = begins(tmp_path, "sys.exit('no')\n", warm=2)
    async with some_pool() as pool:
        pool.keep_warm([spec])
        await eventually(lambda: starts(pool, "learner") == 1 and begun.read_text(), within=START)
        await eventually(lambda: of(pool, spec).starting == 0, within=START)
        assert begun.read_text() == "x"


async def test_of_one_that_does_not_ask_for_it_nothing_runs_before_a_first_session(tmp_path):
    spec, begun = begins(tmp_path, warm=None)
    async with some_pool() as pool:
        pool.keep_warm([spec])
        await eventually(lambda: of(pool, spec).wanted == 1 and of(pool, spec).starting == 0, within=START)
        assert begun.read_text() == ""


@pytest.mark.parametrize("warm", [None, 2])
async def test_what_waits_has_run_nothing_of_its_script(tmp_path, warm):
    spec, begun = begins(tmp_path, warm=warm)
    async with waiting_pool(spec) as pool:
        assert begun.read_text() == "x"  # the learner's
        played = await hit(pool, spec, 7)
        assert played.told["SEED"] == "7"
        await ready(pool, spec)
        assert begun.read_text() == "xx"


@pytest.mark.parametrize("warm", [None, 1])
async def test_what_a_session_is_given_is_there_for_code_in_c_from_the_first_line(tmp_path, warm):
    look = "import ctypes\ngetenv = ctypes.CDLL(None).getenv\ngetenv.restype = ctypes.c_char_p\n"
    text = look + "SEEN = [str(getenv(name)) for name in (b'MUXSIM_SEED', b'FOR')]\n"
    spec, _ = begins(tmp_path, text, warm=warm, env={"FOR": "seed {seed}"})
    async with waiting_pool(spec) as pool:
        assert (await hit(pool, spec, 7)).told["SEEN"] == ["b'7'", "b'seed 7'"]


@pytest.mark.parametrize("warm", [None, 1])
async def test_each_session_that_finds_none_has_one_more_wait_unless_it_is_said_how_many(tmp_path, warm):
    spec, _ = begins(tmp_path, warm=warm)
    async with waiting_pool(spec) as pool:
        before = slots_counted(pool, spec, "missed")

        async def play(seed):
            async with Played(pool, spec, seed):
                pass

        async with trio.open_nursery() as nursery:
            for seed in range(4):
                nursery.start_soon(play, seed)
        missed = slots_counted(pool, spec, "missed") - before
        assert 0 < missed < 4
        await ready(pool, spec, 1 if warm else 1 + missed)


@pytest.mark.parametrize("fields", [{"warm": 0}, {"zygote": False}, {"shared": True}])
async def test_where_none_is_wanted_none_waits(tmp_path, fields):
    spec, _ = begins(tmp_path, **{"warm": None, **fields})
    async with some_pool() as pool:
        pool.keep_warm([spec])
        async with Played(pool, spec, 1):
            assert pool.statistics().placement.warm == {}


async def test_a_pool_of_one_session_keeps_none(tmp_path):
    spec, _ = begins(tmp_path, warm=None)
    async with some_pool(max_sessions=1) as pool:
        pool.keep_warm([spec])
        async with Played(pool, spec, 1):
            assert pool.statistics().placement.warm == {}


async def test_a_module_that_was_waited_for_runs_as_with_m(tmp_path):
    text = "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--seed')\n"
    begun = BEGUN.format(begun=str(tmp_path / "begun"))
    script(tmp_path, f"{begun}{text}SEED = parser.parse_args().seed\nARGV = sys.argv\n", "game/__main__.py")
    args = ("-m", "game", "--seed", "{seed}")
    spec = EnvSpec(name="game", command=PYTHON, args=args, cwd=str(tmp_path), limits=LIMITS, warm=1)
    async with waiting_pool(spec) as pool:
        played = await hit(pool, spec, 7)
    assert played.told["SEED"] == "7"
    assert played.told["ARGV"] == [str(tmp_path / "game" / "__main__.py"), "--seed", "7"]


async def test_each_that_waits_draws_random_numbers_of_its_own(tmp_path):
    spec, _ = begins(tmp_path, "import random\nDRAWN = random.random()\n")
    async with waiting_pool(spec) as pool:
        drawn = []
        for seed in range(3):
            drawn.append((await hit(pool, spec, seed)).told["DRAWN"])
            await ready(pool, spec)
    assert len(set(drawn)) == 3


async def test_a_changed_script_outdates_what_waits(tmp_path):
    spec, _ = begins(tmp_path, "VERSION = 1\n")
    async with waiting_pool(spec) as pool:
        begins(tmp_path, "VERSION = 'another'\n")
        async with Played(pool, spec, 1) as played:
            assert played.told["VERSION"] == "another"
        assert slots_counted(pool, spec, "replaced") == 1


@pytest.mark.parametrize("where", ["beside.py", "package/inner/beside.py"])
async def test_a_changed_module_of_the_scripts_own_is_imported_as_it_is_now(tmp_path, where):
    module = tmp_path / where
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text("VERSION = 1\n")
    name = where.removesuffix(".py").replace("/", ".")
    spec, _ = begins(tmp_path, f"from {name} import VERSION\nSEED = os.environ['MUXSIM_SEED']\n")
    async with waiting_pool(spec) as pool:
        assert (await hit(pool, spec, 7)).told["VERSION"] == 1
        await ready(pool, spec)
        module.write_text("VERSION = 'another'\n")
        assert (await hit(pool, spec, 7)).told["VERSION"] == "another"


# ---- faults


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.fault("C1")
async def test_a_slot_that_died_is_never_used_and_is_replaced(tmp_path, number):
    """C1."""
    spec, _ = begins(tmp_path, warm=2)
    async with waiting_pool(spec) as pool:
        dead, living = waiting(pool)
        os.kill(dead, number)
        await gone(dead)
        async with Played(pool, spec, 7) as played:
            assert played.backend.pid == living
        await eventually(lambda: slots_counted(pool, spec, "died") == 1)
        await ready(pool, spec)


@pytest.mark.fault("C1")
async def test_a_slot_that_dies_just_when_it_is_used_is_no_sessions_end(tmp_path, monkeypatch):
    """C1: the session starts without it."""
    spec, _ = begins(tmp_path)
    async with waiting_pool(spec) as pool:
        activate = Prepared.activate

        async def dying(self, command):
            os.kill(self.process.pid, signal.SIGKILL)
            await self.process.wait()
            return await activate(self, command)

        monkeypatch.setattr(Prepared, "activate", dying)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(restore_soon, monkeypatch, activate)
            async with Played(pool, spec, 7) as played:
                assert played.told["SEED"] == "7"
        assert (slots_counted(pool, spec, "used"), slots_counted(pool, spec, "died")) == (0, 1)


async def restore_soon(monkeypatch, activate):
    """The next fork is activated as ever."""
    await eventually(lambda: Prepared.activate is not activate)
    monkeypatch.setattr(Prepared, "activate", activate)


@pytest.mark.parametrize("warm", [None, 3])
@pytest.mark.fault("H7")
async def test_the_end_of_a_pool_ends_what_waits(tmp_path, warm):
    """H7, for an end in peace."""
    spec, _ = begins(tmp_path, warm=warm)
    async with waiting_pool(spec) as pool:
        pids = waiting(pool)
        assert pids
        assert all(map(alive, pids))
    await gone(*pids)


async def test_a_killed_zygote_takes_nothing_that_waits_with_it(tmp_path):
    spec, _ = begins(tmp_path)
    async with waiting_pool(spec) as pool:
        zygote = zygote_of(pool).process.pid
        os.kill(zygote, signal.SIGKILL)
        await gone(zygote)
        assert (await hit(pool, spec, 7)).told["SEED"] == "7"
        await eventually(lambda: counted(pool).total("zygotes_started") == 2, within=START)
        await ready(pool, spec)


async def test_a_fork_without_descriptors_for_its_pipes_leaves_none_behind(tmp_path, monkeypatch):
    spec, _ = begins(tmp_path)
    async with waiting_pool(spec) as pool:
        pipe, asked = os.pipe2, []

        def two_left(flags):
            asked.append(flags)
            if len(asked) > 2:
                raise OSError(errno.EMFILE, "no more")
            return pipe(flags)

        monkeypatch.setattr(os, "pipe2", two_left)
        before = len(descriptors(os.getpid()))
        await hit(pool, spec)
        await eventually(lambda: asked[2:] and of(pool, spec).starting == of(pool, spec).ready == 0, within=START)
        assert len(descriptors(os.getpid())) <= before


# ---- pages


def private(pid):
    """KiB of memory that a process shares with nobody."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))


@pytest.mark.parametrize(("said", "studies"), [(1, 1), (4, 3)])
async def test_a_fork_that_waits_has_copies_of_the_pages_that_its_like_have_written_to(tmp_path, said, studies):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "heavy.py").write_text("WORDS = [str(number) * 9 for number in range(100_000)]\n")
    say = "print(json.dumps({'jsonrpc': '2.0', 'method': 'told', 'params': []}), flush=True)\n"
    # Each word is counted as in use, and no more, while this goes through them.
    text = f"import heavy, json\nLETTERS = sum(map(len, heavy.WORDS))\n{(said - 1) * say}"
    spec, _ = begins(tmp_path, text, warm=None, env={"PYTHONPATH": str(tmp_path / "site")})
    async with waiting_pool(spec) as pool:
        (slot,) = waiting(pool)
        before = private(slot)
        async with Played(pool, spec, 1) as played:
            assert played.backend.pid == slot
            await eventually(lambda: zygote_of(pool).studies == studies)
        await ready(pool, spec)
        await hit(pool, spec)  # a slot that may have been made before the last study was over
        await ready(pool, spec)
        (slot,) = waiting(pool)
        await eventually(lambda: private(slot) > before + 5_000)


def at_hand(pid, library):
    """KiB of a library's file that a process reads without asking the kernel."""
    with open(f"/proc/{pid}/smaps") as file:
        entries = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", file.read(), flags=re.MULTILINE)
    return sum(int(re.search(r"^Rss: +(\d+)", entry, re.MULTILINE)[1]) for entry in entries if library in entry)


async def test_a_fork_that_waits_has_at_hand_what_its_like_have_read_of_libraries(tmp_path):
    # A table of a megabyte, of which an import reads next to nothing.
    text = "import json, unicodedata\nNAMES = [unicodedata.name(chr(number), '') for number in range(0x20000)]\n"
    spec, _ = begins(tmp_path, "SEED = os.environ['MUXSIM_SEED']\n" + text, warm=None)
    async with waiting_pool(spec) as pool:
        (slot,) = waiting(pool)
        before = at_hand(slot, "unicodedata")
        async with Played(pool, spec, 1) as played:
            assert played.backend.pid == slot
            await eventually(lambda: zygote_of(pool).studies == 1)
        await ready(pool, spec)
        await hit(pool, spec)  # a slot that may have been made before the study was over
        await ready(pool, spec)
        (slot,) = waiting(pool)
        await eventually(lambda: at_hand(slot, "unicodedata") > before + 300)
