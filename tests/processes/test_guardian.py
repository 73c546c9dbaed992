"""The guardian by its own protocol, without a Launcher."""

import errno
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys

import pytest

from muxsim import inside
from muxsim.inside import proc
from muxsim.inside.spawn import places
from muxsim.inside.wire import Packet, pack, receive, send
from muxsim.processes.owner import new_token
from processes.launching import stranger

NULL = os.open("/dev/null", os.O_RDWR)
TOKEN = new_token()  # several workers may run this file
PATIENCE = 60.0  # seconds that a test waits for an answer


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
        self.channel.settimeout(PATIENCE)
        self.channel.recv(1, socket.MSG_PEEK)
        received = receive(self.channel)
        Packet(b"", tuple(received.fds)).close()
        return received.message

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
    guarding.process.wait(60)
    assert not folder.exists()
    guarding.close()


@pytest.mark.children
def test_a_guardian_is_small(running):
    running.ask("remember", pid=0)
    running.hear()
    rollup = pathlib.Path(f"/proc/{running.process.pid}/smaps_rollup").read_text()
    resident = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Rss:"))
    assert resident < 24 * 1024  # KiB; 14 MiB when this was written
