"""The control plane of one episode: what the trainer sees and the agent must not. Pure state."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from muxsim.mcpgym.errors import EnvironmentFailed, EpisodeEnded
from muxsim.mcpgym.exact import to_exact
from muxsim.mcpgym.jsonable import to_json, to_text

# The key in `_meta`: `true` in the params of a `tools/call` asks, an object in the result answers. With
# `{"exact": true}` the answer has what the environment itself gave too, as `exact` writes it; so has the initial state.
CONTROL_META_KEY = "muxsim/control"

_OUTCOME_LENGTH = 5
# Characters of an exception's text. Some have a whole array in it.
_LONGEST_CAUSE = 300


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one `env.step` returned, checked. `info` is JSON, `observation` is as the environment gave it."""

    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


class ControlPlane:
    """Rewards and the end of one episode.

    `step` counts the steps that the environment has taken: calls that failed or only looked do not change it.
    """

    def __init__(
        self, *, seed: int, observation: Any, info: Any, first: Any = None, spaces: Callable[[], Any] = dict
    ) -> None:
        """`observation` is JSON, in the form that the agent gets the later ones in; `info` is reset's.

        `first` is the observation as the environment gave it, and `spaces` tells of its spaces.
        """
        self.seed = seed
        self.step = 0
        self.reward = 0.0
        self.total_reward = 0.0
        self.terminated = False
        self.truncated = False
        self.info = _checked_info(info)
        self._initial_state = {"observation": observation, "info": self.info, "seed": seed}
        # What the agent reads of it, and what the trainer does.
        self._broken: str | None = None
        self._failed: str | None = None
        self._rewards_of_call: list[float] = []
        self._given: tuple[Any, Any, Any] = (first, None, info)
        self._spaces = spaces

    def __repr__(self) -> str:
        ends = {
            "terminated": self.terminated,
            "truncated": self.truncated,
            "failed": self._failed is not None,
        }
        state = " ".join(end for end, reached in ends.items() if reached) or "running"
        return f"<ControlPlane seed={self.seed} step={self.step} total_reward={self.total_reward} {state}>"

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated

    def require_running(self) -> None:
        """Raises: EpisodeEnded, EnvironmentFailed: another step is not possible."""
        self.require_sound()
        if self.ended:
            raise EpisodeEnded("the episode has ended: no further step is possible in this session")

    def require_sound(self) -> None:
        """Raises: EnvironmentFailed: nothing that the environment still says can be believed."""
        if self._broken is not None:
            raise EnvironmentFailed(f"no further step is possible: {self._broken}")

    def fail(self, told: str, cause: BaseException) -> EnvironmentFailed:
        """The environment has failed, by no doing of the agent's: nothing of this episode counts from here on.

        Returns what to raise: `told` is for the agent. What happened is in `cause`, and only the trainer reads that.
        """
        if self._failed is None:
            self._broken = told
            self._failed = f"{told}: {_in_words(cause)}"
        return EnvironmentFailed(told)

    def record(self, returned: Any) -> StepOutcome:
        """Take over what `env.step` returned: all of it, or nothing.

        Raises:
            EnvironmentFailed: it is not what Gymnasium allows, for example a reward that is not finite. The
                environment has moved and its reward is not known, so every total from here on would be wrong:
                no step is possible any more. What was wrong is in `__cause__`, and not in the message, which
                the agent gets to read.
        """
        try:
            outcome = _checked(returned)
            total = _finite(self.total_reward + outcome.reward, "the total reward")
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            told = f"what the environment returned from step {self.step + 1} cannot be recorded"
            raise self.fail(told, error) from error
        self.step += 1
        self.total_reward = total
        self.reward, self.info = outcome.reward, outcome.info
        self.terminated, self.truncated = outcome.terminated, outcome.truncated
        self._rewards_of_call.append(outcome.reward)
        self._given = (returned[0], returned[1], returned[4])
        return outcome

    def begin_call(self) -> None:
        """From here on, rewards belong to a new tool call."""
        self._rewards_of_call.clear()

    def of_call(self, *, failed: bool, exact: bool = False) -> dict[str, Any]:
        """The object for `_meta` of the call that began last.

        `reward` is the sum over the steps which that call made, so that the rewards of all calls add up to
        the total: 0.0 for a call that only looked, `null` for one that failed before it made a step, and once
        the environment itself has failed: then `failed` says how. With `exact` there is also what the last step or
        reset gave, as the environment gave it.
        """
        unknown = self._failed is not None or (failed and not self._rewards_of_call)
        return {
            "reward": None if unknown else math.fsum(self._rewards_of_call),
            "terminated": self.terminated,
            "truncated": self.truncated,
            "step": self.step,
            "info": self.info,
            **self._failure(),
            **(self._exact() if exact and not unknown else {}),
        }

    def _exact(self) -> dict[str, Any]:
        observation, reward, info = self._given
        own = {"observation": observation, "info": info}
        if len(self._rewards_of_call) == 1:  # the reward of a call that made several steps is nobody's own number
            own["reward"] = reward
        return {"exact": {name: to_exact(value, lenient=True) for name, value in own.items()}}

    def read_reward(self) -> dict[str, Any]:
        return {"reward": self.reward, "step": self.step}

    def read_status(self) -> dict[str, Any]:
        return {
            "terminated": self.terminated,
            "truncated": self.truncated,
            "step": self.step,
            "total_reward": self.total_reward,
            **self._failure(),
        }

    def _failure(self) -> dict[str, Any]:
        return {} if self._failed is None else {"failed": self._failed}

    def read_info(self) -> dict[str, Any]:
        return self.info

    def read_initial_state(self) -> dict[str, Any]:
        return self._initial_state

    def read_exact_initial_state(self) -> dict[str, Any]:
        """The same with what `reset` gave, as long as no step has been made: environments use arrays again."""
        return {**self._initial_state, **({} if self.step else self._exact())}

    def read_spaces(self) -> dict[str, Any]:
        return dict(self._spaces())


