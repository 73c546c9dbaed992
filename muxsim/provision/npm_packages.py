"""Npm packages that a script imports, from a folder that is nowhere near the script."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from muxsim import inside
from muxsim.provision.npx import satisfies
from muxsim.spec import EnvSpec, fixed, literal

_REGISTRY_SPEC: Final = re.compile(r"((?:@[^/@]+/)?[A-Za-z0-9_.~-]+)(?:@(.*))?")


def package_name(wanted: str) -> str:
    """The name of the package that is asked for; "" for an address, which does not tell."""
    spec = _REGISTRY_SPEC.fullmatch(wanted)
    return spec[1] if spec else ""


def unmet(wanted: str, versions: Mapping[str, str]) -> str | None:
    """What is asked for and not installed, or at another version, in words; None if it is, or cannot be told."""
    spec = _REGISTRY_SPEC.fullmatch(wanted)
    if spec is None:
        return None
    name, version = spec.groups()
    if (there := versions.get(name)) is None:
        # An alias, `name@npm:other`, has another name in its own package.json, and this one in node_modules.
        return f"{wanted} was asked for, and {name} is not installed"
    if version and satisfies(there, version) is False:
        return f"{wanted} was asked for, and {name} {there} is installed"
    return None


def finding(spec: EnvSpec, home: Path) -> EnvSpec:
    """The spec whose node finds the packages of ``home`` wherever its script is.

    Node looks for a package beside the importing file and above it, and NODE_PATH counts for `require` alone. So a hook
    of node's own (inside/node_packages.mjs) answers for the names that were asked for, and for no others.
    """
    if os.path.basename(fixed(spec.command)) != "node":
        return spec
    hook = literal(inside.NODE_PACKAGES)
    env = {"MUXSIM_NODE_PACKAGES": literal(str(home)), **spec.env}
    return replace(spec, args=(f"--import={hook}", *spec.args), env=env)
