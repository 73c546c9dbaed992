"""The modules that old scripts import from: reward-kit's and eval-protocol's paths, each with all names that there are.

They are below this package (`muxsim.compat.reward_kit.mcp.types`), and below whatever name a program gives it:

    sys.modules["reward_kit"] = muxsim.compat.reward_kit
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

_HERE: Final = "muxsim.compat.reward_kit"
# The author kit, whose names stand beside those of the client in reward-kit's `mcp`.
_SERVERS: Final = "muxsim.mcpgym.reward_kit"
_OF_SERVERS: Final = ("EnvironmentAdapter", "GymProductionServer", "McpGym", "control_plane_endpoint")
# Where `import *` gives them too: they need gymnasium, which a client does not.
_SERVERS_IN: Final = (".mcp", ".mcp.adapter", ".mcp.gym_production_server", ".mcp.mcpgym")
BELOW: Final = frozenset(
    {
        *("common_utils", "mcp_env", "models", "playback_policy", "types", "types.types", "utils"),
        *("utils.static_policy", "mcp", "mcp.adapter", "mcp.execution", "mcp.execution.base_policy"),
        *("mcp.execution.manager", "mcp.execution.policy", "mcp.gym_production_server", "mcp.mcpgym"),
        *("mcp.session", "mcp.session.manager", "mcp.types"),
    }
)
"""Below the package's own name."""


class _Old(ModuleType):
    """A module of theirs. A name is looked up when it is asked for, so that none costs an import that is not used."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":  # what `import *` gives
            is_servers = self.__name__.endswith(_SERVERS_IN)
            return [*import_module(_HERE).__all__, *(_OF_SERVERS if is_servers else ())]
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(import_module(_SERVERS if name in _OF_SERVERS else _HERE), name)


class _OldPaths(MetaPathFinder, Loader):
    """Finds them when nobody else has found a module."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A module whose root is this package, whatever it is called there."""
        here = sys.modules[_HERE]
        root = _HERE if fullname.startswith(f"{_HERE}.") else fullname.partition(".")[0]
        is_old = sys.modules.get(root) is here and fullname[len(root) + 1 :] in BELOW
        return ModuleSpec(fullname, self, is_package=True) if is_old else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """One that is empty until it is asked."""
        return _Old(spec.name, f"Names of {_HERE}.")

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def find_them() -> None:
    """Have them found in this process from now on."""
    if not any(isinstance(one, _OldPaths) for one in sys.meta_path):
        sys.meta_path.append(_OldPaths())
