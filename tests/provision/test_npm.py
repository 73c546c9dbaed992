"""Most of these run a fake npm, which installs what a test has published; `network` ones run the real npm."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from muxsim.errors import PackageError
from muxsim.observe.events import RunsAsItStands
from muxsim.provision.as_it_stands import AsItStands
from muxsim.provision.cache import cache_folder
from muxsim.provision.npx import NpxCall, parse_npx, satisfies
from muxsim.provision.packages import prepare
from muxsim.provision.store import Home, homes
from muxsim.spec import EnvSpec, Limits, literal

MEMORY = "@modelcontextprotocol/server-memory"

FAKE_NPM = f"""#!{sys.executable}
import json, os, pathlib, sys
fake = pathlib.Path(os.environ["NPM_FAKE"])
with open(fake / "calls", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + chr(10))
if "--" in sys.argv:
    names = sys.argv[sys.argv.index("--") + 1:]
elif (fake / "dependencies").exists():
    names = json.loads((fake / "dependencies").read_text())
else:
    names = list(json.loads(pathlib.Path("package.json").read_text())["dependencies"])
for name in names:
    bare = name[0] + name[1:].partition("@")[0]
    package = pathlib.Path("node_modules", bare)
    package.mkdir(parents=True, exist_ok=True)
    published = json.loads((fake / "published.json").read_text())[bare]
    (package / "package.json").write_text(json.dumps(published))
    (package / "cli.js").write_text("#!/usr/bin/env node" + chr(10))
if "--" in sys.argv:
    wrote = {{"dependencies": {{name[0] + name[1:].partition("@")[0]: "^1" for name in sorted(names)}}}}
    pathlib.Path("package.json").write_text(json.dumps(wrote))
if "--" in sys.argv:
    pathlib.Path("package-lock.json").write_text('{{"lockfileVersion": 3}}')
if os.environ.get("NPM_FAKE_HOLD"):
    open(os.environ["NPM_FAKE_HOLD"]).read()
if os.environ.get("NPM_FAKE_FAILS"):
    sys.stderr.write(os.environ["NPM_FAKE_FAILS"])
    sys.exit(3)
pathlib.Path("node_modules", ".package-lock.json").write_text("{{}}")
"""


class Fake:
    """A PATH with a fake npm and node, and an environment for `prepare` that leads to them."""

    def __init__(self, root):
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        self.program("npm", FAKE_NPM)
        self.program("node", "#!/bin/sh\n")
        self.environ = {
            "PATH": str(self.bin),
            "HOME": str(root),
            "MUXSIM_CACHE": str(root / "cache"),
            "NPM_FAKE": str(root),
        }

    def program(self, name, text):
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def publish(self, *manifests):
        (self.root / "published.json").write_text(json.dumps({m["name"]: m for m in manifests}))

    def hold(self):
        """Makes npm wait, with its files already written, until the FIFO this returns is opened and closed."""
        fifo = self.root / "hold"
        os.mkfifo(fifo)
        self.environ["NPM_FAKE_HOLD"] = str(fifo)
        return fifo

    @property
    def calls(self):
        calls = self.root / "calls"
        return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    @property
    def cached(self):
        """The folders of npm in the cache, whole or not."""
        return installed(self.root / "cache")

    async def called(self, times):
        await until(lambda: len(self.calls) >= times)


def installed(cache):
    return sorted(
        folder / "npm" for home in homes(cache / "environments") for folder in home.folder.iterdir() if folder.is_dir()
    )


def damage(folder):
    return Home(folder.parent.parent).damage()


def where(spec, folder):
    """The spec's words, from the folder where they are."""
    return [os.path.relpath(word, folder) if word.startswith("/") else word for word in spec.args]


async def until(holds):
    with trio.fail_after(60):
        while not holds():  # noqa: ASYNC110 - other processes set no event
            await trio.sleep(0.01)


@pytest.fixture
def fake(tmp_path):
    return Fake(tmp_path)


def manifest(name="grid", version="1.2.3", **fields):
    return {"name": name, "version": version, "bin": "./cli.js", **fields}


def npx(*args, **fields):
    return EnvSpec(**{"name": "grid", "command": "npx", "args": args, "cwd": "/", **fields})


def write_package(folder, package, *files):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text(package if isinstance(package, str) else json.dumps(package))
    for file in files or ("cli.js",):
        (folder / file).write_text("#!/usr/bin/env node\n")
    return folder


def folder_spec(folder, *args, **fields):
    return EnvSpec(**{"name": "grid", "command": str(folder), "args": args, **fields})


# ---- the npx command line ----


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("grid", NpxCall(("grid",), "", ())),
        ("-y grid", NpxCall(("grid",), "", ())),
        ("--yes --quiet grid@1.2 --seed 7", NpxCall(("grid@1.2",), "", ("--seed", "7"))),
        ("-y @scope/grid@latest -y -p x", NpxCall(("@scope/grid@latest",), "", ("-y", "-p", "x"))),
        ("-y -- grid -- x", NpxCall(("grid",), "", ("--", "x"))),
        ("-p grid play", NpxCall(("grid",), "play", ())),
        ("--package=grid@2 --package tools -- play x", NpxCall(("grid@2", "tools"), "play", ("x",))),
        ("-y --registry=http://r --offline grid", NpxCall(("grid",), "", (), ("--registry=http://r", "--offline"))),
        ("github:user/grid", NpxCall(("github:user/grid",), "", ())),
    ],
)
def test_an_npx_command_line_is_read_as_npx_reads_it(line, call):
    assert parse_npx(tuple(line.split())) == call


