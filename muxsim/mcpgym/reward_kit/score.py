"""What an episode of a server of reward-kit's has earned, kept where the server itself keeps it."""

import math
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from muxsim.mcpgym.jsonable import to_json, to_text

State: TypeAlias = MutableMapping[str, Any]
"""reward-kit's own: reward, terminated, truncated, info, step_count, total_reward."""

# Characters of an exception's text.
_LONGEST_CAUSE = 300


def new_state() -> dict[str, Any]:
    """That of an episode which has just begun."""
    return {
        "reward": 0.0,
        "terminated": False,
        "truncated": False,
        "info": {},
        "step_count": 0,
        "total_reward": 0.0,
    }


@dataclass
class Score:
    """The steps of one call, put into the server's state, and what they come to.

    A server may write its state itself, or have it written: what `stepped` is told and nobody has `recorded` is
    recorded when the call is over. Once something makes no sense, `failed` says what, and nothing counts any more.
    """

    failed: str | None = None
    _pending: list[tuple[Any, Any, Any, Any]] = field(default_factory=list)
    _rewards: list[float] = field(default_factory=list)
    _before: tuple[int, float] = (0, 0.0)
    moved: bool = False
    """Whether the environment has been asked for a step in this call."""

    def begin(self, state: State) -> None:
        """A call begins."""
        self._pending.clear()
        self._rewards.clear()
        self.moved = False
        self._before = _counts(state)

    def stepped(self, reward: Any, terminated: Any, truncated: Any, info: Any) -> None:
        """The environment has made a step."""
        self._pending.append((reward, terminated, truncated, info))

    def record(self, state: State, reward: Any, terminated: Any, truncated: Any, info: Any) -> None:
        """Put a step into the state; one that makes no sense is a failure of the environment."""
        self._pending.clear()
        try:
            number, ends = _number(reward), (_flag(terminated, "terminated"), _flag(truncated, "truncated"))
            total = _number(state["total_reward"] + number)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            self.fail("what the environment returned from a step cannot be recorded", error)
            return
        state["reward"], state["total_reward"] = number, total
        state["terminated"], state["truncated"] = ends
        state["info"] = info
        state["step_count"] += 1
        self._rewards.append(number)

    def settle(self, state: State) -> None:
        """A call is over: record what no one has, unless the server has counted by itself."""
        pending = [*self._pending]
        if _counts(state)[0] == self._before[0]:
            for step in pending:
                self.record(state, *step)

    def fail(self, told: str, cause: BaseException) -> None:
        """Say that nothing of this episode counts from here on. What has happened is for the trainer only."""
        text = " ".join(str(cause).split())
        self.failed = self.failed or to_text(f"{told}: {type(cause).__name__}: {text:.{_LONGEST_CAUSE}}")

    def of_call(self, state: State, *, refused: bool) -> dict[str, Any]:
        """The control plane beside a call's result; `refused` is one that has come to an error."""
        steps, total = _counts(state)
        moved = steps - self._before[0]
        earned = math.fsum(self._rewards) if moved == len(self._rewards) else total - self._before[1]
        unknown = self.failed is not None or (refused and not moved) or not math.isfinite(earned)
        return {
            "reward": None if unknown else earned,
            "terminated": bool(state.get("terminated")),
            "truncated": bool(state.get("truncated")),
            "step": steps,
            "info": info_of(state),
            **self.failure(),
        }

    def failure(self) -> dict[str, str]:
        """The member that says so, if the environment has failed."""
        return {} if self.failed is None else {"failed": self.failed}


def ended(state: State) -> bool:
    """Whether the episode is over."""
    return bool(state.get("terminated") or state.get("truncated"))


def info_of(state: State) -> dict[str, Any]:
    """The info of the last step, as JSON."""
    info = to_json(state.get("info") or {}, lenient=True)
    return info if isinstance(info, dict) else {"info": info}


def _counts(state: State) -> tuple[int, float]:
    """Steps and total; nan where what stands there is no number."""
    try:
        return int(state.get("step_count", 0)), _number(state.get("total_reward", 0.0))
    except (TypeError, ValueError, OverflowError):
        return 0, math.nan


def _number(value: Any) -> float:
    if isinstance(value, np.ndarray | np.generic) and value.size == 1:
        value = value.item()
    if not isinstance(value, int | float):
        raise TypeError(f"the reward is not a number but {value!r:.60}")
    if not math.isfinite(value):
        raise ValueError(f"the reward is not finite but {value}")
    return float(value)


def _flag(value: Any, name: str) -> bool:
    # Of integers too: environments of eval-protocol are not all Gymnasium's.
    if not isinstance(value, bool | np.bool_ | int | np.integer):
        raise TypeError(f"{name} is not a bool but {value!r:.60}")
    return bool(value)
