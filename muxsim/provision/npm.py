"""npm packages as environments: installed once, then run by `node` with no npm or npx in the process tree.

A spec whose command is `npx` or a package's folder becomes one whose command is `node` and whose first argument is the
package's own bin. What `npx` names is installed into the store and stays at the version it had then, so that later
starts need no network and give the same server.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from muxsim.errors import PackageError
from muxsim.provision.as_it_stands import AsItStands
from muxsim.provision.cache import key, locked
from muxsim.provision.installer import Installer, Program, telling_lines
from muxsim.provision.npm_packages import finding, package_name, unmet
from muxsim.provision.npx import NpxCall, is_npx, is_package_folder, own_bin, own_copies, parse_npx
from muxsim.provision.provider import Found, Place
from muxsim.provision.secrets import without_secrets
from muxsim.spec import EnvSpec, fixed, literal, passed_variables

_QUIET: Final = ("--no-audit", "--no-fund", "--no-update-notifier", "--no-progress", "--loglevel=error")
# What tells npm to do again what it did.
_OF_NPM: Final = ("package.json", "package-lock.json")
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


KIND: Final = "npm"


class Npm:
    """What `npx` names, packages' folders, and the packages that scripts import; see `provider.Provider`."""

    program = _NPM

    def takes(self, spec: EnvSpec) -> bool:
        """Whether it is a command line of npx, or a folder's, or has packages."""
        return bool(spec.dependencies.packages) or is_npx(spec.command) or _names_folder(spec)

    async def part(self, spec: EnvSpec, tools: Installer) -> NpmPart | EnvSpec:
        """What it wants; or the spec that runs what its project has, or the package of a folder."""
        more, lock = spec.dependencies.packages, spec.dependencies.pinned(KIND)
        if is_npx(spec.command):
            try:
                call = parse_npx(spec.args)
            except ValueError as error:
                raise PackageError(str(error)) from error
            if more or (own := _of_project(call, Path(fixed(spec.cwd)))) is None:
                return NpmPart(call, more, lock)
            return _running(tools, spec, *own, call.args)
        if not _names_folder(spec):
            return NpmPart(None, more, lock)
        package = _package_in(spec)
        if spec.dependencies.has_conda:  # whose node is there only when that is made
            return NpmPart(None, more, lock, package)
        spec = await _from_folder(spec, package, tools)
        return NpmPart(None, more, lock) if more else spec


def _names_folder(spec: EnvSpec) -> bool:
    return os.path.isdir(fixed(spec.command))


@dataclass(frozen=True)
class NpmPart:
    """The npm packages of one environment, in the folder ``npm`` of its own; see `provider.Part`."""

    call: NpxCall | None
    """The command line of npx, if there is one."""

    more: tuple[str, ...]
    """What the script imports."""

    lock: str

    folder: _Package | None = None
    """The package of the user's that is to run, by a node of this environment."""

    kind = KIND

    @property
    def asked(self) -> tuple[str, ...]:
        """The packages, as others may see them."""
        return tuple(map(without_secrets, self._wanted))

    @property
    def _wanted(self) -> tuple[str, ...]:
        return (*(self.call.packages if self.call else ()), *self.more)

    @property
    def terms(self) -> tuple[str, ...]:
        """The same: npm's lock is for every platform."""
        return self.asked

    @property
    def _options(self) -> tuple[str, ...]:
        return self.call.options if self.call else ()

    @property
    def key(self) -> tuple[str, ...]:
        """The packages, options, the lock and the platform."""
        # The machine is in it because packages may hold compiled parts, and home folders are shared.
        own = () if self.folder is None else (str(self.folder.folder),)
        return (*self._wanted, "", *self._options, self.lock, platform.machine(), *own)

    async def fill(self, place: Place, before: str) -> None:
        """Has npm install them, as it was done before, if that is known."""
        if not self._wanted:
            return
        home = place.prefix / "npm"
        home.mkdir()
        args = ("install", *_QUIET, *self._options, "--", *self._wanted)
        if kept := _written(home, self.lock or before):
            args = ("ci", *_QUIET, *self._options)
        if not kept:
            (home / "package.json").write_text('{"private": true}\n', encoding="utf-8")
        await place.tools.install(args, home, place.lock, what=" ".join(self.asked))

    async def check(self, place: Place, *, thorough: bool) -> Found:
        """The installed packages: each as it was asked for, and the command that there is to be."""
        home = place.prefix / "npm"
        if self.folder is not None:
            await _install_dependencies(self.folder, place.tools)
        if not self._wanted:
            return Found({}, await _version_of_node(place))
        versions = {name: _Package.read(home / "node_modules" / name).manifest.version for name in _direct(home)}
        for wanted in self.asked:
            if fault := unmet(wanted, versions):
                raise PackageError(fault)
        if self.call is not None:
            self._entry(place)
        return Found({**_locked_versions(home), **versions}, await _version_of_node(place))

    async def pins(self, place: Place, found: Found) -> str:
        """What npm wrote, but for where it had the packages from; nothing where that would tell a password."""
        if self.asked != self._wanted or not self._wanted:
            return ""
        home = place.prefix / "npm"
        kept = {}
        for file in _OF_NPM:
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                kept[file] = _without_addresses(msgspec.json.decode((home / file).read_bytes()))
        return msgspec.json.encode(kept).decode() if len(kept) == len(_OF_NPM) else ""

    async def locked(self, place: Place, pins: str) -> str:
        """The same: npm has them in already."""
        return pins

    def resolved(self, spec: EnvSpec, place: Place) -> EnvSpec:
        """The spec that runs the package's own program with node; a script of the user's finds the packages."""
        if self.call is not None:
            package, file = self._entry(place)
            spec = _running(place.tools, spec, package, file, self.call.args)
        elif self.folder is not None:
            spec = _running(place.tools, spec, self.folder, self.folder.own_bin(), spec.args)
        return finding(spec, place.prefix / "npm") if self.more else spec

    def _entry(self, place: Place) -> tuple[_Package, str]:
        """The package and its file that npx would run. Raises AsItStands for a program of PATH."""
        call, home = self.call, place.prefix / "npm"
        assert call is not None
        packages = [_Package.read(home / "node_modules" / name) for name in _direct(home)]
        if not call.command:
            named = package_name(call.packages[0])
            package = next((one for one in packages if one.folder == home / "node_modules" / named), packages[0])
            return package, package.own_bin()
        for package in packages:
            if call.command in package.bins:
                return package, package.bins[call.command]
        if place.tools.has(call.command):
            raise AsItStands(f"{call.command} is no command of {' '.join(call.packages)}")
        there = ", ".join(sorted(name for package in packages for name in package.bins)) or "they have none"
        raise PackageError(f"npx -p {call.packages[0]} has no command {call.command}: use one of its own: {there}")