@dataclass(frozen=True, slots=True)
class ControlResource:
    """One of the `control://` resources: MCP's name for it, and the JSON that a reader gets."""

    name: str
    description: str
    read: Callable[[ControlPlane], dict[str, Any]]
    read_exact: Callable[[ControlPlane], dict[str, Any]] | None = None


CONTROL_RESOURCES = {
    "control://reward": ControlResource("reward", "Reward of the last step", ControlPlane.read_reward),
    "control://status": ControlResource("status", "How far the episode is", ControlPlane.read_status),
    "control://info": ControlResource("info", "Info of the last step", ControlPlane.read_info),
    "control://initial_state": ControlResource(
        "initial_state",
        "Seed, first observation and its info",
        ControlPlane.read_initial_state,
        ControlPlane.read_exact_initial_state,
    ),
    "control://spaces": ControlResource("spaces", "Gymnasium's spaces, and how to act", ControlPlane.read_spaces),
}


def _in_words(cause: BaseException) -> str:
    """One line of it: the traceback is on stderr."""
    text = " ".join(str(cause).split())
    return to_text(f"{type(cause).__name__}: {text:.{_LONGEST_CAUSE}}" if text else type(cause).__name__)


def begun(returned: Any) -> tuple[Any, dict[str, Any]]:
    """The observation and info of a `reset`. Raises: TypeError: they are not what Gymnasium wants."""
    try:
        observation, info = returned
    except (TypeError, ValueError):
        raise TypeError(f"what reset returned is not a tuple of observation and info but {returned!r:.60}") from None
    if not isinstance(info, dict):
        raise TypeError(f"what reset returned: the info is not a dict but {info!r:.60}")
    return observation, info


def _checked(returned: Any) -> StepOutcome:
    if not isinstance(returned, tuple) or len(returned) != _OUTCOME_LENGTH:
        raise TypeError(f"not a tuple of observation, reward, terminated, truncated and info but {returned!r:.60}")
    observation, reward, terminated, truncated, info = returned
    return StepOutcome(
        observation=observation,
        reward=_checked_reward(reward),
        terminated=_checked_flag(terminated, "terminated"),
        truncated=_checked_flag(truncated, "truncated"),
        info=_checked_info(info),
    )


def _checked_reward(reward: Any) -> float:
    if isinstance(reward, np.ndarray | np.generic) and reward.size == 1:
        reward = reward.item()
    if not isinstance(reward, int | float):
        raise TypeError(f"the reward is not a number but {reward!r:.60}")
    return _finite(float(reward), "the reward")


def _finite(number: float, name: str) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{name} is not finite but {number}")
    return number


def _checked_flag(flag: Any, name: str) -> bool:
    if not isinstance(flag, bool | np.bool_):
        raise TypeError(f"{name} is not a bool but {flag!r:.60}")
    return bool(flag)


def _checked_info(info: Any) -> dict[str, Any]:
    if not isinstance(info, dict):
        raise TypeError(f"the info is not a dict but {info!r:.60}")
    plain: dict[str, Any] = to_json(info, lenient=True)
    return plain
