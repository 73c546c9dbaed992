"""A lake for a server of reward-kit's, as its users write them: the adapter."""

from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv, generate_random_map
from reward_kit.mcp.adapter import EnvironmentAdapter


class LakeAdapter(EnvironmentAdapter):
    ACTION_NAMES = ["LEFT", "DOWN", "RIGHT", "UP"]  # noqa: RUF012  # as they write it

    def create_environment(self, config=None):
        config = config or {}
        size = 8 if "8x8" in config.get("map_name", "4x4") else 4
        print("making a lake of size", size)  # to stdout, as theirs do
        return FrozenLakeEnv(
            desc=generate_random_map(size=size, p=0.8, seed=config.get("seed")), is_slippery=False, render_mode="ansi"
        )

    def create_environment_with_seed(self, config=None, seed=None):
        env = self.create_environment({**(config or {}), "seed": seed})
        obs, info = env.reset(seed=seed)
        return env, obs, info

    def reset_environment(self, env, seed=None):
        return env.reset(seed=seed)

    def step_environment(self, env, action):
        return env.step(action)

    def close_environment(self, env):
        pass

    def parse_action(self, action_str):
        move = action_str.strip().upper()
        if move not in self.ACTION_NAMES:
            raise ValueError(f"no such move: {move}")
        return self.ACTION_NAMES.index(move)

    def format_observation(self, observation):
        return int(observation)

    def get_action_space_description(self):
        return {"moves": self.ACTION_NAMES}

    def get_default_config(self):
        return {"map_name": "4x4"}
