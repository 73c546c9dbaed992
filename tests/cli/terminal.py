"""The `muxsim` command as a shell runs it: arguments, stdin, stdout, stderr, exit status."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass

from harness import MUXSIM, SERVERS

LIMIT = 120
NAUGHTY = SERVERS / "naughty.py"
NAUGHTY_COMMAND = ("python3", "-I", "-S", str(NAUGHTY))


@dataclass
class Finished:
    """What was left when a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def messages(self):
        """Each line of stdout, which has to be an MCP message."""
        messages = [json.loads(line) for line in self.stdout.splitlines()]
        assert all(message["jsonrpc"] == "2.0" for message in messages)
        return messages

    def answer(self, id):
        """The one answer to a request."""
        (answer,) = [message for message in self.messages if message.get("id") == id and "method" not in message]
        return answer

    def value(self, id):
        """What a tool answered, from JSON text."""
        return json.loads(self.answer(id)["result"]["content"][0]["text"])

    @property
    def complaint(self):
        """The one line on stderr."""
        (line,) = self.stderr.splitlines()
        return line


def muxsim(folder, *args, input="", env=None, limit=LIMIT):
    """Run `muxsim` in a folder until it ends."""
    finished = subprocess.run(
        [*MUXSIM, *args],
        cwd=folder,
        input=input,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
        env={**os.environ, **(env or {})},
    )
    return Finished(finished.returncode, finished.stdout, finished.stderr)


def request(id, method, params=None):
    """A request."""
    return {"jsonrpc": "2.0", "id": id, "method": method} | ({} if params is None else {"params": params})


def call(id, name, **arguments):
    """A call of a tool."""
    return request(id, "tools/call", {"name": name, "arguments": arguments})


HANDSHAKE = (
    request(
        0,
        "initialize",
        {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}},
    ),
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
)


def lines(*messages):
    """Messages as they stand on stdin."""
    return "".join(json.dumps(message) + "\n" for message in messages)


def play(folder, *args, env=None, messages=()):
    """`muxsim stdio` with a handshake and these messages on stdin, all at once, as `printf … | muxsim stdio` does."""
    return muxsim(folder, "stdio", *args, input=lines(*HANDSHAKE, *messages), env=env)
