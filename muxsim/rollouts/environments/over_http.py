"""A session of a serving muxsim over streamable HTTP."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import anyio
import anyio.abc
import httpx2

from muxsim.rollouts.environments.environment import MachineryFailed
from muxsim.rollouts.environments.http_connection import Answer, Headers, HTTPBroken, HTTPConnections
from muxsim.rollouts.environments.mcp_environment import PROTOCOL_VERSION, fault_of, is_muxsims
from muxsim.rollouts.environments.wires import CONNECT_TIMEOUT, HEADERS, REFUSALS, SessionURL, decoded, delete, why
from muxsim.session.unattended import answer_to
from transports import messages
from transports.messages import Kind, Message
from transports.sse_codec import EventReader

_SESSION_HEADER: Final = "mcp-session-id"
# How often one message is sent while muxsim says that it takes none just now, and the longest wait in between.
_MOST_TRIES: Final = 10
_LONGEST_WAIT: Final = 30.0
_BUSY: Final = frozenset({429, 503})


class _NotTaken(Exception):
    """muxsim took no notice of a message, which may be sent again in ``retry_after`` seconds."""

    def __init__(self, failure: MachineryFailed, retry_after: float) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.retry_after = retry_after


class HTTPChannel:
    """One Mcp-Session-Id on a session's own URL."""

    def __init__(
        self, http: httpx2.AsyncClient, tasks: anyio.abc.TaskGroup, url: str, session: SessionURL, socket: str = ""
    ) -> None:
        self._http = http
        self._tasks = tasks
        self._url = url
        self._session = session
        self._target = httpx2.URL(url).raw_path.decode("ascii")
        self._exchanges = _exchanges(http, url, socket)
        # What the client sends with everything, a token for one, goes with each message too.
        self._headers = Headers({**http.headers, **HEADERS})
        self._numbers = itertools.count(1)
        self._listening = anyio.CancelScope()
        self._closed = False

    async def ask(self, method: str, params: Any, timeout: float | None) -> Message:
        request = messages.request(next(self._numbers), method, params)
        answer = await self._post_until_taken(request, timeout)
        assert answer is not None
        return answer

    async def notify(self, method: str) -> None:
        # What the server asks outside of a call comes on a stream of its own; it may begin with it now.
        self._tasks.start_soon(self._listen)
        await self._post_until_taken(messages.notification(method), None)

    async def finish(self) -> None:
        await self.close()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._listening.cancel()
        await self._exchanges.aclose()
        await self._session.end()
        if self._session.shared and _SESSION_HEADER in self._headers.fields:
            await delete(self._http, self._url, {_SESSION_HEADER: self._headers.fields[_SESSION_HEADER]})

    def last_words(self) -> tuple[str, ...]:
        return ()

    async def _post_until_taken(self, message: Message, timeout: float | None) -> Message | None:
        """The answer to a message. It is sent again only where nobody can have acted on it."""
        refused: MachineryFailed | None = None
        try:
            with anyio.fail_after(timeout):
                for _ in range(_MOST_TRIES):
                    try:
                        return await self._post(message)
                    except _NotTaken as busy:
                        refused = busy.failure
                        await anyio.sleep(busy.retry_after)
                        refused = None
                raise MachineryFailed(f"{self._url} took none of {_MOST_TRIES} tries")
        except TimeoutError:
            if refused is not None:
                raise refused from None
            raise

    async def _post(self, message: Message) -> Message | None:
        try:
            answer = await self._exchanges.exchange("POST", self._target, self._headers, message.encode())
            try:
                return await self._read(answer, message)
            finally:
                await answer.aclose()
        except HTTPBroken as error:
            raise MachineryFailed(f"{self._url}: {error}") from None

    async def _read(self, answer: Answer, message: Message) -> Message | None:
        """The answer to a request; None for what gets none. Nothing but a good status brings an environment's word."""
        if answer.status == 404:
            raise await self._session.why_gone(f"{self._url}: the session is not there any more")
        if answer.status not in (200, 202):
            raise _not_answered(self._url, answer, decoded(await answer.read()))
        session_id = answer.headers.get(_SESSION_HEADER)
        if session_id is not None and _SESSION_HEADER not in self._headers.fields:
            known = {_SESSION_HEADER: session_id, "mcp-protocol-version": PROTOCOL_VERSION}
            self._headers = Headers({**self._headers.fields, **known})
        if message.kind is not Kind.REQUEST:
            return None
        if _is_event_stream(answer):
            return await self._read_events(answer, message)
        found = decoded(await answer.read())
        if found is None or not found.is_answer or found.id != message.id:
            raise MachineryFailed(f"{self._url}: HTTP status {answer.status}, and no answer to the message")
        return found

    async def _read_events(self, answer: Answer, message: Message) -> Message:
        async for found in _messages_of(answer):
            if found.is_answer and found.id == message.id:
                return found
            await self._oblige(found)
        raise await self._session.why_gone(f"{self._url}: the event stream ended before the answer")

    async def _listen(self) -> None:
        """Answer what the server asks outside of a call. Where there is no such stream, nothing is asked on it."""
        try:
            with self._listening:
                answer = await self._exchanges.exchange("GET", self._target, self._headers, b"")
                try:
                    if answer.status == 200 and _is_event_stream(answer):
                        async for found in _messages_of(answer):
                            await self._oblige(found)
                finally:
                    with anyio.CancelScope(shield=True):
                        await answer.aclose()
        except (HTTPBroken, MachineryFailed):
            return  # whoever makes the next call will hear of it

    async def _oblige(self, message: Message) -> None:
        if message.kind is Kind.REQUEST:
            await self._post_until_taken(answer_to(message), None)


