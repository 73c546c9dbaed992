"""Runs what installs packages: with few variables, the lock of its place lent to it, and gone with all it started."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import trio

from muxsim.errors import PackageError
from muxsim.processes.command import Command
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import AT_ONCE
from muxsim.provision.secrets import without_secrets
from muxsim.spec import EnvSpec, fixed, has_placeholder, passed_variables

_OUTPUT_ENDS: Final = 6  # installers put their cause first and a failed build's last: so many lines of either end
_LONGEST_LINE: Final = 1000  # characters: a compiler's command line may have as many
_STACK_FRAME: Final = re.compile(r"npm error\s+at ")
# Seconds, after an installer's exit, for what it has written to be read.
_LAST_WORDS: Final = 0.5
_READ: Final = 64 * 1024
# Bytes of its output that are kept: the last. A long build log has a few MiB.
_MOST_SAID: Final = 16 * 1024 * 1024
NO_ROOM: Final = re.compile(rb"(?i)no space left|ENOSPC|disk quota|file too large|EFBIG")

# What says where packages come from, and who may have them; and where we keep them.
_INSTALLERS: Final = frozenset({"MUXSIM_CACHE", "NODE_AUTH_TOKEN", "SSH_AUTH_SOCK", "NETRC"})
_INSTALLERS_PREFIXES: Final = ("npm_", "NPM_", "UV_", "GIT_", "RATTLER_", "CONDA_OVERRIDE_")
_PROXIES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})


@dataclass(frozen=True, slots=True)
class Program:
    """What installs packages of one kind, and the words for what goes wrong with it."""

    name: str
    """Its own, which is also that of its folder in the cache."""

    needs: tuple[str, ...]
    """The programs that have to be on PATH."""

    get_it: str
    """What to do where one of them is not."""

    installs: str
    """What an environment has of it, such as an npm package."""

    source: str
    """Where packages come from."""

    unreachable: re.Pattern[bytes]
    """What it says when it did not get as far as there."""

    offline: Mapping[str, str]
    """The variables with which it takes what its own cache has."""

    defaults: Mapping[str, str] = field(default_factory=dict)
    """Variables for it, where the user has set none."""

    elsewhere: Callable[[], str | None] = lambda: None
    """Where it is, if it is not on PATH."""

    runs: tuple[str, ...] = ()
    """What is run instead of a program of its name: the beginning of a command line."""

    module: str = ""
    """What that imports, and one of muxsim's extras has."""

    def lacks(self) -> str:
        """What to do where that cannot be imported; "" if it can."""
        if not self.module or importlib.util.find_spec(self.module) is not None:
            return ""
        return f"{self.installs} need {self.module}: {self.get_it}"


class Run(Protocol):
    """Runs an installer to its end, with stdout and stderr together, and ends it with what it started if cancelled.

    It inherits the lock, which so outlives a killed muxsim for as long as it runs.
    """

    async def __call__(
        self, argv: tuple[str, ...], *, cwd: Path, environ: Mapping[str, str], lock: int
    ) -> subprocess.CompletedProcess[bytes]: ...


