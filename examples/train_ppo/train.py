"""PPO learns FrozenLake, with an MCP server on the other side of each step. Writes its curve as an SVG."""

from __future__ import annotations

import argparse
import time
from collections import deque
from pathlib import Path

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecMonitor

from muxsim.adapters.sb3_vector import make_vec

HERE = Path(__file__).parent
# Episodes over which the mean is taken.
WINDOW = 50
# Seconds between two lines.
PACE = 5.0

SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 300" font-family="sans-serif" font-size="12" fill="#555">
<rect width="640" height="300" fill="#fff"/>
<path d="M50 20 V260 H620 M50 140 H620 M50 20 H620" fill="none" stroke="#ccc"/>
<polyline points="{line}" fill="none" stroke="#0b6e4f" stroke-width="2"/>
<text x="42" y="264" text-anchor="end">0</text>
<text x="42" y="144" text-anchor="end">0.5</text>
<text x="42" y="24" text-anchor="end">1</text>
<text x="620" y="278" text-anchor="end">{seconds:.0f} s, {steps} steps, {episodes} episodes</text>
<text x="50" y="278">mean reward of the last {window} episodes</text>
</svg>
"""


class Curve(BaseCallback):
    """Keeps what each episode has earned and when, and ends the training when its time is over."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.points: list[tuple[float, int, float]] = []
        self._limit, self._last = seconds, 0.0
        self._rewards: deque[float] = deque(maxlen=WINDOW)
        self._began = time.monotonic()

    def _on_step(self) -> bool:
        now = time.monotonic() - self._began
        for info in self.locals["infos"]:
            if "episode" in info:
                self._rewards.append(info["episode"]["r"])
                self.points.append((now, self.num_timesteps, float(np.mean(self._rewards))))
        if self.points and now - self._last >= PACE:
            self._last = now
            print(self.told())
        return now < self._limit

    def told(self) -> str:
        seconds, steps, mean = self.points[-1]
        return f"{seconds:5.1f} s  {steps:6d} steps  {len(self.points):5d} episodes  mean reward {mean:.2f}"


def draw(points: list[tuple[float, int, float]], path: Path) -> None:
    """The mean reward of the last episodes over the seconds of training."""
    last, steps, _ = points[-1]
    line = " ".join(f"{50 + 570 * seconds / last:.1f},{260 - 240 * mean:.1f}" for seconds, _, mean in points)
    path.write_text(SVG.format(line=line, seconds=last, steps=steps, episodes=len(points), window=WINDOW))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default=str(HERE / "muxsim.toml"), help="a config, or a muxsim's URL")
    parser.add_argument("--env", default="frozen_lake")
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--steps", type=int, default=1_000_000, help="no more than these (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--curve", type=Path, default=Path("curve.svg"), help="where it goes (default: %(default)s)")
    options = parser.parse_args()

    torch.set_num_threads(1)  # a net this small is not faster with more, and the environments have use for the rest
    envs = VecMonitor(make_vec(options.source, options.env, num_envs=options.num_envs))
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=64,
        batch_size=128,
        n_epochs=8,
        learning_rate=5e-3,
        gamma=0.95,
        ent_coef=0.05,
        policy_kwargs={"net_arch": [32]},
        seed=options.seed,
    )
    curve = Curve(options.seconds)
    model.learn(options.steps, callback=curve)
    envs.close()
    print(curve.told())
    draw(curve.points, options.curve)
    print(f"the curve is {options.curve}")


if __name__ == "__main__":
    main()
