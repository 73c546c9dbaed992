"""Where a running muxsim is found by its operator, whatever becomes of the folder of its socket."""

from __future__ import annotations

import os
import re
import shutil
import stat
import threading

import pytest
import trio
from harness import serving

from muxsim.errors import Gone, NotRunning
from muxsim.serve.operate import running

from .conftest import environment
from .machine import eventually, log_lines, logged
from .test_operations import answer, command, config_of

VARIABLES = ("MUXSIM_RUNTIME_DIR", "XDG_RUNTIME_DIR", "TMPDIR")


@pytest.fixture
def anywhere(tmp_path, monkeypatch):
    """No variable names a place."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(running.tempfile, "gettempdir", lambda: os.environ.get("TMPDIR", "/tmp"))


async def test_the_places_that_no_variable_names_come_first(anywhere, monkeypatch):
    user = os.getuid()
    everywhere = [f"/run/user/{user}/muxsim", f"/tmp/.muxsim-{user}"]
    assert [*map(str, running.places())] == everywhere
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/elsewhere")
    monkeypatch.setenv("TMPDIR", "/scratch")
    assert [*map(str, running.places())] == [*everywhere, "/elsewhere/muxsim", f"/scratch/.muxsim-{user}"]
    monkeypatch.setenv("MUXSIM_RUNTIME_DIR", "/chosen")
    assert [*map(str, running.places())] == ["/chosen"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two places that there may be."""
    places = [tmp_path / "one", tmp_path / "two"]
    monkeypatch.setattr(running, "places", lambda: places)
    return places


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (b"", Gone, "muxsim {pid} has gone"),
        (b'{"pid": ', Gone, "muxsim {pid} has gone"),
        (b"nonsense\n", NotRunning, "muxsim {pid} does not answer: Expecting value"),
        (None, NotRunning, "muxsim {pid} does not answer within 0.2 s"),
    ],
)
async def test_one_that_ends_in_the_midst_of_a_question_has_gone_and_one_that_hangs_is_said_to(
    here, said, error, words
):
    pid, reachable = os.getpid(), running.be_reachable()
    over = threading.Event()

    def answer_one():
        connection, _ = reachable.listener.accept()
        with connection:
            connection.recv(4096)
            if said is None:
                over.wait()
            else:
                connection.sendall(said)

    reachable.listener.setblocking(True)
    thread = threading.Thread(target=answer_one)
    thread.start()
    try:
        with pytest.raises(error, match=re.escape(words.format(pid=pid))):
            running.Running(pid, reachable.path.parent).ask("status", timeout=0.2 if said is None else 60)
    finally:
        over.set()
        thread.join()
        reachable.close()
    with pytest.raises(Gone, match=f"muxsim {pid} has gone"):
        running.Running(pid, here[0]).ask("status")


async def test_a_place_that_cannot_be_had_is_passed_over_and_one_left_behind_is_found(here):
    one, two = here
    one.mkdir()
    one.chmod(0o777)
    reachable = running.be_reachable()
    try:
        assert reachable.path.parent == two
        assert [found.folder for found in running.find_running()] == [two]
        assert running.choose_running(os.getpid()).folder == two
    finally:
        reachable.close()
    assert not two.exists()
    with pytest.raises(NotRunning, match="one must be a folder of this user's own") as raised:
        running.choose_running(None)
    assert str(two) in str(raised.value)


async def test_who_looks_for_a_muxsim_makes_no_folder(here):
    assert running.find_running() == []
    assert not any(place.exists() for place in here)


async def test_a_folder_made_under_a_umask_that_shuts_out_its_owner_is_opened_to_it(here):
    before = os.umask(0o777)
    try:
        reachable = running.be_reachable()
    finally:
        os.umask(before)
    try:
        assert stat.S_IMODE(here[0].stat().st_mode) == 0o700
        assert stat.S_IMODE(reachable.path.stat().st_mode) == 0o600
    finally:
        reachable.close()
    here[0].mkdir(mode=0o000)
    running.make_folder(here[0])
    assert stat.S_IMODE(here[0].stat().st_mode) == 0o700


