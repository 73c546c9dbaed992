"""The ``muxsim`` command."""

import gc

# What is imported stays: to look for garbage in it again and again takes a tenth of a start.
gc.disable()
from muxsim.cli.main import main  # noqa: E402 - see above

gc.freeze()
gc.enable()

__all__ = ["main"]
