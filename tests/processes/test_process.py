"""Real children, started and ended by a Launcher. Rows are those of the table of faults."""

import contextlib
import errno
import json
import os
import pathlib
import pty
import resource
import select
import shutil
import signal
import subprocess
import sys

import pytest
import trio
import trio.testing
from serve.machine import read_all

from muxsim import inside
from muxsim.inside import proc, wire
from muxsim.processes import client
from muxsim.processes import launcher as module
from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import AT_ONCE, EndTimes

pytestmark = pytest.mark.children

SERVERS = pathlib.Path(__file__).parents[1] / "servers" / "process"
ROOT = pathlib.Path(__file__).parents[2]
PATH = {"PATH": os.defpath}
CAT = Command(("cat",), PATH, "/")
TRUE = Command(("true",), PATH, "/")
BRISK = EndTimes(stdin_close=0.1, term=0.1)
GRANDCHILDREN = ["group", "setsid", "double"]


def child(*words, env=None):
    argv = (sys.executable, "-I", "-S", str(SERVERS / "child.py"), *words)
    return Command(argv, {} if env is None else env, "/")


def shell(script):
    return Command(("sh", "-c", script), PATH, "/")


def open_descriptors():
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return found


@pytest.fixture(autouse=True)
def _no_leaks():
    descriptors, children = open_descriptors(), proc.children_of(os.getpid())
    yield
    assert open_descriptors() == descriptors
    assert proc.children_of(os.getpid()) == children


@pytest.fixture
async def launcher():
    async with Launcher.open(end_times=BRISK) as launcher:
        yield launcher
    assert proc.marked(launcher._token) == {}
    assert launcher.statistics().unswept == 0


async def read_line(process):
    data = b""
    with trio.fail_after(30):
        while not data.endswith(b"\n"):
            await trio.lowlevel.wait_readable(process.stdout)
            more = os.read(process.stdout, 65536)
            assert more, f"end of output after {data!r}"
            data += more
    return data.decode().rstrip("\n")


class Watched:
    """Some process on this machine, which need not be ours; its end can be waited for."""

    def __init__(self, pid):
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._pidfd)

    @property
    def alive(self):
        return not select.select([self._pidfd], [], [], 0)[0]

    async def gone_within(self, seconds):
        with trio.fail_after(seconds):
            await trio.lowlevel.wait_readable(self._pidfd)


async def start_family(launcher, kind, *then, session="a"):
    process = await launcher.spawn(child("start", kind, *then), session=session)
    return process, Watched(int(await read_line(process)))


# what a child is given


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
            with trio.fail_after(30):
                assert await process.wait() == 0
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


async def test_more_starts_than_the_channel_holds_wait_for_room(launcher):
    await outcome(launcher, TRUE)
    guardian = launcher.statistics().guardian_pid
    os.kill(guardian, signal.SIGSTOP)
    command = Command(("true",), {**PATH, "BIG": "x" * 30_000}, "/")
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(outcome, launcher, command)
            await trio.testing.wait_all_tasks_blocked()
            assert launcher.statistics().starting == 50
            os.kill(guardian, signal.SIGCONT)
    assert launcher.statistics().spawned == launcher.statistics().ended == 51


async def test_many_children_start_at_once_and_each_has_its_own_pipes(launcher):
    lines = {}

    async def one(number):
        process = await launcher.spawn(CAT, session=str(number))
        os.write(process.stdin, f"{number}\n".encode())
        lines[number] = await read_line(process)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(one, number)
    assert lines == {number: str(number) for number in range(50)}
    assert launcher.statistics().alive == 50


# how it ends by itself


@pytest.mark.parametrize(
    ("script", "returncode"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9), ("kill -SEGV $$", -11)]
)
async def test_the_returncode_tells_how_a_child_ended_C1_C2(launcher, script, returncode):
    process = await launcher.spawn(shell(script), session="a")
    with trio.fail_after(30):
        assert await process.wait() == returncode
    assert await process.end() == returncode


