"""npm packages as environments: installed once, then run by `node` with no npm or npx in the process tree.

`prepare` turns a spec whose command is `npx` or a package's folder into one whose command is `node` and
whose first argument is the package's own bin. What `npx` names is installed into muxsim's cache and stays at
the version it had then, so that later starts need no network and give the same server.
"""

import contextlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
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
    with_fixed_variables,
)
from muxsim.provision.npx import NpxCall, is_npx, is_package_folder, own_bin, own_copies, parse_npx
from muxsim.spec import EnvSpec, fixed, literal

_QUIET = ("--no-audit", "--no-fund", "--no-update-notifier", "--no-progress", "--loglevel=error")

# npm waits ten seconds before it asks an unreachable registry again, and then sixty; the first start of an
# environment should not hang that long. A value of the user's own goes before.
_RETRY_SOON = {"npm_config_fetch_retry_mintimeout": "1000"}

# What npm says when it did not get as far as the registry.
_UNREACHABLE = re.compile(
    rb"npm error code (ECONN\w+|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_TIMEOUT)"
)

_PLAIN_NODE = re.compile(rb"#!\s*(/usr/bin/env\s+)?(\S*/)?node\s*")


async def prepare(spec: EnvSpec, environ: Mapping[str, str] = os.environ) -> EnvSpec:
    """The spec with its npm package installed and its command resolved to ``node BIN``; others as they are.

    Any number of tasks and processes may prepare the same package at once: one installs, the others wait. An
    install that was cut off is made anew; once it is whole, no network is needed. npm sees ``environ`` (muxsim's own;
    of a pool's only what installers may see), with the spec's variables on top. Raises PackageError, also when it
    takes longer than ``limits.install_timeout``.
    """
    if not _is_npm(spec):
        return spec
    cache = cache_folder(environ) / "npm"
    node = _Node(with_fixed_variables({**_RETRY_SOON, **environ}, spec))
    with installing(spec, "npm package", "registry", cache):
        return await (_from_npx if is_npx(spec.command) else _from_folder)(spec, node, cache)


def _is_npm(spec: EnvSpec) -> bool:
    return is_npx(spec.command) or os.path.isdir(fixed(spec.command))


# ---- what npx names ----


async def _from_npx(spec: EnvSpec, node: "_Node", cache: Path) -> EnvSpec:
    try:
        call = parse_npx(spec.args)
        own = _of_project(call, Path(fixed(spec.cwd)))
    except AsItStands as why:
        node.tool("npx")
        tell(spec, "npx", why)
        return spec
    except ValueError as error:
        raise PackageError(str(error)) from error
    if own is not None:
        return node.runs(spec, *own, call.args)
    home = await _installed(call, node, cache)
    packages = [_Package.read(home / "node_modules" / name) for name in _Package.read(home).manifest.dependencies]
    if not call.command:
        return node.runs(spec, packages[0], packages[0].own_bin(), call.args)
    for package in packages:
        if call.command in package.bins:
            return node.runs(spec, package, package.bins[call.command], call.args)
    if node.has(call.command):
        tell(spec, "npx", AsItStands(f"{call.command} is no command of {' '.join(call.packages)}"))
        return spec
    there = ", ".join(sorted(name for package in packages for name in package.bins)) or "they have none"
    raise PackageError(f"npx -p {call.packages[0]} has no command {call.command}: use one of its own: {there}")


def _of_project(call: NpxCall, folder: Path) -> tuple["_Package", str] | None:
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


async def _installed(call: NpxCall, node: "_Node", cache: Path) -> Path:
    """The folder in the cache with the call's packages in its node_modules."""
    # The machine is in the key because packages may hold compiled parts and home folders are shared.
    home = cache / key(call.packages[0], *call.packages, *call.options, platform.machine())
    if await trio.to_thread.run_sync(_fault_of, home) is not None:
        async with locked(home) as lock:
            if (fault := await trio.to_thread.run_sync(_fault_of, home)) is not None:
                await _install(call, home, node, lock, fault)
    return home


def _fault_of(home: Path) -> str | None:
    """What is wrong with it: ``""`` that it is not there, None that nothing is."""
    return damage(home) if home.is_dir() else ""


