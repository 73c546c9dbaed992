"""`uvx`: most of these run a fake uv, which installs a script; the `network` one the real uv, where there is one."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from muxsim.errors import PackageError
from muxsim.provision.as_it_stands import AsItStands
from muxsim.provision.packages import prepare
from muxsim.provision.store import homes
from muxsim.provision.uvx import UvxCall, parse_uvx
from muxsim.spec import Dependencies, EnvSpec, Pins

FAKE_UV = f"""#!{sys.executable}
import json, os, pathlib, re, sys, venv
fake = pathlib.Path(os.environ["UV_FAKE"])
with open(fake / "calls", "a") as calls:
    calls.write(json.dumps([sys.argv[1:], os.environ.get("UV_OFFLINE")]) + chr(10))
if os.environ.get("UV_FAKE_FAILS") and not (os.environ.get("UV_FAKE_OFFLINE") and "UV_OFFLINE" in os.environ):
    sys.stderr.write(os.environ["UV_FAKE_FAILS"])
    sys.exit(2)
if sys.argv[1] == "venv":
    venv.create(sys.argv[-1], symlinks=True)
    sys.exit()
python = pathlib.Path(sys.argv[sys.argv.index("--python") + 1])
(packages,) = (python.parent.parent / "lib").glob("*/site-packages")
for word in sys.argv[sys.argv.index("--python") + 2:]:
    if match := re.fullmatch("([a-z]+)([=<>].*)?", word):
        version = os.environ.get("UV_FAKE_VERSION", "1.2")
        info = packages / f"{{match[1]}}-{{version}}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {{match[1]}}{{chr(10)}}Version: {{version}}{{chr(10)}}")
        entry = f"{{match[1]}} = {{match[1]}}:main"
        (info / "entry_points.txt").write_text(f"[console_scripts]{{chr(10)}}{{entry}}{{chr(10)}}")
        (info / "RECORD").write_text(f"{{match[1]}}.py,,{{chr(10)}}")
        (packages / f"{{match[1]}}.py").write_text(os.environ.get("UV_FAKE_CODE", "def main(): pass"))
        script = python.parent / match[1]
        script.write_text(f"#!{{python}}{{chr(10)}}import sys; print('played', sys.argv[1:])")
        script.chmod(0o755)
