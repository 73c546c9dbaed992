"""What walls between environments and between sessions cost a session's opening, beside one that has none.

    python benchmarks/isolation.py [--only plain,venv,…] [--seconds N] [--json FILE]

All rows are environments of one `muxsim serve`, forked from their zygotes, and take turns, so that a slow minute meets
every one.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from contenders import NotHad
from drivers import BrokenRun
from environments import EXAMPLES, FROZEN_LAKE, ZYGOTE, Environment, muxsim_command, toml, write_config
from opening import AS_USUAL, open_session
from processes import NotReady, settle
from report import machine, table
from startup import LEARNING, QUIET, SETTLE_LIMIT, names, served

PLAIN = "plain"
AIM = 1.5  # times plain
MODULE = "frozen_lake.server"
TIME_SERVER = "mcp-server-time"


@dataclass
class Row:
    """Openings of one environment, in seconds."""

    name: str
    what: str
    environment: Environment
    seconds: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def p50(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Kind:
    """One way to have an environment. `make` gives it, with what it needs made in a folder; NotHad if it cannot be."""

    name: str
    what: str
    make: Callable[[Path], Environment]


def lake(name: str, command: str, *args: str, **values: object) -> Environment:
    """FrozenLake, by another command."""
    return replace(
        FROZEN_LAKE, name=name, table=toml({"command": command, "args": [*args, "--seed", "{seed}"], **values})
    )


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
    copy.write_text((EXAMPLES / "frozen_lake" / "server.py").read_text())
    return lake("venv", str(venv(folder)), str(copy))


def as_module(folder: Path) -> Environment:
    return lake("module", str(venv(folder)), "-m", MODULE, cwd=str(EXAMPLES))


def as_console_script(folder: Path) -> Environment:
    script = venv(folder).with_name("frozen-lake")
    call = f"import sys\nfrom {MODULE} import server\nif __name__ == '__main__':\n    sys.exit(server.run())\n"
    script.write_text(f"#!{venv(folder)}\n{call}")
    script.chmod(0o755)
    return lake("console", str(script))


def by_uvx(_: Path, name: str = "uvx", *, python: bool = True) -> Environment:
    """`write_config` sets zygote for Python's; what is none here is to be started afresh."""
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


KINDS = (
    Kind(PLAIN, "FrozenLake by muxsim's own interpreter", lambda _: replace(FROZEN_LAKE, name=PLAIN)),
    Kind("venv", "a copy of it, by a virtual environment's", in_venv),
    Kind("module", "the same with -m", as_module),
    Kind("console", "the same as a console script", as_console_script),
    Kind("uvx", f"{TIME_SERVER}, which has more to do itself, as uvx names it", by_uvx),
    Kind("uvx-fresh", "the same in a fresh process", lambda folder: by_uvx(folder, "uvx-fresh", python=False)),
)


class Bench:
    """One server with all of the rows' environments."""

    def __init__(self, rows: Sequence[Row], port: int, pid: int) -> None:
        self._rows = list(rows)
        self._port = port
        self._pid = pid
        self._seed = 0

    def learn(self) -> None:
        for row in list(self._rows):
            self._open(row)
            settle(self._pid, LEARNING, SETTLE_LIMIT)
            row.seconds.clear()

    def open_in_turns(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._rows and time.monotonic() < deadline:
            for row in list(self._rows):
                self._open(row)
                settle(self._pid, QUIET, SETTLE_LIMIT)

    def _open(self, row: Row) -> None:
        self._seed += 1
        try:
            took, lane = open_session(self._port, AS_USUAL, row.environment, self._seed)
            lane.end()
            row.seconds.append(took)
        except (BrokenRun, OSError) as error:
            row.failure = f"{error or type(error).__name__}"
            self._rows.remove(row)


def measure(kinds: Sequence[Kind], seconds: float, folder: Path) -> list[Row]:
    rows = []
    for kind in kinds:
        try:
            rows.append(Row(kind.name, kind.what, kind.make(folder)))
        except (NotHad, OSError, subprocess.SubprocessError) as error:
            print(f"{kind.name} could not be had: {error}", file=sys.stderr)
    file = write_config(folder, [row.environment for row in rows], ZYGOTE, max_sessions=64)
    with served(muxsim_command(file), 0) as server:
        bench = Bench(rows, server.port, server.pid)
        bench.learn()
        bench.open_in_turns(seconds)
    return rows


def shown(rows: Sequence[Row]) -> str:
    plain = next((row.p50 for row in rows if row.name == PLAIN and row.seconds), None)
    lines = [
        [row.name, str(len(row.seconds)), f"{row.p50 * 1e3:.1f}", f"{row.p50 / plain:.2f}" if plain else "-", row.what]
        for row in rows
        if row.seconds
    ]
    failed = [f"{row.name}: {row.failure}" for row in rows if row.failure]
    return "\n".join([table(["", "openings", "p50 ms", f"of {PLAIN} (at most {AIM})", ""], lines), *failed])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = [kind.name for kind in KINDS]
    parser.add_argument("--only", type=names(known), help=f"rows beside plain, of {', '.join(known)}")
    parser.add_argument("--seconds", type=float, default=10.0, help="of openings in turn, after one of each (10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if options.only is None or kind.name in (PLAIN, *options.only)]
    print(machine(), flush=True)
    # A uv that lies beside this interpreter, as the tests have it.
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)])
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(kinds, options.seconds, Path(folder))
    print(shown(rows))
    if options.json is not None:
        options.json.write_text(json.dumps({row.name: row.seconds for row in rows}) + "\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, NotReady):
        main()
