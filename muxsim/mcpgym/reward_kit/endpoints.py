"""The control plane of a server of reward-kit's as resources: what its `/control/...` endpoints say, for muxsim."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from muxsim.mcpgym.jsonable import to_json

_FunctionT = TypeVar("_FunctionT", bound=Callable[..., Any])

_PATH = "_control_plane_path"
_HTTP = "/control/"
SCHEME = "control://"
INITIAL_STATE = f"{SCHEME}initial_state"
# Where reward-kit's first servers had it.
OLD_INITIAL_STATE = "game://initial_state"


def control_plane_endpoint(path: str) -> Callable[[_FunctionT], _FunctionT]:
    """Decorator of a method: what it returns for `session_data=` is the control plane's `path`, such as
    "/control/reward". Over stdio that is the resource `control://reward`, which no agent reads.

    Raises: ValueError: the path is not below /control/.
    """
    if not path.startswith(_HTTP) or path == _HTTP:
        raise ValueError(f"a path of the control plane is like /control/reward, not {path!r}")

    def mark(function: _FunctionT) -> _FunctionT:
        setattr(function, _PATH, path)
        return function

    return mark


def endpoints_of(server: object) -> dict[str, Callable[..., Any]]:
    """The methods that are endpoints, by the URI of their resource; of two for one, the one of the lower class.

    A method that stands in the place of an endpoint is one too, marked or not.
    """
    found: dict[str, Callable[..., Any]] = {}
    for owner in reversed(type(server).__mro__):
        for name, member in vars(owner).items():
            if (path := getattr(member, _PATH, None)) is not None:
                found[SCHEME + path.removeprefix(_HTTP)] = getattr(server, name)
    return found


def told(uri: str, value: Any) -> Any:
    """What an endpoint has said in the words of muxsim's control plane (docs/environments.md): steps are `step` there,
    and the first observation stands under `observation`."""
    plain = to_json(value, lenient=True)
    if uri == INITIAL_STATE:
        return plain if isinstance(plain, dict) and "observation" in plain else {"observation": plain}
    if isinstance(plain, dict) and "step_count" in plain:
        return {"step": plain["step_count"], **plain}
    return plain


def told_text(uri: str, text: str) -> str:
    """The same for the JSON text of a resource; what is no JSON is left as it is, for muxsim to find."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return json.dumps(told(uri, value), ensure_ascii=False)
