"""What an environment, a policy or a reward consists of, as far as files tell: a script, what that imports from its
folder, and packages.

A run that is resumed has to be played on what it was played on. Imports are read from the source and not by running it.
What cannot be read is left out: this compares runs, and keeps nobody from playing.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from muxsim.spec import EnvSpec

_JAVASCRIPT: Final = frozenset({".js", ".mjs", ".cjs", ".ts", ".mts"})
_SPECIFIER: Final = re.compile(rb"""(?:\bfrom|\bimport|\brequire)\s*\(?\s*["']([^"'\n]+)["']""")
_SUFFIXES: Final = ("", ".js", ".mjs", ".cjs", ".ts", ".json", "/index.js")
# Where everything is somebody else's: there a package is known by its version.
_PACKAGES_FOLDERS: Final = frozenset({"site-packages", "dist-packages"})
# Past these an environment is no longer a script with its modules.
_MOST_FILES: Final = 2000
_LARGEST_FILE: Final = 64 * 1024 * 1024


def parts_of(spec: EnvSpec) -> dict[str, str]:
    """The parts of an environment: of files their hash, of packages their version. Paths are relative to the script."""
    parts = {f"package {spec.package.rpartition('@')[0]}": spec.package.rpartition("@")[2]} if spec.package else {}
    for root in _roots(spec):
        parts |= _Survey([root], root.parent, _site_packages(spec)).parts()
    return parts | _template_of(spec)


def _template_of(spec: EnvSpec) -> dict[str, str]:
    """What workspaces begin as, in a hash: names, and contents as far as they are not too many or too large."""
    if not spec.template_folder:
        return {}
    digest, left = hashlib.sha256(), _LARGEST_FILE
    for count, path in enumerate(sorted(Path(spec.template_folder).rglob("*"))):
        digest.update(str(path.relative_to(spec.template_folder)).encode(errors="surrogateescape") + b"\0")
        with suppress(OSError):
            if path.is_symlink():
                digest.update(os.readlink(path).encode(errors="surrogateescape"))
            elif path.is_file():
                size = path.stat().st_size
                left -= size
                seen = path.read_bytes() if left >= 0 and count < _MOST_FILES else b""
                digest.update(f"{size} {hashlib.sha256(seen).hexdigest()}".encode())
    return {"workspace_from": digest.hexdigest()[:16]}


def parts_of_file(path: Path) -> dict[str, str]:
    """The same of a file that is read, or a script."""
    return _Survey([path], path.parent, None).parts()


def parts_of_module(name: str) -> dict[str, str]:
    """The same of a module of Python; of one that is installed, the version of its package beside its own files."""
    with suppress(Exception, SystemExit):  # whatever a parent package of the user's raises when it is imported
        found = find_spec(name)
        if found is not None and found.origin is not None:
            folder = Path(found.origin).parents[name.count(".") + (found.submodule_search_locations is not None)]
            files = list(_module_files(folder, name))
            if folder.name not in _PACKAGES_FOLDERS:
                return _Survey(files, folder, None).parts()
            return _Survey(files, folder, None, follow=False).parts() | _versions([name.partition(".")[0]], None)
    return {}


def _roots(spec: EnvSpec) -> Iterator[Path]:
    """The files that the command line names: the script, and what it is given to read."""
    for word in (spec.command, *spec.args):
        path = Path(spec.cwd, word)
        try:
            if path.is_dir() and (path / "package.json").is_file():
                yield path / "package.json"
                yield from _entries(path)
            elif path.is_file() and not _is_program(path):
                yield path
        except (OSError, ValueError):
            continue


def _entries(folder: Path) -> Iterator[Path]:
    """What a folder of npm's runs."""
    try:
        package = msgspec.json.decode((folder / "package.json").read_bytes())
    except (OSError, msgspec.DecodeError):
        return
    named = package.get("bin") if isinstance(package, dict) else None
    for name in named.values() if isinstance(named, dict) else [named, package.get("main")] if package else ():
        if isinstance(name, str) and (folder / name).is_file():
            yield folder / name


def _is_program(path: Path) -> bool:
    """Whether this is an interpreter or another binary, which packages and versions stand for."""
    with path.open("rb") as file:
        return b"\0" in file.read(1024)


def _site_packages(spec: EnvSpec) -> list[str] | None:
    """Where the packages of a Python environment are; None for those of muxsim's own interpreter."""
    program = shutil.which(spec.command, path=spec.env.get("PATH")) or ""
    found = [str(path) for path in Path(program).parent.parent.glob("lib/python3*/site-packages")] if program else []
    return found if found and (Path(program).parent.parent / "pyvenv.cfg").exists() else None


class _Survey:
    """Follows the imports of files, whose own modules are in a folder."""

    def __init__(
        self, roots: Iterable[Path], folder: Path, site_packages: list[str] | None, *, follow: bool = True
    ) -> None:
        self._folder = folder
        self._site_packages = site_packages
        self._follow = follow
        self._left = list(roots)
        self._hashes: dict[Path, str] = {}
        self._modules: set[str] = set()
        self._packages: dict[str, str] = {}

    def parts(self) -> dict[str, str]:
        """The files and all that they need."""
        while self._left and len(self._hashes) < _MOST_FILES:
            self._look_at(self._left.pop())
        files = {_relative(path, self._folder): digest for path, digest in self._hashes.items()}
        return files | self._packages | _versions(self._modules, self._site_packages)

    def _look_at(self, path: Path) -> None:
        if path in self._hashes:
            return
        try:
            if path.stat().st_size > _LARGEST_FILE:
                return
            content = path.read_bytes()
        except OSError:
            return
        self._hashes[path] = hashlib.sha256(content).hexdigest()[:16]
        if not self._follow:
            return
        if path.suffix == ".py" or (content.startswith(b"#!") and b"python" in content.split(b"\n", 1)[0]):
            self._left += self._python(path, content)
        elif path.suffix in _JAVASCRIPT or (content.startswith(b"#!") and b"node" in content.split(b"\n", 1)[0]):
            self._left += self._javascript(path, content)

    def _python(self, path: Path, content: bytes) -> Iterator[Path]:
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError, RecursionError):
            return
        for name, base in _imported(tree, path, self._folder):
            found = list(_module_files(base, name))
            if not found:
                self._modules.add(name.partition(".")[0])
            yield from found

    def _javascript(self, path: Path, content: bytes) -> Iterator[Path]:
        for raw in _SPECIFIER.findall(content):
            name = raw.decode(errors="replace")
            if name.startswith("."):
                yield from (one for suffix in _SUFFIXES if (one := Path(f"{path.parent / name}{suffix}")).is_file())
            elif not name.startswith(("node:", "/")):
                self._packages |= _npm_version(path.parent, name)


