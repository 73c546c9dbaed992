"""A lake for a server of reward-kit's, as its users write them: the tools."""

from typing import Any, Dict, Optional  # noqa: UP035  # as they write it

from lake_adapter import LakeAdapter
from mcp.server.fastmcp import Context
from reward_kit.mcp import McpGym
from reward_kit.mcp.mcpgym import control_plane_endpoint  # noqa: F401


class LakeMcp(McpGym):
    def __init__(self, seed: Optional[int] = None):  # noqa: UP045
        super().__init__("Lake-v1", LakeAdapter(), seed)

    def _register_tools(self):
        @self.mcp.tool(name="lake_move", description="Move on the lake: LEFT, DOWN, RIGHT, UP.")
        def lake_move(action: str, ctx: Context) -> Dict[str, Any]:  # noqa: UP006
            move = self.adapter.parse_action(action)
            session_id = self._get_session_id(ctx)
            session_data = self._get_or_create_session(ctx)
            seen = self._execute_session_environment_step(session_id, move)
            seen["action"] = action
            print(f"session {session_id[:16]}: {action} -> {session_data['obs']}")
            return seen

        @self.mcp.tool(name="get_control_plane_state", description="For the trainer.")
        def get_control_plane_state(ctx: Context) -> Dict[str, Any]:  # noqa: UP006
            return self.get_control_plane_state(self._get_session_id(ctx))

    @staticmethod
    def format_observation(obs: int, env: Any) -> Dict[str, Any]:  # noqa: UP006
        return {"position": int(obs), "grid": env.render()}
