"""npm packages as environments: installed once, then run by `node` with no npm or npx in the process tree.

`prepare` turns a spec whose command is `npx` or a package's folder into one whose command is `node` and
whose first argument is the package's own bin. What `npx` names is installed into muxsim's cache and stays at
the version it had then, so that later starts need no network and give the same server.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import trio

from muxsim.errors import PackageError
from muxsim.spec import EnvSpec, has_placeholder

_QUIET = ("--no-audit", "--no-fund", "--no-update-notifier", "--no-progress", "--loglevel=error")

# npm waits ten seconds before it asks an unreachable registry again, and then sixty; the first start of an
# environment should not hang that long. A value of the user's own goes before.
_RETRY_SOON = {"npm_config_fetch_retry_mintimeout": "1000"}

_LOCK_POLL = 0.1  # s; a blocking flock could not be cancelled
_OUTPUT_ENDS = 6  # npm puts its cause first and a failed build's last: so many lines of either end are shown

_NPX_IGNORED = frozenset({"-y", "--yes", "-q", "--quiet", "-s", "--silent"})
_NPX_PASSED = frozenset({"--prefer-offline", "--prefer-online", "--offline", "--ignore-scripts"})
_NPX_USAGE = "npx [-y] [-p PACKAGE] [--OPTION=VALUE] PACKAGE[@VERSION] ARGS…"

_STACK_FRAME = re.compile(r"npm error\s+at ")
_PLAIN_NODE = re.compile(rb"#!\s*(/usr/bin/env\s+)?(\S*/)?node\s*")


@dataclass(frozen=True, slots=True)
class NpxCall:
    """What an npx command line asks for."""

    packages: tuple[str, ...]
    """Package specs as npm takes them: ``name``, ``@scope/name@1.2``, ``github:user/repo``."""

    command: str
    """The bin to run, named after `-p`; ``""`` for the package's own."""

    args: tuple[str, ...]
    """The server's arguments."""

    options: tuple[str, ...] = ()
    """Options for npm, such as ``--registry=…``."""


def is_npx(command: str) -> bool:
    """Whether the command is npx, by name or by path."""
    return os.path.basename(command) == "npx"


def parse_npx(args: Iterable[str]) -> NpxCall:
    """Reads the arguments of npx. Raises ValueError, saying what to do, for what it cannot take."""
    packages: list[str] = []
    options: list[str] = []
    rest = list(args)
    while rest and rest[0].startswith("-"):
        flag = rest.pop(0)
        if flag == "--":
            break
        if flag in ("-p", "--package") and rest:
            packages.append(rest.pop(0))
        elif flag.startswith("--package="):
            packages.append(flag.partition("=")[2])
        elif flag in _NPX_PASSED or (flag.startswith("--") and "=" in flag):
            options.append(flag)
        elif flag not in _NPX_IGNORED:
            raise ValueError(f"npx {flag} is not supported: use {_NPX_USAGE}")
    if not rest:
        missing = f"a command of {packages[0]}" if packages else "a package"
        raise ValueError(f"npx needs {missing} to run: use {_NPX_USAGE}")
    if packages:
        return NpxCall(tuple(packages), rest[0], tuple(rest[1:]), tuple(options))
    return NpxCall((rest[0],), "", tuple(rest[1:]), tuple(options))


def is_package_folder(path: str | Path) -> bool:
    """Whether ``path`` is a folder with a package.json."""
    return os.path.isfile(os.path.join(path, "package.json"))


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where muxsim keeps what can be made again: ``$MUXSIM_CACHE``, else ``muxsim`` in the user's cache."""
    if named := environ.get("MUXSIM_CACHE"):
        return Path(named).absolute()
    if base := environ.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / "muxsim"
    return Path(environ.get("HOME") or Path.home()) / ".cache" / "muxsim"


