"""npm packages as environments: installed once, then run by `node` with no npm or npx in the process tree.

`Npm.prepare` turns a spec whose command is `npx` or a package's folder into one whose command is `node` and
whose first argument is the package's own bin. What `npx` names is installed into muxsim's cache and stays at
the version it had then, so that later starts need no network and give the same server.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from muxsim.errors import PackageError
from muxsim.provision.as_it_stands import AsItStands
from muxsim.provision.cache import key, locked, made_whole
from muxsim.provision.installer import Installer, Program
from muxsim.provision.npx import NpxCall, is_npx, is_package_folder, own_bin, own_copies, parse_npx
from muxsim.spec import EnvSpec, fixed, literal

_QUIET: Final = ("--no-audit", "--no-fund", "--no-update-notifier", "--no-progress", "--loglevel=error")
_PLAIN_NODE: Final = re.compile(rb"#!\s*(/usr/bin/env\s+)?(\S*/)?node\s*")
_NPM: Final = Program(
    name="npm",
    needs=("node", "npm"),
    get_it="install Node.js 20 or newer",
    installs="npm package",
    source="registry",
    unreachable=re.compile(
        rb"npm error code (ECONN\w+|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT)"
    ),
    offline={"npm_config_offline": "true"},
    # npm waits ten seconds before it asks an unreachable registry again, and then sixty; the first start of an
    # environment should not hang that long.
    defaults={"npm_config_fetch_retry_mintimeout": "1000"},
)


class Npm:
    """What `npx` names, and packages' folders, see `provider.Provider`."""

    program = _NPM

    def takes(self, spec: EnvSpec) -> bool:
        """Whether it is a command line of npx, or a folder's."""
        return is_npx(spec.command) or os.path.isdir(fixed(spec.command))

    async def prepare(self, spec: EnvSpec, installer: Installer) -> EnvSpec:
        """The spec with its npm package installed and its command resolved to ``node BIN``."""
        return await (_from_npx if is_npx(spec.command) else _from_folder)(spec, installer)


# ---- what npx names ----


async def _from_npx(spec: EnvSpec, npm: Installer) -> EnvSpec:
    try:
        call = parse_npx(spec.args)
    except ValueError as error:
        raise PackageError(str(error)) from error
    if (own := _of_project(call, Path(fixed(spec.cwd)))) is not None:
        return _running(npm, spec, *own, call.args)
    home = await _installed(call, npm)
    spec = replace(spec, installed=(str(home),))
    packages = [_Package.read(home / "node_modules" / name) for name in _Package.read(home).manifest.dependencies]
    if not call.command:
        return _running(npm, spec, packages[0], packages[0].own_bin(), call.args)
    for package in packages:
        if call.command in package.bins:
            return _running(npm, spec, package, package.bins[call.command], call.args)
    if npm.has(call.command):
        raise AsItStands(f"{call.command} is no command of {' '.join(call.packages)}")
    there = ", ".join(sorted(name for package in packages for name in package.bins)) or "they have none"
    raise PackageError(f"npx -p {call.packages[0]} has no command {call.command}: use one of its own: {there}")


def _of_project(call: NpxCall, folder: Path) -> tuple[_Package, str] | None:
    """The package and its file that npx finds in the project of ``folder``, and so does not ask the registry for.

    Raises AsItStands where only npx can tell whether what is there will do.
    """
    if not folder.is_absolute():
        return None
    if not call.command and (program := own_bin(call.packages[0], folder)) is not None:
        package = _Package.around(program)
        return package, str(program.relative_to(package.folder))
    copies = [_Package.read(copy) for copy in own_copies(call.packages, folder)]
    if not copies:
        return None
    if not call.command:
        return copies[0], copies[0].own_bin()
    for package in copies:
        if call.command in package.bins:
            return package, package.bins[call.command]
    raise AsItStands(f"{call.command} is no command of {' '.join(call.packages)}, which the project has")


async def _installed(call: NpxCall, npm: Installer) -> Path:
    """The folder in the cache with the call's packages in its node_modules."""
    # The machine is in the key because packages may hold compiled parts and home folders are shared.
    home = npm.cache / key(call.packages[0], *call.packages, *call.options, platform.machine())

    async def build(home: Path, before: Path, lock: int) -> None:
        await npm.install(_install_args(call, home, before), home, lock, what=" ".join(call.packages))

    await made_whole(home, build)
    return home


def _install_args(call: NpxCall, home: Path, before: Path) -> tuple[str, ...]:
    """What npm is to do in ``home``: as it was done before, if something is left that tells how."""
    files = ("package.json", "package-lock.json")
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        kept = [(before / file).read_bytes() for file in files]
        for file, content in zip(files, kept, strict=True):
            msgspec.json.decode(content)
            (home / file).write_bytes(content)
        return ("ci", *_QUIET, *call.options)
    (home / "package.json").write_text('{"private": true}\n', encoding="utf-8")
    return ("install", *_QUIET, *call.options, "--", *call.packages)


