"""An environment's table, in whichever file it stands, as an `EnvSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from muxsim.config.commands import in_folder, read_command
from muxsim.config.dependencies import with_dependencies
from muxsim.config.table import Table
from muxsim.spec import SANDBOX_KEYS, Confinement, EnvSpec, Limits, confinement_fault, fixed
from muxsim.values import CONFINEMENT_KEYS, LIMIT_KEYS

_PATHS = ("readable", "writable")


@dataclass(frozen=True, slots=True)
class Defaults:
    """What environments start from."""

    limits: Limits = field(default_factory=Limits)
    confinement: Confinement = field(default_factory=Confinement)

    def changed(self, values: Mapping[str, Any], folder: Path) -> Defaults:
        """These with the limits and bounds among ``values`` on top, whose paths go from the folder."""
        paths = {key: tuple(in_folder(path, folder) for path in values.get(key, ())) for key in _PATHS}
        values = {**values, **{key: found for key, found in paths.items() if key in values}}
        return Defaults(
            replace(self.limits, **{key: value for key, value in values.items() if key in LIMIT_KEYS}),
            replace(self.confinement, **{key: value for key, value in values.items() if key in CONFINEMENT_KEYS}),
        )


def read_environment(
    name: str, table: Table, values: Mapping[str, Any], defaults: Defaults, *, from_cwd: bool = False
) -> EnvSpec:
    """The spec of one environment from the values of its keys; ``table`` is where they stand.

    The command's paths go from its folder, or first ``from_cwd``.
    """
    if "command" not in values:
        raise table.error("command", "is missing: name a script, a program, npx or an npm package's folder")
    cwd = in_folder(values.get("cwd", "."), table.folder)
    command, args = read_command(table, values, Path(fixed(cwd)) if from_cwd else None)
    command, dependencies = with_dependencies(table, values, command, args)
    own = defaults.changed(values, table.folder)
    _check_sandbox(table, values, defaults.confinement, own.confinement)
    if "cwd" in values and own.confinement.sandbox == "landlock":  # the folder that a config is in is not meant so
        own = replace(own, confinement=replace(own.confinement, readable=(*own.confinement.readable, cwd)))
    return EnvSpec(
        name=name,
        command=command,
        args=args,
        dependencies=dependencies,
        env=values.get("env", {}),
        cwd=cwd,
        workspace_from=_workspace_from(table, values),
        **{key: values[key] for key in ("collect", "max_collected", "max_collected_files") if key in values},
        shared=values.get("shared", False),
        zygote=values.get("zygote", True),
        preload=values.get("preload", ()),
        control=values.get("control", False),
        seeded=_seeded(table, values),
        warm=values.get("warm"),
        limits=own.limits,
        confinement=own.confinement,
        private=_private(table, values),
    )


def _workspace_from(table: Table, values: Mapping[str, Any]) -> str:
    folder = values.get("workspace_from", "")
    if "{workspace}" in folder.replace("{{workspace}}", ""):
        raise table.error("workspace_from", "is what {workspace} begins as: name another folder", folder)
    return in_folder(folder, table.folder) if folder else ""


def _private(table: Table, values: Mapping[str, Any]) -> tuple[str, ...] | None:
    folders = values.get("private")
    return None if folders is None else tuple(in_folder(folder, table.folder) for folder in folders)


def _check_sandbox(table: Table, values: Mapping[str, Any], before: Confinement, own: Confinement) -> None:
    # Who has taken the sandbox away that there was for all takes what was said of it away too.
    said = values if before.sandbox != "none" else {**values, **dict.fromkeys(SANDBOX_KEYS)}
    fault = confinement_fault(own)
    if fault is not None and (own.sandbox != "none" or fault[0] in said):
        raise table.error(fault[0], fault[1])


def _seeded(table: Table, values: Mapping[str, Any]) -> bool:
    seeded: bool = values.get("seeded", True)
    texts = (values["command"], *values.get("args", ()), *values.get("env", {}).values())
    texts += (values.get("cwd", ""), values.get("workspace_from", ""))
    if not seeded and any("{seed}" in text.replace("{{seed}}", "") for text in texts):
        raise table.error("seeded", "contradicts {seed}, which gives the server a seed: take one of them out")
    return seeded
