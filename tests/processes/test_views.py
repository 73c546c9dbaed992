"""Views of folders that each session has alone: which folders, that nobody sees what is written, what is left."""

import errno
import json
import os
import shutil
import site
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from harness import MUXSIM, ROOT
from hypothesis import given
from hypothesis import strategies as st
from serve.machine import eventually
from start.playing import Listener, Played, slots_counted, starts

from muxsim.errors import StartError
from muxsim.inside.libc import DAC_OVERRIDE
from muxsim.observe.events import NotPrivate
from muxsim.processes import reach, views
from muxsim.processes.command import ProcessStartError
from muxsim.processes.enclosure import open_enclosures
from muxsim.processes.views import NotPrivateError, covered, outermost, within
from muxsim.provision.preflight import refused_views
from muxsim.spec import EnvSpec
from processes.enclosed import BRISK, NAUGHTY, enclosed_sessions
from transports import messages

# ---- which folders

NAMES = st.sampled_from(["a", "b", "a b", "ab"])
FOLDERS = st.lists(st.lists(NAMES, max_size=4).map(lambda names: "/" + "/".join(names)), max_size=6)


@given(FOLDERS)
def test_every_folder_is_covered_once_and_by_none_that_nobody_wants(folders):
    found = outermost(folders)
    assert all(sum(within(folder, one) for one in found) == 1 for folder in folders)
    assert set(found) <= set(folders)


@pytest.fixture
def places(tmp_path):
    for name in ("sessions", "data/inner", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    return tmp_path


def covers(places, asked, installed=()):
    names = [str(places / name) for name in asked], [str(places / name) for name in installed]
    return [(os.path.relpath(folder, places), strict) for folder, strict in covered(*names, places / "sessions")]


def test_a_view_is_of_the_real_folder_and_one_for_all_below_it(places):
    assert covers(places, ["link"]) == [("data", True)]
    assert covers(places, ["data/inner", "link", "other", "data"]) == [("data", True), ("other", True)]


def test_a_view_of_which_a_part_was_asked_for_is_had_or_nothing_starts(places):
    assert covers(places, ["data/inner"], ["data", "other"]) == [("data", True), ("other", False)]


def test_what_is_not_installed_any_more_has_no_view(places):
    assert covers(places, [], ["data", "gone", "file"]) == [("data", False)]


def test_what_is_mounted_in_a_folder_has_a_view_of_its_own_and_a_file_cannot_have_one(places, monkeypatch):
    monkeypatch.setattr(views, "_mount_points", lambda: ["/", str(places / "data" / "inner")])
    assert covers(places, ["data"]) == [("data", True), ("data/inner", True)]
    monkeypatch.setattr(views, "_mount_points", lambda: [str(places / "file")])
    with pytest.raises(NotPrivateError, match="has a file mounted in it"):
        views.mounted_below(str(places))
    (places / "data" / "one").write_text("")
    monkeypatch.setattr(views, "_mount_points", lambda: [str(places / "data" / "one")])
    assert covers(places, [], ["data", "other"]) == [("other", False)]


@pytest.mark.children
@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount something in a folder")
def test_a_view_shows_what_is_mounted_in_its_folder_and_keeps_what_is_written_there_too(play):
    mounted = 'mount -t tmpfs none "$3"/folder && echo inner > "$3"/folder/inner && exec "$@"'
    argv = ("unshare", "-m", "sh", "-c", mounted, "sh")
    seen = play(sys.executable, "private", before=argv)
    for way in ("fresh", "fork"):
        assert (seen[way]["own"], seen[way]["other"]) == ("own", "the user's")
        assert seen[way]["mounted"] == []
    assert seen["mounted"] == ["inner"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("file", "file is a file: name its folder"),
        ("gone", "gone is not there: make it, or correct its name"),
        ("sessions", "has the folders of sessions in it"),
        (".", "name folders below it, or another TMPDIR"),
        ("sessions/one", "is among the folders of sessions"),
    ],
)
def test_what_cannot_be_private_is_an_error_that_says_what_to_do(places, name, advice):
    (places / "sessions" / "one").mkdir()
    with pytest.raises(NotPrivateError, match=advice):
        covers(places, [name])


# ---- real children


@pytest.fixture(scope="module")
def why_not(tmp_path_factory):
    """Why this machine has no views for us."""
    spec = EnvSpec(name="one", command="a", private=(str(tmp_path_factory.mktemp("folder")),))
    return "; ".join(trio.run(refused_views, [spec]))