async def _install(call: NpxCall, home: Path, node: "_Node", lock: int, fault: str) -> None:
    """Installs beside ``home`` and renames, so that a folder of that name was whole once."""
    for leftover in home.parent.glob(f"{home.name}.partial-*"):
        await remove(leftover)
    partial = Path(tempfile.mkdtemp(prefix=f"{home.name}.partial-", dir=home.parent))
    try:
        await node.npm(_install_args(call, home, partial), partial, lock, what=" ".join(call.packages))
        await trio.to_thread.run_sync(record, partial)
        damaged = Path(tempfile.mkdtemp(prefix=f"{home.name}.partial-", dir=home.parent))
        if fault:
            os.rename(home, damaged)
        os.rename(partial, home)
        await remove(damaged)
    except PackageError as error:
        await remove(partial)
        if not fault:
            raise
        message = f"{home} is damaged ({fault}), and cannot be made anew: {error.message}"
        raise PackageError(message, output=error.output) from error
    except BaseException:
        await remove(partial)
        raise


def _install_args(call: NpxCall, home: Path, partial: Path) -> tuple[str, ...]:
    """What npm is to do in ``partial``: as it was done before, if something is left that tells how."""
    files = ("package.json", "package-lock.json")
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        kept = [(home / file).read_bytes() for file in files]
        for file, content in zip(files, kept, strict=True):
            msgspec.json.decode(content)
            (partial / file).write_bytes(content)
        return ("ci", *_QUIET, *call.options)
    (partial / "package.json").write_text('{"private": true}\n', encoding="utf-8")
    return ("install", *_QUIET, *call.options, "--", *call.packages)


# ---- a package's folder ----


async def _from_folder(spec: EnvSpec, node: "_Node", cache: Path) -> EnvSpec:
    folder = Path(fixed(spec.command))
    if not is_package_folder(folder):
        raise PackageError(f"{folder} is a folder without a package.json: name a program or an npm package")
    package = _Package.read(folder)
    if package.manifest.dependencies:
        await _install_dependencies(package, node, cache / package.key)
    return node.runs(spec, package, package.own_bin(), spec.args)


async def _install_dependencies(package: "_Package", node: "_Node", lock_name: Path) -> None:
    async with locked(lock_name) as lock:
        # The lock's file is not empty while npm is at work: node_modules does not tell of a cut-off npm.
        if os.fstat(lock).st_size or package.is_stale():
            os.pwrite(lock, b"installing\n", 0)
            has_lock = (package.folder / "package-lock.json").exists()
            args = ("ci", *_QUIET) if has_lock else ("install", "--no-package-lock", *_QUIET)
            await node.npm(args, package.folder, lock, what=f"what {package.folder} depends on")
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
    def read(cls, folder: Path) -> "_Package":
        path = folder / "package.json"
        try:
            return cls(folder, msgspec.json.decode(path.read_bytes(), type=_Manifest))
        except (OSError, msgspec.MsgspecError) as error:
            raise PackageError(f"{path} cannot be read: {error}") from error

    @classmethod
    def around(cls, program: Path) -> "_Package":
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


@dataclass(frozen=True)
class _Node:
    """The node and npm that are on the PATH of ``environ``."""

    environ: Mapping[str, str]

    def tool(self, name: str) -> str:
        path = shutil.which(name, path=self.environ.get("PATH"))
        if path is None:
            raise PackageError(f"{name} is not on PATH: install Node.js 20 or newer, which has it")
        return path

    def has(self, name: str) -> bool:
        """Whether a program is on PATH."""
        return shutil.which(name, path=self.environ.get("PATH")) is not None

    def runs(self, spec: EnvSpec, package: _Package, bin_file: str, args: tuple[str, ...]) -> EnvSpec:
        """The spec that runs a bin of the package."""
        program = package.folder.absolute() / bin_file
        if not program.is_file():
            raise PackageError(f"{program} is missing, the bin of {package.label}: build the package first")
        argv = (self.tool("node"), str(program)) if _is_for_node(program) else (str(program),)
        command, *first = map(literal, argv)
        return replace(spec, command=command, args=(*first, *args), package=package.label)

    async def npm(self, args: tuple[str, ...], cwd: Path, lock: int, *, what: str) -> None:
        """Runs npm to its end; where the registry cannot be reached, with what npm has in its own cache."""
        argv = (self.tool("npm"), *args)
        done = await run_installer(argv, cwd=cwd, environ=self.environ, lock=lock)
        if done.returncode and _UNREACHABLE.search(done.stdout):
            offline = {**self.environ, "npm_config_offline": "true"}
            if (await run_installer(argv, cwd=cwd, environ=offline, lock=lock)).returncode == 0:
                return
        if done.returncode:
            raise PackageError(
                f"npm could not install {what} (exit status {done.returncode}): "
                "check the package's name and version, and that the registry can be reached",
                output=telling_lines(done.stdout),
            )


def _is_for_node(program: Path) -> bool:
    with program.open("rb") as file:
        first = file.readline(256)
    return not first.startswith(b"#!") or bool(_PLAIN_NODE.fullmatch(first)) or not os.access(program, os.X_OK)
