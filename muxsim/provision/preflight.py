"""What can be known of an environment's start before any: its folder, its program, its script."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from muxsim.inside.removal import remove_tree
from muxsim.observe.events import unheard
from muxsim.processes.command import Command
from muxsim.processes.enclosure import open_enclosures
from muxsim.processes.explain import explain
from muxsim.processes.folders import own_folder
from muxsim.processes.launcher import Launcher
from muxsim.processes.reach import described, fault_here
from muxsim.processes.trial import fault_of
from muxsim.processes.views import NotPrivateError
from muxsim.provision.npx import is_package_folder
from muxsim.provision.packages import PROVIDERS
from muxsim.provision.provider import Provider
from muxsim.spec import CgroupMode, EnvSpec, Launch, fixed, has_placeholder

_RUNS_A_SCRIPT: Final = re.compile(r"(python[0-9.]*|node)")


def problems(specs: Iterable[EnvSpec], environ: Mapping[str, str]) -> list[str]:
    """A sentence for each thing that would fail every start, with the environment's name; [] if nothing would."""
    return [f"environment {spec.name!r}: {problem}" for spec in specs for problem in _problems_of(spec, environ)]


async def refused_views(specs: Iterable[EnvSpec]) -> list[str]:
    """A sentence for each environment whose private folders cannot be had, which is tried; [] if all can."""
    asking = [spec for spec in specs if spec.private]
    if not asking:
        return []
    with own_folder() as sessions:
        try:
            async with Launcher.open(folder=str(sessions)) as launcher:
                faults = [(spec, await _view_fault(spec, launcher, sessions)) for spec in asking]
        finally:
            remove_tree(sessions)
    return [f"environment {spec.name!r}: private: {fault}" for spec, fault in faults if fault]


async def _view_fault(spec: EnvSpec, launcher: Launcher, sessions: Path) -> str | None:
    try:
        return await fault_of(spec, launcher, sessions)
    except NotPrivateError as error:
        return str(error)


def try_enclosures(specs: Iterable[EnvSpec], cgroup: CgroupMode) -> None:
    """Raise `ConfigError` for walls and groups without which nothing starts."""
    # Other bounds that cannot be kept are told of at the start, and are no reason not to.
    with open_enclosures(specs, "required" if cgroup == "required" else "off", unheard):
        pass


def sandboxes() -> str:
    """What this machine has for ``sandbox = "landlock"``, in words."""
    return described()


def _problems_of(spec: EnvSpec, environ: Mapping[str, str]) -> list[str]:
    if (wrong := fault_here(spec)) is not None:
        return [f"{wrong.key}: {wrong.advice}"]
    # What only a session's own values would complete cannot be looked at without a session.
    launch = spec.launch(seed=0, session_id="check", workspace="/", environ=environ)
    command = Command(launch.argv, launch.env, launch.cwd)
    if not has_placeholder(spec.cwd) and (number := _folder_fault(launch.cwd)):
        return [explain(number, "chdir", command)]
    if template := _template_fault(spec):
        return [template]
    providers = [one for one in PROVIDERS if one.takes(spec)]
    if providers and not _is_bare_folder(fixed(spec.command)):
        return [problem for one in providers for problem in _missing_programs(one, spec, launch)]
    if not has_placeholder(spec.command) and (number := _program_fault(launch)):
        return [explain(number, "exec", command)]
    return _script_problems(spec, launch)


def _template_fault(spec: EnvSpec) -> str:
    """What is wrong with the folder that workspaces begin as, or with the one that holds it for each seed."""
    folder = spec.template_folder
    number = _folder_fault(folder) if folder else 0
    return f"workspace_from: {folder}: {os.strerror(number)}" if number else ""


def _is_bare_folder(path: str) -> bool:
    return os.path.isdir(path) and not is_package_folder(path)


def _missing_programs(provider: Provider, spec: EnvSpec, launch: Launch) -> list[str]:
    path, program = launch.env.get("PATH"), provider.program
    if lacking := program.lacks():
        return [f"its {lacking}"]
    if spec.dependencies.has_conda:
        return []  # it may bring them
    needs = [name for name in program.needs if shutil.which(name, path=path) is None]
    missing = " and ".join(name for name in needs if name != program.name or program.elsewhere() is None)
    return [f"its {program.installs} needs {missing}, not found on its PATH; {program.get_it}"] if missing else []


def _folder_fault(folder: str) -> int:
    if not os.path.isdir(folder):
        return errno.ENOTDIR if os.path.exists(folder) else errno.ENOENT
    return 0 if os.access(folder, os.X_OK) else errno.EACCES


def _program_fault(launch: Launch) -> int:
    program = launch.argv[0]
    if "/" not in program:
        return 0 if shutil.which(program, path=launch.env.get("PATH", os.defpath)) else errno.ENOENT
    path = os.path.join(launch.cwd, program)
    if not os.path.exists(path):
        return errno.ENOENT
    return 0 if os.path.isfile(path) and os.access(path, os.X_OK) else errno.EACCES


def _script_problems(spec: EnvSpec, launch: Launch) -> list[str]:
    if len(spec.args) == 0 or spec.args[0].startswith("-") or has_placeholder(spec.args[0]):
        return []
    if _RUNS_A_SCRIPT.fullmatch(os.path.basename(launch.argv[0])) is None:
        return []
    script = os.path.join(launch.cwd, launch.argv[1])
    return [] if os.path.exists(script) else [f"there is no {script}, which {launch.argv[0]} is to run"]
