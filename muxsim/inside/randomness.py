"""Lets each fork draw random numbers of its own. Standard library only."""

from __future__ import annotations

import gc
import os
import random
import secrets
import sys
from typing import Any


class Randomness:
    """Remembers which generators took their state from the system, so that each fork can draw its own.

    One that was given a seed has the same state in every fresh process, and so in every fork.
    """

    def __init__(self) -> None:
        self._unseeded: list[Any] = []
        self._entropies: set[int] = set()
        self._numpys: list[Any] = []
        self._seed = random.Random.seed
        self._randbits = secrets.randbits

    def watch(self) -> None:
        """See generators come while modules are imported."""

        def seed(generator: Any, a: Any = None, version: int = 2) -> None:
            if a is None:
                self._unseeded.append(generator)
            self._seed(generator, a, version)

        def randbits(k: int) -> int:  # from which numpy takes the seed of a generator that is given none
            self._entropies.add(bits := self._randbits(k))
            return bits

        random.Random.seed = seed  # type: ignore[method-assign, assignment] # until `unwatch`
        secrets.randbits = randbits

    def unwatch(self) -> None:
        """Leave all as it was, and keep what has to be renewed."""
        random.Random.seed = self._seed  # type: ignore[method-assign]
        secrets.randbits = self._randbits
        numpys: Any = sys.modules.get("numpy.random.bit_generator")
        if numpys is None or not hasattr(numpys, "randbits"):
            return
        numpys.randbits = self._randbits
        self._numpys = [
            one
            for one in gc.get_objects()
            if isinstance(one, numpys.BitGenerator) and getattr(one.seed_seq, "entropy", None) in self._entropies
        ]

    def renew(self) -> None:
        """In a fork: draw again what a fresh process would have drawn."""
        random.seed()
        for generator in self._unseeded:
            generator.seed()
        for generator in self._numpys:
            generator.state = type(generator)().state
        modules = sys.modules
        if "numpy.random" in modules:
            modules["numpy.random"].seed()
        if "uuid" in modules:
            # Neither the node nor the last time may be shared, or two sessions could draw the same uuid1.
            for name in ("_node", "_last_timestamp"):
                if hasattr(modules["uuid"], name):
                    setattr(modules["uuid"], name, None)
        if "multiprocessing.process" in modules:
            modules["multiprocessing.process"].current_process().authkey = os.urandom(32)
