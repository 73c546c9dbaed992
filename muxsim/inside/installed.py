"""Says what is installed for the interpreter that runs this, and whether what is to run there can be imported.

``python -I installed.py '{"script": "server.py", "module": "", "command": "", "files": true}'``; the answer is the last
line. With ``files`` the contents of what uv has installed are compared with what its packages say of them.
"""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from typing import Any

ANSWER = "muxsim-installed: "
_BLOCK = 1024 * 1024
# Those that a RECORD may have; MD5 and SHA-1 it may not (PEP 376).
_SUMS = frozenset({"sha256", "sha384", "sha512", "sha224"})


def main() -> None:
    """Answers on what stdout was at first: what is imported may say and ask what it wants."""
    asked = json.loads(sys.argv[1])
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    told = {
        "packages": _packages(),
        "elsewhere": _elsewhere(),
        "markers": _markers(),
        "python": platform.python_version(),
        "unlike": _unlike() if asked["files"] else {},
        "fault": _fault(asked),
    }
    answer.write(f"\n{ANSWER}{json.dumps(told)}\n")
    answer.flush()
    os._exit(0)  # threads of what was imported would go on


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for one in importlib.metadata.distributions():
        # A half-removed one has no name, or no version.
        name, version = one.metadata["Name"], one.metadata["Version"]
        if name and version:
            found.setdefault(name, version)
    return found


def _elsewhere() -> dict[str, str]:
    """What was installed from a path or an address, or by conda: installers note that (PEP 610, PEP 376).

    Each with the address of its commit, if it has one.
    """
    found: dict[str, str] = {}
    for one in importlib.metadata.distributions():
        origin = one.read_text("direct_url.json") or ""
        if one.metadata["Name"] and (origin or (one.read_text("INSTALLER") or "").strip() == "conda"):
            found[one.metadata["Name"]] = _commit(origin)
    return found


def _commit(origin: str) -> str:
    try:
        told = json.loads(origin)
        address = f"{told['vcs_info']['vcs']}+{told['url']}@{told['vcs_info']['commit_id']}"
    except (ValueError, KeyError, TypeError):
        return ""
    return f"{address}#subdirectory={told['subdirectory']}" if told.get("subdirectory") else address


def _unlike() -> dict[str, list[str]]:
    """By package the files that are missing, or not what its RECORD says of them (PEP 376)."""
    found: dict[str, list[str]] = {}
    for one in importlib.metadata.distributions():
        # Others, such as conda, change files as they install them, and compare them with sums of their own.
        if one.metadata["Name"] and (one.read_text("INSTALLER") or "").strip() == "uv":
            # Not `one.files`, which from Python 3.12 on leaves out what is missing.
            rows = [row for row in csv.reader((one.read_text("RECORD") or "").splitlines()) if row]
            wrong = [row[0] for row in rows if not _is_as_recorded(str(one.locate_file(row[0])), *row[1:2])]
            if not any(os.path.basename(row[0]) == "METADATA" for row in rows):
                wrong.append("RECORD")
            if wrong:
                found[one.metadata["Name"]] = wrong
    return found


def _is_as_recorded(path: str, recorded: str = "") -> bool:
    """Whether a file is there with the contents that were recorded; of compiled ones, and some others, none are."""
    mode, _, said = recorded.partition("=")
    if mode not in _SUMS:
        return path.endswith(".pyc") or os.path.exists(path)
    digest = hashlib.new(mode)
    try:
        with open(path, "rb") as opened:
            for block in iter(lambda: opened.read(_BLOCK), b""):
                digest.update(block)
    except OSError:
        return False
    return bool(base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode() == said)


def _markers() -> dict[str, str]:
    """What PEP 508 has names for."""
    release = sys.implementation.version
    implementation = f"{release.major}.{release.minor}.{release.micro}"
    if release.releaselevel != "final":
        implementation += release.releaselevel[0] + str(release.serial)
    return {
        "implementation_name": sys.implementation.name,
        "implementation_version": implementation,
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "platform_python_implementation": platform.python_implementation(),
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    }


def _fault(asked: dict[str, Any]) -> str:
    """What keeps the entry from being imported; "" if nothing does."""
    try:
        if asked.get("command"):
            _import_command(asked["command"])
        elif asked.get("module"):
            _find_module(asked["module"], asked["folders"])
        elif asked.get("script"):
            _import_what_is_installed(asked["script"])
    except SyntaxError as error:
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    except BaseException as error:  # whatever its author does there, an exit too
        return f"{type(error).__name__}: {error}"
    return ""


def _import_command(command: str) -> None:
    for one in importlib.metadata.distributions():
        for entry in one.entry_points:
            if entry.group == "console_scripts" and entry.name == command:
                entry.load()
                return


def _find_module(module: str, folders: list[str]) -> None:
    sys.path[:0] = folders
    if importlib.util.find_spec(module) is None:
        raise ModuleNotFoundError(f"No module named {module!r}")


def _import_what_is_installed(script: str) -> None:
    """Imports what the script begins with, as far as packages have it: its own modules may be anywhere."""
    with open(script, "rb") as file:
        tree = ast.parse(file.read(), script)
    installed = _top_levels()
    for node in tree.body:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            if name.partition(".")[0] in installed:
                importlib.import_module(name)


def _top_levels() -> set[str]:
    found = set()
    for one in importlib.metadata.distributions():
        for file in one.files or ():
            if file.suffix in (".py", ".so") and file.parts[0] != "..":
                found.add(file.parts[0].partition(".")[0])
    return found


if __name__ == "__main__":
    main()
