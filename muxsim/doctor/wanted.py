"""What the environments of a config use of this machine, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from muxsim.config import Config
from muxsim.processes.bounds import controllers
from muxsim.provision.packages import PROVIDERS
from muxsim.spec import EnvSpec

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The environments that use a thing; none without a config."""

    node: Names = ()
    npm: Names = ()
    uv: Names = ()
    conda: Names = ()
    cgroup: Names = ()
    private: Names = ()
    landlock: Names = ()
    bubblewrap: Names = ()

    @property
    def installs(self) -> Names:
        """Those for which something is installed."""
        return tuple(dict.fromkeys((*self.npm, *self.uv, *self.conda)))


def wanted_by(config: Config | None) -> Wanted:
    """What a config uses."""
    if config is None:
        return Wanted()
    specs = list(config.environments.values())

    def who(uses: Callable[[EnvSpec], bool]) -> Names:
        return _names(spec for spec in specs if uses(spec))

    installed = {one.program.name: who(one.takes) for one in PROVIDERS}
    return Wanted(
        node=who(lambda spec: os.path.basename(spec.command) == "node" or spec.name in installed["npm"]),
        npm=installed["npm"],
        uv=installed["uv"],
        conda=installed["conda"],
        cgroup=who(lambda spec: config.server.cgroup == "required" or bool(controllers([spec]))),
        private=who(lambda spec: bool(spec.private)),
        landlock=who(lambda spec: spec.confinement.sandbox == "landlock"),
        bubblewrap=who(lambda spec: spec.confinement.sandbox == "bubblewrap"),
    )


def _names(specs: Iterable[EnvSpec]) -> Names:
    return tuple(spec.name for spec in specs)
