"""reward-kit's MCP part, and eval-protocol's: `import muxsim.compat.reward_kit as rk`, and a script runs on muxsim.

    envs = rk.make("examples/muxsim.toml#frozen_lake", dataset=rk.load_jsonl("dataset.jsonl"))  # or a URL
    trajectories = await rk.rollout(envs, policy=rk.OpenAIPolicy("gpt-4.1-mini"), steps=64)

docs/from-reward-kit.md says which name has become which, and what is different. Runs on asyncio, and on trio where the
policy does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muxsim.compat.reward_kit.envs import GeneralMCPVectorEnv, load_jsonl, make
    from muxsim.compat.reward_kit.fixed import RandomPolicy, SimpleDeterministicPolicy, StaticPolicy
    from muxsim.compat.reward_kit.models import FireworksPolicy, OpenAIPolicy
    from muxsim.compat.reward_kit.playing import rollout, test_mcp
    from muxsim.compat.reward_kit.policies import LLMBasePolicy, PlaybackPolicyBase
    from muxsim.compat.reward_kit.records import DatasetRow, MCPSession, MCPToolCall, Trajectory

# Of reward-kit's first versions.
_OLDER = {"MCPVectorEnv": "GeneralMCPVectorEnv"}
_HOMES = {
    "envs": ("GeneralMCPVectorEnv", "load_jsonl", "make"),
    "fixed": ("RandomPolicy", "SimpleDeterministicPolicy", "StaticPolicy"),
    "models": ("FireworksPolicy", "OpenAIPolicy"),
    "playing": ("rollout", "test_mcp"),
    "policies": ("LLMBasePolicy", "PlaybackPolicyBase"),
    "records": ("DatasetRow", "MCPSession", "MCPToolCall", "Trajectory"),
}
_NOT_HERE = {
    "AnthropicPolicy": "use OpenAIPolicy with the base_url of an OpenAI-compatible endpoint",
    "LiteLLMPolicy": "use OpenAIPolicy with the base_url of a LiteLLM proxy, or a policy of your own",
    "evaluation_test": "muxsim has rollouts and rewards, and no pytest plugin (docs/rollouts.md)",
    "reward_function": "reward functions are plain functions of a trajectory (docs/rollouts.md)",
}

__all__ = [
    "DatasetRow",
    "FireworksPolicy",
    "GeneralMCPVectorEnv",
    "LLMBasePolicy",
    "MCPSession",
    "MCPToolCall",
    "OpenAIPolicy",
    "PlaybackPolicyBase",
    "RandomPolicy",
    "SimpleDeterministicPolicy",
    "StaticPolicy",
    "Trajectory",
    "load_jsonl",
    "make",
    "rollout",
    "test_mcp",
]


def __getattr__(name: str) -> Any:
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
