"""Installs with uv until what is there is what packages say of themselves, past a damaged cache if need be.

uv copies what its cache has unpacked without another look, and a full disk or a cleaner of old files may have torn it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from muxsim.errors import PackageError
from muxsim.provision.installer import NO_ROOM
from muxsim.provision.probe import Entry, Told, probe
from muxsim.provision.provider import Place

Pip: TypeAlias = Callable[[Iterable[str]], Awaitable[None]]
"""Runs `uv pip install` with more options. Raises PackageError."""

Unlike: TypeAlias = dict[str, tuple[str, ...]]
"""By package the files that are not what it says of them."""

_TORN: Final = re.compile(r"Failed to install: ([A-Za-z0-9._]+)-")
_ODD: Final = "unlike-its-record.json"


async def install_as_recorded(place: Place, pip: Pip) -> None:
    """Installs; then fetches anew what came damaged, which mends uv's cache too, and then does without that cache.

    What is unlike its record even then is so in the package itself. Raises PackageError.
    """
    wrong = await _tried(place, pip, ())
    if wrong.packages:
        # Which has uv look for them anew too; to say so would be refused where it is offline.
        wrong = await _tried(place, pip, [f"--reinstall-package={name}" for name in wrong.packages])
    if wrong.packages:
        # One that is torn keeps from being told which others are.
        which = ["--reinstall"] if wrong.torn else [f"--reinstall-package={name}" for name in wrong.packages]
        await pip(("--no-cache", *which))
        odd = (await probe(place, Entry(), files=True)).unlike
        (place.prefix / _ODD).write_bytes(msgspec.json.encode(odd))


@dataclass(frozen=True, slots=True)
class _Wrong:
    """Packages that are not there as they should be, as far as uv's cache may be to blame."""

    packages: set[str]
    torn: bool
    """Whether uv could not even install one, and has stopped there."""


async def _tried(place: Place, pip: Pip, options: Iterable[str]) -> _Wrong:
    try:
        await pip(options)
    except PackageError as error:
        said = "\n".join(error.output)
        torn = set(_TORN.findall(said))
        if not torn or NO_ROOM.search(said.encode()):
            raise
        return _Wrong(torn, torn=True)
    return _Wrong({*(await probe(place, Entry(), files=True)).unlike}, torn=False)


def damaged(place: Place, told: Told) -> str | None:
    """What is not as its package says, and was so when it was made; None if nothing."""
    try:
        odd = msgspec.json.decode((place.prefix / _ODD).read_bytes(), type=Unlike)
    except (OSError, msgspec.MsgspecError):
        odd = {}
    for package, files in told.unlike.items():
        for file in files:
            if file not in odd.get(package, ()):
                return f"{file} is not as {package} has it"
    return None