@pytest.fixture(autouse=True)
def _needs_views(request):
    if request.node.get_closest_marker("children") and (reason := request.getfixturevalue("why_not")):
        pytest.skip(reason)


@pytest.fixture
def _refusable():
    """A user namespace of our own can be had, to refuse things in."""
    if subprocess.run(["unshare", "-Ur", "true"], check=False, capture_output=True).returncode:
        pytest.skip("there are no user namespaces here")


@pytest.fixture
async def here():
    async with enclosed_sessions() as here:
        yield here


@pytest.fixture
def data(tmp_path):
    """A folder with a hostile name, as long as paths may be in one word of mount options, with a file in it."""
    folder = tmp_path / "with, commas:and\\slashes {seed}" / ("x" * 200)
    folder.mkdir(parents=True)
    (folder / "state").write_text("the user's")
    return folder


def private(*folders):
    return {"private": tuple(str(folder).replace("{seed}", "{{seed}}") for folder in folders)}


async def notes_of(client, folder):
    return (await client.value("read_file", path=str(folder / "state"))).get("result")


async def writes(client, folder, text):
    assert await client.value("keep_text", path=str(folder / "state"), text=text) == {"result": None}
    assert await client.value("keep_text", path=str(folder / f"of {text}"), text=text) == {"result": None}


def read(path):
    return path.read_text()


def mounts():
    """How many views this process sees."""
    return Path("/proc/self/mountinfo").read_text().count("upperdir=/proc/self/fd/")


async def ends(*clients):
    """End these sessions: nothing of theirs is left."""
    folders = [(await client.value("who"))["env"]["MUXSIM_WORKSPACE"] for client in clients]
    for client in clients:
        client.session.end("test", "it is over")
        await client.session.wait_ended()
    await eventually(lambda: not any(os.path.exists(folder + end) for folder in folders for end in ("", ".private")))


@pytest.mark.children
@pytest.mark.parametrize("zygote", [False, True])
async def test_what_a_session_writes_in_a_private_folder_only_it_sees_and_is_gone_at_its_end(here, data, zygote):
    options = {"zygote": zygote, "name": "one", "fields": private(data)}
    clients = [await here.open(**options) for _ in range(3)]
    for client, text in zip(clients, "abc", strict=True):
        await writes(client, data, text)
    for client, text in zip(clients, "abc", strict=True):
        assert await notes_of(client, data) == text
        assert sorted((await client.value("listing", path=str(data)))["result"]) == [f"of {text}", "state"]
    assert (starts(here.pool, "fork") > 0) == zygote
    await ends(*clients)
    assert [path.name for path in data.iterdir()] == ["state"]
    assert (data / "state").read_text() == "the user's"
    assert mounts() == 0


@pytest.mark.children
async def test_what_a_session_removes_is_gone_for_all_its_processes_and_for_no_others(here, data):
    one, other = [await here.open(name="one", fields=private(data)) for _ in range(2)]
    assert await one.value("remove", path=str(data / "state")) == {"result": None}
    assert await one.value("run_program", argv=["ls", str(data)]) == {"result": ""}
    assert await notes_of(other, data) == "the user's"
    assert "state" in os.listdir(data)


@pytest.mark.children
@pytest.mark.parametrize("zygote", [False, True])
async def test_a_session_that_starts_in_a_private_folder_is_in_its_view_of_it(here, data, zygote):
    fields = {**private(data), "cwd": str(data).replace("{seed}", "{{seed}}")}
    clients = [await here.open(name="one", zygote=zygote, fields=fields) for _ in range(2)]
    for client in clients:
        assert await client.value("keep_text", path="beside", text="own") == {"result": None}
    assert not (data / "beside").exists()


@pytest.mark.children
async def test_the_workspace_stays_what_muxsim_sees_too(here, data):
    client = await here.open(fields=private(data))
    workspace = await client.text("scribble")
    assert read(Path(workspace, "scribble")) == "mine"


@pytest.mark.children
async def test_another_backend_of_a_session_sees_what_the_one_before_has_written(here, data):
    spec = EnvSpec(name="one", command=sys.executable, args=NAUGHTY, limits=BRISK, **private(data))
    lease = await here.pool.acquire(spec)
    for expected in ("the user's", "kept", "kept"):
        async with talking(here.pool, lease) as ask:
            assert await ask("read_file", path=str(data / "state")) == expected
            await ask("keep_text", path=str(data / "state"), text="kept")
    await here.pool.release(lease)
    assert (data / "state").read_text() == "the user's"


