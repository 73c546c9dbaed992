"""Plays as users of eval-protocol do, with its own client: ``URL TOOL ACTION…``, a row for each of some seeds.

Prints a line of JSON for each episode: its seed, rewards, whether it terminated, its steps and what it was shown first.
"""

from __future__ import annotations

import asyncio
import json
import sys

import eval_protocol as ep
from eval_protocol.models import EvaluationRow, InputMetadata, Message
from eval_protocol.utils.static_policy import StaticPolicy

SEEDS = (0, 1, 2, 3)


class Script(StaticPolicy):
    """The package's own policy of actions in order, which gives no reason why a reply is over: then it cannot end."""

    async def __call__(self, tools, number, history):
        calls, usage, _ = await super().__call__(tools, number, history)
        return calls, usage, "tool_calls"


async def main(url, tool, *actions):
    rows = [
        EvaluationRow(
            messages=[Message(role="system", content="play")],
            input_metadata=InputMetadata(
                row_id=f"row {seed}",
                dataset_info={"user_prompt_template": "{observation}", "environment_context": {"seed": seed}},
            ),
        )
        for seed in SEEDS
    ]
    envs = ep.make(url, evaluation_rows=rows, model_id="script")
    policy = Script(tool_name=tool, action_sequence=list(actions))
    played = await ep.rollout(envs, policy=policy, evaluation_rows=rows, steps=len(actions))
    for seed, row in zip(SEEDS, played, strict=True):
        steps = [message.control_plane_step for message in row.messages if message.control_plane_step]
        told = {
            "seed": seed,
            "rewards": [step["reward"] for step in steps],
            "terminated": any(step["terminated"] for step in steps),
            "prompt": str(row.messages[1].content),
        }
        print("EPISODE " + json.dumps(told))
    await envs.close()


asyncio.run(main(*sys.argv[1:]))
