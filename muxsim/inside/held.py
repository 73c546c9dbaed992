"""Modules that a fork leaves as they are when it exits: those that it has from its zygote.

An interpreter takes all modules apart on its way out. In a fork that means to write to nearly every page that it shares
with its zygote, which took as long as its start. The script's own modules end as ever. Standard library only.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import sys
from collections.abc import Collection
from typing import Any

WRITERS = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


class Held:
    """Make it before anything else registers what to do at exit: its turn is then the last."""

    def __init__(self) -> None:
        self._modules: dict[str, Any] = {}
        atexit.register(self._let_go)

    def hold(self, ours: Collection[str]) -> None:
        """From now on hold the modules that there are, but for `ours`, which are the interpreter's own."""
        self._modules.update((name, module) for name, module in sys.modules.items() if name not in ours)
        # Nobody else's, and so nobody's to end.
        self._modules["muxsim"] = self._modules

    def _let_go(self) -> None:
        for name, module in self._modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        # What they have opened since is not closed by their end either.
        for one in gc.get_objects():
            if isinstance(one, WRITERS):
                with contextlib.suppress(Exception):
                    one.flush()
