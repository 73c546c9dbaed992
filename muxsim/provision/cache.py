"""muxsim's own cache of installed packages: one installs while others wait, and what is damaged is made anew."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Final, Protocol

import msgspec
import trio

from muxsim.errors import PackageError
from muxsim.spec import EnvSpec, fixed, has_placeholder, passed_variables

_LOCK_POLL: Final = 0.1  # s; a blocking flock could not be cancelled
_OUTPUT_ENDS: Final = 6  # installers put their cause first and a failed build's last: so many lines of either end
_STACK_FRAME: Final = re.compile(r"npm error\s+at ")

_RECORD: Final = "muxsim-contents.json"
# What a package consists of. Other files may be data, which a server that keeps them in its package changes or removes.
_CODE: Final = (".js", ".mjs", ".cjs", ".node", ".wasm", ".py", ".so", "package.json", "pyvenv.cfg")

_recorded: Final = msgspec.json.Decoder(dict[str, int])


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where muxsim keeps what can be made again: ``$MUXSIM_CACHE``, else ``muxsim`` in the user's cache."""
    if named := environ.get("MUXSIM_CACHE"):
        return Path(named).absolute()
    if base := environ.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / "muxsim"
    return Path(environ.get("HOME") or Path.home()) / ".cache" / "muxsim"


def key(name: str, *parts: str) -> str:
    """A file name that shows what it is for and is its own for the parts."""
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:60]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"{readable}-{digest[:12]}"


# ---- damage


def record(home: Path) -> None:
    """Note what an installed folder consists of, for `damage`."""
    (home / _RECORD).write_bytes(msgspec.json.encode(dict(_code_of(home))))


def was_recorded(home: Path) -> bool:
    """Whether an install was once finished here."""
    return (home / _RECORD).exists()


def damage(home: Path) -> str | None:
    """What is wrong with a folder since it was recorded, as far as names and sizes of its code tell; None if nothing.

    A cut-off copy, a full disk and a cleaner of old files all leave traces there.
    """
    try:
        expected = _recorded.decode((home / _RECORD).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return f"{_RECORD} is missing or cannot be read"
    found = dict(_code_of(home))
    for file, size in expected.items():
        if file not in found:
            return f"{file} is missing"
        if found[file] != size:
            return f"{file} has {found[file]} bytes instead of {size}"
    return None


def _code_of(home: Path) -> Iterator[tuple[str, int]]:
    for folder, _, files in os.walk(home):
        for file in files:
            if file.endswith(_CODE):
                path = os.path.join(folder, file)
                with contextlib.suppress(FileNotFoundError):  # a link to nothing
                    yield os.path.relpath(path, home), os.stat(path).st_size


# ---- installing

# What says where packages come from, and who may have them; and where we keep them.
_INSTALLERS: Final = frozenset({"MUXSIM_CACHE", "NODE_AUTH_TOKEN", "SSH_AUTH_SOCK", "NETRC"})
_INSTALLERS_PREFIXES: Final = ("npm_", "NPM_", "UV_", "GIT_")
_PROXIES: Final = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})


@contextlib.contextmanager
def installing(spec: EnvSpec, what: str, source: str, cache: Path) -> Iterator[None]:
    """Bound an installation by the spec's ``install_timeout``, and say of each failure whose it is and what to do.

    ``what`` is installed into ``cache`` from ``source``; both are words for the error. Raises PackageError.
    """
    limit = spec.limits.install_timeout
    try:
        with trio.fail_after(limit):
            yield
    except PackageError as error:
        raise PackageError(f"environment {spec.name}: {error.message}", output=error.output) from error
    except trio.TooSlowError as error:
        advice = f"see whether the {source} can be reached, or raise install_timeout"
        raise PackageError(
            f"environment {spec.name}: its {what} took more than {limit:g} s to install: {advice}"
        ) from error
    except OSError as error:
        advice = f"make room in {cache}, or name another place with MUXSIM_CACHE"
        raise PackageError(f"environment {spec.name}: its {what} could not be installed ({error}): {advice}") from error


def with_fixed_variables(environ: Mapping[str, str], spec: EnvSpec) -> dict[str, str]:
    """``environ`` with the spec's own variables on top, but for those that differ from session to session.

    For a pool's installers it is what these may see of it.
    """
    base = environ if _runner.get() is None else installer_variables(environ)
    return {**base, **{name: fixed(value) for name, value in spec.env.items() if not has_placeholder(value)}}


class Runner(Protocol):
    """Runs an installer to its end, with stdout and stderr together, and ends it with what it started if cancelled.

    It inherits the lock, which so outlives a killed muxsim for as long as it runs.
    """

    async def __call__(
        self, argv: tuple[str, ...], *, cwd: Path, environ: Mapping[str, str], lock: int
    ) -> subprocess.CompletedProcess[bytes]: ...


async def _run_directly(
    argv: tuple[str, ...], *, cwd: Path, environ: Mapping[str, str], lock: int
) -> subprocess.CompletedProcess[bytes]:
    return await trio.run_process(
        [*argv],
        capture_stdout=True,
        stderr=subprocess.STDOUT,
        check=False,
        cwd=cwd,
        env=environ,
        pass_fds=[lock],
        start_new_session=True,
        deliver_cancel=_kill_group,
    )


_runner: ContextVar[Runner | None] = ContextVar("runner", default=None)


@contextlib.contextmanager
def installers_run_by(runner: Runner) -> Iterator[None]:
    """Have ``runner`` run what is installed in this block, with no more than `installer_variables`, as a pool does.

    Outside of one nobody watches over installers, and they see what their caller gives them.
    """
    token = _runner.set(runner)
    try:
        yield
    finally:
        _runner.reset(token)


async def run_installer(
    argv: Iterable[str], *, cwd: Path, environ: Mapping[str, str], lock: int
) -> subprocess.CompletedProcess[bytes]:
    """Run an installer to its end, see `Runner`."""
    run = _runner.get() or _run_directly
    return await run(tuple(argv), cwd=cwd, environ=environ, lock=lock)


def installer_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of ``environ`` that installers may see: those of every backend, and what npm and uv are set by."""
    own = {
        name: value
        for name, value in environ.items()
        if name in _INSTALLERS or name.lower() in _PROXIES or name.startswith(_INSTALLERS_PREFIXES)
    }
    return {**passed_variables(environ), **own}


async def _kill_group(installer: trio.Process) -> None:
    """Ends it and the install scripts it runs, at once: half an install is thrown away in any case."""
    os.killpg(installer.pid, signal.SIGKILL)


def telling_lines(output: bytes) -> tuple[str, ...]:
    """The lines of an installer that say why, without stack traces and the middle of a long report."""
    lines = [line.rstrip() for line in output.decode(errors="replace").splitlines() if not _STACK_FRAME.match(line)]
    lines = [line for line in lines if line not in ("", "npm error")]
    if len(lines) > 2 * _OUTPUT_ENDS:
        lines[_OUTPUT_ENDS:-_OUTPUT_ENDS] = ["…"]
    return tuple(lines)


@contextlib.asynccontextmanager
async def locked(name: Path) -> AsyncGenerator[int]:
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


async def remove(folder: Path) -> None:
    """Removes a folder tree, in a thread because it may hold thousands of files, and to the end."""
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(functools.partial(shutil.rmtree, folder, ignore_errors=True))