"""


class Fake:
    """A PATH with a fake uv, and an environment for `prepare` that leads to it."""

    def __init__(self, root):
        self.root = root
        (root / "bin").mkdir()
        uv = root / "bin" / "uv"
        uv.write_text(FAKE_UV)
        uv.chmod(0o755)
        self.environ = {"PATH": str(root / "bin"), "MUXSIM_CACHE": str(root / "cache"), "UV_FAKE": str(root)}

    @property
    def calls(self):
        calls = self.root / "calls"
        return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    @property
    def cached(self):
        """The folders of environments, whole or not."""
        store = homes(self.root / "cache" / "environments")
        return sorted(folder for home in store for folder in home.folder.iterdir() if folder.is_dir())


@pytest.fixture
def fake(tmp_path):
    return Fake(tmp_path)


def uvx(*args):
    return EnvSpec(name="grid", command="uvx", args=args, cwd="/")


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("grid", UvxCall("grid", "grid", ())),
        ("grid@1.2 --seed 7", UvxCall("grid==1.2", "grid", ("--seed", "7"))),
        ("-q grid@latest -q", UvxCall("grid", "grid", ("-q",))),
        ("grid[cli]@1.2", UvxCall("grid[cli]==1.2", "grid", ())),
        ("--from grid==1 play x", UvxCall("grid==1", "play", ("x",))),
        ("--from=git+https://h/grid@v1 play", UvxCall("git+https://h/grid@v1", "play", ())),
        ("--with numpy --python=3.12 grid", UvxCall("grid", "grid", (), (), ("numpy",), "3.12")),
        (
            "--index-url=http://i --offline -- grid",
            UvxCall("grid", "grid", (), ("--index-url", "http://i", "--offline")),
        ),
    ],
)
def test_a_uvx_command_line_is_read_as_uvx_reads_it(line, call):
    assert parse_uvx(line.split()) == call


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("", "needs a command"),
        ("--from grid", "needs a command"),
    ],
)
def test_what_a_uvx_command_line_lacks_is_told(line, word):
    with pytest.raises(ValueError, match=word):
        parse_uvx(line.split())


@pytest.mark.parametrize(
    "line",
    [
        *("--env-file x grid", "--env-file=x grid", "--from ./grid play", "git+https://h/grid", "--with-editable . g"),
        "--with ./more grid",
    ],
)
def test_what_only_uvx_understands_is_left_to_uvx(line):
    with pytest.raises(AsItStands, match="uvx"):
        parse_uvx(line.split())


@pytest.mark.children
async def test_a_tool_is_installed_once_and_run_by_its_own_interpreter(fake):
    first = await prepare(uvx("grid@1.2", "--seed", "{seed}"), fake.environ)
    assert await prepare(uvx("grid@1.2", "--seed", "{seed}"), fake.environ) == first
    assert [call[0] for call, _ in fake.calls] == ["venv", "pip"]
    assert fake.calls[1][0][-1] == "grid==1.2"
    assert Path(first.command).name == "python"
    assert first.args[1:] == ("--seed", "{seed}")
    assert first.package == "grid==1.2"
    done = await trio.run_process([first.command, *first.args], capture_stdout=True)
    assert done.stdout == b"played ['--seed', '{seed}']\n"


@pytest.mark.children
async def test_other_commands_are_left_as_they_are(fake):
    spec = EnvSpec(name="grid", command="/bin/true")
    assert await prepare(spec, fake.environ) is spec


@pytest.mark.children
async def test_what_may_write_into_its_environment_has_one_of_its_own(fake):
    """Others, whose sessions have their own view of theirs, are not to find what it has left there."""
    usual, writes = uvx("grid"), replace(uvx("grid"), private=())
    assert (await prepare(usual, fake.environ)).installed == (await prepare(uvx("grid"), fake.environ)).installed
    assert (await prepare(writes, fake.environ)).installed != (await prepare(usual, fake.environ)).installed


@pytest.mark.children
async def test_tasks_that_prepare_the_same_tool_share_one_install(fake):
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(prepare, uvx("grid"), fake.environ)
    assert len(fake.calls) == 2


@pytest.mark.children
@pytest.mark.parametrize("how", ["cut off", "damaged"])
async def test_what_was_cut_off_or_is_damaged_is_made_anew(fake, how):
    first = await prepare(uvx("grid"), fake.environ)
    (before,) = fake.cached
    (before.with_name("manifest.json") if how == "cut off" else before / "pyvenv.cfg").unlink()
    again = await prepare(uvx("grid"), fake.environ)
    assert len(fake.calls) == 4
    (after,) = fake.cached
    assert [str(path).replace(str(after), str(before)) for path in again.args] == list(first.args)


@pytest.mark.children
async def test_a_damaged_tool_that_cannot_be_made_anew_is_told_and_kept(fake):
    await prepare(uvx("grid"), fake.environ)
    (folder,) = fake.cached
    (folder / "pyvenv.cfg").unlink()
    with pytest.raises(PackageError) as caught:
        await prepare(uvx("grid"), {**fake.environ, "UV_FAKE_FAILS": "error: no such package"})
    assert caught.value.message == (
        f"environment grid: {folder.parent} is damaged (pyvenv.cfg is missing), and cannot be made anew: "
        f"uv could not install a virtual environment of Python {sys.executable} (exit status 2): "
        "check the package's name and version, and that the package index can be reached; "
        f"all that was said is in {folder.parent}/build.log"
    )
    assert caught.value.output == ("error: no such package",)
    assert fake.cached == [folder]


@pytest.mark.children
async def test_without_the_index_uvs_own_cache_will_do(fake):
    environ = {**fake.environ, "UV_FAKE_FAILS": "error: Failed to fetch: `https://…`", "UV_FAKE_OFFLINE": "1"}
    await prepare(uvx("grid"), environ)
    assert [offline for _, offline in fake.calls] == [None, "1", None, "1"]


async def test_a_machine_without_uv_is_told_what_to_install(fake, monkeypatch):
    (fake.root / "bin" / "uv").unlink()
    monkeypatch.setitem(sys.modules, "uv", None)  # as without the extra
    with pytest.raises(PackageError, match=r'environment grid: uv is not on PATH: install "mcp-muxsim\[uv\]", or uv'):
        await prepare(uvx("grid"), fake.environ)


@pytest.mark.children
async def test_a_command_that_the_tool_has_not_is_told_with_those_it_has(fake):
    with pytest.raises(PackageError, match="grid has no command paly: use uvx --from with one of its own: grid"):
        await prepare(uvx("--from", "grid", "paly"), fake.environ)


def requiring(*lines, command="python", args=(), **fields):
    return EnvSpec(
        name="grid", command=command, args=args, cwd="/", dependencies=Dependencies(requirements=lines, **fields)
    )


@pytest.mark.children
async def test_what_requirements_ask_for_is_what_runs_the_script(fake, tmp_path):
    script = tmp_path / "server.py"
    script.write_text("import grid, sys; print(grid.__file__, sys.prefix)")
    spec = await prepare(requiring("grid>=1", args=(str(script),)), fake.environ)
    (folder,) = fake.cached
    assert (spec.command, spec.args, spec.installed) == (str(folder / "bin" / "python"), (str(script),), (str(folder),))
    assert spec.env["PATH"].split(os.pathsep)[0] == str(folder / "bin")
    said = (await trio.run_process([spec.command, *spec.args], capture_stdout=True)).stdout.decode()
    assert said.split() == [str(folder / "lib" / "python3.11" / "site-packages" / "grid.py"), str(folder)]


@pytest.mark.children
async def test_a_console_script_of_what_is_required_is_a_command(fake):
    spec = await prepare(requiring("grid", command="grid", args=("x",)), fake.environ)
    (folder,) = fake.cached
    assert (spec.command, spec.args) == (str(folder / "bin" / "python"), (str(folder / "bin" / "grid"), "x"))
    with pytest.raises(PackageError, match="grid has no command play: use one of what is installed: grid"):
        await prepare(requiring("grid", command="play"), fake.environ)


@pytest.mark.children
async def test_what_is_installed_in_another_version_than_was_asked_for_is_not_used(fake):
    with pytest.raises(PackageError, match=r"environment grid: grid<1 was asked for, and grid 1\.2 is installed"):
        await prepare(requiring("grid<1"), fake.environ)
    assert fake.cached == []
    locked = requiring(
        "grid<1", pins=(Pins("uv", ("grid<1", f"Python {sys.version_info[0]}.{sys.version_info[1]}"), "grid==1.2\n"),)
    )
    with pytest.raises(PackageError, match=r"grid 1\.2 is installed: the lock is out of date"):
        await prepare(locked, fake.environ)


@pytest.mark.children
@pytest.mark.parametrize("entry", ["command", "script"])
async def test_an_entry_that_cannot_be_imported_fails_its_environment_and_no_other(fake, tmp_path, entry):
    script = tmp_path / "server.py"
    script.write_text("import grid")
    args = {"args": (str(script),)} if entry == "script" else {"command": "grid"}
    broken = {**fake.environ, "UV_FAKE_CODE": "import nothing_like_it"}
    with pytest.raises(PackageError, match="No module named 'nothing_like_it'"):
        await prepare(requiring("grid", **args), broken)
    assert fake.cached == []
    await prepare(requiring("other"), fake.environ)


@pytest.mark.children
async def test_a_script_that_says_what_it_needs_is_read_when_it_starts(fake, tmp_path):
    script = tmp_path / "server.py"
    script.write_text("# /// script\n# dependencies = ['grid>=1']\n# ///\n")
    spec = EnvSpec(name="grid", command="python", args=(str(script),), dependencies=Dependencies(script=str(script)))
    await prepare(spec, fake.environ)
    assert fake.calls[-1][0][-1] == "grid>=1"
    script.write_text("# /// script\n# dependencies = ['grid>=1']\n# [tool.uv]\n# no-index = true\n# ///\n")
    with pytest.raises(PackageError, match="grid>=1 was asked for, and grid is not installed"):
        await prepare(spec, fake.environ)  # the fake reads no scripts
    assert fake.calls[-1][0][-2:] == ["-r", str(script)]
    script.write_text("# /// script\n# dependencies = 1\n# ///\n")
    with pytest.raises(PackageError, match=f"{script} cannot be read: its `# /// script` cannot be read"):
        await prepare(spec, fake.environ)


@pytest.mark.children
async def test_an_interpreter_that_is_gone_is_found_before_the_first_use(fake, tmp_path):
    python = tmp_path / "python3"
    python.symlink_to(sys.executable)
    spec = requiring("grid", python=str(python))
    await prepare(spec, fake.environ)
    (before,) = fake.cached
    (before / "bin" / "python").unlink()
    (before / "bin" / "python").symlink_to(tmp_path / "gone")
    await prepare(spec, fake.environ)
    (after,) = fake.cached
    assert before != after


@pytest.mark.network
@pytest.mark.children
async def test_a_tool_of_the_index_runs_and_starts_without_the_index(tmp_path):
    environ = {**os.environ, "MUXSIM_CACHE": str(tmp_path / "cache")}
    with trio.fail_after(120):
        spec = await prepare(uvx("cowsay@6.1", "-t", "moo"), environ)
    done = await trio.run_process([spec.command, *spec.args], capture_stdout=True)
    assert b"moo" in done.stdout
    unreachable = {**environ, "UV_INDEX_URL": "http://127.0.0.1:9", "UV_OFFLINE": "1"}
    with trio.fail_after(60):
        assert await prepare(uvx("cowsay@6.1", "-t", "moo"), unreachable) == spec
