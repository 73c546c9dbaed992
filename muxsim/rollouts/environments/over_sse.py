"""A session of a serving muxsim over SSE."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import anyio
import anyio.abc
import httpx2

from muxsim.errors import StartError
from muxsim.rollouts.environments.environment import MachineryFailed
from muxsim.rollouts.environments.wires import HEADERS, SessionURL, decoded, why
from muxsim.session.unattended import answer_to
from transports import messages
from transports.messages import Kind, Message
from transports.sse_codec import EventReader


class SSEChannel:
    """One event stream on a session's own URL, and the URL to post to."""

    def __init__(self, http: httpx2.AsyncClient, url: str, session: SessionURL) -> None:
        self._http = http
        self._url = url
        self._session = session
        self._endpoint = ""
        self._numbers = itertools.count(1)
        self._waiting: dict[messages.RequestId, tuple[anyio.Event, list[Message]]] = {}
        self._scope = anyio.CancelScope()
        self._ended: str | None = None

    async def listen(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Read the stream until the session ends."""
        try:
            with self._scope:
                async with self._http.stream("GET", self._url, headers={"accept": "text/event-stream"}) as response:
                    await self._read(response, task_status)
            self._ended = "the event stream has ended"
        except httpx2.HTTPError as error:
            self._ended = f"{self._url}: {why(error)}"
        for arrived, _ in self._waiting.values():
            arrived.set()
        if not self._endpoint:
            raise StartError(self._ended or "the event stream named no URL to post to")

    async def _read(self, response: httpx2.Response, task_status: anyio.abc.TaskStatus[None]) -> None:
        events = EventReader()
        async for data in response.aiter_bytes():
            for payload in events.receive_data(data):
                if not self._endpoint:
                    self._endpoint = _joined(self._url, payload.decode())
                    task_status.started()
                elif (message := decoded(payload)) is not None:
                    await self._take(message)

    async def _take(self, message: Message) -> None:
        if message.kind is Kind.REQUEST:
            with contextlib.suppress(MachineryFailed):  # of which the next call will hear
                await self._post(answer_to(message))
        elif message.is_answer and message.id is not None:
            self._arrived(message.id, message)

    def _arrived(self, id: messages.RequestId, message: Message) -> None:
        arrived, answers = self._waiting.pop(id, (None, []))
        if arrived is not None:
            answers.append(message)
            arrived.set()

    async def ask(self, method: str, params: Any, timeout: float | None) -> Message:
        number = next(self._numbers)
        arrived, answers = self._waiting[number] = (anyio.Event(), [])
        try:
            with anyio.fail_after(timeout):
                await self._post(messages.request(number, method, params))
                await arrived.wait()
        finally:
            self._waiting.pop(number, None)
        if not answers:
            raise await self._session.why_gone(self._ended or "the session has ended")
        return answers[0]

    async def notify(self, method: str) -> None:
        await self._post(messages.notification(method))

    async def finish(self) -> None:
        await self.close()

    async def close(self) -> None:
        if not self._scope.cancel_called:
            self._scope.cancel()
            await self._session.end()

    def last_words(self) -> tuple[str, ...]:
        return ()

    async def _post(self, message: Message) -> None:
        if self._ended is not None:
            raise await self._session.why_gone(self._ended)
        try:
            response = await self._http.post(self._endpoint, content=message.encode(), headers=HEADERS)
        except httpx2.HTTPError as error:
            raise MachineryFailed(f"{self._endpoint}: {why(error)}") from None
        if response.status_code == 404:
            raise await self._session.why_gone(f"{self._endpoint}: the session is not there any more")
        if response.status_code != 202:
            raise MachineryFailed(f"{self._endpoint}: HTTP status {response.status_code}")


def _joined(url: str, target: str) -> str:
    """Where to post to. Raises `StartError` for another server than the one that says so."""
    base = httpx2.URL(url)
    joined = base.join(target)
    if (joined.scheme, joined.host, joined.port) != (base.scheme, base.host, base.port):
        raise StartError(f"{url} names another server to post to: {joined.host}")
    return str(joined)