def _not_answered(url: str, answer: Answer, body: Message | None) -> Exception:
    """What a status means that no answer of an environment has."""
    if answer.status in REFUSALS:
        return MachineryFailed(f"{url} refuses the token: HTTP status {answer.status}")
    said = f": {fault_of(body).message}" if body is not None and body.kind is Kind.ERROR else ""
    failure = MachineryFailed(f"{url}: HTTP status {answer.status}{said}")
    wait = _seconds(answer.headers.get("retry-after"))
    # Of a proxy's nobody knows whether the message had gone through.
    if answer.status in _BUSY and wait is not None and body is not None and is_muxsims(body):
        return _NotTaken(failure, wait)
    return failure


def _seconds(text: str | None) -> float | None:
    return min(float(text), _LONGEST_WAIT) if text is not None and text.isascii() and text.isdecimal() else None


def _is_event_stream(answer: Answer) -> bool:
    return answer.headers.get("content-type", "").startswith("text/event-stream")


async def _messages_of(answer: Answer) -> AsyncGenerator[Message, None]:
    """The messages of an event stream; others, which carry only an id, are left out."""
    events = EventReader()
    while data := await answer.part():
        for payload in events.receive_data(data):
            if (found := decoded(payload)) is not None:
                yield found


class _ByClient:
    """Exchanges by way of httpx, which knows TLS and proxies."""

    def __init__(self, http: httpx2.AsyncClient, url: httpx2.URL) -> None:
        self._http = http
        self._url = url

    async def exchange(self, method: str, target: str, headers: Headers, body: bytes) -> Answer:
        try:
            request = self._http.build_request(method, self._url, headers=headers.fields, content=body)
            return _ClientAnswer(await self._http.send(request, stream=True))
        except httpx2.HTTPError as error:
            raise _broken(error) from None

    async def aclose(self) -> None:
        """Nothing: the connections are the client's."""


class _ClientAnswer:
    """httpx's response as an `Answer`."""

    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self._response = response
        self._body = response.aiter_bytes()

    async def read(self) -> bytes:
        try:
            return await self._response.aread()
        except httpx2.HTTPError as error:
            raise _broken(error) from None

    async def part(self) -> bytes:
        try:
            return await anext(self._body, b"")
        except httpx2.HTTPError as error:
            raise _broken(error) from None

    async def aclose(self) -> None:
        await self._response.aclose()


def _broken(error: httpx2.HTTPError) -> HTTPBroken:
    return HTTPBroken(why(error))


def _exchanges(http: httpx2.AsyncClient, address: str, socket: str) -> _ByClient | HTTPConnections:
    """How to exchange messages with an address: over connections of its own where nothing stands between."""
    url = httpx2.URL(address)
    if socket:
        return HTTPConnections(url.host, 80, connect_timeout=CONNECT_TIMEOUT, socket=socket)
    proxied = getproxies().keys() & {"http", "all"} and not proxy_bypass(url.host)
    if url.scheme != "http" or proxied:
        return _ByClient(http, url)
    return HTTPConnections(url.host, url.port or 80, connect_timeout=CONNECT_TIMEOUT)