def _relative(path: Path, folder: Path) -> str:
    try:
        return str(path.resolve().relative_to(folder.resolve()))
    except ValueError:
        return path.name


def _imported(tree: ast.AST, path: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """The names of modules that are imported, and the folder in which they would be."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, folder) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = path.parent.joinpath(*[".."] * (node.level - 1)) if node.level else folder
            module = node.module or ""
            if module:
                yield module, base
            # What is imported from a package may be a module of it.
            for alias in node.names:
                name = f"{module}.{alias.name}".lstrip(".")
                if any(True for _ in _module_files(base, name)):
                    yield name, base


def _module_files(base: Path, name: str) -> Iterator[Path]:
    """The files of a module and of the packages that it is in, as far as they are in a folder."""
    place = base
    for part in name.split("."):
        place = place / part
        if (place / "__init__.py").is_file():
            yield place / "__init__.py"
    if place.with_suffix(".py").is_file():
        yield place.with_suffix(".py")


def _versions(modules: Iterable[str], site_packages: list[str] | None) -> dict[str, str]:
    """The versions of the packages that modules come from."""
    owners = importlib.metadata.packages_distributions() if site_packages is None else _owners(site_packages)
    names = {name for module in modules for name in owners.get(module, ())}
    versions = {}
    for name in names:
        found = next(iter(importlib.metadata.distributions(name=name, path=site_packages or sys.path)), None)
        if found is not None:
            versions[f"package {name}"] = found.version
    return versions


def _owners(site_packages: list[str]) -> Mapping[str, list[str]]:
    owners: dict[str, list[str]] = {}
    for one in importlib.metadata.distributions(path=site_packages):
        tops = {file.parts[0].removesuffix(".py") for file in one.files or () if file.suffix in (".py", ".so")}
        for top in tops:
            owners.setdefault(top, []).append(one.metadata["Name"])
    return owners


def _npm_version(folder: Path, specifier: str) -> dict[str, str]:
    """The version of an npm package, looked for as node does."""
    name = "/".join(specifier.split("/")[: 2 if specifier.startswith("@") else 1])
    for above in (folder, *folder.absolute().parents):
        try:
            package = msgspec.json.decode((above / "node_modules" / name / "package.json").read_bytes())
        except (OSError, ValueError):
            continue
        return {f"package {name}": str(package.get("version"))} if isinstance(package, dict) else {}
    return {}
