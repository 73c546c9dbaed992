"""The one place that speaks to the openai package, and where its exceptions become failures."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import anyio
import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, OpenAIError

from muxsim.rollouts.policy import json_text
from muxsim.rollouts.policy.completions import StreamedCompletion, failure_in
from muxsim.rollouts.policy.failures import Failure, failure_of, shortened
from transports.sse_codec import EventReader

# Of an answer that cannot be read.
_SHOWN: Final = 300
_EVENT_STREAM: Final = "text/event-stream"
# With which a stream begins whose server calls it something else.
_EVENT_FIELDS: Final = (b"data:", b"event:", b": ")
_LAST_EVENT: Final = b"[DONE]"
_BROKE_OFF: Final = "the answer broke off"
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
        stream = _Stream()
        try:
            with anyio.move_on_after(timeout):
                return await self._completion(request, stream)
        except OpenAIError as error:
            failure = _failure_of(error)
        except _BROKEN as error:
            failure = Failure(shortened(f"{_BROKE_OFF}: {error}"))
        else:
            failure = Failure(f"no answer within {timeout:g} s", silence=timeout or 0.0)
        return stream.failed(failure)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _completion(self, request: dict[str, Any], stream: _Stream) -> dict[str, Any] | Failure:
        create: Any = self._client.chat.completions.with_streaming_response.create  # overloaded for literal arguments
        # The body is read here: the package's own stream leaves its generators to the garbage collector, which trio
        # warns of, and its models would have to be made into JSON again.
        async with create(**request) as response:
            # Some servers stream nothing, whatever they are asked.
            if response.headers.get("content-type", "").startswith(_EVENT_STREAM):
                await _read_stream(response, stream)
                return stream.completion()
            body = await response.read()
            if not body.lstrip().startswith(_EVENT_FIELDS):
                return _sound(body)
            stream.take(body + b"\n\n")  # a stream that came as something else
            return stream.completion()


async def _read_stream(response: Any, stream: _Stream) -> None:
    """Reads to the end even where that is known before: a generator that is left half-way is never closed."""
    with anyio.CancelScope() as scope:
        async for data in response.iter_bytes():
            stream.take(data)
            if stream.is_over:
                scope.deadline = min(scope.deadline, anyio.current_time() + _LINGER)


class _Stream:
    """The events of a stream, as one completion."""

    def __init__(self) -> None:
        self.is_over = False
        self._reader = EventReader()
        self._whole = StreamedCompletion()
        self._begun = False
        self._failure: Failure | None = None

    def take(self, data: bytes) -> None:
        """Take in the next bytes; behind a failure nothing counts but what it has cost."""
        for event in self._reader.receive_data(data):
            if event.strip() == _LAST_EVENT:
                self.is_over = True
                self._whole.end()
                continue
            failure = self._fault_of(_decoded(event, json_text.decoded_piece))
            self._failure = self._failure or failure
            self._begun = True

    def completion(self) -> dict[str, Any] | Failure:
        """What has come: whole, or why not."""
        if self._failure is None and not self._whole.is_complete:
            self._failure = Failure(_BROKE_OFF)
        completion = self._whole.completion()
        failure = self._failure or failure_in(completion)
        return self.failed(failure) if failure else completion

    def failed(self, failure: Failure) -> Failure:
        """The failure that this stream came to, with what it has cost: some tell the tokens with each piece."""
        return failure if failure.usage.total_tokens else replace(failure, usage=self._whole.usage)

    def _fault_of(self, chunk: Any) -> Failure | None:
        """Take in a chunk. One that is none behind others was cut: a server of something else begins with it."""
        if isinstance(chunk, dict):
            return self._whole.add(chunk)
        failure = failure_in(json_text.mended(chunk))
        return Failure(shortened(f"{_BROKE_OFF}: {chunk}")) if self._begun and isinstance(chunk, str) else failure


def _sound(body: bytes) -> dict[str, Any] | Failure:
    """An answer, unless something is wrong with it."""
    answer = _decoded(body, json_text.decoded)
    return failure_in(answer) or answer


def _decoded(text: bytes, decode: Callable[[bytes], Any]) -> Any:
    """JSON, or the beginning of a text that is none."""
    try:
        return decode(text)
    except ValueError:
        return text[:_SHOWN].decode("utf-8", "replace")


def _failure_of(error: OpenAIError) -> Failure:
    if isinstance(error, APIStatusError):
        response = error.response
        body = json_text.mended(error.body) or response.reason_phrase
        return failure_of(body, error.status_code, response.headers, time.time())
    if isinstance(error, APIConnectionError):
        return Failure(shortened(f"no connection: {error.__cause__ or error}"))
    return Failure(shortened(str(error)), passing=False)
