"""The frames of OpenEnv's WebSocket, and the JSON-RPC of its MCP side: what clients may say, what they are told. Pure.

A client gets exactly one answer to each frame. What a model or a trainer may write is judged here; what is wrong with
it is said by name, and the session goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw

from muxsim.rollouts.environments.environment import Tool
from muxsim.session import agent_answers
from muxsim.session.registry import SEED_LIMIT
from transports.errors import INVALID_REQUEST, PARSE_ERROR

# Codes of errors on the socket; clients show them in the exception that they raise.
INVALID_JSON: Final = "INVALID_JSON"
UNKNOWN_TYPE: Final = "UNKNOWN_TYPE"
VALIDATION_ERROR: Final = "VALIDATION_ERROR"
EXECUTION_ERROR: Final = "EXECUTION_ERROR"
CAPACITY_REACHED: Final = "CAPACITY_REACHED"
FACTORY_ERROR: Final = "FACTORY_ERROR"
SESSION_ERROR: Final = "SESSION_ERROR"

RESERVED: Final = frozenset({"reset", "step", "state", "close"})
"""Names that a harness keeps for itself: a tool that has one gets another."""
_PREFIX: Final = "env_"

_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_ACTION: Final = frozenset({"type", "tool_name", "arguments", "metadata"})
# Characters of what a client has said that it is told back.
_QUOTED: Final = 80


class Fault(Exception):
    """What is wrong with a frame, or has become of it: the error that answers it; ``more`` stands beside its code."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.code = code
        self.more = more


# ---- what clients say


class Reset(msgspec.Struct, frozen=True):
    """Begin an episode; a seed that is left out is drawn."""

    seed: int | None = None
    episode_id: str | None = None


class ListTools(msgspec.Struct, frozen=True):
    """Tell what tools there are."""


class CallTool(msgspec.Struct, frozen=True):
    """Call one."""

    name: str
    arguments: dict[str, Any]


class GetState(msgspec.Struct, frozen=True):
    """Tell where the episode is."""


class Close(msgspec.Struct, frozen=True):
    """The client leaves."""


class AgentCalls(msgspec.Struct, frozen=True):
    """A request of an agent's, in JSON-RPC."""

    request: Any


Frame: TypeAlias = Reset | ListTools | CallTool | GetState | Close | AgentCalls


def read_frame(text: bytes) -> Frame:
    """What a client says. Raises `Fault`."""
    try:
        frame = msgspec.json.decode(text)
    except _UNREADABLE as error:
        raise Fault(INVALID_JSON, f"the frame is not JSON: {error}") from None
    if not isinstance(frame, dict):
        raise _invalid("", 'must be an object, {"type": …, "data": {…}}', frame)
    kind = frame.get("type")
    if kind == "reset":
        return _reset(_data(frame, optional=True))
    if kind == "step":
        return _action(_data(frame))
    if kind == "state":
        return GetState()
    if kind == "close":
        return Close()
    if kind == "mcp":
        return AgentCalls(_data(frame))
    raise Fault(UNKNOWN_TYPE, f"unknown type {_quoted(kind)}: must be reset, step, state, mcp or close")


def _data(frame: dict[str, Any], *, optional: bool = False) -> dict[str, Any]:
    data = frame.get("data", {} if optional else None)
    if not isinstance(data, dict):
        raise _invalid("data", "must be an object", data)
    return data


def _reset(data: dict[str, Any]) -> Reset:
    """Of what a trainer has beside the seed for its own environments, nothing concerns this one."""
    episode_id = data.get("episode_id")
    if not isinstance(episode_id, str | None):
        raise _invalid("data.episode_id", "must be text", episode_id)
    return Reset(_seed(data.get("seed")), episode_id)


def _seed(seed: Any) -> int | None:
    if isinstance(seed, float) and seed.is_integer():  # a column of a table that has gaps has floats
        seed = int(seed)
    if seed is None or (isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < SEED_LIMIT):
        return seed
    raise _invalid("data.seed", f"must be a whole number from 0 to {SEED_LIMIT - 1}", seed)


def _action(data: dict[str, Any]) -> ListTools | CallTool:
    """An action, as a trainer or its model writes it: one that names a tool is a call, whether or not it says so."""
    if unknown := data.keys() - _ACTION:
        raise _invalid(f"data.{min(unknown)[:_QUOTED]}", "is no part of an action: tool_name and arguments are", None)
    kind = data.get("type", "call_tool")
    if kind == "list_tools":
        return ListTools()
    if kind != "call_tool":
        raise _invalid("data.type", "must be call_tool or list_tools", kind)
    name, arguments = data.get("tool_name"), data.get("arguments", {})
    if not isinstance(name, str):
        raise _invalid("data.tool_name", "must be the name of a tool", name)
    if not isinstance(arguments, dict):
        raise _invalid("data.arguments", "must be an object", arguments)
    return CallTool(name, arguments)


def _invalid(where: str, what: str, found: Any) -> Fault:
    place = where or "the frame"
    said = f"{place} {what}" + ("" if found is None else f", not {_quoted(found)}")
    error = {"loc": where.split(".") if where else [], "msg": said, "type": "value_error"}
    return Fault(VALIDATION_ERROR, f"invalid message: {said}", errors=[error])