USAGE = "use npx [-y] [-p PACKAGE] [--OPTION=VALUE] PACKAGE[@VERSION] ARGS…"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", f"npx needs a package to run: {USAGE}"),
        ("-y", f"npx needs a package to run: {USAGE}"),
        ("-y --", f"npx needs a package to run: {USAGE}"),
        ("-p grid", f"npx needs a command of grid to run: {USAGE}"),
    ],
)
def test_what_npx_cannot_mean_is_refused_with_advice(line, message):
    with pytest.raises(ValueError, match="npx") as caught:
        parse_npx(tuple(line.split()))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "line",
    [
        *("-p", "-c play", "--call=play", "--call play", "--registry http://r grid", "-w one grid", "--prefix=x grid"),
        *("--node-options=--inspect grid", "--no grid", "-p ./grid play", "--package=file:../grid play"),
    ],
)
def test_what_only_npx_understands_is_left_to_npx(line):
    with pytest.raises(AsItStands, match="npx"):
        parse_npx(tuple(line.split()))


SAYS_WHERE = "#!/usr/bin/env node\nconsole.log(require('fs').realpathSync(__filename) + ' ' + process.argv.slice(2))\n"


@pytest.fixture
def project(tmp_path):
    """A project that has @acme/lake-mcp 1.2.3, with the command acme-lake, and a command of its own."""
    folder = tmp_path / "a project {seed}"
    package = folder / "node_modules" / "@acme" / "lake-mcp"
    for home, about in (
        (package, {"name": "@acme/lake-mcp", "version": "1.2.3", "bin": {"acme-lake": "server.js"}}),
        (folder, {"name": "project", "version": "1.0.0", "private": True, "bin": "own.js"}),
    ):
        home.mkdir(parents=True, exist_ok=True)
        (home / "package.json").write_text(json.dumps(about))
    for file in (package / "server.js", folder / "own.js"):
        file.write_text(SAYS_WHERE)
        file.chmod(0o755)
    bins = folder / "node_modules" / ".bin"
    bins.mkdir()
    (bins / "acme-lake").symlink_to("../@acme/lake-mcp/server.js")
    (bins / "shim").write_text(f'#!/bin/sh\nexec node "{package}/server.js" "$@"\n')
    (bins / "shim").chmod(0o755)
    (folder / "inner").mkdir()
    return folder


UNREACHABLE = {"npm_config_registry": "http://127.0.0.1:9/", "npm_config_fetch_retries": "0"}


@pytest.mark.children
@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize(
    "line",
    [
        "acme-lake x",
        "-y @acme/lake-mcp@1.2.3 x",
        "-y @acme/lake-mcp x",
        "-y -p @acme/lake-mcp acme-lake x",
        "-y --package=@acme/lake-mcp@1.2.3 -- acme-lake x",
        "-y @acme/lake-mcp@^1.1 x",
        "shim x",
        "project x",
    ],
)
async def test_npx_runs_what_the_project_has_as_npx_itself_does(line, inner, project, tmp_path):
    environ = {**os.environ, **UNREACHABLE, "MUXSIM_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    cwd = project / "inner" if inner and not line.startswith("project") else project
    spec = EnvSpec(name="lake", command="npx", args=tuple(line.split()), cwd=literal(str(cwd)))
    with trio.fail_after(120):
        ran = await trio.run_process(["npx", *line.split()], cwd=cwd, env=environ, capture_stdout=True)
        ready = await prepare(spec, environ)
        launch = ready.launch(seed=1, session_id="s", workspace="/", environ=environ)
        runs = await trio.run_process(list(launch.argv), cwd=launch.cwd, env=launch.env, capture_stdout=True)
    assert os.path.basename(launch.argv[0]) != "npx"
    assert runs.stdout == ran.stdout


async def test_another_version_than_the_project_has_is_asked_of_the_registry(project, fake):
    fake.publish(manifest("@acme/lake-mcp", "2.0.0"))
    spec = npx("@acme/lake-mcp@2.0.0", cwd=literal(str(project)))
    assert "cache" in (await prepare(spec, fake.environ)).args[0]


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("1.2.3", "1.2.3", True),
        ("1.2.3", "v1.2.3", True),
        ("1.2.3", "1.2.4", False),
        ("1.2.3", "1", True),
        ("1.2.3", "1.x", True),
        ("1.2.3", "1.3.x", False),
        ("1.2.3", "*", True),
        ("1.2.3", "^1.1", True),
        ("1.2.3", "^1.2.4", False),
        ("2.0.0", "^1.2.3", False),
        ("0.2.9", "^0.2.3", True),
        ("0.3.0", "^0.2.3", False),
        ("0.0.4", "^0.0.3", False),
        ("0.0.4", "^0.0", True),
        ("0.9.0", "^0", True),
        ("1.2.9", "~1.2.3", True),
        ("1.3.0", "~1.2.3", False),
        ("1.9.0", "~1", True),
        ("1.2.3", ">=1 <2", None),
        ("1.2.3-beta.1", "^1.0", None),
        ("1.2.3-beta.1", "1.2.3-beta.1", True),
        ("None", "1", None),
    ],
)
def test_a_range_of_versions_is_understood_as_npm_does_or_not_at_all(version, wanted, fits):
    assert satisfies(version, wanted) is fits


