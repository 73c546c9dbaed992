"""The pages of runs as they were built from `dashboard/`: one script and one style."""

from __future__ import annotations

from typing import Final

from muxsim.errors import MuxsimError
from muxsim.serve.watch.page import BUILT

SCRIPT: Final = "runs.js"
STYLE: Final = "runs.css"

_FOLDER: Final = "runs"


class NotBuilt(MuxsimError):
    """This muxsim has no pages. The message says how to get them."""


def asset(name: str) -> str:
    """`SCRIPT` or `STYLE`. Raises `NotBuilt`."""
    file = BUILT / _FOLDER / name
    if file.is_file():
        return file.read_text(encoding="utf-8")
    raise NotBuilt(
        "this muxsim was built where there was no node, so it has no pages to show runs with: install a wheel that was "
        "built with it, or run scripts/setup in a copy of the source (Node 20 or newer)"
    )
