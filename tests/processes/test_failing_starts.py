"""What cannot be started says why, and leaves nothing behind."""

import errno
import os
import resource
import shutil

import pytest

from muxsim import inside
from muxsim.inside import proc, wire
from muxsim.observe.counters import Counters
from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.launcher import Launcher
from processes.launching import (
    CAT,
    PATH,
    SERVERS,
    TRUE,
    counted,
    outcome,
    read_line,
    run_program,
)

pytestmark = [pytest.mark.children, pytest.mark.usefixtures("no_leaks")]


async def refused(launcher, command):
    with pytest.raises(ProcessStartError) as caught:
        await launcher.spawn(command, session="a")
    assert counted(launcher, "processes_not_started") == 1
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
    async with Launcher.open(emit=Counters()) as launcher:
        outcomes = [await outcome(launcher, TRUE) for _ in range(4)]
        errors = [error for error in outcomes if error is not None]
        assert [error.errno for error in errors] == [getattr(errno, number)]
        assert counted(launcher, "processes_not_started") == 1


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
