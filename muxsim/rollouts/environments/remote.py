"""Environments behind a muxsim that is serving already, over streamable HTTP or SSE. Runs on trio and asyncio."""

from __future__ import annotations

import math
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import quote

import anyio
import anyio.abc
import httpx2
import msgspec

from muxsim.errors import Busy, MuxsimError, StartError, UnknownEnvironment, raised_as_itself
from muxsim.rollouts.data.kept_files import Collect
from muxsim.rollouts.environments.leases import Renewals, over_http
from muxsim.rollouts.environments.mcp_environment import Channel, MCPEnvironment, closed_on_failure, shake_hands
from muxsim.rollouts.environments.over_http import HTTPChannel
from muxsim.rollouts.environments.over_sse import SSEChannel
from muxsim.rollouts.environments.unreachable import why_unreachable
from muxsim.rollouts.environments.wires import CONNECT_TIMEOUT, REFUSALS, SessionURL, why

Wire = Literal["http", "sse"]

LEASE: Final = 60.0
"""Seconds that sessions outlive a process that was killed: a network may be gone for two thirds of them."""

_START_TIMEOUT: Final = 60.0
_UNIX: Final = "unix:"
# What the URLs end with that a muxsim prints beside its own, for clients of MCP and OpenEnv.
_ENDPOINT: Final = re.compile(r"/(envs/[^/]+(/.*)?|s/[^/]+/.*|mcp|sse|sessions(/.*)?)$")
# A host that every muxsim is served under; over a socket it leads nowhere else.
_OVER_UNIX: Final = "http://localhost"
# Of RFC 6750: nothing that could end a header.
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class _Environment(msgspec.Struct):
    """What is looked at of ``GET /envs/<env>``."""

    parts: dict[str, str] = {}


_environments: Final = msgspec.json.Decoder(_Environment)


@dataclass(frozen=True, slots=True)
class _Served:
    """What is known of an environment: whether all clients share it, and whether files of it should be kept."""

    shared: bool = False
    collects: bool = False


