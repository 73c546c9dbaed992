"""Why a process could not be started, and what to do about it, in words."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterable, Mapping

from muxsim.inside.views import View
from muxsim.processes.command import Command, confinement_of
from muxsim.processes.views import ASKED, INSTALLED, remedy


def explain(number: int, stage: str, command: Command | None) -> str:
    """Why a start failed with this errno at this stage (``chdir``, ``exec`` …), and what to do about it.

    Without a command it was a fork that was to be taken in.
    """
    if command is None:
        return f"cannot take in a forked process ({stage}): {advise(number)}"
    start = f"cannot start {command.argv[0]!r}"
    if stage == "guardian":
        return f"{start}: muxsim's helper process has died, see stderr; another try gets a new one"
    if stage == "chdir":
        return f"{start} in {command.cwd!r}: {os.strerror(number)}; cwd must be a folder that may be entered"
    if stage == "exec":
        return f"{start} in {command.cwd!r}: {_explain_exec(number, command)}"
    key = ASKED if stage == INSTALLED else stage
    if key in confinement_of(command):
        return f"{start}: {os.strerror(number)} {_explain_confinement(key, number, command)}"
    return f"{start} ({stage}): {advise(number)}"


def _explain_confinement(key: str, number: int, command: Command) -> str:
    return {
        "cgroup": f"while it entered its cgroup, {command.cgroup}",
        "nice": f"while it was made {command.nice} nicer",
        "private": f"while it got views of its own of {_listed(command.views)}: {remedy(number)}",
        "no_new_privs": "while it was kept from gaining privileges; set no_new_privs = false",
        "landlock": "while walls were put around it with Landlock; see muxsim serve --check",
        "capabilities": "while it gave up its capabilities",
        "rlimits": f"while setting its limits, {_describe_rlimits(command.rlimits)}",
    }[key]


def _listed(views: Iterable[View]) -> str:
    return ", ".join(view.folder for view in views)


def _describe_rlimits(rlimits: Mapping[int, tuple[int, int]]) -> str:
    names = {getattr(resource, name): name for name in dir(resource) if name.startswith("RLIMIT_")}
    return ", ".join(
        f"{names[number]} {limits} (muxsim's own may be {_unlimited_or(resource.getrlimit(number)[1])})"
        for number, limits in rlimits.items()
    )


def _unlimited_or(limit: int) -> str:
    return "any" if limit == resource.RLIM_INFINITY else str(limit)


def _explain_exec(number: int, command: Command) -> str:
    if number != errno.ENOENT:
        return _EXEC_ADVICE.get(number) or advise(number)
    program = command.argv[0]
    if "/" in program:
        exists = os.path.exists(os.path.join(command.cwd, program))
        return "the interpreter that its first line (#!) names does not exist" if exists else "there is no such file"
    path = command.env.get("PATH")
    where = f"its PATH, {path}" if path is not None else f"{os.defpath}, since it is given no PATH"
    return f"there is none on {where}; install it, or name it by its full path"


_EXEC_ADVICE = {
    errno.EACCES: "it may not be executed; make it executable (chmod +x), or run it with its interpreter",
    errno.ENOEXEC: "it is no program; a script needs a first line that names its interpreter (#!)",
    errno.E2BIG: "its arguments and environment are too long together",
}


def advise(number: int) -> str:
    """The words for an errno, and what to do if it is one of those that are about limits."""
    reason = os.strerror(number)
    if number in (errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS):
        return f"{reason}; raise the limit (ulimit -n), or run fewer sessions"
    if number in (errno.EAGAIN, errno.ENOMEM):
        return f"{reason}; raise the limit on processes or memory (ulimit -u, the container's), or run fewer sessions"
    return reason
