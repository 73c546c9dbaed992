"""Environments behind a muxsim that is serving already, over streamable HTTP or SSE. Runs on trio and asyncio."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final, Literal
from urllib.request import getproxies, proxy_bypass

import anyio
import anyio.abc
import httpx2

from muxsim.errors import Busy, MuxsimError, StartError, UnknownEnvironment, raised_as_itself
from muxsim.rollouts.environments.environment import EnvironmentGone, MachineryFailed
from muxsim.rollouts.environments.http_connection import Answer, Headers, HTTPBroken, HTTPConnections
from muxsim.rollouts.environments.mcp_environment import (
    PROTOCOL_VERSION,
    Channel,
    MCPEnvironment,
    closed_on_failure,
    fault_of,
    is_muxsims,
    raise_if_muxsims,
    shake_hands,
)
from muxsim.session.unattended import answer_to
from transports import messages
from transports.errors import RemoteProtocolError
from transports.messages import Kind, Message, decode
from transports.sse_codec import EventReader

Wire = Literal["http", "sse"]

_HEADERS: Final = {
    "accept": "application/json, text/event-stream",
    "accept-encoding": "identity",
    "content-type": "application/json",
}
_SESSION_HEADER: Final = "mcp-session-id"
_START_TIMEOUT: Final = 60.0
_CLOSE_TIMEOUT: Final = 10.0
_LOOK_TIMEOUT: Final = 10.0
_CONNECT_TIMEOUT: Final = 10.0
# Of RFC 6750: nothing that could end a header.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# How often one message is sent while muxsim says that it takes none just now, and the longest wait in between.
_MOST_TRIES: Final = 10
_LONGEST_WAIT: Final = 30.0
_BUSY: Final = frozenset({429, 503})
# What a muxsim answers to a token that is not, or not any more, good for what is asked.
_REFUSALS: Final = frozenset({401, 403})


class RemotePool:
    """Opens sessions of a serving muxsim. Open it with `connect`."""

    def __init__(
        self, url: str, http: httpx2.AsyncClient, tasks: anyio.abc.TaskGroup, wire: Wire, served: dict[str, bool]
    ) -> None:
        self.url = url
        self._http = http
        self._tasks = tasks
        self._wire = wire
        # The names, and which of them are shared by all clients.
        self._served = served

    def __repr__(self) -> str:
        return f"<RemotePool at {self.url} over {self._wire}>"

    @property
    def environments(self) -> tuple[str, ...]:
        """The names that can be opened."""
        return tuple(self._served)

    async def open(self, env: str, seed: int, *, start_timeout: float | None = None) -> MCPEnvironment:
        """Start a session and shake hands. ``start_timeout`` is in seconds, over both.

        Raises `UnknownEnvironment`, `Busy` or `StartError`.
        """
        limit = _START_TIMEOUT if start_timeout is None else start_timeout
        began = time.perf_counter()
        with anyio.move_on_after(limit) as late:
            made = await self._make(env, seed)
        if late.cancelled_caught:
            raise StartError(f"environment {env!r}: {self.url} gave no session within {limit:g} s")
        started = time.perf_counter() - began
        channel = self._channel(made, shared=self._served.get(env, False))
        async with closed_on_failure(channel, env):
            if isinstance(channel, _SSEChannel):
                await self._tasks.start(channel.listen)
            opened = await shake_hands(channel, limit)
        return MCPEnvironment(made["id"], env, made["seed"], channel, replace(opened, start_seconds=started))

    async def _make(self, env: str, seed: int) -> dict[str, Any]:
        try:
            response = await self._http.post(f"{self.url}/sessions", json={"env": env, "seed": seed})
        except httpx2.HTTPError as error:
            raise StartError(f"{self.url} cannot be reached: {_why(error)}") from None
        if response.status_code == 201:
            made: dict[str, Any] = response.json()
            return made
        raise _refusal(response)

    def _channel(self, made: dict[str, Any], *, shared: bool) -> Channel:
        # At the address by which the server is reached, whatever it calls itself: a token goes nowhere else.
        paths = {name: httpx2.URL(url).raw_path.decode("ascii") for name, url in made["urls"].items()}
        prefix, found, _ = paths["session"].rpartition(f"/sessions/{made['id']}")
        urls = {
            name: f"{self.url}/{path.removeprefix(prefix if found else '').lstrip('/')}" for name, path in paths.items()
        }
        session = _SessionURL(self._http, urls["session"], shared=shared)
        if self._wire == "sse":
            return _SSEChannel(self._http, urls["sse"], session)
        return _HTTPChannel(self._http, self._tasks, urls["mcp"], session)


class _SessionURL:
    """Where to look at a session, and to end it."""

    def __init__(self, http: httpx2.AsyncClient, url: str, *, shared: bool) -> None:
        self._http = http
        self._url = url
        self.shared = shared

    async def end(self) -> None:
        """End it; but one that is there for all is nobody's to end."""
        if not self.shared:
            await _delete(self._http, self._url)

    async def why_gone(self, text: str) -> Exception:
        """What to raise for a session that is there no more: what muxsim says of its end, or else ``text``."""
        try:
            with anyio.fail_after(_LOOK_TIMEOUT):
                response = await self._http.get(self._url)
            told = _decoded(response.content) if response.status_code == 404 else None
            if told is not None and told.kind is Kind.ERROR:
                raise_if_muxsims(told)
        except (EnvironmentGone, MachineryFailed) as ending:
            return ending
        except (TimeoutError, httpx2.HTTPError):
            pass
        return MachineryFailed(text)


