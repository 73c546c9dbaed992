"""A policy that knows nothing: any tool, any arguments that fit its schema."""

from __future__ import annotations

import random
from collections.abc import Sequence

from muxsim.rollouts.policy.drawing import CannotDraw, draw
from muxsim.rollouts.policy.messages import assistant_calls, turn_of
from muxsim.rollouts.policy.protocol import Message, PolicyError, Reply


class RandomPolicy:
    """Calls one tool per turn, drawn with its arguments from the tools' schemas.

    What it draws follows from the episode's seed, the turn and ``seed``, which makes one random policy another.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def __repr__(self) -> str:
        return f"RandomPolicy(seed={self.seed})"

    async def next_message(self, conversation: Sequence[Message], tools: Sequence[Message], seed: int) -> Reply:
        """A message with one tool call; without any where there are no tools.

        It says for which tools it could draw nothing. Raises `PolicyError` where that is all of them.
        """
        if not tools:
            return Reply({"role": "assistant", "content": "There is no tool to call."})
        turn = turn_of(conversation)
        # A text is hashed into the state: seeds and turns side by side have nothing in common.
        rng = random.Random(f"{self.seed}/{seed}/{turn}")
        left, problems = list(tools), list[str]()
        while left:
            tool = rng.choice(left)
            function = tool["function"]
            try:
                arguments = draw({"type": "object", **(function.get("parameters") or {})}, rng)
            except CannotDraw as error:
                problems.append(f"no arguments can be drawn for the tool {function['name']}: {error}")
                left.remove(tool)
            else:
                message = assistant_calls([(function["name"], arguments)], turn)
                return Reply({**message, "content": "\n".join(problems) or None})
        raise PolicyError("; ".join(problems))
