"""An environment spoken to in MCP, over any channel that carries requests and their answers.

Who has said what is told apart here. A result, and an error of the server's own, is the environment's word. What
muxsim or anybody else on the way says is an exception, and so is what an environment says that cannot be true.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

import anyio
import msgspec

from muxsim import __version__
from muxsim.errors import StartError
from muxsim.placement.last_words import with_unsaid
from muxsim.rollouts.data.trajectory import CONTROL_META_KEY, Control
from muxsim.rollouts.environments.answers import (
    Malformed,
    Status,
    Unreadable,
    read_object,
    read_resource,
    read_result,
    read_status,
    read_tools,
)
from muxsim.rollouts.environments.environment import (
    CallTimeout,
    EnvironmentFailed,
    EnvironmentGone,
    MachineryFailed,
    Opened,
    Tool,
    ToolResult,
)
from muxsim.session.control.ledger import is_close
from muxsim.session.control.presence import (
    Listed,
    Presence,
    Question,
    inquire,
    look_through_lists,
    says_not_there,
)
from transports.errors import INVALID_REQUEST, PARSE_ERROR
from transports.messages import Kind, Message

T = TypeVar("T")

# The newest revision with a handshake: every server that speaks any of them answers it with one it knows.
PROTOCOL_VERSION: Final = "2025-11-25"
_INITIALIZE: Final = {
    "protocolVersion": PROTOCOL_VERSION,
    "capabilities": {},
    "clientInfo": {"name": "muxsim-rollout", "version": __version__},
}
_SCORED: Final = {CONTROL_META_KEY: True}
_EXACTLY: Final = {CONTROL_META_KEY: {"exact": True}}
# What muxsim itself answers with, in the place of a backend: then the error's data names a cause.
_CALL_TIMEOUT: Final = -32001
_OWN_CODES: Final = frozenset({-32000, _CALL_TIMEOUT, -32002, -32003, PARSE_ERROR, INVALID_REQUEST})
# Causes of a session's end that are its environment's doing.
_CRASHES: Final = frozenset({"backend_exited", "start_timeout"})
# Seconds for one more word of an environment whose episode is over.
_LAST_LOOK: Final = 10.0
# A catalogue that needs more pages is no list of tools that anybody could be shown.
_MOST_PAGES: Final = 100


class Channel(Protocol):
    """One client's connection to one session."""

    async def ask(self, method: str, params: Any, timeout: float | None) -> Message:
        """Send a request and wait for its answer, whoever gave it.

        Raises TimeoutError, and `EnvironmentGone` or `MachineryFailed` where there is none to be had.
        """

    async def notify(self, method: str) -> None:
        """Send a notification."""

    async def finish(self) -> None:
        """End the session. What it leaves on this machine stays until `close`. Calling it again is harmless."""

    async def close(self) -> None:
        """End the session, with all that is left of it. Calling it again is harmless."""

    def last_words(self) -> tuple[str, ...]:
        """The last lines of the environment's stderr, as far as they can be had from here."""


class _Fault(msgspec.Struct):
    code: int = 0
    message: str = "error"
    data: Any = None


