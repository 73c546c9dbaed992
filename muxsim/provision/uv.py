"""Python environments made by uv: what a table or a script requires, and what `uvx` names."""

from __future__ import annotations

import os
import platform
import re
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio
from packaging.utils import canonicalize_name, canonicalize_version

from muxsim.errors import PackageError
from muxsim.provision.as_recorded import damaged, install_as_recorded
from muxsim.provision.conda_wishes import has_conda_python
from muxsim.provision.installer import Installer, Program
from muxsim.provision.interpreter import Interpreter, find_interpreter
from muxsim.provision.probe import Entry, probe
from muxsim.provision.provider import Found, Place
from muxsim.provision.requirements import failing, unmet
from muxsim.provision.secrets import without_secrets
from muxsim.provision.uvx import UvxCall, is_uvx
from muxsim.provision.wishes import Wishes, wishes_of
from muxsim.spec import EnvSpec, fixed, literal

KIND: Final = "uv"


def _of_the_extra() -> str | None:
    """The uv of ``mcp-muxsim[uv]``."""
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    try:
        return str(find_uv_bin())
    except FileNotFoundError:
        return None


UV: Final = Program(
    name="uv",
    needs=("uv",),
    get_it='install "mcp-muxsim[uv]", or uv (https://docs.astral.sh/uv)',
    installs="Python packages",
    source="package index",
    unreachable=re.compile(rb"(?i)error sending request|failed to fetch|could not connect|dns error|timed out"),
    offline={"UV_OFFLINE": "1"},
    elsewhere=_of_the_extra,
)

# Copies, so that a server that writes into its packages, or a torn file, harms neither uv's cache nor other
# environments (where the file system can, uv's copies share blocks). Compiled, since nobody can write there later.
_INSTALL: Final = ("pip", "install", "--link-mode", "copy", "--compile-bytecode")
_EXPORT: Final = ("export", "--frozen", "--no-dev", "--no-emit-project", "--quiet")
# What a lock is made by: hashes, and no word of where anything came from.
_COMPILE: Final = ("pip", "compile", "--generate-hashes", "--no-deps", "--no-header", "--no-annotate", "--quiet")
_AT: Final = " @ "
# A lock that is not empty, of what needs nothing of an index.
_NOTHING: Final = "# nothing of an index\n"
_NEEDS_PYTHON: Final = re.compile(r"current Python version \([^)]*\) does not satisfy Python(\S+)")
_QUIET: Final = {"UV_NO_PROGRESS": "1", "NO_COLOR": "1", "UV_LINK_MODE": "copy"}

# What the interpreter and the environment itself put beside the commands of packages.
_NOT_OF_A_PACKAGE: Final = re.compile(r"python[0-9.]*|activate.*|deactivate.*|pydoc.*|.*\.(bat|ps1)")
_RUNS_PYTHON: Final = re.compile(r"python(3(\.\d+)?)?")


class Uv:
    """Python packages, see `provider.Provider`."""

    program = UV

    def takes(self, spec: EnvSpec) -> bool:
        """Whether it has requirements, is a command line of uvx, or is run by a Python that conda brings."""
        wanted = spec.dependencies
        own = wanted.requirements or wanted.requirements_file or wanted.pyproject or wanted.script
        if wanted.has_conda:
            return bool(own) or is_uvx(spec.command) or has_conda_python(spec)
        return bool(own or wanted.python) or is_uvx(spec.command)

    async def part(self, spec: EnvSpec, tools: Installer) -> UvPart:
        """What it wants, with the interpreter that it will have."""
        wishes = wishes_of(spec)
        interpreter = None
        if not spec.dependencies.has_conda:
            interpreter = await find_interpreter(wishes.python, wishes.requires_python, tools)
        return UvPart(wishes, interpreter, spec.dependencies.pinned(KIND), _entry_of(spec, wishes.call))


