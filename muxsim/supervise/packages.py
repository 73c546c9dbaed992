"""Each environment's package, installed once for all who wait for it."""

from __future__ import annotations

import trio

from muxsim import npm, uv
from muxsim.spec import EnvSpec


class Packages:
    """Prepares specs, and remembers what came of it as long as they stay the same."""

    def __init__(self) -> None:
        self._ready: dict[str, tuple[EnvSpec, EnvSpec]] = {}
        self._preparing: dict[str, trio.Lock] = {}

    async def ready(self, spec: EnvSpec) -> EnvSpec:
        """The spec with its package installed, once; raises `PackageError`, and then the next one tries again."""
        if (known := self.known(spec)) is not None:
            return known
        async with self._preparing.setdefault(spec.name, trio.Lock()):
            if (known := self.known(spec)) is not None:
                return known
            ready = await uv.prepare(await npm.prepare(spec))
            self._ready[spec.name] = spec, ready
            return ready

    def known(self, spec: EnvSpec) -> EnvSpec | None:
        """The spec as `ready` gives it, if there is nothing left to do."""
        known, ready = self._ready.get(spec.name, (None, None))
        return ready if known == spec else None
