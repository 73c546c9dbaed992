"""What a config's reader is told of it, where there is no log."""

from __future__ import annotations

import sys

from muxsim.config import Config


def tell_notes(config: Config) -> None:
    """Print the notes on a config, which is used all the same."""
    for note in config.notes:
        print(f"muxsim: {note}", file=sys.stderr)
