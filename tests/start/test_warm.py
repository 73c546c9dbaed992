"""Processes that are ready before anybody asks. Rows are those of the table of faults."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import trio
from harness import SERVERS, alive
from serve.machine import descriptors, eventually, gone

from muxsim.admission.admission import Capacity, MemoryReading
from muxsim.admission.pool import open_pool
from muxsim.errors import Busy, StartError
from muxsim.observe.counters import Counters
from muxsim.observe.events import Events, SlotsKeepDying, SlotsNotHad
from muxsim.placement import local
from muxsim.processes.command import ProcessStartError
from muxsim.processes.process import Process
from muxsim.provision.npm_packages import finding
from muxsim.runtime import descriptors as descriptors_left
from muxsim.runtime.soon import begin, may_wait
from muxsim.spec import Confinement, EnvSpec, Limits
from muxsim.start.slots import policy
from start.playing import slots_counted

pytestmark = pytest.mark.children

LIMITS = Limits(eof_timeout=0.2, term_timeout=0.2)
START = 120  # s; on a machine that is busy with other tests
EARLY = """
exports.colour = process.env.COLOUR;
exports.loadedBy = require.main?.filename ?? null;
"""


@pytest.fixture
def package(tmp_path):
    """A folder with scripts that tell of themselves, and a package that they depend on."""
    folder = tmp_path / "package"
    shutil.copytree(SERVERS / "warm", folder)
    early = folder / "node_modules" / "early"
    early.mkdir(parents=True)
    (early / "package.json").write_text('{"name": "early", "version": "1.0.0", "main": "index.js"}')
    (early / "index.js").write_text(EARLY)
    return folder


def node(package, script="tell.js", *options, warm=1, **fields):
    args = (*options, str(package / script), "--seed", "{seed}")
    env = {"COLOUR": "green", "SEEDS": "{seed} {session_id}", **fields.pop("env", {})}
    return EnvSpec(
        **{
            "name": "tell",
            "command": "node",
            "args": args,
            "env": env,
            "cwd": str(package),
            "limits": LIMITS,
            **fields,
        },
        warm=warm,
    )


def few(limit):
    """Room for so many sessions."""
    return Capacity(max_sessions=limit, max_pending=2, queue_timeout=600, max_starting=8)


class Listener:
    """Keeps what a backend says."""

    clients_ready = True
    traffic = None

    def __init__(self):
        self.messages = []
        self.lines = []

    def from_backend(self, message):
        self.messages.append(message)

    def unreadable(self, line, error):
        """Told by nobody here."""

    def stderr(self, line):
        self.lines.append(line)

    def backend_drained(self):
        """Nobody waits."""

    async def wait_clients_ready(self):
        """They are."""


@asynccontextmanager
async def some_pool(*specs, limit=4):
    with trio.fail_after(60):
        async with open_pool(few(limit), events=Events(Counters())) as pool:
            pool.keep_warm(specs)
            for spec in specs:
                await ready(pool, spec)
            yield pool


def of(pool, spec):
    return pool.statistics().placement.warm[spec.name]


async def ready(pool, spec):
    """Wait until all of its slots wait."""
    await eventually(lambda: of(pool, spec).ready == spec.warm, within=START)


def waiting(pool):
    """The pids of the processes that wait."""
    return [slot.process.pid for slot in pool.placement.starter.warm._waiting.values()]


async def run_once(pool, spec, *, seed=7, session="s", now=False):
    """One session from start to end: what it told, its process id and the last lines it wrote."""
    listener = Listener()
    if now:
        lease = begin(pool.acquire(spec)).value
        started = begin(pool.start(lease, seed=seed, session=session, listener=listener))
        assert started.ready
        backend = started.value
    else:
        lease = await pool.acquire(spec)
        backend = await pool.start(lease, seed=seed, session=session, listener=listener)
    pid = backend.pid
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.run)
        await eventually(lambda: listener.messages and listener.lines, within=START)
        nursery.cancel_scope.cancel()
    await backend.end()
    told = bytes(listener.messages[0].params).decode().replace(str(lease.workspace), "WORKSPACE")
    await pool.release(lease)
    return json.loads(told), pid, listener.lines


def without_mark(told):
    """What it told, but for the mark that each process has of its own."""
    return {**told, "env": {key: value for key, value in told["env"].items() if key != "MUXSIM_PROCESS"}}


@pytest.mark.parametrize("script", ["tell.js", "tell.cjs"])
@pytest.mark.parametrize("options", [(), ("--no-deprecation", "--stack-trace-limit=50")])
async def test_a_script_cannot_tell_that_it_was_waited_for(package, script, options):
    """C28: its environment included."""
    spec = node(package, script, *options)
    async with some_pool(spec) as pool:
        (slot,) = waiting(pool)
        warm, pid, lines = await run_once(pool, spec)
        assert pid == slot
        assert "MUXSIM_PROCESS" in warm["env"]
    async with some_pool() as pool:
        fresh, _, fresh_lines = await run_once(pool, spec)
    assert without_mark(warm) == without_mark(fresh)
    assert lines == fresh_lines
    assert warm["argv"][1:] == [str(package / script), "--seed", "7"]
    assert warm["env"]["SEEDS"] == "7 s"
    assert warm["late"] == ["7", ["--seed", "7"], "green"]


@pytest.mark.parametrize("script", ["tell.js", "tell.cjs"])
async def test_a_script_with_npm_packages_of_its_own_waits_as_any_other_and_finds_them(package, script):
    home = package.parent / "store" / "npm"
    shutil.move(package / "node_modules", home / "node_modules")
    (home / "package.json").write_text('{"dependencies": {"early": "1.0.0"}}')
    spec = finding(node(package, script), home)
    async with some_pool(spec) as pool:
        (slot,) = waiting(pool)
        warm, pid, _ = await run_once(pool, spec)
        assert pid == slot
    async with some_pool() as pool:
        fresh, _, _ = await run_once(pool, spec)
    assert warm["colour"] == "green"
    assert without_mark(warm) == without_mark(fresh)


@pytest.mark.parametrize("own", ["{workspace}", "{seed}"])
async def test_a_folder_of_each_sessions_own_is_entered_when_there_is_a_session(package, own):
    (package / "7").mkdir()
    spec = node(package, cwd=own if own == "{workspace}" else str(package / own))
    async with some_pool(spec) as pool:
        told, _, _ = await run_once(pool, spec, seed=7)
        assert told["cwd"] == ("WORKSPACE" if own == "{workspace}" else str(package / "7"))
        assert told["env"]["MUXSIM_WORKSPACE"] == "WORKSPACE"
        assert slots_counted(pool, spec, "used") == 1


async def test_a_waiting_process_has_three_descriptors_of_ours(package):
    """C27."""
    spec = node(package)
    async with some_pool(spec) as pool:
        (pid,) = waiting(pool)
        lease = await pool.acquire(spec)
        listener = Listener()
        backend = await pool.start(lease, seed=1, session="s", listener=listener)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.run)
            await eventually(lambda: listener.messages, within=START)
            pipes = sorted(fd for fd, what in descriptors(pid).items() if what.startswith("pipe:"))
            ours = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)}
            assert [fd for fd in pipes if descriptors(pid).get(fd) in ours] == [0, 1, 2]
            assert not any("socket" in what for what in descriptors(pid).values())
            nursery.cancel_scope.cancel()
        await backend.end()
        await pool.release(lease)


async def test_no_process_serves_two_sessions_and_each_that_is_used_is_replaced(package):
    spec = node(package, warm=2)
    async with some_pool(spec) as pool:
        pids = []
        for seed in range(4):
            await ready(pool, spec)
            told, pid, _ = await run_once(pool, spec, seed=seed)
            assert told["late"][0] == str(seed)
            pids.append(pid)
        assert len(set(pids)) == 4
        assert slots_counted(pool, spec, "used") == 4
        assert slots_counted(pool, spec, "missed") == 0


async def test_who_comes_when_none_is_ready_gets_a_fresh_process(package):
    spec = node(package)
    async with some_pool(spec) as pool:
        pids = set()
        leases = [await pool.acquire(spec) for _ in range(2)]
        for lease in leases:
            backend = await pool.start(lease, seed=1, session="s", listener=Listener())
            pids.add(backend.pid)
            await backend.end()
            await pool.release(lease)
        assert len(pids) == 2
        assert (slots_counted(pool, spec, "used"), slots_counted(pool, spec, "missed")) == (1, 1)


# ---- without waiting


async def test_who_finds_a_process_ready_has_it_without_waiting(package):
    spec = node(package)
    async with some_pool(spec) as pool:
        (slot,) = waiting(pool)
        told, pid, _ = await run_once(pool, spec, now=True)
        assert (pid, told["late"][0]) == (slot, "7")
        assert (slots_counted(pool, spec, "used"), slots_counted(pool, spec, "missed")) == (1, 0)


async def start_one(pool, spec):
    """Whether a session's process was there at once, and its pid; it is ended, and nothing of it is left."""
    lease = await pool.acquire(spec)
    start = begin(pool.start(lease, seed=1, session="s", listener=Listener()))
    at_once = start.ready
    try:
        backend = await start
        await backend.end()
    finally:
        await pool.release(lease)
        assert pool.statistics().leases.held == 0
    return at_once, backend.pid


