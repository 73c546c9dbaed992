"""The one interface of what a start needs installed: a provider turns a spec into what to launch."""

from __future__ import annotations

from typing import Protocol

from muxsim.provision.installer import Installer, Program
from muxsim.spec import EnvSpec


class Provider(Protocol):
    """One kind of packages. A new one is a file with an object like this, and a line in `packages.PROVIDERS`."""

    @property
    def program(self) -> Program:
        """What installs them."""

    def takes(self, spec: EnvSpec) -> bool:
        """Whether the spec's command is of this kind."""

    async def prepare(self, spec: EnvSpec, installer: Installer) -> EnvSpec:
        """The spec with its package installed (`cache.made_whole`) and its command resolved to the package's own.

        Raises PackageError, and `AsItStands` for a command that only the program itself understands.
        """
