"""What a backend under Landlock can reach: what it needs, what its spec names, and its workspace."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import trio

from muxsim.errors import ConfigError
from muxsim.inside import filters, landlock
from muxsim.inside.landlock import Walls
from muxsim.processes.needs import SYSTEM, Needs, changed, needs_of, of_everybody, parted
from muxsim.processes.owner import owner_by_name
from muxsim.processes.views import outermost, within
from muxsim.runtime.soon import may_wait
from muxsim.spec import EnvSpec, Launch, confinement_fault, temporary_folder

_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_LASTING: Final = ("/etc/", "/proc/", "/sys/")
_REPLACED: Final = ("/etc/resolv.conf", "/etc/localtime")
_LACKING: Final = {
    5: "commands to devices that readable or writable names (needs Linux 6.10)",
    landlock.SIGNALS_ABI: "signals to other processes of the same user (needs Linux 6.12)",
}


def why_not() -> str | None:
    """Why this machine has no Landlock that would do; None if it has."""
    version = landlock.abi()
    if version == 0:
        return "the kernel has no Landlock: it needs Linux 6.7 or newer, with landlock among its lsm= (see dmesg)"
    if version < landlock.LEAST_ABI:
        return f"the kernel's Landlock (ABI {version}) knows no network: it needs Linux 6.7 or newer"
    if not filters.is_known(machine := filters.machine()):
        return f"muxsim has no filter of system calls for {machine}, only for x86_64 and aarch64"
    return None


def not_kept() -> tuple[str, ...]:
    """What the kernel's Landlock does not keep out, though newer ones do."""
    version = landlock.abi()
    return tuple(what for least, what in _LACKING.items() if version < least)


def described() -> str:
    """What this machine has of Landlock, in words."""
    if (why := why_not()) is not None:
        return f"no sandbox landlock here: {why}"
    lacking = not_kept()
    return f"sandbox landlock: ABI {landlock.abi()}" + (
        f", which does not keep out {'; '.join(lacking)}" if lacking else ""
    )


def fault_here(spec: EnvSpec) -> ConfigError | None:
    """What a spec's sandbox contradicts, or this machine cannot do; None if nothing."""
    own, table = spec.confinement, f"environments.{spec.name}"
    if (fault := confinement_fault(own)) is not None:
        return ConfigError(fault[1], table=table, key=fault[0])
    if own.sandbox == "landlock" and (why := why_not()) is not None:
        return ConfigError(f"{why}; or take this out", table=table, key="sandbox", value='"landlock"')
    return None


class _Known(NamedTuple):
    spec: EnvSpec
    needs: Needs
    read: list[str]
    listed: list[str]


class Reach:
    """Of one pool's backends. What is ``hidden``, none of them may read."""

    def __init__(self, hidden: Iterable[str] = ()) -> None:
        self._secrets = tuple(hidden)
        self._home = os.path.expanduser("~")
        self._system: list[str] = []
        self._known: dict[str, _Known] = {}

    def check(self, spec: EnvSpec) -> None:
        """Raise `ConfigError` for what a spec contradicts, or this machine cannot do."""
        if (fault := fault_here(spec)) is not None:
            raise fault
        if spec.confinement.sandbox != "landlock":
            return
        withheld = self._withheld()
        for key, paths in (("writable", spec.confinement.writable), ("private", spec.private or ())):
            for path in paths:
                if found := [one for one in withheld if parted(path, [one]) != ([os.path.realpath(path)], [])]:
                    text = f"{path} has {found[0]} in it, which no session is to read: name folders beside that"
                    raise ConfigError(text, table=f"environments.{spec.name}", key=key)

    async def walls(self, spec: EnvSpec, launch: Launch, workspace: str) -> Walls:
        """What is left to one of its backends, which has this folder. Raises OSError, and as `check` does."""
        known = self._known.get(spec.name)
        if known is None or known.spec != spec or known.needs.have_changed():
            await may_wait()
            self.check(spec)
            known = self._known[spec.name] = await _aside(lambda: self._find(spec, launch))
        read, listed = self._parted(launch.readable)
        network = spec.confinement.network
        return Walls(
            read=[*known.read, *read],
            listed=[*known.listed, *listed],
            write=[workspace, temporary_folder(workspace), *launch.writable],
            devices=list(_DEVICES),
            network=network if isinstance(network, bool) else list(network),
            calls=_filter(network),
        )

    def _find(self, spec: EnvSpec, launch: Launch) -> _Known:
        if not self._system:
            self._system = [*SYSTEM, *of_everybody("/etc")]
        needs = needs_of(launch, self._home)
        read, listed = self._parted(outermost({*map(os.path.realpath, (*self._system, *needs.paths, *spec.installed))}))
        needs.watched.update((folder, changed(folder)) for folder in listed)  # what is new there is named by no rule
        return _Known(spec, needs, read, listed)

    def _withheld(self) -> list[str]:
        """By their paths of now: a secret may be a link that leads elsewhere from one day to the next."""
        return [os.path.realpath(one) for one in self._secrets]

    def _parted(self, paths: Iterable[str]) -> tuple[list[str], list[str]]:
        read: list[str] = []
        listed: list[str] = []
        withheld = self._withheld()
        for path in paths:
            of_path = parted(path, [*withheld, *_folders_of_muxsims(path)])
            read += of_path[0]
            listed += of_path[1]
        return read, listed


def stamps_of(walls: Walls) -> list[tuple[int, ...]]:
    """What changes when what is to be reached is another file or folder, though it is called the same.

    Of the machine's many small files the two that are replaced while programs run, names and time, stand for all.
    """
    paths = [path for path in (*walls.read, *walls.write) if not path.startswith(_LASTING)]
    return [*map(_stamp, (*paths, *_REPLACED)), *((*_stamp(path), int(changed(path) * 1e9)) for path in walls.listed)]


def _stamp(path: str) -> tuple[int, ...]:
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return status.st_dev, status.st_ino


def _folders_of_muxsims(path: str) -> list[str]:
    """The folders of all that run here, where they are among what is in this one."""
    temporary = os.path.realpath(tempfile.gettempdir())
    if not within(temporary, os.path.realpath(path)):
        return []
    return [os.path.join(temporary, name) for name in os.listdir(temporary) if owner_by_name(name)]


@functools.cache
def _filter(network: bool | tuple[int, ...]) -> str:
    """The filter of system calls for this machine."""
    allowed = network if isinstance(network, bool) else list(network)
    return filters.pack(filters.program(allowed, filters.machine())).hex()


async def _aside(find: Callable[[], _Known]) -> _Known:
    """In a thread, for it reads hundreds of files."""
    try:
        return await trio.to_thread.run_sync(find)
    except RuntimeError:  # there can be no more threads
        return find()