@asynccontextmanager
async def talking(pool, lease, seed=1):
    """A backend on a lease, asked without a session."""
    said, more = [], trio.Event()

    class Hearing(Listener):
        def from_backend(self, message):
            said.append(json.loads(bytes(message.members["result"])))
            more.set()

    backend = await pool.start(lease, seed=seed, session="s", listener=Hearing())

    async def ask(name, **arguments):
        nonlocal more
        more = trio.Event()
        backend.send(messages.request(1, "tools/call", {"name": name, "arguments": arguments}))
        await more.wait()
        return json.loads(said[-1]["content"][0]["text"])["result"]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(backend.run)
        yield ask
        nursery.cancel_scope.cancel()
    await backend.end()


@pytest.mark.children
@pytest.mark.parametrize("sandbox", ["bubblewrap", "landlock"])
async def test_in_a_sandbox_a_session_writes_in_its_private_folders_beside_its_workspace(here, data, tmp_path, sandbox):
    if sandbox == "bubblewrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    if sandbox == "landlock" and (reason := reach.why_not()):
        pytest.skip(reason)
    one, other = [await here.open(name="one", sandbox=sandbox, fields=private(data)) for _ in range(2)]
    await writes(one, data, "a")
    assert await notes_of(one, data) == "a"
    assert await notes_of(other, data) == "the user's"
    assert "errno" in await one.value("touch", path=str(tmp_path / "not private"))


@pytest.mark.children
async def test_processes_that_wait_have_views_of_their_own_before_their_session_is_known(here, data):
    fields = {**private(data), "warm": 2}
    first = await here.open(name="one", zygote=True, fields=fields)
    here.pool.keep_warm([first.session.spec])
    await eventually(lambda: ready(here.pool, "one") == 2, within=60)
    clients = [first] + [await here.open_again("one") for _ in range(2)]
    assert slots_counted(here.pool, first.session.spec, "used") == 2
    for client, text in zip(clients, "abc", strict=True):
        await writes(client, data, text)
    assert [await notes_of(client, data) for client in clients] == ["a", "b", "c"]
    await ends(*clients)
    assert (data / "state").read_text() == "the user's"


@pytest.mark.children
@pytest.mark.parametrize("moved", [True, False])
async def test_a_process_that_waits_is_not_used_if_its_private_folder_is_another_one_by_now(here, data, moved):
    fields = {**private(data), "warm": 1}
    first = await here.open(name="one", zygote=True, fields=fields)
    here.pool.keep_warm([first.session.spec])
    await eventually(lambda: ready(here.pool, "one") == 1, within=60)
    if moved:
        data.rename(data.with_name("moved"))
    else:
        shutil.rmtree(data)
    data.mkdir()
    (data / "state").write_text("the user's new one")
    client = await here.open_again("one")
    assert await notes_of(client, data) == "the user's new one"
    await writes(client, data, "a")
    assert [path.name for path in data.iterdir()] == ["state"]
    assert (data / "state").read_text() == "the user's new one"
    assert slots_counted(here.pool, first.session.spec, "used") == 0


def ready(pool, name):
    return pool.placement.starter.statistics().warm[name].ready


NODE_SERVER = """
const fs = require('node:fs'), path = require('node:path');
const state = path.join(__dirname, 'state');
fs.appendFileSync(state, ` and ${process.env.MUXSIM_SEED}`);
const params = { state: fs.readFileSync(state, 'utf8') };
console.log(JSON.stringify({ jsonrpc: '2.0', method: 'told', params }));
process.stdin.on('end', () => process.exit(0)).resume();
"""


@pytest.mark.children
async def test_a_node_that_waits_has_views_of_its_own_too(here, data):
    (data / "server.cjs").write_text(NODE_SERVER)
    script = str(data / "server.cjs").replace("{seed}", "{{seed}}")
    spec = EnvSpec(name="one", command="node", args=(script,), limits=BRISK, warm=2, **private(data))
    here.pool.keep_warm([spec])
    await eventually(lambda: ready(here.pool, "one") == 2, within=60)
    async with Played(here.pool, spec, 1) as one, Played(here.pool, spec, 2) as two:
        assert [played.told["state"] for played in (one, two)] == ["the user's and 1", "the user's and 2"]
    assert slots_counted(here.pool, spec, "used") == 2
    assert (data / "state").read_text() == "the user's"


