"""Bounds of a spec, and which of them a backend met; then real children that want too much."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from functools import partial
from types import SimpleNamespace

import pytest
import trio
from harness import MUXSIM, ROOT, SERVERS, alive, muxsim_serve
from serve.machine import eventually, gone
from start.playing import starts

from muxsim.errors import ConfigError
from muxsim.observe.events import BoundsNotKept, SessionLimit, unheard
from muxsim.processes.cgroups import CgroupError, CgroupFiles, Cgroups, own_group
from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.enclosure import Enclosure, Enclosures, open_enclosures
from muxsim.processes.launcher import Launcher
from muxsim.spec import Confinement, EnvSpec, Launch
from processes.enclosed import bounded, enclosed_sessions, ends_because_of

MIB = 2**20
XCPU, XFSZ, KILL = -signal.SIGXCPU, -signal.SIGXFSZ, -signal.SIGKILL


def no_groups(*_):
    raise CgroupError("there are none here")


def test_without_a_cgroup_what_is_not_kept_is_told_once(monkeypatch):
    told = []
    monkeypatch.setattr(Cgroups, "open", no_groups)
    specs = [bounded("greedy", max_memory=MIB, max_processes=3), bounded("modest", max_open_files=3)]
    with open_enclosures(specs, "auto", told.append) as enclosures:
        enclosures.tell_unkept(specs[0])
    why = "cgroup v2 does not bound it: there are none here"
    assert told == [BoundsNotKept("greedy", ("max_memory", "max_processes"), why)]


def test_without_a_cgroup_that_is_required_nothing_is_opened(monkeypatch):
    monkeypatch.setattr(Cgroups, "open", no_groups)
    refused = pytest.raises(ConfigError, match=r'\[server\] cgroup = "required": there are none here')
    with refused, open_enclosures([], "required", unheard):
        """Not reached."""


def test_cgroups_are_left_alone_where_nothing_needs_them_or_the_config_has_them_off(monkeypatch):
    told = []
    monkeypatch.setattr(Cgroups, "open", lambda _: pytest.fail("opened"))
    with open_enclosures([bounded("a", max_open_files=3)], "auto", told.append):
        assert told == []
    with open_enclosures([bounded("a", max_cpus=0.5)], "off", told.append):
        assert 'cgroup = "off"' in told[0].why


def test_a_spec_that_came_later_and_needs_more_is_told_of_too():
    told = []
    with open_enclosures([], "auto", told.append) as enclosures:
        enclosures.tell_unkept(bounded("late", max_memory=MIB))
    assert "start it again" in told[0].why


def test_a_sandbox_without_bubblewrap_is_an_error_of_the_config(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    refused = pytest.raises(ConfigError, match=r'\[environments.boxed\] sandbox = "bubblewrap": .*install')
    with refused, open_enclosures([bounded("boxed", sandbox="bubblewrap")], "auto", unheard):
        """Not reached."""


def test_a_sandboxed_backend_ends_as_bubblewrap_tells():
    enclosure = Enclosure(Confinement(sandbox="bubblewrap", max_cpu_seconds=2, max_file_size=MIB))
    assert enclosure.verdict(os.getpid(), 128 + signal.SIGXCPU).setting == "max_cpu_seconds"
    assert enclosure.verdict(os.getpid(), 128 + signal.SIGXFSZ).setting == "max_file_size"
    assert enclosure.verdict(os.getpid(), 1) is None


# real children


@pytest.fixture
async def here():
    async with enclosed_sessions() as here:
        yield here


@pytest.mark.children
@pytest.mark.parametrize("ignore", [False, True])
async def test_a_backend_that_computes_too_long_is_killed_and_the_reason_told(here, ignore):
    greedy, other = await here.open(max_cpu_seconds=1), await here.open(max_cpu_seconds=1)
    await ends_because_of("max_cpu_seconds", greedy, "burn_cpu", ignore=ignore)
    assert await other.is_alive()
    assert [event.limit for event in here.events(SessionLimit)] == ["max_cpu_seconds"]


@pytest.mark.children
async def test_a_backend_that_writes_too_large_a_file_is_killed_and_the_reason_told(here):
    greedy, other = await here.open(max_file_size=MIB), await here.open(max_file_size=MIB)
    await ends_because_of("max_file_size", greedy, "grow_file", mib=2, die=True)
    assert await other.is_alive()


@pytest.mark.children
@pytest.mark.parametrize(
    ("bounds", "tool", "modest", "greedy", "error"),
    [
        ({"max_file_size": 3 * MIB}, "grow_file", {"mib": 3}, {"mib": 4}, ["OSError", errno.EFBIG]),
        ({"max_address_space": 512 * MIB}, "take_memory", {"mib": 8}, {"mib": 600}, ["MemoryError", None]),
        ({"max_open_files": 20}, "open_files", {"count": 3}, {"count": 20}, ["OSError", errno.EMFILE]),
    ],
)
async def test_a_bound_that_a_backend_can_bear_is_an_error_of_its_own(here, bounds, tool, modest, greedy, error):
    client = await here.open(**bounds)
    assert "result" in await client.value(tool, **modest)
    assert list((await client.value(tool, **greedy)).values()) == error
    assert await client.is_alive()


@pytest.mark.children
async def test_niceness_and_the_lack_of_new_privileges_reach_the_backend(here):
    modest, trusted = await here.open(nice=7), await here.open(no_new_privs=False)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, modest.session.pid) == own + 7
    assert os.getpriority(os.PRIO_PROCESS, trusted.session.pid) == own
    assert "NoNewPrivs:\t1\n" in (await modest.value("read_file", path="/proc/self/status"))["result"]
    assert "NoNewPrivs:\t0\n" in (await trusted.value("read_file", path="/proc/self/status"))["result"]


@pytest.mark.children
async def test_a_forked_backend_is_bounded_as_a_fresh_one_is(here):
    bounds = {"zygote": True, "name": "forked", "nice": 5, "max_open_files": 77, "max_cpu_seconds": 2}
    first, forked = await here.open(**bounds), await here.open(**bounds)
    assert starts(here.pool, "fork") >= 1  # the first learns what to import, unless that is known already
    assert os.getpriority(os.PRIO_PROCESS, forked.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 5
    assert resource.prlimit(forked.pid, resource.RLIMIT_NOFILE) == (77, 77)
    assert "NoNewPrivs:\t1\n" in (await forked.value("read_file", path="/proc/self/status"))["result"]
    await ends_because_of("max_cpu_seconds", forked, "burn_cpu")
    assert await first.is_alive()


@pytest.mark.children
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
async def test_a_sandboxed_backend_is_not_forked(here):
    for _ in range(3):
        boxed = await here.open(zygote=True, name="boxed", sandbox="bubblewrap")
        assert await boxed.is_alive()
    assert starts(here.pool, "fork") == 0


NOBODY = 65534


@pytest.mark.children
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user who has no processes yet")
async def test_without_a_cgroup_a_user_has_only_so_many_processes_H2(here, caplog):
    client = await here.open(max_processes=4)
    assert list((await client.value("start_processes", count=8, user=NOBODY)).values()) == [
        "BlockingIOError",
        errno.EAGAIN,
    ]
    assert await client.is_alive()
    assert "max_processes" in caplog.records[0].getMessage()


def why_not(*wanted):
    """Why this machine has no cgroups with these controllers for us."""
    try:
        Cgroups.open(wanted).close()
    except CgroupError as error:
        return str(error)
    return ""


def needs(*wanted):
    reason = why_not(*wanted)
    return pytest.mark.skipif(bool(reason), reason=f"no cgroup for this test: {reason}")


@pytest.mark.children
@needs("memory")
async def test_a_backend_that_takes_too_much_memory_is_killed_and_the_reason_told():
    bounds = {"max_memory": 64 * MIB}
    async with enclosed_sessions(bounds) as here:
        greedy, other = await here.open(**bounds), await here.open(**bounds)
        assert "result" in await greedy.value("take_memory", mib=8)
        await ends_because_of("max_memory", greedy, "take_memory", mib=100)
        assert await other.is_alive()


@pytest.mark.children
@needs("pids")
async def test_in_a_cgroup_a_backend_has_only_so_many_processes_H2():
    bounds = {"max_processes": 4}
    async with enclosed_sessions(bounds) as here:
        greedy, other = await here.open(**bounds), await here.open(**bounds)
        assert "errno" in await greedy.value("start_processes", count=8)
        assert "result" in await other.value("start_processes", count=2)


@pytest.mark.children
@needs("cpu")
async def test_in_a_cgroup_a_backend_has_only_so_much_of_the_cpu():
    bounds = {"max_cpus": 0.2, "max_cpu_seconds": 1}
    async with enclosed_sessions(bounds) as here:
        began = time.monotonic()
        greedy = await here.open(**bounds)
        await ends_because_of("max_cpu_seconds", greedy, "burn_cpu")
        assert time.monotonic() - began > 2.5  # a second's work at a fifth of the pace takes five


@pytest.fixture
async def group():
    groups = Cgroups.open([])
    async with Launcher.open() as launcher:
        yield SimpleNamespace(groups=groups, launcher=launcher)
    groups.close()
    assert not [name for name in CgroupFiles().groups_in(own_group(CgroupFiles())) if f"-{os.getpid()}-" in name]


def grandchild(kind):
    program = str(SERVERS / "process" / "child.py")
    return Launch((sys.executable, "-I", "-S", program, "start", kind, "forever"), {}, "/")


async def read_line(process):
    await trio.lowlevel.wait_readable(process.stdout)
    return os.read(process.stdout, 1000).decode().strip()


@pytest.mark.children
@needs()
async def test_a_backend_is_in_its_cgroup_before_it_runs_its_program(group):
    enclosure = Enclosure(groups=group.groups)
    launch = Launch(("cat", "/proc/self/cgroup"), {"PATH": os.defpath}, "/")
    process = await group.launcher.spawn(enclosure.command(launch), session="a")
    path = await read_line(process)
    await process.end()
    await enclosure.close()
    assert f"/muxsim-{os.getpid()}-" in path


@pytest.mark.children
@needs()
async def test_a_process_that_hides_where_it_comes_from_ends_with_its_cgroup_C21(group):
    """Without a cgroup it is only found when no other session is left that it might belong to."""
    enclosure = Enclosure(groups=group.groups)
    with trio.fail_after(60):
        other = await group.launcher.spawn(Command(("cat",), {"PATH": os.defpath}, "/"), session="b")
        process = await group.launcher.spawn(enclosure.command(grandchild("bare-double")), session="a")
        hidden = int(await read_line(process))
        await process.end()
        assert alive(hidden)
        await enclosure.close()
        await gone(hidden)
        assert other.returncode is None


@pytest.mark.children
@needs()
async def test_a_start_that_fails_leaves_no_cgroup_H14(group):
    enclosures = Enclosures(group.groups, "", "bwrap", every=True, tell=unheard)
    spec = EnvSpec(name="a", command="a")
    with pytest.raises(ProcessStartError):
        await enclosures.start(spec, Launch(("/no/such",), {}, "/"), "/w", partial(group.launcher.spawn, session="a"))


PROGRAM = """
import sys, time, trio
from muxsim.processes.cgroups import Cgroups
from muxsim.processes.enclosure import Enclosure
from muxsim.processes.launcher import Launcher
from muxsim.spec import Launch

