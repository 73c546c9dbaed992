"""Asks a policy in the form in which it wants to be asked, for one episode at a time, or for all of them at once."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final

import anyio

from muxsim.compat.reward_kit.outcomes import observation_of, old_messages, reward_of
from muxsim.compat.reward_kit.policies import NO_CALL, TAPE_OVER, LLMBasePolicy, PlaybackPolicyBase
from muxsim.compat.reward_kit.records import MCPToolCall
from muxsim.compat.reward_kit.tape import reply_in
from muxsim.rollouts.data.trajectory import Step, Trajectory, Usage
from muxsim.rollouts.policy.messages import call_id, turn_of
from muxsim.rollouts.policy.playback import current_episode
from muxsim.rollouts.policy.protocol import Message, PolicyError, Reply

# The view of an environment that never began.
_NOTHING: Final[tuple[Any, Any, str, Any]] = ([], None, "", "")
_CALL = "_make_llm_call"
_LIVE = "_generate_live_tool_calls"
_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens")


class Form(Enum):
    """In which form a policy is asked."""

    OURS = "next_message(conversation, tools, seed)"
    MODEL = "_make_llm_call(messages, tools)"
    EACH = "(tool_schemas, env_index, conversation_history)"
    ALL = "(tool_schemas, observations, system_prompts, user_prompts)"


class TapeOver(PolicyError):
    """The recording has no more turns of this episode, which ends with it."""


def form_of(policy: Any) -> Form:
    """The form in which a policy wants to be asked. Raises TypeError: it has none."""
    if hasattr(policy, "next_message"):
        return Form.OURS
    is_base = isinstance(policy, PlaybackPolicyBase) and type(policy).__call__ is PlaybackPolicyBase.__call__
    if is_base and isinstance(policy, LLMBasePolicy) and getattr(type(policy), _LIVE) is getattr(LLMBasePolicy, _LIVE):
        return Form.MODEL
    asked = getattr(policy, _LIVE) if is_base else policy
    if callable(asked):
        for form, count in ((Form.EACH, 3), (Form.ALL, 4)):
            if _takes(asked, count):
                return form
    raise TypeError(f"{policy!r:.80} is no policy: it takes neither {Form.EACH.value} nor {Form.ALL.value}")


class Asker:
    """A policy of muxsim's that asks one of reward-kit's, and tells it what has become of its calls."""

    def __init__(self, policy: Any, count: int, prompt: Callable[[int, Any], Any]) -> None:
        """``count`` environments; ``prompt`` makes a user prompt of an environment's observation."""
        self.form = form_of(policy)
        self.tape_over: set[int] = set()
        self._policy = policy
        self._prompt = prompt
        self._seen: dict[int, Any] = {}
        self._together = _Together(policy, count)
        self._tell = _own(policy, "add_tool_response")
        self._write = _own(policy, "log_conversation_state_for_playback")

    @property
    def writes_itself(self) -> bool:
        """Whether the policy writes its own recording."""
        return self._write is not None

    def begin(self, env_index: int, observation: Any) -> None:
        """An episode begins with this observation."""
        self._seen[env_index] = observation

    async def next_message(self, conversation: Sequence[Message], tools: Sequence[Message], seed: int) -> Reply:
        """What the policy says next. Raises `PolicyError`, and what the policy raises."""
        at = _index()
        policy, history = self._policy, list(conversation)
        if self.form is Form.OURS:
            reply: Reply = await policy.next_message(conversation, tools, seed)
            return reply
        self._remember(at, history)
        if isinstance(policy, PlaybackPolicyBase) and policy.is_playback_mode():
            return self._from_tape(at, policy)
        schemas = [_schema(tool) for tool in tools]
        if self.form is Form.MODEL:
            return _reply_of(await policy._ask(history, schemas), policy.max_tools_per_turn)
        if self.form is Form.EACH:
            return await self._ask_for_one(at, schemas, history)
        system = next((message["content"] for message in history if message["role"] == "system"), "")
        prompt = self._prompt(at, self._seen.get(at))
        call = await self._together.ask(at, (schemas, self._seen.get(at), system, prompt))
        said = _last_of(getattr(policy, "conversation_histories", {}).get(at, ()))
        return self._reply(at, [call], said, turn_of(history))

    def stepped(self, at: int, trajectory: Trajectory, *, recording: bool) -> None:
        """Tell the policy, if it wants to know, and have it write its own recording, if it does."""
        step = trajectory.steps[-1]
        self._seen[at] = observation_of(step.content, step.structured)
        history = old_messages(trajectory)
        self._remember(at, history)
        if self._tell is not None:
            self._tell_response(at, step, history)
        if recording and self._write is not None:
            self._write(at, step.index, *([history] if _takes(self._write, 3) else []))

    def ended(self, at: int, trajectory: Trajectory) -> None:
        """No longer wait for it."""
        self._remember(at, old_messages(trajectory))
        seen = self._seen.get(at)
        prompt = self._prompt(at, seen) if self.form is Form.ALL and seen is not None else ""
        self._together.over(at, seen, prompt)

    def _remember(self, at: int, history: list[Message]) -> None:
        """A policy's own list of what was said, where it does not keep it itself."""
        if isinstance(self._policy, PlaybackPolicyBase) and (self.form is Form.MODEL or self._policy._is_playback):
            self._policy.conversation_histories[at] = history

    def _tell_response(self, at: int, step: Step, history: list[Message]) -> None:
        assert self._tell is not None
        call = MCPToolCall(step.tool, step.arguments, step.call_id)
        response = next(message["content"] for message in reversed(history) if message["role"] == "tool")
        control = step.control
        done = control is not None and (control.terminated or control.truncated)
        told = (reward_of(step), done, {} if control is None else {"control_plane": control.as_metadata()})
        newer = "conversation_history" in inspect.signature(self._tell).parameters
        self._tell(at, call, response, *([history[:-1]] if newer else []), *told)

    def _from_tape(self, at: int, policy: PlaybackPolicyBase) -> Reply:
        messages = policy._get_playback_messages(at)
        if messages is None:
            self.tape_over.add(at)
            raise TapeOver("the recording has no more")
        reply = reply_in(messages)
        if reply is None:
            raise PolicyError(f"the recording of environment {at} has a turn without a message of the assistant's")
        return Reply(_message(reply))

    async def _ask_for_one(self, at: int, schemas: list[dict[str, Any]], history: list[Message]) -> Reply:
        own = list(history)  # which the policy may add its message to
        answer = self._policy(schemas, at, own)
        answer = await answer if inspect.isawaitable(answer) else answer
        calls, usage, finish = answer if isinstance(answer, tuple) else (answer, None, None)
        calls = [calls] if isinstance(calls, MCPToolCall) or hasattr(calls, "tool_name") else list(calls)
        reply = self._reply(at, calls, _last_of(own[len(history) :]), turn_of(history))
        return Reply(reply.message, _usage(usage), finish_reason=finish)

    def _reply(self, at: int, calls: list[Any], said: Message | None, turn: int) -> Reply:
        """The message with these calls: the policy's own, where it has written one with them."""
        names = [call.tool_name for call in calls]
        if TAPE_OVER in names:
            self.tape_over.add(at)
            raise TapeOver("the recording has no more")
        if not names or NO_CALL in names:
            return Reply(_message({"role": "assistant", "content": (said or {}).get("content")}))
        written = [call["function"]["name"] for call in (said or {}).get("tool_calls") or ()]
        if said is not None and written == names:
            return Reply(_message(said))
        made = [
            {
                "id": call.tool_call_id or call_id(turn, number),
                "type": "function",
                "function": {"name": call.tool_name, "arguments": json.dumps(call.arguments)},
            }
            for number, call in enumerate(calls)
        ]
        return Reply({"role": "assistant", "content": (said or {}).get("content"), "tool_calls": made})


