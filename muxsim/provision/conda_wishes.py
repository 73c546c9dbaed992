"""All that a spec says of conda packages, wherever it says it."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from muxsim.errors import PackageError
from muxsim.provision.npx import is_npx
from muxsim.spec import EnvSpec, fixed

if TYPE_CHECKING:
    from muxsim.provision.environment_yml import EnvironmentFile

GET_IT: Final = "pip install 'mcp-muxsim[conda]'"
"""Which has all that a conda environment is made with."""

SUBDIR: Final = f"linux-{ {'x86_64': '64'}.get(platform.machine(), platform.machine()) }"
"""What conda calls this machine."""

_NAME: Final = re.compile(r"(?:.*::)?\s*([A-Za-z0-9_.-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaWishes:
    """What is to be installed, and from where."""

    specs: tuple[str, ...]
    """Match specs."""

    channels: tuple[str, ...]
    """Names and URLs, first choice first."""

    pip: tuple[str, ...] = ()
    """Lines of a requirements file in `folder`."""

    folder: Path | None = None
    """Where the environment.yml is, if there is one."""

    variables: tuple[tuple[str, str], ...] = ()
    """What its programs find in their environment."""

    @property
    def label(self) -> str:
        """What it is, for people."""
        return " ".join(self.specs) or "an environment without packages"

    @property
    def has_python(self) -> bool:
        """Whether there will be an interpreter for certain."""
        return "python" in map(name_of, self.specs)


def conda_wishes(spec: EnvSpec) -> CondaWishes:
    """What the spec says, with what its environment.yml says. Raises PackageError."""
    wanted = spec.dependencies
    file = _read(wanted.conda_file) if wanted.conda_file else None
    if file is not None and file.platforms and SUBDIR not in file.platforms:
        raise PackageError(f"{wanted.conda_file} is for {', '.join(file.platforms)}, and this machine is {SUBDIR}")
    specs = wanted.conda if file is None else file.specs
    pip = () if file is None else file.pip
    channels = wanted.channels or (() if file is None else file.channels)
    if not channels:
        where = f"{wanted.conda_file} names no channels" if file is not None else "conda has no channels to ask"
        raise PackageError(f'{where}: write channels, such as ["conda-forge"]')
    return CondaWishes(
        specs=_with_python(spec, specs, needed=bool(pip) or _needs_python(spec)),
        channels=channels,
        pip=pip,
        folder=Path(wanted.conda_file).parent if file is not None else None,
        variables=() if file is None else file.variables,
    )


def name_of(spec: str) -> str:
    """The package that a match spec is about; "" where only a solver can tell."""
    match = _NAME.match(spec.strip())
    return match[1].lower() if match else ""


def _read(path: str) -> EnvironmentFile:
    try:
        from muxsim.provision.environment_yml import read_environment_file  # noqa: PLC0415 - of the extra
    except ImportError as error:
        raise PackageError(f"{path} cannot be read without PyYAML: {GET_IT}") from error
    try:
        return read_environment_file(Path(path))
    except (OSError, ValueError) as error:
        raise PackageError(f"{path} cannot be used: {error}") from error


def _needs_python(spec: EnvSpec) -> bool:
    """Whether Python runs the command, or something is to be installed for it."""
    wanted, command = spec.dependencies, fixed(spec.command)
    more = wanted.requirements or wanted.requirements_file or wanted.pyproject or wanted.script or wanted.python
    of_node = is_npx(command) or os.path.basename(command) == "node" or os.path.isdir(command)
    return bool(more) or command == "python" or not (of_node or "/" in command)


def _with_python(spec: EnvSpec, specs: tuple[str, ...], *, needed: bool) -> tuple[str, ...]:
    version = spec.dependencies.python
    if "/" in version:
        raise PackageError(f"conda brings its own Python, which python = {version!r} cannot be: write a version")
    if version:
        return (*specs, f"python={version}")
    return specs if not needed or "python" in map(name_of, specs) else (*specs, "python")


def has_conda_python(spec: EnvSpec) -> bool:
    """Whether conda makes the environment, with an interpreter in it; what is wrong with it, `conda_wishes` says."""
    if not spec.dependencies.has_conda:
        return False
    try:
        return conda_wishes(spec).has_python
    except PackageError:
        return False