async def prepare(spec: EnvSpec, environ: Mapping[str, str] = os.environ) -> EnvSpec:
    """The spec with its npm package installed and its command resolved to ``node BIN``; others as they are.

    Any number of tasks and processes may prepare the same package at once: one installs, the others wait. An
    install that was cut off is made anew; once it is whole, no network is needed. npm sees all of
    ``environ`` (muxsim's own), with the spec's variables on top. Raises PackageError, also when it takes
    longer than ``limits.install_timeout``.
    """
    if not _is_npm(spec):
        return spec
    cache = cache_folder(environ) / "npm"
    node = _Node({**_RETRY_SOON, **environ, **{k: v for k, v in spec.env.items() if not has_placeholder(v)}})
    limit = spec.limits.install_timeout
    try:
        with trio.fail_after(limit):
            return await (_from_npx if is_npx(spec.command) else _from_folder)(spec, node, cache)
    except PackageError as error:
        raise PackageError(f"environment {spec.name}: {error.message}", output=error.output) from error
    except trio.TooSlowError as error:
        advice = "see whether the registry can be reached, or raise install_timeout"
        raise PackageError(
            f"environment {spec.name}: its npm package took more than {limit:g} s to install: {advice}"
        ) from error
    except OSError as error:
        advice = f"make room in {cache}, or name another place with MUXSIM_CACHE"
        raise PackageError(
            f"environment {spec.name}: its npm package could not be installed ({error}): {advice}"
        ) from error


def _is_npm(spec: EnvSpec) -> bool:
    return is_npx(spec.command) or os.path.isdir(spec.command)


# ---- what npx names ----


async def _from_npx(spec: EnvSpec, node: "_Node", cache: Path) -> EnvSpec:
    try:
        call = parse_npx(spec.args)
    except ValueError as error:
        raise PackageError(str(error)) from error
    own_copy = _projects_own(call, Path(spec.cwd))
    if own_copy is not None:
        package = _Package.read(own_copy)
        return node.runs(spec, package, package.own_bin(), call.args)
    home = await _installed(call, node, cache)
    packages = [_Package.read(home / "node_modules" / name) for name in _Package.read(home).manifest.dependencies]
    if not call.command:
        return node.runs(spec, packages[0], packages[0].own_bin(), call.args)
    for package in packages:
        if call.command in package.bins:
            return node.runs(spec, package, package.bins[call.command], call.args)
    there = ", ".join(sorted(name for package in packages for name in package.bins)) or "they have none"
    raise PackageError(f"npx -p {call.packages[0]} has no command {call.command}: use one of its own: {there}")


def _projects_own(call: NpxCall, folder: Path) -> Path | None:
    """Like npx, the project's own copy goes before the registry's: the project has pinned its version."""
    if call.command or not folder.is_absolute():
        return None
    copies = (parent / "node_modules" / call.packages[0] for parent in (folder, *folder.parents))
    return next(filter(is_package_folder, copies), None)


async def _installed(call: NpxCall, node: "_Node", cache: Path) -> Path:
    """The folder in the cache with the call's packages in its node_modules."""
    # The machine is in the key because packages may hold compiled parts and home folders are shared.
    home = cache / _key(call.packages[0], *call.packages, *call.options, platform.machine())
    if not home.is_dir():
        async with _locked(home) as lock:
            if not home.is_dir():
                await _install(call, home, node, lock)
    return home


async def _install(call: NpxCall, home: Path, node: "_Node", lock: int) -> None:
    """Installs beside ``home`` and renames, so that a folder of that name is always whole."""
    for leftover in home.parent.glob(f"{home.name}.partial-*"):
        await _remove(leftover)
    partial = Path(tempfile.mkdtemp(prefix=f"{home.name}.partial-", dir=home.parent))
    try:
        (partial / "package.json").write_text('{"private": true}\n', encoding="utf-8")
        args = ("install", *_QUIET, *call.options, "--", *call.packages)
        await node.npm(args, partial, lock, what=" ".join(call.packages))
        os.rename(partial, home)
    except BaseException:
        await _remove(partial)
        raise


