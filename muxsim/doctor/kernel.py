"""What the kernel lets muxsim do: end processes for sure, and keep sessions apart and within bounds. Each is tried."""

from __future__ import annotations

import os
import platform
import signal
import tempfile
from typing import Final

from muxsim.config import ServerSettings
from muxsim.doctor.findings import Finding, lacking, there
from muxsim.doctor.wanted import Names, Wanted
from muxsim.inside import landlock
from muxsim.processes.bounds import CONTROLLERS
from muxsim.processes.cgroups import CgroupError, Cgroups
from muxsim.processes.reach import not_kept, why_not
from muxsim.provision.preflight import refused_views
from muxsim.spec import EnvSpec

_AREA: Final = "isolation"


async def examine_kernel(wanted: Wanted, settings: ServerSettings) -> list[Finding]:
    """Of each thing that keeps sessions apart."""
    return [
        _pidfd(),
        _cgroup(wanted.cgroup, settings),
        await _views(wanted.private),
        _landlock(wanted.landlock),
    ]


def _pidfd() -> Finding:
    try:
        handle = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(handle, 0)
        finally:
            os.close(handle)
    except (AttributeError, OSError) as error:
        lost = "no process can be started: muxsim signals none by its number, which might be another's by then"
        advice = "use Linux 5.3 or newer, and a container whose seccomp profile lets pidfd_open through"
        return Finding(area=_AREA, name="pidfd", state="error", found=str(error), lost=lost, advice=advice)
    return there(_AREA, "pidfd", f"Linux {platform.release()}")


def _cgroup(users: Names, settings: ServerSettings) -> Finding:
    lost = "max_memory, max_cpus and max_processes are not kept"
    if settings.cgroup == "off":
        return lacking(_AREA, "cgroup", 'cgroup = "off"', lost=lost, advice="take that out of [server]", users=users)
    try:
        groups = Cgroups.open(CONTROLLERS.values())
    except CgroupError as error:
        found, _, advice = str(error).partition("; ")
        advice = advice or "run muxsim on a system with cgroup v2, such as any with systemd from the last years"
        return lacking(_AREA, "cgroup", found, lost=lost, advice=advice, users=users)
    folder = os.path.dirname(groups.folder)
    groups.close()
    return there(_AREA, "cgroup", f"{folder} may be divided by {', '.join(sorted(CONTROLLERS.values()))}")


async def _views(users: Names) -> Finding:
    with tempfile.TemporaryDirectory(prefix="muxsim-doctor-") as folder:
        refused = await refused_views([EnvSpec(name="trial", command="true", private=(folder,))])
    if not refused:
        return there(_AREA, "namespaces", "a process may have folders of its own (user namespace, overlayfs)")
    lost = "no private folders can be had; sessions share what is installed, read-only where that is possible"
    found = refused[0].partition(f"{folder}: ")[2] or refused[0]
    advice = "allow user namespaces (sysctl user.max_user_namespaces; in a container, its seccomp and AppArmor profile)"
    return lacking(_AREA, "namespaces", found, lost=lost, advice=advice, users=users)


def _landlock(users: Names) -> Finding:
    if (why := why_not()) is not None:
        advice = 'use a newer kernel, or sandbox = "bubblewrap"'
        return lacking(_AREA, "landlock", why, lost='sandbox = "landlock" cannot be used', advice=advice, users=users)
    if unkept := not_kept():
        lost = f'sandbox = "landlock" does not keep out {"; ".join(unkept)}'
        found, advice = f"ABI {landlock.abi()}", "use a newer kernel"
        return Finding(area=_AREA, name="landlock", state="warning", found=found, lost=lost, advice=advice)
    return there(_AREA, "landlock", f"ABI {landlock.abi()}")
