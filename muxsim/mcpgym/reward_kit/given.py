"""What an environment of Gymnasium's itself gives, for trainers that want it as it is: its spaces and observations."""

from typing import Any

from gymnasium import Space

from muxsim.mcpgym.errors import UnsupportedSpace
from muxsim.mcpgym.exact import to_exact
from muxsim.mcpgym.space_json import space_to_json

SPACES = "control://spaces"


class Given:
    """What the last step or reset of an environment gave."""

    def __init__(self, env: Any, observation: Any, info: Any) -> None:
        found = {name: getattr(env, f"{name}_space", None) for name in ("action", "observation")}
        self._spaces = found if isinstance(found["action"], Space) and _has(found["observation"], observation) else {}
        self.last: tuple[Any, Any] = (observation, info)

    def spaces(self) -> dict[str, Any] | None:
        """For trainers: the spaces, null for one that JSON cannot write down; None for an environment without."""
        if not self._spaces:
            return None
        told: dict[str, Any] = {"step": None}  # whatever tools there are, they are the author's
        for name, space in self._spaces.items():
            try:
                told[name] = space_to_json(space)
            except UnsupportedSpace:
                told[name] = None
        return told

    def exact(self) -> dict[str, Any]:
        """The member that has the last observation and its info as they were given; none without spaces."""
        if not self._spaces:
            return {}
        observation, info = self.last
        return {"exact": {"observation": to_exact(observation, lenient=True), "info": to_exact(info, lenient=True)}}


def _has(space: Any, observation: Any) -> bool:
    """Whether it is in the space: an adapter may make something else of it, which is in none that anybody knows."""
    try:
        return isinstance(space, Space) and bool(space.contains(observation))
    except Exception:  # a space of the author's own, which was made for other values
        return False
