"""Runs any stdio MCP server as many isolated, seeded environments behind one endpoint.

    async with muxsim.open_pool("examples/muxsim.toml") as pool:
        trajectories = await muxsim.rollout(pool, dataset, policy=policy, max_steps=50, max_concurrent=16)

Works on trio and asyncio.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

__version__ = version("mcp-muxsim")

if TYPE_CHECKING:
    from muxsim.rollouts import compare, connect, episodes, load_dataset, open_pool, rollout

__all__ = ["__version__", "compare", "connect", "episodes", "load_dataset", "open_pool", "rollout"]


# What a program starts with; imported when it is used, since `muxsim stdio` needs none of it.
def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'muxsim' has no attribute {name!r}")
    return getattr(import_module("muxsim.rollouts"), name)