class _NotTaken(Exception):
    """muxsim took no notice of a message, which may be sent again in ``retry_after`` seconds."""

    def __init__(self, failure: MachineryFailed, retry_after: float) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.retry_after = retry_after


class _HTTPChannel:
    """One Mcp-Session-Id on a session's own URL."""

    def __init__(self, http: httpx2.AsyncClient, tasks: anyio.abc.TaskGroup, url: str, session: _SessionURL) -> None:
        self._http = http
        self._tasks = tasks
        self._url = url
        self._session = session
        self._target = httpx2.URL(url).raw_path.decode("ascii")
        self._exchanges = _exchanges(http, url)
        # What the client sends with everything, a token for one, goes with each message too.
        self._headers = Headers({**http.headers, **_HEADERS})
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

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._listening.cancel()
        await self._exchanges.aclose()
        await self._session.end()
        if self._session.shared and _SESSION_HEADER in self._headers.fields:
            await _delete(self._http, self._url, {_SESSION_HEADER: self._headers.fields[_SESSION_HEADER]})

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
            raise _not_answered(self._url, answer, _decoded(await answer.read()))
        session_id = answer.headers.get(_SESSION_HEADER)
        if session_id is not None and _SESSION_HEADER not in self._headers.fields:
            known = {_SESSION_HEADER: session_id, "mcp-protocol-version": PROTOCOL_VERSION}
            self._headers = Headers({**self._headers.fields, **known})
        if message.kind is not Kind.REQUEST:
            return None
        if _is_event_stream(answer):
            return await self._read_events(answer, message)
        found = _decoded(await answer.read())
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
    if answer.status in _REFUSALS:
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
            if (found := _decoded(payload)) is not None:
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
    return HTTPBroken(_why(error))


def _exchanges(http: httpx2.AsyncClient, address: str) -> _ByClient | HTTPConnections:
    """How to exchange messages with an address: over connections of its own where nothing stands between."""
    url = httpx2.URL(address)
    proxied = getproxies().keys() & {"http", "all"} and not proxy_bypass(url.host)
    if url.scheme != "http" or proxied:
        return _ByClient(http, url)
    return HTTPConnections(url.host, url.port or 80, connect_timeout=_CONNECT_TIMEOUT)