@dataclass(frozen=True)
class Installer:
    """Programs for one environment: with its variables on top of ``environ``, into a folder of the cache."""

    program: Program
    spec: EnvSpec
    cache: Path
    environ: Mapping[str, str]
    run: Run

    first: Path | None = None
    """Where programs are looked for before PATH."""

    log: Path | None = None
    """Where all is kept that they say."""

    only_looks: bool = False
    """Whether nothing is to be installed, since somebody only wants to know what there is."""

    def tool(self, name: str) -> str:
        """The path of a program that has to be there."""
        path = shutil.which(name, path=self.variables.get("PATH"))
        if path is None and name == self.program.name:
            path = self.program.elsewhere()
        if path is None:
            raise PackageError(f"{os.path.basename(name)} is not on PATH: {self.program.get_it}, which has it")
        return path

    def has(self, name: str) -> bool:
        """Whether a program is on PATH."""
        return shutil.which(name, path=self.variables.get("PATH")) is not None

    @property
    def variables(self) -> dict[str, str]:
        """What it sees: the spec's own on top, but for those that differ from session to session."""
        own = {name: fixed(value) for name, value in self.spec.env.items() if not has_placeholder(value)}
        seen = {**self.program.defaults, **self.environ, **own}
        if self.first is not None:
            seen["PATH"] = os.pathsep.join([str(self.first), *filter(None, [seen.get("PATH")])])
        return seen

    async def install(
        self,
        args: tuple[str, ...],
        cwd: Path,
        lock: int,
        *,
        what: str,
        folders: Mapping[str, str] | None = None,
        culprit: Callable[[str], str] = lambda output: "",
    ) -> None:
        """Runs it to its end; where its source cannot be reached, with what it has in its own cache.

        ``culprit`` is what of it has failed, from what was said.
        """
        if self.only_looks:
            raise PackageError(f"{what} is not installed: it will be when something is built or started")
        program = self.program
        argv, environ = (*(program.runs or (self.tool(program.name),)), *args), {**self.variables, **(folders or {})}
        done = await self._logged(argv, cwd, environ, lock)
        if done.returncode and program.unreachable.search(done.stdout):
            offline = {**environ, **program.offline}
            if (await self._logged(argv, cwd, offline, lock)).returncode == 0:
                return
        if done.returncode:
            failed = culprit(done.stdout.decode(errors="replace")) or without_secrets(what)
            raise PackageError(
                f"{program.name} could not install {failed} (exit status {done.returncode}): "
                f"{self._advice(done.stdout)}",
                output=telling_lines(done.stdout),
            )

    def _advice(self, said: bytes) -> str:
        if NO_ROOM.search(said):
            advice = f"make room in {self.cache}, or name another place with MUXSIM_CACHE"
        else:
            source = self.program.source
            advice = f"check the package's name and version, and that the {source} can be reached"
        return advice if self.log is None else f"{advice}; all that was said is in {self.log}"

    async def _logged(
        self, argv: tuple[str, ...], cwd: Path, environ: Mapping[str, str], lock: int
    ) -> subprocess.CompletedProcess[bytes]:
        done = await self.run(argv, cwd=cwd, environ=environ, lock=lock)
        if self.log is not None:
            # A full disk is told by what it keeps from being installed, not by what it keeps out of here.
            with contextlib.suppress(OSError), self.log.open("ab") as log:
                said = f"$ {shlex.join(argv)}\n{done.stdout.decode(errors='replace')}(exit status {done.returncode})\n"
                log.write(without_secrets(said).encode(errors="replace"))
        return done

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """Bound a block by the spec's ``install_timeout``, and say of each failure whose it is and what to do.

        Raises PackageError.
        """
        name, limit = self.spec.name, self.spec.limits.install_timeout
        its, source = self.program.installs, self.program.source
        try:
            with trio.fail_after(limit):
                yield
        except PackageError as error:
            raise PackageError(f"environment {name}: {error.message}", output=error.output) from error
        except trio.TooSlowError as error:
            advice = f"see whether the {source} can be reached, or raise install_timeout"
            message = f"environment {name}: its {its} took more than {limit:g} s to install: {advice}"
            raise PackageError(message) from error
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            mended = f"make room in {self.cache}" if full else f"see that {self.cache} can be written"
            advice = f"{mended}, or name another place with MUXSIM_CACHE"
            message = f"environment {name}: its {its} could not be installed ({error}): {advice}"
            raise PackageError(message) from error


def installer_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of ``environ`` that installers may see: those of every backend, and what npm and uv are set by."""
    own = {
        name: value
        for name, value in environ.items()
        if name in _INSTALLERS or name.lower() in _PROXIES or name.startswith(_INSTALLERS_PREFIXES)
    }
    return {**passed_variables(environ), **own}


def telling_lines(output: bytes) -> tuple[str, ...]:
    """The lines of an installer that say why, without stack traces and the middle of a long report."""
    said = without_secrets(output.decode(errors="replace"))
    lines = [_shortened(line.rstrip()) for line in said.splitlines() if not _STACK_FRAME.match(line)]
    lines = [line for line in lines if line not in ("", "npm error")]
    if len(lines) > 2 * _OUTPUT_ENDS:
        lines[_OUTPUT_ENDS:-_OUTPUT_ENDS] = ["…"]
    return tuple(lines)


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


async def run_watched(
    argv: tuple[str, ...], *, cwd: Path, environ: Mapping[str, str], lock: int
) -> subprocess.CompletedProcess[bytes]:
    """Under a guardian of its own, for who has no launcher: see `Run`."""
    async with Launcher.open() as launcher:
        return await run_under(launcher)(argv, cwd=cwd, environ=environ, lock=lock)


def run_under(launcher: Launcher) -> Run:
    """Under the eye of a launcher's guardian, as backends are: whatever becomes of muxsim, it ends. See `Run`."""

    async def run(
        argv: tuple[str, ...], *, cwd: Path, environ: Mapping[str, str], lock: int
    ) -> subprocess.CompletedProcess[bytes]:
        process = await launcher.spawn(Command(argv, environ, str(cwd)), session="installer", lent=lock)
        said = bytearray()
        try:
            process.close_stdin()
            async with trio.open_nursery() as nursery:
                for stream in (process.stdout, process.stderr):
                    nursery.start_soon(_collect, stream, said)
                await process.wait()
                # What it wrote is in the pipes; what it has left behind may hold them open.
                nursery.cancel_scope.deadline = trio.current_time() + _LAST_WORDS
        finally:
            await process.end(AT_ONCE)
        assert process.returncode is not None
        return subprocess.CompletedProcess(argv, process.returncode, bytes(said))

    return run


async def _collect(stream: int, said: bytearray) -> None:
    while True:
        await trio.lowlevel.wait_readable(stream)
        if not (data := os.read(stream, _READ)):
            return
        said += data
        del said[:-_MOST_SAID]