@pytest.mark.parametrize("line", ["-c acme-lake", "@acme/lake-mcp@>=1.2", "-p @acme/lake-mcp node x.js"])
async def test_what_only_npx_understands_is_run_by_npx_and_told(line, project, fake):
    fake.program("npx", "#!/bin/sh\n")
    spec = npx(*line.split(), cwd=literal(str(project)))
    told = []
    assert await prepare(spec, fake.environ, tell=told.append) == spec
    (one,) = told
    assert (type(one), one.env) == (RunsAsItStands, "grid")
    assert "start_timeout" in one.costs


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"MUXSIM_CACHE": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/muxsim"),
        ({"HOME": "/h"}, "/h/.cache/muxsim"),
        ({"XDG_CACHE_HOME": "", "MUXSIM_CACHE": "", "HOME": "/h"}, "/h/.cache/muxsim"),
        ({}, str(Path.home() / ".cache" / "muxsim")),
    ],
)
def test_the_cache_is_where_the_user_keeps_caches(environ, folder):
    assert cache_folder(environ) == Path(folder)


# ---- what is run ----


@pytest.mark.parametrize("command", ["/bin/sh", "node", "server", "/nowhere/server"])
async def test_a_spec_without_an_npm_package_stays_as_it_is(command, fake):
    spec = EnvSpec(name="plain", command=command)
    assert await prepare(spec, fake.environ) is spec


@pytest.mark.parametrize(
    ("package", "file"),
    [
        ({"name": "grid", "bin": "cli.js"}, "cli.js"),
        ({"name": "@scope/grid", "bin": "./dist.js"}, "dist.js"),
        ({"name": "grid", "bin": {"play": "cli.js"}}, "cli.js"),
        ({"name": "grid", "bin": {"play": "cli.js", "go": "cli.js"}}, "cli.js"),
        ({"name": "grid", "bin": {"play": "cli.js", "grid": "dist.js"}}, "dist.js"),
        ({"name": "@scope/grid", "bin": {"play": "cli.js", "grid": "dist.js"}}, "dist.js"),
        ({"bin": "cli.js"}, "cli.js"),
    ],
)
async def test_a_package_runs_the_bin_that_npx_would_run(package, file, fake, tmp_path):
    folder = write_package(tmp_path / "grid", package, "cli.js", "dist.js")
    spec = await prepare(folder_spec(folder, "--seed", "{seed}", env={"A": "b"}), fake.environ)
    assert spec.command == str(fake.bin / "node")
    assert spec.args == (str(folder / file), "--seed", "{seed}")
    assert spec.env == {"A": "b"}


async def test_a_prepared_spec_tells_the_package_and_its_version(fake, tmp_path):
    folder = write_package(tmp_path / "grid", manifest("@scope/grid", "1.2.3"))
    assert (await prepare(folder_spec(folder), fake.environ)).package == "@scope/grid@1.2.3"


async def test_preparing_twice_changes_nothing_more(fake, tmp_path):
    spec = await prepare(folder_spec(write_package(tmp_path / "grid", manifest())), fake.environ)
    assert await prepare(spec, fake.environ) is spec


@pytest.mark.parametrize(
    ("first_line", "mode", "by_node"),
    [
        ("#!/usr/bin/env node", 0o755, True),
        ("#!/usr/local/bin/node", 0o755, True),
        ("import x from 'y'", 0o755, True),
        ("#!/bin/sh", 0o755, False),
        ("#!/usr/bin/env -S node --no-warnings", 0o755, False),
        ("#!/usr/bin/env -S node --no-warnings", 0o644, True),
    ],
)
async def test_a_bin_for_another_interpreter_runs_by_itself(first_line, mode, by_node, fake, tmp_path):
    folder = write_package(tmp_path / "grid", manifest())
    (folder / "cli.js").write_text(first_line + "\n")
    (folder / "cli.js").chmod(mode)
    spec = await prepare(folder_spec(folder, "x"), fake.environ)
    whole = (spec.command, *spec.args)
    own = (str(folder / "cli.js"), "x")
    assert whole == ((str(fake.bin / "node"), *own) if by_node else own)


