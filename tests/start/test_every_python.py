"""Sessions of Python environments of every kind are forks of a zygote of their own interpreter."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from harness import SERVERS
from serve.machine import eventually

from muxsim.config import load
from muxsim.spec import Dependencies, EnvSpec
from muxsim.start.fork import learning
from start.playing import (
    LIMITS,
    PROBE,
    PYTHON,
    TELL,
    Listener,
    Played,
    assert_sees_the_same,
    counted,
    forked,
    has_zygote,
    in_time,  # noqa: F401
    learn,
    own_cache,  # noqa: F401
    script,
    some_pool,
    starts,
)
from transports import messages
from transports.messages import Kind

pytestmark = pytest.mark.children

CALL = "import sys\nfrom game.probe import main\nif __name__ == '__main__':\n    sys.exit(main())\n"


class Venv:
    """A virtual environment, made of two links and a file as others make it, with a package `game` in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.python = self.bin / "python"
        self.packages = root / f"lib/python{sysconfig.get_python_version()}/site-packages"
        self.bin.mkdir(parents=True)
        self.python.symlink_to(os.path.realpath(sys.executable))
        (self.bin / "python3").symlink_to("python")
        (root / "pyvenv.cfg").write_text(f"home = {Path(os.path.realpath(sys.executable)).parent}\n")
        self.install(PROBE.read_text().replace("import neighbour", "from game import neighbour"))

    def install(self, probe: str) -> None:
        game = self.packages / "game"
        game.mkdir(parents=True, exist_ok=True)
        (game / "__init__.py").write_text("")
        (game / "__main__.py").write_text("from game.probe import main\nmain()\n")
        (game / "probe.py").write_text(probe)
        (game / "neighbour.py").write_text((SERVERS / "zygote" / "neighbour.py").read_text())

    def console_script(self, first: str, name: str = "play") -> str:
        path = self.bin / name
        path.write_text(first + CALL)
        path.chmod(0o755)
        return str(path)


@pytest.fixture
def venv(tmp_path):
    return Venv(tmp_path / "venv")


def beside_probe(folder: Path) -> Path:
    """A copy of the probe that has no suffix."""
    (folder / "game").write_text(PROBE.read_text())
    (folder / "neighbour.py").write_text((SERVERS / "zygote" / "neighbour.py").read_text())
    return folder / "game"


def as_zip(venv: Venv) -> str:
    file = venv.root / "game.pyz"
    with file.open("wb") as opened:
        opened.write(f"#!{venv.python}\n".encode())
        with zipfile.ZipFile(opened, "w") as archive:
            for path in (venv.packages / "game").glob("*.py"):
                archive.write(path, f"game/{path.name}")
            archive.writestr("__main__.py", CALL)
    file.chmod(0o755)
    return str(file)


def as_folder(venv: Venv) -> str:
    (venv.root / "app").mkdir()
    (venv.root / "app" / "__main__.py").write_text(CALL)
    return str(venv.root / "app")


