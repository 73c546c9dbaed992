"""Python tools as environments: `uvx package[@version]` installed once, then run without uv in the process tree."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio

from muxsim.errors import PackageError
from muxsim.provision.as_it_stands import AsItStands, tell
from muxsim.provision.cache import (
    cache_folder,
    damage,
    installing,
    key,
    locked,
    record,
    remove,
    run_installer,
    telling_lines,
    was_recorded,
    with_fixed_variables,
)
from muxsim.spec import EnvSpec, literal

_IGNORED: Final = frozenset({"-q", "--quiet", "-v", "--verbose", "--no-progress", "--isolated"})
_PASSED: Final = frozenset({"--offline", "--no-cache", "--no-build", "--no-config", "--native-tls"})
_WITH_VALUE: Final = frozenset({"--with", "-w", "--python", "-p", "--index", "--index-url", "--extra-index-url"})
# What `uv tool install` knows too; another option may be of uvx alone, and change what runs.
_ALSO_OF_INSTALL: Final = frozenset(
    {
        *("--default-index", "--find-links", "--index-strategy", "--keyring-provider", "--resolution", "--prerelease"),
        *("--constraints", "--overrides", "--exclude-newer", "--link-mode", "--cache-dir", "--allow-insecure-host"),
        *("--refresh-package", "--upgrade-package", "--no-build-package", "--no-binary-package", "--fork-strategy"),
        *("--config-setting", "--build-constraints", "--python-preference", "--color"),
    }
)
_USAGE: Final = "uvx [--from PACKAGE] [--with PACKAGE] [--python VERSION] [--OPTION=VALUE] COMMAND[@VERSION] ARGS…"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NETWORK: Final = re.compile(rb"(?i)error sending request|failed to fetch|could not connect|dns error|timed out")


@dataclass(frozen=True, slots=True)
class UvxCall:
    """What a uvx command line asks for."""

    package: str
    """A requirement as uv takes it: ``name``, ``name==1.2``, ``name[extra]``, ``git+https://…``."""

    command: str
    """The executable to run, one of the package's own."""

    args: tuple[str, ...]
    """The server's arguments."""

    options: tuple[str, ...] = ()
    """Options for ``uv tool install``."""


def is_uvx(command: str) -> bool:
    """Whether the command is uvx, by name or by path."""
    return os.path.basename(command) == "uvx"


def parse_uvx(args: Iterable[str]) -> UvxCall:
    """Reads the arguments of uvx.

    Raises ValueError, saying what to do, where there is nothing to run, and AsItStands for what only uvx understands.
    """
    source, options, rest = "", [], list(args)
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0)
        name, equals, value = flag.partition("=")
        if flag == "--":
            break
        if not equals and name in {"--from", *_WITH_VALUE} and rest:
            value, equals = rest.pop(0), "="
        if name == "--from" and value:
            source = value
        elif flag in _PASSED:
            options.append(flag)
        elif equals and (name in _WITH_VALUE or name in _ALSO_OF_INSTALL):
            options += [name, value] if name in _WITH_VALUE else [flag]
        elif flag not in _IGNORED:
            raise AsItStands(f"uvx has the option {name}")
    if not rest:
        raise ValueError(f"uvx needs a command to run: use {_USAGE}")
    if source.startswith((".", "/", "~")):
        raise AsItStands("uvx --from names a folder")
    command, at, version = rest[0].partition("@")
    if source:
        return UvxCall(source, rest[0], tuple(rest[1:]), tuple(options))
    if not _NAME.fullmatch(command.partition("[")[0]):
        raise AsItStands(f"only uvx can tell the command of {rest[0]}")
    package = f"{command}=={version}" if at and version != "latest" else command
    return UvxCall(package, command.partition("[")[0], tuple(rest[1:]), tuple(options))


