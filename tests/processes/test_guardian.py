"""The guardian by its own protocol, without a Launcher, and the plain functions it is made of."""

import contextlib
import errno
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest

from muxsim import inside
from muxsim.inside import proc
from muxsim.inside.proc import Stat
from muxsim.inside.spawn import places
from muxsim.inside.tree import Hiding, Orphan, Tree
from muxsim.inside.wire import Packet, pack, receive, send
from muxsim.processes.owner import new_token

NULL = os.open("/dev/null", os.O_RDWR)
TOKEN = new_token()  # several workers may run this file
PATIENCE = 60.0  # seconds that a test waits for an answer


# the wire


@pytest.fixture
def channel():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours, theirs


def test_a_message_arrives_with_its_descriptors(channel):
    packet = pack({"kind": "spawn", "ref": 1, "odd": "\udcff"}, [os.dup(NULL), os.dup(NULL)])
    send(channel[0], packet)
    packet.close()
    received = receive(channel[1])
    assert received.message == {"kind": "spawn", "ref": 1, "odd": "\udcff"}
    assert received.complete
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in received.fds] == ["/dev/null"] * 2
    assert not any(os.get_inheritable(fd) for fd in received.fds)
    Packet(b"", tuple(received.fds)).close()


def test_a_message_too_long_for_a_packet_travels_beside_it(channel):
    message = {"kind": "spawn", "ref": 7, "env": {"BIG": "x" * 1_000_000}}
    packet = pack(message, [os.dup(NULL)])
    assert len(packet.data) < 100
    send(channel[0], packet)
    packet.close()
    received = receive(channel[1])
    assert received.message == message
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in received.fds] == ["/dev/null"]
    Packet(b"", tuple(received.fds)).close()


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_a_message_whose_descriptors_found_no_room_says_so_and_whose_it_was_H1(channel, size):
    packet = pack({"kind": "spawn", "ref": 7, "env": "x" * size}, [os.dup(NULL) for _ in range(3)])
    send(channel[0], packet)
    packet.close()
    with no_more_descriptors(but=1):
        received = receive(channel[1])
    assert not received.complete
    assert received.message["ref"] == 7
    Packet(b"", tuple(received.fds)).close()


