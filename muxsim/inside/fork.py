"""A fork of a zygote on its way to the script: it waits on its stdin for its order, see start/prepared.py.

Standard library only.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import types
from typing import Any

from muxsim.inside import as_main
from muxsim.inside.pages import Pages
from muxsim.inside.randomness import Randomness


class Fork:
    """What a zygote has ready for each. `options` counts those of the interpreter, `names` are for a `__main__`."""

    def __init__(self, options: int, names: list[str], randomness: Randomness) -> None:
        self.pages = Pages()
        self._options = options
        self._names = names
        self._randomness = randomness
        # Whatever has been imported is a fork's from the beginning.
        self._environment = changes_of(os.environ)

    def become(self, fds: list[int], code: types.CodeType | None, *, early: bool) -> as_main.Program:
        """Be a process with these descriptors that takes its order, and is to run what it says; exits if none comes.

        One that is `early` has time before.
        """
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        for fd in fds:
            os.close(fd)
        if early:
            self.pages.fetch()
        order = take_order()
        if order["umask"] is not None:
            os.umask(order["umask"])
        try:
            os.chdir(order["cwd"])
        except OSError as error:
            os.write(2, f"cannot start in {order['cwd']!r}: {error.strerror}\n".encode())
            os._exit(126)
        self._set_environment(order["env"])
        self._randomness.renew()
        gc.enable()
        return as_main.become(order["argv"], self._options, self._names, code)

    def _set_environment(self, variables: dict[str, str]) -> None:
        added, removed = self._environment
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update({**variables, **added})
        for name in removed:
            os.environ.pop(name, None)
        if os.environ.get("TZ") != before.get("TZ"):
            time.tzset()
        if any(os.environ.get(name) != before.get(name) for name in ("TMPDIR", "TEMP", "TMP")):
            # It keeps what it found, which was for another session.
            vars(sys.modules.get("tempfile", types.ModuleType("none")))["tempdir"] = None


def changes_of(environ: Any) -> tuple[dict[str, str], list[str]]:
    """What the interpreter (LC_CTYPE, in the C locale) and imports have set in the environment, and what removed."""
    with open("/proc/self/environ", "rb") as file:
        entries = [os.fsdecode(entry).partition("=") for entry in file.read().split(b"\0") if entry]
    given = {name: value for name, _, value in entries}
    added = {name: value for name, value in environ.items() if given.get(name) != value}
    return added, [name for name in given if name not in environ]


def take_order() -> dict[str, Any]:
    """The order on stdin, and not a byte more; exits if there is none."""
    length = int.from_bytes(read_exactly(4), "big")
    order: dict[str, Any] = json.loads(read_exactly(length))
    return order


def read_exactly(count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            os._exit(0)
        data += more
    return data
