"""Episodes: a policy plays environments, and what happened is written down.

What a program needs of it is importable from here, wherever it lives.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muxsim.rollouts.data.comparison import Comparison, Price, compare
    from muxsim.rollouts.data.dataset import load_dataset
    from muxsim.rollouts.data.estimates import estimate, pass_at
    from muxsim.rollouts.data.run_config import RunConfig
    from muxsim.rollouts.data.run_folder import RunFolder
    from muxsim.rollouts.data.trajectory import Trajectory, Usage
    from muxsim.rollouts.environments.pool import open_pool
    from muxsim.rollouts.environments.remote import connect
    from muxsim.rollouts.play.options import RolloutOptions
    from muxsim.rollouts.play.runner import episodes, rollout
    from muxsim.rollouts.policy.fireworks import FireworksPolicy
    from muxsim.rollouts.policy.messages import assistant_calls, turn_of
    from muxsim.rollouts.policy.names import policy_from_spec
    from muxsim.rollouts.policy.openai import OpenAIPolicy
    from muxsim.rollouts.policy.protocol import Policy, PolicyError, RateLimited, Reply, TokenLimit
    from muxsim.rollouts.policy.random import RandomPolicy
    from muxsim.rollouts.policy.retries import RetryRule
    from muxsim.rollouts.policy.scripted import ScriptedPolicy
    from muxsim.rollouts.view.export import export_atif, export_chat, export_gif, export_traces
    from muxsim.rollouts.view.report import write_comparison, write_report
    from muxsim.rollouts.view.tables import chat_rows, export_rows
    from muxsim.rollouts.view.token_rows import token_rows
    from muxsim.rollouts.view.traces import trace_rows

# Imported when it is used: a policy's client, for one, takes longer to import than an episode to play.
_HOMES = {
    "data.comparison": ("Comparison", "Price", "compare"),
    "data.dataset": ("load_dataset",),
    "data.estimates": ("estimate", "pass_at"),
    "data.run_config": ("RunConfig",),
    "data.run_folder": ("RunFolder",),
    "data.trajectory": ("Trajectory", "Usage"),
    "environments.pool": ("open_pool",),
    "environments.remote": ("connect",),
    "play.options": ("RolloutOptions",),
    "play.runner": ("episodes", "rollout"),
    "policy.fireworks": ("FireworksPolicy",),
    "policy.messages": ("assistant_calls", "turn_of"),
    "policy.names": ("policy_from_spec",),
    "policy.openai": ("OpenAIPolicy",),
    "policy.protocol": ("Policy", "PolicyError", "RateLimited", "Reply", "TokenLimit"),
    "policy.random": ("RandomPolicy",),
    "policy.retries": ("RetryRule",),
    "policy.scripted": ("ScriptedPolicy",),
    "view.export": ("export_atif", "export_chat", "export_gif", "export_traces"),
    "view.report": ("write_comparison", "write_report"),
    "view.tables": ("chat_rows", "export_rows"),
    "view.token_rows": ("token_rows",),
    "view.traces": ("trace_rows",),
}

__all__ = [
    "Comparison",
    "FireworksPolicy",
    "OpenAIPolicy",
    "Policy",
    "PolicyError",
    "Price",
    "RandomPolicy",
    "RateLimited",
    "Reply",
    "RetryRule",
    "RolloutOptions",
    "RunConfig",
    "RunFolder",
    "ScriptedPolicy",
    "TokenLimit",
    "Trajectory",
    "Usage",
    "assistant_calls",
    "chat_rows",
    "compare",
    "connect",
    "episodes",
    "estimate",
    "export_atif",
    "export_chat",
    "export_gif",
    "export_rows",
    "export_traces",
    "load_dataset",
    "open_pool",
    "pass_at",
    "policy_from_spec",
    "rollout",
    "token_rows",
    "trace_rows",
    "turn_of",
    "write_comparison",
    "write_report",
]


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
