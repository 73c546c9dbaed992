"""A node that waits: what it says of itself, and which modules it must not load before there is a session."""

from __future__ import annotations

import contextlib
import hmac
import os
from typing import Final

import msgspec
import trio

from muxsim.errors import StartError
from muxsim.observe.events import Listener, SlotsLeaveOut
from muxsim.processes.process import Process
from muxsim.spec import EnvSpec
from muxsim.start.slots.recipe import NotWarm

# What a waiting process says of itself; paths of its files may make it long.
_REPORT_LIMIT: Final = 1024 * 1024
# Modules that are left out of an environment's slots before loading early is no use.
_LEFT_OUT_LIMIT: Final = 20
_LAST_WORDS: Final = 64 * 1024


class Withdrawn(Exception):
    """The next slot will be made otherwise."""


class _Report(msgspec.Struct):
    """What a waiting node says of itself, see warm_node.cjs."""

    tag: str
    files: tuple[str, ...] = ()
    skip: str | None = None
    reads: str = ""
    refused: str | None = None


class Nodes:
    """What was found out about the modules of each environment."""

    def __init__(self, tell: Listener) -> None:
        self._tell = tell
        self._left_out: dict[str, tuple[str, ...]] = {}

    def forget(self, name: str) -> None:
        """The environment has changed."""
        self._left_out.pop(name, None)

    def left_out(self, name: str) -> tuple[str, ...]:
        """The modules that a node of this environment is not to load early."""
        return self._left_out.get(name, ())

    async def loaded(self, process: Process, tag: str, spec: EnvSpec, skipped: tuple[str, ...]) -> tuple[str, ...]:
        """Wait until a node has loaded what it can; returns the files of the package.

        Raises `Withdrawn` if one more module has to be left out than were ``skipped``, `NotWarm` if that is no use, and
        StartError if it ends.
        """
        report = await _read_report(process, tag)
        if report.refused is not None:
            raise NotWarm(report.refused)
        if (module := report.skip) is not None:
            if module in skipped or len(skipped) >= _LEFT_OUT_LIMIT:
                raise NotWarm(f"{module} reads {report.reads} while it loads")
            left_out = self.left_out(spec.name)
            if module not in left_out:  # another slot may have found it in the meantime
                self._left_out[spec.name] = (*left_out, module)
                self._tell(SlotsLeaveOut(spec.name, module, report.reads))
            raise Withdrawn
        return report.files


async def _read_report(process: Process, tag: str) -> _Report:
    """The line that a waiting node says of itself; what modules may have printed before is left out."""
    partial_line = b""
    left = _REPORT_LIMIT
    while left > 0:
        await trio.lowlevel.wait_readable(process.stdout)
        new = os.read(process.stdout, left)
        if not new:
            await process.wait()
            raise StartError(last_words(process))
        left -= len(new)
        *lines, rest = new.split(b"\n")
        if not lines:
            partial_line += rest
            continue
        lines[0] = partial_line + lines[0]
        partial_line = rest
        for line in lines:
            # Any library may print lines of JSON, with any key.
            with contextlib.suppress(msgspec.MsgspecError, RecursionError, ValueError):
                report = msgspec.json.decode(line, type=_Report)
                if hmac.compare_digest(report.tag.encode(), tag.encode()):
                    return report
    raise StartError("its modules print without end while they load")


def last_words(process: Process) -> str:
    """How a process ended, and what it said last."""
    try:
        said = os.read(process.stderr, _LAST_WORDS).decode(errors="replace").strip()
    except (OSError, ValueError):
        said = ""
    status = f"exit status {process.returncode}"
    return f"{status}, {said.splitlines()[-1]}" if said else status
