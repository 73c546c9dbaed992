"""What bubblewrap is told; then what a backend in it can and cannot do."""

import errno
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from harness import MUXSIM, ROOT, SERVERS, serving
from serve.machine import descendants, gone
from serve.wire import shake_hands

from muxsim.processes.reach import why_not as no_walls
from muxsim.processes.sandbox import needed, private_folders, sandboxed
from muxsim.processes.views import within
from muxsim.spec import Launch
from processes.enclosed import enclosed_sessions, ends_because_of

WORKSPACE = "/tmp/muxsim-1/lake-2"


@pytest.mark.parametrize(
    ("temporary", "private"),
    [
        ("", ["/tmp", "/run"]),
        ("/tmp", ["/tmp", "/run"]),
        ("/tmp/mine", ["/tmp", "/run"]),
        ("/var/scratch/", ["/tmp", "/run", "/var/scratch"]),
        ("/", ["/tmp", "/run"]),
        ("relative", ["/tmp", "/run"]),
    ],
)
def test_folders_of_temporary_files_are_private(temporary, private):
    assert list(private_folders(temporary)) == private


@pytest.mark.parametrize(
    ("named", "entries"),
    [
        ([], []),
        (["/usr/bin/python3", "server.py", "-m", "/", "/tmp", "/tmpfile"], []),
        (["/tmp/venv/bin/python", "/tmp/venv/server.py"], ["/tmp/venv"]),
        (["/tmp/a.py", "/run/system/bin"], ["/tmp/a.py", "/run/system"]),
        (["/tmp/../etc/passwd"], []),
    ],
)
def test_of_private_folders_only_what_the_command_names_is_shown(named, entries):
    assert needed(named, ["/tmp", "/run"]) == entries


def test_a_folder_is_within_itself_and_above_what_is_below():
    assert within("/tmp", "/tmp")
    assert within("/tmp/a", "/tmp")
    assert not within("/tmpa", "/tmp")


def test_the_command_stands_last_as_it_is_and_its_workspace_is_all_it_may_write():
    launch = Launch(("python3", "/srv/server.py", "--", "x"), {"PATH": "/usr/bin"}, "/srv")
    argv = sandboxed("/usr/bin/bwrap", launch, WORKSPACE)
    assert argv[0] == "/usr/bin/bwrap"
    assert argv[argv.index("--") + 1 :] == launch.argv
    assert [argv[at + 1 : at + 3] for at, word in enumerate(argv) if word == "--bind"] == [(WORKSPACE, WORKSPACE)]
    assert argv[argv.index("--chdir") + 1] == "/srv"
    hidden = [argv[at + 1] for at, word in enumerate(argv) if word == "--tmpfs"]
    assert hidden == ["/tmp", "/run", os.path.dirname(WORKSPACE)]


# real ones


def why_not():
    """Why bubblewrap cannot run here."""
    with tempfile.TemporaryDirectory() as folder:
        launch = Launch(("true",), {"PATH": os.environ["PATH"]}, "/")
        try:
            os.mkdir(f"{folder}/a")
            argv = sandboxed("bwrap", launch, f"{folder}/a")
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return "bubblewrap is not installed"
    return done.stderr if done.returncode else ""


WHY_NOT = why_not()
real = pytest.mark.skipif(bool(WHY_NOT), reason=f"bubblewrap cannot run here: {WHY_NOT}")


def written_in(folder):
    return {path.name: path.read_text() for path in Path(folder).iterdir()}


def remove_folders():
    """What a muxsim that was killed could not."""
    for folder in Path(tempfile.gettempdir()).glob("muxsim-*"):
        shutil.rmtree(folder)


def is_there(path):
    return Path(path).exists()


@pytest.fixture
async def boxed():
    async with enclosed_sessions() as here:
        yield await here.open(sandbox="bubblewrap")


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@real
@pytest.mark.children
async def test_a_sandboxed_backend_has_its_variables_its_folder_and_its_seed(boxed):
    who = await boxed.value("who")
    assert who["env"]["PATH"] == os.environ["PATH"]
    assert who["cwd"] == who["env"]["MUXSIM_WORKSPACE"]
    assert await boxed.text("scribble") == who["cwd"]
    assert written_in(who["cwd"]) == {"scribble": "mine"}