async def test_who_finds_none_ready_goes_on_from_there_and_has_missed_once(package):
    spec = node(package)
    async with some_pool(spec) as pool:
        (slot,) = waiting(pool)
        await pool.placement.make_room()
        at_once, pid = await start_one(pool, spec)
        assert (at_once, pid == slot) == (False, False)
        assert (slots_counted(pool, spec, "used"), slots_counted(pool, spec, "missed")) == (0, 1)


async def test_an_order_that_no_pipe_holds_is_taken_by_the_same_process_a_little_later(package):
    spec = node(package, env={"LONG": "x" * 100_000})
    async with some_pool(spec) as pool:
        (slot,) = waiting(pool)
        assert await start_one(pool, spec) == (False, slot)
        assert (slots_counted(pool, spec, "used"), slots_counted(pool, spec, "missed")) == (1, 0)


async def test_an_order_that_nobody_waits_for_ends_the_process_that_has_half_of_it(package):
    spec = node(package, env={"LONG": "x" * 100_000})
    async with some_pool(spec) as pool:
        (slot,) = waiting(pool)
        lease = await pool.acquire(spec)
        start = begin(pool.start(lease, seed=1, session="s", listener=Listener()))
        assert not start.ready
        del start
        gc.collect()
        await gone(slot)
        await pool.release(lease)


