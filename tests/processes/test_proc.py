"""What is read of processes, and whom a signal reaches."""

import os
import signal
import subprocess

import pytest

from muxsim.inside import proc
from processes.launching import stranger

NULL = os.open("/dev/null", os.O_RDWR)


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
