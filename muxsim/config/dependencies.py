"""What an environment's table says of what it needs installed, and whether its command has any use of that."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from muxsim.config.commands import absolute, is_version, runs_own_python
from muxsim.config.table import Table, shown
from muxsim.errors import PackageError
from muxsim.provision.conda_records import channel_urls
from muxsim.provision.inline import block_of, has_metadata
from muxsim.provision.local_paths import local_path
from muxsim.provision.npx import is_npx
from muxsim.provision.requirements import read_file, read_lines
from muxsim.provision.uvx import is_uvx
from muxsim.provision.wishes import PROJECT_FILES, wishes_of
from muxsim.spec import Dependencies, EnvSpec, fixed, has_placeholder

_OF_PYTHON: Final = ("requirements", "pyproject")
_FILES: Final = ("-r", "--requirement", "-c", "--constraint")


def with_dependencies(
    table: Table, values: Mapping[str, Any], command: str, args: tuple[str, ...]
) -> tuple[str, Dependencies]:
    """The command, which is ``python`` where that is to be the environment's own, and what it needs."""
    wanted = _read(table, values)
    if "python" not in values or is_version(values["python"]):
        wanted = replace(wanted, script=_script_that_says(values, args))
    _check_use(table, values, command, wanted)
    wanted = replace(wanted, contents=_digest(wanted))
    if wanted.has_python and runs_own_python(values["command"]):
        return "python", wanted
    return command, wanted


def _read(table: Table, values: Mapping[str, Any]) -> Dependencies:
    requirements, python = values.get("requirements", ()), values.get("python", "")
    conda = values.get("conda", ())
    lines = requirements if isinstance(requirements, tuple) else ()
    _check_paths(table, lines)
    wanted = Dependencies(
        requirements=lines,
        folder=str(table.folder) if any(map(_goes_from_a_folder, lines)) else "",
        requirements_file="" if isinstance(requirements, tuple) else _file(table, "requirements", requirements),
        pyproject=_project(table, values["pyproject"]) if "pyproject" in values else "",
        packages=values.get("packages", ()),
        conda=conda if isinstance(conda, tuple) else (),
        conda_file="" if isinstance(conda, tuple) else _file(table, "conda", conda),
        channels=tuple(channel_urls(values.get("channels", ()), table.folder)),
    )
    _check_conda(table, values, wanted)
    # The path of an interpreter alone is the user's own environment, to which nothing is added.
    if python and (is_version(python) or wanted.has_python or is_uvx(values["command"])):
        wanted = replace(wanted, python=_interpreter(table, python))
    return wanted


def _goes_from_a_folder(line: str) -> bool:
    return line.startswith("-") or local_path(line, Path("/")) is not None


def _check_paths(table: Table, lines: Sequence[str]) -> None:
    """Raise the fault of a line that names what is not there."""
    for at, line in enumerate(lines):
        key, (option, _, rest) = f"requirements[{at}]", line.partition(" ")
        if (found := local_path(line, table.folder)) is not None:
            if fault := found.fault():
                raise table.error(key, f"{fault}: name a wheel, or a folder with a pyproject.toml", line)
        elif option in _FILES and "://" not in rest:
            there = absolute(rest.strip(), table.folder)
            if not os.path.isfile(there):
                raise table.error(key, f"names no file, for there is no {there}: make it, or take it out", line)


def _check_conda(table: Table, values: Mapping[str, Any], wanted: Dependencies) -> None:
    """Raise the fault of conda packages that come from nowhere, and of what conda has no say in."""
    if wanted.channels and not wanted.has_conda:
        raise table.error("channels", "are where conda packages come from: name some under conda, or take it out")
    if wanted.conda and not wanted.channels:
        raise table.error("conda", 'has no channels to ask: write channels, such as ["conda-forge"]')
    if wanted.has_conda and "python" in values and not is_version(values["python"]):
        raise table.error("python", "names an interpreter, and conda brings its own: write a version, or take it out")


def _interpreter(table: Table, python: str) -> str:
    if has_placeholder(python):
        raise table.error("python", "differs from session to session, and an environment is installed once for all")
    return python if is_version(python) or "/" not in python else absolute(fixed(python), table.folder)


def _file(table: Table, key: str, path: str) -> str:
    there = absolute(path, table.folder)
    if not os.path.isfile(there):
        raise table.error(key, f"names no file, for there is no {there}: make it, or write a list instead")
    return there


def _project(table: Table, path: str) -> str:
    there = absolute(path, table.folder)
    folder = os.path.dirname(there) if os.path.basename(there) == "pyproject.toml" else there
    if not os.path.isfile(os.path.join(folder, "pyproject.toml")):
        raise table.error("pyproject", f"has no pyproject.toml in {folder}: name the project's folder")
    return folder


def _script_that_says(values: Mapping[str, Any], args: tuple[str, ...]) -> str:
    """The script of the command, if it is one of Python's that has its requirements in it; else ``""``."""
    script = next((arg for arg in args if not arg.startswith("-")), "")
    if not runs_own_python(values["command"]) or not script.endswith(".py") or has_placeholder(script):
        return ""
    return fixed(script) if has_metadata(Path(fixed(script))) else ""


def _digest(wanted: Dependencies) -> str:
    """What the files that are named have in them; "" where there are none. What is wrong with one is told later."""
    found: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        written = [read_lines(wanted.requirements, Path(wanted.folder or "/"))]
        if wanted.requirements_file:
            written.append(read_file(Path(wanted.requirements_file)))
        found += [text for one in written for text in one.texts]
        if wanted.script:
            found.append(block_of(Path(wanted.script)))
        files = [
            wanted.conda_file,
            *(os.path.join(wanted.pyproject, name) for name in PROJECT_FILES if wanted.pyproject),
        ]
        found += [Path(file).read_text(encoding="utf-8") for file in files if file and os.path.isfile(file)]
    with contextlib.suppress(PackageError):
        found += [path.digest() for path in wishes_of(EnvSpec(name="", command="", dependencies=wanted)).paths]
    return hashlib.sha256("\0".join(found).encode()).hexdigest() if found else ""


def _check_use(table: Table, values: Mapping[str, Any], command: str, wanted: Dependencies) -> None:
    """Raise the fault of what the command cannot use."""
    name = shown(values["command"])
    is_node = is_npx(command) or os.path.basename(command) == "node" or os.path.isdir(fixed(command))
    if wanted.packages and (runs_own_python(values["command"]) or is_uvx(command)) and not wanted.has_conda:
        raise table.error("packages", f"are of npm, and {name} is run by Python: write them under requirements")
    if is_node and not wanted.has_conda:
        for key in _OF_PYTHON:
            if key in values:
                raise table.error(key, f"is for Python commands, and {name} is none: take it out, or use packages")
