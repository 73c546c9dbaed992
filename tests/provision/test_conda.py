"""Conda environments, made by py-rattler out of a channel of this machine's own Python (tests/conda_channel.py)."""

import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from conda_channel import PYTHON, Channel, File, text
from harness import alive

from muxsim.errors import PackageError
from muxsim.provision.conda_records import shown_channel
from muxsim.provision.conda_wishes import SUBDIR, conda_wishes, name_of
from muxsim.provision.packages import prepare, wanted_of
from muxsim.provision.preflight import problems
from muxsim.spec import Dependencies, EnvSpec, Pins

LIMIT = 300  # s, on a machine that is busy with others


def test_no_part_of_the_extra_is_imported_before_an_environment_wants_it():
    code = "import sys, muxsim.provision.packages; print({'rattler', 'yaml'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


@pytest.mark.parametrize("module", ["rattler", "yaml"])
async def test_where_the_extra_is_missing_one_line_says_how_to_get_it(monkeypatch, tmp_path, module):
    (tmp_path / "environment.yml").write_text("channels: [x]")
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "muxsim.provision.environment_yml", raising=False)
    spec = wanting(conda_file=str(tmp_path / "environment.yml"))
    with pytest.raises(PackageError) as error:
        await prepare(spec, {**os.environ, "MUXSIM_CACHE": str(tmp_path)})
    assert "pip install 'mcp-muxsim[conda]'" in str(error.value)
    assert "\n" not in str(error.value)
    if module == "rattler":
        assert problems([spec], os.environ) == [
            "environment 'lander': its conda packages need rattler: pip install 'mcp-muxsim[conda]'"
        ]


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("numpy", "numpy"),
        ("numpy>=1.26,<3", "numpy"),
        ("conda-forge::ruamel.yaml 0.18", "ruamel.yaml"),
        ("https://example.org/mine/linux-64::Box2D-py[build=py*]", "box2d-py"),
        ("*", ""),
    ],
)
def test_the_package_of_a_spec_is_known_without_a_solver(spec, name):
    assert name_of(spec) == name


@pytest.mark.parametrize(
    ("channel", "shown"),
    [
        ("conda-forge", "conda-forge"),
        ("https://conda.anaconda.org/conda-forge/", "https://conda.anaconda.org/conda-forge"),
        ("https://me:secret@example.org/mine?a=secret", "https://example.org/mine"),
        ("https://example.org/t/s3same/mine", "https://example.org/mine"),
        ("file:///srv/channel", "file:///srv/channel"),
    ],
)
def test_a_channel_is_shown_and_locked_without_what_opens_it(channel, shown):
    assert shown_channel(channel) == shown


def wanting(command="python", **dependencies):
    return EnvSpec(name="lander", command=command, cwd="/", dependencies=Dependencies(**dependencies))


def test_python_is_asked_for_where_something_is_to_run_on_it_and_nowhere_else():
    def specs(command="python", **more):
        return conda_wishes(wanting(command, conda=("greeting",), channels=("x",), **more)).specs

    assert specs() == ("greeting", "python")
    assert specs("greeting", python="3.12") == ("greeting", "python=3.12")
    assert specs("npx") == ("greeting",)
    assert specs("npx", requirements=("numpy",)) == ("greeting", "python")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be used: [Errno 2] No such file or directory"),
        ("dependencies: [python]", "names no channels: write channels, such as"),
        ("dependencies: python", "cannot be used: dependencies has to be a list, not 'python'"),
        ("channels: [a]\nplatforms: [win-64]", "is for win-64, and this machine is linux-"),
    ],
)
def test_what_is_wrong_with_an_environment_yml_is_said_with_its_name(tmp_path, content, said):
    file = tmp_path / "environment.yml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(PackageError) as error:
        conda_wishes(wanting(conda_file=str(file)))
    assert str(file) in error.value.message
    assert said in error.value.message


def test_an_interpreter_of_its_own_and_another_one_are_a_contradiction():
    with pytest.raises(PackageError, match="conda brings its own Python"):
        conda_wishes(wanting(conda=("numpy",), channels=("x",), python="/usr/bin/python3"))


# ---- with py-rattler


