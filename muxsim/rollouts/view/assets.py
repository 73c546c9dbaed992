"""The pages of runs as they were built from `dashboard/`: one script and one style."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from muxsim.errors import MuxsimError
from muxsim.serve.watch.page import BUILT

SCRIPT: Final = "runs.js"
STYLE: Final = "runs.css"

_FOLDER: Final = "runs"
# Beside the package in a copy of the source, where `scripts/setup` builds it.
_IN_SOURCE: Final = Path(str(resources.files("muxsim"))).parent / "dashboard" / "dist"


class NotBuilt(MuxsimError):
    """This muxsim has no pages. The message says how to get them."""


def asset(name: str) -> str:
    """`SCRIPT` or `STYLE`. Raises `NotBuilt`."""
    for folder in (BUILT, _IN_SOURCE):
        file = folder / _FOLDER / name
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise NotBuilt(
        "this muxsim was built where there was no node, so it has no pages to show runs with: install a wheel that was "
        "built with it, or in a copy of the source run `npm ci --prefix dashboard`, `npm run build --prefix dashboard` "
        "and `pip install .` (Node 20 or newer)"
    )
