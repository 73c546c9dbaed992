"""The ``muxsim`` command."""

from muxsim.cli.main import main

__all__ = ["main"]
