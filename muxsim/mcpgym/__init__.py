"""Author kit: a `gymnasium.Env` becomes a stdio MCP server in a few lines.

    from muxsim.mcpgym import GymServer

    def make(seed: int) -> gymnasium.Env:
        return gymnasium.make("CliffWalking-v1")

    server = GymServer("cliff", make, actions=["UP", "RIGHT", "DOWN", "LEFT"])

    if __name__ == "__main__":
        server.run()

The agent gets one tool, `step`, made from the action space, or the tools that the author writes with
`@server.tool()`. The trainer gets the control plane: the `control://` resources, and
`_meta["muxsim/control"]` in the result of every `tools/call` that asks for it.
"""

try:
    import gymnasium as _gymnasium  # noqa: F401  # everything below needs it: say so once, with the remedy
except ModuleNotFoundError as error:
    raise ImportError(f"muxsim.mcpgym needs {error.name}: pip install 'mcp-muxsim[gym]'", name=error.name) from error

from muxsim.mcpgym.errors import (
    EnvironmentFailed,
    EpisodeEnded,
    InvalidAction,
    InvalidArguments,
    ToolError,
    UnsupportedSpace,
)
from muxsim.mcpgym.observation import Content
from muxsim.mcpgym.server import GymServer

__all__ = [
    "Content",
    "EnvironmentFailed",
    "EpisodeEnded",
    "GymServer",
    "InvalidAction",
    "InvalidArguments",
    "ToolError",
    "UnsupportedSpace",
]

# Of this package, for muxsim (docs/starting-fast.md).
__muxsim_rehearsal__ = "muxsim.mcpgym.rehearsal"
