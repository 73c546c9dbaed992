"""Backends that are forked from a zygote, beside fresh ones. Rows are those of the table of faults."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from contextlib import AsyncExitStack

import pytest
import trio
from harness import alive
from serve.machine import eventually

from muxsim import inside
from muxsim.spec import Confinement, EnvSpec, Limits
from muxsim.start.fork import client, keeper
from muxsim.start.fork.keeper import rest_after
from start.playing import (
    LIMITS,
    PROBE,
    PYTHON,
    Played,
    assert_sees_the_same,
    counted,
    forked,
    in_time,  # noqa: F401
    learn,
    own_cache,  # noqa: F401
    probe,
    script,
    some_pool,
    starts,
    zygote_of,
)

pytestmark = pytest.mark.children


# ---- a fork is as a fresh process


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"cwd": "/", "env": {"PLACE": "{workspace}", "TMPDIR": "{workspace}", "TZ": "Asia/Tokyo"}},
        {"confinement": Confinement(nice=3, max_open_files=100)},
    ],
)
@pytest.mark.fault("C27", "C28")
async def test_a_fork_sees_what_a_fresh_process_sees(fields, monkeypatch):
    """C27, C28: also no descriptors but its three, and no variables but its own."""
    monkeypatch.setenv("MUXSIM_TEST_SECRET", "not for children")
    async with some_pool() as pool:
        first = await learn(pool, probe("--seed", "{seed}", **fields))
        fork = await forked(pool, probe("--seed", "{seed}", **fields))
        async with Played(pool, probe("--seed", "{seed}", zygote=False, **fields), 1) as fresh:
            pass

    for played in (fork, first):
        assert_sees_the_same(played, fresh)
    assert [played.status for played in (first, fork, fresh)] == [0, 0, 0]


async def test_the_options_of_the_interpreter_are_a_forks_too():
    spec = EnvSpec(
        name="probe", command=PYTHON, args=("-E", "-s", "-B", "-W", "ignore", "-X", "dev", str(PROBE)), cwd="/"
    )
    async with some_pool() as pool:
        first = await learn(pool, spec)
        fork = await forked(pool, spec)
    assert fork.told["seen"]["flags"] == first.told["seen"]["flags"]
    assert fork.told["seen"]["warnings"] == first.told["seen"]["warnings"] == ["default", "ignore"]


async def test_a_module_is_run_as_with_m(tmp_path):
    package = tmp_path / "game"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rules.py").write_text("SIZE = 4\n")
    text = "from . import rules\nSIZE = rules.SIZE\nSELF = [__name__, __package__, __spec__.name, __file__]\n"
    script(tmp_path, text + "import sys\nARGV = sys.argv\nFIRST = sys.path[0]\n", "game/__main__.py")
    spec = EnvSpec(name="game", command=PYTHON, args=("-m", "game", "--x"), cwd=str(tmp_path), limits=LIMITS)
    async with some_pool() as pool:
        first = await learn(pool, spec)
        fork = await forked(pool, spec)
    file = str(package / "__main__.py")
    for played in (first, fork):
        assert played.told["SELF"] == ["__main__", "game", "game.__main__", file]
        assert (played.told["ARGV"], played.told["FIRST"], played.told["SIZE"]) == ([file, "--x"], str(tmp_path), 4)


@pytest.mark.parametrize("what", ["spawn", "fork"])
async def test_multiprocessing_works_in_a_fork(what):
    async with some_pool() as pool:
        await learn(pool, probe(what))
        async with Played(pool, probe(what), 1) as fork:
            await eventually(lambda: len(fork.listener.told) == 2, within=60)
        assert fork.listener.told[1] == [2, 4]
        assert starts(pool, "fork") == 1


@pytest.mark.parametrize(
    ("what", "status"), [("raise", 1), ("exit", 3), ("complain", 1), ("interrupt", -signal.SIGINT), ("", 0)]
)
@pytest.mark.fault("C1", "C2")
async def test_a_fork_ends_as_a_fresh_process_does(what, status):
    """C1, C2: with the same status, the same words, and no frame of ours among them."""
    async with some_pool() as pool:
        await learn(pool, probe(what))
        ends = []
        for zygote in (True, False):
            async with Played(pool, probe(what, zygote=zygote), 1) as played:
                if what:
                    await eventually(lambda played=played: played.exit is not None, within=60)
            ends.append((played.status, played.listener.lines))
        assert starts(pool, "fork") == 1
    assert ends[0] == ends[1]
    assert ends[0][0] == status


async def test_what_a_fork_has_not_closed_or_ended_is_written_and_ended_when_it_exits(tmp_path):
    """Although the modules of the zygote are not taken apart then."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "keeper.py").write_text(
        "import os\nkept = []\nHOW = os.O_CREAT | os.O_APPEND | os.O_WRONLY\n"
        "def note(path, text, open=os.open, write=os.write, how=HOW):\n    write(open(path, how), text.encode())\n"
    )
    text = f"""
import atexit, keeper
folder = {str(tmp_path)!r}
keeper.kept += [open(folder + "/text", "a"), open(folder + "/bytes", "ab")]
keeper.kept[0].write("text ")
keeper.kept[1].write(b"bytes ")
mine = open(folder + "/mine", "a")
mine.write("mine ")
class Ending:
    def __del__(self, note=keeper.note, path=folder + "/ended"):
        note(path, "ended ")
ending = Ending()
atexit.register(keeper.note, folder + "/atexit", "atexit ")
"""
    spec = script(tmp_path, text, env={"PYTHONPATH": str(tmp_path / "site")})
    async with some_pool() as pool:
        await learn(pool, spec)
        await forked(pool, spec)
    for name in ("text", "bytes", "mine", "ended", "atexit"):
        assert (tmp_path / name).read_text() == f"{name} " * 2