@pytest.mark.parametrize(
    ("package", "message"),
    [
        (
            {"name": "grid", "version": "1.0.0"},
            "environment grid: grid@1.0.0 has no bin in its package.json: name the script to run with node",
        ),
        (
            {"name": "grid", "version": "1.0.0", "bin": {"b": "cli.js", "a": "x.js"}},
            "environment grid: grid@1.0.0 has several commands (a, b): choose with npx -p PACKAGE COMMAND",
        ),
        (
            {"name": "grid", "version": "1.0.0", "bin": "dist/x.js"},
            "environment grid: {folder}/dist/x.js is missing, the bin of grid@1.0.0: build the package first",
        ),
        (
            '{"name": 1}',
            "environment grid: {folder}/package.json cannot be read: Expected `str`, got `int` - at `$.name`",
        ),
        (
            "{",
            "environment grid: {folder}/package.json cannot be read: Input data was truncated",
        ),
    ],
)
async def test_a_package_with_nothing_to_run_is_an_error_that_says_why(package, message, fake, tmp_path):
    folder = write_package(tmp_path / "grid", package)
    with pytest.raises(PackageError) as caught:
        await prepare(folder_spec(folder), fake.environ)
    assert str(caught.value) == message.replace("{folder}", str(folder))


async def test_a_folder_without_a_package_is_an_error(fake, tmp_path):
    with pytest.raises(PackageError) as caught:
        await prepare(folder_spec(tmp_path), fake.environ)
    assert str(caught.value) == (
        f"environment grid: {tmp_path} is a folder without a package.json: name a program or an npm package"
    )


async def test_a_bad_npx_command_line_is_an_error(fake):
    with pytest.raises(PackageError) as caught:
        await prepare(npx("-y"), fake.environ)
    assert str(caught.value) == f"environment grid: npx needs a package to run: {USAGE}"


@pytest.mark.parametrize(("missing", "spec"), [("npm", npx("grid")), ("node", None)])
async def test_a_machine_without_node_is_an_error_that_says_what_to_install(missing, spec, fake, tmp_path):
    (fake.bin / missing).unlink()
    spec = spec or folder_spec(write_package(tmp_path / "grid", manifest()))
    with pytest.raises(PackageError) as caught:
        await prepare(spec, fake.environ)
    assert str(caught.value) == (
        f"environment grid: {missing} is not on PATH: install Node.js 20 or newer, which has it"
    )


async def test_the_path_of_the_spec_decides_which_node_runs(fake, tmp_path):
    folder = write_package(tmp_path / "grid", manifest())
    spec = folder_spec(folder, env={"PATH": str(fake.bin)})
    assert (await prepare(spec, {**fake.environ, "PATH": "/nowhere"})).command == str(fake.bin / "node")


