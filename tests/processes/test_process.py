"""How a child ends: by itself, or on its way out with all that it has started."""

import os
import shutil
import signal

import pytest
import trio
import trio.testing
from harness import cancelled_once_it_waits
from serve.machine import descendants, read_all

from muxsim import inside
from muxsim.inside import proc
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import AT_ONCE, EndTimes
from processes.launching import (
    BRISK,
    CAT,
    GRANDCHILDREN,
    PATIENT,
    SERVERS,
    TRUE,
    child,
    counted,
    read_line,
    run_program,
    shell,
    start_family,
)

pytestmark = [pytest.mark.children, pytest.mark.usefixtures("no_leaks")]


@pytest.mark.parametrize(
    ("script", "returncode"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9), ("kill -SEGV $$", -11)]
)
async def test_the_returncode_tells_how_a_child_ended_C1_C2(launcher, script, returncode):
    process = await launcher.spawn(shell(script), session="a")
    with trio.fail_after(60):
        assert await process.wait() == returncode
    assert await process.end() == returncode


async def test_an_exit_is_told_to_everyone_who_waits(launcher):
    process = await launcher.spawn(CAT, session="a")
    codes = []

    async def wait():
        codes.append(await process.wait())

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            process.close_stdin()
    assert codes == [0] * 10


async def test_an_exit_is_seen_though_a_grandchild_holds_stdout_open_C22(launcher):
    process, grandchild = await start_family(launcher, "group+stdout", "leave", "4")
    with grandchild, trio.fail_after(60):
        assert await process.wait() == 4
        assert grandchild.alive
        await process.end()
        assert not grandchild.alive


async def test_a_child_that_closes_its_pipes_is_still_running_C8_C9(launcher):
    process = await launcher.spawn(shell("exec <&- >&- 2>&-; exec sleep 1000"), session="a")
    assert await read_all(process.stdout) == b""
    with pytest.raises(BrokenPipeError):
        os.write(process.stdin, b"x")
    assert process.returncode is None
    with trio.fail_after(60):
        assert await process.end(BRISK) == -signal.SIGTERM


# the way out


async def test_a_polite_child_ends_by_the_end_of_its_input(launcher):
    process = await launcher.spawn(CAT, session="a")
    with trio.fail_after(60):
        assert await process.end(PATIENT) == 0


async def test_a_child_that_ignores_the_end_of_its_input_gets_SIGTERM(launcher):
    process = await launcher.spawn(shell("exec sleep 1000"), session="a")
    with trio.fail_after(60):
        assert await process.end(EndTimes(stdin_close=0.05, term=600)) == -signal.SIGTERM


async def test_a_child_that_ignores_everything_is_killed_C19(launcher):
    process = await launcher.spawn(child("stubborn", "ready", "forever"), session="a")
    await read_line(process)
    with trio.fail_after(60):
        assert await process.end() == -signal.SIGKILL


async def test_a_stopped_child_can_be_ended_C7(launcher):
    process = await launcher.spawn(child("stop", "echo"), session="a")
    await read_line(process)
    with trio.fail_after(60):
        assert await process.end(EndTimes(stdin_close=0.05, term=600)) == -signal.SIGTERM


async def test_a_stopped_child_that_ignores_SIGTERM_can_be_ended_C7(launcher):
    process = await launcher.spawn(child("stubborn", "stop", "forever"), session="a")
    await read_line(process)
    with trio.fail_after(60):
        assert await process.end(BRISK) == -signal.SIGKILL


@pytest.mark.fault("C21")
@pytest.mark.parametrize("kind", [*GRANDCHILDREN, "bare"])
async def test_grandchildren_end_with_their_child_C20_C21(launcher, kind):
    process, grandchild = await start_family(launcher, kind, "echo")
    with grandchild, trio.fail_after(60):
        assert grandchild.alive
        assert await process.end(PATIENT) == 0
        assert not grandchild.alive
    assert counted(launcher, "leftovers_killed") == 1


@pytest.mark.fault("C21")
@pytest.mark.parametrize("kind", GRANDCHILDREN)
async def test_grandchildren_of_a_child_that_has_exited_end_with_it_C20_C21(launcher, kind):
    process, grandchild = await start_family(launcher, kind, "leave", "0")
    with grandchild, trio.fail_after(60):
        assert await process.wait() == 0
        assert grandchild.alive
        await process.end()
        assert not grandchild.alive


@pytest.mark.fault("C21")
@pytest.mark.parametrize("kind", [*GRANDCHILDREN, "bare"])
async def test_grandchildren_of_a_stubborn_child_end_with_it_C20_C21(launcher, kind):
    process, grandchild = await start_family(launcher, kind, "stubborn", "forever")
    with grandchild, trio.fail_after(60):
        assert await process.end(BRISK) == -signal.SIGKILL
        assert not grandchild.alive


@pytest.mark.fault("C21")
@pytest.mark.parametrize("kind", ["exec-double", "fork-double"])
async def test_orphans_that_keep_changing_their_program_or_their_pid_are_found_C21(launcher, kind):
    # Another session, for with the last one everything would end in any case.
    other = await launcher.spawn(CAT, session="b")
    for _ in range(20):
        process = await launcher.spawn(child("start", kind, "leave", "0"), session="a")
        await read_line(process)
        with trio.fail_after(60):
            await process.end()
        assert list(proc.marked(launcher._token)) == [other.pid]
    assert other.returncode is None


@pytest.mark.fault("C21")
async def test_an_orphan_that_hides_its_origin_ends_with_the_last_session_C21(launcher):
    other = await launcher.spawn(CAT, session="b")
    process, grandchild = await start_family(launcher, "bare-double", "echo")
    with grandchild:
        await process.end()
        assert grandchild.alive  # it may belong to the other one
        await other.end()
        await grandchild.gone()


