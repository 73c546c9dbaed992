"""What Landlock is told: by which kernel, for which program, and which calls its filter refuses."""

import json
import os
import socket
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.errors import ConfigError
from muxsim.inside import filters, landlock, libc
from muxsim.observe.events import WallsNotKept
from muxsim.processes.enclosure import open_enclosures
from muxsim.processes.needs import needs_of, of_everybody, parted
from muxsim.processes.views import within
from muxsim.spec import Confinement, EnvSpec, Launch

# ---- kernels


def walled(**fields):
    return EnvSpec(name="a", command="a", confinement=Confinement(sandbox="landlock", **fields))


@pytest.mark.parametrize(
    ("abi", "word"), [(0, "landlock among its lsm="), (1, "knows no network"), (3, "knows no network")]
)
def test_a_kernel_without_these_walls_is_an_error_of_the_config_and_no_start(monkeypatch, abi, word):
    monkeypatch.setattr(landlock, "abi", lambda: abi)
    refused = pytest.raises(ConfigError, match=r'\[environments.a\] sandbox = "landlock": .*' + word)
    with refused, open_enclosures([walled()], "off", print):
        pytest.fail("it was opened")
    with pytest.raises(OSError, match="not supported"):
        landlock.enter(landlock.Walls([], [], [], [], network=False, calls=""))


def test_a_machine_whose_calls_are_not_known_has_no_such_sandbox(monkeypatch):
    monkeypatch.setattr(landlock, "abi", lambda: 7)
    monkeypatch.setattr(filters, "machine", lambda: "riscv64")
    with pytest.raises(ConfigError, match="riscv64"), open_enclosures([walled()], "off", print):
        pytest.fail("it was opened")


@pytest.mark.parametrize(("abi", "lacking"), [(4, 2), (5, 1), (6, 0), (7, 0), (9, 0)])
def test_what_an_older_kernel_lacks_is_told_once_at_the_start(monkeypatch, abi, lacking):
    monkeypatch.setattr(landlock, "abi", lambda: abi)
    told = []
    with open_enclosures([walled(), walled()], "off", told.append):
        assert [len(event.walls) for event in told if isinstance(event, WallsNotKept)] == [lacking] * bool(lacking)
    told.clear()
    with open_enclosures([EnvSpec(name="a", command="a")], "off", told.append):
        assert told == []


KNOWN_RIGHTS = {4: 15, 5: 16, 6: 16, 7: 16, 12: 16}


@pytest.mark.parametrize("abi", KNOWN_RIGHTS)
def test_a_kernel_is_asked_for_no_more_than_it_knows(monkeypatch, tmp_path, abi):
    calls = []

    def syscall(number, *arguments):
        calls.append((number, *arguments))
        if number == landlock.CREATE_RULESET:
            return abi if arguments[0] is None else os.open(tmp_path, os.O_RDONLY)
        return 0

    monkeypatch.setattr(libc, "syscall", syscall)
    monkeypatch.setattr(libc, "prctl", lambda *_: True)
    monkeypatch.setattr(libc, "set_filter", lambda _: None)
    walls = landlock.Walls(["/usr", "/no/such"], ["/"], [str(tmp_path)], ["/dev/null"], network=[80, 443], calls="")
    landlock.enter(walls)
    ((_, attributes, size, _),) = [call for call in calls if call[0] == landlock.CREATE_RULESET and call[1]]
    files, ports, *scopes = struct.unpack(f"={size // 8}Q", attributes)
    assert (files, ports, scopes) == ((1 << KNOWN_RIGHTS[abi]) - 1, 0b11, [0b11] if abi >= 6 else [])
    rules = [call[2:4] for call in calls if call[0] == landlock.ADD_RULE]
    paths = [struct.unpack("=Qi", rule)[0] for kind, rule in rules if kind == 1]
    assert len(paths) == 5  # what is not there is left out
    assert all(access and not access & ~files for access in paths)
    assert [struct.unpack("=QQ", rule) for kind, rule in rules if kind == 2] == [(2, 80), (2, 443)]


