"""Conda environments, made by py-rattler, from real channels or `file://` ones; no conda program is called."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from muxsim.errors import PackageError
from muxsim.provision.cache import cache_folder
from muxsim.provision.conda_records import FAULT, OFFLINE, RESULT, Order, Pin, Result, names_in
from muxsim.provision.conda_wishes import GET_IT, SUBDIR, CondaWishes, conda_wishes
from muxsim.provision.installer import Installer, Program
from muxsim.provision.provider import Found, Place
from muxsim.provision.secrets import without_secrets
from muxsim.provision.wishes import wishes_of
from muxsim.spec import EnvSpec, fixed, literal

KIND: Final = "conda"

CONDA: Final = Program(
    name=KIND,
    needs=(),
    get_it=GET_IT,
    installs="conda packages",
    source="conda channels",
    unreachable=re.compile(rb"error sending request|dns error|[Cc]onnection (refused|reset)|timed out"),
    offline={OFFLINE: "1"},
    module="rattler",
    runs=(sys.executable, "-P", "-m", "muxsim.provision.with_rattler"),
)


class Conda:
    """Conda packages, see `provider.Provider`."""

    program = CONDA

    def takes(self, spec: EnvSpec) -> bool:
        """Whether it has an environment.yml, or specs of conda."""
        return spec.dependencies.has_conda

    async def part(self, spec: EnvSpec, tools: Installer) -> CondaPart:
        """What it wants."""
        if lacking := self.program.lacks():
            raise PackageError(lacking)
        lock = spec.dependencies.pinned(KIND)
        try:
            pins = _pins.decode(lock) if lock else ()
        except msgspec.MsgspecError as error:
            raise PackageError(f"what the lock says of conda cannot be read ({error}): lock it anew") from error
        wishes = conda_wishes(spec)
        # What a script or a project says of the Python that it runs on, conda is to heed, too.
        more = tuple(f"python{versions}" for versions in wishes_of(spec).requires_python)
        return CondaPart(replace(wishes, specs=(*wishes.specs, *more)), pins)


_pins: Final = msgspec.json.Decoder(tuple[Pin, ...])


@dataclass(frozen=True)
class CondaPart:
    """The conda packages of one environment, see `provider.Part`."""

    wishes: CondaWishes
    lock: tuple[Pin, ...]
    kind = KIND

    @property
    def asked(self) -> tuple[str, ...]:
        """The specs, as others may see them."""
        return tuple(map(without_secrets, self.wishes.specs))

    @property
    def terms(self) -> tuple[str, ...]:
        """The specs, where they were looked for, and the platform, for which packages are made."""
        return (*self.asked, *map(without_secrets, self.wishes.channels), SUBDIR)

    @property
    def key(self) -> tuple[str, ...]:
        """Specs, channels, the lock, and what a solver may ask of the machine."""
        machine = (SUBDIR, *platform.libc_ver())
        variables = tuple(f"{name}={value}" for name, value in self.wishes.variables)
        lock = msgspec.json.encode(self.lock).decode()
        return (*self.wishes.specs, "", *self.wishes.channels, "", *variables, "", lock, *machine)

    async def fill(self, place: Place, before: str) -> None:
        """Solves, unless there are pins, and installs, with whatever the packages do at their installation."""
        pins = self.lock or (_pins.decode(before) if before else ())
        cache = cache_folder(place.tools.environ) / KIND
        order = Order(str(place.prefix), str(cache), self.wishes.channels, self.wishes.specs, pins)
        file = place.prefix.with_name(f"{place.prefix.name}.order.json")
        file.write_bytes(msgspec.json.encode(order))
        what = self.wishes.label
        try:
            await place.tools.install((str(file),), place.prefix, place.lock, what=what, culprit=self._culprit)
        finally:
            file.unlink()

    def _culprit(self, output: str) -> str:
        said = [line.removeprefix(FAULT) for line in output.splitlines() if line.startswith(FAULT)]
        return f"{self.wishes.label}: {said[-1]}" if said else ""

    async def check(self, place: Place, *, thorough: bool) -> Found:
        """The installed packages: all that were, at the version and build that they had."""
        result = _result(place.prefix)
        try:
            there = dict(names_in(place.prefix))
        except (OSError, msgspec.MsgspecError) as error:
            raise PackageError(f"its conda-meta cannot be read: {error}") from error
        for pin in result.pins:
            if (version := there.get(pin.name)) != f"{pin.version}={pin.build}":
                raise PackageError(f"{pin.name} {pin.version} was installed by conda, and now is {version or 'gone'}")
        return Found({pin.name: pin.version for pin in result.pins})

    async def pins(self, place: Place, found: Found) -> str:
        """The very packages, with the sums of their archives."""
        return msgspec.json.encode(_result(place.prefix).pins).decode()

    async def locked(self, place: Place, pins: str) -> str:
        """The same: they have the sums of each archive."""
        return pins

    def resolved(self, spec: EnvSpec, place: Place) -> EnvSpec:
        """The spec with the variables of the environment, whose programs come first in PATH."""
        result = _result(place.prefix)
        env = {**result.variables, **dict(self.wishes.variables)}
        # Its programs come first in any case, and so does here what packages have put before them.
        if more := [folder for folder in result.path if folder != str(place.bin)]:
            env["PATH"] = os.pathsep.join([*more, place.tools.environ.get("PATH", os.defpath)])
        own_node, command = place.bin / "node", spec.command
        if os.path.basename(fixed(command)) == "node" and own_node.exists():
            command = literal(str(own_node))
        return replace(spec, command=command, env={**{name: literal(value) for name, value in env.items()}, **spec.env})


def _result(prefix: Path) -> Result:
    try:
        return msgspec.json.decode((prefix / RESULT).read_bytes(), type=Result)
    except (OSError, msgspec.MsgspecError) as error:
        raise PackageError(f"its {RESULT} cannot be read: {error}") from error
