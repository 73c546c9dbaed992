"""Importing this plays two short episodes of a tiny environment in this process, over pipes of its own.

It is for a process that is going to fork servers of the kit: what libraries make when they are first used (validators,
patterns, caches of abstract classes, the interpreter's specialised code) is then ready in every fork, in memory that
they share. Nothing else stays: no thread, descriptor or child, and generators, event loop, signals, warnings and
context are as they were.
"""

import asyncio
import contextvars
import functools
import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import anyio
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from mcp.server.lowlevel import Server
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY

from muxsim.mcpgym.control import CONTROL_META_KEY
from muxsim.mcpgym.observation import Content
from muxsim.mcpgym.pipes import PipeReader, PipeWriter
from muxsim.mcpgym.server import GymServer
from muxsim.mcpgym.wire import Wire, converse

# Python specialises what has run some ten times. Done before a fork, it is not done by every fork.
_STEPS = 20

# Seconds. It takes a tenth of one; sessions wait for it.
_LONGEST = 10

_TOOL = "move"
_CLIENT = {"name": "line", "version": "0"}

_Messages: TypeAlias = Callable[[], Iterator[dict[str, Any]]]
"""All that a client asks for in a short episode."""


def rehearse() -> None:
    """Play them once more.

    Raises:
        RuntimeError: a call has failed.
        TimeoutError: it has taken far too long.
    """
    with _generators_kept():
        for messages in (_with_handshake, _without_handshake):
            server = _started()
            # With a loop of its own choice asyncio does not note that this thread has had one.
            options = {"loop_factory": asyncio.SelectorEventLoop}
            play = functools.partial(anyio.run, _play, server, messages, backend_options=options)
            contextvars.copy_context().run(play)


class _Line(gymnasium.Env[Any, Any]):
    """Left and right on a line that never ends."""

    def __init__(self) -> None:
        self.action_space = spaces.Discrete(2)
        self.observation_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        return int(self.np_random.integers(2)), {"probability": 1}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        return int(action), float(self.np_random.random()), False, False, {"probability": np.float64(1)}


def _started() -> Server[Any]:
    """A server with one of everything that most have."""

    def make(seed: int) -> gymnasium.Env[Any, Any]:
        assert not line.options.slow
        return gymnasium.make(EnvSpec("Line-v0", entry_point=lambda **_: _Line(), max_episode_steps=10 * _STEPS))

    line = GymServer("line", make, describe=lambda at, _env: f"You are at {at}.", instructions="{observation}")
    line.parser.add_argument("--slow", action="store_true", help="walk slowly")
    line.parser.add_argument("--length", type=int, default=4, choices=range(2, 9), metavar="N", help="from end to end")

    @line.tool(_TOOL)
    def move(direction: Literal["LEFT", "RIGHT"]) -> Content:
        """Move on the line."""
        return line.step(("LEFT", "RIGHT").index(direction))

    line.parser.parse_args(["--seed", "0"])
    return line.start(0)


async def _play(server: Server[Any], messages: _Messages) -> None:
    with _pipe() as (requests_end, requests), _pipe() as (answers, answers_end), anyio.fail_after(_LONGEST):
        wire: Wire = PipeReader(requests_end.fileno()), PipeWriter(answers_end.fileno())
        async with anyio.create_task_group() as both:
            both.start_soon(converse, server, wire, server.create_initialization_options())
            failure = await _ask(messages(), PipeWriter(requests.fileno()), PipeReader(answers.fileno()))
            requests.close()
    if failure is not None:  # not in there, where it would become a group of errors
        raise RuntimeError(failure)


async def _ask(messages: Iterator[dict[str, Any]], requests: PipeWriter, answers: PipeReader) -> str | None:
    """Returns what was wrong with an answer."""
    for message in messages:
        await requests.write(json.dumps(message) + "\n")
        if "id" in message:
            answer = json.loads(await anext(answers))
            if "result" not in answer or answer["result"].get("isError"):
                return f"{message['method']} has failed in the rehearsal: {answer!r:.500}"
    return None


def _with_handshake() -> Iterator[dict[str, Any]]:
    """As clients up to revision 2025-11-25 ask."""
    shake_hands = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": _CLIENT}
    yield _request(0, "initialize", shake_hands)
    yield {"jsonrpc": "2.0", "method": "notifications/initialized"}
    yield from _episode({})


def _without_handshake() -> Iterator[dict[str, Any]]:
    """As those since revision 2026-07-28 do, which say who they are with each request."""
    meta = {PROTOCOL_VERSION_META_KEY: "2026-07-28", CLIENT_INFO_META_KEY: _CLIENT, CLIENT_CAPABILITIES_META_KEY: {}}
    yield _request(0, "server/discover", {"_meta": meta})
    yield from _episode({"_meta": meta})


def _episode(extra: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield _request(1, "tools/list", extra)
    for number in range(_STEPS):
        params = {"name": _TOOL, "arguments": {"direction": "LEFT"}, **extra}
        if number % 2:  # some ask for the control plane, and some have no `_meta`, which is another way in the SDK
            params["_meta"] = {**params.get("_meta", {}), CONTROL_META_KEY: True}
        yield _request(2 + number, "tools/call", params)


def _request(id: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


@contextmanager
def _pipe() -> Iterator[tuple[Any, Any]]:
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with open(reading, "rb", buffering=0) as out, open(writing, "wb", buffering=0) as into:
        yield out, into


@contextmanager
def _generators_kept() -> Iterator[None]:
    """To start a server seeds Python's and numpy's own."""
    of_python, of_numpy = random.getstate(), np.random.get_state(legacy=False)
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


rehearse()