async def test_what_has_ended_or_is_outdated_is_nothing_that_is_ready(package, monkeypatch):
    spec = node(package)
    async with some_pool(spec) as pool:
        with monkeypatch.context() as patched:
            patched.setattr(Process, "has_exited", lambda _: True)
            assert not (await start_one(pool, spec))[0]
        await ready(pool, spec)
        (package / "tell.js").write_text((package / "tell.js").read_text() + "\n")
        assert not (await start_one(pool, spec))[0]
        counts = [slots_counted(pool, spec, what) for what in ("used", "died", "replaced")]
        assert counts == [0, 1, 1]


async def test_a_process_whose_pipes_cannot_be_used_is_ended(package, monkeypatch):
    spec = node(package)
    async with some_pool(spec) as pool:
        (slot,) = waiting(pool)

        def no_more(*_):
            raise OSError(24, "too many")

        with monkeypatch.context() as patched:
            patched.setattr(local, "Child", no_more)
            with pytest.raises(Busy, match="its pipes cannot be used"):
                await start_one(pool, spec)
        await gone(slot)


async def test_nobody_has_a_place_at_once_that_is_taken_and_who_does_not_wait_leaves_the_queue(package):
    spec = node(package)
    async with some_pool(spec, limit=1) as pool:
        lease = await pool.acquire(spec)
        queued = begin(pool.acquire(spec))
        assert not queued.ready
        assert pool.statistics().leases.waiting == 1
        del queued
        gc.collect()
        assert pool.statistics().leases.waiting == 0
        queued = begin(pool.acquire(spec))
        await pool.release(lease)
        lease = await queued
        await pool.release(lease)


async def test_nobody_has_a_place_at_once_while_memory_is_short_or_has_to_be_measured(package, monkeypatch):
    spec = node(package)

    async def short(*, anew=False):
        return MemoryReading(2, 1, "here")

    async def slow(*, anew=False):
        await may_wait()
        await trio.lowlevel.checkpoint()

    async with some_pool(spec) as pool:
        monkeypatch.setattr(pool, "_meter", SimpleNamespace(read=slow))
        asked = begin(pool.acquire(spec))
        assert not asked.ready
        await pool.release(await asked)
        monkeypatch.setattr(pool, "_meter", SimpleNamespace(read=short))
        asked = begin(pool.acquire(spec))
        assert not asked.ready
        with pytest.raises(Busy, match="memory is short"):
            await asked
        assert of(pool, spec).ready == 0, "what was kept ready went first"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_slot_that_died_is_never_used_and_is_replaced(package, how):
    """C1."""
    spec = node(package, warm=2)
    async with some_pool(spec) as pool:
        dead, living = waiting(pool)
        os.kill(dead, how)
        await gone(dead)
        _, pid, _ = await run_once(pool, spec)
        assert pid == living
        await eventually(lambda: slots_counted(pool, spec, "died") == 1)
        await ready(pool, spec)