async def test_an_exit_is_told_to_everyone_who_waits(launcher):
    process = await launcher.spawn(CAT, session="a")
    codes = []

    async def wait():
        codes.append(await process.wait())

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            process.close_stdin()
    assert codes == [0] * 10


async def test_an_exit_is_seen_though_a_grandchild_holds_stdout_open_C22(launcher):
    process, grandchild = await start_family(launcher, "group+stdout", "leave", "4")
    with grandchild, trio.fail_after(30):
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
    with trio.fail_after(30):
        assert await process.end(BRISK) == -signal.SIGTERM


# what cannot be started


async def refused(launcher, command):
    with pytest.raises(ProcessStartError) as caught:
        await launcher.spawn(command, session="a")
    assert launcher.statistics().failed == 1
    assert launcher.statistics().alive == 0
    return caught.value


@pytest.mark.fault("H3")
@pytest.mark.parametrize(
    ("command", "stage", "number", "words"),
    [
        (Command(("no-such-program",), {"PATH": "/bin:/usr/bin"}, "/"), "exec", errno.ENOENT, "'no-such-program'"),
        (Command(("no-such-program",), {"PATH": "/bin:/odd"}, "/"), "exec", errno.ENOENT, "its PATH, /bin:/odd"),
        (Command(("no-such-program",), {}, "/"), "exec", errno.ENOENT, "given no PATH"),
        (Command(("./none",), PATH, "/tmp"), "exec", errno.ENOENT, "'./none' in '/tmp': there is no such file"),
        (Command(("/etc/passwd",), PATH, "/"), "exec", errno.EACCES, "chmod +x"),
        (Command(("/etc",), PATH, "/"), "exec", errno.EACCES, "may not be executed"),
        (Command(("cat", "x" * 200_000), PATH, "/"), "exec", errno.E2BIG, "too long"),
        (Command(("cat",), PATH, "/no/such/folder"), "chdir", errno.ENOENT, "'/no/such/folder'"),
        (Command(("cat",), PATH, "/etc/passwd"), "chdir", errno.ENOTDIR, "must be a folder"),
        (Command(("cat",), PATH, "/", rlimits={resource.RLIMIT_NOFILE: (9, 8)}), "rlimits", errno.EINVAL, "(9, 8)"),
        (Command((), PATH, "/"), "command", errno.EINVAL, "name the program"),
        (Command(("",), PATH, "/"), "command", errno.EINVAL, "name the program"),
        (Command(("cat", "a\0b"), PATH, "/"), "command", errno.EINVAL, "NUL"),
        (Command(("cat",), {"A=B": ""}, "/"), "command", errno.EINVAL, "'A=B'"),
    ],
)
async def test_a_start_that_fails_says_where_and_what_to_do_H3(launcher, command, stage, number, words):
    error = await refused(launcher, command)
    assert (error.stage, error.errno) == (stage, number)
    assert words in str(error)


@pytest.mark.fault("H3")
@pytest.mark.parametrize(
    ("content", "number", "words"),
    [("#!/no/such/interpreter\n", errno.ENOENT, "the interpreter"), ("echo hello\n", errno.ENOEXEC, "#!")],
)
async def test_a_script_that_nothing_can_run_is_told_apart_H3(launcher, tmp_path, content, number, words):
    (tmp_path / "script").write_text(content)
    (tmp_path / "script").chmod(0o755)
    error = await refused(launcher, Command(("./script",), PATH, str(tmp_path)))
    assert (error.stage, error.errno) == ("exec", number)
    assert words in str(error)


async def test_the_command_is_looked_up_on_the_childs_own_path(launcher, tmp_path):
    for folder, mode in (("first", 0o644), ("second", 0o755)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "greet").write_text(f"#!/bin/sh\necho {folder}\n")
        (tmp_path / folder / "greet").chmod(mode)
    path = f"{tmp_path}/none:{tmp_path}/first:{tmp_path}/second"
    process = await launcher.spawn(Command(("greet",), {"PATH": path}, "/"), session="a")
    assert await read_line(process) == "second"