@contextlib.contextmanager
def no_more_descriptors(*, but):
    held = os.dup(NULL)  # the lowest number that is free
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(held)
    resource.setrlimit(resource.RLIMIT_NOFILE, (held + but, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_the_end_of_the_channel_is_a_message_of_none(channel):
    channel[0].close()
    assert receive(channel[1]).message is None


def test_an_empty_channel_does_not_block(channel):
    with pytest.raises(BlockingIOError):
        receive(channel[1])


# looking at processes


@contextlib.contextmanager
def stranger(program="cat", **options):
    """A process that is no guardian's; it runs, and its environment can be read, when this begins."""
    process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, **options)
    with process:
        try:
            process.stdin.write(b"\n")
            process.stdout.read(1)
            yield process
        finally:
            process.kill()


@pytest.mark.children
def test_a_name_with_brackets_and_spaces_does_not_confuse_the_reading(tmp_path):
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/cat")
    with stranger(str(program), start_new_session=True) as process:
        stat = proc.read_stat(process.pid)
    assert (stat.parent, stat.group, stat.session) == (os.getpid(), process.pid, process.pid)
    assert stat.started > 0


@pytest.mark.children
@pytest.mark.parametrize("files", [True, False])
def test_a_family_is_found_with_and_without_the_kernels_list_of_children(monkeypatch, files):
    monkeypatch.setattr(proc, "CHILDREN_FILES", files and proc.CHILDREN_FILES)
    script = "sleep 1000 & echo $!; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        grandchild = int(parent.stdout.readline())
        found = proc.families([parent.pid])
        assert set(found) == {parent.pid, grandchild}
        assert parent.pid in proc.children_of(os.getpid())
        for pid, stat in found.items():
            assert proc.signal_exactly(pid, stat.started, signal.SIGKILL)


@pytest.mark.children
def test_a_signal_spares_a_process_that_has_the_pid_but_not_the_start_H19():
    with stranger() as process:
        started = proc.read_stat(process.pid).started
        assert not proc.signal_exactly(process.pid, started - 1, signal.SIGKILL)
        assert process.poll() is None
        assert proc.signal_exactly(process.pid, started, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not proc.signal_exactly(process.pid, started, signal.SIGKILL)


@pytest.mark.children
def test_a_mark_is_found_only_whole():
    with stranger(env={"MUXSIM_PROCESS": "abc.12"}) as process:
        assert b"\0MUXSIM_PROCESS=abc.12\0" in proc.environment(process.pid)
        assert process.pid in proc.marked("abc")
        assert proc.marked("ab") == {}


@pytest.mark.parametrize(
    ("program", "env", "expected"),
    [
        ("cat", {"PATH": "/a:/b"}, ["/a/cat", "/b/cat"]),
        ("cat", {"PATH": "/a::/b"}, ["/a/cat", "./cat", "/b/cat"]),
        ("cat", {}, ["/bin/cat", "/usr/bin/cat"]),
        ("./cat", {"PATH": "/a"}, ["./cat"]),
        ("/x/cat", {}, ["/x/cat"]),
    ],
)
def test_a_program_is_looked_for_as_a_shell_does(program, env, expected):
    assert places(program, env) == expected


# whose an orphan is


def orphan(pid=7, *, group=1, session=1, started=100, environment=b"\0A=B\0"):
    return Orphan(pid, Stat(b"S", parent=1, group=group, session=session, started=started), environment)


@pytest.mark.parametrize(
    ("candidate", "owned"),
    [
        (orphan(), False),
        (orphan(group=50), True),
        (orphan(session=50), True),
        (orphan(environment=b"\0A=B\0MUXSIM_PROCESS=abc.1\0"), True),
        (orphan(environment=b"\0MUXSIM_PROCESS=abc.12\0"), False),
        (orphan(environment=b"\0NOT_MUXSIM_PROCESS=abc.1\0"), False),
        (orphan(pid=60, started=100), True),
        (orphan(pid=60, started=101), False),
        (orphan(session=61), True),
    ],
)
def test_a_tree_knows_its_own_by_group_session_mark_or_from_having_met_them(candidate, owned):
    tree = Tree(50, "abc.1")
    tree.remember({60: orphan(session=61, started=100).stat})
    assert tree.owns(candidate) is owned


def test_orphans_without_an_environment_are_given_some_time_once():
    hiding, hidden, later = Hiding(), orphan(environment=b""), orphan(8, environment=b"")
    hiding.see([orphan()], 0.0)
    assert hiding.is_settled(0.0)
    hiding.see([orphan(), hidden], 1.0)
    assert not hiding.is_settled(1.0)
    hiding.see([hidden], 1.2)
    assert hiding.is_settled(1.2)
    hiding.see([hidden, later], 2.0)
    assert not hiding.is_settled(2.0)
    hiding.see([hidden, orphan(8)], 2.05)
    assert hiding.is_settled(2.05)


# the guardian itself


class Running:
    """A guardian, and our end of its channel."""

    def __init__(self, launcher, *folder):
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", inside.GUARDIAN, str(launcher), TOKEN, *folder],
                stdin=theirs.fileno(),
                start_new_session=True,
            )
        self._ref = 0

    def ask(self, kind, **fields):
        send(self.channel, Packet(pack({"kind": kind, **fields}).data, ()))

    def spawn(self, *argv, **changes):
        self._ref += 1
        order = {"cwd": "/", "umask": None, "confinement": {}, "env": {"MUXSIM_PROCESS": f"{TOKEN}.{self._ref}"}}
        message = {"kind": "spawn", "ref": self._ref, "argv": argv, **order, **changes}
        send(self.channel, Packet(pack(message).data, (NULL, NULL, NULL)))

    def hear(self):
        """The next answer; its descriptors are closed."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                received = receive(self.channel)
                Packet(b"", tuple(received.fds)).close()
                return received.message
            self.channel.settimeout(PATIENCE)
            with contextlib.suppress(TimeoutError):
                self.channel.recv(1, socket.MSG_PEEK)
        raise AssertionError("no answer")

    def close(self):
        self.channel.close()
        return self.process.wait(timeout=PATIENCE)


@pytest.fixture
def running():
    running = Running(os.getpid())
    yield running
    assert running.close() == 0
    assert proc.marked(TOKEN) == {}


@pytest.mark.children
def test_a_child_is_announced_and_then_its_exit(running):
    running.spawn("/bin/sh", "-c", "exit 3")
    spawned = running.hear()
    assert (spawned["kind"], spawned["ref"]) == ("spawned", 1)
    assert running.hear() == {"kind": "exited", "pid": spawned["pid"], "status": 3}
    running.ask("sweep", pid=spawned["pid"])
    assert running.hear() == {"kind": "swept", "pid": spawned["pid"], "killed": 0, "left": 0}


@pytest.mark.children
def test_a_child_that_cannot_run_is_reported_and_reaped(running):
    running.spawn("/no/such/program")
    assert running.hear() == {"kind": "failed", "ref": 1, "stage": "exec", "errno": errno.ENOENT}
    assert proc.children_of(running.process.pid) == []


@pytest.mark.children
def test_what_is_asked_of_a_pid_that_is_not_its_child_does_nothing(running):
    with stranger() as process:
        running.ask("signal", pid=process.pid, signals=[signal.SIGKILL])
        running.ask("sweep", pid=process.pid)
        running.ask("remember", pid=process.pid)
        assert running.hear() == {"kind": "remembered", "pid": process.pid}
        assert process.poll() is None


@pytest.mark.children
def test_what_another_guardian_left_is_cleared(running):
    left = {"MUXSIM_PROCESS": f"{TOKEN}.1"}
    with stranger(env=left, start_new_session=True) as one, stranger(env={"MUXSIM_PROCESS": "other.1"}) as other:
        running.ask("clear")
        assert one.wait(timeout=PATIENCE) == -signal.SIGKILL
        assert running.hear() == {"kind": "cleared", "killed": 1}
        assert other.poll() is None


@pytest.mark.children
def test_a_guardian_without_room_for_descriptors_fails_the_start_and_recovers_H1(running):
    running.ask("remember", pid=0)
    running.hear()  # it has opened what it needs
    _, hard = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
    in_use = len(os.listdir(f"/proc/{running.process.pid}/fd"))
    for room in range(6):
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (in_use + room, hard))
        running.spawn("/bin/true")
        answer = running.hear()
        if answer["kind"] == "spawned":
            break
        assert (answer["errno"], answer["ref"]) == (errno.EMFILE, room + 1)
    assert room > 3  # its three streams, and a pipe to hear of the exec
    assert running.hear()["kind"] == "exited"
    running.ask("sweep", pid=answer["pid"])
    assert running.hear()["kind"] == "swept"


@pytest.mark.children
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_guardian_is_not_ended_by_the_signals_of_a_terminal_or_a_service_manager_H9(running, number):
    running.ask("remember", pid=0)
    running.hear()
    running.process.send_signal(number)
    running.ask("remember", pid=0)
    assert running.hear() == {"kind": "remembered", "pid": 0}


@pytest.mark.children
def test_a_guardian_ends_politely_what_is_polite_when_its_launcher_is_gone_H7():
    running = Running(os.getpid())
    script = "trap 'echo bye >&9; exit' TERM; echo ready >&9; while :; do sleep 0.01; done"
    told, tell = os.pipe()
    with open(told) as output:
        running._ref = 1
        order = {"cwd": "/", "umask": None, "confinement": {}, "env": {"MUXSIM_PROCESS": f"{TOKEN}.1"}}
        message = {"kind": "spawn", "ref": 1, "argv": ["/bin/bash", "-c", f"exec 9>&1; {script}"], **order}
        message["env"]["PATH"] = os.defpath
        send(running.channel, Packet(pack(message).data, (NULL, tell, NULL)))
        os.close(tell)
        assert running.hear()["kind"] == "spawned"
        assert output.readline() == "ready\n"
        assert running.close() == 0
        assert output.readline() == "bye\n"


@pytest.mark.children
def test_a_guardian_whose_launcher_is_gone_already_does_not_stay():
    with subprocess.Popen(["true"]) as gone:
        pass
    assert Running(gone.pid).close() == 0


@pytest.mark.children
@pytest.mark.parametrize("already", [True, False])
def test_a_guardian_removes_its_launchers_folder_when_that_is_gone_H7(tmp_path, already):
    """H7: whenever that is, the time before the guardian has begun included."""
    folder = tmp_path / "folder"
    (folder / "workspace").mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as launcher:
        if already:
            launcher.kill()
            launcher.wait()
        guarding = Running(launcher.pid, str(folder))
        launcher.kill()
    guarding.process.wait(30)
    assert not folder.exists()
    guarding.close()


@pytest.mark.children
def test_a_guardian_is_small(running):
    running.ask("remember", pid=0)
    running.hear()
    rollup = pathlib.Path(f"/proc/{running.process.pid}/smaps_rollup").read_text()
    resident = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Rss:"))
    assert resident < 24 * 1024  # KiB; 14 MiB when this was written
