"""An environment spoken to in MCP, over any channel that carries requests and their answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

import anyio
import msgspec

from muxsim import __version__
from muxsim.errors import StartError
from muxsim.rollouts.environment import CallTimeout, EnvironmentGone, Opened, Tool, ToolResult
from muxsim.rollouts.trajectory import CONTROL_META_KEY, Control
from transports.messages import Kind, Message, member

# The newest revision with a handshake: every server that speaks any of them answers it with one it knows.
PROTOCOL_VERSION: Final = "2025-11-25"
_INITIALIZE: Final = {
    "protocolVersion": PROTOCOL_VERSION,
    "capabilities": {},
    "clientInfo": {"name": "muxsim-rollout", "version": __version__},
}
_CALL_TIMEOUT_CODE: Final = -32001
_GONE_CODES: Final = (-32000, -32002)
_MOST_PAGES: Final = 100


class Channel(Protocol):
    """One client's connection to one session."""

    async def ask(self, method: str, params: Any, timeout: float | None) -> Message:
        """Send a request and wait for its answer. Raises TimeoutError or `EnvironmentGone`."""

    async def notify(self, method: str) -> None:
        """Send a notification."""

    async def close(self) -> None:
        """End the session. Calling it again is harmless."""


class _Result(msgspec.Struct, rename="camel"):
    content: list[dict[str, Any]] = []
    is_error: bool = False
    structured_content: Any = None
    meta: dict[str, Any] = msgspec.field(name="_meta", default_factory=dict)


class _Fault(msgspec.Struct):
    code: int = 0
    message: str = "error"
    data: Any = None


_results: Final = msgspec.json.Decoder(_Result)
_controls: Final = msgspec.json.Decoder(Control)


class MCPEnvironment:
    """A live session; `muxsim.rollouts.environment.Environment`."""

    def __init__(self, id: str, env: str, seed: int, channel: Channel, opened: Opened) -> None:
        self.id = id
        self.env = env
        self.seed = seed
        self.opened = opened
        self._channel = channel

    def __repr__(self) -> str:
        return f"<MCPEnvironment {self.env} seed {self.seed} session {self.id[:8]}>"

    async def call(self, tool: str, arguments: dict[str, Any], *, timeout: float | None = None) -> ToolResult:
        """Call a tool, with the control plane in the same trip.

        Raises `EnvironmentGone` or `CallTimeout`; a tool's own error is a result, and so is a call that the server
        refused, with nothing earned.
        """
        params = {"name": tool, "arguments": arguments, "_meta": {CONTROL_META_KEY: True}}
        began = time.perf_counter()
        try:
            answer = await self._channel.ask("tools/call", params, timeout)
        except TimeoutError:
            raise CallTimeout(f"{tool}: no answer within {timeout:g} s") from None
        seconds = time.perf_counter() - began
        if answer.kind is Kind.ERROR:
            return _refused(answer, seconds)
        return _result(answer.members["result"], seconds)

    async def close(self) -> None:
        """End the session."""
        await self._channel.close()


@asynccontextmanager
async def closed_on_failure(channel: Channel, env: str) -> AsyncIterator[None]:
    """Close a session whose beginning fails inside the block, and say in a `StartError` which environment it was."""
    try:
        yield
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await channel.close()
        if isinstance(error, StartError):
            raise StartError(f"environment {env!r}: {error}") from None
        raise


async def shake_hands(channel: Channel, timeout: float | None) -> Opened:
    """Initialize, list the tools and read the initial state. Raises `StartError`."""
    began = time.perf_counter()
    try:
        initialized = _value(await channel.ask("initialize", _INITIALIZE, timeout), "initialize")
        await channel.notify("notifications/initialized")
        tools = await _list_tools(channel, timeout)
        state = await _initial_state(channel, timeout)
    except TimeoutError:
        raise StartError(f"no answer to the handshake within {timeout:g} s") from None
    except EnvironmentGone as gone:
        raise StartError("\n".join((str(gone), *gone.stderr))) from None
    return Opened(
        instructions=str(initialized.get("instructions") or ""),
        tools=tools,
        handshake_seconds=time.perf_counter() - began,
        initial_state=state,
    )


async def _list_tools(channel: Channel, timeout: float | None) -> tuple[Tool, ...]:
    tools: list[Tool] = []
    params: dict[str, Any] = {}
    for _ in range(_MOST_PAGES):
        page = _value(await channel.ask("tools/list", params, timeout), "tools/list")
        tools += [
            Tool(tool["name"], tool.get("description") or "", tool.get("inputSchema") or {"type": "object"})
            for tool in page.get("tools", [])
        ]
        if not isinstance(page.get("nextCursor"), str):
            break
        params = {"cursor": page["nextCursor"]}
    return tuple(tools)


async def _initial_state(channel: Channel, timeout: float | None) -> Any:
    """What the environment publishes of its start; None if it publishes nothing."""
    answer = await channel.ask("resources/read", {"uri": "control://initial_state"}, timeout)
    if answer.kind is Kind.ERROR:
        raise_if_gone(answer)
        return None
    contents = msgspec.json.decode(answer.members["result"]).get("contents") or [{}]
    try:
        return msgspec.json.decode(contents[0].get("text", "null"))
    except msgspec.DecodeError as error:
        raise StartError(f"control://initial_state is not JSON: {error}") from None


def _value(answer: Message, what: str) -> dict[str, Any]:
    if answer.kind is Kind.ERROR:
        raise_if_gone(answer)
        raise StartError(f"{what}: {fault_of(answer).message}")
    value: dict[str, Any] = msgspec.json.decode(answer.members["result"])
    return value


def fault_of(answer: Message) -> _Fault:
    """The error in an answer."""
    try:
        return msgspec.json.decode(answer.members["error"], type=_Fault)
    except msgspec.DecodeError:
        return _Fault()


def raise_if_gone(answer: Message) -> None:
    """Raise `EnvironmentGone` if an error says that the session has ended under its client."""
    fault = fault_of(answer)
    if fault.code in _GONE_CODES and isinstance(fault.data, dict) and "cause" in fault.data:
        raise EnvironmentGone(fault.message, stderr=fault.data.get("stderr", ()))


def _result(raw: msgspec.Raw, seconds: float) -> ToolResult:
    """A tool's result. What is malformed in it is the server's fault, and neither the policy's nor this program's."""
    try:
        result = _results.decode(raw)
    except msgspec.DecodeError as error:
        problem = f"the result is malformed: {error}"
        text = {"type": "text", "text": problem}
        return ToolResult([text], is_error=True, control=Control(reward=None, problem=problem), seconds=seconds)
    return ToolResult(
        content=result.content,
        is_error=result.is_error,
        control=_control(raw),
        structured=result.structured_content,
        seconds=seconds,
    )


def _control(raw: msgspec.Raw) -> Control | None:
    control = member(raw, "_meta", CONTROL_META_KEY)
    try:
        return None if control is None else _controls.decode(control)
    except msgspec.DecodeError as error:
        return Control(reward=None, problem=f"the control plane is malformed: {error}")


def _refused(answer: Message, seconds: float) -> ToolResult:
    fault = fault_of(answer)
    if fault.code == _CALL_TIMEOUT_CODE:
        raise CallTimeout(fault.message)
    raise_if_gone(answer)
    text = {"type": "text", "text": fault.message}
    return ToolResult(
        [text], is_error=True, control=Control(reward=None, problem="the call was refused"), seconds=seconds
    )