@pytest.mark.children
async def test_a_private_folder_that_depends_on_the_session_is_one_for_each(here, data):
    (data / "5").mkdir()
    folder = str(data).replace("{seed}", "{{seed}}") + "/{seed}"
    spec = EnvSpec(name="one", command=sys.executable, args=NAUGHTY, limits=BRISK, warm=1, private=(folder,))
    here.pool.keep_warm([spec])
    lease = await here.pool.acquire(spec)
    async with talking(here.pool, lease, seed=5) as ask:
        await ask("keep_text", path=str(data / "5" / "new"), text="own")
        assert os.listdir(data / "5") == []
    await here.pool.release(lease)


@pytest.mark.children
async def test_a_private_folder_that_is_not_there_is_an_error_of_the_open_that_names_it(here, tmp_path):
    with pytest.raises(StartError, match=r"environment 'one': private: .*gone is not there"):
        await here.open(name="one", fields=private(tmp_path / "gone"))


# ---- what muxsim has installed


@pytest.mark.children
@pytest.mark.parametrize(("switch", "sees"), [({}, "the user's"), ({"private": ()}, "a")])
async def test_what_was_installed_is_private_unless_that_is_switched_off(here, data, switch, sees):
    one, other = [await here.open(name="one", fields={"installed": (str(data),), **switch}) for _ in range(2)]
    await writes(one, data, "a")
    assert await notes_of(other, data) == (data / "state").read_text() == sees


async def start(enclosures, spec, places, spawn):
    workspace = str(places / "sessions" / "one")
    launch = spec.launch(seed=1, session_id="s", workspace=workspace, environ={})
    await enclosures.start(spec, launch, workspace, spawn)


class Refusing:
    """Starts what has no view that it refuses."""

    def __init__(self, *refused):
        self.refused = refused
        self.seen = []

    async def __call__(self, command):
        self.seen.append([bool(view.upper) for view in command.views])
        for view in command.views:
            if bool(view.upper) in self.refused and not view.asked:
                raise ProcessStartError(errno.EPERM, "installed", "no")
            if bool(view.upper) in self.refused:
                raise ProcessStartError(errno.EPERM, "private", "no")
        return SimpleNamespace(pid=0)


@pytest.mark.parametrize(
    ("refused", "seen", "instead"),
    [
        ((), [[True], [True]], []),
        ((True,), [[True], [False], [False]], ["read-only"]),
        ((True, False), [[True], [False], [], []], ["as the disk has it, for all"]),
    ],
)
async def test_what_was_installed_is_seen_as_well_as_can_be_and_what_cannot_be_is_told_once(
    places, refused, seen, instead
):
    told, spawn = [], Refusing(*refused)
    spec = EnvSpec(name="one", command="a", installed=(str(places / "data"),))
    with open_enclosures([], "off", told.append) as enclosures:
        for _ in range(2):
            await start(enclosures, spec, places, spawn)
    assert spawn.seen == seen
    assert [event.instead for event in told if isinstance(event, NotPrivate)] == instead


async def test_what_was_asked_for_is_had_or_nothing_starts(places):
    told, spawn = [], Refusing(True, False)
    spec = EnvSpec(name="one", command="a", private=(str(places / "data"),), installed=(str(places / "other"),))
    with open_enclosures([], "off", told.append) as enclosures, pytest.raises(ProcessStartError):
        await start(enclosures, spec, places, spawn)
    assert (len(spawn.seen), told) == (1, [])


# ---- as somebody else, and where less is allowed

NOBODY = 65534


def reaches(python):
    """Whether anybody may run this interpreter, with our packages."""
    try:
        probe = [python, "-c", "import muxsim.spec, trio, pytest"]
        subprocess.run(probe, env=PLAYING, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


PLAYING = {
    "PATH": os.defpath,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), *site.getsitepackages()]),
    "PYTHONDONTWRITEBYTECODE": "1",
}


@pytest.fixture(scope="module")
def anybodys_python():
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else; these tests are somebody else's already")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    found = next(filter(reaches, [sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"]), None)
    return found or pytest.skip("nobody but root may run an interpreter of this version with these packages")