# Of files that are on the server's machine: nothing can be kept of them here.
_THERE: Final = Collect((), 0, 0)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a muxsim is: ``name`` for people, ``base`` before its paths, and the ``socket`` if it is not over TCP."""

    name: str
    base: str
    socket: str = ""


class RemotePool:
    """Opens sessions of a serving muxsim. Open it with `connect`."""

    def __init__(
        self,
        address: Address,
        http: httpx2.AsyncClient,
        tasks: anyio.abc.TaskGroup,
        wire: Wire,
        served: dict[str, _Served],
        renewals: Renewals | None,
    ) -> None:
        self.url = address.name
        self._address = address
        self._http = http
        self._tasks = tasks
        self._wire = wire
        self._served = served
        self._renewals = renewals

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
        served = self._served.get(env, _Served())
        if self._renewals is not None and not served.shared:
            self._renewals.hold(made["id"])
        channel = self._channel(made, shared=served.shared)
        async with closed_on_failure(channel, env):
            if isinstance(channel, SSEChannel):
                await self._tasks.start(channel.listen)
            opened = await shake_hands(channel, limit)
        collect = _THERE if served.collects else None
        there = replace(opened, start_seconds=started, collect=collect, shared=served.shared)
        return MCPEnvironment(made["id"], env, made["seed"], channel, there)

    async def parts(self, env: str) -> dict[str, str]:
        """What an environment consists of (`muxsim.provenance`); {} where the server does not tell."""
        try:
            response = await self._http.get(f"{self._address.base}/envs/{quote(env, safe='')}")
            return _environments.decode(response.content).parts if response.status_code == 200 else {}
        except (httpx2.HTTPError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}

    async def _make(self, env: str, seed: int) -> dict[str, Any]:
        wish = {"env": env, "seed": seed} | ({} if self._renewals is None else {"lease": self._renewals.lease})
        try:
            response = await self._http.post(f"{self._address.base}/sessions", json=wish)
        except httpx2.HTTPError as error:
            raise StartError(f"{self.url} cannot be reached: {await _why(self._address, error)}") from None
        if response.status_code == 201:
            made: dict[str, Any] = response.json()
            return made
        raise _refusal(response)

    def _channel(self, made: dict[str, Any], *, shared: bool) -> Channel:
        # At the address by which the server is reached, whatever it calls itself: a token goes nowhere else.
        paths = {name: httpx2.URL(url).raw_path.decode("ascii") for name, url in made["urls"].items()}
        prefix, found, _ = paths["session"].rpartition(f"/sessions/{made['id']}")
        urls = {
            name: f"{self._address.base}/{path.removeprefix(prefix if found else '').lstrip('/')}"
            for name, path in paths.items()
        }
        over = self._renewals.let_go if self._renewals is not None else _nothing
        session = SessionURL(self._http, urls["session"], shared=shared, on_end=partial(over, made["id"]))
        if self._wire == "sse":
            return SSEChannel(self._http, urls["sse"], session)
        return HTTPChannel(self._http, self._tasks, urls["mcp"], session, self._address.socket)


def _nothing(id: str) -> None:
    """Nobody waits for the end of this one."""


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
    url: str,
    *,
    wire: Wire = "http",
    max_sessions: int = 256,
    token: str | None = None,
    lease: float | None = LEASE,
) -> AsyncIterator[RemotePool]:
    """A pool of the environments that a muxsim serves at ``url``, or ``unix:PATH``, for the length of a block.

    ``token`` is a bearer token with the scope ``trainer``, for a muxsim that asks for one; it goes to no other server.
    ``lease`` is for how many seconds its sessions outlive this process, should it be killed: it is renewed from a
    thread, whatever the loop does. None leaves them to the server's ``idle_timeout``.
    Sessions that are still open when it ends are the caller's to close; an SSE stream's ends with it. Raises
    `StartError` if nothing of muxsim answers there, or the token is not good for it.
    """
    if lease is not None and not 0 < lease < math.inf:
        raise StartError(f"lease {lease!r} must be more than 0 seconds, or None for sessions without one")
    if token is not None and not _TOKEN.fullmatch(token):
        raise StartError("the token has characters that no token has; is there a space or a line's end in it?")
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    address = _address(url)
    # A connection per session and one for its stream: httpx's pool is quadratic in what queues for it.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=2 * max_sessions)
    timeout = httpx2.Timeout(None, connect=CONNECT_TIMEOUT)
    over = httpx2.AsyncHTTPTransport(uds=address.socket, limits=limits) if address.socket else None
    async with httpx2.AsyncClient(transport=over, limits=limits, timeout=timeout, headers=headers) as http:
        served = await _served(http, address)
        renewals = None
        if lease is not None:
            renewals = Renewals(lease, over_http(f"{address.base}/leases", address.socket, headers))
        try:
            with raised_as_itself():
                async with anyio.create_task_group() as tasks:
                    yield RemotePool(address, http, tasks, wire, served, renewals)
                    tasks.cancel_scope.cancel()
        finally:
            if renewals is not None:
                renewals.stop()


def _address(url: str) -> Address:
    """Where a muxsim is. Raises `StartError`: that is nowhere."""
    socket = url.strip().removeprefix(_UNIX)
    if socket == url.strip():
        base = _base(url)
        return Address(base, base)
    if not socket:
        raise StartError(f"{_UNIX} needs the path of the socket that a muxsim listens on, as in unix:/run/muxsim.sock")
    return Address(url.strip(), _OVER_UNIX, socket)


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
        raise StartError(
            f"{url!r} has something behind its path: give the URL that muxsim printed first when it started"
        )
    return str(parsed).rstrip("/")


async def _why(address: Address, error: httpx2.HTTPError) -> str:
    return why(error) if address.socket else await why_unreachable(address.base, error)


async def _served(http: httpx2.AsyncClient, address: Address) -> dict[str, _Served]:
    """The environments that are served, by name."""
    base = address.name
    try:
        response = await http.get(f"{address.base}/envs")
    except httpx2.HTTPError as error:
        raise StartError(f"no muxsim answers at {base}: {await _why(address, error)}") from None
    if response.status_code in REFUSALS:
        raise StartError(f"{base} wants another token: {_refusal(response)}")
    try:
        return {
            str(env["name"]): _Served(env.get("shared") is True, bool(env.get("collect")))
            for env in response.json()["environments"]
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        kind = response.headers.get("content-type", "nothing")
        text = f"no muxsim answers at {base}: {base}/envs gave HTTP status {response.status_code} and {kind}"
        if (own := _ENDPOINT.sub("", base)) != base:
            text += f"; give the URL of the whole, {own}, and not of an endpoint"
        raise StartError(text) from None