class MCPEnvironment:
    """A live session; `muxsim.rollouts.environments.environment.Environment`."""

    def __init__(self, id: str, env: str, seed: int, channel: Channel, opened: Opened) -> None:
        self.id = id
        self.env = env
        self.seed = seed
        self.opened = opened
        self._channel = channel
        # None until it is known whether there is a control plane that scores.
        self._scored: bool | None = None
        self._published = opened.published
        self._counts = False  # whether control://status is known to be there
        # The sum of what its calls have said, None before one has said anything, and of the sizes of that. In the
        # session of all clients nothing else is the episode's own.
        self._said: float | None = None
        self._sizes = 0.0
        self._doubtful = False
        self._step = 0
        self._untold = False  # whether a step was made that no result has told the reward of

    def __repr__(self) -> str:
        return f"<MCPEnvironment {self.env} seed {self.seed} session {self.id[:8]}>"

    async def call(
        self, tool: str, arguments: dict[str, Any], *, timeout: float | None = None, exact: bool = False
    ) -> ToolResult:
        """Call a tool, with the control plane in the same trip; ``exact`` as far as the environment has such values.

        A tool's own error is a result, and so is a call that the server refused. Raises `EnvironmentGone`,
        `EnvironmentFailed`, `MachineryFailed` or `CallTimeout`.
        """
        params = {"name": tool, "arguments": arguments, "_meta": _EXACTLY if exact else _SCORED}
        began = time.perf_counter()
        answer = await self._ask("tools/call", params, timeout, tool)
        seconds = time.perf_counter() - began
        try:
            if answer.kind is Kind.ERROR:
                return await self._refused(fault_of(answer).message, seconds, timeout)
            read, tools_changed = read_result(answer.members["result"], seconds)
            result = await self._scored_result(read, timeout)
            return replace(result, tools=await list_tools(self._channel, timeout)) if tools_changed else result
        except Unreadable as fault:
            raise await self._silent(str(fault), timeout) from None
        except Malformed as fault:
            raise await self._failed(str(fault)) from None
        except TimeoutError:
            raise CallTimeout(f"tools/list: no answer within {timeout:g} s") from None

    @property
    def untold(self) -> bool:
        """Whether a step was made whose reward no result has told: what is known of the others is no total then."""
        return self._untold

    async def earned(self, *, timeout: float | None = None, over: bool = False) -> float | None:
        """What the episode has earned so far; None for an environment without a control plane.

        Where its calls do not tell, ``control://status`` is asked. Of an episode that is ``over`` it is asked in any
        case: an environment that counts otherwise than its results say has failed. Raises as `call` does.
        """
        if self._scored is False:
            return None
        if self._said is not None and not self._doubtful and (over or not self._untold):
            return await self._agreed(timeout) if over else self._told
        try:
            status = await self._status(timeout)
            if status is None and await self._is_scored(timeout):
                raise Malformed("the control plane is gone: control://status, which was there, cannot be read")
        except Malformed as fault:
            raise await self._failed(str(fault)) from None
        return None if status is None else await self._total(status)

    async def read(self, part: str, *, timeout: float | None = None) -> Any:
        """A part of the control plane, exact where the environment can; None for one that is not there.

        Raises as `call` does.
        """
        uri = f"control://{part}"
        answer = await self._ask("resources/read", {"uri": uri, "_meta": _EXACTLY}, timeout, uri)
        if answer.kind is Kind.ERROR:
            return None
        try:
            return msgspec.json.decode(read_resource(answer.members["result"], uri))
        except (Malformed, msgspec.DecodeError, RecursionError) as fault:
            raise await self._failed(f"{uri} cannot be read: {fault}") from None

    async def tells_rewards(self, *, timeout: float | None = None) -> bool:
        """Whether there is a control plane: one may tell no initial state, but has a status. Raises as `call` does."""
        return self.opened.published or await self.read("status", timeout=timeout) is not None

    async def finish(self) -> None:
        """End the session's processes: what is in its workspace is final then, and stays there until `close`."""
        await self._channel.finish()

    async def close(self) -> None:
        """End the session."""
        await self._channel.close()

    async def _total(self, status: Status) -> float:
        if status.failed is not None:
            raise await self._failed(status.failed)
        if self.opened.shared:
            return self._told
        if status.total_reward is not None:
            return status.total_reward
        return await self._sum_of_results()

    async def _sum_of_results(self) -> float:
        """The total of an environment that counts its steps, if that, and not what they have earned."""
        if self._untold:
            raise await self._failed("control://status has no total_reward, and a call that failed made a step")
        return self._told

    def _count(self, step: int | None, *, scored: bool) -> None:
        """Take in the environment's count of steps, if it has one, after a call that has told its reward or not."""
        self._untold = self._untold or not (scored or step in (None, self._step))
        self._step = self._step if step is None else step

    @property
    def _told(self) -> float:
        return self._said or 0.0

    async def _agreed(self, timeout: float | None) -> float:
        """The same, unless the environment's own count is another, or is there and cannot be read.

        One that has gone with its last answer contradicts nothing.
        """
        if self.opened.shared:
            return self._told
        count = None
        try:
            with suppress(EnvironmentGone):
                count = await self._status(_LAST_LOOK if timeout is None else min(timeout, _LAST_LOOK))
                if count is None and self._counts:
                    raise Malformed("control://status cannot be read")
        except Malformed as fault:
            raise await self._failed(f"the rewards of its results are in doubt: {fault}") from None
        if count is not None and count.failed is not None:
            raise await self._failed(count.failed)
        total = None if count is None else count.total_reward
        if total is None:
            return await self._sum_of_results()
        if not is_close(total, self._told, self._sizes):
            text = f"the rewards of its results come to {self._told:g}, and control://status says {total:g}"
            raise await self._failed(text)
        return self._told

    async def _ask(self, method: str, params: Any, timeout: float | None, what: str) -> Message:
        try:
            answer = await self._channel.ask(method, params, timeout)
            if answer.kind is Kind.ERROR:
                raise_if_muxsims(answer)
            return answer
        except TimeoutError:
            raise CallTimeout(f"{what}: no answer within {timeout:g} s") from None
        except CallTimeout as late:
            raise CallTimeout(f"{what}: {late}") from None
        except EnvironmentFailed as fault:
            raise await self._failed(str(fault)) from None

    async def _refused(self, message: str, seconds: float, timeout: float | None) -> ToolResult:
        """An error of the server's own in place of a result, which can carry no control plane."""
        status = None if self._scored is False else await self._status(timeout)
        result = ToolResult([{"type": "text", "text": message}], is_error=True, control=None, seconds=seconds)
        self._doubtful = True
        if status is None:
            if await self._is_scored(timeout):
                raise Malformed("the control plane is gone: control://status, which was there, cannot be read")
            return result
        if status.failed is not None:
            raise await self._failed(status.failed)
        self._count(status.step, scored=False)
        ends = Control(reward=None, terminated=status.terminated, truncated=status.truncated, step=status.step)
        return replace(result, control=ends)

    async def _scored_result(self, result: ToolResult, timeout: float | None) -> ToolResult:
        control = result.control
        if control is None:
            if await self._is_scored(timeout):
                raise Malformed("the control plane is gone: the result has none")
            self._scored = False
            return result
        self._scored = True
        if control.failed is not None:
            raise await self._failed(control.failed)
        self._count(control.step, scored=control.reward is not None)
        if control.reward is not None:
            self._said = self._told + control.reward
            self._sizes += abs(control.reward)
        elif control.problem is None and not result.is_error:
            return replace(result, control=msgspec.structs.replace(control, problem="the reward is null"))
        return result

    async def _is_scored(self, timeout: float | None) -> bool:
        """Whether there is a control plane that scores. Where nothing has shown it, the server's own list decides."""
        if self._scored is None and self._published:
            lists = look_through_lists()
            listed = await _asked(lists, lambda method, params: self._ask(method, params, timeout, method), timeout)
            self._scored = listed in (Listed.NAMED, Listed.UNKNOWN)
        return bool(self._scored)

    async def _status(self, timeout: float | None) -> Status | None:
        """What ``control://status`` says; None if it is not there."""
        answer = await self._ask("resources/read", {"uri": "control://status"}, timeout, "control://status")
        if answer.kind is Kind.ERROR:
            self._counts = self._counts or not says_not_there(answer)
            self._published = self._published or self._counts
            return None
        self._counts = True
        status = read_status(answer.members["result"])
        self._scored = True
        return status

    async def _silent(self, text: str, timeout: float | None) -> EnvironmentFailed:
        """What to raise for a control plane that says nothing: raises itself where the environment is gone with it."""
        with suppress(Malformed, CallTimeout):  # which have been said with better words before
            await self._status(timeout)
        return await self._failed(text)

    async def _failed(self, text: str) -> EnvironmentFailed:
        """What to raise for an environment that has failed. Its session ends here: what it says last comes with it."""
        with anyio.CancelScope(shield=True):
            await self._channel.finish()
        return EnvironmentFailed(text, stderr=self._channel.last_words())