async def test_a_slot_that_was_used_and_is_killed_ends_its_session_as_any_other(package):
    """C1."""
    spec = node(package)
    async with some_pool(spec) as pool:
        lease = await pool.acquire(spec)
        backend = await pool.start(lease, seed=1, session="s", listener=Listener())
        os.kill(backend.pid, signal.SIGKILL)
        with trio.fail_after(60):
            exit = await backend.run()
        assert exit.reason == "the backend was killed by SIGKILL"
        await backend.end()
        await pool.release(lease)
        assert slots_counted(pool, spec, "used") == 1


@pytest.mark.parametrize("script", ["tell.js", "tell.cjs"])
@pytest.mark.parametrize("timer", ["setTimeout", "setInterval", ""])
async def test_a_time_that_a_module_sets_as_it_is_loaded_begins_with_the_session(package, script, timer):
    """Or it would be over as soon as there is one."""
    made = package / "made"
    sets = timer and f"{timer}(() => {{}}, 1e6);"
    (package / "node_modules" / "early" / "index.js").write_text(
        f"exports.colour = require('node:fs').existsSync('{made}');\nexports.loadedBy = null;\n{sets}\n"
    )
    spec = node(package, script)
    async with some_pool(spec) as pool:
        made.touch()
        assert (await run_once(pool, spec))[0]["colour"] is bool(timer)
        assert slots_counted(pool, spec, "used") == 1


@pytest.mark.parametrize("script", ["exit.mjs", "exit.cjs", "throw.mjs", "throw.cjs"])
async def test_a_script_that_ends_at_its_start_says_why(package, script):
    """C3."""
    (package / "exit.mjs").write_text("import 'early';\nconsole.error('no licence');\nprocess.exit(3);\n")
    (package / "exit.cjs").write_text("require('early');\nconsole.error('no licence');\nprocess.exit(3);\n")
    (package / "throw.mjs").write_text("import 'early';\nthrow new Error('no licence');\n")
    (package / "throw.cjs").write_text("const early = require('early');\nthrow new Error('no licence');\n")
    spec = node(package, script)
    async with some_pool(spec) as pool:
        lease = await pool.acquire(spec)
        backend = await pool.start(lease, seed=1, session="s", listener=Listener())
        exit = await backend.run()
        assert exit.returncode == (3 if script.startswith("exit") else 1)
        assert "no licence" in "\n".join(exit.stderr)
        assert "unhandled" not in "\n".join(exit.stderr).lower()
        await backend.end()
        await pool.release(lease)
        assert slots_counted(pool, spec, "used") == 1


async def test_slots_that_keep_dying_are_told_once_and_sessions_start_without(package):
    """C4."""
    told = []
    (package / "node_modules" / "early" / "index.js").write_text("process.exit(4)")
    spec = node(package)
    with trio.fail_after(60):
        async with open_pool(few(1), events=Events(told.append, Counters())) as pool:
            pool.keep_warm([spec])
            await eventually(lambda: slots_counted(pool, spec, "died") == 3, within=START)
    keep_dying = [event for event in told if isinstance(event, SlotsKeepDying)]
    assert keep_dying == [SlotsKeepDying("tell", "exit status 4")]


async def test_a_slot_that_goes_for_its_age_counts_as_replaced(package, monkeypatch):
    monkeypatch.setattr(policy, "MAX_AGE", 0.0)
    spec = node(package)
    async with some_pool(spec) as pool:
        await eventually(lambda: slots_counted(pool, spec, "replaced") > 0, within=START)
        assert slots_counted(pool, spec, "died") == 0


