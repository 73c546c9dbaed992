"""What a child is given, and a launcher from its first start to its end."""

import json
import os
import resource
import signal
from functools import partial

import pytest
import trio
import trio.testing
from harness import cancelled_once_it_waits
from serve.machine import read_all

from muxsim.inside import proc
from muxsim.observe.counters import Counters
from muxsim.processes import launcher as module
from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import EndTimes
from processes.launching import (
    BRISK,
    CAT,
    PATH,
    TRUE,
    child,
    counted,
    outcome,
    read_line,
    run_program,
    start_family,
)

pytestmark = [pytest.mark.children, pytest.mark.usefixtures("no_leaks")]


async def test_a_child_reads_our_pipe_and_writes_to_ours(launcher):
    process = await launcher.spawn(CAT, session="a")
    os.write(process.stdin, b"hello\n")
    assert await read_line(process) == "hello"
    process.close_stdin()
    assert await process.wait() == 0
    assert await read_all(process.stdout) == b""


async def test_our_ends_of_the_pipes_do_not_block_and_pass_to_no_other_child(launcher):
    process = await launcher.spawn(CAT, session="a")
    for fd in (process.stdin, process.stdout, process.stderr):
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)


@pytest.mark.fault("C27")
async def test_a_child_has_no_descriptors_but_its_three_C27(launcher):
    inheritable = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    try:
        async with Launcher.open() as other:
            process = await other.spawn(child("describe"), session="a")
            assert json.loads(await read_line(process))["fds"] == [0, 1, 2]
    finally:
        os.close(inheritable)


async def test_a_child_gets_exactly_the_given_environment_and_the_mark_C28(launcher, monkeypatch):
    monkeypatch.setenv("MUXSIM_TEST_SECRET", "not for children")
    given = {"PATH": os.defpath, "EMPTY": "", "NAME": "väl=ue\nwith a line"}
    process = await launcher.spawn(Command(("cat", "/proc/self/environ"), given, "/"), session="secret id")
    entries = (await read_all(process.stdout)).decode().rstrip("\0").split("\0")
    expected = {f"{name}={value}" for name, value in given.items()}
    assert expected < set(entries)
    (mark,) = set(entries) - expected
    assert mark.startswith("MUXSIM_PROCESS=")
    assert "secret" not in mark


async def test_arguments_folder_umask_and_limits_reach_the_child(launcher, tmp_path):
    argv = (*child("describe").argv, "two words", "", "ünïcode")
    rlimits = {resource.RLIMIT_NOFILE: (50, 60)}
    command = Command(argv, {}, str(tmp_path), umask=0o027, rlimits=rlimits, nice=3, no_new_privs=True)
    said = json.loads(await read_line(await launcher.spawn(command, session="a")))
    assert said["argv"] == ["describe", "two words", "", "ünïcode"]
    assert said["cwd"] == str(tmp_path)
    assert said["umask"] == 0o027
    assert said["files"] == [50, 60]
    assert said["nice"] == os.getpriority(os.PRIO_PROCESS, 0) + 3
    assert said["privileges"] == "1"


async def test_a_child_nobody_confines_keeps_what_we_have(launcher):
    said = json.loads(await read_line(await launcher.spawn(child("describe"), session="a")))
    assert tuple(said["files"]) == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert said["nice"] == os.getpriority(os.PRIO_PROCESS, 0)
    assert said["privileges"] == "0"


async def test_bytes_that_are_no_text_pass_unchanged(launcher):
    odd = os.fsdecode(b"\xff\xfe")
    process = await launcher.spawn(Command(("printf", "%s", odd), PATH, "/"), session="a")
    assert await read_all(process.stdout) == b"\xff\xfe"


async def test_an_environment_larger_than_a_packet_arrives_whole(launcher):
    values = {f"BIG_{number}": "x" * 100_000 for number in range(10)}
    process = await launcher.spawn(Command(("cat", "/proc/self/environ"), {**PATH, **values}, "/"), session="a")
    assert len(await read_all(process.stdout)) > 1_000_000


async def test_a_child_starts_with_every_signal_at_its_default_whatever_the_program_ignores():
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGUSR1, signal.SIGHUP)}
    try:
        async with Launcher.open() as launcher:
            process = await launcher.spawn(Command(("cat", "/proc/self/status"), PATH, "/"), session="a")
            content = await read_all(process.stdout)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    status = dict(line.split(":\t") for line in content.decode().splitlines())
    masks = [status[name] for name in ("SigBlk", "SigIgn", "SigCgt")]
    assert masks == ["0" * 16] * 3


@pytest.mark.fault("H9")
async def test_a_child_leads_a_session_and_a_group_of_its_own_H9(launcher):
    process = await launcher.spawn(child("describe"), session="a")
    said = json.loads(await read_line(process))
    assert process.pid == said["pid"] == said["session"] == said["group"]


def test_a_program_without_a_stderr_gives_its_children_one():
    said = run_program("describe", "sh", "-c", 'exec "$@" 2>&-', "sh")
    assert said["child"]["fds"] == [0, 1, 2]


async def test_exits_are_seen_in_a_program_that_blocks_SIGCHLD():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        async with Launcher.open() as launcher:
            process = await launcher.spawn(TRUE, session="a")
            with trio.fail_after(60):
                assert await process.wait() == 0
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


async def test_more_starts_than_the_channel_holds_wait_for_room(launcher):
    await outcome(launcher, TRUE)
    guardian = launcher.statistics().guardian_pid
    os.kill(guardian, signal.SIGSTOP)
    command = Command(("true",), {**PATH, "BIG": "x" * 30_000}, "/")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(outcome, launcher, command)
            await trio.testing.wait_all_tasks_blocked()
            assert launcher.statistics().starting == 50
            os.kill(guardian, signal.SIGCONT)
    assert counted(launcher, "processes_started") == counted(launcher, "processes_ended") == 51