def _quoted(value: Any) -> str:
    said = msgspec.json.encode(value).decode()
    return said if len(said) <= _QUOTED else f"{said[:_QUOTED]}…"


# ---- what they are told


class Observed(msgspec.Struct, frozen=True):
    """What a reset or a step gave: what an agent may see, and apart from it what only its trainer may."""

    observation: Any
    reward: float | None
    done: bool
    metadata: dict[str, Any]


def observed(observed: Observed) -> bytes:
    """The answer to a reset or a step."""
    return msgspec.json.encode({"type": "observation", "data": observed})


def state(data: dict[str, Any]) -> bytes:
    """The answer to `GetState`."""
    return msgspec.json.encode({"type": "state", "data": data})


def answered(response: bytes) -> bytes:
    """The answer to `AgentCalls`, with the JSON-RPC response."""
    return msgspec.json.encode({"type": "mcp", "data": Raw(response)})


def failed(fault: Fault) -> bytes:
    """The answer to what went wrong."""
    return msgspec.json.encode({"type": "error", "data": {"message": str(fault), "code": fault.code, **fault.more}})


def for_agents(value: Any) -> Raw:
    """A value as an agent may see it: without what is of the control plane. Raises `Withheld` if nothing is left."""
    return agent_answers.without_control(Raw(msgspec.json.encode(value)))


# ---- the MCP side


@dataclass(frozen=True, slots=True)
class Request:
    """A JSON-RPC request."""

    id: str | int | None
    method: str
    params: dict[str, Any]


class Refused(Exception):
    """The JSON-RPC error that answers a request."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data


def read_body(body: bytes) -> Any:
    """The JSON of a request that was posted. Raises `Refused`."""
    try:
        return msgspec.json.decode(body)
    except _UNREADABLE as error:
        raise Refused(PARSE_ERROR, f"not JSON: {error}") from None


def read_request(value: Any) -> Request:
    """A request. Raises `Refused`."""
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise Refused(INVALID_REQUEST, 'a request must be an object with "jsonrpc": "2.0"')
    id, method, params = id_of(value), value.get("method"), value.get("params")
    if not isinstance(method, str):
        raise Refused(INVALID_REQUEST, "method must be text")
    if not isinstance(params, dict | None):
        raise Refused(INVALID_REQUEST, "params must be an object")
    if id is None and value.get("id") is not None:
        raise Refused(INVALID_REQUEST, "id must be text or a whole number")
    return Request(id, method, params or {})


def id_of(value: Any) -> str | int | None:
    """The id in what may be a request; None if it has none."""
    id = value.get("id") if isinstance(value, dict) else None
    return id if isinstance(id, str | int) and not isinstance(id, bool) else None


def response(id: str | int | None, result: Any) -> bytes:
    """The answer to a request."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "result": result})


def refusal(id: str | int | None, refused: Refused) -> bytes:
    """The answer to one that is refused."""
    data = {} if refused.data is None else {"data": refused.data}
    return msgspec.json.encode(
        {"jsonrpc": "2.0", "id": id, "error": {"code": refused.code, "message": str(refused), **data}}
    )


# ---- tools, by the names that clients know


@dataclass(frozen=True, slots=True)
class Tools:
    """An environment's tools under names of which none is reserved: ``own`` has the one that it is called by itself."""

    listed: tuple[Tool, ...]
    own: dict[str, str]

    @classmethod
    def of(cls, tools: tuple[Tool, ...]) -> Tools:
        """Under their own names, but for the reserved ones."""
        taken = {tool.name for tool in tools}
        own: dict[str, str] = {}
        listed: list[Tool] = []
        for tool in tools:
            name = tool.name
            while name in RESERVED or (name != tool.name and name in taken):
                name = _PREFIX + name
            own[name] = tool.name
            listed.append(Tool(name, tool.description, tool.input_schema))
        return cls(tuple(listed), own)

    def rows(self, schema: str) -> Raw:
        """All, as an agent may see them, each with its schema under this name. Raises `Withheld`."""
        return for_agents(
            [{"name": tool.name, "description": tool.description, schema: tool.input_schema} for tool in self.listed]
        )

    def called(self, name: str) -> str:
        """What the environment itself calls this tool. Raises `LookupError`, which says what there is."""
        if name in self.own:
            return self.own[name]
        renamed = next((theirs for theirs, own in self.own.items() if own == name), "")
        there = f"it is called {renamed} here" if renamed else f"there are {', '.join(self.own)}"
        raise LookupError(f"no tool is called {_quoted(name)}: {there}")


def result_of(content: list[dict[str, Any]], structured: Any, *, is_error: bool) -> Raw:
    """What a tool has said, in OpenEnv's words; ``data`` is what its clients return of a call. Raises `Withheld`."""
    return for_agents(
        {
            "content": content,
            "structured_content": structured,
            "is_error": is_error,
            "data": _data_of(content) if structured is None else structured,
        }
    )


def text_of(content: list[dict[str, Any]]) -> str:
    """The text blocks, a line each."""
    return "\n".join(str(block.get("text", "")) for block in content if block.get("type") == "text")


def _data_of(content: list[dict[str, Any]]) -> Any:
    return text_of(content) if all(block.get("type") == "text" for block in content) else content