async def test_a_cache_that_cannot_be_written_is_an_error_that_names_the_way_out(fake, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(PackageError) as caught:
        await prepare(npx("grid"), fake.environ)
    cache = tmp_path / "cache" / "environments"
    (place,) = re.findall(r"'(.*)'", str(caught.value))
    assert place.startswith(str(cache))
    assert str(caught.value) == (
        f"environment grid: its npm package could not be installed ([Errno 20] Not a directory: '{place}'): "
        f"see that {cache} can be written, or name another place with MUXSIM_CACHE"
    )


@pytest.mark.parametrize("depth", ["", "deeper/still"])
async def test_the_projects_own_copy_of_a_package_goes_first(depth, fake, tmp_path):
    own = write_package(tmp_path / "project" / "node_modules" / "@s" / "grid", manifest("@s/grid"))
    cwd = tmp_path / "project" / depth
    cwd.mkdir(parents=True, exist_ok=True)
    spec = await prepare(npx("-y", "@s/grid", "x", cwd=str(cwd)), fake.environ)
    assert spec.args == (str(own / "cli.js"), "x")
    assert fake.calls == []


@pytest.mark.parametrize(
    "words", [["@s/grid"], ["@s/grid@1"], ["-p", "@s/grid", "grid"], ["--package=@s/grid", "grid"]]
)
async def test_the_registry_is_not_asked_for_the_project_itself(words, fake, tmp_path):
    own = write_package(tmp_path / "project", manifest("@s/grid"))
    (own / "deeper").mkdir()
    spec = await prepare(npx("-y", *words, "x", cwd=str(own / "deeper")), fake.environ)
    assert spec.args == (str(own / "cli.js"), "x")
    assert fake.calls == []


# ---- installing ----


@pytest.mark.children
async def test_an_npx_package_is_installed_once_and_then_needs_no_npm(fake):
    fake.publish(manifest())
    first = await prepare(npx("-y", "grid", "--seed", "{seed}"), fake.environ)
    (fake.bin / "npm").unlink()
    assert await prepare(npx("-y", "grid", "--seed", "{seed}"), fake.environ) == first
    (home,) = fake.cached
    assert first.args == (str(home / "node_modules" / "grid" / "cli.js"), "--seed", "{seed}")
    assert first.package == "grid@1.2.3"
    assert len(fake.calls) == 1


@pytest.mark.children
async def test_npm_gets_the_packages_as_they_were_named_and_the_options(fake):
    fake.publish(manifest("@s/grid"))
    await prepare(npx("-y", "--registry=http://r", "@s/grid@^1"), fake.environ)
    (call,) = fake.calls
    assert call[0] == "install"
    assert call[-3:] == ["--registry=http://r", "--", "@s/grid@^1"]


@pytest.mark.children
async def test_another_version_is_another_install(fake):
    fake.publish(manifest())
    homes = {(await prepare(npx(package), fake.environ)).args for package in ("grid", "grid@1", "grid@1.2")}
    assert len(homes) == len(fake.cached) == 3


@pytest.mark.children
async def test_a_pinned_version_is_not_taken_from_the_project(fake, tmp_path):
    fake.publish(manifest())
    write_package(tmp_path / "node_modules" / "grid", manifest(version="0.0.1"))
    assert (await prepare(npx("grid@1", cwd=str(tmp_path)), fake.environ)).package == "grid@1.2.3"


@pytest.mark.children
async def test_a_command_named_after_p_is_found_in_any_of_the_packages(fake):
    fake.publish(manifest("zoo", "2.0.0", bin={"feed": "cli.js"}), manifest("ape", "1.0.0", bin={"go": "cli.js"}))
    spec = await prepare(npx("-p", "zoo", "-p", "ape", "feed", "x"), fake.environ)
    (home,) = fake.cached
    assert spec.args == (str(home / "node_modules" / "zoo" / "cli.js"), "x")
    assert spec.package == "zoo@2.0.0"


@pytest.mark.children
async def test_a_command_that_no_package_has_is_an_error_that_lists_theirs(fake):
    fake.publish(manifest(bin={"play": "cli.js", "go": "cli.js"}))
    with pytest.raises(PackageError) as caught:
        await prepare(npx("-p", "grid", "paly"), fake.environ)
    assert str(caught.value) == ("environment grid: npx -p grid has no command paly: use one of its own: go, play")


@pytest.mark.children
async def test_npm_sees_what_installers_may_and_the_specs_variables_but_no_unfilled_ones(fake):
    fake.publish(manifest())
    fake.program(
        "npm", FAKE_NPM.replace('"calls", "a"', '"env", "a"').replace("sys.argv[1:]) +", "dict(os.environ)) +")
    )
    environ = {**fake.environ, "TOKEN": "mine", "npm_config_x": "y", "MODE": "outer"}
    await prepare(npx("grid", env={"MODE": "inner", "HOME": "{workspace}/home"}), environ)
    seen = json.loads((fake.root / "env").read_text())
    assert (seen["npm_config_x"], seen["MODE"], seen["HOME"]) == ("y", "inner", str(fake.root))
    assert "TOKEN" not in seen


@pytest.mark.children
async def test_a_failed_install_is_told_with_npms_own_lines_and_tried_anew(fake):
    fake.publish(manifest())
    lines = ["npm error code E404", "npm error", "npm error 404 Not Found - grid", "npm error     at Client.emit (x:1)"]
    failing = {**fake.environ, "NPM_FAKE_FAILS": "\n".join(lines)}
    with pytest.raises(PackageError) as caught:
        await prepare(npx("grid"), failing)
    (home,) = homes(fake.root / "cache" / "environments")
    assert str(caught.value) == (
        "environment grid: npm could not install grid (exit status 3): check the package's name and version, "
        f"and that the registry can be reached; all that was said is in {home.log}\n"
        "  npm error code E404\n"
        "  npm error 404 Not Found - grid"
    )
    assert caught.value.output == ("npm error code E404", "npm error 404 Not Found - grid")
    assert fake.cached == []
    assert "Client.emit" in home.log.read_text()
    assert (await prepare(npx("grid"), fake.environ)).package == "grid@1.2.3"


@pytest.mark.children
async def test_a_long_report_of_npm_is_shown_by_both_its_ends(fake):
    fake.publish(manifest())
    report = "\n".join(f"line {number}" for number in range(100))
    with pytest.raises(PackageError) as caught:
        await prepare(npx("grid"), {**fake.environ, "NPM_FAKE_FAILS": report})
    assert caught.value.output == (
        *(f"line {n}" for n in range(6)),
        "…",
        *(f"line {n}" for n in range(94, 100)),
    )


@pytest.mark.children
async def test_an_install_past_its_time_is_ended_and_told(fake):
    fake.publish(manifest())
    fake.hold()
    with pytest.raises(PackageError) as caught, trio.fail_after(60):
        await prepare(npx("grid", limits=Limits(install_timeout=0.5)), fake.environ)
    assert str(caught.value) == (
        "environment grid: its npm package took more than 0.5 s to install: "
        "see whether the registry can be reached, or raise install_timeout"
    )
    assert fake.cached == []


@pytest.mark.children
async def test_a_cancelled_install_ends_npm_and_what_it_started(fake):
    fake.publish(manifest())
    fifo = fake.hold()
    fake.program("npm", f"#!/bin/sh\necho $$ >> {fake.root}/calls\nsh -c 'read line < {fifo}' &\nread line < {fifo}\n")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(prepare, npx("grid"), fake.environ)
            await fake.called(1)
            (npm,) = fake.calls
            nursery.cancel_scope.cancel()
    await until(lambda: not group_members(npm))
    assert fake.cached == []


def group_members(group):
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z" and int(fields[2]) == group:
            members.append(stat.parent.name)
    return members


@pytest.mark.children
async def test_tasks_that_prepare_the_same_package_share_one_install(fake):
    fake.publish(manifest())
    prepared = []

    async def one():
        prepared.append(await prepare(npx("grid"), fake.environ))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
    assert len(fake.calls) == 1
    assert len(prepared) == 5
    assert all(spec == prepared[0] for spec in prepared)


@pytest.mark.children
async def test_different_packages_are_installed_at_the_same_time(fake):
    fake.publish(manifest("grid"), manifest("maze"))
    fifo = fake.hold()
    with trio.fail_after(60):
        async with trio.open_nursery() as releasing:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(prepare, npx("grid"), fake.environ)
                nursery.start_soon(prepare, npx("maze"), fake.environ)
                await fake.called(2)
                releasing.start_soon(keep_releasing, fifo)
            releasing.cancel_scope.cancel()
    assert len(fake.cached) == 2


async def keep_releasing(fifo):
    """For one that was called, but may not wait for the FIFO yet."""
    while True:
        with contextlib.suppress(OSError):  # nobody waits
            os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        await trio.sleep(0.01)


async def release(fifo):
    """Lets every npm that waits for the FIFO go on."""
    await trio.to_thread.run_sync(lambda: fifo.open("w").close())


PREPARE = """
import sys, trio
from muxsim.provision.packages import prepare
from muxsim.spec import EnvSpec

spec = EnvSpec(name="grid", command=sys.argv[1], args=tuple(sys.argv[2:]), cwd="/")
print(trio.run(prepare, spec).package)
"""


def preparing(environ, *command):
    """A process of its own that prepares a spec and prints the package."""
    program = [sys.executable, "-c", PREPARE, *command]
    return subprocess.Popen(program, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def printed(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output.strip()


@pytest.mark.children
async def test_processes_that_prepare_the_same_package_share_one_install(fake):
    fake.publish(manifest())
    processes = [preparing(fake.environ, "npx", "grid") for _ in range(2)]
    assert [printed(process) for process in processes] == ["grid@1.2.3"] * 2
    assert len(fake.calls) == 1


@pytest.mark.children
async def test_an_install_whose_muxsim_was_killed_ends_with_it_and_is_made_anew(fake):
    fake.publish(manifest())
    fake.hold()
    process = preparing(fake.environ, "npx", "grid")
    await fake.called(1)
    process.kill()
    process.communicate()  # its npm, which would wait for ever, holds the pipes
    (leftover,) = fake.cached
    (leftover / "cut off").touch()
    del fake.environ["NPM_FAKE_HOLD"]
    with trio.fail_after(60):
        await prepare(npx("grid"), fake.environ)
    (home,) = fake.cached
    assert not (home / "cut off").exists()
    assert damage(home) is None
    assert len(fake.calls) == 2


def test_an_install_works_where_trio_is_a_guest(fake):
    fake.publish(manifest())
    prepared = []

    async def host():
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        trio.lowlevel.start_guest_run(
            prepare,
            npx("grid"),
            fake.environ,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=lambda outcome: (prepared.append(outcome.unwrap()), ended.set()),
            host_uses_signal_set_wakeup_fd=True,
        )
        await ended.wait()

    asyncio.run(host())
    assert prepared[0].package == "grid@1.2.3"


def spoilt(how, home):
    for inner, _, files in os.walk(home):
        os.chmod(inner, 0o755)
        for name in files:
            os.chmod(os.path.join(inner, name), 0o644)
    file = home / "node_modules" / "grid" / ("package.json" if how == "garbled" else "cli.js")
    if how == "missing":
        file.unlink()
    elif how == "cut off":
        file.write_text("")
    else:
        file.write_text("{")
    return file.relative_to(home.parent)


@pytest.mark.children
@pytest.mark.parametrize("how", ["missing", "cut off", "garbled"])
async def test_a_damaged_copy_is_found_and_made_anew(fake, how):
    """The cache after a full disk, a power cut, or a cleaner of old files."""
    fake.publish(manifest())
    first = await prepare(npx("grid"), fake.environ)
    (home,) = fake.cached
    spoilt(how, home)
    again = await prepare(npx("grid"), fake.environ)
    (anew,) = fake.cached
    assert (anew / "node_modules" / "grid" / "cli.js").read_text() == "#!/usr/bin/env node\n"
    assert where(again, anew) == where(first, home)
    await prepare(npx("grid"), fake.environ)
    assert commands(fake) == ["install", "ci"]


@pytest.mark.children
async def test_a_damaged_copy_is_made_anew_in_the_version_that_it_had(fake):
    fake.publish(manifest())
    await prepare(npx("grid"), fake.environ)
    (home,) = fake.cached
    (fake.root / "dependencies").write_text('["grid"]')
    spoilt("missing", home)
    await prepare(npx("grid"), fake.environ)
    assert commands(fake) == ["install", "ci"]
    (home,) = fake.cached
    assert json.loads((home / "package-lock.json").read_text()) == {"lockfileVersion": 3}


@pytest.mark.children
async def test_a_damaged_copy_that_cannot_be_made_anew_is_told_with_both_reasons(fake):
    fake.publish(manifest())
    await prepare(npx("grid"), fake.environ)
    (home,) = fake.cached
    file = spoilt("missing", home)
    with pytest.raises(PackageError) as caught:
        await prepare(npx("grid"), {**fake.environ, "NPM_FAKE_FAILS": "npm error code E500"})
    place = home.parent.parent
    assert caught.value.message == (
        f"environment grid: {place} is damaged ({file} is missing), and cannot be made anew: "
        "npm could not install grid (exit status 3): check the package's name and version, "
        f"and that the registry can be reached; all that was said is in {place}/build.log"
    )
    assert fake.cached == [home]


@pytest.mark.children
async def test_what_a_server_keeps_beside_its_code_is_no_damage(fake):
    fake.publish(manifest())
    await prepare(npx("grid"), fake.environ)
    (home,) = fake.cached
    (home / "node_modules" / "grid" / "memory.json").write_text("{}")
    await prepare(npx("grid"), fake.environ)
    assert len(fake.calls) == 1


@pytest.mark.children
async def test_without_the_registry_npms_own_cache_will_do(fake):
    fake.publish(manifest())
    unreachable = 'if "npm_config_offline" not in os.environ:\n    print("npm error code EAI_AGAIN")\n    sys.exit(1)\n'
    fake.program("npm", FAKE_NPM.replace('if "--"', f'{unreachable}if "--"', 1))
    assert (await prepare(npx("grid"), fake.environ)).package == "grid@1.2.3"
    assert len(fake.calls) == 2


# ---- a folder's dependencies ----


@pytest.fixture
def grid(fake, tmp_path):
    """A package's folder that depends on `maze`, which is not installed."""
    fake.publish(manifest("maze"))
    (fake.root / "dependencies").write_text('["maze"]')
    folder = write_package(tmp_path / "grid", manifest(dependencies={"maze": "^1"}))
    (folder / "package-lock.json").write_text("{}")
    return folder


def commands(fake):
    return [call[0] for call in fake.calls]


@pytest.mark.children
async def test_a_folders_dependencies_are_installed_once_from_its_lock(fake, grid):
    first = await prepare(folder_spec(grid), fake.environ)
    assert await prepare(folder_spec(grid), fake.environ) == first
    assert first.args == (str(grid / "cli.js"),)
    assert commands(fake) == ["ci"]


@pytest.mark.children
async def test_a_folder_without_a_lock_does_not_get_one(fake, grid):
    (grid / "package-lock.json").unlink()
    await prepare(folder_spec(grid), fake.environ)
    await prepare(folder_spec(grid), fake.environ)
    assert [call[:2] for call in fake.calls] == [["install", "--no-package-lock"]]


@pytest.mark.children
async def test_a_lock_newer_than_what_is_there_is_installed_again(fake, grid):
    await prepare(folder_spec(grid), fake.environ)
    later = (grid / "node_modules" / ".package-lock.json").stat().st_mtime + 1
    os.utime(grid / "package-lock.json", (later, later))
    await prepare(folder_spec(grid), fake.environ)
    assert commands(fake) == ["ci", "ci"]


@pytest.mark.children
async def test_a_folder_whose_npm_was_cut_off_is_installed_again(fake, grid):
    (grid / "package-lock.json").unlink()
    with pytest.raises(PackageError) as caught:
        await prepare(folder_spec(grid), {**fake.environ, "NPM_FAKE_FAILS": "npm error cut off"})
    assert str(caught.value) == (
        f"environment grid: npm could not install what {grid} depends on (exit status 3): "
        "check the package's name and version, and that the registry can be reached\n"
        "  npm error cut off"
    )
    assert (grid / "node_modules" / "maze").exists()
    await prepare(folder_spec(grid), fake.environ)
    await prepare(folder_spec(grid), fake.environ)
    assert commands(fake) == ["install", "install"]


@pytest.mark.children
async def test_processes_that_prepare_the_same_folder_share_one_install(fake, grid):
    link = grid.with_name("link")
    link.symlink_to(grid)
    processes = [preparing(fake.environ, str(folder)) for folder in (grid, link)]
    assert [printed(process) for process in processes] == ["grid@1.2.3"] * 2
    assert commands(fake) == ["ci"]


async def test_dependencies_of_a_folder_above_count_as_installed(fake, grid):
    (grid / "package-lock.json").unlink()
    write_package(grid.parent / "node_modules" / "maze", manifest("maze"))
    await prepare(folder_spec(grid), fake.environ)
    assert fake.calls == []


async def test_what_another_package_manager_installed_is_left_alone(fake, grid):
    (grid / "package-lock.json").unlink()
    write_package(grid / "node_modules" / "maze", manifest("maze"))
    (grid / "pnpm-lock.yaml").write_text("")
    await prepare(folder_spec(grid), fake.environ)
    assert fake.calls == []


# ---- the real npm ----

HANDSHAKE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}},
}


