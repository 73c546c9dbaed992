"""Servers of the author kit without processes: sessions of a pool, over the official client in memory."""

import itertools
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from mcp import Client, MCPError

from muxsim.rollouts.environments.environment import Opened, Tool
from muxsim.rollouts.environments.mcp_environment import MCPEnvironment
from transports import messages


class InProcessPool:
    """Each session is a server that ``build`` makes. Made by `in_process`."""

    environments = ("kit",)

    def __init__(self, build, tasks):
        self._build, self._tasks = build, tasks
        self.open_now = 0

    async def open(self, env, seed, *, start_timeout=None):
        channel = Channel(self._build().start(seed), self)
        # The client's own tasks begin and end in one, whoever opens and closes.
        await self._tasks.start(channel.serve)
        tools = (await channel.client.list_tools()).tools
        opened = Opened(tools=tuple(Tool(one.name, "", one.input_schema) for one in tools), published=True)
        return MCPEnvironment(f"session-{seed}", env, seed, channel, opened)


class Channel:
    """`muxsim.rollouts.environments.mcp_environment.Channel` of one session."""

    def __init__(self, server, pool):
        self._server, self._pool = server, pool
        self._numbers = itertools.count(1)
        self._over, self._gone = anyio.Event(), anyio.Event()

    async def serve(self, *, task_status):
        async with AsyncExitStack() as stack:
            self.client = await stack.enter_async_context(Client(self._server, mode="legacy", cache=None))
            self._pool.open_now += 1
            task_status.started()
            await self._over.wait()
            self._pool.open_now -= 1
        self._gone.set()

    async def ask(self, method, params, timeout):
        meta, number = params.get("_meta"), next(self._numbers)
        try:
            if method == "tools/call":
                result = await self.client.call_tool(params["name"], params["arguments"], meta=meta)
            else:
                result = await self.client.read_resource(params["uri"], meta=meta)
        except MCPError as error:
            return messages.error(number, error.error.code, error.error.message)
        said = messages.result(number, result.model_dump(mode="json", by_alias=True, exclude_none=True))
        return messages.decode(said.encode())

    async def notify(self, method):
        """Nothing hears it."""

    async def finish(self):
        self._over.set()

    async def close(self):
        self._over.set()
        await self._gone.wait()

    def last_words(self):
        return ("the last line of its stderr",)


@asynccontextmanager
async def in_process(build):
    """A pool for the length of a block. All of its sessions have been closed by then."""
    async with anyio.create_task_group() as tasks:
        pool = InProcessPool(build, tasks)
        yield pool
        assert pool.open_now == 0
