"""reward-kit's MCP part, and eval-protocol's: `import muxsim.compat.reward_kit as rk`, and a script runs on muxsim.

    envs = rk.make("examples/muxsim.toml#frozen_lake", dataset=rk.load_jsonl("dataset.jsonl"))  # or a URL
    trajectories = await rk.rollout(envs, policy=rk.OpenAIPolicy("gpt-4.1-mini"), steps=64)

docs/from-reward-kit.md says which name has become which, and what is different. Runs on asyncio, and on trio where the
policy does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from muxsim.compat.reward_kit.old_paths import BELOW, find_them

if TYPE_CHECKING:
    from muxsim.compat.reward_kit.envs import GeneralMCPVectorEnv, load_jsonl, make
    from muxsim.compat.reward_kit.fixed import RandomPolicy, SimpleDeterministicPolicy, StaticPolicy
    from muxsim.compat.reward_kit.model_policies import FireworksPolicy, OpenAIPolicy
    from muxsim.compat.reward_kit.playing import rollout, test_mcp
    from muxsim.compat.reward_kit.policies import LLMBasePolicy, PlaybackPolicyBase
    from muxsim.compat.reward_kit.records import DatasetRow, MCPSession, MCPToolCall, Trajectory
    from muxsim.compat.reward_kit.rows import EvaluationRow, InputMetadata, Message, Status, TerminationReason

# Of reward-kit's first versions.
_OLDER = {"MCPVectorEnv": "GeneralMCPVectorEnv"}
_HOMES = {
    "envs": ("GeneralMCPVectorEnv", "load_jsonl", "make"),
    "fixed": ("RandomPolicy", "SimpleDeterministicPolicy", "StaticPolicy"),
    "model_policies": ("FireworksPolicy", "OpenAIPolicy"),
    "playing": ("rollout", "test_mcp"),
    "policies": ("LLMBasePolicy", "PlaybackPolicyBase"),
    "records": ("DatasetRow", "MCPSession", "MCPToolCall", "Trajectory"),
    "rows": ("EvaluationRow", "InputMetadata", "Message", "Status", "TerminationReason"),
}
_NOT_HERE = {
    "ExecutionManager": "await rollout(envs, policy=policy) is all of it (docs/from-reward-kit.md)",
    "MCPConnectionManager": "muxsim.connect(url) opens sessions and calls their tools (docs/python.md)",
    "SimulationServerBase": "write the server with GymServer or McpGym (docs/from-reward-kit.md)",
    "AnthropicPolicy": "use OpenAIPolicy with the base_url of an OpenAI-compatible endpoint",
    "LiteLLMPolicy": "use OpenAIPolicy with the base_url of a LiteLLM proxy, or a policy of your own",
    "evaluation_test": "muxsim has rollouts and rewards, and no pytest plugin (docs/rollouts.md)",
    "reward_function": "reward functions are plain functions of a trajectory (docs/rollouts.md)",
}

__all__ = [
    "DatasetRow",
    "EvaluationRow",
    "FireworksPolicy",
    "GeneralMCPVectorEnv",
    "InputMetadata",
    "LLMBasePolicy",
    "MCPSession",
    "MCPToolCall",
    "Message",
    "OpenAIPolicy",
    "PlaybackPolicyBase",
    "RandomPolicy",
    "SimpleDeterministicPolicy",
    "StaticPolicy",
    "Status",
    "TerminationReason",
    "Trajectory",
    "load_jsonl",
    "make",
    "rollout",
    "test_mcp",
]

find_them()


def __getattr__(name: str) -> Any:
    if name in BELOW:
        return import_module(f"{__name__}.{name}")
    if name in _NOT_HERE:
        raise AttributeError(f"{__name__} has no {name}: {_NOT_HERE[name]}")
    wanted = _OLDER.get(name, name)
    home = next((home for home, names in _HOMES.items() if wanted in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if wanted != name:
        from muxsim.compat.reward_kit.renamed import renamed  # noqa: PLC0415

        renamed(name, wanted)
    return getattr(import_module(f"{__name__}.{home}"), wanted)
