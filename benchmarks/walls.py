"""The environments that `isolation.py` opens: FrozenLake behind each wall, and by each kind of Python."""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from building import make_channel
from contenders import NotHad
from environments import EXAMPLES, FROZEN_LAKE, ROOT, Environment, toml

PLAIN, FRESH, TOGETHER = "plain", "fresh", "together"
OF_ANY_PYTHON = 1.5  # times plain, at most
BEHIND_WALLS = 1.3
MODULE = "frozen_lake.server"
SERVER = EXAMPLES / "frozen_lake" / "server.py"
TIME_SERVER = "mcp-server-time"
OWN = {"requirements": [f"mcp-muxsim[gym] @ {ROOT.as_uri()}"]}
LANDLOCK = {"sandbox": "landlock"}


@dataclass(frozen=True)
class Kind:
    """One way to have an environment. `make` gives it, with what it needs made in a folder; NotHad if it cannot be."""

    name: str
    what: str
    make: Callable[[Path], Environment]
    beside: str = PLAIN
    """The row that it is compared with."""
    aim: float | None = None


def lake(name: str, command: str = str(SERVER), *args: str, fresh: bool = False, **values: object) -> Environment:
    """FrozenLake, by another command. `write_config` sets zygote for Python's; what is none is started afresh."""
    values = {"command": command, "args": [*args, "--seed", "{seed}"], **values, **({"zygote": False} if fresh else {})}
    return replace(FROZEN_LAKE, name=name, table=toml(values), python=not fresh)


def venv(folder: Path) -> Path:
    """A virtual environment that finds the packages of ours, and the examples; the path of its interpreter."""
    home = folder / "venv"
    if not home.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True, capture_output=True)
        packages = home / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
        ours = [path for path in sys.path if path.endswith("-packages")]
        (packages / "ours.pth").write_text("\n".join([*ours, str(EXAMPLES.parent), str(EXAMPLES)]) + "\n")
    return home / "bin" / "python"


def in_venv(folder: Path) -> Environment:
    copy = folder / "copy" / "server.py"
    copy.parent.mkdir()
    copy.write_text(SERVER.read_text())
    return lake("venv", str(venv(folder)), str(copy))


def as_module(folder: Path) -> Environment:
    return lake("module", str(venv(folder)), "-m", MODULE, cwd=str(EXAMPLES))


def as_console_script(folder: Path) -> Environment:
    script = venv(folder).with_name("frozen-lake")
    call = f"import sys\nfrom {MODULE} import server\nif __name__ == '__main__':\n    sys.exit(server.run())\n"
    script.write_text(f"#!{venv(folder)}\n{call}")
    script.chmod(0o755)
    return lake("console", str(script))


def as_tool(folder: Path) -> Environment:
    """FrozenLake as a package of its own, as uvx names one."""
    package = folder / "lake-tool"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        "[project]\nname = 'lake-tool'\nversion = '1'\nscripts = { lake-tool = 'lake_tool:server.run' }\n"
        "[build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n"
        "[tool.hatch.build.targets.wheel]\nonly-include = ['lake_tool.py']\n"
    )
    (package / "lake_tool.py").write_text(SERVER.read_text())
    own = ("--with", OWN["requirements"][0], "--from", f"lake-tool @ {package.as_uri()}")
    return lake("tool", "uvx", *own, "lake-tool", private=[])


def in_conda(folder: Path) -> Environment:
    channel = folder / "channel"
    make_channel(channel)
    return lake("conda", conda=["python"], channels=[channel.as_uri()], **OWN, private=[])


def by_uvx(_: Path, name: str = "uvx", *, python: bool = True) -> Environment:
    fresh = {} if python else {"zygote": False}
    return Environment(
        name=name,
        table=toml({"command": "uvx", "args": [TIME_SERVER, "--local-timezone=UTC"], "seeded": False, **fresh}),
        by_hand=lambda _: ["uvx", TIME_SERVER],
        tool="get_current_time",
        arguments='{"timezone":"UTC"}',
        shows=b"timezone",
        python=python,
        seeded=False,
    )


def private(folder: Path) -> dict[str, object]:
    notes = folder / "notes"
    notes.mkdir(exist_ok=True)
    return {"private": [str(notes)]}


def bubblewrapped(_: Path) -> Environment:
    if shutil.which("bwrap") is None:
        raise NotHad("bwrap is not on PATH")
    return lake("bubblewrap", fresh=True, sandbox="bubblewrap")


KINDS = (
    Kind(PLAIN, "FrozenLake by muxsim's own interpreter", lambda _: lake(PLAIN)),
    Kind("venv", "a copy of it, by a virtual environment's", in_venv, aim=OF_ANY_PYTHON),
    Kind("module", "the same with -m", as_module, aim=OF_ANY_PYTHON),
    Kind("console", "the same as a console script", as_console_script, aim=OF_ANY_PYTHON),
    Kind("tool", "the same as a tool of uvx", as_tool, aim=OF_ANY_PYTHON),
    Kind("conda", "plain, by the Python of a conda environment", in_conda, aim=OF_ANY_PYTHON),
    Kind("own", "dependencies of its own, nothing private", lambda _: lake("own", **OWN, private=[]), aim=BEHIND_WALLS),
    Kind("private", "a private folder", lambda folder: lake("private", **private(folder)), aim=BEHIND_WALLS),
    Kind("landlock", "behind landlock", lambda _: lake("landlock", **LANDLOCK), aim=BEHIND_WALLS),
    Kind(TOGETHER, "own, private, landlock", lambda _: lake(TOGETHER, **OWN, **LANDLOCK), aim=BEHIND_WALLS),
    Kind(FRESH, "plain in a fresh process", lambda _: lake(FRESH, fresh=True)),
    Kind("fresh-own", "own in one", lambda _: lake("fresh-own", fresh=True, **OWN, private=[]), FRESH),
    Kind("fresh-private", "private", lambda folder: lake("fresh-private", fresh=True, **private(folder)), FRESH),
    Kind("fresh-landlock", "landlock", lambda _: lake("fresh-landlock", fresh=True, **LANDLOCK), FRESH),
    Kind("fresh-together", "together", lambda _: lake("fresh-together", fresh=True, **OWN, **LANDLOCK), FRESH),
    Kind("bubblewrap", "in bubblewrap, which is always fresh", bubblewrapped, FRESH),
    Kind("uvx", f"{TIME_SERVER}, which has more to do itself, as uvx names it", by_uvx),
    Kind("uvx-fresh", "the same in a fresh process", lambda folder: by_uvx(folder, "uvx-fresh", python=False)),
)