# ---- a package's folder ----


async def _from_folder(spec: EnvSpec, node: "_Node", cache: Path) -> EnvSpec:
    folder = Path(spec.command)
    if not is_package_folder(folder):
        raise PackageError(f"{folder} is a folder without a package.json: name a program or an npm package")
    package = _Package.read(folder)
    if package.manifest.dependencies:
        await _install_dependencies(package, node, cache / package.key)
    return node.runs(spec, package, package.own_bin(), spec.args)


async def _install_dependencies(package: "_Package", node: "_Node", lock_name: Path) -> None:
    async with _locked(lock_name) as lock:
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

    @property
    def label(self) -> str:
        """``name@version``."""
        return f"{self.manifest.name or self.folder.name}@{self.manifest.version or '0.0.0'}"

    @property
    def key(self) -> str:
        """A file name that stands for the folder, however it was reached."""
        real = os.path.realpath(self.folder)
        return _key(os.path.basename(real), real)

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

    def runs(self, spec: EnvSpec, package: _Package, bin_file: str, args: tuple[str, ...]) -> EnvSpec:
        """The spec that runs a bin of the package."""
        program = package.folder.absolute() / bin_file
        if not program.is_file():
            raise PackageError(f"{program} is missing, the bin of {package.label}: build the package first")
        argv = (self.tool("node"), str(program)) if _is_for_node(program) else (str(program),)
        return replace(spec, command=argv[0], args=(*argv[1:], *args), package=package.label)

    async def npm(self, args: tuple[str, ...], cwd: Path, lock: int, *, what: str) -> None:
        """Runs npm to its end. It inherits the lock, which so outlives a killed muxsim for as long as npm."""
        done = await trio.run_process(
            [self.tool("npm"), *args],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            cwd=cwd,
            env=self.environ,
            pass_fds=[lock],
            start_new_session=True,
            deliver_cancel=_kill_group,
        )
        if done.returncode:
            raise PackageError(
                f"npm could not install {what} (exit status {done.returncode}): "
                "check the package's name and version, and that the registry can be reached",
                output=_telling_lines(done.stdout.decode(errors="replace")),
            )


async def _kill_group(npm: trio.Process) -> None:
    """Ends npm and the install scripts it runs, at once: half an install is thrown away in any case."""
    os.killpg(npm.pid, signal.SIGKILL)


def _is_for_node(program: Path) -> bool:
    with program.open("rb") as file:
        first = file.readline(256)
    return not first.startswith(b"#!") or bool(_PLAIN_NODE.fullmatch(first)) or not os.access(program, os.X_OK)


def _telling_lines(output: str) -> tuple[str, ...]:
    """The lines of npm that say why, without its stack traces and the middle of a long report."""
    lines = [line.rstrip() for line in output.splitlines() if not _STACK_FRAME.match(line)]
    lines = [line for line in lines if line not in ("", "npm error")]
    if len(lines) > 2 * _OUTPUT_ENDS:
        lines[_OUTPUT_ENDS:-_OUTPUT_ENDS] = ["…"]
    return tuple(lines)


def _key(name: str, *parts: str) -> str:
    """A file name that shows what it is for and is its own for the parts."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:60]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"{readable}-{digest[:12]}"


@contextlib.asynccontextmanager
async def _locked(name: Path) -> AsyncGenerator[int]:
    """Holds ``name.lock`` against every task and process; gives its file descriptor."""
    name.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(name.with_name(name.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _try_lock(lock):  # noqa: ASYNC110 - other processes set no event
            await trio.sleep(_LOCK_POLL)
        yield lock
    finally:
        # Only closing would leave it to who inherited the descriptor, such as an install script's daemon.
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _remove(folder: Path) -> None:
    """Removes a folder tree, in a thread because it may hold thousands of files, and to the end."""
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(functools.partial(shutil.rmtree, folder, ignore_errors=True))