@pytest.mark.fault("C21")
async def test_an_orphan_that_hides_its_origin_ends_with_the_launcher_at_the_latest_C21():
    async with Launcher.open(end_times=BRISK) as launcher:
        _, grandchild = await start_family(launcher, "bare-double", "stubborn", "forever")
    with grandchild:
        await grandchild.gone()


@pytest.mark.parametrize("kind", GRANDCHILDREN)
async def test_the_end_of_one_session_touches_no_other(launcher, kind):
    first, firsts = await start_family(launcher, kind, "echo", session="a")
    second, seconds = await start_family(launcher, kind, "echo", session="a")
    with firsts, seconds:
        await first.end()
        assert not firsts.alive
        assert seconds.alive
        os.write(second.stdin, b"well\n")
        assert await read_line(second) == "well"
        await second.end()
        assert not seconds.alive


async def test_ending_twice_at_once_takes_one_way_out(launcher):
    process = await launcher.spawn(child("stubborn", "ready", "forever"), session="a")
    await read_line(process)
    codes = []

    async def end():
        codes.append(await process.end(BRISK))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(end)
    assert codes == [-signal.SIGKILL] * 5
    assert await process.end() == -signal.SIGKILL
    assert counted(launcher, "processes_ended") == 1


async def test_a_second_call_can_make_the_way_out_faster_H6(launcher):
    process = await launcher.spawn(child("stubborn", "ready", "forever"), session="a")
    await read_line(process)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.end, EndTimes(stdin_close=600, term=600))
            await trio.testing.wait_all_tasks_blocked()
            assert await process.end(AT_ONCE) == -signal.SIGKILL


async def test_cancellation_does_not_cut_the_way_out_short(launcher):
    process, grandchild = await start_family(launcher, "setsid", "stubborn", "forever")
    with grandchild, trio.fail_after(60):
        await cancelled_once_it_waits(process.end, BRISK)
        assert process.returncode == -signal.SIGKILL
        assert not grandchild.alive


async def test_the_end_closes_our_pipes_and_wakes_their_readers(launcher):
    process = await launcher.spawn(CAT, session="a")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _read():
            with pytest.raises(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(process.stdin)

        await trio.testing.wait_all_tasks_blocked()
        await process.end()
    assert (process.stdin, process.stdout, process.stderr) == (-1, -1, -1)


async def test_pipes_handed_over_are_closed_by_their_new_owner_only(launcher):
    process = await launcher.spawn(CAT, session="a")
    stdin, stdout = process.stdin, process.stdout
    process.hand_over("stdin", "stdout", close_stdin=lambda: os.close(stdin))
    os.write(stdin, b"last words\n")
    with trio.fail_after(60):
        assert await process.end(PATIENT) == 0
    assert os.read(stdout, 100) == b"last words\n"
    os.close(stdout)


@pytest.mark.parametrize("mode", ["no-subreaper", "no-children-files"])
@pytest.mark.parametrize("kind", GRANDCHILDREN)
async def test_grandchildren_end_also_where_the_kernel_offers_less(monkeypatch, mode, kind):
    monkeypatch.setattr(inside, "GUARDIAN", str(SERVERS / "faulty_guardian.py"))
    monkeypatch.setenv("GUARDIAN_FAULT", mode)
    async with Launcher.open(end_times=BRISK) as launcher:
        process, grandchild = await start_family(launcher, kind, "leave", "0")
        stubborn, other = await start_family(launcher, kind, "stubborn", "forever")
        with grandchild, other:
            await process.wait()
            await process.end()
            await grandchild.gone()
            assert other.alive
            await stubborn.end(AT_ONCE)
            await other.gone()


# signals and pids


@pytest.mark.fault("H19")
async def test_a_pid_stays_taken_until_the_process_is_ended_H19(launcher):
    process = await launcher.spawn(TRUE, session="a")
    await process.wait()
    assert proc.read_stat(process.pid).state == b"Z"
    await process.end()
    assert proc.read_stat(process.pid) is None


@pytest.mark.fault("H19")
async def test_a_signal_to_a_process_that_is_gone_does_nothing_H19(launcher):
    process = await launcher.spawn(TRUE, session="a")
    await process.wait()
    process.send_signal(signal.SIGKILL)
    await process.end()
    process.send_signal(signal.SIGKILL)
    assert process.returncode == 0


def can_have_a_small_pid_namespace():
    # Before Linux 6.14 the number of pids was the whole machine's, and no test's to change.
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    return os.getuid() == 0 and release >= (6, 14) and shutil.which("unshare") is not None


@pytest.mark.fault("H19")
@pytest.mark.skipif(not can_have_a_small_pid_namespace(), reason="needs root, unshare and Linux 6.14")
def test_a_process_that_gets_a_used_pid_is_spared_H19():
    said = run_program("recycled", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    assert said == {"kept": True, "spared": True}


async def test_a_signal_reaches_the_process(launcher):
    process = await launcher.spawn(CAT, session="a")
    process.send_signal(signal.SIGUSR1)
    with trio.fail_after(60):
        assert await process.wait() == -signal.SIGUSR1


@pytest.mark.fault("H18")
async def test_a_child_is_started_by_the_one_thread_of_a_process_that_has_no_other_H18(launcher):
    """PDEATHSIG is about threads: a child that one of trio's worker threads has started dies with that, after 10 s."""
    process = await launcher.spawn(CAT, session="a")
    guardian = launcher.statistics().guardian_pid
    assert process.pid in descendants(guardian)
    assert os.listdir(f"/proc/{guardian}/task") == [str(guardian)]
