"""A script as users of reward-kit have it: recorded, played back, and its conversations kept. One import is another."""

import asyncio
import json
import os
import sys
import tempfile

import muxsim.compat.reward_kit as rk  # was: import reward_kit as rk

DATASET = [
    {
        "id": f"run_{seed}",
        "system_prompt": "You are playing FrozenLake. Use the lake_move tool.",
        "user_prompt_template": "The grid:\n{observation}\n\nThe map is {map_name}. Choose your next move.",
        "environment_context": {"game": "FrozenLake", "map_name": "4x4", "seed": seed},
    }
    for seed in (42, 123)
]


async def play(url, policy, steps=8, log=None):
    envs = rk.make(url, dataset=DATASET, model_id=policy.model_id)
    trajectories = await rk.rollout(envs, policy=policy, steps=steps, openai_format_log_file=log)
    return [
        {
            "seed": trajectory.session.seed,
            "steps": trajectory.steps,
            "reward": trajectory.total_reward,
            "rewards": trajectory.rewards,
            "terminated": trajectory.terminated,
            "actions": trajectory.actions,
            "observations": len(trajectory.observations),
        }
        for trajectory in trajectories
    ]


async def main(url):
    with tempfile.TemporaryDirectory() as folder:
        os.environ["REWARD_KIT_PLAYBACK_FILE"] = os.path.join(folder, "recording.jsonl")
        log = os.path.join(folder, "clean.jsonl")
        try:
            policy = rk.SimpleDeterministicPolicy(action_sequence=["DOWN", "DOWN", "RIGHT", "DOWN", "RIGHT", "RIGHT"])
            assert not policy.is_playback_mode()
            recorded = await play(url, policy, log=log)
            playback = rk.FireworksPolicy(model_id="accounts/fireworks/models/qwen3-235b-a22b", temperature=0.2)
            assert playback.is_playback_mode()
            played_back = await play(url, playback, steps=15)
        finally:
            del os.environ["REWARD_KIT_PLAYBACK_FILE"]
        lines = [json.loads(line) for line in open(log)]  # noqa: ASYNC230, SIM115  # as they write it
    return {"recorded": recorded, "played_back": played_back, "log": lines}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
