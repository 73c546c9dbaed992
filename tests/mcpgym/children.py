"""A server of the kit as a child process: over the official client, or over its bare pipes."""

import json
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from mcp import Client, StdioServerParameters

SERVERS = Path(__file__).parent / "servers"
FROZEN_LAKE = Path(__file__).parents[2] / "examples" / "frozen_lake" / "server.py"

# A cold start imports numpy, gymnasium and mcp, on a machine that may be busy with other tests.
DEADLINE = 60


@asynccontextmanager
async def played(script, *arguments, mode="auto", env=None):
    """The official client, connected to a fresh process."""
    command = StdioServerParameters(command=sys.executable, args=[str(script), *arguments], env=env)
    with trio.fail_after(DEADLINE):
        async with Client(command, mode=mode) as client:
            yield client


class Pipes:
    """A child on bare pipes: lines of JSON, and what becomes of the process."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self._buffer = b""

    async def send(self, *messages):
        await self.process.stdin.send_all(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    async def receive(self):
        while b"\n" not in self._buffer:
            received = await self.process.stdout.receive_some()
            assert received, "the server closed its stdout"
            self._buffer += received
        line, self._buffer = self._buffer.split(b"\n", 1)
        self.lines.append(line)
        return json.loads(line)

    async def shake_hands(self):
        params = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "pipes", "version": "0"},
        }
        await self.send({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        answer = await self.receive()
        await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    async def end(self):
        """Close stdin; returns what the server still writes to stdout, and its exit status."""
        await self.process.stdin.aclose()
        rest = self._buffer + b"".join([received async for received in self.process.stdout])
        return rest, await self.process.wait()


@asynccontextmanager
async def on_pipes(script, *arguments, stderr=subprocess.DEVNULL, env=None):
    command = [sys.executable, str(script), *arguments]
    with trio.fail_after(DEADLINE):
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, env=env
        )
        async with process.stdin, process.stdout:
            try:
                yield Pipes(process)
            finally:
                if process.returncode is None:
                    process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()


def call(identifier, tool, **arguments):
    params = {"name": tool, "arguments": arguments, "_meta": {"muxsim/control": True}}
    return {"jsonrpc": "2.0", "id": identifier, "method": "tools/call", "params": params}
