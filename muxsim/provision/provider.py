"""The one interface of what a start needs installed: a provider says what a spec wants, and installs it.

Several may meet in one environment, which is one folder of the store (`provision.store`): conda makes the prefix, uv
and npm install into it, in the order of `packages.PROVIDERS`. Whether it is there, whole, in use or to be made is none
of their business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from muxsim.provision.installer import Installer, Program
from muxsim.spec import EnvSpec


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of an environment, and what a provider works with there."""

    prefix: Path
    """Empty, or with what the providers before have put there. It stays where it is, and is written to only once."""

    tools: Installer
    """Runs programs: those of ``prefix/bin`` before those of PATH."""

    lock: int
    """To be lent on to what is run, so that nobody else begins before that has ended."""

    @property
    def bin(self) -> Path:
        """Where the programs of the environment are."""
        return self.prefix / "bin"


@dataclass(frozen=True, slots=True)
class Found:
    """What is installed of one kind."""

    packages: Mapping[str, str]
    """Names and versions."""

    interpreter: str = ""
    """What runs it, such as ``Python 3.12.1``."""


class Part(Protocol):
    """What one environment has of one kind."""

    @property
    def kind(self) -> str:
        """Its name: uv, npm or conda."""

    @property
    def asked(self) -> tuple[str, ...]:
        """What was asked for, as people write it."""

    @property
    def terms(self) -> tuple[str, ...]:
        """For what `pins` hold: what was asked for, and what it was found for, as a lock shows it to people."""

    @property
    def key(self) -> tuple[str, ...]:
        """All that decides what comes of it: what was asked for, what files say, the lock, the interpreter."""

    async def fill(self, place: Place, before: str) -> None:
        """Install it; ``before`` is what `pins` gave for one that is made anew, or "". Raises PackageError."""

    async def check(self, place: Place, *, thorough: bool) -> Found:
        """What is installed. Raises PackageError if that is not what was asked for, or does not start.

        Thorough is after installing, when its entry is to be imported too; before each run it has to be quick.
        """

    async def pins(self, place: Place, found: Found) -> str:
        """What makes the same again, for a lock and for `fill`; without any address of where it came from."""

    async def locked(self, place: Place, pins: str) -> str:
        """The pins as a lock has them: with the hashes of what is installed. Raises PackageError."""

    def resolved(self, spec: EnvSpec, place: Place) -> EnvSpec:
        """The spec with what it now has: its command there, its variables, its package's name. Raises PackageError."""


class Provider(Protocol):
    """One kind of packages. A new one is a file with an object like this, and a line in `packages.PROVIDERS`."""

    @property
    def program(self) -> Program:
        """What installs them."""

    def takes(self, spec: EnvSpec) -> bool:
        """Whether the spec wants something of this kind."""

    async def part(self, spec: EnvSpec, tools: Installer) -> Part | EnvSpec:
        """What it wants; or the spec that is ready to run, where all of it is there and nothing for the store.

        Raises PackageError, and `AsItStands` for a command that only the program itself understands.
        """