async def test_a_command_with_a_slash_is_relative_to_the_childs_folder(launcher, tmp_path):
    shutil.copy("/bin/cat", tmp_path / "tool")
    process = await launcher.spawn(Command(("./tool", "/proc/self/comm"), {}, str(tmp_path)), session="a")
    assert await read_line(process) == "tool"


@pytest.mark.fault("H14")
@pytest.mark.parametrize("call", ["pipe2", "set_blocking", "memfd_create"])
@pytest.mark.parametrize("nth", [1, 2, 3])
async def test_a_failing_system_call_here_leaves_nothing_behind_H14(launcher, monkeypatch, call, nth):
    monkeypatch.setattr(os, call, failing(getattr(os, call), nth, errno.EMFILE))
    command = Command(("true",), {**PATH, "BIG": "x" * 100_000}, "/")
    outcomes = [await outcome(launcher, command) for _ in range(4)]
    errors = [error for error in outcomes if error is not None]
    assert len(errors) == 1
    assert (errors[0].errno, errors[0].stage) == (errno.EMFILE, "descriptors")
    assert "ulimit -n" in str(errors[0])


@pytest.mark.fault("H2", "H14")
@pytest.mark.parametrize(
    ("call", "number", "nth"),
    [
        ("fork", "EAGAIN", 1),
        ("fork", "ENOMEM", 2),
        ("pipe", "EMFILE", 1),
        ("pidfd_open", "EMFILE", 2),
        ("send", "ETOOMANYREFS", 1),
    ],
)
async def test_a_failing_system_call_in_the_guardian_leaves_nothing_behind_H2_H14(monkeypatch, call, number, nth):
    monkeypatch.setattr(inside, "GUARDIAN", str(SERVERS / "faulty_guardian.py"))
    monkeypatch.setenv("GUARDIAN_FAULT", f"{call} {number} {nth}")
    async with Launcher.open() as launcher:
        outcomes = [await outcome(launcher, TRUE) for _ in range(4)]
        errors = [error for error in outcomes if error is not None]
        assert [error.errno for error in errors] == [getattr(errno, number)]
        assert launcher.statistics().failed == 1


@pytest.mark.fault("H14")
async def test_descriptors_the_kernel_will_not_carry_fail_that_start_alone_H14(launcher, monkeypatch):
    real = wire.send
    fault = failing(lambda: None, 2, errno.ETOOMANYREFS)

    def send(channel, packet):
        if packet.fds:
            fault()
        real(channel, packet)

    monkeypatch.setattr(wire, "send", send)
    outcomes = [await outcome(launcher, TRUE) for _ in range(3)]
    assert [error and error.errno for error in outcomes] == [None, errno.ETOOMANYREFS, None]


@pytest.mark.fault("H1")
async def test_a_child_whose_handle_we_have_no_room_for_is_ended_again_H1(launcher, monkeypatch):
    real = wire.receive

    def receive(channel):
        received = real(channel)
        for fd in received.fds:
            os.close(fd)
        return received._replace(fds=[], complete=not received.fds)

    monkeypatch.setattr(wire, "receive", receive)
    error = await refused(launcher, CAT)
    assert (error.errno, error.stage) == (errno.EMFILE, "descriptors")
    monkeypatch.undo()
    assert await outcome(launcher, TRUE) is None
    assert proc.marked(launcher._token) == {}


def failing(real, nth, number):
    calls = 0

    def call(*args):
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(number, os.strerror(number))
        return real(*args)

    return call


async def outcome(launcher, command):
    try:
        process = await launcher.spawn(command, session="a")
    except ProcessStartError as error:
        return error
    await process.end()
    return None


