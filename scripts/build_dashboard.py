"""Builds `dashboard/` with npm and puts what comes of it into `muxsim/serve/ui/`, from where muxsim serves it.

Run by `scripts/setup`, and by `scripts/hatch_build.py` when a wheel or an sdist is built; with nothing changed it takes
a moment. Python's standard library only: it runs where nothing is installed yet.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = ROOT / "dashboard"
BUILT: Final = ROOT / "muxsim" / "serve" / "ui"
_STAMP: Final = ".built-from"
_APART: Final = frozenset({"node_modules", "dist", "test"})


def build() -> None:
    """Build it unless it is as the sources say. Raises `OSError` or `subprocess.CalledProcessError`."""
    stamp = _stamp()
    if (BUILT / _STAMP).is_file() and (BUILT / _STAMP).read_text() == stamp and (BUILT / "index.html").is_file():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm, which the dashboard is built with, is not there: install Node 20 or newer")
    environ = {**os.environ, "CI": "1"}
    if not (SOURCES / "node_modules").is_dir():
        subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=SOURCES, env=environ, check=True)
    subprocess.run([npm, "run", "--silent", "build"], cwd=SOURCES, env=environ, check=True)
    _put(SOURCES / "dist", stamp)


def _put(dist: Path, stamp: str) -> None:
    """Put a build in the place of the last one, which a muxsim may be serving."""
    fresh = BUILT.with_name("ui.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(dist, fresh)
    (fresh / _STAMP).write_text(stamp)
    shutil.rmtree(BUILT, ignore_errors=True)
    fresh.rename(BUILT)


def _stamp() -> str:
    """What tells one state of the sources from another."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*")):
        name = path.relative_to(SOURCES)
        if path.is_file() and _APART.isdisjoint(name.parts):
            digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    try:
        build()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"the dashboard is not built: {error}")
