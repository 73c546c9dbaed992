"""The program that embeds muxsim dies, or the guardian does."""

import contextlib
import json
import os
import pty
import signal

import pytest
import trio
import trio.testing

from muxsim import inside
from muxsim.inside import proc
from muxsim.inside.guardian import LAUNCHER_GONE_GRACE, LAUNCHER_GONE_TERM
from muxsim.observe.counters import Counters
from muxsim.processes import client
from muxsim.processes.command import ProcessStartError
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import EndTimes
from processes.launching import (
    CAT,
    SERVERS,
    TRUE,
    Watched,
    child,
    counted,
    outcome,
    read_line,
    running_program,
    start_family,
    unswept,
)

pytestmark = [pytest.mark.children, pytest.mark.usefixtures("no_leaks")]


@pytest.mark.fault("H7")
async def test_nothing_is_left_two_seconds_after_the_program_is_killed_H7():
    assert LAUNCHER_GONE_GRACE + LAUNCHER_GONE_TERM <= 1  # a second for the rest, on a machine that is not busy
    with running_program("family") as (program, said), contextlib.ExitStack() as stack:
        watched = [stack.enter_context(Watched(pid)) for pid in said["pids"]]
        assert len(watched) == 11
        program.kill()
        with trio.fail_after(60):
            for process in watched:
                await process.gone()


@pytest.mark.fault("H7")
async def test_a_fork_of_the_killed_program_does_not_keep_its_children_alive_H7():
    with running_program("forked") as (program, said), contextlib.ExitStack() as stack:
        watched = [stack.enter_context(Watched(pid)) for pid in said["pids"]]
        fork = stack.enter_context(Watched(said["fork"]))
        program.kill()
        try:
            with trio.fail_after(60):
                for process in watched:
                    await process.gone()
            assert fork.alive
        finally:
            os.kill(fork.pid, signal.SIGKILL)


@pytest.mark.fault("H7")
async def test_children_end_though_the_guardian_is_killed_and_the_program_can_do_nothing_H7():
    with running_program("forked") as (program, said), Watched(said["pids"][1]) as child:
        program.send_signal(signal.SIGSTOP)
        os.kill(said["fork"], signal.SIGKILL)
        os.kill(said["pids"][0], signal.SIGKILL)
        await child.gone()


@pytest.mark.fault("H9")
async def test_a_SIGINT_from_the_terminal_does_not_reach_children_H9():
    controller, terminal = pty.openpty()
    try:
        with running_program("terminal", stdin=terminal, start_new_session=True) as (program, said):
            assert said == {"ready": True}
            os.write(controller, b"\x03")
            assert json.loads(program.stdout.readline()) == {"echo": "still here", "returncode": 0}
            assert program.wait(timeout=60) == 0
    finally:
        os.close(controller)
        os.close(terminal)


async def test_the_death_of_the_guardian_is_the_end_of_its_children_and_theirs(launcher):
    process, grandchild = await start_family(launcher, "double", "stubborn", "forever")
    guardian = launcher.statistics().guardian_pid
    with grandchild:
        os.kill(guardian, signal.SIGKILL)
        with trio.fail_after(60):
            assert await process.wait() == -signal.SIGKILL
        await grandchild.gone()
        assert await process.end() == -signal.SIGKILL
    assert launcher.statistics().guardian_pid != guardian


async def test_after_the_death_of_the_guardian_processes_can_be_started_again(launcher):
    os.kill(launcher.statistics().guardian_pid, signal.SIGKILL)
    with trio.fail_after(60):
        while launcher.statistics().guardian_pid is not None:
            await trio.lowlevel.checkpoint()
    assert await outcome(launcher, TRUE) is None
    assert counted(launcher, "guardians_started") == 2
    assert counted(launcher, "guardians_died") == 1
    assert counted(launcher, "processes_lost") == 0


async def test_a_process_of_the_next_guardian_is_not_taken_for_what_the_dead_one_left(launcher):
    """It may start as soon as the death is known, while the dead one's children are still being ended."""
    lost = [await launcher.spawn(CAT, session="lost") for _ in range(5)]
    os.kill(launcher.statistics().guardian_pid, signal.SIGKILL)
    with trio.fail_after(60):
        while launcher.statistics().guardian_pid is not None:
            await trio.lowlevel.checkpoint()
    new = await launcher.spawn(CAT, session="new")
    with trio.fail_after(60):
        while launcher.statistics().alive > 1:
            await trio.lowlevel.checkpoint()
    os.write(new.stdin, b"still here\n")
    with trio.fail_after(60):
        assert await read_line(new) == "still here"
    assert counted(launcher, "processes_lost") == 5
    assert [process.unguarded for process in (*lost, new)] == [True] * 5 + [False]


async def test_a_start_in_flight_fails_when_the_guardian_dies(launcher):
    guardian = launcher.statistics().guardian_pid
    os.kill(guardian, signal.SIGSTOP)
    async with trio.open_nursery() as nursery:
        errors = []

        @nursery.start_soon
        async def _spawn():
            errors.append(await outcome(launcher, CAT))

        await trio.testing.wait_all_tasks_blocked()
        os.kill(guardian, signal.SIGKILL)
    assert errors[0].stage == "guardian"
    assert "another try" in str(errors[0])
    assert await outcome(launcher, TRUE) is None


async def test_a_guardian_that_cannot_start_is_an_error_each_time_and_no_loop(monkeypatch):
    monkeypatch.setattr(inside, "GUARDIAN", str(SERVERS / "faulty_guardian.py"))
    monkeypatch.setenv("GUARDIAN_FAULT", "crash")
    async with Launcher.open(emit=Counters()) as launcher:
        for _ in range(2):
            with pytest.raises(ProcessStartError) as caught:
                await launcher.spawn(CAT, session="a")
            assert caught.value.stage == "guardian"
    assert counted(launcher, "guardians_started") <= 4


async def test_a_hanging_guardian_cannot_hold_up_the_way_out():
    async with Launcher.open(emit=Counters()) as launcher:
        process = await launcher.spawn(child("stubborn", "ready", "forever"), session="a")
        await read_line(process)
        guardian = launcher.statistics().guardian_pid
        os.kill(guardian, signal.SIGSTOP)
        try:
            with trio.fail_after(60):
                assert await process.end(EndTimes(0.1, 0.1, 0.1)) == -signal.SIGKILL
        finally:
            os.kill(guardian, signal.SIGCONT)
        assert unswept(launcher) == 1


async def test_a_hanging_guardian_cannot_hold_up_the_end_of_the_launcher(monkeypatch):
    monkeypatch.setattr(client, "GUARDIAN_EXIT_LIMIT", 0.1)
    with trio.fail_after(60):
        async with Launcher.open(end_times=EndTimes(0.1, 0.1, 0.1)) as launcher:
            process = await launcher.spawn(CAT, session="a")
            os.kill(launcher.statistics().guardian_pid, signal.SIGSTOP)
    assert process.returncode == -signal.SIGKILL
    assert proc.marked(launcher._token) == {}