def run_program(mode, *wrapper):
    done = subprocess.run(
        [*wrapper, sys.executable, str(SERVERS / "program.py"), mode],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=30,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.fault("H1")
def test_running_out_of_descriptors_fails_the_start_and_passes_H1():
    said = run_program("starved")
    assert said["errno"] == errno.EMFILE
    assert "ulimit -n" in said["message"]
    assert said["alive_before"] == said["held"] + 2 > 4
    assert said["recovered"]


@pytest.mark.fault("H2")
@pytest.mark.skipif(
    os.getuid() == 0 and not shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin"),
    reason="root has no limit on processes, and there is no Python that another user could run",
)
def test_a_limit_on_processes_fails_the_start_and_passes_H2():
    said = run_program("crowded")
    assert (said["errno"], said["stage"]) == (errno.EAGAIN, "fork")
    assert "ulimit -u" in said["message"]
    assert said["alive"] == 0
    assert said["returncode"] == 0


# cancelled starts


async def test_a_cancelled_start_leaves_no_child_however_far_it_got(launcher):
    for delay in range(30):
        with trio.move_on_after(delay / 10_000):
            await launcher.spawn(CAT, session="a")
    statistics = launcher.statistics()
    assert statistics.starting == 0
    assert statistics.alive + statistics.ended == statistics.spawned
    with trio.fail_after(30):
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
        with trio.fail_after(30), trio.move_on_after(0.01) as scope:
            await launcher.spawn(CAT, session="a")
    finally:
        os.kill(guardian, signal.SIGCONT)
    assert scope.cancelled_caught
    with trio.fail_after(30):
        await (await launcher.spawn(TRUE, session="b")).end()  # answered after the first
        while launcher.statistics().ended < 2:
            await trio.lowlevel.checkpoint()
    assert launcher.statistics().spawned == 2


# the way out


async def test_a_polite_child_ends_by_the_end_of_its_input(launcher):
    process = await launcher.spawn(CAT, session="a")
    with trio.fail_after(30):
        assert await process.end(EndTimes(stdin_close=4)) == 0


async def test_a_child_that_ignores_the_end_of_its_input_gets_SIGTERM(launcher):
    process = await launcher.spawn(shell("exec sleep 1000"), session="a")
    with trio.fail_after(30):
        assert await process.end(EndTimes(stdin_close=0.05, term=4)) == -signal.SIGTERM


async def test_a_child_that_ignores_everything_is_killed_C19(launcher):
    process = await launcher.spawn(child("stubborn", "ready", "forever"), session="a")
    await read_line(process)
    with trio.fail_after(60):
        assert await process.end() == -signal.SIGKILL


async def test_a_stopped_child_can_be_ended_C7(launcher):
    process = await launcher.spawn(child("stop", "echo"), session="a")
    await read_line(process)
    with trio.fail_after(30):
        assert await process.end(EndTimes(stdin_close=0.05, term=4)) == -signal.SIGTERM


async def test_a_stopped_child_that_ignores_SIGTERM_can_be_ended_C7(launcher):
    process = await launcher.spawn(child("stubborn", "stop", "forever"), session="a")
    await read_line(process)
    with trio.fail_after(30):
        assert await process.end(BRISK) == -signal.SIGKILL


@pytest.mark.fault("C21")
@pytest.mark.parametrize("kind", [*GRANDCHILDREN, "bare"])
async def test_grandchildren_end_with_their_child_C20_C21(launcher, kind):
    process, grandchild = await start_family(launcher, kind, "echo")
    with grandchild, trio.fail_after(30):
        assert grandchild.alive
        assert await process.end() == 0
        assert not grandchild.alive
    assert launcher.statistics().leftovers_killed == 1


@pytest.mark.fault("C21")
@pytest.mark.parametrize("kind", GRANDCHILDREN)
async def test_grandchildren_of_a_child_that_has_exited_end_with_it_C20_C21(launcher, kind):
    process, grandchild = await start_family(launcher, kind, "leave", "0")
    with grandchild, trio.fail_after(30):
        assert await process.wait() == 0
        assert grandchild.alive
        await process.end()
        assert not grandchild.alive


@pytest.mark.fault("C21")
@pytest.mark.parametrize("kind", [*GRANDCHILDREN, "bare"])
async def test_grandchildren_of_a_stubborn_child_end_with_it_C20_C21(launcher, kind):
    process, grandchild = await start_family(launcher, kind, "stubborn", "forever")
    with grandchild, trio.fail_after(30):
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
        with trio.fail_after(30):
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
        await grandchild.gone_within(1)


@pytest.mark.fault("C21")
async def test_an_orphan_that_hides_its_origin_ends_with_the_launcher_at_the_latest_C21():
    async with Launcher.open(end_times=BRISK) as launcher:
        _, grandchild = await start_family(launcher, "bare-double", "stubborn", "forever")
    with grandchild:
        await grandchild.gone_within(0.1)


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

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(end)
    assert codes == [-signal.SIGKILL] * 5
    assert await process.end() == -signal.SIGKILL
    assert launcher.statistics().ended == 1


async def test_a_second_call_can_make_the_way_out_faster_H6(launcher):
    process = await launcher.spawn(child("stubborn", "ready", "forever"), session="a")
    await read_line(process)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(process.end, EndTimes(stdin_close=60, term=60))
            await trio.testing.wait_all_tasks_blocked()
            assert await process.end(AT_ONCE) == -signal.SIGKILL


async def test_cancellation_does_not_cut_the_way_out_short(launcher):
    process, grandchild = await start_family(launcher, "setsid", "stubborn", "forever")
    with grandchild, trio.fail_after(30):
        with trio.move_on_after(0.02):
            await process.end(BRISK)
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
    with trio.fail_after(30):
        assert await process.end(EndTimes(stdin_close=4)) == 0
    assert os.read(stdout, 100) == b"last words\n"
    os.close(stdout)


async def test_everything_still_alive_ends_at_once_with_the_launcher():
    async with Launcher.open(end_times=EndTimes(stdin_close=0.2, term=0.2)) as launcher:
        for _ in range(8):
            await read_line(await launcher.spawn(child("stubborn", "ready", "forever"), session="a"))
    assert launcher.statistics().ended == 8
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
    with trio.fail_after(30):
        assert await process.wait() == -signal.SIGUSR1


@pytest.mark.fault("H18")
async def test_a_child_outlives_the_ten_seconds_of_an_idle_worker_thread_H18(launcher):
    # PDEATHSIG follows the parent's thread; started from a worker thread of trio's, the child would die at 10.0 s.
    process = await launcher.spawn(CAT, session="a")
    with trio.move_on_after(12):
        await process.wait()
    assert process.returncode is None


# the deaths of others


@contextlib.contextmanager
def running_program(mode, **options):
    program = subprocess.Popen(
        [sys.executable, str(SERVERS / "program.py"), mode],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )
    try:
        yield program, json.loads(program.stdout.readline())
    finally:
        program.kill()
        program.wait()
        program.stdout.close()


@pytest.mark.fault("H7")
async def test_nothing_is_left_two_seconds_after_the_program_is_killed_H7():
    with running_program("family") as (program, said), contextlib.ExitStack() as stack:
        watched = [stack.enter_context(Watched(pid)) for pid in said["pids"]]
        assert len(watched) == 11
        program.kill()
        with trio.fail_after(30):
            for process in watched:
                await process.gone_within(2)


@pytest.mark.fault("H7")
async def test_a_fork_of_the_killed_program_does_not_keep_its_children_alive_H7():
    with running_program("forked") as (program, said), contextlib.ExitStack() as stack:
        watched = [stack.enter_context(Watched(pid)) for pid in said["pids"]]
        fork = stack.enter_context(Watched(said["fork"]))
        program.kill()
        try:
            with trio.fail_after(30):
                for process in watched:
                    await process.gone_within(2)
            assert fork.alive
        finally:
            os.kill(fork.pid, signal.SIGKILL)


@pytest.mark.fault("H7")
async def test_children_end_though_the_guardian_is_killed_and_the_program_can_do_nothing_H7():
    with running_program("forked") as (program, said), Watched(said["pids"][1]) as child:
        program.send_signal(signal.SIGSTOP)
        os.kill(said["fork"], signal.SIGKILL)
        os.kill(said["pids"][0], signal.SIGKILL)
        await child.gone_within(1)


@pytest.mark.fault("H9")
async def test_a_SIGINT_from_the_terminal_does_not_reach_children_H9():
    controller, terminal = pty.openpty()
    try:
        with running_program("terminal", stdin=terminal, start_new_session=True) as (program, said):
            assert said == {"ready": True}
            os.write(controller, b"\x03")
            assert json.loads(program.stdout.readline()) == {"echo": "still here", "returncode": 0}
            assert program.wait(timeout=30) == 0
    finally:
        os.close(controller)
        os.close(terminal)


async def test_the_death_of_the_guardian_is_the_end_of_its_children_and_theirs(launcher):
    process, grandchild = await start_family(launcher, "double", "stubborn", "forever")
    guardian = launcher.statistics().guardian_pid
    with grandchild:
        os.kill(guardian, signal.SIGKILL)
        with trio.fail_after(30):
            assert await process.wait() == -signal.SIGKILL
        await grandchild.gone_within(2)
        assert await process.end() == -signal.SIGKILL
    assert launcher.statistics().guardian_pid != guardian


async def test_after_the_death_of_the_guardian_processes_can_be_started_again(launcher):
    os.kill(launcher.statistics().guardian_pid, signal.SIGKILL)
    with trio.fail_after(30):
        while launcher.statistics().guardian_pid is not None:
            await trio.lowlevel.checkpoint()
    assert await outcome(launcher, TRUE) is None
    assert launcher.statistics().guardians_started == 2


async def test_a_process_of_the_next_guardian_is_not_taken_for_what_the_dead_one_left(launcher):
    """It may start as soon as the death is known, while the dead one's children are still being ended."""
    for _ in range(5):
        await launcher.spawn(CAT, session="lost")
    os.kill(launcher.statistics().guardian_pid, signal.SIGKILL)
    with trio.fail_after(30):
        while launcher.statistics().guardian_pid is not None:
            await trio.lowlevel.checkpoint()
    new = await launcher.spawn(CAT, session="new")
    with trio.fail_after(30):
        while launcher.statistics().alive > 1:
            await trio.lowlevel.checkpoint()
    with trio.move_on_after(0.5) as lived:
        await new.wait()
    assert lived.cancelled_caught


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
    async with Launcher.open() as launcher:
        for _ in range(2):
            with pytest.raises(ProcessStartError) as caught:
                await launcher.spawn(CAT, session="a")
            assert caught.value.stage == "guardian"
    assert launcher.statistics().guardians_started <= 4


async def test_an_interpreter_that_is_missing_is_named():
    with pytest.raises(ProcessStartError, match="/no/such/python"):
        async with Launcher.open(python="/no/such/python"):
            pass


async def test_a_hanging_guardian_cannot_hold_up_the_way_out():
    async with Launcher.open() as launcher:
        process = await launcher.spawn(child("stubborn", "ready", "forever"), session="a")
        await read_line(process)
        guardian = launcher.statistics().guardian_pid
        os.kill(guardian, signal.SIGSTOP)
        try:
            with trio.fail_after(30):
                assert await process.end(EndTimes(0.1, 0.1, 0.1)) == -signal.SIGKILL
        finally:
            os.kill(guardian, signal.SIGCONT)
        assert launcher.statistics().unswept == 1


async def test_a_hanging_guardian_cannot_hold_up_the_end_of_the_launcher(monkeypatch):
    monkeypatch.setattr(client, "GUARDIAN_EXIT_LIMIT", 0.1)
    with trio.fail_after(30):
        async with Launcher.open(end_times=EndTimes(0.1, 0.1, 0.1)) as launcher:
            process = await launcher.spawn(CAT, session="a")
            os.kill(launcher.statistics().guardian_pid, signal.SIGSTOP)
    assert process.returncode == -signal.SIGKILL
    assert proc.marked(launcher._token) == {}


def test_trio_may_be_a_guest_of_asyncio():
    assert run_program("guest") == {"line": "hello", "polite": 0, "killed": -9}


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
            await grandchild.gone_within(0.2)
            assert other.alive
            await stubborn.end(AT_ONCE)
            await other.gone_within(0.2)


# what it says of itself


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
    statistics = launcher.statistics()
    assert (statistics.alive, statistics.spawned, statistics.ended, statistics.failed) == (0, 1, 1, 0)