async def test_a_changed_file_outdates_what_was_loaded(package):
    spec = node(package, "plain.mjs", env={"SEEDS": "{seed}"})
    message = "console.log(JSON.stringify({jsonrpc: '2.0', method: 'told', params: [what]}));"
    (package / "plain.mjs").write_text(f"import what from './what.mjs';\n{message}\nconsole.error('x');\n")
    (package / "what.mjs").write_text("export default 'before';\n")
    async with some_pool(spec) as pool:
        assert (await run_once(pool, spec))[0] == ["before"]
        await ready(pool, spec)
        (package / "what.mjs").write_text("export default 'after that';\n")
        assert (await run_once(pool, spec))[0] == ["after that"]
        assert slots_counted(pool, spec, "replaced") == 1
        await ready(pool, spec)
        assert (await run_once(pool, spec))[0] == ["after that"]
        assert slots_counted(pool, spec, "used") == 2


@pytest.mark.parametrize("reads", ["", "process.env.MUXSIM_SEED;"])
async def test_a_package_may_rehearse_before_there_is_a_session(package, reads):
    """Unless what it does there depends on the session."""
    (package / "package.json").write_text('{"type": "module", "muxsim": {"rehearse": "rehearse.js"}}')
    (package / "rehearse.js").write_text(f"globalThis.rehearsed = true;\n{reads}\n")
    message = "console.log(JSON.stringify({jsonrpc: '2.0', method: 'told', params: [globalThis.rehearsed ?? false]}));"
    (package / "plain.js").write_text(f"{message}\nconsole.error('x');\n")
    spec = node(package, "plain.js")
    async with some_pool(spec) as pool:
        assert (await run_once(pool, spec))[0] == [not reads]
        assert slots_counted(pool, spec, "used") == 1


async def test_another_config_ends_the_slots_of_the_one_before(package):
    spec = node(package)
    async with some_pool(spec) as pool:
        before = waiting(pool)
        changed = replace(spec, env={**spec.env, "COLOUR": "red"})
        pool.keep_warm([changed])
        await gone(*before)
        await ready(pool, changed)
        assert (await run_once(pool, changed))[0]["colour"] == "red"
        pool.keep_warm([])
        await eventually(lambda: waiting(pool) == [])


async def test_a_config_may_change_at_any_moment_of_a_start(package):
    spec = node(package, warm=2)
    async with some_pool() as pool:
        for steps in (*range(8), 100, 10_000):
            pool.keep_warm([spec])
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            pool.keep_warm([])
        await eventually(lambda: pool.statistics().placement.processes.alive == 0, within=START)
        pool.keep_warm([spec])
        await ready(pool, spec)
        assert slots_counted(pool, spec, "died") == 0


async def test_the_end_of_a_pool_ends_what_waits_and_what_starts(package):
    """H7, for an end in peace."""
    spec = node(package, warm=6)
    with trio.fail_after(60):
        async with open_pool(few(1)) as pool:
            pool.keep_warm([spec])
            await eventually(lambda: waiting(pool), within=START)
            pids = waiting(pool)
            assert all(map(alive, pids))
    await gone(*pids)


async def test_a_machine_that_is_short_of_processes_gives_up_its_slots_for_a_session(package, monkeypatch):
    """H2."""
    spec, other = node(package), replace(node(package, warm=0), name="other")
    async with some_pool(spec) as pool:
        slots = waiting(pool)
        spawn, failures = pool.placement.launcher.spawn, [ProcessStartError(11, "fork", "no more processes")]

        async def spawn_unless_short(command, **options):
            if failures:
                raise failures.pop()
            return await spawn(command, **options)

        monkeypatch.setattr(pool.placement.launcher, "spawn", spawn_unless_short)
        await run_once(pool, other)
        await gone(*slots)
        assert of(pool, spec).ready == 0


async def test_descriptors_that_slots_hold_are_given_up_for_a_session(package, monkeypatch):
    """H1."""
    spec, other = node(package), replace(node(package, warm=0), name="other")
    async with some_pool(spec) as pool:
        slots = waiting(pool)
        monkeypatch.setattr(descriptors_left, "has_room", lambda: not any(map(alive, slots)))
        await run_once(pool, other)
        await gone(*slots)