@pytest.fixture
def play(tmp_path_factory):
    """Plays as who is told, in what is told, and returns what was seen."""
    with tempfile.TemporaryDirectory(prefix="muxsim-views-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)

        def played(python, key, *, before=(), user=None, read_only=False):
            where = {name: Path(folder, name) for name in ("data", "tmp", "home")}
            for path in where.values():
                path.mkdir()
            (where["data"] / "state").write_text("the user's")
            (where["data"] / "folder" / "inner").mkdir(parents=True)
            if user is not None:
                for path in (*where.values(), *where["data"].rglob("*")):
                    os.chown(path, user, user)
            for path in (*where["data"].rglob("*"), where["data"]) if read_only else ():
                path.chmod(0o444 if path.is_file() else 0o555)
            env = {**PLAYING, "TMPDIR": str(where["tmp"]), "HOME": str(where["home"])}
            argv = [*before, python, str(Path(__file__).with_name("private_play.py")), str(where["data"]), key]
            who = {} if user is None else {"user": user, "group": user, "extra_groups": []}
            done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, timeout=120, check=True, text=True, **who)
            return json.loads(done.stdout)

        yield played


@pytest.mark.children
def test_whoever_is_not_root_has_views_too_and_nothing_of_them_is_left(anybodys_python, play):
    seen = play(anybodys_python, "private", user=NOBODY)
    for way in ("fresh", "fork"):
        assert (seen[way]["own"], seen[way]["other"]) == ("own", "the user's")
        assert seen[way]["beside"] == ["state", "state-beside"]
        assert (seen[way]["user"], int(seen[way]["capabilities"], 16)) == (NOBODY, 0)
    assert seen["fork"]["forks"] > 0
    assert (seen["left"], seen["data"], seen["told"]) == ([], ["folder", "state"], [])


@pytest.mark.children
def test_what_is_installed_read_only_can_be_written_to_in_a_view_of_it(anybodys_python, play):
    seen = play(anybodys_python, "installed", user=NOBODY, read_only=True)
    for way in ("fresh", "fork"):
        assert (seen[way]["own"], seen[way]["other"]) == ("own", "the user's")
        assert seen[way]["beside"] == ["state", "state-beside"]
        assert int(seen[way]["capabilities"], 16) == 1 << DAC_OVERRIDE
    assert (seen["left"], seen["data"], seen["told"]) == ([], ["folder", "state"], [])


@pytest.mark.children
@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount an overlay for muxsim to be on")
def test_where_overlays_are_refused_what_was_installed_is_read_only_with_one_warning(play):
    on_overlay = (
        'mkdir -p "$TMPDIR"/o/1 "$TMPDIR"/o/2 "$TMPDIR"/o/3 && mount -t tmpfs none "$TMPDIR"/o && cd "$TMPDIR"/o'
    )
    on_overlay += " && mkdir 1 2 3 4 && mount -t overlay -o lowerdir=1,upperdir=2,workdir=3 none 4 && TMPDIR=$PWD/4"
    seen = play(sys.executable, "installed", before=("unshare", "-m", "sh", "-c", on_overlay + ' && exec "$@"', "sh"))
    for way in ("fresh", "fork"):
        assert (seen[way]["own"], seen[way]["beside"]) == ("the user's", ["folder", "state"])
        assert seen[way]["written"] == "OSError"
    assert seen["told"] == ["read-only"] * 2
    assert "overlay" in seen["why"][0]


@pytest.mark.children
@pytest.mark.usefixtures("_refusable")
@pytest.mark.parametrize("option", ["--check", "--port=0"])
def test_what_is_asked_for_and_refused_is_an_error_at_start_that_says_why(tmp_path, option):
    """Nobody needs to be root here: in a user namespace of our own there may be no more mount namespaces."""
    (tmp_path / "data").mkdir()
    (tmp_path / "muxsim.toml").write_text("[environments.one]\ncommand = 'cat'\nprivate = ['data']\n")
    refuse = 'echo 0 > /proc/sys/user/max_mnt_namespaces && exec "$@"'
    argv = ["unshare", "-Ur", "sh", "-c", refuse, "sh", *MUXSIM, "serve", str(tmp_path / "muxsim.toml"), option]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert "private" in line
    assert f"{tmp_path / 'data'}: No space left on device; see whether there may be more namespaces" in line


@pytest.mark.children
@pytest.mark.usefixtures("_refusable")
def test_where_namespaces_are_refused_what_was_installed_is_as_it_is_with_one_warning(anybodys_python, play):
    refuse = 'echo 0 > /proc/sys/user/max_mnt_namespaces && exec "$@"'
    seen = play(anybodys_python, "installed", before=("unshare", "-Ur", "sh", "-c", refuse, "sh"), user=NOBODY)
    for way in ("fresh", "fork"):
        assert (seen[way]["own"], seen[way]["other"]) == ("own", "own")
    assert seen["told"] == ["as the disk has it, for all"] * 2
    assert "max_mnt_namespaces" in seen["why"][0]
