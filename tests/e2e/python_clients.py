"""The official Python client on every way into muxsim."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager

import httpx2
import trio
from mcp import Client, StdioServerParameters
from mcp.client.sse import sse_client

# Seconds for all that one client does, the cold start of its environment on a busy machine included.
DEADLINE = 60

MODERN = "2026-07-28"
LATEST_HANDSHAKE = "2025-11-25"

# Sessions made by a handshake: streamable HTTP twice, then SSE; by POST /sessions, over both; and one of its own.
ROUTES = ("/mcp", "/envs/<env>/mcp", "/sse", "/s/<id>/mcp", "/s/<id>/sse", "stdio")


@asynccontextmanager
async def connected(gateway, route, env, seed=None, *, mode="auto", **options):
    """A client by one of the `ROUTES`; ``options`` go to `mcp.Client`."""
    with trio.fail_after(DEADLINE):
        async with server_of(gateway, route, env, seed) as server, Client(server, mode=mode, **options) as client:
            yield client


@asynccontextmanager
async def server_of(gateway, route, env, seed=None):
    """What `mcp.Client` connects to; a session that no handshake makes is made here, and deleted at the block's end."""
    if route == "stdio":
        command, *arguments = stdio_command(gateway, env, seed)
        yield StdioServerParameters(command=command, args=arguments)
    elif route.startswith("/s/"):
        async with posted_session(gateway, env, seed) as session:
            urls = session["urls"]
            yield sse_client(urls["sse"]) if route.endswith("sse") else urls["mcp"]
    else:
        url = handshake_url(gateway, route, env, seed)
        yield sse_client(url) if route == "/sse" else url


def handshake_url(gateway, route, env, seed=None):
    """The URL of a route on which a handshake makes a session."""
    query = "" if seed is None else f"seed={seed}"
    if "<env>" in route:
        return gateway.url + route.replace("<env>", env) + (query and f"?{query}")
    return f"{gateway.url}{route}?env={env}" + (query and f"&{query}")


def stdio_command(gateway, env, seed=None):
    """The command line of `muxsim stdio` with the gateway's config."""
    seeded = [] if seed is None else ["--seed", str(seed)]
    return [sys.executable, "-m", "muxsim", "stdio", str(gateway.config), "--env", env, *seeded]


@asynccontextmanager
async def posted_session(gateway, env, seed=None):
    """A session made by ``POST /sessions``, as the answer describes it; deleted at the block's end."""
    async with httpx2.AsyncClient(timeout=DEADLINE) as http:
        wish = {"env": env} | ({} if seed is None else {"seed": seed})
        answer = await http.post(f"{gateway.url}/sessions", json=wish)
        assert answer.status_code == 201, answer.text
        session = answer.json()
        try:
            yield session
        finally:
            with trio.move_on_after(DEADLINE, shield=True):
                assert (await http.delete(session["urls"]["session"])).status_code == 204
