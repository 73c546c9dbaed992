"""Environments of the real uv and npm, from the index and the registry to what runs in them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from serve.machine import eventually

from muxsim.config import load
from muxsim.errors import PackageError
from muxsim.provision.packages import lock_of, prepare, taken, wanted_of
from muxsim.provision.store import homes, removed
from muxsim.spec import Dependencies, EnvSpec

pytestmark = [pytest.mark.network, pytest.mark.children]

COW = "cowsay==6.1"
SAYS_WHERE = "import cowsay; print(cowsay.__file__)"


@pytest.fixture
def environ(tmp_path):
    """muxsim's variables with a cache of its own; uv and npm keep the user's, so a second run is quick."""
    return {**os.environ, "MUXSIM_CACHE": str(tmp_path / "cache")}


def requiring(*lines, command="python", args=("-c", SAYS_WHERE), **fields):
    return EnvSpec(
        name="cow", command=command, args=args, cwd="/", dependencies=Dependencies(requirements=lines, **fields)
    )


def store(environ):
    return Path(environ["MUXSIM_CACHE"]) / "environments"


def the_home(environ):
    (home,) = homes(store(environ))
    return home


async def said(spec, **how):
    launch = spec.launch(seed=1, session_id="s", workspace="/", environ=os.environ)
    done = await trio.run_process(launch.argv, env=launch.env, cwd=launch.cwd, capture_stdout=True, **how)
    return done.stdout.decode().strip()


def nowhere(environ, tmp_path):
    """The same without any network, and with nothing in the caches of uv and npm."""
    empty = {"UV_CACHE_DIR": str(tmp_path / "empty-uv"), "npm_config_cache": str(tmp_path / "empty-npm")}
    return {**environ, **empty, "UV_INDEX_URL": "http://127.0.0.1:9", "npm_config_registry": "http://127.0.0.1:9"}


async def test_two_environments_have_two_versions_of_one_package_and_need_no_network_then(environ, tmp_path):
    (tmp_path / "server.py").write_text("import mcp, importlib.metadata\nprint(importlib.metadata.version('mcp'))\n")
    (tmp_path / "muxsim.toml").write_text(
        "[environments.old]\ncommand = 'server.py'\nrequirements = ['mcp<2']\n"
        "[environments.new]\ncommand = 'server.py'\nrequirements = ['mcp>=2']\n"
    )
    specs, versions = load(tmp_path / "muxsim.toml").environments, {}
    with trio.fail_after(240):
        async with trio.open_nursery() as nursery:

            async def one(name):
                ready = await prepare(specs[name], environ)
                assert await prepare(specs[name], nowhere(environ, tmp_path)) == ready
                versions[name] = await said(ready)

            for name in specs:
                nursery.start_soon(one, name)
    assert (versions["old"][0], versions["new"][0]) == ("1", "2")


async def test_a_uvx_tool_has_what_is_named_beside_it(environ):
    uvx = ("--with", "iniconfig==2.0.0", "--from", COW, "cowsay", "-t", "moo")
    with trio.fail_after(120):
        ready = await prepare(EnvSpec(name="cow", command="uvx", args=uvx), environ)
    assert "moo" in await said(ready)
    assert the_home(environ).manifest().packages == {"uv": {"cowsay": "6.1", "iniconfig": "2.0.0"}}


async def test_a_script_has_what_it_says_itself_and_what_its_table_says(environ, tmp_path):
    (tmp_path / "server.py").write_text(
        f"# /// script\n# dependencies = ['{COW}']\n# ///\nimport cowsay, iniconfig\nprint(cowsay.__version__)\n"
    )
    (tmp_path / "muxsim.toml").write_text("[environments.cow]\ncommand='server.py'\nrequirements=['iniconfig==2.0.0']")
    with trio.fail_after(120):
        ready = await prepare(load(tmp_path / "muxsim.toml").environments["cow"], environ)
    assert await said(ready) == "6.1"


async def test_a_project_is_installed_from_its_lock_and_stays_where_it_is(environ, tmp_path):
    project = tmp_path / "project"
    (project / "demo").mkdir(parents=True)
    (project / "pyproject.toml").write_text(
        "[project]\nname = 'demo'\nversion = '1'\nrequires-python = '>=3.11'\ndependencies = ['iniconfig>=2']\n"
        "scripts = { demo-server = 'demo:main' }\n"
        "[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n"
    )
    code = "import iniconfig, importlib.metadata as found\ndef main(): print({}, found.version('iniconfig'))\n"
    (project / "demo" / "__init__.py").write_text(code.format(1))
    lock = {**environ, "UV_CONSTRAINT": str(project / "old.txt")}
    uv = shutil.which("uv") or os.path.join(os.path.dirname(sys.executable), "uv")
    (project / "old.txt").write_text("iniconfig==2.0.0")
    pin = [uv, "lock", "--quiet", "--project", str(project), "--resolution", "lowest-direct"]
    with trio.fail_after(120):
        await trio.run_process(pin, env=lock)
        dependencies = Dependencies(pyproject=str(project))
        ready = await prepare(EnvSpec(name="a", command="demo-server", cwd="/", dependencies=dependencies), environ)
        assert await said(ready) == "1 2.0.0"
        (project / "demo" / "__init__.py").write_text(code.format(2))
        assert await said(ready) == "2 2.0.0"


async def test_a_script_imports_and_requires_npm_packages_wherever_it_is(environ, tmp_path):
    (tmp_path / "here").mkdir()
    script = tmp_path / "here" / "a.mjs"
    script.write_text(
        "import isOdd from 'is-odd'\nimport { createRequire } from 'node:module'\n"
        "const require = createRequire(import.meta.url)\nlet lost = 0\n"
        "try { await import('is-number') } catch { lost += 1 }\n"
        "try { require('is-number') } catch { lost += 1 }\n"
        "console.log(isOdd(3), require('is-odd')(4), lost)\n"
    )
    dependencies = Dependencies(packages=("is-odd@3.0.1",))
    spec = EnvSpec(name="odd", command="node", args=(str(script),), cwd="/", dependencies=dependencies)
    with trio.fail_after(120):
        ready = await prepare(spec, environ)
        assert await said(ready) == "true false 2"
        again = await prepare(spec, nowhere(environ, tmp_path))
    assert again == ready
    manifest = the_home(environ).manifest()
    assert manifest.packages["npm"]["is-odd"] == "3.0.1"
    assert "http" not in manifest.pins["npm"]


async def test_a_lock_makes_the_same_again_or_says_that_it_is_out_of_date(environ):
    spec = requiring("cowsay>=5")
    with trio.fail_after(120):
        wanted = await wanted_of(spec, environ)
        ready, held = await taken(spec, environ)
        pins = await lock_of(wanted, held)
        held.close()
        (of_uv,) = pins
        assert (of_uv.kind, of_uv.terms[0]) == ("uv", "cowsay>=5")
        assert of_uv.pins.startswith("cowsay==6.1 \\\n    --hash=sha256:")
        assert "http" not in of_uv.pins
        locked = replace(spec, dependencies=replace(spec.dependencies, pins=pins))
        again = await prepare(locked, environ)
        assert again != ready
        assert "cowsay" in await said(again)
        # A hash that is not that of any file is one that nobody has locked.
        forged = (replace(of_uv, pins=re.sub("sha256:....", "sha256:0000", of_uv.pins)),)
        with pytest.raises(PackageError, match="cowsay"):
            await prepare(replace(spec, dependencies=replace(spec.dependencies, pins=forged)), environ)
        drifted = replace(locked.dependencies, requirements=("cowsay<6",), locked=True)
        with pytest.raises(PackageError, match="cowsay<6"):
            await prepare(replace(locked, dependencies=drifted), environ)


async def test_a_lock_has_packages_whose_names_are_written_in_several_ways(environ):
    spec = requiring("Jaraco.Classes==3.4", "typing_extensions==4.12.2")
    with trio.fail_after(120):
        wanted = await wanted_of(spec, environ)
        _, held = await taken(spec, environ)
        pins = await lock_of(wanted, held)
        held.close()
        locked = replace(spec, dependencies=replace(spec.dependencies, pins=pins, locked=True))
        ready = await prepare(locked, environ)
        assert "more_itertools" in await said(
            replace(ready, args=("-c", "import jaraco.classes, more_itertools as it; print(it)"))
        )


async def test_the_requirement_that_cannot_be_had_is_named_with_the_log(environ):
    with trio.fail_after(120), pytest.raises(PackageError, match="nosuch-package-of-anybody") as caught:
        await prepare(requiring(COW, "nosuch-package-of-anybody>=3"), environ)
    home = the_home(environ)
    assert "could not install nosuch-package-of-anybody>=3 (exit status 1)" in str(caught.value)
    assert str(home.log) in str(caught.value)
    assert "No solution found" in home.log.read_text()
    assert await removed(home)
    assert [*homes(home.folder.parent)] == []


def spoil(file, how):
    info = next(file.parent.parent.glob("cowsay-*.dist-info"))
    for path in (file.parent, file, info, info / "METADATA"):
        path.chmod(0o755)
    if how == "deleted":
        file.unlink()
    elif how == "cut off":
        os.truncate(file, 0)
    else:  # as large as it was
        metadata = info / "METADATA"
        metadata.write_text(metadata.read_text().replace("Name: cowsay", "Name: cowsbe"))


@pytest.mark.parametrize("how", ["deleted", "cut off", "of another name"])
async def test_what_is_damaged_is_made_anew_and_removed_without_a_trace(environ, how):
    with trio.fail_after(120):
        ready = await prepare(requiring("cowsay"), environ)
        file = await said(ready)
        before = the_home(environ).manifest()
        spoil(Path(file), how)
        again = await prepare(requiring("cowsay"), environ)
    assert await said(again) != file
    home = the_home(environ)
    assert (home.damage(), home.manifest().packages) == (None, before.packages)
    assert await removed(home)
    assert os.listdir(home.folder.parent) == []


IN_ANOTHER_PROCESS = """
import json, os, sys, trio
from muxsim.errors import PackageError
from muxsim.provision.packages import prepare
from muxsim.spec import Dependencies, EnvSpec
spec = EnvSpec(name="cow", command="python", args=("-c", "1"), cwd="/",
    dependencies=Dependencies(requirements=("cowsay==6.1",)))