@pytest.mark.children
async def test_one_whose_folder_was_removed_binds_again(tmp_path, monkeypatch):
    folder = tmp_path / "runtime"
    monkeypatch.setenv("MUXSIM_RUNTIME_DIR", str(folder))
    async with serving(tmp_path, environment("naughty")) as muxsim:
        for times in (1, 2):
            shutil.rmtree(folder)
            await eventually(lambda times=times: len(moved(muxsim)) == times)
            assert moved(muxsim)[-1]["path"] == str(folder / f"{muxsim.process.pid}.sock")
            assert (await answer("ctl", "status"))["pid"] == muxsim.process.pid
    assert not folder.exists()
    folder.mkdir(mode=0o700)
    async with serving(tmp_path, environment("naughty")):
        pass
    assert folder.exists(), "it was there before"


def moved(muxsim):
    """The lines that say that it is to be found again."""
    return log_lines(muxsim, event="muxsim.operator_socket")


@pytest.mark.children
async def test_it_is_found_from_cron_and_from_a_login_wherever_it_was_started(tmp_path, monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "login").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "login"))
    async with serving(tmp_path, environment("naughty"), env={"TMPDIR": str(tmp_path)}) as muxsim:
        pid = str(muxsim.process.pid)
        assert (await answer("ctl", "status", "--pid", pid))["pid"] == muxsim.process.pid
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert (await answer("ctl", "status", "--pid", pid))["pid"] == muxsim.process.pid
        monkeypatch.setenv("TMPDIR", str(tmp_path / "login"))
        assert (await answer("ctl", "status", "--pid", pid))["pid"] == muxsim.process.pid


@pytest.mark.children
async def test_where_the_socket_is_required_muxsim_does_not_start_without_and_a_check_says_so(tmp_path, monkeypatch):
    folder = tmp_path / "runtime"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("MUXSIM_RUNTIME_DIR", str(folder))
    config_of(tmp_path).parent.mkdir()
    config_of(tmp_path).write_text('[server]\nport = 0\noperator_socket = "required"\n' + environment("naughty"))
    for options in ((), ("--check",)):
        status, out, problem = await command("serve", str(config_of(tmp_path)), *options)
        assert (status, out) == (2, "")
        assert "operator_socket" in problem
        assert "chmod 700" in problem
    folder.chmod(0o700)
    status, *_ = await command("serve", str(config_of(tmp_path)), "--check")
    assert status == 0


@pytest.mark.children
async def test_who_looks_in_a_folder_that_is_open_to_others_is_told_so(tmp_path, monkeypatch):
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    monkeypatch.setenv("MUXSIM_RUNTIME_DIR", str(folder))
    words = f"no muxsim of this user can be looked for; {folder} must be a folder of this user's own, closed to others"
    assert (await command("ps"))[1] == f"{words} (chmod 700)\n"
    assert (await command("ctl", "status"))[2] == f"muxsim: {words} (chmod 700)\n"
    folder.chmod(0o700)
    assert (await command("ctl", "status"))[2] == f"muxsim: no muxsim is serving as this user (none in {folder})\n"


@pytest.mark.children
async def test_a_muxsim_without_an_operator_socket_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("MUXSIM_RUNTIME_DIR", str(tmp_path / "runtime"))
    async with serving(tmp_path, '[server]\noperator_socket = "off"\n' + environment("naughty")) as muxsim:
        assert log_lines(muxsim, event="muxsim.no_operator_socket") == []
        assert (await command("ctl", "status"))[0] == 2
    assert not (tmp_path / "runtime").exists()


@pytest.mark.children
async def test_a_line_says_who_wished_a_change(tmp_path, monkeypatch):
    monkeypatch.setenv("MUXSIM_RUNTIME_DIR", str(tmp_path / "runtime"))
    async with serving(tmp_path, environment("naughty")) as muxsim:
        await command("ctl", "drain")
        told = await logged(muxsim, event="muxsim.draining")
        assert re.fullmatch(rf"user {os.getuid()} \(process \d+\)", told["by"])
        assert await trio.to_thread.run_sync(muxsim.stop) == 0
        assert log_lines(muxsim, event="muxsim.stopping")[0]["by"] == "SIGTERM"
