"""How long building an environment takes: from nothing, from what was downloaded before, and once it is there."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from contenders import HERE, NotHad, run_quietly
from environments import toml
from report import table

REQUIREMENTS = ("mcp>=2,<3", "gymnasium>=1")
NAME = "built"
COLD, WARM, THERE = "cold", "warm", "there"
STATES = (COLD, WARM, THERE)


@dataclass
class Built:
    """Seconds of each way to build it, by what there was before."""

    name: str
    what: str
    seconds: dict[str, list[float]] = field(default_factory=lambda: {state: [] for state in STATES})
    failure: str = ""


def timed(command: Sequence[str | Path]) -> float:
    begun = time.perf_counter()
    run_quietly(command)
    return time.perf_counter() - begun


def by_pip(folder: Path, _: Path) -> dict[str, float]:
    """What one would type. pip has its packages in a cache of its own too."""
    os.environ["PIP_CACHE_DIR"] = str(folder / "pip")

    def install() -> float:
        home = folder / "venv"
        shutil.rmtree(home, ignore_errors=True)
        begun = timed([sys.executable, "-m", "venv", home])
        return begun + timed([home / "bin" / "pip", "install", "--quiet", *REQUIREMENTS])

    return {COLD: install(), WARM: install()}


def by_muxsim(values: Mapping[str, object]) -> Callable[[Path], dict[str, float]]:
    """`muxsim envs build`, its own start and the verification included."""

    def measure(folder: Path) -> dict[str, float]:
        os.environ["MUXSIM_CACHE"], os.environ["UV_CACHE_DIR"] = str(folder / "muxsim"), str(folder / "uv")
        script, config = folder / "server.py", folder / "muxsim.toml"
        script.write_text("")
        config.write_text(f"[environments.{NAME}]\n{toml({'command': str(script), **values})}")
        muxsim = [sys.executable, "-m", "muxsim", "envs"]
        building = [*muxsim, "build", "--config", config]
        found = {COLD: timed(building), THERE: timed(building)}
        run_quietly([*muxsim, "remove", NAME, "--config", config])
        return found | {WARM: timed(building)}

    return measure


def by_uv(folder: Path, _: Path) -> dict[str, float]:
    return by_muxsim({"requirements": list(REQUIREMENTS)})(folder)


def by_conda(folder: Path, channel: Path) -> dict[str, float]:
    if not channel.exists():
        make_channel(channel)
    return by_muxsim({"conda": ["greeting"], "channels": [channel.as_uri()]})(folder)


def make_channel(folder: Path) -> None:
    """The tests' own: this machine's Python, and a small package."""
    making = (
        "import sys, pathlib; from conda_channel import standard_channel; standard_channel(pathlib.Path(sys.argv[1]))"
    )
    try:
        subprocess.run(
            [sys.executable, "-c", making, folder],
            env={**os.environ, "PYTHONPATH": str(HERE.parent / "tests")},
            check=True,
            capture_output=True,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise NotHad(f"no channel could be made: {said[-1]}") from error


WAYS: Mapping[str, tuple[str, Callable[[Path, Path], dict[str, float]]]] = {
    "pip": (f"python -m venv, pip install {' '.join(REQUIREMENTS)}", by_pip),
    "uv": ("the same as requirements, by muxsim envs build", by_uv),
    "conda": ("Python and a small package of a channel of file://, the same", by_conda),
}


def build(rounds: int, folder: Path) -> list[Built]:
    """Each by turns, with caches that are empty at first."""
    found = [Built(name, what) for name, (what, _) in WAYS.items()]
    before = dict(os.environ)
    for number in range(rounds):
        for built in found:
            if built.failure:
                continue
            own = folder / f"{built.name}-{number}"
            own.mkdir()
            try:
                for state, seconds in WAYS[built.name][1](own, folder / "channel").items():
                    built.seconds[state].append(seconds)
            except (NotHad, OSError) as error:
                built.failure = str(error)
            finally:
                os.environ.clear()
                os.environ.update(before)
                subprocess.run(["chmod", "-R", "u+w", own], check=False)  # what is installed is read-only
                shutil.rmtree(own, ignore_errors=True)
    return found


def shown_builds(builds: Sequence[Built]) -> str:
    yardstick = {state: statistics.median(times) for state, times in builds[0].seconds.items() if times}
    lines = []
    for built in builds:
        if any(built.seconds.values()):
            lines.append([built.name, *(_cell(built, state, yardstick) for state in STATES), built.what])
    head = ["building, s (of pip's)", *STATES, ""]
    return "\n".join([table(head, lines), *(f"{one.name}: {one.failure}" for one in builds if one.failure)])


def _cell(built: Built, state: str, yardstick: Mapping[str, float]) -> str:
    if not built.seconds[state]:
        return "-"
    seconds = statistics.median(built.seconds[state])
    return f"{seconds:.2f} ({seconds / yardstick[state]:.2f})" if state in yardstick else f"{seconds:.2f}"
