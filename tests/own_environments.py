"""Environments of Python apart from that of the tests, for packages that are large or want other versions.

Tests that use one are marked `large`: `scripts/test_large` runs them, apart from all others.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from harness import ROOT

FOLDER = ROOT / ".venv" / "own"


def python_with(
    name: str,
    *requirements: str,
    extras: tuple[str, ...] = (),
    alone: bool = False,
    python: str = sys.executable,
    overrides: Iterable[str] = (),
    bare: Iterable[str] = (),
) -> Path:
    """The interpreter of an environment that has this muxsim with `extras`, and `requirements`.

    It is made once and stays, until what it is made of has changed. `alone` is for what cannot be installed beside
    muxsim, and speaks to one over HTTP; `overrides` stand in place of what others require, and what is `bare` comes
    without what it requires.
    """
    folder = FOLDER / name
    project = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    wanted = sorted(requirements), sorted(overrides), sorted(bare), project
    made_of = repr((sys.version, python, wanted, (ROOT / "pyproject.toml").read_text()))
    content = hashlib.sha256(made_of.encode()).hexdigest()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers may want the same one at once
        stamp = folder / ".complete"
        if not stamp.exists() or stamp.read_text() != content:
            shutil.rmtree(folder, ignore_errors=True)
            uv("venv", "--python", python, folder)
            install = "pip", "install", "--python", folder / "bin" / "python"
            links = [option for place in pips_links() for option in ("--find-links", place)]
            project_too = () if alone else ("--editable", project)
            instead = folder / "overrides.txt"
            instead.write_text("\n".join(overrides))
            uv(*install, *links, "--override", instead, *requirements, *project_too)
            if bare:
                uv(*install, "--no-deps", *bare)
            stamp.write_text(content)
    return folder / "bin" / "python"


def other_python(version: str) -> str:
    """An interpreter of that version (3.12, say); a test whose machine has none is skipped."""
    found = subprocess.run([ROOT / "scripts" / "find_python", version], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"this machine has no Python {version}, and the package wants it")
    return found.stdout.strip()


def for_training() -> Path:
    """The interpreter that has torch, for all tests that need it: to install it is most of the time that they take."""
    trainers = ("stable-baselines3==2.9.2", "moviepy==2.2.1", "trl==1.16.0", "transformers==5.24.0")
    # verl wants an older transformers than TRL, and packages for GPUs: these are what its rollout worker imports.
    for_verl = (
        *("cachetools==7.3.3", "codetiming==1.4.0", "fastapi==0.165.0", "hydra-core==1.3.8", "ray==2.60.0"),
        *("tensordict==0.10.0", "uvicorn"),
    )
    return python_with("training", "torch==2.13.0", *trainers, *for_verl, extras=("examples",), bare=("verl==0.9.1",))


def pips_links() -> list[str]:
    """Where pip is told to look beside its index, for builds of this machine's, such as of torch without CUDA.

    uv reads nothing of pip's, and takes a quarter of its time.
    """
    settings = run(sys.executable, "-m", "pip", "config", "list").splitlines()
    found = [line.partition("=")[2] for line in settings if line.partition("=")[0].endswith(".find-links")]
    return sorted({place for quoted in found for place in str(ast.literal_eval(quoted)).split()})


def uv(*arguments: str | Path) -> None:
    run(sys.executable, "-m", "uv", *arguments, "--quiet", "--no-config")


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout
