"""Runs a server of reward-kit's as it is: `python -m muxsim.mcpgym.reward_kit server.py [ARGUMENT…]`.

What it imports of `reward_kit.mcp`, `eval_protocol.mcp` and `mcp.server.fastmcp` it gets from here, whatever is
installed. Everything behind the script's path is its own.
"""

import importlib.machinery
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import muxsim.mcpgym.reward_kit as ours

_NAMES = {name: getattr(ours, name) for name in ours.__all__}
_FASTMCP = "mcp.server.fastmcp"
_KITS = ("reward_kit", "eval_protocol")
# Where servers import them from.
_BELOW = ("mcp", "mcp.mcpgym", "mcp.adapter", "mcp.gym_production_server")


def main(arguments: list[str]) -> None:
    """Run the script that the first argument names."""
    if not arguments or arguments[0].startswith("-"):
        raise SystemExit("usage: python -m muxsim.mcpgym.reward_kit SERVER.py [ARGUMENT...]")
    script = Path(arguments[0])
    if not script.is_file():
        raise SystemExit(f"muxsim.mcpgym.reward_kit: there is no file {script}")
    stand_in()
    sys.stdout = sys.stderr  # they print while they start, and stdout is for messages only
    sys.argv[:] = arguments
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")


def stand_in() -> None:
    """Have the names of this package under those of the others, for this process."""
    _put(_FASTMCP, _NAMES)
    for kit in _KITS:
        installed = importlib.machinery.PathFinder.find_spec(kit)
        _put(kit, {}, path=list(installed.submodule_search_locations or ()) if installed else [])
        for below in _BELOW:
            _put(f"{kit}.{below}", _NAMES)


def _put(name: str, members: Mapping[str, Any], *, path: list[str] | None = None) -> None:
    module = ModuleType(name, "Of muxsim.mcpgym.reward_kit.")
    vars(module).update(members, __path__=path or [])
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], last, module)


if __name__ == "__main__":
    main(sys.argv[1:])
