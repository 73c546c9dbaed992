"""All that a spec says of Python packages, wherever it says it, as what uv is told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from muxsim.errors import PackageError
from muxsim.provision.conda_wishes import conda_wishes
from muxsim.provision.inline import Metadata, read_metadata
from muxsim.provision.local_paths import LocalPath, local_paths
from muxsim.provision.requirements import as_arguments, parse_pyproject, read_file, read_lines
from muxsim.provision.secrets import without_secrets
from muxsim.provision.uvx import UvxCall, is_uvx, parse_uvx
from muxsim.spec import EnvSpec, fixed

_BESIDE_A_PROJECT = ("uv.lock", "uv.toml", "setup.py", "setup.cfg", "requirements.txt")

PROJECT_FILES = ("pyproject.toml", *_BESIDE_A_PROJECT)
"""On these depends what a project asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is to be installed, and how."""

    asked: tuple[str, ...] = ()
    """Requirements, as they are written, but for passwords: they are shown, logged and locked."""

    inputs: tuple[str, ...] = ()
    """The same as arguments for uv."""

    editable: tuple[str, ...] = ()
    """The project itself, which stays where its owner works on it."""

    locked: tuple[str, ...] = ()
    """Folders of projects whose uv.lock says what is to be installed."""

    options: tuple[str, ...] = ()
    """More arguments, those of uvx."""

    texts: tuple[str, ...] = ()
    """What was read of files."""

    paths: tuple[LocalPath, ...] = ()
    """What is named of files and folders of this machine."""

    folder: Path | None = None
    """From where relative paths go, and uv's own settings are taken."""

    python: str = ""
    """The interpreter that is wanted."""

    requires_python: tuple[str, ...] = ()
    """The sets of versions in which it has to be."""

    call: UvxCall | None = None
    """The command line of uvx, if there is one."""

    @property
    def key(self) -> tuple[str, ...]:
        """All on which depends what comes of it, but for the interpreter."""
        said = (*self.asked, "", *self.inputs, "", *self.editable, "", *self.locked, "", *self.options, "", *self.texts)
        return (*said, *(word for one in self.paths for word in (str(one.path), one.digest())))

    @property
    def label(self) -> str:
        """What it is, for people."""
        return " ".join(self.asked) or "an environment without packages"


def wishes_of(spec: EnvSpec) -> Wishes:
    """What the spec says, with what its files say. Raises PackageError, and AsItStands for a uvx of its own kind."""
    wanted = spec.dependencies
    every = [
        _of_uvx(spec),
        _of_conda(spec),
        _of_list(spec),
    ]
    for path, read in (
        (wanted.requirements_file, _of_file),
        (wanted.pyproject and os.path.join(wanted.pyproject, "pyproject.toml"), _of_project),
        (wanted.script, _of_script),
    ):
        if path:
            try:
                every.append(read(Path(path)))
            except (OSError, ValueError, RecursionError) as error:  # UnicodeDecodeError is one of the second
                raise PackageError(f"{path} cannot be read: {error}") from error
    return _together(every)


def _together(every: list[Wishes]) -> Wishes:
    return Wishes(
        asked=tuple(without_secrets(one) for wishes in every for one in wishes.asked),
        inputs=tuple(one for wishes in every for one in wishes.inputs),
        editable=tuple(one for wishes in every for one in wishes.editable),
        locked=tuple(one for wishes in every for one in wishes.locked),
        options=tuple(one for wishes in every for one in wishes.options),
        texts=tuple(one for wishes in every for one in wishes.texts),
        paths=tuple(one for wishes in every for one in wishes.paths),
        folder=next((wishes.folder for wishes in every if wishes.folder is not None), None),
        python=next((wishes.python for wishes in every if wishes.python), ""),
        requires_python=tuple(one for wishes in every for one in wishes.requires_python),
        call=every[0].call,
    )


