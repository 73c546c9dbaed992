"""Each environment's package, installed once for all who wait for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import trio

from muxsim.errors import PackageError
from muxsim.observe.events import Events, Installed, Listener, NotInstalled, RunsAsItStands, unheard
from muxsim.processes.launcher import Launcher
from muxsim.provision.as_it_stands import AsItStands
from muxsim.provision.cache import cache_folder
from muxsim.provision.installer import Installer, Run, installer_variables, run_directly, run_under
from muxsim.provision.npm import Npm
from muxsim.provision.provider import Provider
from muxsim.provision.uv import UvTools
from muxsim.runtime.soon import may_wait
from muxsim.spec import EnvSpec

PROVIDERS: Final[tuple[Provider, ...]] = (Npm(), UvTools())
"""In the order in which they prepare a spec: what one has made of its command, the next may take."""

_COSTS: Final = (
    "each start runs {program} too, which takes its time and stays as a process of the session; what it has to install"
    " first has to be there within start_timeout, and it sees only the variables of env"
)


async def prepare(
    spec: EnvSpec,
    environ: Mapping[str, str] = os.environ,
    *,
    seen: Mapping[str, str] | None = None,
    run: Run = run_directly,
    tell: Listener = unheard,
) -> EnvSpec:
    """The spec with what it needs installed and its command resolved to that; others as they are.

    Any number of tasks and processes may prepare the same package at once: one installs, the others wait. An install
    that was cut off or is damaged is made anew; once it is whole, no network is needed. Installers see ``seen``, else
    all of ``environ``, with the spec's variables on top. Raises PackageError, also when it takes longer than
    ``limits.install_timeout``.
    """
    for provider in PROVIDERS:
        if provider.takes(spec):
            cache = cache_folder(environ) / provider.program.name
            installer = Installer(provider.program, spec, cache, environ if seen is None else seen, run)
            with installer.bounded():
                spec = await _prepared(provider, spec, installer, tell)
    return spec


async def _prepared(provider: Provider, spec: EnvSpec, installer: Installer, tell: Listener) -> EnvSpec:
    try:
        return await provider.prepare(spec, installer)
    except AsItStands as why:
        installer.tool(spec.command)
        program = os.path.basename(spec.command)
        tell(RunsAsItStands(spec.name, str(why), _COSTS.format(program=program)))
        return spec


class Packages:
    """Prepares specs, and remembers what came of it as long as they stay the same.

    Installers run under the eye of the launcher's guardian, and see no more than `installer_variables`.
    """

    def __init__(self, launcher: Launcher, events: Events) -> None:
        self._events = events
        self._run = run_under(launcher)
        self._ready: dict[str, tuple[EnvSpec, EnvSpec]] = {}
        self._preparing: dict[str, trio.Lock] = {}

    async def ready(self, spec: EnvSpec) -> EnvSpec:
        """The spec with its package installed, once; raises `PackageError`, and then the next one tries again."""
        if (known := self.known(spec)) is not None:
            return known
        await may_wait()
        async with self._preparing.setdefault(spec.name, trio.Lock()):
            if (known := self.known(spec)) is not None:
                return known
            ready = await self._prepare(spec)
            self._ready[spec.name] = spec, ready
            return ready

    async def _prepare(self, spec: EnvSpec) -> EnvSpec:
        tell, began = self._events.emit, trio.current_time()
        try:
            ready = await prepare(spec, seen=installer_variables(os.environ), run=self._run, tell=tell)
        except PackageError as error:
            tell(NotInstalled(spec.name, str(error)))
            raise
        if ready != spec:
            tell(Installed(spec.name, round(trio.current_time() - began, 3)))
        return ready

    def known(self, spec: EnvSpec) -> EnvSpec | None:
        """The spec as `ready` gives it, if there is nothing left to do."""
        known, ready = self._ready.get(spec.name, (None, None))
        return ready if known == spec else None
