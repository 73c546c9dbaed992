"""Installers: under the guardian's eye, with few variables, and gone with all that they have started."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from harness import alive
from hypothesis import given
from hypothesis import strategies as st
from serve.machine import eventually

from muxsim.errors import PackageError
from muxsim.observe.events import Events
from muxsim.processes.launcher import Launcher
from muxsim.provision import installer, packages
from muxsim.provision.as_it_stands import AsItStands
from muxsim.provision.installer import Program, installer_variables, run_watched
from muxsim.provision.packages import Packages
from muxsim.provision.provider import Found
from muxsim.provision.store import homes
from muxsim.spec import PASSED_VARIABLES, EnvSpec, Limits

# Tells of itself in a file, and leaves something behind, in a session of its own, before it waits or ends.
INSTALLER = """
import fcntl, json, os, subprocess, sys, time
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
told = {"env": dict(os.environ), "parent": os.getppid(), "left": left.pid, "pid": os.getpid()}
told["stdin"] = sys.stdin.read()
told["locks"] = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 9) if os.path.exists(f"/proc/self/fd/{fd}")]
open("told.partial", "w").write(json.dumps(told))
os.rename("told.partial", "told")
print("on stdout", flush=True)
print("on stderr", file=sys.stderr, flush=True)
if HOLD:
    time.sleep(1000)
sys.exit(3)
"""


class Installing:
    """Packages whose npm is the script above, and a spec that needs it."""

    def __init__(self, launcher, folder, monkeypatch, *, hold=False, timeout=60.0):
        self.packages = Packages(launcher, Events())
        tools = folder / "bin"
        tools.mkdir()
        for name in ("npm", "node"):
            (tools / name).write_text(f"#!{sys.executable}\nHOLD = {hold}\n{INSTALLER}")
            (tools / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tools))
        monkeypatch.setenv("MUXSIM_CACHE", str(folder / "cache"))
        self.cache = folder / "cache"
        limits = Limits(install_timeout=timeout)
        self.spec = EnvSpec(name="grid", command="npx", args=("-y", "grid"), env={"MODE": "inner"}, limits=limits)

    def told(self):
        """What the installer has told, once it has."""
        found = [*self.cache.glob("environments/*/*/npm/told")]
        return json.loads(found[0].read_text()) if found else None


@pytest.mark.children
async def test_an_installer_is_the_guardians_child_sees_few_variables_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MUXSIM_TEST_SECRET", "not for install scripts")
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:2")
    kept = []
    real = installer.telling_lines
    with trio.fail_after(60):
        async with Launcher.open() as launcher:
            installing = Installing(launcher, tmp_path, monkeypatch)

            def keep(output):
                kept.append((output, installing.told()))
                return real(output)

            monkeypatch.setattr(installer, "telling_lines", keep)
            with pytest.raises(PackageError, match="exit status 3"):
                await installing.packages.ready(installing.spec)
            ((output, told),) = kept
            assert told["parent"] == launcher.statistics().guardian_pid
            assert not alive(told["left"])
    assert {b"on stdout", b"on stderr"} <= set(output.splitlines())
    assert told["stdin"] == ""
    assert told["env"]["MODE"] == "inner"
    assert told["env"]["npm_config_registry"] == "http://127.0.0.1:1"
    assert told["env"]["HTTPS_PROXY"] == "http://127.0.0.1:2"
    assert "MUXSIM_TEST_SECRET" not in told["env"]
    assert any(link.endswith("/lock") for link in told["locks"])


@pytest.mark.children
@pytest.mark.parametrize("by", ["time", "cancellation", "the end of the pool"])
async def test_an_installer_that_is_given_up_ends_with_all_that_it_has_started(tmp_path, monkeypatch, by):
    with trio.fail_after(60):
        async with Launcher.open() as launcher:
            installing = Installing(launcher, tmp_path, monkeypatch, hold=True, timeout=3.0 if by == "time" else 60.0)
            told = []
            async with trio.open_nursery() as nursery:

                async def install():
                    with suppress(PackageError):
                        await installing.packages.ready(installing.spec)

                async def watch():
                    await eventually(installing.told, within=60)
                    told.append(installing.told())
                    if by == "cancellation":
                        nursery.cancel_scope.cancel()
                    elif by == "the end of the pool":
                        launcher.hasten()

                nursery.start_soon(install)
                nursery.start_soon(watch)
            await eventually(lambda: not alive(told[0]["pid"]) and not alive(told[0]["left"]), within=60)


names = st.sampled_from(["PATH", "HOME", "TOKEN", "AWS_SECRET_ACCESS_KEY", "npm_config_x", "UV_INDEX", "https_proxy"])


@given(st.dictionaries(names | st.text(st.characters(codec="ascii"), max_size=20), st.text(max_size=5)))
def test_installers_see_what_backends_see_and_what_says_where_packages_come_from(environ):
    seen = installer_variables(environ)
    assert seen.items() <= environ.items()
    assert not seen.keys() & {"TOKEN", "AWS_SECRET_ACCESS_KEY"}
    assert environ.keys() & {*PASSED_VARIABLES, "npm_config_x", "UV_INDEX", "https_proxy"} <= seen.keys()


@pytest.mark.children
async def test_without_a_pool_an_installer_is_run_all_the_same(tmp_path):
    lock = os.open(tmp_path, os.O_RDONLY)
    try:
        argv = (sys.executable, "-c", "print(1)")
        done = await run_watched(argv, cwd=Path(tmp_path), environ={}, lock=lock)
    finally:
        os.close(lock)
    assert (done.returncode, done.stdout) == (0, b"1\n")


class Letters:
    """A part of letters: a file each, which is a letter's version."""

    kind = "letters"

    def __init__(self, provider, asked):
        self.provider, self.asked, self.terms = provider, asked, asked
        self.key = (provider.name, *asked)

    async def fill(self, place, before):
        if self.asked == ("fails",):
            raise PackageError("no such name")
        there = sorted(path.name for path in place.prefix.iterdir())
        (place.prefix / self.provider.name).write_text(before or f"{''.join(there)}+{self.asked[0]}")

    async def check(self, place, *, thorough):
        return Found({self.provider.name: (place.prefix / self.provider.name).read_text()})

    async def pins(self, place, found):
        return found.packages[self.provider.name]

    def resolved(self, spec, place):
        return replace(spec, command=spec.command.removeprefix(self.provider.prefix))