@asynccontextmanager
async def closed_on_failure(channel: Channel, env: str) -> AsyncIterator[None]:
    """Close a session whose beginning fails inside the block, and say in a `StartError` which environment it was."""
    try:
        yield
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await channel.close()
        if isinstance(error, StartError):
            raise StartError(with_unsaid(f"environment {env!r}: {error}", channel.last_words())) from None
        raise


async def shake_hands(channel: Channel, timeout: float | None) -> Opened:
    """Initialize, list the tools and read the initial state. Raises `StartError`."""
    began = time.perf_counter()
    try:
        initialized = await _initialize(channel, timeout)
        await channel.notify("notifications/initialized")
        tools = await list_tools(channel, timeout)
        published, state = await _initial_state(channel, initialized, timeout)
    except TimeoutError:
        raise StartError(f"no answer to the handshake within {timeout:g} s") from None
    except EnvironmentGone as gone:
        raise StartError(with_unsaid(str(gone), gone.stderr)) from None
    except (Malformed, EnvironmentFailed, MachineryFailed) as fault:
        raise StartError(str(fault)) from None
    return Opened(
        instructions=str(initialized.get("instructions") or ""),
        tools=tools,
        handshake_seconds=time.perf_counter() - began,
        initial_state=state,
        published=published,
    )