# ---- the filter

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def run(program, arch, number, arguments):
    """What a kernel makes of a call."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *(argument & 2**64 - 1 for argument in arguments))
    at, value = 0, 0
    while True:
        code, operand, so, otherwise = program[at]
        at += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            value = struct.unpack_from("=I", data, operand)[0]
        elif code == 0x54:
            value &= operand
        else:
            holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[code]
            at += so if holds else otherwise


def verdict(architecture, call, *arguments, network=False):
    number = filters._NUMBERS[call][list(ARCHITECTURES).index(architecture)]
    arguments = (*arguments, *[0] * (6 - len(arguments)))
    return run(filters.program(network, architecture), ARCHITECTURES[architecture], number, arguments) == ALLOW


both = pytest.mark.parametrize("architecture", ARCHITECTURES)
words = st.integers(0, 2**64 - 1)


@given(st.sampled_from(list(ARCHITECTURES)), st.integers(0, 2**32 - 1), st.tuples(*[words] * 6))
def test_every_call_comes_to_an_end_and_none_of_another_abi_passes(architecture, number, arguments):
    program = filters.program([80], architecture)
    assert len(filters.pack(program)) == 8 * len(program)
    found = run(program, ARCHITECTURES[architecture], number, arguments)
    assert found == ALLOW or found & 0xFFFF0000 == ERRNO
    if number >= 0x40000000:
        assert found != ALLOW
    assert run(program, 0x40000003, number, arguments) == KILL


@given(st.sampled_from(list(ARCHITECTURES)), words, words, words)
def test_without_a_network_there_is_no_socket_and_pairs_are_connected_for_good(architecture, family, kind, protocol):
    assert not verdict(architecture, "socket", family, kind, protocol)
    paired = verdict(architecture, "socketpair", family, kind, protocol)
    assert paired == (family & 0xFFFFFFFF == 1 and kind & 0xF in (1, 5))


@given(st.sampled_from(list(ARCHITECTURES)), st.integers(0, 50), words, st.integers(0, 300))
def test_with_ports_there_is_tcp_and_with_a_network_whatever_is_of_the_internet(architecture, family, kind, protocol):
    internet = family in (2, 10)
    addresses = family == 16 and protocol == 0
    listed = verdict(architecture, "socket", family, kind, protocol, network=[80])
    assert listed == ((internet and kind & 0xF == 1 and protocol in (0, 6)) or addresses)
    assert verdict(architecture, "socket", family, kind, protocol, network=True) == (internet or addresses)


@both
def test_ports_are_not_got_round(architecture):
    for call, flags in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        arguments = [0] * 6
        assert verdict(architecture, call, *arguments, network=[80])
        arguments[flags] = socket.MSG_FASTOPEN | socket.MSG_NOSIGNAL
        assert not verdict(architecture, call, *arguments, network=[80])
        assert verdict(architecture, call, *arguments, network=True)
    assert not verdict(architecture, "listen", 3, 1, network=[80])
    assert verdict(architecture, "listen", 3, 1, network=True)


@given(st.sampled_from(list(ARCHITECTURES)), st.integers(1, 2**32 - 1), words)
def test_limits_and_priorities_are_set_of_oneself_alone(architecture, pid, limit):
    assert verdict(architecture, "prlimit64", 0, 7, limit)
    assert verdict(architecture, "prlimit64", pid, 7, limit) == (limit == 0)
    for call in ("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"):
        assert verdict(architecture, call, 0)
        assert not verdict(architecture, call, pid)
    assert verdict(architecture, "setpriority", 0, 0)
    assert not verdict(architecture, "setpriority", 0, pid)
    assert not verdict(architecture, "setpriority", 2, 0)


# ---- what a program needs


def python(folder):
    """Something that looks like an installed Python."""
    (folder / "bin").mkdir(parents=True)
    (folder / "lib" / "python3.9" / "site-packages").mkdir(parents=True)
    program = folder / "bin" / "python3"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    return program


def venv(folder, base):
    (folder / "bin").mkdir(parents=True)
    site = folder / "lib" / "python3.9" / "site-packages"
    site.mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(base)
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
    return site


def needs(*argv, home, cwd="/", **env):
    return set(needs_of(Launch(argv, {"PATH": "/usr/bin:/bin", **env}, str(cwd)), str(home)).paths)


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def test_an_interpreter_in_a_home_is_read_with_its_prefix_and_no_more_of_the_home(home):
    base = python(home / ".pyenv" / "versions" / "3.9")
    site = venv(home / "project" / ".venv", base)
    (site / "mine.pth").write_text(f"# a comment\nimport os\n{home}/elsewhere\n{home}\n")
    (site / "mine.dist-info").mkdir()
    url = {"url": f"file://{home}/project/with%20space", "dir_info": {"editable": True}}
    (site / "mine.dist-info" / "direct_url.json").write_text(json.dumps(url))
    for folder in ("elsewhere", "project/with space", "project/server"):
        (home / folder).mkdir()
    (home / "project" / "server" / "run.py").write_text("")
    found = needs(str(home / "project" / ".venv" / "bin" / "python"), "-u", f"{home}/project/server/run.py", home=home)
    for name in (".pyenv/versions/3.9", "project/.venv", "elsewhere", "project/with space", "project/server"):
        assert f"{home}/{name}" in found
    assert not {str(home), str(home.parent), f"{home}/project", f"{home}/.pyenv"} & found


def test_a_console_script_needs_what_its_first_line_names(home):
    base = python(home / "python")
    venv(home / "tool", base)
    script = home / "tool" / "bin" / "server"
    script.write_text(f"#!{home}/tool/bin/python\n")
    script.chmod(0o755)
    (home / "bin").mkdir()
    (home / "bin" / "server").symlink_to(script)
    found = needs("server", home=home, PATH=f"/usr/bin:{home}/bin")
    assert {f"{home}/tool", f"{home}/python"} <= found
    assert f"{home}/bin" not in found


def test_a_script_that_lies_in_the_home_itself_is_read_alone(home):
    (home / "server.py").write_text("")
    found = needs("python3", str(home / "server.py"), home=home)
    assert str(home / "server.py") in found
    assert str(home) not in found


def test_a_module_is_looked_for_in_the_folder_that_it_runs_in(home):
    (home / "work").mkdir()
    (home / "work" / "server.py").write_text("")
    assert str(home / "work") in needs("python3", "-m", "server", home=home, cwd=home / "work")
    assert str(home / "work") not in needs("python3", "-m", "http.server", home=home, cwd=home / "work")


def test_a_script_of_node_is_read_with_its_package_and_those_that_it_depends_on(home):
    package = home / "repo" / "packages" / "server"
    (package / "dist").mkdir(parents=True)
    (package / "package.json").write_text("{}")
    (package / "dist" / "index.js").write_text("")
    (home / "repo" / "packages" / "other").mkdir()
    modules = home / "repo" / "node_modules"
    (modules / "@me").mkdir(parents=True)
    (modules / "@me" / "other").symlink_to(home / "repo" / "packages" / "other")
    found = needs("node", "--no-warnings", str(package / "dist" / "index.js"), home=home)
    assert {str(package), str(modules), f"{home}/repo/packages/other"} <= found
    assert not {str(home), f"{home}/repo"} & found


paths = st.lists(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3), max_size=4)


@given(data=st.data(), secrets=paths, asked=st.lists(st.sampled_from(["a", "b", "c"]), max_size=2))
def test_no_part_of_a_folder_holds_or_lies_in_what_is_withheld(tmp_path_factory, data, secrets, asked):
    root = Path(os.path.realpath(tmp_path_factory.getbasetemp())) / "parted"
    for one in "abc":
        for other in "abc":
            (root / one / other / "c").mkdir(parents=True, exist_ok=True)
    hidden = [str(root.joinpath(*secret)) for secret in secrets]
    read, listed = parted(str(root.joinpath(*asked)), hidden)
    for path in read:
        assert not any(within(path, secret) or within(secret, path) for secret in hidden)
    assert not any(within(path, secret) for secret in hidden for path in listed)
    # All else is there.
    for leaf in root.glob("*/*/c"):
        wanted = within(str(leaf), str(root.joinpath(*asked)))
        is_hidden = any(within(str(leaf), secret) for secret in hidden)
        assert any(within(str(leaf), path) for path in read) == (wanted and not is_hidden)


def test_of_a_folder_what_not_everybody_may_read_is_left_out(tmp_path):
    for folder in ("open/deep", "closed", "mixed/open"):
        (tmp_path / folder).mkdir(parents=True)
    for file, mode in {"open/a": 0o644, "closed/a": 0o644, "mixed/open/a": 0o644, "mixed/key": 0o600}.items():
        (tmp_path / file).write_text("")
        (tmp_path / file).chmod(mode)
    (tmp_path / "closed").chmod(0o700)
    (tmp_path / "link").symlink_to("/")
    found = {os.path.relpath(path, tmp_path) for path in of_everybody(str(tmp_path))}
    assert found == {"open", "mixed/open"}


@pytest.mark.parametrize("key", ["writable", "private"])
def test_no_folder_to_write_to_may_hold_what_nobody_is_to_read(tmp_path, key):
    (tmp_path / "tokens").write_text("")
    folders = (str(tmp_path),)
    spec = walled(writable=folders) if key == "writable" else replace(walled(), private=folders)
    refused = pytest.raises(ConfigError, match=rf"\[environments.a\] {key}: .*/tokens in it")
    with refused, open_enclosures([spec], "off", print, hidden=[str(tmp_path / "tokens")]):
        pytest.fail("it was opened")
