"""What an environment's answers say, looked at before anybody believes it. Pure.

A server may write anything. What has not the form that MCP and the control plane give it is nobody's observation and no
reward: it is `Malformed`, and its environment has failed.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from muxsim.rollouts.data.trajectory import CONTROL_META_KEY, TOOLS_CHANGED_META_KEY, Control
from muxsim.rollouts.environments.environment import Tool, ToolResult

# A struct's decoder raises one of these for whatever stands there.
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# The members that a block of a type cannot do without; types that are not known here may be what they like.
_MEMBERS: Final = {
    "text": ("text",),
    "image": ("data", "mimeType"),
    "audio": ("data", "mimeType"),
    "resource_link": ("uri",),
}


class Malformed(Exception):
    """An answer that has not the form it must have. The message says what is wrong in it."""


class Unreadable(Malformed):
    """A control plane that does not even tell whether the episode has ended: its environment may be gone."""


class Status(msgspec.Struct, frozen=True):
    """What ``control://status`` says of an episode so far; ``failed`` why the environment can go on no more."""

    terminated: bool = False
    truncated: bool = False
    step: int | None = None
    total_reward: float | None = None
    failed: str | None = None


class _Result(msgspec.Struct, rename="camel"):
    content: list[dict[str, Any]] | None = None
    is_error: bool = False
    structured_content: Any = None
    meta: Raw | UnsetType = msgspec.field(name="_meta", default=UNSET)


class _Meta(msgspec.Struct):
    control: Raw | UnsetType = msgspec.field(name=CONTROL_META_KEY, default=UNSET)
    tools_changed: Raw | UnsetType = msgspec.field(name=TOOLS_CHANGED_META_KEY, default=UNSET)


class _Control(msgspec.Struct):
    """The control plane on its way; an end that could not be read is null."""

    reward: float | None
    terminated: bool | None = False
    truncated: bool | None = False
    step: int | None = None
    info: dict[str, Any] = {}
    problem: str | None = None
    failed: str | None = None
    exact: dict[str, Any] | None = None


class _Tool(msgspec.Struct, rename="camel"):
    name: str
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class _Page(msgspec.Struct, rename="camel"):
    tools: list[_Tool]
    next_cursor: str | None = None


class _Contents(msgspec.Struct):
    text: str


class _Resource(msgspec.Struct):
    contents: list[_Contents]


_results: Final = msgspec.json.Decoder(_Result)
_metas: Final = msgspec.json.Decoder(_Meta)
_controls: Final = msgspec.json.Decoder(_Control)
_pages: Final = msgspec.json.Decoder(_Page)
_objects: Final = msgspec.json.Decoder(dict[str, Any])
_resources: Final = msgspec.json.Decoder(_Resource)
_statuses: Final = msgspec.json.Decoder(Status)


def read_result(raw: Raw, seconds: float) -> tuple[ToolResult, bool]:
    """The result of a tool call, with the control plane if it has one, and whether the tools are others since it.

    Raises `Malformed`.
    """
    result: _Result = _read(_results, raw, "the result")
    if result.content is None and result.structured_content is None:
        raise Malformed("the result is malformed: it has neither content nor structuredContent")
    for place, block in enumerate(result.content or ()):
        if fault := _fault_of(block):
            raise Malformed(f"the result is malformed: content block {place} {fault}")
    meta = _read_meta(result.meta)
    read = ToolResult(
        content=result.content or [],
        is_error=result.is_error,
        control=None if meta.control is UNSET else _read_control(meta.control),
        structured=result.structured_content,
        seconds=seconds,
    )
    return read, meta.tools_changed is not UNSET


def read_tools(raw: Raw) -> tuple[list[Tool], str | None]:
    """One page of a list of tools, and the cursor of the next. Raises `Malformed`."""
    page: _Page = _read(_pages, raw, "tools/list")
    tools = [Tool(tool.name, tool.description or "", tool.input_schema or {"type": "object"}) for tool in page.tools]
    return tools, page.next_cursor


def read_object(raw: Raw, what: str) -> dict[str, Any]:
    """A result that is an object. Raises `Malformed`."""
    value: dict[str, Any] = _read(_objects, raw, what)
    return value


def read_resource(raw: Raw, uri: str) -> Raw:
    """The JSON text in the result of a ``resources/read``. Raises `Malformed`."""
    resource: _Resource = _read(_resources, raw, uri)
    if not resource.contents:
        raise Malformed(f"{uri} is malformed: it has no contents")
    return Raw(resource.contents[0].text.encode())


def read_status(raw: Raw) -> Status:
    """The result of a ``resources/read`` of ``control://status``. Raises `Malformed`."""
    status: Status = _read(_statuses, read_resource(raw, "control://status"), "control://status")
    return status


def _read_meta(raw: Raw | UnsetType) -> _Meta:
    """What is beside a result; one that is no object is none of muxsim's."""
    if raw is UNSET:
        return _Meta()
    try:
        return _metas.decode(raw)
    except _UNREADABLE:
        return _Meta()


def _read_control(raw: Raw) -> Control:
    control: _Control = _read(_controls, raw, "the control plane")
    if control.failed is None and (control.terminated is None or control.truncated is None):
        raise Unreadable(control.problem or "the control plane is malformed: an end that is null")
    problem = control.problem
    if control.reward is not None and not math.isfinite(control.reward):
        control.reward, problem = None, f"the reward is {control.reward}"
    return Control(
        reward=control.reward,
        terminated=bool(control.terminated),
        truncated=bool(control.truncated),
        step=control.step,
        info=control.info,
        problem=problem,
        failed=control.failed,
        exact=control.exact,
    )


def _read(decoder: Any, raw: Raw, what: str) -> Any:
    try:
        return decoder.decode(raw)
    except _UNREADABLE as error:
        raise Malformed(f"{what} is malformed: {error}") from None


def _fault_of(block: dict[str, Any]) -> str:
    """What is wrong with a content block; "" if nothing is."""
    kind = block.get("type")
    if not isinstance(kind, str):
        return "has no type"
    for name in _MEMBERS.get(kind, ()):
        if not isinstance(block.get(name), str):
            return f"is of type {kind} and has no text as its {name}"
    if kind == "resource":
        return _fault_of_resource(block.get("resource"))
    return "" if kind != "image" or _is_base64(block["data"]) else "is an image whose data is not base64"


def _fault_of_resource(resource: Any) -> str:
    if not isinstance(resource, dict) or not isinstance(resource.get("uri"), str):
        return "is a resource without a uri"
    if not any(isinstance(resource.get(name), str) for name in ("text", "blob")):
        return "is a resource with neither text nor blob"
    return ""


def _is_base64(data: str) -> bool:
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
