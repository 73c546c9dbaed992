"""Gymnasium's LunarLander over MCP: land between the flags. Every answer shows the frame as an image."""

from typing import Annotated, Any, Literal, TypeAlias

import gymnasium
from pydantic import Field

from muxsim.mcpgym import Content, GymServer

Engine: TypeAlias = Literal["NOTHING", "LEFT", "MAIN", "RIGHT"]
Burn: TypeAlias = tuple[Engine, int]

# In the order of Gymnasium's action space.
ENGINES: tuple[Engine, ...] = ("NOTHING", "LEFT", "MAIN", "RIGHT")

# Frames. A tenth of a second is short enough to land, and an episode is then some 40 calls and not 300.
DEFAULT_BURN = 5
LONGEST_BURN = 50

# Pixels: half of what Gymnasium renders. The lander stays visible, and the image is a quarter of the tokens.
FRAME_SIZE = (300, 200)

# What Gymnasium's render() takes from the life of each spark of the exhaust.
FADE = 0.15

INSTRUCTIONS = """\
You fly a lunar lander. Land on the pad between the two flags: slowly, upright, and on both legs.
The pad is at x 0, y 0; the picture reaches from x -1 to x 1, and y grows upwards. vx and vy are velocities. The angle
is in radians, and it and spin grow counter-clockwise. A leg is 1 when it is on the ground.
The flight ends when the lander rests or crashes, leaves the picture to a side, or after 1000 frames of 1/50 s.

{observation}"""


class Burns(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Each step fires one engine for some frames, and its reward is the sum of theirs."""

    def step(self, action: Burn) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        engine, frames = action
        total = 0.0
        for frame in range(1, frames + 1):
            observation, reward, terminated, truncated, info = self.env.step(ENGINES.index(engine))
            total += float(reward)
            if terminated or truncated or frame == frames:
                break
            self._fade_exhaust()
        return observation, total, terminated, truncated, {**info, "frames": frame}

    def _fade_exhaust(self) -> None:
        """What render() does besides drawing: without it a long burn is a picture full of sparks."""
        lander: Any = self.env.unwrapped
        for spark in lander.particles:
            spark.ttl -= FADE


def make(seed: int) -> gymnasium.Env[Any, Any]:
    return Burns(gymnasium.make("LunarLander-v3", render_mode="rgb_array"))


def describe(observation: Any, env: gymnasium.Env[Any, Any]) -> str:
    """The state in numbers. Gymnasium's first leg is the one on the right."""
    *motion, right_leg, left_leg = map(float, observation)
    names = ("x", "y", "vx", "vy", "angle", "spin")
    numbers = [f"{name} {value:z.3f}" for name, value in zip(names, motion, strict=True)]
    return ", ".join([*numbers, f"left leg {left_leg:.0f}", f"right leg {right_leg:.0f}"])


server = GymServer(
    "lunar_lander",
    make,
    describe=describe,
    observation="text+image",
    frame_size=FRAME_SIZE,
    title="Lunar Lander",
    instructions=INSTRUCTIONS,
)


@server.tool()
def fire(
    engine: Engine,
    frames: Annotated[int, Field(ge=1, le=LONGEST_BURN, description="how long, in 1/50 s")] = DEFAULT_BURN,
) -> Content:
    """Fire one engine, or none, for some frames.

    MAIN pushes in the direction of the lander's top, which is up while it is upright.
    LEFT pushes to the left and turns counter-clockwise, RIGHT pushes to the right and turns clockwise.
    """
    return server.step((engine, frames))


if __name__ == "__main__":
    server.run()
