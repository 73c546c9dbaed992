"""Gymnasium's Blackjack over MCP: come closer to 21 than the dealer, and not above it."""

from typing import Any

import gymnasium

from muxsim.mcpgym import GymServer

INSTRUCTIONS = """\
You play blackjack. HIT takes a card. STICK ends your turn, and the dealer then takes cards until it holds 17 or more.
Who is closer to 21 wins, and who is above it loses. An ace is usable, which means that it counts 11, as long as this
does not take you above 21; else it counts 1.

{observation}"""


def describe(observation: Any, env: gymnasium.Env[Any, Any]) -> str:
    total, dealer, usable_ace = map(int, observation)
    ace = "a usable ace" if usable_ace else "no usable ace"
    return f"You hold {total} with {ace}. The dealer shows {'an ace' if dealer == 1 else f'a {dealer}'}."


server = GymServer(
    "blackjack",
    lambda seed: gymnasium.make("Blackjack-v1"),
    describe=describe,
    actions=["STICK", "HIT"],
    title="Blackjack",
    instructions=INSTRUCTIONS,
)

if __name__ == "__main__":
    server.run()
