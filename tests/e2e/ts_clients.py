"""The TypeScript clients of `ts/`, each run as a process of its own."""

from __future__ import annotations

import json

import trio
from conformance.run import install

from .conftest import HERE
from .python_clients import MODERN, handshake_url, posted_session, stdio_command

TS = HERE / "ts"
EVERYTHING = TS / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"

# Seconds for one client's run; its own --timeout comes first, and says what it waited for.
DEADLINE = 90
CLIENT_TIMEOUT = 60

SCENARIOS = ("everything", "sampling", "progress", "cancel", "listen")

# SDK generation and mode; the second generation's package is @modelcontextprotocol/client.
CLIENTS = (("v1", "legacy"), ("v2", "legacy"), ("v2", "auto"), ("v2", MODERN))


def install_clients():
    """Install the SDKs unless they are there."""
    install(TS)


def expected(scenario):
    """What a scenario gives straight from server-everything over stdio, as `npm run record` wrote it down."""
    return json.loads((TS / "expected" / f"{scenario}.json").read_text())


async def run_client(scenario, client, where, *more):
    """The report of one client: ``{"ok", "client", "result" or "error", "complaints"}``."""
    sdk, mode = client
    options = ["--scenario", scenario, "--sdk", sdk, "--mode", mode, "--timeout", str(CLIENT_TIMEOUT)]
    command = ["node", str(TS / "client.mjs"), *options, *where, *more]
    with trio.fail_after(DEADLINE):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert done.stdout, f"client.mjs printed nothing: {done.stderr.decode()}"
    return json.loads(done.stdout)


async def run_on_route(scenario, client, gateway, route, env, seed=None, *more):
    """The report of one client by one of `python_clients.ROUTES`."""
    if route.startswith("/s/"):
        async with posted_session(gateway, env, seed) as session:
            transport = route.rpartition("/")[2]
            where = _by_url("sse" if transport == "sse" else "http", session["urls"][transport])
            return await run_client(scenario, client, where, *more)
    if route == "stdio":
        return await run_client(scenario, client, by_command(stdio_command(gateway, env, seed)), *more)
    where = _by_url("sse" if route == "/sse" else "http", handshake_url(gateway, route, env, seed))
    return await run_client(scenario, client, where, *more)


def by_command(command):
    """The options of a client that starts the server itself."""
    return ["--transport", "stdio", "--command", json.dumps(command)]


def _by_url(transport, url):
    return ["--transport", transport, "--url", url]


async def gathered(calls):
    """Run a call for each key at once; the results by key."""
    results = {}

    async def run(key, call):
        results[key] = await call()

    async with trio.open_nursery() as nursery:
        for key, call in calls.items():
            nursery.start_soon(run, key, call)
    return {key: results[key] for key in calls}