@dataclass(frozen=True)
class UvPart:
    """The Python packages of one environment, see `provider.Part`."""

    wishes: Wishes
    interpreter: Interpreter | None
    """None where conda has one."""

    lock: str
    entry: Entry
    kind = KIND

    @property
    def asked(self) -> tuple[str, ...]:
        """The requirements."""
        return self.wishes.asked

    @property
    def terms(self) -> tuple[str, ...]:
        """The requirements, and the version of Python, on which it depends what of them holds."""
        files = filter(None, (one.term for one in self.wishes.paths))
        return (
            *self.asked,
            *map(without_secrets, files),
            *([] if self.interpreter is None else [self.interpreter.feature_version]),
        )

    @property
    def key(self) -> tuple[str, ...]:
        """Requirements, what files say, the lock, the interpreter and the platform."""
        # The machine is in it because packages hold compiled parts, and home folders are shared.
        place = (sysconfig.get_platform(), platform.machine(), *platform.libc_ver())
        own = () if self.interpreter is None else (self.interpreter.path, self.interpreter.version)
        return (*self.wishes.key, self.lock, *own, *place)

    async def fill(self, place: Place, before: str) -> None:
        """An environment, if conda has not made one, with the requirements in it."""
        if self.interpreter is None:
            await self._install(place, before)
            return
        await _make(place, self.interpreter.path)
        try:
            await self._install(place, before)
        except PackageError as error:
            other = _NEEDS_PYTHON.search(" ".join(error.output))
            if other is None or self.wishes.python:
                raise
            # As uvx does it: nobody has asked for this Python, and another one will do.
            await _make(place, other[1], "--clear")
            await self._install(place, before)

    async def _install(self, place: Place, before: str) -> None:
        inputs = (*self.wishes.inputs, *self.wishes.editable)
        if self.lock:
            # With what was asked for, which may have options of its own, and paths and addresses that no lock has.
            locked = ("--no-deps", "-r", _file(place, "locked", self.lock), *_at_commits(place, self.lock))
            await self._pip(place, *self.wishes.options, *locked, *inputs)
            return
        # One that is made anew stays at the versions that it had.
        kept = ("--constraints", _file(place, "before", before), *_at_commits(place, before)) if before else ()
        for project in self.wishes.locked:
            inputs += ("-r", await self._exported(place, project))
        await self._pip(place, *self.wishes.options, *kept, *inputs, when=bool(inputs))

    async def _pip(self, place: Place, *args: str, when: bool = True) -> None:
        cwd, what = self.wishes.folder or place.prefix, self.wishes.label

        built = [option for one in self.wishes.paths for option in one.refreshing()]

        async def pip(options: Iterable[str]) -> None:
            argv = (*_INSTALL, "--python", str(place.bin / "python"), *built, *options, *args)
            await place.tools.install(argv, cwd, place.lock, what=what, folders=_QUIET, culprit=self._culprit)

        if when:
            await install_as_recorded(place, pip)

    async def _exported(self, place: Place, project: str) -> str:
        """What the lock of a project says, as a file of requirements."""
        path = _file(place, "exported", "")
        args = (*_EXPORT, "--python", str(place.bin / "python"), "--project", project, "--output-file", path)
        await place.tools.install(args, place.prefix, place.lock, what=f"{project}/uv.lock", folders=_QUIET)
        return path

    def _culprit(self, output: str) -> str:
        return failing(self.asked, output)

    async def check(self, place: Place, *, thorough: bool) -> Found:
        """The installed packages: each as it was asked for, and the entry with what it imports."""
        entry = self.entry if thorough else Entry()
        told = await probe(place, entry, files=thorough)
        if fault := damaged(place, told):
            raise PackageError(fault)
        if told.fault:
            raise PackageError(f"{self.wishes.label} is installed, and {entry} cannot be imported: {told.fault}")
        if fault := unmet(self.asked, told.packages, told.markers):
            raise PackageError(fault + (": the lock is out of date" if self.lock else ""))
        return Found(told.packages, f"Python {told.python}")

    async def pins(self, place: Place, found: Found) -> str:
        """``name==version`` of each, or its commit; what came from elsewhere is asked for as it was."""
        elsewhere = (await probe(place, Entry())).elsewhere
        pinned = [
            f"{canonicalize_name(name)}=={version}\n"
            for name, version in sorted(found.packages.items())
            if name not in elsewhere
        ]
        commits = [
            f"{canonicalize_name(name)} @ {address}\n"
            for name, address in sorted(elsewhere.items())
            # With a password in it, it is for no lock, and without one of no use.
            if address and without_secrets(address) == address
        ]
        return "".join([*pinned, *commits]) or _NOTHING

    async def locked(self, place: Place, pins: str) -> str:
        """The pins with the hashes that the index has for them, the one that what was asked for names."""
        commits = "".join(f"{line}\n" for line in _commits_in(pins))
        pins = "".join(f"{line}\n" for line in _pins_in(pins))
        return (await self._hashed(place, pins) if pins else "") + commits or _NOTHING

    async def _hashed(self, place: Place, pins: str) -> str:
        path = _file(place, "hashed", "")
        inputs = self.wishes.inputs
        # A file of requirements may name the index to ask; a pyproject.toml says its packages, and no more.
        files = [f"-r {file}\n" for at, file in enumerate(inputs[1:]) if inputs[at] == "-r" and file.endswith(".txt")]
        wanted = _file(place, "pins", "".join(files) + pins)
        argv = (*_COMPILE, "--python", str(place.bin / "python"), *self.wishes.options, "--output-file", path, wanted)
        try:
            # From where paths in files of requirements go.
            cwd, what = self.wishes.folder or place.prefix, "the hashes of its packages"
            await place.tools.install(argv, cwd, place.lock, what=what, folders=_QUIET)
            return _pinned_alone(await trio.Path(path).read_text(encoding="utf-8"), pins)
        finally:
            for name in ("hashed", "pins"):
                await trio.Path(_path(place, name)).unlink(missing_ok=True)

    def resolved(self, spec: EnvSpec, place: Place) -> EnvSpec:
        """The spec whose command is the environment's own."""
        command, *first = map(literal, self._command_line(spec, place))
        args = spec.args if self.wishes.call is None else self.wishes.call.args
        package = spec.package if self.wishes.call is None else self.wishes.asked[0]
        return replace(spec, command=command, args=(*first, *args), package=package)

    def _command_line(self, spec: EnvSpec, place: Place) -> tuple[str, ...]:
        """What to execute: a Python script by its own interpreter, so it can be started as one; others as they are."""
        command = fixed(spec.command) if self.wishes.call is None else self.wishes.call.command
        if _RUNS_PYTHON.fullmatch(command):
            return (str(place.bin / "python"),)
        if "/" in command:
            return (command,)
        entry = place.bin / command
        if entry.is_file():
            return (str(place.bin / "python"), str(entry)) if _is_script(entry) else (str(entry),)
        if self.wishes.call is not None or not place.tools.has(command):
            there = ", ".join(_commands_in(place.bin)) or "it has none"
            raise PackageError(_no_such_command(self.wishes, command, there))
        return (command,)


