"""The one place that speaks to the openai package, and where its exceptions become failures."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from typing import Any, Final

import anyio
import httpx2
import msgspec
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, OpenAIError

from muxsim.rollouts.policy.completions import StreamedCompletion
from muxsim.rollouts.policy.retries import Failure, is_passing, retry_after
from transports.sse_codec import EventReader

# Enough to tell what is wrong, and no page of HTML from a proxy.
_LONGEST_MESSAGE: Final = 300
# OpenAI's codes for 429s that no waiting cures.
_SPENT: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_EVENT_STREAM: Final = "text/event-stream"
_LAST_EVENT: Final = b"[DONE]"
# Seconds that a stream gets to end after its last event, so that its connection can be used again.
_LINGER: Final = 0.5
# What reading a body raises, where the package has not translated it; SSL's and AnyIO's own slip through httpx2.
_BROKEN: Final = (httpx2.HTTPError, ssl.SSLError, anyio.EndOfStream)


class Endpoint:
    """A server of chat completions. Belongs to the event loop that it was first used on."""

    def __init__(self, base_url: str | None, api_key: str, headers: Mapping[str, str]) -> None:
        # Retries and deadlines are the policy's: the client's own would keep a slot while they wait.
        self._client = AsyncOpenAI(
            base_url=base_url, api_key=api_key, default_headers=headers, max_retries=0, timeout=None
        )

    async def complete(self, request: dict[str, Any], timeout: float | None) -> dict[str, Any] | Failure:
        """Ask for one chat completion, as JSON; ``timeout`` seconds are for all of it."""
        try:
            with anyio.move_on_after(timeout):
                return await self._completion(request)
        except OpenAIError as error:
            return _failure_of(error)
        except _BROKEN as error:
            return Failure(_shortened(f"the answer broke off: {error}"))
        return Failure(f"no answer within {timeout:g} s")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _completion(self, request: dict[str, Any]) -> dict[str, Any] | Failure:
        create: Any = self._client.chat.completions.with_streaming_response.create  # overloaded for literal arguments
        # The body is read here: the package's own stream leaves its generators to the garbage collector, which trio
        # warns of, and its models would have to be made into JSON again.
        async with create(**request) as response:
            # Some servers stream nothing, whatever they are asked.
            if not response.headers.get("content-type", "").startswith(_EVENT_STREAM):
                return _decoded(await response.read())
            return await _read_stream(response)


async def _read_stream(response: Any) -> dict[str, Any] | Failure:
    """Reads to the end even where that is known before: a generator that is left half-way is never closed."""
    reader, whole = EventReader(), StreamedCompletion()
    failure: Failure | None = None
    with anyio.CancelScope() as scope:
        async for data in response.iter_bytes():
            for event in reader.receive_data(data):
                if event == _LAST_EVENT:
                    scope.deadline = anyio.current_time() + _LINGER
                elif failure is None:
                    failure = _take_in(event, whole)
    if failure is None and not whole.is_complete:
        return Failure("the answer broke off")
    return failure or whole.completion()


def _take_in(event: bytes, whole: StreamedCompletion) -> Failure | None:
    chunk = _decoded(event)
    if isinstance(chunk, Failure):
        return chunk
    error = chunk.get("error")
    if not error:
        whole.add(chunk)
        return None
    # An error in the middle of a stream, whose status was 200: the true one is inside, if anywhere.
    code = str(error.get("code")) if isinstance(error, dict) else ""
    status = int(code) if code.isdecimal() else None
    return Failure(_shortened(_message_of(error)), status, passing=status is None or is_passing(status, {}))


def _decoded(text: bytes) -> dict[str, Any] | Failure:
    try:
        decoded = msgspec.json.decode(text)
    except ValueError:
        decoded = None
    if isinstance(decoded, dict):
        return decoded
    return Failure(_shortened(f"the answer is no chat completion: {text[:_LONGEST_MESSAGE]!r}"), passing=False)


def _failure_of(error: OpenAIError) -> Failure:
    if isinstance(error, APIStatusError):
        headers = error.response.headers
        passing = is_passing(error.status_code, headers) and error.code not in _SPENT
        message = _shortened(_message_of(error.body) or error.response.reason_phrase)
        return Failure(message, error.status_code, retry_after(headers, time.time()), passing)
    if isinstance(error, APIConnectionError):
        return Failure(_shortened(f"no connection: {error.__cause__ or error}"))
    return Failure(_shortened(str(error)), passing=False)


def _message_of(body: object) -> str:
    """The text of an error's body, in one of the forms that servers have for it."""
    while isinstance(body, dict):
        body = next((body[key] for key in ("message", "detail", "error", "errors") if body.get(key)), None)
    return str(body or "")


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_MESSAGE else f"{line[:_LONGEST_MESSAGE]}…"
