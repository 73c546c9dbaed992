"""What each environment needs, installed once for all who wait for it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import trio

from muxsim.errors import PackageError
from muxsim.observe.events import (
    CacheNotWritten,
    Events,
    InstallFailed,
    InstallFinished,
    InstallStarted,
    InstallVerified,
    Listener,
    LockOutdated,
    RunsAsItStands,
    unheard,
)
from muxsim.processes.launcher import Launcher
from muxsim.provision.as_it_stands import AsItStands
from muxsim.provision.cache import key
from muxsim.provision.conda import Conda
from muxsim.provision.installer import Installer, Run, installer_variables, run_under, run_watched
from muxsim.provision.manifest import Manifest
from muxsim.provision.npm import Npm
from muxsim.provision.provider import Found, Part, Place, Provider
from muxsim.provision.store import Held, Home, store_folder, whole
from muxsim.provision.uv import Uv
from muxsim.runtime.soon import may_wait
from muxsim.spec import HOW_TO_LOCK, LOCK_NAME, EnvSpec, Pins, literal

PROVIDERS: Final[tuple[Provider, ...]] = (Conda(), Uv(), Npm())
"""In the order in which they install into an environment, and resolve its command."""

_COSTS: Final = (
    "each start runs {program} too, which takes its time and stays as a process of the session; what it has to install"
    " first has to be there within start_timeout, and it sees only the variables of env"
)


async def prepare(
    spec: EnvSpec,
    environ: Mapping[str, str] = os.environ,
    *,
    run: Run = run_watched,
    tell: Listener = unheard,
) -> EnvSpec:
    """The spec with what it needs installed and its command resolved to that; others as they are.

    Any number of tasks and processes may prepare the same environment at once: one installs, the others wait. An
    install that was cut off or is damaged is made anew; once it is whole, no network is needed. Installers see
    the `installer_variables` of ``environ``, with the spec's own on top. Raises PackageError, also when it takes longer
    than ``limits.install_timeout``.
    """
    spec, held = await taken(spec, environ, run=run, tell=tell)
    if held is not None:
        held.close()
    return spec


async def taken(
    spec: EnvSpec,
    environ: Mapping[str, str] = os.environ,
    *,
    run: Run = run_watched,
    tell: Listener = unheard,
    anew: bool = False,
    upgrade: bool = False,
) -> tuple[EnvSpec, Held | None]:
    """The same, with its environment, which nobody removes before it is given back; None where it has none.

    In any case it is made ``anew``, in the versions that it had, or to ``upgrade`` in the newest that will do.
    """
    wanted = await wanted_of(spec, environ, run=run, tell=tell)
    if not wanted.parts:
        return wanted.spec, None
    with wanted.tools.bounded():
        held = await whole(wanted.home, wanted.build(tell, afresh=upgrade), wanted.check, force=anew or upgrade)
    try:
        tell(InstallVerified(spec.name, held.home.name))
        with wanted.tools.bounded():
            return wanted.resolved(held, tell), held
    except BaseException:
        held.close()
        raise


@dataclass(frozen=True)
class Wanted:
    """What a spec wants of all kinds, and where that is, or is to be."""

    spec: EnvSpec
    """As far as it could be resolved without an environment."""

    parts: tuple[tuple[Part, Provider], ...]
    tools: Installer
    home: Home
    """Of no meaning where there are no parts."""

    def place(self, prefix: Path, lock: int, provider: Provider) -> Place:
        """The folder, as the provider of one part sees it."""
        tools = replace(self.tools, program=provider.program, first=prefix / "bin", log=self.home.log)
        return Place(prefix, tools, lock)

    def build(self, tell: Listener, *, afresh: bool = False) -> _Building:
        """What fills a folder with all of it; afresh is without regard to the versions that there were."""
        return _Building(self, tell, afresh)

    async def found(self, prefix: Path, lock: int, *, thorough: bool) -> dict[str, Found]:
        """What is installed, by kind. Raises PackageError if it is not what was asked for."""
        return {
            part.kind: await part.check(self.place(prefix, lock, provider), thorough=thorough)
            for part, provider in self.parts
        }

    async def check(self, prefix: Path, lock: int) -> str | None:
        """What is wrong with an environment whose files are all there; None if nothing."""
        try:
            await self.found(prefix, lock, thorough=False)
        except PackageError as error:
            return error.message
        except AsItStands:
            pass
        return None

    def resolved(self, held: Held, tell: Listener) -> EnvSpec:
        """The spec with its command in the environment."""
        spec = self.spec
        for part, provider in self.parts:
            place = self.place(held.prefix, held.lock, provider)
            try:
                spec = part.resolved(spec, place)
            except AsItStands as why:
                _tell_as_it_stands(spec, why, place.tools, tell)
        env = dict(spec.env)
        if spec.dependencies.has_python:
            # What the server starts in its turn is to find what the environment has, too.
            env["PATH"] = os.pathsep.join(filter(None, [literal(str(held.prefix / "bin")), _path_of(spec, self.tools)]))
        return replace(spec, env=env, installed=(str(held.prefix),))


async def lock_of(wanted: Wanted, held: Held) -> tuple[Pins, ...]:
    """For a lock file: what makes the environment again, with the hashes of what it is made of.

    It has no address of an index, mirror or proxy. What the lock of the spec has, as it has it. Raises PackageError.
    """
    known = {one.kind: one for one in wanted.spec.dependencies.pins}
    found = []
    for part, provider in wanted.parts:
        if drift_of(part, known.values()) is None:
            found += [known[part.kind]] if part.kind in known else []
        elif pins := held.manifest.pins.get(part.kind, ""):
            with wanted.tools.bounded():
                text = await part.locked(wanted.place(held.prefix, held.lock, provider), pins)
            found.append(Pins(part.kind, part.terms, text))
    return tuple(found)


def _path_of(spec: EnvSpec, tools: Installer) -> str:
    return spec.env.get("PATH") or literal(tools.environ.get("PATH", os.defpath))


@dataclass(frozen=True)
class _Building:
    """Makes an environment, see `store.Build`."""

    wanted: Wanted
    tell: Listener
    afresh: bool

    async def __call__(self, folder: Path, lock: int, before: Manifest | None) -> Manifest:
        wanted, name = self.wanted, self.wanted.spec.name
        asked = {part.kind: part.asked for part, _ in wanted.parts}
        self.tell(InstallStarted(name, wanted.home.name, [line for lines in asked.values() for line in lines]))
        wanted.home.log.unlink(missing_ok=True)
        for part, provider in wanted.parts:
            kept = before.pins.get(part.kind, "") if before is not None and not self.afresh else ""
            await part.fill(wanted.place(folder, lock, provider), kept)
        found = await wanted.found(folder, lock, thorough=True)
        pins = {
            part.kind: await part.pins(wanted.place(folder, lock, provider), found[part.kind])
            for part, provider in wanted.parts
        }
        return Manifest(
            folder=folder.name,
            asked=asked,
            packages={kind: dict(one.packages) for kind, one in found.items()},
            pins=pins,
            interpreter=", ".join(one.interpreter for one in found.values() if one.interpreter),
        )


async def wanted_of(
    spec: EnvSpec,
    environ: Mapping[str, str] = os.environ,
    *,
    run: Run = run_watched,
    tell: Listener = unheard,
    only_look: bool = False,
) -> Wanted:
    """What the spec wants, and where that is; nothing is installed into the store. Raises PackageError.

    With ``only_look`` not even a Python is, of which to tell: that is a PackageError.
    """
    store = store_folder(environ)
    parts: list[tuple[Part, Provider]] = []
    tools = Installer(PROVIDERS[0].program, spec, store, installer_variables(environ), run, only_looks=only_look)
    for provider in PROVIDERS:
        if provider.takes(spec):
            tools = replace(tools, program=provider.program)
            with tools.bounded():
                found = await _pinned(provider, spec, tools, tell)
            if isinstance(found, EnvSpec):
                spec = found
            else:
                parts.append((found, provider))
    keys = [word for part, _ in parts for word in (part.kind, *part.key, "")]
    if spec.private == ():  # its sessions may write there, where those of others would find it
        keys.append("written to")
    first = next((part.asked[0] for part, _ in parts if part.asked), "python")
    return Wanted(spec, tuple(parts), tools, Home(store / key(first, *keys)))


async def _pinned(provider: Provider, spec: EnvSpec, tools: Installer, tell: Listener) -> Part | EnvSpec:
    """What the spec wants of one kind: as the lock has it, if that was locked for what is asked now."""
    part = await _part(provider, spec, tools, tell)
    if isinstance(part, EnvSpec):
        return part
    pins = spec.dependencies.pins
    drift = drift_of(part, pins)
    if drift is None or (not spec.dependencies.locked and part.kind not in {one.kind for one in pins}):
        return part
    if spec.dependencies.locked:
        raise PackageError(f"{drift}, and nothing else may be installed (--locked): run {HOW_TO_LOCK} {spec.name}")
    tell(LockOutdated(spec.name, drift))
    others = tuple(one for one in pins if one.kind != part.kind)
    return await _part(provider, replace(spec, dependencies=replace(spec.dependencies, pins=others)), tools, tell)


def drift_of(part: Part, pins: Iterable[Pins]) -> str | None:
    """How what is wanted of one kind differs from what the lock says; None if it does not."""
    locked = next((one for one in pins if one.kind == part.kind), None)
    if locked is None and not part.terms:
        return None  # nothing of it is installed here
    if locked is None:
        return f"{LOCK_NAME} has no {part.kind} packages of it"
    if locked.terms == part.terms:
        return None
    more = [f"now asks for {term}" for term in part.terms if term not in locked.terms]
    less = [f"has {term} no longer" for term in locked.terms if term not in part.terms]
    what = ", ".join([*more, *less]) or "asks for the same in another order"
    return f"it {what}, unlike when {LOCK_NAME} was written"


async def _part(provider: Provider, spec: EnvSpec, tools: Installer, tell: Listener) -> Part | EnvSpec:
    try:
        return await provider.part(spec, tools)
    except AsItStands as why:
        _tell_as_it_stands(spec, why, tools, tell)
        return spec


def _tell_as_it_stands(spec: EnvSpec, why: AsItStands, tools: Installer, tell: Listener) -> None:
    tools.tool(spec.command)
    program = os.path.basename(spec.command)
    tell(RunsAsItStands(spec.name, str(why), _COSTS.format(program=program)))


class Packages:
    """Prepares specs, and remembers what came of it as long as they stay the same.

    Installers run under the eye of the launcher's guardian, and see no more than `installer_variables`. What specs
    have is in use until `close`.
    """

    def __init__(self, launcher: Launcher, events: Events) -> None:
        self._events = events
        self._run = run_under(launcher)
        self._ready: dict[str, tuple[EnvSpec, EnvSpec]] = {}
        self._held: dict[str, Held] = {}
        self._preparing: dict[str, trio.Lock] = {}

    def close(self) -> None:
        """Give back all environments."""
        for held in self._held.values():
            held.close()
        self._held.clear()
        self._ready.clear()

    async def ready(self, spec: EnvSpec) -> EnvSpec:
        """The spec with what it needs, once; raises `PackageError`, and then the next one tries again."""
        if (known := self.known(spec)) is not None:
            return known
        await may_wait()
        async with self._preparing.setdefault(spec.name, trio.Lock()):
            if (known := self.known(spec)) is not None:
                return known
            ready, held = await self._prepare(spec)
            if (before := self._held.pop(spec.name, None)) is not None:
                before.close()
            if held is not None:
                self._held[spec.name] = held
            self._ready[spec.name] = spec, ready
            return ready

    async def _prepare(self, spec: EnvSpec) -> tuple[EnvSpec, Held | None]:
        tell, began = self._events.emit, trio.current_time()
        try:
            ready, held = await taken(spec, run=self._run, tell=tell)
        except PackageError as error:
            tell(InstallFailed(spec.name, str(error)))
            if isinstance(fault := error.__cause__, OSError):
                tell(CacheNotWritten(str(store_folder(os.environ)), str(fault)))
            raise
        if held is not None and held.made_anew:
            manifest, seconds = held.manifest, round(trio.current_time() - began, 3)
            packages = sum(map(len, manifest.packages.values()))
            tell(InstallFinished(spec.name, held.home.name, seconds, manifest.bytes, packages))
        return ready, held

    def known(self, spec: EnvSpec) -> EnvSpec | None:
        """The spec as `ready` gives it, if there is nothing left to do."""
        known, ready = self._ready.get(spec.name, (None, None))
        return ready if known == spec else None

    def at_hand(self, spec: EnvSpec) -> EnvSpec | None:
        """The same, or the spec itself if it needs nothing; None if it would have to be looked for or installed."""
        return self.known(spec) or (None if any(one.takes(spec) for one in PROVIDERS) else spec)