async def _initialize(channel: Channel, timeout: float | None) -> dict[str, Any]:
    answer = await ask(channel, "initialize", _INITIALIZE, timeout)
    if answer.kind is Kind.ERROR:
        raise Malformed(f"initialize: {fault_of(answer).message}")
    return read_object(answer.members["result"], "the answer to initialize")


async def list_tools(channel: Channel, timeout: float | None) -> tuple[Tool, ...]:
    """All tools, over all pages, within ``timeout``. Raises `Malformed` for a list without end."""
    tools: list[Tool] = []
    params: dict[str, Any] = {}
    cursors: set[str] = set()
    with anyio.fail_after(timeout):
        for _ in range(_MOST_PAGES):
            answer = await ask(channel, "tools/list", params, timeout)
            if answer.kind is Kind.ERROR:
                raise Malformed(f"tools/list: {fault_of(answer).message}")
            page, cursor = read_tools(answer.members["result"])
            tools += page
            if cursor is None:
                return tuple(tools)
            if cursor in cursors:
                raise Malformed(f"tools/list does not end: nextCursor {cursor!r:.60} has been there before")
            cursors.add(cursor)
            params = {"cursor": cursor}
    raise Malformed(f"tools/list does not end: there is another page after {_MOST_PAGES}")


async def _initial_state(channel: Channel, initialized: dict[str, Any], timeout: float | None) -> tuple[bool, Any]:
    """Whether the environment may publish its start, for not every error says that it does not; and what it says."""
    uri = "control://initial_state"
    answer = await ask(channel, "resources/read", {"uri": uri}, timeout)
    fault: Malformed | None = None
    if answer.kind is Kind.RESULT:
        try:
            return True, msgspec.json.decode(read_resource(answer.members["result"], uri))
        except Malformed as malformed:
            fault = malformed
        except (msgspec.DecodeError, RecursionError) as error:
            fault = Malformed(f"{uri} is not JSON: {error}")
    if says_not_there(answer) or not await _is_there(channel, {"initial_state": answer}, initialized, timeout):
        return False, None
    if fault is not None:
        raise fault
    return True, None


async def _is_there(
    channel: Channel, answers: dict[str, Message], initialized: dict[str, Any], timeout: float | None
) -> bool:
    """Whether there may be a control plane of which this could not be read; servers have some answer for any URI."""
    capabilities = initialized.get("capabilities")
    capable = isinstance(capabilities, dict) and capabilities.get("resources") is not None
    questions = inquire(answers, declared=False, capable=capable)
    presence = await _asked(questions, lambda method, params: ask(channel, method, params, timeout), timeout)
    return presence is not Presence.ABSENT


async def _asked(
    questions: Generator[Question, Message, T], ask: Callable[[str, Any], Awaitable[Message]], timeout: float | None
) -> T:
    """What comes of asking everything that somebody wants to know. Raises TimeoutError, and as ``ask`` does."""
    with anyio.fail_after(timeout):
        try:
            question = next(questions)
            while True:
                question = questions.send(await ask(*question))
        except StopIteration as end:
            found: T = end.value
            return found


async def ask(channel: Channel, method: str, params: Any, timeout: float | None) -> Message:
    """The environment's own answer. Raises TimeoutError, or whose failure it is that there is none."""
    answer = await channel.ask(method, params, timeout)
    if answer.kind is Kind.ERROR:
        raise_if_muxsims(answer)
    return answer


def fault_of(answer: Message) -> _Fault:
    """The error in an answer."""
    try:
        return msgspec.json.decode(answer.members["error"], type=_Fault)
    except (msgspec.DecodeError, RecursionError):
        return _Fault()


def is_muxsims(answer: Message) -> bool:
    """Whether an error is muxsim's own, and not its environment's: then its data names a cause."""
    return _cause_of(fault_of(answer)) is not None


def raise_if_muxsims(answer: Message) -> None:
    """Raise if an error is muxsim's own: whoever it is that has failed then."""
    fault = fault_of(answer)
    cause = _cause_of(fault)
    if cause is None:
        return
    if fault.code == _CALL_TIMEOUT:
        raise CallTimeout(fault.message)
    if fault.code == PARSE_ERROR:
        raise EnvironmentFailed(fault.message)
    if cause in _CRASHES:
        stderr = fault.data.get("stderr")
        lines = [str(line) for line in stderr] if isinstance(stderr, list) else []
        raise EnvironmentGone(fault.message, stderr=lines)
    raise MachineryFailed(fault.message)


def _cause_of(fault: _Fault) -> str | None:
    cause = fault.data.get("cause") if isinstance(fault.data, dict) else None
    return cause if fault.code in _OWN_CODES and isinstance(cause, str) else None