async def test_many_children_start_at_once_and_each_has_its_own_pipes(launcher):
    lines = {}

    async def one(number):
        process = await launcher.spawn(CAT, session=str(number))
        os.write(process.stdin, f"{number}\n".encode())
        lines[number] = await read_line(process)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one, number)
    assert lines == {number: str(number) for number in range(50)}
    assert launcher.statistics().alive == 50


# what a child has forked


def forks_as(pid):
    async def fork(mark, streams):
        for fd in streams:
            os.close(fd)
        if pid is None:
            raise KeyError("gone")
        return pid

    return fork


async def test_a_process_that_is_no_orphan_of_a_child_is_not_taken_in_H19(launcher):
    parent = await launcher.spawn(CAT, session="a")
    for pid in (os.getpid(), parent.pid, launcher.statistics().guardian_pid):
        with pytest.raises(ProcessStartError, match="cannot take in") as caught:
            await launcher.adopt(parent, forks_as(pid), session="b")
        assert caught.value.stage == "adopt"
    assert (counted(launcher, "processes_not_started"), launcher.statistics().alive) == (3, 1)


@pytest.mark.parametrize("ended", [False, True])
async def test_a_fork_that_cannot_be_made_fails_as_its_maker_says(launcher, ended):
    parent = await launcher.spawn(CAT, session="a")
    if ended:
        await parent.end()
    with pytest.raises(KeyError, match="gone"):
        await launcher.adopt(parent, forks_as(None), session="b")
    assert launcher.statistics().starting == 0
    assert counted(launcher, "guardians_started") == 1


# cancelled starts


async def test_a_cancelled_start_leaves_no_child_however_far_it_got(launcher):
    for delay in range(30):
        with trio.move_on_after(delay / 10_000):
            await launcher.spawn(CAT, session="a")
    statistics = launcher.statistics()
    assert statistics.starting == 0
    assert statistics.alive + counted(launcher, "processes_ended") == counted(launcher, "processes_started")
    with trio.fail_after(60):
        for process in list(launcher._guardians[-1].processes.values()):
            await process.end()


async def test_a_start_cancelled_from_the_outset_leaves_no_child(launcher):
    with trio.CancelScope() as scope:
        scope.cancel()
        await launcher.spawn(CAT, session="a")
    assert scope.cancelled_caught
    assert launcher.statistics().alive == launcher.statistics().starting == 0
    assert proc.marked(launcher._token) == {}


async def test_a_start_cancelled_while_the_guardian_hangs_is_undone_when_it_wakes(launcher, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_LIMIT", 0.05)
    guardian = launcher.statistics().guardian_pid
    os.kill(guardian, signal.SIGSTOP)
    try:
        with trio.fail_after(60):
            assert await cancelled_once_it_waits(partial(launcher.spawn, CAT, session="a"))
    finally:
        os.kill(guardian, signal.SIGCONT)
    with trio.fail_after(60):
        await (await launcher.spawn(TRUE, session="b")).end()  # answered after the first
        while counted(launcher, "processes_ended") < 2:
            await trio.lowlevel.checkpoint()
    assert counted(launcher, "processes_started") == 2


# its block


async def test_everything_still_alive_ends_at_once_with_the_launcher():
    async with Launcher.open(end_times=EndTimes(stdin_close=0.2, term=0.2), emit=Counters()) as launcher:
        for _ in range(8):
            await read_line(await launcher.spawn(child("stubborn", "ready", "forever"), session="a"))
    assert counted(launcher, "processes_ended") == 8
    assert proc.marked(launcher._token) == {}


async def test_an_exception_leaves_the_launchers_block_as_it_was():
    async def block():
        async with Launcher.open() as launcher:
            await launcher.spawn(CAT, session="a")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await block()


async def test_a_cancelled_block_ends_its_processes():
    with trio.CancelScope() as scope:
        async with Launcher.open(end_times=BRISK) as launcher:
            process, grandchild = await start_family(launcher, "setsid", "stubborn", "forever")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert process.returncode == -signal.SIGKILL
    with grandchild:
        assert not grandchild.alive


async def test_a_closed_launcher_starts_nothing():
    async with Launcher.open() as launcher:
        pass
    with pytest.raises(ProcessStartError, match="closed") as caught:
        await launcher.spawn(CAT, session="a")
    assert caught.value.stage == "closed"


async def test_an_interpreter_that_is_missing_is_named():
    with pytest.raises(ProcessStartError, match="/no/such/python"):
        async with Launcher.open(python="/no/such/python"):
            pass


def test_trio_may_be_a_guest_of_asyncio():
    assert run_program("guest") == {"line": "hello", "polite": 0, "killed": -9}


async def test_processes_and_launchers_describe_themselves(launcher):
    process = await launcher.spawn(CAT, session="a")
    pid, guardian = process.pid, launcher.statistics().guardian_pid
    assert repr(process) == f"<Process {pid} of session 'a': running>"
    assert repr(launcher) == f"<Launcher: guardian {guardian}, 1 alive, 0 starting>"
    process.close_stdin()
    await process.wait()
    assert repr(process) == f"<Process {pid} of session 'a': exited, returncode 0>"
    await process.end()
    assert repr(process) == f"<Process {pid} of session 'a': ended, returncode 0>"
    assert launcher.statistics().alive == 0
    counts = [counted(launcher, f"processes_{what}") for what in ("started", "ended", "not_started")]
    assert counts == [1, 1, 0]
