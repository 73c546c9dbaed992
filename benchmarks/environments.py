"""The environments that `startup.py` and `scale.py` open, and the configs under which muxsim serves them."""

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from contenders import CACHE, HERE, NotHad, run_quietly

from muxsim.spec import EnvSpec

ROOT = HERE.parent
EXAMPLES = ROOT / "examples"
TREASURE = ROOT / "js_servers" / "treasure-grid"
EVERYTHING = "@modelcontextprotocol/server-everything"
EVERYTHING_VERSION = "2026.8.31"
EVERYTHING_HOME = CACHE / "server-everything"
# Keys that this muxsim knows. What it does not know it cannot be asked for, and the row says so.
KNOWN_KEYS = {field.name for field in dataclasses.fields(EnvSpec)}


@dataclass(frozen=True)
class Environment:
    """A server, as muxsim's config names it and as it is started by hand. `by_hand` takes the seed."""

    name: str
    table: str
    by_hand: Callable[[int], Sequence[str]]
    tool: str
    arguments: str
    shows: bytes
    """What the first call's answer has in it."""
    python: bool = False
    modern: bool = False
    """Whether it speaks a revision without a handshake too."""
    seeded: bool = True
    as_users_run_it: Sequence[str] = ()
    """Another command line for the same server, slower to start: `npx`."""
    prepare: Callable[[], None] = lambda: None


def toml(values: dict[str, object]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


def _example(name: str, tool: str, arguments: str, shows: bytes) -> Environment:
    script = str(EXAMPLES / name / "server.py")
    return Environment(
        name=name,
        table=toml({"command": script, "args": ["--seed", "{seed}"]}),
        by_hand=lambda seed: [sys.executable, script, "--seed", str(seed)],
        tool=tool,
        arguments=arguments,
        shows=shows,
        python=True,
        modern=True,
    )


def _prepare_treasure() -> None:
    if not (TREASURE / "node_modules").exists():
        run_quietly(["npm", "install", "--prefix", TREASURE, "--no-audit", "--no-fund", "--omit=dev"])


def _prepare_everything() -> None:
    if shutil.which("npm") is None:
        raise NotHad("npm is not installed")
    if not _everything_bin().exists():
        EVERYTHING_HOME.mkdir(parents=True, exist_ok=True)
        (EVERYTHING_HOME / "package.json").write_text('{"private": true}')
        quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
        run_quietly(["npm", "install", "--prefix", EVERYTHING_HOME, *quiet, f"{EVERYTHING}@{EVERYTHING_VERSION}"])


def _everything_bin() -> Path:
    return EVERYTHING_HOME / "node_modules" / EVERYTHING / "dist" / "index.js"


_NPX = ("-y", f"{EVERYTHING}@{EVERYTHING_VERSION}", "stdio")
FROZEN_LAKE = _example("frozen_lake", "lake_move", '{"action":"LEFT"}', b"You are at row")
ENVIRONMENTS = (
    FROZEN_LAKE,
    _example("lunar_lander", "fire", '{"engine":"MAIN"}', b"image/png"),
    Environment(
        name="treasure_grid",
        table=toml({"command": str(TREASURE), "args": ["--seed", "{seed}"]}),
        by_hand=lambda seed: ["node", str(TREASURE / "server.js"), "--seed", str(seed)],
        tool="move",
        arguments='{"direction":"left"}',
        shows=b'"result"',
        prepare=_prepare_treasure,
    ),
    Environment(
        name="server_everything",
        table=toml({"command": "npx", "args": list(_NPX)}),
        by_hand=lambda _: ["node", str(_everything_bin()), "stdio"],
        tool="echo",
        arguments='{"message":"here"}',
        shows=b"here",
        seeded=False,
        as_users_run_it=("npx", *_NPX),
        prepare=_prepare_everything,
    ),
)


@dataclass(frozen=True)
class Way:
    """How muxsim starts a session's process."""

    name: str
    what: str
    zygote: bool
    warm: bool
    spare: bool = True
    """Whether a fork waits although none is asked for."""

    def missing(self) -> str:
        """Why this muxsim cannot be asked for it, "" if it can."""
        key = "warm" if self.warm else "zygote" if self.zygote else ""
        return f"this muxsim's config knows no {key}" if key and key not in KNOWN_KEYS else ""


FRESH = Way("fresh", "muxsim, a fresh process for each session", zygote=False, warm=False)
FORK = Way("fork", "muxsim, forked from a zygote when asked for", zygote=True, warm=False, spare=False)
ZYGOTE = Way("zygote", "muxsim as it is, forks of the zygote waiting", zygote=True, warm=False)
WARM = Way("warm", "muxsim, processes kept ready", zygote=True, warm=True)
WAYS = (FRESH, FORK, ZYGOTE, WARM)


def write_config(
    folder: Path, environments: Sequence[Environment], way: Way, *, max_sessions: int, warm: int = 0
) -> Path:
    """A `muxsim.toml` of these environments. It bounds nothing that is measured: limits are others' subject."""
    text = [
        f"[server]\nmax_sessions = {max_sessions + warm}\nmax_pending = {max_sessions}\nqueue_timeout = 600\n"
        "start_timeout = 600\nopens_per_second = 0\n"
    ]
    for environment in environments:
        options: dict[str, object] = {}
        if environment.python and "zygote" in KNOWN_KEYS:
            options["zygote"] = way.zygote
            if not way.spare:
                options["warm"] = 0
        if way.warm:
            options["warm"] = warm
            if not environment.seeded:
                options["seeded"] = False
        text.append(f"[environments.{environment.name}]\n{environment.table}{toml(options)}")
    file = folder / f"{way.name}.toml"
    file.write_text("\n".join(text))
    return file


def muxsim_command(config: Path) -> list[str]:
    """`muxsim serve` of this interpreter, on a port of its own choice."""
    return [sys.executable, "-m", "muxsim", "serve", str(config), "--port", "0", "--log-level", "warning"]


def session_path(environment: Environment, seed: int) -> str:
    """The URL on which a handshake makes a session of muxsim's."""
    return f"/mcp?env={environment.name}" + (f"&seed={seed}" if environment.seeded else "")
