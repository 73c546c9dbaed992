"""Environments of Python apart from that of the tests, for packages that are large or want other versions.

Tests that use one are marked `large`: `scripts/test_large` runs them, apart from all others.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from harness import ROOT

FOLDER = ROOT / ".venv" / "own"


def python_with(
    name: str, *requirements: str, first: tuple[str, ...] = (), extras: tuple[str, ...] = (), alone: bool = False
) -> Path:
    """The interpreter of an environment that has this muxsim with `extras`, and `requirements`.

    It is made once and stays, until what it is made of has changed. `first` is installed before the rest, by pip: it
    takes builds that a machine is configured for, such as those of torch without CUDA. `alone` is for what cannot be
    installed beside muxsim, and speaks to one over HTTP.
    """
    folder = FOLDER / name
    project = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    made_of = repr((sys.version, sorted(requirements), first, project, (ROOT / "pyproject.toml").read_text()))
    content = hashlib.sha256(made_of.encode()).hexdigest()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers may want the same one at once
        stamp = folder / ".complete"
        if not stamp.exists() or stamp.read_text() != content:
            shutil.rmtree(folder, ignore_errors=True)
            run(sys.executable, "-m", "venv", folder)
            python = folder / "bin" / "python"
            if first:
                run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *first)
            uv = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-config", "--python", python)
            run(*uv, *first, *requirements, *(() if alone else ("--editable", project)))
            stamp.write_text(content)
    return folder / "bin" / "python"


def for_training() -> Path:
    """The interpreter that has torch, for all tests that need it: to install it is most of the time that they take."""
    trainers = ("stable-baselines3==2.9.2", "moviepy==2.2.1", "trl==1.16.0", "transformers==5.24.0")
    return python_with("training", *trainers, first=("torch==2.13.0",), extras=("examples",))


def run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
