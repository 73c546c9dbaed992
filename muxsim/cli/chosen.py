"""The policy and the reward that a command line names, with their arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from muxsim.cli.options import Model, Players
from muxsim.errors import ConfigError
from muxsim.provenance import parts_of_file, parts_of_module
from muxsim.rollouts.policy import imported
from muxsim.rollouts.policy.names import policy_from_spec
from muxsim.rollouts.policy.protocol import Policy

# Arguments of a policy that a run's folder, which is handed on, does not tell.
_SECRET: Final = frozenset({"api_key", "headers"})


@dataclass(frozen=True)
class Chosen:
    """The policy and the reward that were chosen, with their arguments. Made by `read`."""

    policy: str
    policy_settings: dict[str, Any]
    reward: str | None
    reward_settings: dict[str, Any]
    reward_function: Any = field(repr=False)

    @classmethod
    def read(cls, players: Players, model: Model) -> Chosen:
        """What the options of the command line say. Raises `ConfigError`."""
        given, reward = model.settings(), players.reward
        if model.extra_body is not None:
            given["extra_body"] = _object(model.extra_body)
        given |= _arguments(players.policy_option or (), "policy-option")
        rewarded = _arguments(players.reward_option or (), "reward-option")
        if reward is None and rewarded:
            raise ConfigError("name the function with --reward", file="the command line", key="reward-option")
        function = None if reward is None else imported.function(reward, rewarded)
        return cls(players.policy, given, reward, rewarded, function)

    def make_policy(self) -> Policy:
        """The policy. Raises `ConfigError` and `PolicyError`."""
        return policy_from_spec(self.policy, self.policy_settings)

    def describe_policy(self) -> dict[str, Any]:
        """For the run's record."""
        kind, _, detail = self.policy.partition(":")
        name = {"scripted": "script", "python": "class"}.get(kind, "model")
        shown = {option: value for option, value in self.policy_settings.items() if option not in _SECRET}
        return {"kind": kind, **({name: detail} if detail else {}), **shown}

    def describe_reward(self) -> dict[str, Any]:
        """For the run's record; nothing where the environments score."""
        if self.reward is None:
            return {}
        return {"function": self.reward, **self.reward_settings}

    def parts(self) -> dict[str, dict[str, str]]:
        """What policy and reward consist of, where they are the user's own, beside what environments do."""
        kind, _, detail = self.policy.partition(":")
        found = {"the reward": parts_of_module(self.reward.partition(":")[0])} if self.reward else {}
        if kind == "python":
            found["the policy"] = parts_of_module(detail.partition(":")[0])
        elif kind == "scripted":
            found["the policy"] = parts_of_file(Path(detail))
        return {name: parts for name, parts in found.items() if parts}


def _arguments(given: Sequence[str], option: str) -> dict[str, Any]:
    """``NAME=VALUE``, whose value is JSON where it can be, and else text."""
    arguments = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError("write NAME=VALUE", file="the command line", key=option, value=one)
        try:
            arguments[name] = msgspec.json.decode(value)
        except ValueError:
            arguments[name] = value
    return arguments


def _object(text: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except ValueError as error:
        raise ConfigError(f"this is not JSON: {error}", file="the command line", key="extra-body", value=text) from None
    if not isinstance(value, dict):
        raise ConfigError("write a JSON object", file="the command line", key="extra-body", value=text)
    return value