class _Together:
    """Asks a policy for all environments at once, when each that is still played waits for it.

    Its lists have an entry for each environment, also for those that are over, whose calls nobody makes.
    """

    def __init__(self, policy: Any, count: int) -> None:
        self._policy = policy
        self._count = count
        self._views: dict[int, tuple[Any, Any, str, Any]] = {}
        self._waiting: dict[int, anyio.Event] = {}
        self._over: set[int] = set()
        self._calls: dict[int, Any] = {}
        self._fault: Exception | None = None

    async def ask(self, at: int, view: tuple[Any, Any, str, Any]) -> Any:
        """The call for one of them. Raises what the policy raises."""
        self._views[at] = view
        turn = self._waiting[at] = anyio.Event()
        if not self._is_complete():
            await turn.wait()
        if at in self._waiting:  # nobody has asked yet
            await self._decide()
        if self._fault is not None:
            raise self._fault
        return self._calls.pop(at)

    def over(self, at: int, observation: Any, prompt: Any) -> None:
        """No more is asked for it; these are the last that there are of it."""
        schemas, _, system, _ = self._views.get(at, _NOTHING)
        self._views[at] = (schemas, observation, system, prompt)
        self._over.add(at)
        self._waiting.pop(at, None)
        if self._waiting and self._is_complete():
            next(iter(self._waiting.values())).set()

    def _is_complete(self) -> bool:
        return len(self._waiting) + len(self._over) == self._count

    async def _decide(self) -> None:
        waiting, self._waiting = self._waiting, {}
        views = [self._views.get(at, _NOTHING) for at in range(self._count)]
        try:
            calls = self._policy(*map(list, zip(*views, strict=True)))
            calls = await calls if inspect.isawaitable(calls) else calls
            if len(calls) != self._count:
                raise PolicyError(f"the policy was asked for {self._count} calls and gave {len(calls)}")
            self._calls = {at: calls[at] for at in waiting}
        except Exception as error:
            self._fault = error
            raise
        finally:
            for turn in waiting.values():
                turn.set()


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    return True