def _of_uvx(spec: EnvSpec) -> Wishes:
    if not is_uvx(spec.command):
        return Wishes()
    try:
        call = parse_uvx(spec.args)
    except ValueError as error:
        raise PackageError(str(error)) from error
    asked = (call.package, *call.more)
    paths = tuple(local_paths(asked, Path(fixed(spec.cwd))))
    return Wishes(asked=asked, inputs=asked, options=call.options, paths=paths, python=call.python, call=call)


def _of_conda(spec: EnvSpec) -> Wishes:
    """The `pip:` section of an environment.yml; what is relative in it is so to that file."""
    if not spec.dependencies.conda_file:
        return Wishes()
    conda = conda_wishes(spec)
    return _of_lines(conda.pip, conda.folder, f"the pip section of {spec.dependencies.conda_file}")


def _of_list(spec: EnvSpec) -> Wishes:
    """The requirements of the table itself."""
    wanted = spec.dependencies
    folder = Path(wanted.folder) if wanted.folder else None
    wishes = _of_lines(wanted.requirements, folder, f"requirements = {[*wanted.requirements]}")
    return replace(wishes, python=wanted.python)


def _of_lines(lines: Sequence[str], folder: Path | None, where: str) -> Wishes:
    """What lines of requirements that stand in no file of their own say. Raises PackageError."""
    base = folder or Path("/")
    try:
        written = read_lines(lines, base)
        inputs = tuple(word for line in lines for word in as_arguments(line, base))
    except (OSError, ValueError) as error:
        raise PackageError(f"{where} cannot be used: {error}") from error
    return Wishes(asked=written.lines, inputs=inputs, texts=written.texts, paths=written.paths, folder=folder)


def _of_file(path: Path) -> Wishes:
    written = read_file(path)
    return Wishes(
        asked=written.lines, inputs=("-r", str(path)), texts=written.texts, paths=written.paths, folder=path.parent
    )


def _of_project(path: Path) -> Wishes:
    """What a project depends on, and the project itself where it is a package."""
    text = path.read_text(encoding="utf-8")
    project, folder = parse_pyproject(text), path.parent
    more = [one.read_text(encoding="utf-8") for name in _BESIDE_A_PROJECT if (one := folder / name).is_file()]
    package, has_lock = bool(project.name), (folder / "uv.lock").is_file()
    return Wishes(
        asked=(*project.metadata.dependencies, *([project.name] if package else [])),
        inputs=() if package or has_lock else ("-r", str(path)),
        locked=(str(folder),) if has_lock else (),
        editable=("-e", str(folder)) if package else (),
        texts=(text, *more),
        paths=(*local_paths(project.metadata.dependencies, folder), *_sources(project.metadata, folder)),
        folder=folder,
        requires_python=_sets(project.metadata),
    )


def _of_script(path: Path) -> Wishes:
    metadata = read_metadata(path)
    # Where a [tool.uv] says more, of sources and indexes, uv reads the script itself, if it is no older than that.
    inputs = ("-r", str(path)) if "uv" in metadata.tool else metadata.dependencies
    return Wishes(
        asked=metadata.dependencies,
        inputs=inputs,
        texts=(repr(metadata),),
        paths=(*local_paths(metadata.dependencies, path.parent), *_sources(metadata, path.parent)),
        folder=path.parent,
        requires_python=_sets(metadata),
    )


def _sources(metadata: Metadata, folder: Path) -> Iterator[LocalPath]:
    """What [tool.uv.sources] names of this machine."""
    uv = metadata.tool.get("uv")
    sources = uv.get("sources") if isinstance(uv, dict) else None
    for name, entry in sources.items() if isinstance(sources, dict) else ():
        for one in entry if isinstance(entry, list) else [entry]:
            if isinstance(one, dict) and isinstance(one.get("path"), str):
                yield LocalPath(f"{name} @ {one['path']}", folder / one["path"], bool(one.get("editable")))


def _sets(metadata: Metadata) -> tuple[str, ...]:
    return (metadata.requires_python,) if metadata.requires_python else ()
