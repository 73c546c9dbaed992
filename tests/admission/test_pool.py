"""Leases turned into real children. Rows are those of the table of faults."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import pytest
import trio
import trio.testing
from harness import alive, cancelled_once_it_waits
from serve.machine import eventually

from muxsim.admission.admission import Capacity
from muxsim.admission.pool import open_pool
from muxsim.errors import Busy, PackageError, StartError
from muxsim.observe.events import Events, OpenWaited
from muxsim.provision import packages
from muxsim.spec import EnvSpec, Limits

pytestmark = pytest.mark.children

LIMITS = Limits(eof_timeout=0.2, term_timeout=0.2)
# Tells what it was given, as its one message, and waits for the end of stdin.
TELLER = """
import json, os, sys
told = {"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}
print(json.dumps({"jsonrpc": "2.0", "method": "told", "params": told}), flush=True)
print("a last word", file=sys.stderr, flush=True)
sys.stdin.read()
"""


def teller(name="teller", **fields):
    args = ("-I", "-S", "-c", TELLER, "--seed", "{seed}", "{session_id}")
    return EnvSpec(
        **{"name": name, "command": sys.executable, "args": args, "cwd": "{workspace}", "limits": LIMITS, **fields}
    )


class Listener:
    """Keeps what a backend says."""

    clients_ready = True
    traffic = None

    def __init__(self):
        self.messages = []
        self.lines = []
        self.noise = []

    def from_backend(self, message):
        self.messages.append(message)

    def unreadable(self, line, error):
        self.noise.append(line)

    def stderr(self, line):
        self.lines.append(line)

    def backend_drained(self):
        """Nobody waits."""

    async def wait_clients_ready(self):
        """They are."""


@asynccontextmanager
async def some_pool(max_sessions=2, max_pending=2, queue_timeout=600.0, **options):
    capacity = Capacity(max_sessions=max_sessions, max_pending=max_pending, queue_timeout=queue_timeout, max_starting=8)
    with trio.fail_after(60):
        async with open_pool(capacity, **options) as pool:
            yield pool


async def run_to_its_end(pool, lease, **options):
    """Start a backend on a lease, hear its first message, and end it; what it told and what came of it."""
    listener = Listener()
    backend = await pool.start(lease, listener=listener, **options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.run)
        await eventually(lambda: listener.messages and listener.lines, within=60)
        nursery.cancel_scope.cancel()
    status = await backend.end()
    return json.loads(bytes(listener.messages[0].params)), listener, status


async def test_a_backend_gets_its_seed_its_folder_and_nothing_that_opens_its_session():
    async with some_pool() as pool:
        lease = await pool.acquire(teller())
        told, listener, status = await run_to_its_end(pool, lease, seed=0, session="secret")
        assert told["argv"] == ["--seed", "0", "secret"]
        assert told["env"]["MUXSIM_SEED"] == "0"
        assert told["cwd"] == told["env"]["MUXSIM_WORKSPACE"] == str(lease.workspace)
        assert "secret" not in told["env"].values()
        assert (listener.lines, status) == (["a last word"], 0)
        await pool.release(lease)


async def test_a_folder_goes_with_its_lease_whatever_is_in_it():
    async with some_pool() as pool:
        lease, other = await pool.acquire(teller()), await pool.acquire(teller())
        for each in (lease, other):
            await run_to_its_end(pool, each, seed=1, session="s")
        deep = lease.workspace / "a" / "b"
        deep.mkdir(parents=True)
        (deep / "file").write_text("x")
        (deep / "link").symlink_to(other.workspace)
        (deep / "file").chmod(0)
        deep.chmod(0o500)
        os.mkfifo(lease.workspace / "pipe")
        await pool.release(lease)
        assert not lease.workspace.exists()
        assert other.workspace.exists()
        await pool.release(other)


async def test_nothing_of_a_pool_is_left_after_its_block():
    async with some_pool() as pool:
        lease = await pool.acquire(teller())
        backend = await pool.start(lease, seed=1, session="s", listener=Listener())
        root = lease.workspace.parent
        assert pool.statistics().placement.processes.alive == 1
        guardian = pool.statistics().placement.processes.guardian_pid
    await backend.end()
    assert not root.exists()
    assert not alive(guardian)


async def test_leases_are_given_in_the_order_in_which_they_were_asked_for():
    """L22."""
    async with some_pool(max_sessions=1, max_pending=3) as pool, trio.open_nursery() as nursery:
        first = await pool.acquire(teller())
        got = []

        async def wait(name):
            got.append((name, await pool.acquire(teller())))

        for name in "abc":
            nursery.start_soon(wait, name)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Busy, match="max_pending") as busy:
            await pool.acquire(teller())
        assert busy.value.retry_after > 0
        await pool.release(first)
        for count in (1, 2, 3):
            await eventually(partial(has_come, got, count))
            await pool.release(got[-1][1])
        assert [name for name, _ in got] == ["a", "b", "c"]
        assert pool.statistics().leases.held == 0


def has_come(got, count):
    return len(got) >= count


async def test_who_waits_too_long_is_refused_and_leaves_the_queue():
    """L22."""
    async with some_pool(max_sessions=1, queue_timeout=0.1) as pool:
        first = await pool.acquire(teller())
        with pytest.raises(Busy, match="queue_timeout"):
            await pool.acquire(teller())
        assert pool.statistics().leases.waiting == 0
        await pool.release(first)
        await pool.release(await pool.acquire(teller()))


async def test_how_long_somebody_waited_is_told_and_whether_it_was_worth_it():
    told = []
    async with some_pool(max_sessions=1, queue_timeout=0.1, events=Events(told.append)) as pool:
        first = await pool.acquire(teller())
        with pytest.raises(Busy, match="queue_timeout"):
            await pool.acquire(teller())
        pool.use(Capacity(max_sessions=1, max_pending=2, queue_timeout=600, max_starting=8))
        async with trio.open_nursery() as nursery:
            got = []

            async def wait():
                got.append(await pool.acquire(teller("another")))

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await pool.release(first)
        await pool.release(got[0])
    waits = [event for event in told if isinstance(event, OpenWaited)]
    assert [(one.env, one.admitted) for one in waits] == [("teller", False), ("another", True)]
    assert waits[0].seconds > 0


@pytest.mark.parametrize("already_granted", [False, True])
async def test_a_place_goes_to_the_next_when_who_waited_has_given_up(already_granted):
    """L18: also in the very moment in which it was granted."""
    async with some_pool(max_sessions=1) as pool, trio.open_nursery() as nursery:
        first = await pool.acquire(teller())
        leaving, got = trio.CancelScope(), []

        async def give_up():
            with leaving:
                # What was granted in that moment is taken all the same.
                await pool.release(await pool.acquire(teller()))

        async def wait():
            got.append(await pool.acquire(teller()))

        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        if already_granted:
            pool._give_back(first.number)
            leaving.cancel()
        else:
            leaving.cancel()
            pool._give_back(first.number)
        await eventually(lambda: got)
        assert pool.statistics().leases.held == 1
        await pool.release(got[0])


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"command": "/no/such/program"}, "there is no such file"),
        ({"command": "no-such-program"}, "install it"),
        ({"command": "/etc/passwd"}, "chmod"),
        ({"command": sys.executable, "cwd": "/no/such/folder"}, "cwd must be a folder"),
    ],
)
async def test_a_command_that_cannot_be_run_says_why_and_costs_nothing(fields, word):
    """H3."""
    async with some_pool() as pool:
        lease = await pool.acquire(EnvSpec(name="broken", limits=LIMITS, **fields))
        with pytest.raises(StartError, match="'broken'") as failure:
            await pool.start(lease, seed=1, session="s", listener=Listener())
        assert word in str(failure.value)
        assert pool.statistics().placement.processes.alive == 0
        await pool.release(lease)
        assert pool.statistics().leases.held == 0


async def test_without_room_for_a_folder_there_is_no_session():
    """H1: as on a full disk."""
    async with some_pool(max_sessions=1) as pool:
        root = pool.placement.folders.root
        shutil.rmtree(root)
        lease = await pool.acquire(teller())
        with pytest.raises(StartError, match="no folder for its session"):
            await pool.start(lease, seed=1, session="s", listener=Listener())
        await pool.release(lease)
        assert pool.statistics().leases.held == 0
        root.mkdir()
        lease = await pool.acquire(teller())
        await run_to_its_end(pool, lease, seed=1, session="s")
        await pool.release(lease)


async def test_a_package_is_prepared_once_for_all_who_wait_and_again_after_a_failure(monkeypatch):
    """While it is installed, environments of others start."""
    async with some_pool(max_sessions=8) as pool:
        begun, installed, fails = [], trio.Event(), [True]

        async def taken(spec, **_):
            if spec.name != "package":
                return spec, None
            begun.append(spec.name)
            await installed.wait()
            if fails.pop() if fails else False:
                raise PackageError("no network")
            return teller("package", package="package@1.0.0"), None

        monkeypatch.setattr(packages, "taken", taken)
        results = []

        async def acquire():
            try:
                results.append(await pool.acquire(teller("package")))
            except PackageError as error:
                results.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(acquire)
            await eventually(lambda: begun)
            await pool.release(await pool.acquire(teller("other")))
            installed.set()
        leases = [result for result in results if not isinstance(result, PackageError)]
        assert len(leases) == 2
        assert [lease.spec.package for lease in leases] == ["package@1.0.0"] * 2
        assert len(begun) == 2
        for lease in leases:
            await pool.release(lease)
        assert pool.statistics().leases.held == 0


async def test_an_error_in_the_block_comes_out_as_it_is_and_leaves_no_folder():
    class Broken(Exception):
        pass

    async def open_and_fail():
        async with some_pool() as pool:
            await pool.acquire(teller())
            raise Broken

    before = set(os.listdir(tempfile.gettempdir()))
    with pytest.raises(Broken):
        await open_and_fail()
    assert set(os.listdir(tempfile.gettempdir())) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGRTMIN + 5, signal.SIGRTMAX])
async def test_a_death_by_any_signal_is_reported_by_its_name(number):
    async with some_pool() as pool:
        lease = await pool.acquire(teller())
        backend = await pool.start(lease, seed=1, session="s", listener=Listener())
        os.kill(backend.pid, number)
        exit = await backend.run()
        assert exit.returncode == -number
        assert exit.reason.startswith("the backend was killed by SIG")
        await backend.end()
        await pool.release(lease)


# ---- a guardian that hangs


@contextmanager
def hanging_guardian(pool):
    guardian = pool.statistics().placement.processes.guardian_pid
    os.kill(guardian, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(guardian, signal.SIGCONT)


@pytest.mark.fault("C5")
async def test_a_guardian_that_hangs_fails_an_open_within_its_start_timeout_and_leaves_nothing_when_it_wakes():
    spec = teller(limits=Limits(eof_timeout=0.2, term_timeout=0.2, start_timeout=0.3))
    async with some_pool() as pool:
        lease = await pool.acquire(teller())
        playing = await pool.start(lease, seed=1, session="s", listener=(listener := Listener()))
        with hanging_guardian(pool):
            other = await pool.acquire(spec)
            with pytest.raises(StartError, match=r"start_timeout.*helper process"):
                await pool.start(other, seed=1, session="t", listener=Listener())
            await pool.release(other)
        await eventually(lambda: pool.statistics().placement.processes.starting == 0, within=60)
        await eventually(lambda: pool.statistics().placement.processes.alive == 1, within=60)
        again = await pool.acquire(teller())
        told, _, _ = await run_to_its_end(pool, again, seed=2, session="u")
        assert told["argv"][1] == "2"
        await pool.release(again)
        async with trio.open_nursery() as nursery:  # who played meanwhile has noticed nothing
            nursery.start_soon(playing.run)
            await eventually(lambda: listener.messages, within=60)
            nursery.cancel_scope.cancel()
        await playing.end()
        await pool.release(lease)


@pytest.mark.fault("C5")
async def test_a_pool_whose_guardian_hangs_can_be_closed_also_while_it_starts_something():
    async with some_pool() as pool:
        lease, other = await pool.acquire(teller()), await pool.acquire(teller())
        backend = await pool.start(lease, seed=1, session="s", listener=Listener())
        guardian = pool.statistics().placement.processes.guardian_pid
        os.kill(guardian, signal.SIGSTOP)
        await cancelled_once_it_waits(partial(pool.start, other, seed=1, session="t", listener=Listener()))
        await backend.end()
    assert not alive(guardian)
