"""An environment that opens a display to render."""

import gymnasium

from muxsim.mcpgym import GymServer

server = GymServer(
    "screen", lambda seed: gymnasium.make("CliffWalking-v1", render_mode="rgb_array"), observation="image"
)

if __name__ == "__main__":
    server.run()