class Made:
    """Environments in a cache, which all tests of this file share: an interpreter is unpacked once."""

    def __init__(self, cache):
        self.cache = cache
        self.environ = {**os.environ, "MUXSIM_CACHE": str(cache)}

    async def __call__(self, spec):
        with trio.fail_after(LIMIT):
            return await prepare(spec, self.environ)

    async def fault(self, spec):
        with pytest.raises(PackageError) as error:
            await self(spec)
        return str(error.value)

    def homes(self):
        return {path.name for path in (self.cache / "environments").iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    yield Made(cache)
    subprocess.run(["chmod", "-R", "u+w", cache], check=True)
    subprocess.run(["rm", "-r", cache], check=True)


def run(spec, *args):
    launch = spec.launch(seed=0, session_id="x", workspace="/", environ=os.environ)
    return subprocess.check_output([*launch.argv, *args], env=launch.env, text=True).strip()


def output(*argv):
    return subprocess.check_output(argv, text=True)


def is_there(path):
    return os.path.exists(path)


def pins_of(spec, kind="conda"):
    manifest = json.loads((Path(spec.installed[0]).parent / "manifest.json").read_text())
    return manifest["pins"][kind]


@pytest.mark.children
async def test_a_command_of_a_conda_package_runs_in_its_environment(made, conda_channel):
    ready = await made(wanting("greeting", conda=("greeting",), channels=(conda_channel.url,)))
    (prefix,) = ready.installed
    assert run(ready) == f"2.0 {prefix}"
    assert ready.command == f"{prefix}/bin/python"
    assert ready.env["PATH"].startswith(f"{prefix}/bin:")
    assert ready.env["CONDA_PREFIX"] == prefix
    assert not os.access(f"{prefix}/lib", os.W_OK) or os.getuid() == 0
    # Where an interpreter was built is written in its files, and is made to be where it is now.
    where = "import greeting, sysconfig; print(sysconfig.get_config_var('prefix'), greeting.__cached__); print(MAPS)"
    where = where.replace("MAPS", "*{line.split()[-1] for line in open('/proc/self/maps') if 'libpython' in line}")
    found, compiled, *libraries = run(replace(ready, args=()), "-c", where).split()
    assert found == prefix
    assert all(library.startswith(prefix) for library in libraries)
    assert is_there(compiled)


@pytest.mark.children
async def test_an_environment_yml_has_its_channels_specs_and_variables(made, conda_channel, tmp_path):
    file = tmp_path / "environment.yml"
    file.write_text(
        f"channels: [{conda_channel.folder}]\nname: lander\nprefix: /opt/lander\n"
        "dependencies: [greeting=1.0]\nvariables: {SCALE: '{seed}', CONDA_DEFAULT_ENV: lander}\n"
    )
    ready = await made(wanting(conda_file=str(file), python=PYTHON))
    launch = ready.launch(seed=7, session_id="x", workspace="/", environ=os.environ)
    assert (launch.env["SCALE"], launch.env["CONDA_DEFAULT_ENV"]) == ("{seed}", "lander")
    assert run(ready, "-c", "import greeting, sys; greeting.main(); print(sys.version)").startswith("1.0 ")
    file.write_text(file.read_text().replace("1.0", "2.0"))
    again = await made(wanting(conda_file=str(file), python=PYTHON))
    assert run(again, "-m", "greeting") == ""
    assert run(again, "-c", "import greeting; greeting.main()").startswith("2.0 ")
    assert again.installed != ready.installed


@pytest.mark.children
@pytest.mark.parametrize(
    ("specs", "said"),
    [
        (("greeting", "nosuch>=1"), "no channel of CHANNEL has nosuch>=1 for linux-"),
        (("greeting=7",), "no channel of CHANNEL has greeting=7 for linux-"),
        (("greeting", "python=3.9"), "no channel of CHANNEL has python=3.9 for linux-"),
        (("greeting=1", "greeting=2"), "greeting=1, greeting=2, python cannot be had together"),
        (("greeting[[",), "'greeting[[' is no spec of a package: "),
    ],
)
async def test_a_spec_that_cannot_be_had_is_named(made, conda_channel, specs, said):
    fault = await made.fault(wanting(conda=specs, channels=(conda_channel.url,)))
    assert fault.startswith("environment lander: conda could not install ")
    assert said.replace("CHANNEL", conda_channel.url) in fault.splitlines()[0]


@pytest.mark.children
async def test_a_channel_that_is_none_is_named(made, tmp_path):
    fault = await made.fault(wanting(conda=("python",), channels=(tmp_path.as_uri(),)))
    assert f"could not find subdir 'noarch' in channel '{tmp_path.as_uri()}/'" in fault


def tools(folder):
    """A channel of what needs no interpreter, which would be much to copy each time."""
    channel = Channel(folder)
    for version in ("1.0", "2.0"):
        says = text(f'#!/bin/sh\necho "{version} $CONDA_PREFIX"\n', executable=True)
        channel.add("tool", version, {"bin/tool": says, "share/data": text("data")})
    return channel.index()


@pytest.fixture(scope="module")
def tool_channel(tmp_path_factory):
    return tools(tmp_path_factory.mktemp("tools") / "channel")


def wanting_tool(channel, *specs, **more):
    wanted = Dependencies(conda=specs or ("tool",), channels=(channel,), **more)
    return EnvSpec(name="tool", command="/bin/sh", args=("-c", "tool"), dependencies=wanted)


@pytest.mark.children
async def test_a_damaged_one_is_made_anew_as_it_was_and_without_its_channel(made, tmp_path):
    channel = tools(tmp_path / "channel")
    spec = wanting_tool(channel.url, "tool<2")
    before = await made(spec)
    assert run(before) == f"1.0 {before.installed[0]}"
    shutil.rmtree(channel.folder)
    for harm in (
        lambda prefix: os.unlink(f"{prefix}/bin/tool"),
        lambda prefix: os.truncate(f"{prefix}/share/data", 3),
        lambda prefix: os.unlink(f"{prefix}/conda-meta/tool-1.0-0.json"),
        lambda prefix: os.unlink(f"{prefix}/muxsim-conda.json"),
    ):
        harm(before.installed[0])
        after = await made(spec)
        assert after.installed != before.installed
        assert run(after) == f"1.0 {after.installed[0]}"
        before = after
    assert await made(spec) == before


@pytest.mark.children
async def test_a_package_that_is_torn_in_the_cache_is_unpacked_again(made, tool_channel):
    await made(wanting_tool(tool_channel.url))
    for file in made.cache.glob("conda/pkgs/tool-2.0-0/share/data"):
        file.write_text("torn")
    ready = await made(wanting_tool(tool_channel.url, "tool>1"))
    with open(f"{ready.installed[0]}/share/data") as file:  # noqa: ASYNC230 - four bytes
        assert file.read() == "data"


def locked(url, pins, spec="tool"):
    """What a lock says that was written for this spec."""
    return (Pins("conda", (spec, url, SUBDIR), pins),)


@pytest.mark.children
async def test_a_lock_gives_the_very_packages_without_solving(made, tool_channel):
    url = tool_channel.url
    pins = pins_of(await made(wanting_tool(url, "tool<2")))
    assert run(await made(wanting_tool(url, pins=locked(url, pins)))).startswith("1.0 ")
    # They name the channel as it was written, and each package by the sums of its archive.
    (pin,) = json.loads(pins)
    assert (pin["name"], pin["channel"], len(pin["sha256"]), len(pin["md5"])) == ("tool", url, 64, 32)
    # What the lock has is not what is asked for.
    fault = await made.fault(wanting_tool(url, "tool>=2", pins=locked(url, pins, "tool>=2")))
    assert "the lock has nothing that tool>=2 asks for" in fault
    # What the channel has is not what was locked: one sum of it is another's.
    false = json.dumps([{**pin, "sha256": pin["sha256"][::-1]}])
    fault = await made.fault(wanting_tool(url, pins=locked(url, false)))
    assert "is not what was asked for: its sha256 is not " in fault
    for wrong in ({"sha256": "no sum"}, {"fn": "../tool.conda"}, {"name": None}):
        fault = await made.fault(wanting_tool(url, pins=locked(url, json.dumps([pin | wrong]))))
        assert "what the lock says of conda cannot be read" in fault
    for wrong in ({"version": "1!!0"}, {"channel": "::"}):
        fault = await made.fault(wanting_tool(url, pins=locked(url, json.dumps([pin | wrong]))))
        assert "what the lock says of tool cannot be used" in fault
    fault = await made.fault(wanting_tool(url, pins=locked(url, "[{}]")))
    assert "what the lock says of conda cannot be read" in fault


@pytest.mark.children
async def test_what_packages_set_when_they_are_activated_sessions_find_set(made, tmp_path):
    channel = Channel(tmp_path / "channel")
    script = 'export TOOL_HOME="$CONDA_PREFIX/share" PATH="$CONDA_PREFIX/more:$PATH"\necho {seed} noise; unset HOME\n'
    files = {
        "etc/conda/activate.d/tool.sh": text(script),
        "etc/conda/env_vars.d/tool.json": text('{"TOOL_MODE": "{seed}"}'),
        "bin/.tool-post-link.sh": text('ln -s "$PREFIX" "$PREFIX/linked"\n', executable=True),
        "bin/tool": text('#!/bin/sh\necho "$TOOL_MODE $TOOL_HOME"\n', executable=True),
        "bin/other": File(link="tool"),
    }
    channel.add("tool", "1.0", files)
    prefixed = EnvSpec(
        name="tool",
        command="/bin/sh",
        args=("-c", "tool; other; echo $TOOL_HOME $MINE"),
        env={"MINE": "mine", "TOOL_MODE": "my own"},
        dependencies=Dependencies(conda=("tool",), channels=(channel.index().url,)),
    )
    ready = await made(prefixed)
    (prefix,) = ready.installed
    assert run(ready) == f"my own {prefix}/share\n" * 2 + f"{prefix}/share mine"
    assert ready.env["PATH"].split(":")[:2] == [f"{prefix}/bin", f"{prefix}/more"]
    assert "HOME" not in ready.env
    assert os.readlink(f"{prefix}/linked") == prefix
    plain = await made(replace(prefixed, env={}))
    assert run(plain).startswith(f"{{seed}} {prefix}/share\n")


@pytest.mark.children
async def test_an_install_that_is_cut_off_leaves_no_process_and_no_half_environment(made, tmp_path, gate):
    channel = Channel(tmp_path / "channel")
    began = tmp_path / "began"
    os.mkfifo(began)
    script = f'echo $$ > "{began}"; read line < "{gate.path}"\n'
    channel.add("slow", "1.0", {"bin/.slow-post-link.sh": text(script, executable=True)})
    spec = wanting("/bin/true", conda=("slow",), channels=(channel.index().url,))
    homes = made.homes()
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made, spec)
            pid = int(await trio.to_thread.run_sync(began.read_text))
            nursery.cancel_scope.cancel()
    assert not alive(pid)
    (home,) = made.homes() - homes
    left = {path.name for path in (made.cache / "environments" / home).iterdir()}
    assert not left - {"lock", "used", "build.log"}