# ---- a package's folder ----


async def _from_folder(spec: EnvSpec, npm: Installer) -> EnvSpec:
    folder = Path(fixed(spec.command))
    if not is_package_folder(folder):
        raise PackageError(f"{folder} is a folder without a package.json: name a program or an npm package")
    package = _Package.read(folder)
    if package.manifest.dependencies:
        await _install_dependencies(package, npm)
    return _running(npm, spec, package, package.own_bin(), spec.args)


async def _install_dependencies(package: _Package, npm: Installer) -> None:
    async with locked(npm.cache / package.key) as lock:
        # The lock's file is not empty while npm is at work: node_modules does not tell of a cut-off npm.
        if os.fstat(lock).st_size or package.is_stale():
            os.pwrite(lock, b"installing\n", 0)
            has_lock = (package.folder / "package-lock.json").exists()
            args = ("ci", *_QUIET) if has_lock else ("install", "--no-package-lock", *_QUIET)
            await npm.install(args, package.folder, lock, what=f"what {package.folder} depends on")
            os.ftruncate(lock, 0)


# ---- both ----


class _Manifest(msgspec.Struct, frozen=True):
    """The parts of a package.json that tell what to run."""

    name: str = ""
    version: str = ""
    bin: str | dict[str, str] | None = None
    dependencies: dict[str, str] = {}


@dataclass(frozen=True)
class _Package:
    """A package's folder and its manifest."""

    folder: Path
    manifest: _Manifest

    @classmethod
    def read(cls, folder: Path) -> _Package:
        path = folder / "package.json"
        try:
            return cls(folder, msgspec.json.decode(path.read_bytes(), type=_Manifest))
        except (OSError, msgspec.MsgspecError) as error:
            raise PackageError(f"{path} cannot be read: {error}") from error

    @classmethod
    def around(cls, program: Path) -> _Package:
        """The package that a file is in."""
        return cls.read(next(filter(is_package_folder, program.parents), program.parent))

    @property
    def label(self) -> str:
        """``name@version``."""
        return f"{self.manifest.name or self.folder.name}@{self.manifest.version or '0.0.0'}"

    @property
    def key(self) -> str:
        """A file name that stands for the folder, however it was reached."""
        real = os.path.realpath(self.folder)
        return key(os.path.basename(real), real)

    @property
    def _unscoped(self) -> str:
        return (self.manifest.name or self.folder.name).rpartition("/")[2]

    @property
    def bins(self) -> dict[str, str]:
        """The commands of the package, each with its file."""
        if isinstance(self.manifest.bin, str):
            return {self._unscoped: self.manifest.bin}
        return self.manifest.bin or {}

    def own_bin(self) -> str:
        """The file that npx would run: the only one, else the one named like the package."""
        files = set(self.bins.values())
        if len(files) == 1:
            return files.pop()
        if self._unscoped in self.bins:
            return self.bins[self._unscoped]
        if not self.bins:
            raise PackageError(f"{self.label} has no bin in its package.json: name the script to run with node")
        names = ", ".join(sorted(self.bins))
        raise PackageError(f"{self.label} has several commands ({names}): choose with npx -p PACKAGE COMMAND")

    def is_stale(self) -> bool:
        """Whether a dependency is not where node looks for it, or the lock is newer than what is there."""
        for name in self.manifest.dependencies:
            folders = (self.folder, *self.folder.absolute().parents)
            if not any((folder / "node_modules" / name).exists() for folder in folders):
                return True
        wanted, there = self.folder / "package-lock.json", self.folder / "node_modules" / ".package-lock.json"
        if not wanted.exists() or not there.parent.exists():
            return False
        return not there.exists() or there.stat().st_mtime < wanted.stat().st_mtime


def _running(npm: Installer, spec: EnvSpec, package: _Package, bin_file: str, args: tuple[str, ...]) -> EnvSpec:
    """The spec that runs a bin of the package."""
    program = package.folder.absolute() / bin_file
    if not program.is_file():
        raise PackageError(f"{program} is missing, the bin of {package.label}: build the package first")
    argv = (npm.tool("node"), str(program)) if _is_for_node(program) else (str(program),)
    command, *first = map(literal, argv)
    return replace(spec, command=command, args=(*first, *args), package=package.label)


def _is_for_node(program: Path) -> bool:
    with program.open("rb") as file:
        first = file.readline(256)
    return not first.startswith(b"#!") or bool(_PLAIN_NODE.fullmatch(first)) or not os.access(program, os.X_OK)
