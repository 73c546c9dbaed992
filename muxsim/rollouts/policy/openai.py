"""A policy that asks a model, over any API that speaks OpenAI's chat completions."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self
from urllib.parse import urlsplit

import anyio
from anyio import get_cancelled_exc_class
from anyio.lowlevel import RunVar

from muxsim.rollouts.data.trajectory import Usage
from muxsim.rollouts.policy.adaptive import AdaptiveLimit
from muxsim.rollouts.policy.completions import reply_of
from muxsim.rollouts.policy.failures import Cause, Failure
from muxsim.rollouts.policy.messages import request_messages, turn_of
from muxsim.rollouts.policy.playback import current_episode
from muxsim.rollouts.policy.protocol import Message, PolicyError, RateLimited, Reply, TokenLimit
from muxsim.rollouts.policy.retries import Retries, RetryRule
from muxsim.rollouts.policy.tools import WireTools

if TYPE_CHECKING:
    from muxsim.rollouts.policy.endpoint import Endpoint

_OPENAI_URL: Final = "https://api.openai.com/v1"
_BASE_URL_VARIABLE: Final = "OPENAI_BASE_URL"
# The client wants a key even for servers that do not.
_NO_KEY: Final = "none"
_SENT_IF_SET: Final = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "top_logprobs")
# The finish reason of a reply that the endpoint shows only in an error: Groq's word for it.
_BAD_TOOL_CALL: Final = "tool_use_failed"
# So many requests refused, and none answered: it is not the one row's doing.
_HOPELESS_AFTER: Final = 3
_HEADER_TEXT: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class PolicyStatistics:
    """``under_way`` calls of the ``allowed``, and those ``waiting`` for a slot; who waits to be retried is in none.

    ``answered`` calls gave a message, ``throttled`` ones were refused for the rate limit.
    """

    allowed: int
    under_way: int
    waiting: int
    answered: int = 0
    throttled: int = 0


@dataclass(eq=False)
class OpenAIPolicy:
    """Asks ``model`` for every message. Runs on trio and asyncio; close it with `aclose` or ``async with``.

    ``base_url`` is that of any OpenAI-compatible server; left out, it is ``OPENAI_BASE_URL`` or OpenAI's own.
    ``api_key`` left out is ``OPENAI_API_KEY``; only OpenAI's own server insists on one. A sampling parameter that is
    None is not sent, so that the server's default holds.

    * ``send_seed`` passes the episode's seed on, for servers that sample by it.
    * ``stream`` reads the answer in pieces, for proxies that cut silent connections.
    * ``logprobs``, ``top_logprobs`` and ``token_ids`` (vLLM's ``return_token_ids``) ask for what `Reply.tokens` keeps;
      what comes unasked is kept too.
    * ``max_tokens`` bounds a reply; OpenAI's newer models want ``max_completion_tokens`` in its place.
    * ``extra_body`` goes into every request as it is: ``{"top_k": 20}``.
    * ``max_images`` shows the model only so many images of the conversation, the last ones.
    * ``timeout`` is for one call, in seconds; ``retries`` says how often and how long failed calls are made again.
    * ``max_concurrent`` calls are under way at most, fewer after refusals (`AdaptiveLimit`).

    Raises `PolicyError` when the openai package or the key is missing.
    """

    model: str
    _: KW_ONLY
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    send_seed: bool = True
    parallel_tool_calls: bool | None = None
    stream: bool = False
    logprobs: bool = False
    top_logprobs: int | None = None
    token_ids: bool = False
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    max_images: int | None = None
    timeout: float | None = 300.0
    max_concurrent: int = 128
    retries: RetryRule = field(default_factory=RetryRule)

    KEY_VARIABLE: ClassVar = "OPENAI_API_KEY"
    KEYED_URL: ClassVar = _OPENAI_URL

    def __post_init__(self) -> None:
        if find_spec("openai") is None:
            raise PolicyError(f"the policy of {self.model} needs the openai package: pip install 'mcp-muxsim[openai]'")
        if self.max_concurrent < 1:
            raise PolicyError(f"max_concurrent must be at least 1, not {self.max_concurrent}")
        if not isinstance(self.retries, RetryRule):  # else the first call that fails would find out
            raise PolicyError(f"retries is a RetryRule, as in RetryRule(attempts=3), and not {self.retries!r:.80}")
        self.base_url = self.base_url or os.environ.get(_BASE_URL_VARIABLE) or self.KEYED_URL
        self.api_key = (self.api_key or os.environ.get(self.KEY_VARIABLE) or "").strip() or self._without_key()
        if not _HEADER_TEXT.fullmatch(self.api_key):  # what refuses it later would show it
            raise PolicyError(f"the key of {self.model} ({self.KEY_VARIABLE}) has characters that no key has")
        # What belongs to an event loop, for each loop that the policy is used on.
        self._line: RunVar[_Line | None] = RunVar("line", None)

    async def next_message(self, conversation: Sequence[Message], tools: Sequence[Message], seed: int) -> Reply:
        """The model's next message. Raises `RateLimited` when patience is over, `TokenLimit`, and `PolicyError`."""
        tries = _Tries(Retries(self.retries, random.random))
        try:
            return await self._asked(conversation, WireTools(tools), seed, tries)
        except get_cancelled_exc_class():
            if (episode := current_episode.get()) is not None:  # else nobody would know what was paid for
                episode.spent.add(tries.usage)
            raise

    async def _asked(self, conversation: Sequence[Message], wire: WireTools, seed: int, tries: _Tries) -> Reply:
        request = self._request(conversation, wire, seed)
        line = self._connected()
        while True:
            answer = await line.complete(request, self.timeout, tries)
            if not isinstance(answer, Failure):
                return tries.counted(_reply(answer, conversation, wire))
            tries.usage.add(answer.usage)
            if not line.answered:  # a call that is lost now and then is made again, but this one may be deaf
                tries.retries.waited += answer.silence
            delay = tries.retries.delay_after(answer)
            if delay is None:
                return self._given_up(answer, line, tries)
            tries.throttled += delay if answer.is_rate_limit else 0.0
            await anyio.sleep(delay)

    def statistics(self) -> PolicyStatistics:
        """A snapshot of the calls on this event loop."""
        line = self._line.get()
        if line is None:
            return PolicyStatistics(self.max_concurrent, 0, 0)
        slots = line.slots.statistics()
        return PolicyStatistics(
            line.limit.allowed, slots.borrowed_tokens, slots.tasks_waiting, line.answered, line.throttled
        )

    async def aclose(self) -> None:
        """Close the connections of this event loop. The next call makes new ones."""
        line = self._line.get()
        self._line.set(None)
        if line is not None:
            await line.endpoint.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def _without_key(self) -> str:
        if self.base_url != self.KEYED_URL:
            return _NO_KEY
        raise PolicyError(f"{self.model} needs a key: set {self.KEY_VARIABLE}, or base_url for a server without keys")

    def _connected(self) -> _Line:
        line = self._line.get()
        if line is None:
            # Here, since importing it takes most of a second, and whoever plays at random need not have it.
            from muxsim.rollouts.policy.endpoint import Endpoint  # noqa: PLC0415

            endpoint = Endpoint(self.base_url, self.api_key or _NO_KEY, self.headers)
            line = _Line(endpoint, AdaptiveLimit(self.max_concurrent))
            self._line.set(line)
        return line

    def _request(self, conversation: Sequence[Message], wire: WireTools, seed: int) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": request_messages(conversation, max_images=self.max_images, wire_name=wire.wire_name),
            **{name: getattr(self, name) for name in _SENT_IF_SET if getattr(self, name) is not None},
        }
        if wire.tools:
            request["tools"] = wire.tools
            # Refused by OpenAI where there are no tools.
            if self.parallel_tool_calls is not None:
                request["parallel_tool_calls"] = self.parallel_tool_calls
        if self.send_seed:
            request["seed"] = seed
        if self.logprobs:
            request["logprobs"] = True
        if self.stream:
            request |= {"stream": True, "stream_options": {"include_usage": True}}
        request["extra_body"] = {**({"return_token_ids": True} if self.token_ids else {}), **self.extra_body}
        return request

    def _given_up(self, failure: Failure, line: _Line, tries: _Tries) -> Reply:
        """What becomes of a message that no call gave. What the model itself wrote is a reply, if a bad one."""
        if failure.cause is Cause.TOOL_CALL:
            return tries.counted(Reply({"role": "assistant", "content": failure.written}, finish_reason=_BAD_TOOL_CALL))
        status = f"{failure.status}: " if failure.status is not None else ""
        text = f"{self._named()}: {status}{failure.message}"
        if failure.cause is Cause.NO_ENTRY or (failure.status is None and not failure.passing):
            text += f" (asked at {_without_credentials(self.base_url or '').rstrip('/')}/chat/completions)"
        if failure.passing:
            text += f" (gave up after {self._patience_spent(failure, tries.retries)})"
        kind = {Cause.RATE_LIMIT: RateLimited, Cause.OVERFLOW: TokenLimit}.get(failure.cause, PolicyError)
        raise kind(text, ends_run=line.is_hopeless(failure), usage=tries.usage, throttled=tries.throttled)

    def _patience_spent(self, failure: Failure, retries: Retries) -> str:
        """What has been tried, or that the endpoint asks for a wait that is longer than the patience."""
        calls = f"{retries.calls} call{'' if retries.calls == 1 else 's'}"
        asked = failure.retry_after or 0.0
        if asked > self.retries.patience:
            return f"{calls}: it asks to wait {asked:.0f} s, and the patience is {self.retries.patience:g} s"
        return f"{calls} and {retries.waited:.1f} s of waiting"

    def _named(self) -> str:
        return f"model {self.model!r} at {_without_credentials(self.base_url or '')}"


