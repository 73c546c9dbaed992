"""What muxsim has recorded of an episode, as reward-kit's trajectory. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from muxsim.compat.reward_kit.records import MCPSession, Trajectory
from muxsim.compat.reward_kit.rows import TerminationReason, Told
from muxsim.rollouts.data.trajectory import CONTROL_METADATA_KEY, EndReason, Step
from muxsim.rollouts.data.trajectory import Trajectory as Played
from muxsim.rollouts.policy.messages import image_url, tool_messages

# eval-protocol's words for it; whatever else ended an episode is an error, for which it may be left out.
_REASONS: Final = {
    EndReason.TERMINATED: TerminationReason.CONTROL_PLANE_SIGNAL,
    EndReason.TRUNCATED: TerminationReason.CONTROL_PLANE_SIGNAL,
    EndReason.MAX_STEPS: TerminationReason.MAX_STEPS,
    EndReason.NO_TOOL_CALL: TerminationReason.STOP,
    EndReason.TOKEN_LIMIT: TerminationReason.LENGTH,
}
_ENDED: Final = (EndReason.TERMINATED, EndReason.TRUNCATED)
# Ends that reward-kit calls terminated: also where the policy has nothing more to say.
_TERMINATED: Final = (*_ENDED, EndReason.NO_TOOL_CALL)
UNKNOWN: Final = math.nan


def outcome_of(session: MCPSession, first: Any, played: Played, *, tape_over: bool = False) -> Trajectory:
    """The trajectory of an episode that began with this observation. ``tape_over``: its recording has no more."""
    rewards = [reward_of(step) for step in played.steps]
    valid = played.valid or tape_over
    summed = math.fsum(rewards) if rewards or tape_over else UNKNOWN
    total = summed if played.total_reward is None else played.total_reward
    reason = TerminationReason.STOP if tape_over else _REASONS.get(played.end_reason, TerminationReason.SKIPPABLE_ERROR)
    actions = [f"{step.tool}({step.arguments})" for step in played.steps]
    made = Trajectory(
        session=session,
        observations=[first, *(observation_of(step.content, step.structured) for step in played.steps)],
        actions=actions,
        rewards=rewards,
        terminated=tape_over or played.end_reason in _TERMINATED,
        total_reward=total,
        steps=len(played.steps),
        duration=played.seconds,
        control_plane_steps=[_step(*told) for told in zip(played.steps, rewards, actions, strict=True)],
        termination_reason=reason,
        conversation_history=old_messages(played),
        usage=Told(
            prompt_tokens=played.usage.prompt_tokens,
            completion_tokens=played.usage.completion_tokens,
            total_tokens=played.usage.total_tokens,
        ),
        valid=valid,
        error=None if valid else played.error or played.end_reason.value,
        played=played,
    )
    made.control_plane_summary = _summary(made)
    return made


def ended_by_environment(played: Played) -> bool:
    """Whether the control plane has said that the episode is over."""
    return played.end_reason in _ENDED


def log_entry(trajectory: Trajectory) -> dict[str, Any]:
    """A line of ``openai_format_log_file``."""
    last = trajectory.rewards[-1] if trajectory.rewards else UNKNOWN
    return {
        "messages": trajectory.conversation_history,
        "metadata": {
            "session_id": trajectory.session.session_id,
            "seed": trajectory.session.seed,
            "total_steps": trajectory.steps,
            "total_reward": _as_json(trajectory.total_reward),
            "terminated": trajectory.terminated,
            "success": last > 0,
            "control_plane_summary": {name: _as_json(one) for name, one in trajectory.control_plane_summary.items()},
        },
    }


def reward_of(step: Step) -> float:
    """What a call has earned; a call that was refused nothing, and one that nobody could read nan."""
    control = step.control
    if control is None:
        return 0.0 if step.is_error else UNKNOWN
    if control.reward is not None:
        return control.reward
    return 0.0 if step.is_error and control.problem is None and control.failed is None else UNKNOWN


def observation_of(content: Sequence[Mapping[str, Any]], structured: Any = None) -> Any:
    """What a result shows: its JSON, else its text; with an image an object that has it as ``image_url``."""
    text = "\n".join(str(block["text"]) for block in content if block.get("type") == "text")
    value = structured if not text and structured is not None else _read(text)
    images = [block for block in content if block.get("type") == "image"]
    if not images:
        return value
    url = f"data:{images[0].get('mimeType')};base64,{images[0].get('data')}"
    return {**(value if isinstance(value, dict) else {"observation": value}), "image_url": {"url": url}}


def first_observation(state: Any) -> Any:
    """The one of ``control://initial_state``; None if there is none."""
    seen = state.get("observation", state) if isinstance(state, dict) else state
    is_content = isinstance(seen, list) and seen and all(isinstance(one, dict) and "type" in one for one in seen)
    return observation_of(seen) if is_content else seen


def old_messages(played: Played) -> list[dict[str, Any]]:
    """The conversation, with reward-kit's metadata beside a tool's result, and with none of muxsim's.

    The words of a result are the tool's own, which scripts read as JSON; its images stay in the message behind it.
    """
    messages = [_old_message(message) for message in played.messages]
    results = [message for message in messages if message["role"] == "tool"]
    for message, step in zip(results, played.steps, strict=False):  # a call that broke has no message
        words = [block for block in step.content if image_url(block) is None]
        if 0 < len(words) < len(step.content):
            message["content"] = tool_messages(step.call_id, words, step.structured)[0]["content"]
    return messages


def _old_message(message: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if key != "metadata"}
    control = message.get("metadata", {}).get(CONTROL_METADATA_KEY)
    if control is not None:
        ended = bool(control["terminated"] or control["truncated"])
        kept["metadata"] = {"reward": control["reward"], "terminated": ended, "info": control["info"]}
    return kept


def _step(step: Step, reward: float, action: str) -> dict[str, Any]:
    control = step.control
    return {
        "step": step.index,
        "reward": reward,
        "terminated": control is not None and (control.terminated or control.truncated),
        "info": {} if control is None else control.info,
        "tool_call": action,
        "tool_calls": [action],
        "num_tool_calls": 1,
    }


def _summary(trajectory: Trajectory) -> dict[str, Any]:
    if trajectory.error is not None:
        return {"error_message": trajectory.error}
    if not trajectory.terminated:
        return {}
    steps = trajectory.control_plane_steps
    return {
        "total_reward": trajectory.total_reward,
        "termination_reason": trajectory.termination_reason,
        "final_step": trajectory.steps - 1,
        "control_plane_source": steps[-1]["info"] if steps else {},
    }


def _as_json(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