@contextlib.contextmanager
def over_http(folder):
    """A channel's folder as a server on this machine has it; its URL."""
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def translate_path(self, path):
        return super().translate_path(path.removeprefix("/t/s3same"))


@pytest.mark.children
async def test_where_no_channel_can_be_reached_what_was_fetched_before_will_do(made, tool_channel):
    with over_http(tool_channel.folder) as url:
        assert run(await made(wanting_tool(url))).startswith("2.0 ")
    # Another environment of the same packages, and one of those that nobody has fetched from there.
    assert run(await made(wanting_tool(url, "tool>1"))).startswith("2.0 ")
    fault = await made.fault(wanting_tool(url, "tool<2"))
    assert "Connection refused" in fault
    assert "check the package's name and version, and that the conda channels can be reached" in fault


@pytest.mark.children
async def test_what_opens_a_channel_is_told_to_nobody(made, tool_channel):
    with over_http(tool_channel.folder) as url:
        spec = wanting_tool(url.replace("127", "me:s3same@127") + "/t/s3same")
        ready = await made(spec)
        fault = await made.fault(replace(spec, dependencies=replace(spec.dependencies, conda=("no-tool",))))
    assert json.loads(pins_of(ready))[0]["channel"] == url
    assert f"no channel of {url} has no-tool" in fault
    with pytest.raises(subprocess.CalledProcessError):  # grep has found nothing
        output("grep", "-rl", "s3same", made.cache / "environments")