try:
    told = trio.run(prepare, spec).command
except PackageError as error:
    told = str(error)
store = os.environ["MUXSIM_CACHE"] + "/environments"
left = [name for home in os.listdir(store) for name in os.listdir(f"{store}/{home}")]
print(json.dumps([told, left]))
"""


def preparing(environ, *first):
    return subprocess.Popen([*first, sys.executable, "-c", IN_ANOTHER_PROCESS], env=environ, stdout=subprocess.PIPE)


async def test_processes_make_it_once_also_after_one_that_was_killed_midway(environ):
    process = preparing(environ)
    with trio.fail_after(120):
        await eventually(lambda: [*store(environ).glob("*/*/pyvenv.cfg")], within=60)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        both = [preparing(environ) for _ in range(2)]
        told = [json.loads((await trio.to_thread.run_sync(one.communicate))[0]) for one in both]
    assert told[0][0] == told[1][0]
    home = the_home(environ)
    assert home.damage() is None
    folder = home.manifest().folder
    assert sorted(os.listdir(home.folder)) == sorted(["lock", "manifest.json", "build.log", folder, f"{folder}.used"])


def may_mount():
    probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return (
        shutil.which("unshare") is not None and subprocess.run(probe, check=False, capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not may_mount(), reason="this user may mount nothing")
async def test_on_a_full_disk_there_is_no_environment_and_nothing_is_left_of_it(environ, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    mount = f'mount -t tmpfs -o size=160k tmpfs {cache} && exec "$@"'
    process = preparing(environ, "unshare", "-m", "sh", "-c", mount, "sh")
    with trio.fail_after(120):
        told, left = json.loads((await trio.to_thread.run_sync(process.communicate))[0])
    assert f"make room in {cache}" in told
    assert set(left) <= {"lock", "build.log"}
