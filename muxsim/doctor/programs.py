"""The programs that muxsim runs: which of them are there, and how old they are."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import trio

from muxsim import __version__
from muxsim.doctor.findings import Finding, lacking, there
from muxsim.doctor.wanted import Names, Wanted
from muxsim.errors import MuxsimError
from muxsim.processes.command import ProcessStartError
from muxsim.provision.installer import Program, Run, installer_variables
from muxsim.provision.packages import PROVIDERS

_AREA: Final = "programs"
# Seconds for a program to say its version.
_PATIENCE: Final = 20.0
# js_servers, and most packages by now, need no less.
_LEAST_NODE: Final = 20
_NUMBERS: Final = re.compile(r"\d+(\.\d+)+")


async def examine_programs(wanted: Wanted, environ: Mapping[str, str], run: Run) -> list[Finding]:
    """Of each program, in the order in which people know them."""
    look = _Look(installer_variables(environ), run)
    return [
        there(_AREA, "python", f"{platform.python_version()} at {sys.executable}, with muxsim {__version__}"),
        await look.node(wanted),
        await look.npm(wanted),
        await look.uv(wanted.uv),
        _conda(wanted.conda),
        await look.bubblewrap(wanted.bubblewrap),
    ]


class _Look:
    """Asks programs for their versions."""

    def __init__(self, environ: Mapping[str, str], run: Run) -> None:
        self._environ = environ
        self._run = run

    async def node(self, wanted: Wanted) -> Finding:
        lost, advice = "no environment in JavaScript can be run", "install Node.js 20 or newer, with npm"
        path = self._which("node")
        if path is None:
            return lacking(_AREA, "node", "not on PATH", lost=lost, advice=advice, users=wanted.node)
        version = await self._version(path)
        if version is None or int(version.partition(".")[0]) < _LEAST_NODE:
            found = f"{version or 'of no version that it tells'} at {path}"
            return lacking(_AREA, "node", found, lost=lost, advice=advice, users=wanted.node)
        return there(_AREA, "node", f"{version} at {path}")

    async def npm(self, wanted: Wanted) -> Finding:
        lost, advice = "no npm package can be installed", _program("npm").get_it
        return await self._found("npm", self._which("npm"), lost, advice, wanted.npm)

    async def uv(self, users: Names) -> Finding:
        lost = "requirements, pyproject, other versions of Python and uvx cannot be used"
        return await self._found(
            "uv", self._which("uv") or _program("uv").elsewhere(), lost, _program("uv").get_it, users
        )

    async def bubblewrap(self, users: Names) -> Finding:
        path = self._which("bwrap")
        lost, advice = 'sandbox = "bubblewrap" cannot be used', 'install bubblewrap, or use sandbox = "landlock"'
        if path is not None and not await self._said(path, *_ENCLOSED):
            found = f"{path} cannot make a sandbox here"
            advice = "allow user namespaces (see below), or run muxsim where they are"
            return lacking(_AREA, "bubblewrap", found, lost=lost, advice=advice, users=users)
        return await self._found("bubblewrap", path, lost, advice, users)

    async def _found(self, name: str, path: str | None, lost: str, advice: str, users: Names) -> Finding:
        if path is None:
            return lacking(_AREA, name, "not on PATH", lost=lost, advice=advice, users=users)
        version = await self._version(path)
        if version is None:
            return lacking(_AREA, name, f"{path} does not run", lost=lost, advice=advice, users=users)
        return there(_AREA, name, f"{version} at {path}")

    def _which(self, name: str) -> str | None:
        return shutil.which(name, path=self._environ.get("PATH"))

    async def _version(self, path: str) -> str | None:
        found = _NUMBERS.search(await self._said(path, "--version"))
        return found[0] if found else None

    async def _said(self, *argv: str) -> str:
        """What a program says; "" if it fails."""
        null = os.open(os.devnull, os.O_RDONLY)  # nothing is held while it runs
        try:
            with trio.fail_after(_PATIENCE):
                done = await self._run(argv, cwd=Path("/"), environ=self._environ, lock=null)
        except (OSError, ProcessStartError, MuxsimError, trio.TooSlowError):
            return ""
        finally:
            os.close(null)
        return "" if done.returncode else done.stdout.decode(errors="replace")


_ENCLOSED: Final = (
    *("--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
    *("--", "echo", "enclosed"),
)


def _conda(users: Names) -> Finding:
    program = _program("conda")
    if program.lacks():
        lost = "conda environments cannot be used"
        return lacking(_AREA, "conda", "no py-rattler", lost=lost, advice=program.get_it, users=users)
    return there(_AREA, "conda", "by py-rattler; conda itself is not needed")


def _program(name: str) -> Program:
    return next(one.program for one in PROVIDERS if one.program.name == name)