# ---- together with uv and npm


@pytest.mark.children
async def test_what_a_script_says_of_its_python_conda_heeds(made, conda_channel, tmp_path):
    script = tmp_path / "server.py"
    script.write_text('# /// script\n# requires-python = ">=3.99"\n# ///\n')
    wanted = Dependencies(conda=("greeting",), channels=(conda_channel.url,), script=str(script))
    fault = await made.fault(EnvSpec(name="lander", command="python", args=(str(script),), dependencies=wanted))
    assert "has python>=3.99 for linux-" in fault


@pytest.mark.children
@pytest.mark.network
async def test_a_pip_section_and_requirements_go_into_the_same_environment(made, conda_channel, tmp_path):
    (tmp_path / "more.txt").write_text("iniconfig<2\n")
    file = tmp_path / "environment.yml"
    content = f"channels: [{conda_channel.url}]\ndependencies: [greeting, pip: [six<1.17, -r more.txt]]\n"
    file.write_text(content)
    ready = await made(wanting(conda_file=str(file), requirements=("pluggy>=1",)))
    versions = "from importlib.metadata import version as v; print(*map(v, ['six', 'iniconfig']))"
    assert run(ready, "-c", f"import pluggy; {versions}") == "1.16.0 1.1.1"
    # What conda has brought is pinned by conda, and nothing that an index would know.
    assert [line.partition("==")[0] for line in pins_of(ready, "uv").splitlines()] == ["iniconfig", "pluggy", "six"]
    assert await made(wanting(conda_file=str(file), requirements=("pluggy>=1",))) == ready
    # What a pip section includes is looked into, too.
    (tmp_path / "more.txt").write_text("iniconfig>=2\n")
    again = await made(wanting(conda_file=str(file), requirements=("pluggy>=1",)))
    assert run(again, "-c", versions).startswith("1.16.0 2.")
    file.write_text(content.replace("six<1.17", "no-such-package-of-muxsim>=7"))
    fault = await made.fault(wanting(conda_file=str(file)))
    assert "uv could not install no-such-package-of-muxsim>=7" in fault


