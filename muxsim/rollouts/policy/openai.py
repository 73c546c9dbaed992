"""A policy that asks a model, over any API that speaks OpenAI's chat completions."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self
from urllib.parse import urlsplit

import anyio
from anyio.lowlevel import RunVar

from muxsim.rollouts.policy.adaptive import AdaptiveLimit
from muxsim.rollouts.policy.completions import NoCompletion, reply_of
from muxsim.rollouts.policy.messages import request_messages, turn_of
from muxsim.rollouts.policy.protocol import Message, PolicyError, RateLimited, Reply
from muxsim.rollouts.policy.retries import Failure, Retries, RetryRule

if TYPE_CHECKING:
    from muxsim.rollouts.policy.endpoint import Endpoint

_OPENAI_URL: Final = "https://api.openai.com/v1"
_BASE_URL_VARIABLE: Final = "OPENAI_BASE_URL"
# The client wants a key even for servers that do not.
_NO_KEY: Final = "none"
_SENT_IF_SET: Final = ("temperature", "top_p", "max_tokens", "top_logprobs")


@dataclass(frozen=True)
class PolicyStatistics:
    """``under_way`` calls of the ``allowed``, and those ``waiting`` for a slot; who waits to be retried is in none."""

    allowed: int
    under_way: int
    waiting: int


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
    * ``extra_body`` goes into every request as it is: ``{"max_completion_tokens": 500}``.
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
        self.base_url = self.base_url or os.environ.get(_BASE_URL_VARIABLE) or self.KEYED_URL
        self.api_key = self.api_key or os.environ.get(self.KEY_VARIABLE) or self._without_key()
        # What belongs to an event loop, for each loop that the policy is used on.
        self._line: RunVar[_Line | None] = RunVar("line", None)

    async def next_message(self, conversation: Sequence[Message], tools: Sequence[Message], seed: int) -> Reply:
        """The model's next message. Raises `RateLimited` when patience is over, and `PolicyError`."""
        request = self._request(conversation, tools, seed)
        line = self._connected()
        retries = Retries(self.retries, random.random)
        while True:
            answer = await line.complete(request, self.timeout)
            if not isinstance(answer, Failure):
                return self._reply(answer, turn_of(conversation))
            delay = retries.delay_after(answer)
            if delay is None:
                raise self._error(answer, retries)
            await anyio.sleep(delay)

    def statistics(self) -> PolicyStatistics:
        """A snapshot of the calls on this event loop."""
        line = self._line.get()
        if line is None:
            return PolicyStatistics(self.max_concurrent, 0, 0)
        slots = line.slots.statistics()
        return PolicyStatistics(line.limit.allowed, slots.borrowed_tokens, slots.tasks_waiting)

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

    def _request(self, conversation: Sequence[Message], tools: Sequence[Message], seed: int) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": request_messages(conversation, max_images=self.max_images),
            **{name: getattr(self, name) for name in _SENT_IF_SET if getattr(self, name) is not None},
        }
        if tools:
            request["tools"] = list(tools)
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

    def _reply(self, completion: dict[str, Any], turn: int) -> Reply:
        try:
            return reply_of(completion, turn)
        except NoCompletion as error:
            raise PolicyError(f"{self._named()}: {error}") from None

    def _error(self, failure: Failure, retries: Retries) -> PolicyError:
        status = f"{failure.status}: " if failure.status is not None else ""
        text = f"{self._named()}: {status}{failure.message}"
        if not failure.passing:
            return PolicyError(text)
        text += f" (gave up after {retries.calls} calls and {retries.waited:.1f} s of waiting)"
        return RateLimited(text) if failure.is_rate_limit else PolicyError(text)

    def _named(self) -> str:
        return f"model {self.model!r} at {_without_credentials(self.base_url or '')}"


@dataclass(eq=False)
class _Line:
    """The way to the endpoint: so many calls at a time as it takes, and no queue behind."""

    endpoint: Endpoint
    limit: AdaptiveLimit
    slots: anyio.CapacityLimiter = field(init=False)

    def __post_init__(self) -> None:
        self.slots = anyio.CapacityLimiter(self.limit.allowed)

    async def complete(self, request: dict[str, Any], timeout: float | None) -> dict[str, Any] | Failure:
        """Make one call when there is a slot. Nothing holds one while it waits to be retried."""
        async with self.slots:
            started = anyio.current_time()
            answer = await self.endpoint.complete(request, timeout)
        if not isinstance(answer, Failure):
            self.limit.succeeded(started)
        elif answer.is_rate_limit:
            self.limit.refused(started, anyio.current_time())
        self.slots.total_tokens = self.limit.allowed
        return answer


def _without_credentials(url: str) -> str:
    """A URL that may be shown: a name and password in it are for the server alone."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
