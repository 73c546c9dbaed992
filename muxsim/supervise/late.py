"""What a process does not know of its session yet: it waits for it when its script asks.

So a fork can run its script before there is a session, until the script wants to know something of it. Values that come
late are variables of the environment, and what follows the script in the command line. This runs in the environment's
own interpreter; standard library only, and little of it (see as_main.py).
"""

from __future__ import annotations

import _posixsubprocess
import _thread
import json
import os
import sys
from collections.abc import Callable
from typing import Any

# Of what audit hooks hear: it hands the environment on as C has it.
HANDS_ON = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.system"})

# Of a list, what does not look at its words.
_NOT_ASKED = frozenset({"__new__", "__init__", "__getattribute__", "__sizeof__", "__class_getitem__"})


class Late:
    """The values come as one order on a descriptor: four bytes for its length, and JSON, `argv` and `env`."""

    def __init__(self, fd: int, names: list[str]) -> None:
        self._fd = fd
        self._known = self._learning = False
        self._waiting = 0
        self._names = frozenset(map(os.fsencode, names))
        self._lock = _thread.RLock()
        self._chunks: list[bytes] = []
        self._words = 0
        self._argv: Words | None = None
        self._fork_exec = _posixsubprocess.fork_exec

    def install(self, *, known: int | None) -> None:
        """Have the script ask for the variables, and for its arguments if only the first `known` words are here."""
        environ: Any = os.environ
        environ._data = os.environb._data = Variables(environ._data, self._names, self.ask)  # type: ignore[attr-defined]
        if known is not None:
            self._words = known
            self._argv = Words(sys.argv)
            self._argv.ask = self.ask
            sys.argv = self._argv
        sys.addaudithook(self._hear)
        _posixsubprocess.fork_exec = self._fork_asking  # by which multiprocessing goes unheard

    def ask(self) -> None:
        """Wait for the values if they are not known yet. Exits if nobody will ever send them."""
        if self._known:
            return
        with self._lock:
            if self._known or self._learning:  # by now, or just below this
                return
            # More than one, if the handler of a signal asks too while this waits. It may be the first to know, but the
            # descriptor is that of the one that waits longest.
            self._waiting += 1
            order = self._read()
            self._waiting -= 1
            if not self._known:
                self._learning = True
                self._learn(order)
                self._known, self._learning = True, False
            if not self._waiting:
                os.close(self._fd)

    def _learn(self, order: Any) -> None:
        _posixsubprocess.fork_exec = self._fork_exec
        os.environ.update(order["env"])
        if hasattr(sys, "orig_argv"):
            sys.orig_argv[:] = order["argv"]
        if self._argv is not None:
            self._argv[1:] = order["argv"][self._words :]
            if sys.argv is self._argv:
                sys.argv = list(self._argv)

    def _read(self) -> Any:
        while (order := self._order()) is None:
            # In one call, so that no handler runs between a read and the place where it finds what was read.
            self._chunks.extend(map(os.read, (self._fd,), (65536,)))
            if not self._chunks[-1] and self._order() is None:
                os._exit(0)
        return json.loads(order)

    def _order(self) -> bytes | None:
        """The order, if all of it has come."""
        data = b"".join(self._chunks)
        whole = len(data) >= 4 and len(data) - 4 >= int.from_bytes(data[:4], "big")
        return data[4:] if whole else None

    def _hear(self, event: str, _: object) -> None:
        if not self._known and event in HANDS_ON:
            self.ask()

    def _fork_asking(self, *arguments: Any) -> Any:
        self.ask()
        return self._fork_exec(*arguments)


class Variables(dict):  # type: ignore[type-arg] # os.environ's own, which maps bytes to bytes
    """The environment, some of whose variables come late: what os.environ does with it."""

    def __init__(self, data: Any, names: frozenset[bytes], ask: Callable[[], None]) -> None:
        super().__init__(data)
        self._names = names
        self._ask = ask

    def __getitem__(self, key: bytes) -> Any:
        if key in self._names:
            self._ask()
        return super().__getitem__(key)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        if key in self._names:
            self._ask()
            os.putenv(key, value)  # once more, after what came
        super().__setitem__(key, value)

    def __delitem__(self, key: bytes) -> None:
        if key in self._names:
            self._ask()
            os.unsetenv(key)
        super().__delitem__(key)

    def __iter__(self) -> Any:
        self._ask()
        return super().__iter__()

    def __len__(self) -> int:
        self._ask()
        return super().__len__()

    def items(self) -> Any:
        self._ask()
        return super().items()


class Words(list):  # type: ignore[type-arg] # sys.argv
    """The command line while only the script's name in it is known; any other look at it asks."""

    ask: Callable[[], None]

    def __getitem__(self, index: Any) -> Any:
        if index != 0:
            self.ask()
        return super().__getitem__(index)

    def __setitem__(self, index: Any, value: Any) -> None:
        if index != 0:
            self.ask()
        super().__setitem__(index, value)

    def __radd__(self, other: Any) -> Any:
        return other + list(self)

    def __reduce_ex__(self, _: Any) -> Any:
        return list, (list(self),)


def _asking(method: Any) -> Any:
    def ask_first(self: Words, *arguments: Any, **named: Any) -> Any:
        self.ask()
        return method(self, *arguments, **named)

    return ask_first


for _name, _method in vars(list).items():
    if callable(_method) and _name not in _NOT_ASKED and _name not in vars(Words):
        setattr(Words, _name, _asking(_method))
