"""What muxsim and the program that installs conda packages tell each other, in files.

Neither py-rattler nor anything else of the extra `conda` is needed for these.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from muxsim.provision.secrets import without_secrets

RESULT: Final = "muxsim-conda.json"
"""The file in a prefix that holds its `Result`."""

FAULT: Final = "muxsim: "
"""What the line begins with that says why an install has failed."""

OFFLINE: Final = "MUXSIM_CONDA_OFFLINE"
"""The variable with which nothing is fetched of what a channel has."""

# That no channel but the listed ones is to be asked, which is so in any case.
_NO_OTHERS: Final = "nodefaults"


# No path: archives and folders are named by it.
_Word: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.!+-]*$")]


class Pin(msgspec.Struct, frozen=True, omit_defaults=True):
    """One package, exactly: what conda's own record of it says, without where it was downloaded from."""

    name: _Word
    version: _Word
    build: _Word
    subdir: _Word
    fn: _Word
    channel: str
    build_number: int = 0
    sha256: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$")] = ""
    md5: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?$")] = ""
    size: int | None = None
    noarch: Literal["python", "generic"] | None = None
    depends: tuple[str, ...] = ()
    python_site_packages_path: str | None = None


class Order(msgspec.Struct, frozen=True):
    """What is to be installed where."""

    prefix: str
    cache: str
    channels: tuple[str, ...]
    specs: tuple[str, ...]
    pins: tuple[Pin, ...] = ()


class Result(msgspec.Struct, frozen=True):
    """What came of an order."""

    pins: tuple[Pin, ...]
    """All packages, those first that others depend on."""

    path: tuple[str, ...]
    """The folders that activating the environment puts first in PATH."""

    variables: dict[str, str]
    """What activating it sets."""


def channel_urls(channels: Iterable[str], folder: Path) -> Iterator[str]:
    """The channels with paths, which begin with `.`, `/` or `~`, as URLs."""
    for channel in channels:
        if channel.startswith((".", "/", "~")):
            yield Path(os.path.abspath(folder / os.path.expanduser(channel))).as_uri()
        elif channel != _NO_OTHERS:
            yield channel


def shown_channel(channel: str) -> str:
    """A channel by its name or address, without what may open it, and without a slash at its end."""
    return without_secrets(channel).partition("?")[0].rstrip("/")


def names_in(prefix: Path) -> Iterator[tuple[str, str]]:
    """Names, and versions with their builds, of what is installed in a prefix.

    Raises OSError, and `msgspec.MsgspecError` for what is no record.
    """
    for path in sorted((prefix / "conda-meta").glob("*.json")):
        record = msgspec.json.decode(path.read_bytes(), type=Pin)
        yield record.name, f"{record.version}={record.build}"
