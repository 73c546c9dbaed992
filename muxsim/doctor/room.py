"""How much of everything there is: files, processes, memory, space on disks, and the address to listen on."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from muxsim.admission.memory import MemoryMeter
from muxsim.config import ServerSettings
from muxsim.doctor.findings import Finding, lacking, there
from muxsim.doctor.wanted import Names, Wanted
from muxsim.errors import ListenError
from muxsim.processes.cgroups import CgroupError, CgroupFiles, own_group
from muxsim.provision.cache import cache_folder
from muxsim.runtime.descriptors import OF_A_SESSION, SPARE
from muxsim.serve.operate.listening import listening

_AREA: Final = "room"
# Threads count too, and a backend in Node has eleven of them when it is at work.
_TASKS_OF_A_SESSION: Final = 12
# Bytes. An environment with a machine-learning library has more than that.
_LITTLE_FOR_PACKAGES: Final = 2 * 2**30
_LITTLE_FOR_WORKSPACES: Final = 256 * 2**20
# Past this share of it in use, sessions wait for a disk.
_MUCH_SWAP: Final = 0.25


async def examine_room(wanted: Wanted, settings: ServerSettings, environ: Mapping[str, str]) -> list[Finding]:
    """Of each thing that runs out, but for the address, which `examine_address` looks at."""
    return [
        _files(settings.max_sessions),
        _tasks(settings.max_sessions),
        await _memory(settings),
        _swap(),
        _disk("packages", cache_folder(environ), _LITTLE_FOR_PACKAGES, "MUXSIM_CACHE", wanted.installs),
        _disk("workspaces", Path(tempfile.gettempdir()), _LITTLE_FOR_WORKSPACES, "TMPDIR", ()),
    ]


def examine_address() -> Finding:
    """Of where muxsim listens if nothing else is said."""
    settings = ServerSettings()
    where = f"{settings.host}:{settings.port}"
    try:
        with listening(settings, authenticated=False):
            pass
    except ListenError:
        lost, advice = "muxsim serve does not start without --port", "choose another --port, or 0 for a free one"
        return lacking(_AREA, "address", f"{where} is taken", lost=lost, advice=advice)
    return there(_AREA, "address", f"{where} is free")


def _files(sessions: int) -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return there(_AREA, "files", "as many as one likes")
    carried = max(0, hard - SPARE) // OF_A_SESSION
    found = f"{hard} may be open at once, which carries {carried} sessions with a client each"
    if carried >= sessions:
        return there(_AREA, "files", found)
    lost = f"more sessions are refused (503), though max_sessions is {sessions}"
    advice = "raise the hard limit (ulimit -Hn, LimitNOFILE= of a service), or lower max_sessions"
    return lacking(_AREA, "files", found, lost=lost, advice=advice)


def _tasks(sessions: int) -> Finding:
    count, what = min(_task_limits())
    found = f"{count} at once by {what}"
    if count >= sessions * _TASKS_OF_A_SESSION:
        return there(_AREA, "processes", found)
    lost = f"{sessions} sessions (max_sessions) may have {sessions * _TASKS_OF_A_SESSION}, as Node's have threads"
    advice = "raise it (ulimit -u, TasksMax= of a service, --pids-limit of a container), or lower max_sessions"
    return lacking(_AREA, "processes", found, lost=lost, advice=advice)


def _task_limits() -> Iterator[tuple[int, str]]:
    for name in ("kernel/pid_max", "kernel/threads-max"):
        with contextlib.suppress(OSError, ValueError):
            yield int(Path("/proc/sys", name).read_text()), name.replace("/", ".")
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and os.geteuid() != 0:
        yield soft, "ulimit -u"
    with contextlib.suppress(CgroupError):
        folder = Path(own_group(CgroupFiles()))
        for one in (folder, *folder.parents):
            with contextlib.suppress(OSError, ValueError):  # "max" is no limit
                yield int((one / "pids.max").read_text()), f"pids.max of {one}"


async def _memory(settings: ServerSettings) -> Finding:
    limit = settings.memory_limit if isinstance(settings.memory_limit, str) else "90%"
    reading = await MemoryMeter(limit, own=int).read()
    if reading is None:
        lost, advice = "memory_limit is not kept", "mount /proc"
        return lacking(_AREA, "memory", "cannot be read", lost=lost, advice=advice)
    found = f"{_shown(reading.used)} in use {reading.what}, and memory_limit ({limit}) is {_shown(reading.limit)}"
    if reading.used < reading.limit:
        return there(_AREA, "memory", found)
    lost, advice = "no session starts (503)", "make room, or raise memory_limit"
    return Finding(area=_AREA, name="memory", state="error", found=found, lost=lost, advice=advice)


def _swap() -> Finding:
    sizes = dict.fromkeys(("SwapTotal", "SwapFree"), 0)
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in sizes:
                sizes[name] = int(value.split()[0]) * 1024
    whole, used = sizes["SwapTotal"], sizes["SwapTotal"] - sizes["SwapFree"]
    if not whole:
        return there(_AREA, "swap", "none, so that what has no room is ended and does not become slow")
    found = f"{_shown(used)} of {_shown(whole)} in use"
    if used <= whole * _MUCH_SWAP:
        return there(_AREA, "swap", found)
    lost, advice = "sessions are slow while they wait for the disk", "lower memory_limit, or set max_memory"
    return lacking(_AREA, "swap", found, lost=lost, advice=advice)


def _disk(name: str, folder: Path, little: int, variable: str, users: Names) -> Finding:
    there_is = next(one for one in (folder, *folder.parents) if one.exists())
    lost = "nothing can be installed" if name == "packages" else "no session can be started"
    advice = f"name another folder with {variable}"
    if not os.access(there_is, os.W_OK | os.X_OK) or not there_is.is_dir():
        found = f"{there_is} cannot be written to"
        if name == "workspaces":
            return Finding(area=_AREA, name=name, state="error", found=found, lost=lost, advice=advice)
        return lacking(_AREA, name, found, lost=lost, advice=advice, users=users)
    free = shutil.disk_usage(there_is).free
    found = f"{_shown(free)} free for {folder}"
    if free < little:
        lost = f"{name} may not have room"
        return lacking(_AREA, name, found, lost=lost, advice=f"make room, or {advice}")
    return there(_AREA, name, found)


def _shown(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
