"""What is shown of episodes, as JSON, in reports and to those who watch: `dashboard/src/runs/data.ts` has its types."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from muxsim.rollouts.data.trajectory import Trajectory

_LONGEST_TEXT: Final = 20_000
_MOST_POINTS: Final = 60

Json = dict[str, Any]


def summary(trajectory: Trajectory, left_out: int = 0) -> Json:
    """What the table and the curve show of an episode; ``left_out`` of its images are not at hand."""
    return {
        "id": trajectory.id,
        "row": trajectory.row,
        "sample": trajectory.sample,
        "env": trajectory.env,
        "seed": trajectory.seed,
        "end": trajectory.end_reason.value,
        "valid": trajectory.valid,
        "reward": trajectory.total_reward,
        "steps": len(trajectory.steps),
        "seconds": trajectory.seconds,
        "tokens": trajectory.usage.total_tokens,
        "curve": _curve(trajectory),
        "images_left_out": left_out,
    }


def _curve(trajectory: Trajectory) -> list[float]:
    """The sum of rewards after each step, thinned to what a small picture can show."""
    sums, total = [0.0], 0.0
    for step in trajectory.steps:
        total += (step.control.reward or 0.0) if step.control else 0.0
        sums.append(round(total, 6))
    stride = -(-len(sums) // _MOST_POINTS)
    return sums[:: max(1, stride)] if len(sums) <= _MOST_POINTS else [*sums[:-1:stride], sums[-1]]


def details(trajectory: Trajectory) -> Json:
    """A whole episode, without what tells a reader nothing."""
    value: Json = msgspec.to_builtins(trajectory)
    value["messages"] = _messages(trajectory)
    del value["tokens"]  # ids of tokens tell a reader nothing, and can be most of a row
    return value


def playing_summary(trajectory: Trajectory) -> Json:
    """What is shown of an episode that is under way: it has no end, and what it has earned so far."""
    earned = [step.control.reward for step in trajectory.steps if step.control and step.control.reward is not None]
    return summary(trajectory) | {"end": None, "valid": False, "reward": sum(earned) if earned else None}


def playing_details(trajectory: Trajectory) -> Json:
    """The whole of an episode that is under way."""
    return details(trajectory) | {"end_reason": None, "valid": True}


def _messages(trajectory: Trajectory) -> list[Json]:
    """The conversation with each result replaced by the number of its step, which has it already."""
    results = [index for index, message in enumerate(trajectory.messages) if message.get("role") == "tool"]
    of_steps = results[len(results) - len(trajectory.steps) :] if len(results) >= len(trajectory.steps) else []
    step_at = dict(zip(of_steps, trajectory.steps, strict=False))
    return [
        {"role": "tool", "step": step_at[index].index}
        if index in step_at and step_at[index].call_id == message.get("tool_call_id")
        else _shown(message)
        for index, message in enumerate(trajectory.messages)
    ]


def _shown(message: Json) -> Json:
    """A message without metadata, but for why a reply ended."""
    reason = (message.get("metadata") or {}).get("finish_reason")
    shown = {key: value for key, value in message.items() if key != "metadata"}
    return shown if reason is None else {**shown, "finish_reason": reason}


def shortened(value: Any) -> Any:
    """JSON whose texts have an end: the rest of a long one is in the run's folder."""
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_LONGEST_TEXT]}\n… {len(value) - _LONGEST_TEXT} more characters in rollouts.jsonl"
    if isinstance(value, list):
        return [shortened(item) for item in value]
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    return value