@pytest.mark.children
@pytest.mark.network
async def test_npx_in_a_conda_environment_is_of_its_node(made, tmp_path):
    channel = Channel(tmp_path / "channel")
    channel.add_node()
    spec = EnvSpec(
        name="semver",
        command="npx",
        args=("-y", "semver@7", "1.2.3"),
        dependencies=Dependencies(conda=("nodejs",), channels=(channel.index().url,)),
    )
    ready = await made(spec)
    (prefix,) = ready.installed
    assert ready.command == f"{prefix}/bin/node"
    assert ready.args[0].startswith(prefix)
    assert run(ready) == "1.2.3"
    assert not is_there(f"{prefix}/bin/python")


@pytest.mark.children
async def test_a_folder_of_npms_in_a_conda_environment_gets_what_it_needs_from_its_npm(made, tmp_path, monkeypatch):
    channel = Channel(tmp_path / "channel")
    channel.add_node()
    package = tmp_path / "package"
    (package / "more").mkdir(parents=True)
    (package / "more" / "package.json").write_text('{"name": "more", "version": "1.0.0"}')
    (package / "more" / "index.js").write_text("module.exports = 'had'")
    (package / "run.js").write_text("console.log(require('more'), process.execPath)")
    (package / "package.json").write_text(
        '{"name": "mine", "version": "1.0.0", "bin": "run.js", "dependencies": {"more": "file:./more"}}'
    )
    wanted = Dependencies(conda=("nodejs",), channels=(channel.index().url,))
    spec = EnvSpec(name="mine", command=str(package), cwd="/", dependencies=wanted)
    # As on a machine without node: nothing but the environment's own may be asked.
    (tmp_path / "bin").mkdir()
    for name in ("bash", "sh", "env"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    monkeypatch.setitem(made.environ, "PATH", str(tmp_path / "bin"))
    ready = await made(spec)
    (prefix,) = ready.installed
    assert (ready.command, ready.args) == (f"{prefix}/bin/node", (str(package / "run.js"),))
    assert run(ready).startswith("had ")
    shutil.rmtree(package / "node_modules")
    assert run(await made(spec)).startswith("had ")
    wanted_now = await wanted_of(spec, made.environ)
    pins = (Pins("conda", wanted_now.parts[0][0].terms, pins_of(ready)),)
    locked = replace(spec, dependencies=replace(wanted, pins=pins, locked=True))
    assert run(await made(locked)).startswith("had ")