class _SSEChannel:
    """One event stream on a session's own URL, and the URL to post to."""

    def __init__(self, http: httpx2.AsyncClient, url: str, session: _SessionURL) -> None:
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
            self._ended = f"{self._url}: {_why(error)}"
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
                elif (message := _decoded(payload)) is not None:
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
            response = await self._http.post(self._endpoint, content=message.encode(), headers=_HEADERS)
        except httpx2.HTTPError as error:
            raise MachineryFailed(f"{self._endpoint}: {_why(error)}") from None
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


def _decoded(payload: bytes) -> Message | None:
    try:
        return decode(payload).well_formed()
    except RemoteProtocolError:
        return None


async def _delete(http: httpx2.AsyncClient, url: str, headers: dict[str, str] | None = None) -> None:
    with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
        try:
            await http.delete(url, headers=headers)
        except httpx2.HTTPError:
            # Whoever serves the session is gone, and with it the session.
            return


def _refusal(response: httpx2.Response) -> MuxsimError:
    try:
        text = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        text = f"HTTP status {response.status_code}"
    if response.status_code in (429, 503):
        return Busy(text, float(response.headers.get("retry-after", "1")))
    if response.status_code == 404:
        return UnknownEnvironment(text)
    return StartError(text)


@asynccontextmanager
async def connect(
    url: str, *, wire: Wire = "http", max_sessions: int = 256, token: str | None = None
) -> AsyncIterator[RemotePool]:
    """A pool of the environments that a muxsim serves at ``url``, for the length of a block.

    ``token`` is a bearer token with the scope ``trainer``, for a muxsim that asks for one; it goes to no other server.
    Sessions that are still open when it ends are the caller's to close; an SSE stream's ends with it. Raises
    `StartError` if nothing of muxsim answers there, or the token is not good for it.
    """
    if token is not None and not _TOKEN.fullmatch(token):
        raise StartError("the token has characters that no token has; is there a space or a line's end in it?")
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    base = _base(url)
    # A connection per session and one for its stream: httpx's pool is quadratic in what queues for it.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=2 * max_sessions)
    timeout = httpx2.Timeout(None, connect=_CONNECT_TIMEOUT)
    async with httpx2.AsyncClient(limits=limits, timeout=timeout, headers=headers) as http:
        served = await _served(http, base)
        with raised_as_itself():
            async with anyio.create_task_group() as tasks:
                yield RemotePool(base, http, tasks, wire, served)
                tasks.cancel_scope.cancel()


def _base(url: str) -> str:
    """The URL of a muxsim without its last slash. Raises `StartError`: it is none."""
    try:
        parsed = httpx2.URL(url.strip())
    except httpx2.InvalidURL as error:
        raise StartError(f"{url!r} is no URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise StartError(f"{url!r} is not the URL of a muxsim, which is like http://127.0.0.1:8000")
    if parsed.userinfo:
        raise StartError("the URL has a user or password in it: muxsim asks for a token, which is given apart from it")
    if parsed.query or parsed.fragment:
        raise StartError(f"{url!r} has something behind its path: give the URL that muxsim printed when it started")
    return str(parsed).rstrip("/")


def _why(error: BaseException) -> str:
    """What an error says; what it came of where it says nothing, as those of TLS do."""
    said: BaseException | None = error
    while said is not None and not str(said):
        said = said.__cause__ or said.__context__
    return str(said) if said is not None else type(error).__name__


async def _served(http: httpx2.AsyncClient, base: str) -> dict[str, bool]:
    """The names of the environments that are served, and which of them all clients share."""
    try:
        response = await http.get(f"{base}/envs")
    except httpx2.HTTPError as error:
        raise StartError(f"no muxsim answers at {base}: {_why(error)}") from None
    if response.status_code in _REFUSALS:
        raise StartError(f"{base} wants another token: {_refusal(response)}")
    try:
        return {str(env["name"]): env.get("shared") is True for env in response.json()["environments"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        kind = response.headers.get("content-type", "nothing")
        raise StartError(
            f"no muxsim answers at {base}: {base}/envs gave HTTP status {response.status_code} and {kind}"
        ) from None