async def main():
    groups = Cgroups.open(sys.argv[1:])
    async with Launcher.open(cgroup=groups.folder) as launcher:
        launch = Launch(("cat",), {"PATH": "/bin:/usr/bin"}, "/")
        child = await launcher.spawn(Enclosure(groups=groups).command(launch), session="a")
        print(groups.folder, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.children
@pytest.mark.parametrize("controllers", [pytest.param([], marks=needs()), pytest.param(["pids"], marks=needs("pids"))])
def test_cgroups_go_also_when_muxsim_is_killed_H7(controllers):
    groups = Cgroups.open(controllers)
    home = groups.group({})  # which it has to leave for the controllers, and which others have to be able to enter
    enter = 'echo 0 >"$0/cgroup.procs"; exec "$@"'
    argv = ["sh", "-c", enter, home.folder, sys.executable, "-c", PROGRAM, *controllers]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}) as program:
        folder = program.stdout.readline().decode().strip()
        assert folder.startswith(f"{home.folder}/muxsim-{program.pid}-")
        assert os.path.isdir(f"{folder}/1")
        program.kill()
        trio.run(eventually, lambda: not os.path.exists(folder))
    trio.run(eventually, lambda: not home.is_populated())
    assert CgroupFiles().read(f"{home.folder}/cgroup.subtree_control").split() == []
    assert groups.give_back(home)
    groups.close()