def _pinned_alone(text: str, pins: str) -> str:
    """Of compiled requirements those that are pinned, with their hashes; what comes from elsewhere has an address.

    Raises PackageError if one that is pinned is not among them.
    """
    missing = {_parsed(pin): pin for pin in _pins_in(pins)}
    kept, lines = False, []
    for line in text.splitlines(keepends=True):
        if not line[0].isspace():
            kept = missing.pop(_parsed(line), "") != ""
        if kept:
            lines.append(line)
    if missing:
        raise PackageError(f"the package index has no hashes of {', '.join(missing.values())}, so it cannot be locked")
    return "".join(lines)


def _pins_in(text: str) -> list[str]:
    """The ``name==version`` of each, without its hashes."""
    pins = (line.rstrip("\\ ") for line in text.splitlines() if line and not line[0].isspace())
    return [line for line in pins if _AT not in line and not line.startswith("#")]


def _commits_in(text: str) -> list[str]:
    """The ``name @ address`` of each that comes from a repository."""
    return [line for line in text.splitlines() if _AT in line]


def _parsed(line: str) -> tuple[str, str]:
    """What is pinned, the same for all ways to write it: an index, an installer and a package's own words differ."""
    name, _, version = line.rstrip("\\\n ").partition("==")
    return canonicalize_name(name), canonicalize_version(version)


async def _make(place: Place, python: str, how: str = "--allow-existing") -> None:
    args = ("venv", "--no-project", how, "--python", python, str(place.prefix))
    what = f"a virtual environment of Python {python}"
    await place.tools.install(args, place.prefix, place.lock, what=what, folders=_QUIET)


def _no_such_command(wishes: Wishes, command: str, there: str) -> str:
    if wishes.call is not None:
        return f"{wishes.call.package} has no command {command}: use uvx --from with one of its own: {there}"
    return f"{wishes.label} has no command {command}: use one of what is installed: {there}"


def _commands_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not _NOT_OF_A_PACKAGE.fullmatch(path.name))


def _is_script(path: Path) -> bool:
    """Whether it is a script that an installer has made for its own Python."""
    with path.open("rb") as file:
        first, second = file.readline(1024), file.readline(1024)
    return first.startswith(b"#!") and (b"python" in first or second.startswith(b"'''exec'"))


def _entry_of(spec: EnvSpec, call: UvxCall | None) -> Entry:
    """What is to be imported before a session wants it."""
    if call is not None:
        return Entry(command=call.command)
    if not _RUNS_PYTHON.fullmatch(fixed(spec.command)):
        return Entry(command=os.path.basename(fixed(spec.command)))
    args = [fixed(arg) for arg in spec.args]
    if "-m" in args[:-1]:
        path = fixed(spec.env.get("PYTHONPATH", "")).split(os.pathsep)
        return Entry(module=args[args.index("-m") + 1], folders=(fixed(spec.cwd), *filter(None, path)))
    script = next((arg for arg in args if not arg.startswith("-")), "")
    return Entry(script=script) if script.endswith(".py") and os.path.isfile(script) else Entry()


def _at_commits(place: Place, pins: str) -> tuple[str, ...]:
    """Options that set what comes from a repository to its commit, whatever branch or tag is asked for."""
    commits = _commits_in(pins)
    return ("--overrides", _file(place, "commits", "\n".join(commits))) if commits else ()


def _file(place: Place, name: str, text: str) -> str:
    """A file of requirements, beside the environment, which goes with the next sweep."""
    path = _path(place, name)
    path.write_text(text, encoding="utf-8")
    return str(path)


def _path(place: Place, name: str) -> Path:
    return place.prefix.with_name(f"{place.prefix.name}.{name}.txt")
