"""Who is measured: muxsim, the proxies from the registries and the official SDK; how each is had and started.

Rivals are installed into `benchmarks/.cache/`, each where it cannot disturb another. Deleting that folder is how to get
newer ones.
"""

import json
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE / ".cache"
NOTHING = str(HERE / "backends" / "nothing.py")
# -S: the interpreter's own start is not what a proxy is measured by.
BACKEND = (sys.executable, "-S", NOTHING)
INSTALL_TIMEOUT = 600.0


class NotHad(Exception):
    """A contender could not be installed or found."""


@dataclass(frozen=True)
class Contender:
    """A row of the benchmark."""

    name: str
    what: str
    prepare: Callable[[], str]
    """Installs it if need be and gives its version. Raises NotHad."""
    command: Callable[..., Sequence[str]]
    """The command line that serves on the port, given one, and a backend's command line."""
    picks_port: bool = False
    """It is given port 0 and prints its URL."""


def run_quietly(command: Sequence[str | Path]) -> str:
    """The command's output. Raises NotHad with its last line."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHad(str(error)) from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise NotHad(f"{Path(command[0]).name} ended with status {done.returncode}: {said[-1]}")
    return done.stdout


def _python_package(folder: str, requirement: str, package: str) -> Callable[[], str]:
    """Installs into a virtual environment of its own."""

    def prepare() -> str:
        home = CACHE / folder
        python = home / "bin" / "python"
        ask = f"import importlib.metadata as m; print(m.version({package!r}))"
        if not python.exists():
            venv.create(home, with_pip=True)
        try:
            return run_quietly([python, "-c", ask]).strip()
        except NotHad:
            run_quietly([python, "-m", "pip", "install", "--quiet", requirement])
            return run_quietly([python, "-c", ask]).strip()

    return prepare


def _node_package(package: str, wanted: str) -> Callable[[], str]:
    """Installs into a folder of its own, without running the package's install scripts."""

    def prepare() -> str:
        home = _node_home(package)
        manifest = home / "node_modules" / package / "package.json"
        if not manifest.exists():
            if shutil.which("npm") is None:
                raise NotHad("npm is not installed")
            home.mkdir(parents=True, exist_ok=True)
            (home / "package.json").write_text('{"private": true}')
            quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
            run_quietly(["npm", "install", "--prefix", home, *quiet, f"{package}@{wanted}"])
        return str(json.loads(manifest.read_text())["version"])

    return prepare


def _node_home(package: str) -> Path:
    return CACHE / f"node-{package}"


def _node_bin(package: str) -> list[str]:
    return ["node", str(_node_home(package) / "node_modules" / ".bin" / package)]


def _muxsim() -> Path:
    return Path(sys.executable).with_name("muxsim")


def _muxsim_version() -> str:
    if not _muxsim().exists():
        raise NotHad(f"no muxsim beside {sys.executable}: pip install . in its environment")
    return run_quietly([_muxsim(), "--version"]).split()[-1]


def _cache_python(folder: str, script: str) -> list[str]:
    return [str(CACHE / folder / "bin" / "python"), str(HERE / "backends" / script)]


CONTENDERS = (
    Contender(
        name="muxsim",
        what="muxsim serve, a child per session",
        prepare=_muxsim_version,
        command=lambda port, backend=BACKEND: [
            str(_muxsim()),
            "serve",
            "--port",
            str(port),
            "--log-level",
            "warning",
            "--",
            *backend,
        ],
        picks_port=True,
    ),
    Contender(
        name="supergateway",
        what="npm supergateway --stateful, a child per session",
        prepare=_node_package("supergateway", "4"),
        command=lambda port, backend=BACKEND: [
            *_node_bin("supergateway"),
            "--stdio",
            shlex.join(backend),
            "--outputTransport",
            "streamableHttp",
            "--stateful",
            "--port",
            str(port),
            "--logLevel",
            "none",
        ],
    ),
    Contender(
        name="mcp-proxy-npm",
        what="npm mcp-proxy, one child shared by all",
        prepare=_node_package("mcp-proxy", "6"),
        command=lambda port, backend=BACKEND: [
            *_node_bin("mcp-proxy"),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--server",
            "stream",
            "--",
            *backend,
        ],
    ),
    Contender(
        name="mcp-proxy-pypi",
        what="PyPI mcp-proxy, one child shared by all",
        prepare=_python_package("python-mcp-proxy", "mcp-proxy", "mcp-proxy"),
        command=lambda port, backend=BACKEND: [
            str(CACHE / "python-mcp-proxy" / "bin" / "mcp-proxy"),
            "--port",
            str(port),
            "--log-level",
            "ERROR",
            "--",
            *backend,
        ],
    ),
    Contender(
        name="fastmcp",
        what="PyPI fastmcp's proxy, a child per session",
        prepare=_python_package("python-fastmcp", "fastmcp", "fastmcp"),
        command=lambda port, backend=BACKEND: [
            *_cache_python("python-fastmcp", "fastmcp_proxy.py"),
            str(port),
            *backend,
        ],
    ),
    Contender(
        name="sdk",
        what="the official SDK serving the tool itself, event streams (its default)",
        prepare=_python_package("python-sdk", "mcp>=2.3,<3", "mcp"),
        command=lambda port, backend=BACKEND: [*_cache_python("python-sdk", "sdk_server.py"), str(port)],
    ),
    Contender(
        name="sdk-json",
        what="the official SDK serving the tool itself, JSON answers",
        prepare=_python_package("python-sdk", "mcp>=2.3,<3", "mcp"),
        command=lambda port, backend=BACKEND: [*_cache_python("python-sdk", "sdk_server.py"), str(port), "json"],
    ),
)
