"""Episodes as rows of tokens, in the words of those who train with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal, get_args

from muxsim.rollouts.data.tokens import Segment, TurnTokens, segments, turn_tokens
from muxsim.rollouts.data.trajectory import Trajectory
from muxsim.rollouts.view.fate import fate_of

Json = dict[str, Any]
TokenForm = Literal["tokens", "trl", "sft", "verl"]
TOKEN_FORMS: Final[tuple[TokenForm, ...]] = get_args(TokenForm)

# What TRL, and torch's cross entropy, take for a token that no loss is computed of.
_IGNORED: Final = -100


def token_rows(
    trajectories: Iterable[Trajectory],
    form: TokenForm = "tokens",
    *,
    bare: bool = False,
    left_out: Callable[[Trajectory, str], object] | None = None,
) -> Iterator[Json]:
    """The tokens of each episode in as few rows as they make (`rollouts.data.tokens.Segment`).

    * ``tokens``: ``prompt_token_ids``, ``token_ids``, ``loss_mask``, ``logprobs``.
    * ``trl``: what a ``rollout_func`` of TRL's GRPOTrainer returns of one, ``prompt_ids``, ``completion_ids``,
      ``env_mask``, ``logprobs``.
    * ``sft``: what TRL's SFTTrainer takes for tokenized, ``input_ids`` and ``labels``.
    * ``verl``: the members of an ``AgentLoopOutput``.

    The mask is 1 for tokens that the policy sampled. Log probabilities are None where one is not known. What became of
    the episode is beside these, unless ``bare``, and which ``segment`` of its ``segments`` a row is: a trainer weighs
    them. ``left_out`` is called for each episode without a row, with the reason.
    """
    for trajectory in trajectories:
        turns = turns_of(trajectory)
        found = segments(turns)
        if not found and left_out is not None:
            left_out(trajectory, next((one.problem for one in turns if one.problem), "the policy gave no reply"))
        for index, segment in enumerate(found):
            row = _SHAPES[form](segment, trajectory)
            place = {"segment": index, "segments": len(found), "turn": segment.turn, "turns": segment.turns}
            yield row if bare else row | place | {"begins": segment.begins or None} | fate_of(trajectory)


def turns_of(trajectory: Trajectory) -> list[TurnTokens]:
    """The tokens of each reply of the policy."""
    return [turn_tokens(one) for one in trajectory.tokens]


def turn_rows(trajectory: Trajectory) -> list[Json | None]:
    """The tokens of each reply by itself, None for one without.

    ``loss_mask`` is for ``prompt_token_ids`` and ``token_ids`` in a row.
    """
    return [_turn_row(one) for one in turns_of(trajectory)]


def _turn_row(turn: TurnTokens) -> Json | None:
    if turn.prompt is None and turn.completion is None:
        return None
    whole = not turn.problem and turn.prompt is not None and turn.completion is not None
    return {
        "prompt_token_ids": turn.prompt,
        "token_ids": turn.completion,
        "logprobs": turn.logprobs,
        "loss_mask": [0] * len(turn.prompt or ()) + [1] * len(turn.completion or ()) if whole else None,
        "problem": turn.problem or None,
    }


def _neutral(segment: Segment, _: Trajectory) -> Json:
    known = any(one is not None for one in segment.logprobs)
    return {
        "prompt_token_ids": segment.prompt,
        "token_ids": segment.completion,
        "loss_mask": segment.mask,
        "logprobs": segment.logprobs if known else None,
    }


def _trl(segment: Segment, _: Trajectory) -> Json:
    return {
        "prompt_ids": segment.prompt,
        "completion_ids": segment.completion,
        "env_mask": segment.mask,
        "logprobs": segment.scored(),
    }


def _sft(segment: Segment, _: Trajectory) -> Json:
    labels = [id if sampled else _IGNORED for id, sampled in zip(segment.completion, segment.mask, strict=True)]
    return {"input_ids": segment.prompt + segment.completion, "labels": [_IGNORED] * len(segment.prompt) + labels}


def _verl(segment: Segment, trajectory: Trajectory) -> Json:
    return {
        "prompt_ids": segment.prompt,
        "response_ids": segment.completion,
        "response_mask": segment.mask,
        "response_logprobs": segment.scored(),
        "reward_score": trajectory.total_reward,
        "num_turns": sum(message.get("role") != "system" for message in trajectory.messages),
        "metrics": {"generate_sequences": trajectory.times.model, "tool_calls": trajectory.times.tool},
    }


_SHAPES: Final[dict[TokenForm, Callable[[Segment, Trajectory], Json]]] = {
    "tokens": _neutral,
    "trl": _trl,
    "sft": _sft,
    "verl": _verl,
}
