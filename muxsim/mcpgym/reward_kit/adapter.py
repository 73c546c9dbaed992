"""What stands between a server of reward-kit's and an environment, in reward-kit's own form."""

import json
from collections.abc import Callable
from typing import Any, TypeAlias

Config: TypeAlias = dict[str, Any]


class EnvironmentAdapter:
    """Makes, resets and steps an environment. Subclass it, or give it the class of an environment.

    Without a subclass `env_class` is called as `env_class(config=...)`, as eval-protocol does it.
    """

    def __init__(self, env_class: Callable[..., Any] | None = None, default_config: Config | None = None) -> None:
        self.env_class = env_class
        self.default_config = default_config or {}

    def create_environment(self, config: Config | None = None) -> Any:
        """Make an environment. Raises: NotImplementedError: there is neither an `env_class` nor a method for it."""
        if getattr(self, "env_class", None) is None:
            raise NotImplementedError(f"{type(self).__name__} needs an env_class or a create_environment of its own")
        assert self.env_class is not None
        return self.env_class(config={**self.get_default_config(), **(config or {})})

    def create_environment_with_seed(
        self, config: Config | None = None, seed: int | None = None
    ) -> tuple[Any, Any, Config]:
        """Make and reset one: the environment, its first observation, its info."""
        env = self.create_environment(config)
        observation, info = self.reset_environment(env, seed=seed)
        return env, observation, info

    def reset_environment(self, env: Any, seed: int | None = None) -> tuple[Any, Config]:
        """Reset it: the first observation, and its info."""
        observation, info = env.reset(seed=seed)
        return observation, info

    def step_environment(self, env: Any, action: Any) -> tuple[Any, float, bool, bool, Config]:
        """Step it: observation, reward, terminated, truncated, info."""
        observation, reward, terminated, truncated, info = env.step(action)
        return observation, reward, terminated, truncated, info

    def close_environment(self, env: Any) -> None:
        """Close it, if it can be."""
        close = getattr(env, "close", None)
        if close is not None:
            close()

    def parse_action(self, action_str: str) -> Any:
        """The action that an agent has written: JSON, unless a subclass knows better."""
        return json.loads(action_str)

    def format_observation(self, observation: Any) -> Any:
        """The observation as something that has a JSON form."""
        return observation

    def get_action_space_description(self) -> Config:
        """What actions there are, in words of the subclass."""
        return {}

    def get_default_config(self) -> Config:
        """What `create_environment` is given."""
        return dict(getattr(self, "default_config", {}))