NO_CONTROLLERS = why_not("memory", "cpu", "pids")
NAMELESS = '[environments.a]\ncommand = "true"\n'


@pytest.mark.skipif(not NO_CONTROLLERS, reason="this machine has cgroups with every controller for us")
def test_muxsim_does_not_start_without_the_cgroups_that_are_required(tmp_path):
    config = tmp_path / "muxsim.toml"
    config.write_text(f'[server]\nport = 0\ncgroup = "required"\n{NAMELESS}')
    done = subprocess.run([*MUXSIM, "serve", str(config)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f'muxsim: [server] cgroup = "required": {NO_CONTROLLERS}\n'


@pytest.mark.children
@pytest.mark.skipif(not NO_CONTROLLERS, reason="this machine has cgroups with every controller for us")
def test_muxsim_starts_without_the_cgroups_that_it_would_use_and_logs_it(tmp_path):
    with muxsim_serve(tmp_path, f"{NAMELESS}max_memory = 4096\nmax_cpus = 1\nmax_processes = 9\n") as running:
        urllib.request.urlopen(f"{running.url}/health").close()
        assert running.stop() == 0
        (line,) = [json.loads(line) for line in running.log.read_text().splitlines() if "cgroup" in line]
    assert (line["level"], line["event"], line["env"]) == ("warning", "process.bounds_not_kept", "a")
    assert line["settings"] == ["max_memory", "max_cpus", "max_processes"]
    assert line["why"].startswith("cgroup v2 does not bound it: ")