async def test_a_machine_that_is_short_of_memory_gives_up_its_slots_before_it_refuses(package, monkeypatch):
    """H12."""
    spec, other = node(package), replace(node(package, warm=0), name="other")
    async with some_pool(spec) as pool:
        slots = waiting(pool)

        class Meter:
            """As long as slots wait, there is too little."""

            async def read(self, *, anew=False):
                return MemoryReading(9 if any(map(alive, slots)) else 1, 5, "here")

        monkeypatch.setattr(pool, "_meter", Meter())
        await run_once(pool, other)
        await gone(*slots)
        assert of(pool, spec).ready == 0


async def test_a_folder_that_is_missing_is_the_same_error_as_without_slots(package):
    """H3."""
    spec = node(package, cwd=str(package / "{seed}"))
    async with some_pool(spec) as pool:
        lease = await pool.acquire(spec)
        with pytest.raises(StartError, match="cwd must be a folder"):
            await pool.start(lease, seed=1, session="s", listener=Listener())
        await pool.release(lease)


# ---- specs that take no seed

TELLER = """
import json, os, sys
told = {"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}
print(json.dumps({"jsonrpc": "2.0", "method": "told", "params": told}), flush=True)
print("a last word", file=sys.stderr, flush=True)
sys.stdin.read()
"""


def unseeded(warm=1, **fields):
    args = ("-I", "-S", "-c", TELLER, "{workspace}/file")
    spec = EnvSpec(name="tell", command=sys.executable, args=args, cwd="{workspace}", limits=LIMITS, **fields)
    return replace(spec, seeded=False, warm=warm)


async def test_a_server_that_takes_no_seed_waits_started_in_its_own_folder():
    spec = unseeded()
    async with some_pool(spec) as pool:
        (slot,) = waiting(pool)
        told, pid, lines = await run_once(pool, spec)
        assert pid == slot
        assert told["argv"] == ["WORKSPACE/file"]
        assert told["cwd"] == told["env"]["MUXSIM_WORKSPACE"] == "WORKSPACE"
        assert "MUXSIM_SEED" not in told["env"]
        assert lines == ["a last word"]


async def test_folders_go_with_the_slots_and_sessions_they_were_made_for():
    spec = unseeded(warm=2)
    async with some_pool(spec) as pool:
        root = pool.placement.folders.root
        assert len(list(root.iterdir())) == 2
        await run_once(pool, spec)
        await ready(pool, spec)
        await eventually(lambda: len(list(root.iterdir())) == 2)
        pool.keep_warm([])
        await eventually(lambda: not list(root.iterdir()))


# ---- what cannot wait

REFUSALS = {
    "zygote": (EnvSpec(name="tell", command="python", args=("x.py",), zygote=False), "it has zygote = false"),
    "sandbox": (
        EnvSpec(name="tell", command="python", args=("x.py",), confinement=Confinement(sandbox="bubblewrap")),
        "bubblewrap has no zygote",
    ),
    "python": (EnvSpec(name="tell", command="python", args=("-c", "1")), "runs neither a script nor a module"),
    "program": (EnvSpec(name="tell", command="/bin/cat"), "its command is not python"),
    "session id": (replace(unseeded(), args=("{session_id}",)), "{session_id} is not known before"),
    "shared": (replace(unseeded(), shared=True), "one process for all"),
    "option": (lambda package: node(package, "tell.js", "--import=./x.js"), "--import=./x.js lets node do more"),
    "home": (partial(node, env={"HOME": "/home/{seed}"}), "HOME is read while modules load"),
    "script": (partial(node, script="missing.js"), "must be a script"),
    "ending": (partial(node, script="tell.ts"), "cannot end in .ts"),
    "type": (partial(node, script="../tell.js"), 'no "type" in its package.json'),
}


@pytest.mark.parametrize("case", REFUSALS)
async def test_what_cannot_wait_is_told_once_and_starts_fresh(package, case):
    told = []
    (package / "tell.ts").write_text("")
    (package.parent / "tell.js").write_text("import 'x'\n")
    spec, word = REFUSALS[case]
    spec = replace(spec if isinstance(spec, EnvSpec) else spec(package), warm=3)
    with trio.fail_after(60):
        async with open_pool(few(1), events=Events(told.append)) as pool:
            pool.keep_warm([spec])
            await eventually(lambda: any(isinstance(event, SlotsNotHad) for event in told), within=START)
            await eventually(lambda: of(pool, spec).wanted == of(pool, spec).starting == 0, within=START)
    (one,) = [event for event in told if isinstance(event, SlotsNotHad)]
    assert (one.env, one.warm) == ("tell", 3)
    assert word in one.why