async def test_each_fork_draws_random_numbers_of_its_own():
    async with some_pool() as pool:
        await learn(pool, probe())
        forks = [await forked(pool, probe()) for _ in range(2)]
    assert not set(map(str, forks[0].told["drawn"])) & set(map(str, forks[1].told["drawn"]))


LUCK = """
import random
import numpy
FREE = [random.Random(), numpy.random.default_rng(), numpy.random.RandomState()]
FIXED = [random.Random(7), numpy.random.default_rng(7), numpy.random.RandomState(7)]
"""


async def test_the_global_generators_of_libraries_and_of_modules_are_renewed_and_seeded_ones_are_not(tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    (site / "luck.py").write_text(LUCK)
    text = "import luck, numpy\nDRAWN = [float(one.random_sample() if hasattr(one, 'random_sample') else one.random())"
    text += " for one in (*luck.FREE, numpy.random)]\nFIXED = [float(one.random()) for one in luck.FIXED[:2]]\n"
    text += "FIXED.append(luck.FIXED[2].random_sample())\n"
    spec = script(tmp_path / "env", text, env={"PYTHONPATH": str(site)})
    async with some_pool() as pool:
        first = await learn(pool, spec)
        forks = [await forked(pool, spec) for _ in range(2)]
        assert "luck" not in str(pool.placement.starter.zygotes._keepers["scripted"]._learning.learned.left_out)
    drawn = [number for played in (first, *forks) for number in played.told["DRAWN"]]
    assert len(set(drawn)) == len(drawn) == 12
    assert forks[0].told["FIXED"] == forks[1].told["FIXED"] == first.told["FIXED"]


async def test_what_comes_with_the_script_is_imported_by_each_session_itself(tmp_path):
    spec = script(tmp_path / "env", "import state, json.tool\nSTATE = state.START\n", cwd="/")
    (tmp_path / "env" / "state.py").write_text("import os\nSTART = [os.getpid(), os.environ['MUXSIM_SEED']]\n")
    async with some_pool() as pool:
        await learn(pool, spec)
        fork = await forked(pool, spec, seed=5)
        assert fork.told["STATE"] == [fork.told["PID"], "5"]
        (tmp_path / "env" / "state.py").write_text("START = 'written anew'\n")
        assert (await forked(pool, spec)).told["STATE"] == "written anew"


async def test_a_changed_script_is_run_as_it_is_now(tmp_path):
    spec = script(tmp_path, "VERSION = 1\n")
    async with some_pool() as pool:
        await learn(pool, spec)
        assert (await forked(pool, spec)).told["VERSION"] == 1
        script(tmp_path, "VERSION = 'two'\n")
        async with Played(pool, spec, 1) as played:
            assert played.told["VERSION"] == "two"


async def test_a_module_that_changed_since_the_zygote_imported_it_is_read_anew(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "rules.py").write_text("VERSION = 1\n")
    spec = script(tmp_path / "env", "import rules\nV = rules.VERSION\n", env={"PYTHONPATH": str(tmp_path / "lib")})
    async with some_pool() as pool:
        await learn(pool, spec)
        assert (await forked(pool, spec)).told["V"] == 1
        (tmp_path / "lib" / "rules.py").write_text("VERSION = 'two'\n")
        async with Played(pool, spec, 1) as played:
            assert played.told["V"] == "two"
        assert (await forked(pool, spec)).told["V"] == "two"


# ---- learning


async def test_what_was_learned_is_known_in_the_next_run():
    async with some_pool() as pool:
        await learn(pool, probe())
    async with some_pool() as pool:
        await forked(pool, probe())
        assert starts(pool, "learner") == 0


async def test_the_zygote_imports_what_the_script_did_and_what_the_spec_names(tmp_path):
    async with some_pool() as pool:
        spec = script(tmp_path, "import wsgiref.util\n", preload=("tabnanny",))
        await learn(pool, spec)
        fork = await forked(pool, spec)
        assert {"wsgiref.util", "tabnanny"} <= set(fork.told["MODULES"])
        assert "script" not in fork.told["MODULES"]


async def test_what_the_learner_imports_only_later_is_held_too_as_soon_as_it_is_known(tmp_path):
    spec = script(tmp_path, "", after="import tabnanny\n")
    async with some_pool() as pool:
        await learn(pool, spec)

        def is_replaced():
            ready = [zygote.ready.is_set() for zygote in pool.placement.starter.zygotes.fleet.alive]
            return counted(pool).total("zygotes_started") == 2 and ready == [True]

        await eventually(is_replaced, within=60)
        assert "tabnanny" in (await forked(pool, spec)).told["MODULES"]


async def test_sessions_that_come_while_one_learns_are_served():
    async with some_pool() as pool:
        played = []

        async def one(seed):
            async with Played(pool, probe("{seed}"), seed) as session:
                played.append(session)

        async with trio.open_nursery() as nursery:
            for seed in range(12):
                nursery.start_soon(one, seed)
        assert sorted(int(one.told["seen"]["argv"][1]) for one in played) == list(range(12))
        assert starts(pool, "learner") == 1
        assert starts(pool, "fork") + starts(pool, "fresh") == 11
        assert starts(pool, "fork") > 0


@pytest.mark.parametrize("fields", [{"zygote": False}, {"shared": True}])
async def test_there_is_none_where_none_is_wanted(fields):
    async with some_pool() as pool:
        for _ in range(2):
            async with Played(pool, probe(**fields), 1):
                pass
        assert counted(pool).total("starts") == counted(pool).total("zygotes_started") == 0


async def test_there_is_none_for_one_session_alone():
    async with some_pool(max_sessions=1) as pool:
        async with Played(pool, probe(), 1):
            pass
        assert starts(pool, "learner") == 0


# ---- processes


def grandchildren(kind):
    return f"""
import os, signal
def start(kind):
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if kind != "group":
            os.setsid()
        if kind == "double" and os.fork():
            os._exit(0)
        for fd in (0, 1, 2):
            os.close(fd)
        os.write(tell, b"%d" % os.getpid())
        while True:
            signal.pause()
    if kind == "double":
        os.waitpid(pid, 0)
    return int(os.read(told, 20))
GRANDCHILD = start("{kind}")
"""


@pytest.mark.parametrize("kind", ["group", "setsid", "double"])
@pytest.mark.fault("C20", "C21")
async def test_a_forks_grandchildren_go_with_it_and_only_with_it_C20_C21(tmp_path, kind):
    """C20, C21: though the kernel shows of all of them the environment of the zygote."""
    spec = script(tmp_path, grandchildren(kind))
    async with some_pool() as pool:
        await learn(pool, spec)
        async with Played(pool, spec, 1) as other:
            played = await forked(pool, spec)
            assert not alive(played.told["GRANDCHILD"])
            assert alive(other.told["GRANDCHILD"])
        assert not alive(other.told["GRANDCHILD"])
        assert counted(pool).total("processes_swept") == counted(pool).total("processes_ended") > 0


@pytest.mark.fault("C19")
async def test_a_stubborn_fork_is_killed_C19(tmp_path):
    """C19."""
    spec = script(
        tmp_path,
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n",
        after="import time\ntime.sleep(1000)\n",
    )
    async with some_pool() as pool:
        await learn(pool, spec)
        with trio.fail_after(60):
            played = await forked(pool, spec)
        assert played.status == -signal.SIGKILL
        assert not alive(played.told["PID"])


@pytest.mark.fault("C3")
async def test_a_fork_that_exits_at_start_tells_its_status_and_last_words_C3(tmp_path):
    """C3."""
    text = "import os, sys\nif os.environ['MUXSIM_SEED'] == '9':\n    sys.exit('no such level')\n"
    spec = script(tmp_path, text)
    async with some_pool() as pool:
        await learn(pool, spec)
        played = await forked(pool, spec, seed=9)
        assert (played.exit.returncode, played.exit.stderr) == (1, ("no such level",))


async def test_a_killed_zygote_takes_no_session_with_it_and_is_replaced(monkeypatch):
    """Zygote killed while sessions run: they go on, and new ones start."""
    monkeypatch.setattr(keeper, "FIRST_REST", 60.0)
    async with some_pool() as pool:
        await learn(pool, probe())
        async with AsyncExitStack() as stack:
            running = [await stack.enter_async_context(Played(pool, probe(), seed)) for seed in range(20)]
            zygote = zygote_of(pool)
            os.kill(zygote.process.pid, signal.SIGKILL)
            await zygote.gone.wait()
            async with Played(pool, probe(), 3) as fresh:
                assert starts(pool, "fork") == 20
                assert starts(pool, "fresh") == 1
            pool.placement.starter.zygotes._keepers["probe"]._rest_until = 0.0  # it has rested
            await forked(pool, probe())
            assert all(alive(played.told["pid"]) for played in running)
        assert {played.status for played in (*running, fresh)} == {0}
        now = pool.statistics().placement.zygotes
        made = counted(pool)
        assert (made.total("zygotes_started"), made.total("zygotes_failed"), now.alive) == (2, 1, 1)


async def test_a_zygote_that_hangs_while_it_is_asked_to_fork_delays_a_session_and_no_more(monkeypatch):
    monkeypatch.setattr(client, "FORK_SILENCE", 0.3)
    async with some_pool() as pool:
        await learn(pool, probe())
        os.kill(zygote_of(pool).process.pid, signal.SIGSTOP)
        async with Played(pool, probe(), 1):
            assert starts(pool, "fresh") == 1
        await eventually(lambda: pool.statistics().placement.zygotes.alive == 0)


@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_guardian_that_is_killed_takes_all_with_it_and_the_next_sessions_start(number):
    async with some_pool() as pool:
        await learn(pool, probe())
        async with Played(pool, probe(), 1) as played:
            os.kill(pool.statistics().placement.processes.guardian_pid, signal.SIGKILL)
            await eventually(lambda: not alive(played.told["pid"]))
        async with Played(pool, probe(), 1) as next_one:
            assert next_one.told["pid"] != played.told["pid"]


# ---- modules that cannot be held


TROUBLE = {
    "thread": ("import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()", "thread"),
    "socket": ("import socket\nkept = socket.socket()", "leaves something open when it is imported: socket:"),
    "file": ("kept = open('/dev/null')", "/dev/null"),
    "process": ("import subprocess\nkept = subprocess.Popen(['sleep', '9'])", "starts a process"),
    "session": ("import os\nseed = os.environ.get('MUXSIM_SEED')", "reads MUXSIM_SEED"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_a_module_that_cannot_be_shared_is_found_and_left_out(tmp_path, caplog, trouble):
    code, why = TROUBLE[trouble]
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "trouble.py").write_text(code + "\n")
    (tmp_path / "site" / "outer.py").write_text("import wsgiref.util, trouble\n")
    spec = script(tmp_path / "env", "import outer, csv\n", env={"PYTHONPATH": str(tmp_path / "site")})
    for run in range(2):
        caplog.clear()
        async with some_pool() as pool:
            if run == 0:
                await learn(pool, spec)
            fork = await forked(pool, spec)
            assert {"trouble", "outer", "csv"} <= set(fork.told["MODULES"])
            held = [record.getMessage() for record in caplog.records]
            if run == 0:
                assert any("trouble" in line and why in line for line in held)
                assert any("outer" in line for line in held)
            else:  # what was found out is remembered
                assert held == []
                assert counted(pool).total("zygotes_started") == 1


async def test_a_preload_that_hangs_is_left_out_and_sessions_start_meanwhile(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(keeper, "LEAST_PATIENCE", 0.2)
    monkeypatch.setattr(keeper, "FIRST_REST", 0.1)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "hangs.py").write_text("import time\ntime.sleep(1000)\n")
    limits = Limits(eof_timeout=0.3, term_timeout=0.3)
    env = {"PYTHONPATH": str(tmp_path / "site")}
    spec = script(tmp_path / "env", "", env=env, preload=("hangs",))
    spec = EnvSpec(name=spec.name, command=spec.command, args=spec.args, env=env, preload=("hangs",), limits=limits)
    async with some_pool() as pool:
        async with Played(pool, spec, 1), Played(pool, spec, 2):
            assert starts(pool, "fork") == 0
        await eventually(lambda: "hangs" in caplog.text, within=60)
        its = pool.placement.starter.zygotes._keepers[spec.name]
        await eventually(lambda: its._failures > 0 and its._is_worth_a_try(), within=60)
        monkeypatch.setattr(keeper, "LEAST_PATIENCE", 30)
        await forked(pool, spec)
    assert "still importing hangs after" in caplog.text


async def test_an_interpreter_that_cannot_run_ours_is_used_without_a_zygote(tmp_path, caplog):
    strange = tmp_path / "python3"
    strange.write_text(
        f'#!/bin/sh\ncase "$1" in *.py) ;; esac\n[ "$1" = "{PROBE}" ] && exec {sys.executable} "$@"\nexit 9\n'
    )
    strange.chmod(0o755)
    spec = EnvSpec(name="strange", command=str(strange), args=(str(PROBE),), cwd="/", limits=LIMITS)
    async with some_pool() as pool:
        for _ in range(3):
            async with Played(pool, spec, 1) as played:
                assert played.told
        assert starts(pool, "fresh") == 3
    complaints = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(complaints) == 1
    assert "could not run the script" in complaints[0].getMessage()


async def test_a_zygote_that_cannot_be_made_is_complained_of_once_and_tried_again_ever_more_rarely(caplog, monkeypatch):
    async with some_pool() as pool:
        await learn(pool, probe())
        monkeypatch.setattr(keeper, "FIRST_REST", 0.0)
        os.kill(zygote_of(pool).process.pid, signal.SIGKILL)
        await eventually(lambda: counted(pool).total("zygotes_failed") == 1)
        monkeypatch.setattr(inside, "ZYGOTE", ("/no/such/folder/begin.py", "zygote"))
        for _ in range(3):
            async with Played(pool, probe(), 1) as played:
                assert played.told
        assert counted(pool).total("zygotes_failed") == 4
    assert len([record for record in caplog.records if "start.afresh" in record.getMessage()]) == 1


async def test_a_zygote_that_cannot_be_told_what_it_is_for_is_one_that_failed_and_no_bug(monkeypatch, caplog):
    """It may have ended already, and is stopped before anybody follows it."""

    def instruct(self, recipe):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    async with some_pool() as pool:
        monkeypatch.setattr(keeper, "FIRST_REST", 0.0)
        monkeypatch.setattr(client.Zygote, "instruct", instruct)
        for _ in range(3):
            async with Played(pool, probe(), 1) as played:
                assert played.told
        await eventually(lambda: counted(pool).total("zygotes_failed") >= 2)
        assert counted(pool).total("parts_failed") == 0
    assert [record for record in caplog.records if record.exc_info] == []


async def test_the_rest_grows_to_a_minute():
    assert [rest_after(failures) for failures in (0, 1, 2, 3, 7, 50)] == [0, 1, 2, 4, 60, 60]
