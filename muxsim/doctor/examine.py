"""All of it, for a config or without one."""

from __future__ import annotations

from collections.abc import Mapping

from muxsim.config import Config, ServerSettings
from muxsim.doctor.findings import Finding
from muxsim.doctor.kernel import examine_kernel
from muxsim.doctor.programs import examine_programs
from muxsim.doctor.room import examine_address, examine_room
from muxsim.doctor.served import examine_served
from muxsim.doctor.wanted import Wanted, wanted_by
from muxsim.errors import MuxsimError
from muxsim.processes.launcher import Launcher
from muxsim.provision.installer import run_under


async def examine(config: Config | None, environ: Mapping[str, str]) -> list[Finding]:
    """What a start needs of this machine, each thing tried where it can be; nothing of it is left."""
    wanted, settings = wanted_by(config), ServerSettings() if config is None else config.server
    return [
        *await _programs(wanted, environ),
        *await examine_kernel(wanted, settings),
        *await examine_room(wanted, settings, environ),
        *([examine_address()] if config is None else await examine_served(config, environ)),
    ]


async def _programs(wanted: Wanted, environ: Mapping[str, str]) -> list[Finding]:
    try:
        async with Launcher.open() as launcher:
            return await examine_programs(wanted, environ, run_under(launcher))
    except (OSError, MuxsimError) as error:
        lost = "no process can be started, and so no session"
        return [Finding(area="programs", name="guardian", state="error", found=str(error), lost=lost)]