def _direct(home: Path) -> tuple[str, ...]:
    """The packages that were asked for, by the names under which they are in node_modules."""
    return tuple(_Package.read(home).manifest.dependencies)


def _written(home: Path, pins: str) -> bool:
    """Whether there was something to write from what `NpmPart.pins` gave."""
    with contextlib.suppress(msgspec.MsgspecError):
        for file, content in msgspec.json.decode(pins or "{}", type=dict[str, object]).items():
            if file in _OF_NPM:
                (home / file).write_bytes(msgspec.json.encode(content))
    return all((home / file).exists() for file in _OF_NPM)


def _without_addresses(lock: Any) -> Any:
    """A lock that holds for whichever registry, mirror or proxy there is: npm asks its own for what has none."""
    packages = lock.get("packages") if isinstance(lock, dict) else None
    for one in packages.values() if isinstance(packages, dict) else ():
        if isinstance(one, dict) and str(one.get("resolved", "")).startswith("http") and "integrity" in one:
            del one["resolved"]
    return lock


def _locked_versions(home: Path) -> dict[str, str]:
    """Name and version of all that npm has installed."""
    try:
        lock = msgspec.json.decode((home / "package-lock.json").read_bytes(), type=_Lock)
    except (OSError, msgspec.MsgspecError):
        return {}
    return {
        name.rpartition("node_modules/")[2]: one.version for name, one in lock.packages.items() if name and one.version
    }


async def _version_of_node(place: Place) -> str:
    """Its word for itself, which shows that it starts."""
    node = place.tools.tool("node")
    done = await place.tools.run(
        (node, "--version"), cwd=place.prefix, environ=passed_variables(place.tools.variables), lock=place.lock
    )
    if done.returncode:
        raise PackageError(f"{node} does not start (exit status {done.returncode})", output=telling_lines(done.stdout))
    return f"node {done.stdout.decode(errors='replace').strip()}"


# ---- what npx names ----


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


# ---- a package's folder ----


def _package_in(spec: EnvSpec) -> _Package:
    folder = Path(fixed(spec.command))
    if not is_package_folder(folder):
        raise PackageError(f"{folder} is a folder without a package.json: name a program or an npm package")
    return _Package.read(folder)


async def _from_folder(spec: EnvSpec, package: _Package, npm: Installer) -> EnvSpec:
    await _install_dependencies(package, npm)
    return _running(npm, spec, package, package.own_bin(), spec.args)


async def _install_dependencies(package: _Package, npm: Installer) -> None:
    if not package.manifest.dependencies:
        return
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


class _LockedPackage(msgspec.Struct, frozen=True):
    version: str = ""


class _Lock(msgspec.Struct, frozen=True):
    """The part of a package-lock.json that tells what is installed."""

    packages: dict[str, _LockedPackage] = {}


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
