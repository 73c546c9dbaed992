"""Servers written for reward-kit's or eval-protocol's `McpGym`, over stdio, with a control plane that muxsim reads.

In a server's files these names come from here, and nothing else in it changes:

    from muxsim.mcpgym.reward_kit import Context, EnvironmentAdapter, McpGym, control_plane_endpoint

Or not even that: `python -m muxsim.mcpgym.reward_kit server.py --seed 7` runs a server as it is, and gives it these
when it imports `reward_kit.mcp`, `eval_protocol.mcp` or `mcp.server.fastmcp`. See docs/from-reward-kit.md.
"""

from muxsim.mcpgym.reward_kit.adapter import EnvironmentAdapter
from muxsim.mcpgym.reward_kit.context import Context
from muxsim.mcpgym.reward_kit.endpoints import control_plane_endpoint
from muxsim.mcpgym.reward_kit.fastmcp import FastMCP
from muxsim.mcpgym.reward_kit.gym import GymProductionServer, McpGym

__all__ = ["Context", "EnvironmentAdapter", "FastMCP", "GymProductionServer", "McpGym", "control_plane_endpoint"]