class Provides:
    """A provider of such a part for commands that begin with its prefix."""

    program = Program("letters", (), "", "letter", "nowhere", re.compile(b"x"), {})

    def __init__(self, name, prefix):
        self.name, self.prefix = name, prefix

    def takes(self, spec):
        return self.prefix in spec.command

    async def part(self, spec, tools):
        if spec.args == ("odd",):
            raise AsItStands("it is odd")
        part = Letters(self, spec.args)
        part.kind = self.name
        return part


@pytest.fixture
def providers(monkeypatch):
    monkeypatch.setattr(packages, "PROVIDERS", (Provides("a", "conda-"), Provides("b", "sh")))


async def test_several_providers_install_into_one_environment_one_after_the_other(tmp_path, providers):
    environ = {"MUXSIM_CACHE": str(tmp_path)}
    ready = await packages.prepare(EnvSpec(name="grid", command="conda-shgrid", args=("x",)), environ)
    (folder,) = map(Path, ready.installed)
    assert ready.command == "grid"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "+x", "b": "a+x"}
    (home,) = homes(tmp_path / "environments")
    assert home.manifest().packages == {"a": {"a": "+x"}, "b": {"b": "a+x"}}
    alone = EnvSpec(name="grid", command="grid")
    assert await packages.prepare(alone, environ) is alone


async def test_a_providers_failure_names_the_environment_and_what_it_cannot_read_runs_as_it_stands(tmp_path, providers):
    spec, environ = EnvSpec(name="grid", command="sh", args=("fails",)), {**os.environ, "MUXSIM_CACHE": str(tmp_path)}
    with pytest.raises(PackageError, match=r"^environment grid: no such name$"):
        await packages.prepare(spec, environ)
    odd = replace(spec, args=("odd",))
    assert await packages.prepare(odd, environ) == odd