EXEC = "#!/bin/sh\n'''exec' {} \"$0\" \"$@\"\n' '''\n"
BESIDE = '"$(dirname -- "$(realpath -- "$0")")"/'
KINDS = {
    "script of another interpreter": lambda venv: (str(venv.python), str(PROBE)),
    "script without suffix": lambda venv: (str(venv.python), "-B", str(beside_probe(venv.root))),
    "module": lambda venv: (str(venv.python), "-m", "game"),
    "module after options": lambda venv: (str(venv.python), "-sum", "game"),
    "console script": lambda venv: (venv.console_script(f"#!{venv.python}\n"),),
    "console script of a shell": lambda venv: (venv.console_script(EXEC.format(shlex.quote(str(venv.python)))),),
    "console script that may be moved": lambda venv: (venv.console_script(EXEC.format(BESIDE + "'python3'")),),
    "zip file": lambda venv: (as_zip(venv),),
    "zip file of an interpreter": lambda venv: (str(venv.python), "-s", as_zip(venv)),
    "folder": lambda venv: (str(venv.python), as_folder(venv)),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_session_of_each_kind_is_a_fork_that_sees_what_a_fresh_process_sees(venv, kind):
    command, *args = KINDS[kind](venv)
    fields = {"command": command, "args": (*args, "--seed", "{seed}"), "cwd": "{workspace}", "limits": LIMITS}
    async with some_pool() as pool:
        first = await learn(pool, EnvSpec(name="game", **fields))
        fork = await forked(pool, EnvSpec(name="game", **fields))
        async with Played(pool, EnvSpec(name="fresh", zygote=False, **fields), 1) as fresh:
            pass
    if "shell" in kind or "moved" in kind:
        fresh.told["seen"]["environ"].pop("PWD", None)  # some shells export it
    for played in (first, fork):
        assert_sees_the_same(played, fresh)
    assert fork.told["seen"]["executable"][1] == str(venv.root)


async def test_a_console_script_found_on_the_path_of_its_environment_is_forked(venv):
    venv.console_script("#!/usr/bin/env python3\n")
    path = f"{venv.bin}{os.pathsep}{os.environ['PATH']}"
    spec = EnvSpec(name="game", command="play", args=("exit",), env={"PATH": path}, cwd="/", limits=LIMITS)
    async with some_pool() as pool:
        first = await learn(pool, spec)
        fork = await forked(pool, spec)
    assert fork.told["seen"]["executable"] == [str(venv.bin / "python3"), str(venv.root)]
    assert fork.told["seen"]["argv"] == [str(venv.bin / "play"), "exit"]
    assert [played.status for played in (first, fork)] == [3, 3]


@pytest.mark.parametrize("how", ["in place", "anew"])
async def test_sessions_of_an_environment_that_was_made_again_are_of_the_new_one(venv, how):
    """Also those of a fork that waited since before."""
    spec = EnvSpec(name="game", command=venv.console_script(f"#!{venv.python}\n"), cwd="/", limits=LIMITS)
    await _install(venv, 1, how)
    async with some_pool() as pool:
        pool.keep_warm([spec])
        await learn(pool, spec)
        await eventually(lambda: pool.statistics().placement.warm["game"].ready == 1, within=60)
        await _install(venv, 2, how)
        async with Played(pool, spec, 1) as played:
            assert played.told["NUMBERS"] == [2, 2]
        assert starts(pool, "learner") == 2
        await eventually(lambda: pool.statistics().placement.warm["game"].ready == 1, within=60)
        async with Played(pool, spec, 1) as played:
            assert played.told["NUMBERS"] == [2, 2]
        assert counted(pool).total("slots_used", "game") == 1


async def _install(venv, number, how):
    """As installers do: a library and a package that are of one version, each of another size than before.

    Python takes a compiled file for the source's if that is of the same second and size.
    """
    if how == "anew" and number > 1:
        os.rename(venv.root, venv.root.with_name("before"))
        Venv(venv.root).console_script(f"#!{venv.python}\n")
    for old in venv.packages.glob("library*"):
        old.unlink() if old.is_file() else old.rmdir()
    (venv.packages / f"library-{number}.dist-info").mkdir()
    (venv.packages / "library.py").write_text(f"NUMBER = {'1 * ' * number}{number}\n")
    venv.install(
        f"import json, sys, library\nNUMBERS = [library.NUMBER, {'1 * ' * number}{number}]\n"
        "def main():\n"
        "    told = {'jsonrpc': '2.0', 'method': 'told', 'params': {'NUMBERS': NUMBERS}}\n"
        "    print(json.dumps(told), flush=True)\n"
        "    sys.stdin.read()\n"
    )


async def test_nothing_is_installed_for_a_fork_that_waits_before_there_is_a_session():
    listed = EnvSpec(name="listed", command=PYTHON, args=(str(PROBE),), dependencies=Dependencies(requirements=("x",)))
    tool = EnvSpec(name="tool", command="uvx", args=("x",))
    plain = EnvSpec(name="plain", command=PYTHON, args=(str(PROBE),))
    async with some_pool() as pool:
        pool.keep_warm([listed, tool, plain])
        assert set(pool.statistics().placement.warm) == {"plain"}
        assert counted(pool).total("starts") == 0


async def test_what_reads_the_arguments_when_it_is_imported_is_left_to_each_session(tmp_path, caplog):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "nosy.py").write_text("import sys\nARGUMENTS = list(sys.argv[1:])\n")
    (tmp_path / "site" / "calm.py").write_text("import sys\nNAME = sys.argv[0]\n")
    spec = script(
        tmp_path / "env", "import nosy, calm\nA = nosy.ARGUMENTS\n", env={"PYTHONPATH": str(tmp_path / "site")}
    )
    spec = EnvSpec(name=spec.name, command=spec.command, args=(*spec.args, "{seed}"), env=spec.env, limits=LIMITS)
    async with some_pool() as pool:
        await learn(pool, spec)
        assert [(await forked(pool, spec, seed)).told["A"] for seed in (3, 4)] == [["3"], ["4"]]
    assert "nosy" in caplog.text
    assert "calm" not in caplog.text