def answer(spec, tmp_path):
    """What the server of a prepared spec says to a handshake, and the processes it has started."""
    launch = spec.launch(seed=1, session_id="s", workspace=str(tmp_path), environ=os.environ)
    with subprocess.Popen(
        launch.argv, env=launch.env, cwd=launch.cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        server.stdin.write(json.dumps(HANDSHAKE) + "\n")
        server.stdin.flush()
        said = json.loads(server.stdout.readline())
        children = children_of(server.pid)
        server.stdin.close()
        server.wait(10)
    return said["result"], children


@pytest.fixture
def real(tmp_path):
    """muxsim's environment with a cache of its own; npm keeps the user's, so a second run is quick."""
    return {**os.environ, "MUXSIM_CACHE": str(tmp_path / "cache")}


@pytest.mark.network
@pytest.mark.children
async def test_a_registry_package_runs_as_one_process_and_starts_without_the_registry(real, tmp_path):
    spec = npx("-y", MEMORY, env={"MEMORY_FILE_PATH": "{workspace}/memory.jsonl"})
    with trio.fail_after(120):
        first = await prepare(spec, real)
    assert first.package.startswith(f"{MEMORY}@20")
    said, children = answer(first, tmp_path)
    assert said["serverInfo"]["name"] == "memory-server"
    assert children == []
    unreachable = {**real, "npm_config_registry": "http://127.0.0.1:9", "npm_config_cache": str(tmp_path / "empty")}
    with trio.fail_after(60):
        assert await prepare(spec, unreachable) == first


@pytest.mark.network
@pytest.mark.children
async def test_two_processes_install_a_registry_package_at_once(real):
    processes = [preparing(real, "npx", MEMORY) for _ in range(2)]
    labels = {printed(process) for process in processes}
    assert len(labels) == 1
    assert labels.pop().startswith(f"{MEMORY}@20")


@pytest.mark.network
@pytest.mark.children
async def test_an_install_that_was_killed_midway_is_made_anew(real, tmp_path):
    process = preparing(real, "npx", MEMORY)
    cache = tmp_path / "cache" / "environments"
    await until(lambda: any(cache.glob("*/*/npm/node_modules/*")))
    (npm,) = children_of(process.pid)
    os.killpg(npm, signal.SIGKILL)
    process.kill()
    process.communicate()
    with trio.fail_after(120):
        spec = await prepare(npx(MEMORY), real)
    assert spec.package.startswith(f"{MEMORY}@20")
    (folder,) = installed(tmp_path / "cache")
    assert damage(folder) is None


def children_of(pid):
    """The processes that any thread of the process has started."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]


@pytest.mark.network
@pytest.mark.children
async def test_a_registry_package_is_repaired_and_installed_from_npms_cache_alone(real, tmp_path):
    """npm's own cache is filled by the first install; a part of it is spoilt, the registry gone, ours damaged."""
    here = {**real, "npm_config_cache": str(tmp_path / "npm")}
    with trio.fail_after(240):
        first = await prepare(npx(MEMORY), here)
        for content in list((tmp_path / "npm" / "_cacache" / "content-v2").rglob("*"))[:40]:
            if content.is_file():
                content.write_bytes(b"spoilt")
        os.unlink(first.args[0])
        assert (await prepare(npx(MEMORY), here)).package == first.package
        # Not by another registry's address, under which npm has nothing in its cache.
        nowhere = dict.fromkeys(("npm_config_proxy", "npm_config_https_proxy"), "http://127.0.0.1:9")
        unreachable = {**here, **nowhere, "npm_config_noproxy": "", "npm_config_fetch_retries": "0"}
        again = await prepare(npx(MEMORY), {**unreachable, "MUXSIM_CACHE": str(tmp_path / "another")})
    assert again.package == first.package
    said, _ = answer(again, tmp_path)
    assert said["serverInfo"]["name"] == "memory-server"


@pytest.mark.network
@pytest.mark.children
@pytest.mark.parametrize(
    ("package", "extra", "telling"),
    [
        ("@modelcontextprotocol/server-memory@99", {}, "npm error code ETARGET"),
        (MEMORY, {"npm_config_registry": "http://127.0.0.1:9"}, "npm error code ECONNREFUSED"),
    ],
)
async def test_what_the_registry_cannot_give_is_told_in_npms_words(package, extra, telling, real, tmp_path):
    environ = {**real, "npm_config_fetch_retries": "0", **extra}
    if extra:
        environ["npm_config_cache"] = str(tmp_path / "empty")
    with pytest.raises(PackageError) as caught, trio.fail_after(60):
        await prepare(npx(package), environ)
    assert caught.value.message.startswith(
        f"environment grid: npm could not install {package} (exit status 1): "
        "check the package's name and version, and that the registry can be reached"
    )
    assert caught.value.output[0] == telling


@pytest.mark.network
@pytest.mark.children
async def test_a_folders_dependencies_come_from_the_registry_once(real, tmp_path):
    folder = write_package(tmp_path / "grid", manifest(dependencies={"ms": "2.1.3"}))
    (folder / "cli.js").write_text("require('ms')\n")
    with trio.fail_after(120):
        spec = await prepare(folder_spec(folder), real)
        offline = {**real, "PATH": str(Path(spec.command).parent), "npm_config_offline": "true"}
        installed_at = (folder / "node_modules").stat().st_mtime_ns
        assert await prepare(folder_spec(folder), offline) == spec
    assert (folder / "node_modules").stat().st_mtime_ns == installed_at
    assert not (folder / "package-lock.json").exists()
    assert (await trio.run_process([spec.command, *spec.args])).returncode == 0