def _index() -> int:
    episode = current_episode.get()
    assert episode is not None  # a rollout is what asks
    return episode.index


def _schema(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    return {"name": function["name"], "description": function["description"], "input_schema": function["parameters"]}


def _last_of(messages: Sequence[Message]) -> Message | None:
    return messages[-1] if messages and messages[-1].get("role") == "assistant" else None


def _reply_of(response: Any, most: int | None) -> Reply:
    """The reply in what `_make_llm_call` has returned; of more calls than ``most`` the first ones."""
    try:
        choice = response["choices"][0]
        message = {"role": "assistant", **{key: one for key, one in choice["message"].items() if one is not None}}
    except (TypeError, KeyError, IndexError, AttributeError):
        form = '{"choices": [{"message": {"content": …, "tool_calls": […]}}]}'
        raise PolicyError(f"{_CALL} has to return {form}, not {response!r:.80}") from None
    if most and message.get("tool_calls"):
        message["tool_calls"] = message["tool_calls"][:most]
    return Reply(_message(message), _usage(response.get("usage")), finish_reason=choice.get("finish_reason"))


def _message(message: Mapping[str, Any]) -> Message:
    """A reply as chats have it: with a content, and with calls only where there are any."""
    kept = {key: value for key, value in message.items() if key != "metadata"}
    if not kept.get("tool_calls"):
        kept.pop("tool_calls", None)
    return {"content": None, **kept, "role": "assistant"}


def _usage(given: Any) -> Usage:
    """Tokens, in a dict or an object as OpenAI's package has them."""
    said = given if isinstance(given, Mapping) else {name: getattr(given, name, None) for name in _USAGE}
    return Usage(**{name: count for name in _USAGE if isinstance(count := said.get(name), int)})


def _own(policy: Any, name: str) -> Callable[..., Any] | None:
    """A method that a policy has of its user's; None for that of the base class."""
    method = getattr(policy, name, None)
    return None if getattr(type(policy), name, None) is getattr(LLMBasePolicy, name) else method
