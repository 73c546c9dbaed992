"""The example's FrozenLake without Gymnasium's limit of 100 steps, so that stepping can be measured without a start."""

import runpy
from pathlib import Path

import gymnasium

gymnasium.registry["FrozenLake-v1"].max_episode_steps = None
LAKE = Path(__file__).resolve().parent.parent.parent / "examples" / "frozen_lake" / "server.py"
runpy.run_path(str(LAKE), run_name="__main__")