async def prepare(spec: EnvSpec, environ: Mapping[str, str] = os.environ) -> EnvSpec:
    """The spec with its tool installed and its command resolved to the tool's own; others as they are.

    As `npm.prepare`: one installs while others wait, one that was cut off or is damaged is made anew, and then no
    network is needed. Raises PackageError.
    """
    if not is_uvx(spec.command):
        return spec
    cache = cache_folder(environ) / "uv"
    with installing(spec, "Python tool", "package index", cache):
        try:
            return await _prepare(spec, cache, with_fixed_variables(environ, spec))
        except AsItStands as why:
            if shutil.which(spec.command, path=environ.get("PATH")) is None:
                raise PackageError("uvx is not on PATH: install uv (https://docs.astral.sh/uv), which has it") from None
            tell(spec, "uvx", why)
            return spec


async def _prepare(spec: EnvSpec, cache: Path, environ: Mapping[str, str]) -> EnvSpec:
    try:
        call = parse_uvx(spec.args)
    except ValueError as error:
        raise PackageError(str(error)) from error
    # The machine is in the key because packages may hold compiled parts and home folders are shared.
    home = cache / key(call.command, call.package, *call.options, platform.machine())
    if await trio.to_thread.run_sync(damage, home) is not None:
        async with locked(home) as lock:
            if (fault := await trio.to_thread.run_sync(damage, home)) is not None:
                await _install(call, home, environ, lock, fault)
    command, *first = map(literal, _command_line(home, call))
    return replace(spec, command=command, args=(*first, *call.args), package=call.package)


async def _install(call: UvxCall, home: Path, environ: Mapping[str, str], lock: int, fault: str) -> None:
    """Installs where it stays, since a virtual environment cannot be moved: it is whole once it is recorded."""
    uv = shutil.which("uv", path=environ.get("PATH"))
    if uv is None:
        raise PackageError("uv is not on PATH: install uv (https://docs.astral.sh/uv), which has uvx")
    aside = home.with_name(f"{home.name}.aside")
    was_whole = await trio.to_thread.run_sync(_make_room, home, aside)
    argv = (uv, "tool", "install", *call.options, "--", call.package)
    folders = {"UV_TOOL_DIR": str(home / "tools"), "UV_TOOL_BIN_DIR": str(home / "bin"), "UV_NO_PROGRESS": "1"}
    try:
        await _run(argv, home, {**environ, **folders}, lock, call.package)
        await trio.to_thread.run_sync(record, home)
    except BaseException as error:
        await remove(home)
        if was_whole:  # perhaps it can be mended, and it is no worse than nothing
            os.rename(aside, home)
        if was_whole and isinstance(error, PackageError):
            message = f"{home} is damaged ({fault}), and cannot be made anew: {error.message}"
            raise PackageError(message, output=error.output) from error
        raise
    await remove(aside)


def _make_room(home: Path, aside: Path) -> bool:
    """An empty folder; True if one that had been whole is aside now."""
    shutil.rmtree(aside, ignore_errors=True)
    was_whole = was_recorded(home)
    if was_whole:
        os.rename(home, aside)
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    return was_whole


async def _run(argv: tuple[str, ...], home: Path, environ: Mapping[str, str], lock: int, what: str) -> None:
    """Runs uv to its end; where the package index cannot be reached, with what uv has in its own cache."""
    done = await run_installer(argv, cwd=home, environ=environ, lock=lock)
    if done.returncode and _NETWORK.search(done.stdout):
        offline = {**environ, "UV_OFFLINE": "1"}
        if (await run_installer(argv, cwd=home, environ=offline, lock=lock)).returncode == 0:
            return
    if done.returncode:
        raise PackageError(
            f"uv could not install {what} (exit status {done.returncode}): "
            "check the package's name and version, and that the package index can be reached",
            output=telling_lines(done.stdout),
        )


def _command_line(home: Path, call: UvxCall) -> tuple[str, ...]:
    """What to execute: a Python script by its own interpreter, so that it can be started as one; others as they are."""
    entry = home / "bin" / call.command
    if not entry.exists():
        there = ", ".join(sorted(path.name for path in (home / "bin").iterdir())) or "it has none"
        raise PackageError(f"{call.package} has no command {call.command}: use uvx --from with one of its own: {there}")
    script = entry.resolve()
    python = script.with_name("python")
    with script.open("rb") as file:
        is_script = file.read(2) == b"#!"
    return (str(python), str(script)) if is_script and python.exists() else (str(entry),)