@real
@pytest.mark.children
async def test_a_sandboxed_backend_has_no_network(boxed, listener):
    assert (await boxed.value("connect", address=listener.getsockname()))["errno"] == errno.ECONNREFUSED
    assert (await boxed.value("connect", address=["192.0.2.1", 80]))["errno"] == errno.ENETUNREACH


@real
@pytest.mark.children
@pytest.mark.parametrize("path", ["/etc/muxsim-test", "/usr/muxsim-test", "/root/muxsim-test", "/var/tmp/muxsim-test"])
async def test_a_sandboxed_backend_writes_nowhere_else(boxed, path):
    assert (await boxed.value("touch", path=path))["errno"] in (errno.EROFS, errno.EACCES, errno.ENOENT)
    assert not is_there(path)


@real
@pytest.mark.children
async def test_the_temporary_files_of_a_sandboxed_backend_are_its_own(boxed):
    path = f"/tmp/muxsim-test-{os.getpid()}"
    assert await boxed.value("touch", path=path) == {"result": None}
    assert not is_there(path)


@real
@pytest.mark.children
async def test_sandboxed_backends_see_no_folder_of_another():
    async with enclosed_sessions() as here:
        one, other = await here.open(sandbox="bubblewrap"), await here.open(sandbox="bubblewrap")
        folder = Path(await one.text("scribble"))
        assert (await other.value("listing", path=str(folder)))["errno"] == errno.ENOENT
        assert (await other.value("listing", path=str(folder.parent)))["result"] != [folder.name]


@pytest.mark.fault("C20", "C21")
@real
@pytest.mark.children
@pytest.mark.parametrize("kind", ["group", "setsid", "double"])
async def test_everything_in_a_sandbox_ends_with_its_session_C20_C21(boxed, kind):
    await boxed.value("spawn", kind=kind)
    inside = descendants(boxed.session.pid)
    assert len(inside) >= 2
    boxed.session.end("test", "enough")
    await boxed.session.wait_ended()
    await gone(*inside)


@real
@pytest.mark.children
async def test_a_sandboxed_backend_tells_which_bound_it_met():
    async with enclosed_sessions() as here:
        greedy = await here.open(sandbox="bubblewrap", max_cpu_seconds=1)
        await ends_because_of("max_cpu_seconds", greedy, "burn_cpu")


@pytest.mark.fault("H7")
@real
@pytest.mark.children
async def test_sandboxes_end_with_muxsim_however_that_ends_H7(tmp_path):
    args = ["-I", "-S", str(SERVERS / "naughty.py"), "--stubborn"]
    config = f'[environments.naughty]\ncommand = "python3"\nargs = {args}\nsandbox = "bubblewrap"\n'
    async with serving(tmp_path, config, env={"TMPDIR": tempfile.gettempdir()}) as muxsim:
        client = await shake_hands(muxsim.url)
        await client.value("spawn", kind="double")
        started = descendants(muxsim.process.pid)
        assert len(started) >= 4  # the guardian, bubblewrap's two, the server; the orphan
        muxsim.process.kill()
        await gone(*started)
    remove_folders()


@pytest.mark.children
@pytest.mark.parametrize(
    "sandbox",
    [
        pytest.param("bubblewrap", marks=real),
        pytest.param("landlock", marks=pytest.mark.skipif(no_walls() is not None, reason=f"no Landlock: {no_walls()}")),
    ],
)
@pytest.mark.parametrize("env", ["frozen_lake", "treasure_grid"])
def test_real_environments_play_the_same_in_a_sandbox(tmp_path, env, sandbox):
    examples = ROOT / "examples" / "muxsim.toml"
    text = examples.read_text().replace('command = "', f'command = "{examples.parent}/')
    config = tmp_path / "muxsim.toml"
    config.write_text(f'[server]\nsandbox = "{sandbox}"\n{text}')
    argv = [*MUXSIM, "check", env, "--config", str(config), "--steps", "3"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, "is fit for rollouts" in done.stdout) == (0, True), done.stdout