async def test_an_interpreter_that_cannot_be_forked_is_used_as_it_is_and_that_is_told_once(tmp_path, caplog):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import sys\nsys.implementation.name = 'pypy'\n")
    spec = script(tmp_path / "env", "", env={"PYTHONPATH": str(tmp_path / "site")})
    async with some_pool() as pool:
        for _ in range(3):
            async with Played(pool, spec, 1) as played:
                assert played.told
        assert starts(pool, "fresh") == 3
    (complaint,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "it is pypy 3." in complaint
    assert "CPython from 3.9 on" in complaint


async def test_an_interpreter_that_says_nonsense_without_end_delays_a_session_and_no_more(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(learning, "LEARNER_LIMIT", 0.5)
    strange = tmp_path / "python3"
    strange.write_text(f'#!/bin/sh\n[ "$1" = "{PROBE}" ] && exec {sys.executable} "$@"\nexec yes "\\377" >&2\n')
    strange.chmod(0o755)
    spec = EnvSpec(name="strange", command=str(strange), args=(str(PROBE),), cwd="/", limits=LIMITS)
    async with some_pool() as pool:
        async with Played(pool, spec, 1) as played:
            assert played.told
        assert starts(pool, "fresh") == 1
    (complaint,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "could not run the script" in complaint
    assert len(complaint) < 500


async def test_an_interpreter_that_was_built_for_older_kernels_is_forked_too(tmp_path):
    """conda's, say: they have no calls of the kernel that are newer."""
    (tmp_path / "site").mkdir()
    text = "import os, signal\ndel os.pidfd_open, os.memfd_create, signal.pidfd_send_signal\n"
    (tmp_path / "site" / "sitecustomize.py").write_text(text)
    spec = script(
        tmp_path / "env", "import os\nHAS = hasattr(os, 'pidfd_open')\n", env={"PYTHONPATH": str(tmp_path / "site")}
    )
    async with some_pool() as pool:
        await learn(pool, spec)
        assert not (await forked(pool, spec)).told["HAS"]


def other_pythons() -> list[str]:
    """The oldest that is forked, and a newer one than ours, where the machine has them."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = {version: next(versions.glob(f"{version}.*/bin/python"), None) for version in ("3.9", "3.13")}
    return [str(python) for python in found.values() if python is not None]


async def test_an_environment_of_an_older_or_newer_python_is_forked_too():
    pythons = other_pythons()
    if not pythons:
        pytest.skip("this machine has no other Python")
    async with some_pool() as pool:
        for number, python in enumerate(pythons):
            fields = {"command": python, "args": (str(PROBE), "exit"), "cwd": "/", "limits": LIMITS}
            spec = EnvSpec(name=f"probe{number}", **fields)
            async with Played(pool, spec, 1) as first:
                its = pool.placement.starter.zygotes
                await eventually(lambda its=its, spec=spec: its._keepers[spec.name].zygote is not None, within=60)
            fork = await forked(pool, spec)
            async with Played(pool, EnvSpec(name="fresh", zygote=False, **fields), 1) as fresh:
                pass
            assert_sees_the_same(fork, fresh)
            assert [one.status for one in (first, fork, fresh)] == [3, 3, 3]


class Answers(Listener):
    def from_backend(self, message):
        self.told.append(message.kind)


class Asked(Played):
    """One that says nothing until it is asked."""

    def __init__(self, *args):
        super().__init__(*args)
        self.listener = Answers()

    async def _run(self):
        wish = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
        self.backend.send(messages.request(0, "initialize", wish))
        await super()._run()


@pytest.mark.network
async def test_a_tool_of_uvx_with_more_packages_is_forked_by_its_own_interpreter(monkeypatch):
    # The tests' own uv lies beside their interpreter.
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    python = [f"--python={one}" for one in other_pythons()[-1:]]
    args = (*python, "--with", "mcp<2", "mcp-server-sqlite", "--db-path", "{workspace}/x.db")
    spec = EnvSpec(name="sqlite", command="uvx", args=args, cwd="{workspace}", limits=LIMITS)
    async with some_pool() as pool:
        async with Asked(pool, spec, 1) as first:
            await has_zygote(pool)
        async with Asked(pool, spec, 2) as fork:
            pass
        assert starts(pool, "fork") == 1
    assert first.told == fork.told == Kind.RESULT


NEEDS = "# /// script\n# dependencies = ['cowsay==6.1']\n# ///\n"
DEPENDENT = "import sys, cowsay\nPREFIX, FILE, MINE = sys.prefix, cowsay.__file__, 'cowsay' in sys.modules\n"
SETTINGS = """
[environments.inline]
command = "inline.py"

[environments.listed]
command = "listed.py"
requirements = ["cowsay==6.1"]

[environments.command]
command = "cowsay"
args = ["--text", "{seed}"]
requirements = ["cowsay==6.1"]
"""


@pytest.mark.network
async def test_the_environments_that_muxsim_makes_are_forked_by_their_own_interpreters(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    (tmp_path / "inline.py").write_text(NEEDS + DEPENDENT + TELL)
    (tmp_path / "listed.py").write_text(DEPENDENT + TELL)
    (tmp_path / "muxsim.toml").write_text(SETTINGS)
    environments = load(tmp_path / "muxsim.toml").environments
    async with some_pool() as pool:
        pool.keep_warm([*environments.values()])
        for name in ("inline", "listed"):
            async with Played(pool, environments[name], 1):
                await eventually(lambda name=name: ready(pool, name) == 1, within=60)
            async with Played(pool, environments[name], 2) as fork:
                assert counted(pool).total("slots_used", name) == 1
            assert fork.told["PREFIX"].startswith(os.environ["MUXSIM_CACHE"])
            assert fork.told["FILE"].startswith(fork.told["PREFIX"])
        async with Played(pool, environments["command"], 1) as first:
            assert first.listener.lines
        assert starts(pool, "learner") == 3


def ready(pool, name):
    """How many forks wait."""
    warm = pool.statistics().placement.warm
    return warm[name].ready if name in warm else 0


async def test_a_conda_environment_is_forked_by_its_own_interpreter(tmp_path, conda_channel):
    script(tmp_path / "env", "import sys, greeting\nPREFIX, FILE = sys.prefix, greeting.__file__\n")
    needs = Dependencies(conda=("greeting",), channels=(conda_channel.url,))
    args = (str(tmp_path / "env" / "script.py"),)
    spec = EnvSpec(name="conda", command="python", args=args, cwd="{workspace}", limits=LIMITS, dependencies=needs)
    async with some_pool() as pool:
        await learn(pool, spec)
        fork = await forked(pool, spec)
    assert fork.told["PREFIX"].startswith(os.environ["MUXSIM_CACHE"])
    assert fork.told["FILE"].startswith(fork.told["PREFIX"])
