"""What is served beside muxsim's own endpoints is made when it is first asked for, and keeps nobody waiting by that."""

from __future__ import annotations

import asyncio
import threading

import pytest
import trio

from muxsim.serve.routes.wires import LateWire


class Wire:
    """Remembers what it was asked."""

    def __init__(self, site):
        self.asked = site

    async def answer(self, call, env, path):
        self.asked.append((call, env, path))


async def run(requests, load, site):
    """What comes of requests that are made at once."""

    async def ask():
        wire = LateWire(load, site)
        return await asyncio.gather(*(wire.answer(*one) for one in requests), return_exceptions=True)

    return await trio.to_thread.run_sync(asyncio.run, ask())


async def test_a_wire_is_loaded_once_and_in_a_thread_of_its_own():
    loaded, served, asked = [], [], []

    def load():
        loaded.append(threading.get_ident())
        return made

    def made(site):
        served.append(threading.get_ident())
        return Wire(site)

    requests = [("call", "lake", "reset"), ("call", "lake", "ws")]
    assert await run(requests, load, asked) == [None, None]
    assert asked == requests
    assert (len(loaded), len(served)) == (1, 1)
    assert loaded != served


async def test_one_that_could_not_be_loaded_is_loaded_again():
    attempts = iter([ImportError("gone"), Wire])

    def load():
        found = next(attempts)
        if isinstance(found, ImportError):
            raise found
        return found

    failed, answered = await run([("call", "lake", "reset"), ("call", "lake", "ws")], load, [])
    assert (type(failed), answered) == (ImportError, None)


@pytest.mark.parametrize("count", [1, 20])
async def test_a_wire_that_is_there_is_asked_at_once(count):
    asked = []
    await run([("call", "lake", str(number)) for number in range(count)], lambda: Wire, asked)
    assert [path for _, _, path in asked] == [str(number) for number in range(count)]