@dataclass(eq=False)
class _Line:
    """The way to the endpoint: so many calls at a time as it takes, and no queue behind."""

    endpoint: Endpoint
    limit: AdaptiveLimit
    slots: anyio.CapacityLimiter = field(init=False)
    answered: int = 0
    throttled: int = 0
    _turned_away: int = 0

    def __post_init__(self) -> None:
        self.slots = anyio.CapacityLimiter(self.limit.allowed)

    async def complete(self, request: dict[str, Any], timeout: float | None, tries: _Tries) -> dict[str, Any] | Failure:
        """Make one call when there is a slot. Nothing holds one while it waits to be retried."""
        asked = anyio.current_time()
        fewer = self.limit.allowed < self.limit.maximum
        async with self.slots:
            started = anyio.current_time()
            tries.throttled += started - asked if fewer else 0.0
            answer = await self.endpoint.complete(request, timeout)
        if not isinstance(answer, Failure):
            self.answered += 1
            self.limit.succeeded(started)
        elif answer.is_rate_limit:
            self.throttled += 1
            self.limit.refused(started, anyio.current_time())
        self.slots.total_tokens = self.limit.allowed
        return answer

    def is_hopeless(self, failure: Failure) -> bool:
        """Whether no call will be answered any more, after one that was given up.

        An endpoint that has answered before refuses a request, or is down for a while; but without an account nothing
        can be had of it.
        """
        if failure.cause is Cause.NO_ACCOUNT:
            return True
        self._turned_away += 1
        of_request = failure.cause in {Cause.REQUEST, Cause.OVERFLOW}
        return not self.answered and (not of_request or self._turned_away >= _HOPELESS_AFTER)


@dataclass
class _Tries:
    """What the calls for one message have come to."""

    retries: Retries
    usage: Usage = field(default_factory=Usage)
    throttled: float = 0.0

    def counted(self, reply: Reply) -> Reply:
        """The reply, with what the calls before it have cost."""
        self.usage.add(reply.usage)
        return replace(reply, usage=self.usage, throttled=self.throttled)


def _reply(completion: dict[str, Any], conversation: Sequence[Message], wire: WireTools) -> Reply:
    """The reply in a completion, with the environment's own names for its tools."""
    taken = {call.get("id") for message in conversation for call in message.get("tool_calls") or ()}
    reply = reply_of(completion, turn_of(conversation), taken)
    for call in reply.message.get("tool_calls") or ():
        call["function"]["name"] = wire.own_name(call["function"]["name"])
    return reply


def _without_credentials(url: str) -> str:
    """A URL that may be shown: a name and password in it are for the server alone."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
