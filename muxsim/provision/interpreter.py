"""The Python that an environment is made of: muxsim's own where that will do, else one that uv finds or installs."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muxsim.errors import PackageError
from muxsim.processes.command import ProcessStartError
from muxsim.provision.installer import Installer
from muxsim.provision.requirements import admits

_QUIET: Final = {"UV_NO_PROGRESS": "1", "NO_COLOR": "1"}


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python on this machine."""

    path: str
    version: str
    """What tells it from another one in its place: version and build."""

    @property
    def feature_version(self) -> str:
        """Such as ``Python 3.12``."""
        return "Python " + ".".join(self.version.split(maxsplit=1)[0].split(".")[:2])


async def find_interpreter(wanted: str, requires: tuple[str, ...], tools: Installer) -> Interpreter:
    """The interpreter that is wanted, by path or by version, else one that is in all these sets of versions.

    Raises PackageError.
    """
    try:
        own = all(admits(one, platform.python_version()) for one in requires)
    except ValueError as error:
        raise PackageError(str(error)) from error
    if not wanted and own:
        return Interpreter(sys.executable, sys.version)
    path = wanted if "/" in wanted else await _found_by_uv(wanted or ",".join(requires), tools)
    return Interpreter(path, await _version_of(path, tools))


async def _found_by_uv(request: str, tools: Installer) -> str:
    """Raises PackageError where there is none and none can be had."""
    if (path := await _find(request, tools)) is None:
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            await tools.install(
                ("python", "install", request), Path("/"), null, what=f"Python {request}", folders=_QUIET
            )
        finally:
            os.close(null)
        path = await _find(request, tools)
    if path is None:
        raise PackageError(f"uv has installed Python {request}, and does not find it")
    return path


async def _find(request: str, tools: Installer) -> str | None:
    # uv has warnings of other interpreters to say, too.
    said = await _said(tools, (tools.tool("uv"), "python", "find", "--no-project", "--system", request))
    return next((line for line in reversed(said) if line.startswith("/")), None)


async def _version_of(path: str, tools: Installer) -> str:
    said = await _said(tools, (path, "-I", "-S", "-c", "import sys; print(sys.version.replace('\\n', ' '))"))
    if not said:
        raise PackageError(f"{path} cannot be run, or is no Python: name another interpreter with python")
    return said[-1]


async def _said(tools: Installer, argv: tuple[str, ...]) -> list[str]:
    """The lines that a program says; [] if it fails."""
    null = os.open(os.devnull, os.O_RDONLY)  # nothing is held while it runs
    try:
        done = await tools.run(argv, cwd=Path("/"), environ={**tools.variables, **_QUIET}, lock=null)
    except (OSError, ProcessStartError):
        return []
    finally:
        os.close(null)
    return [] if done.returncode else done.stdout.decode(errors="replace").split("\n")[:-1]
