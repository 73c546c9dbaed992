"""Reading a config again, which may take as long as its file system likes."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from muxsim.config import Config
from muxsim.errors import ConfigError
from muxsim.observe.events import Events
from muxsim.serve.operate.rereading import LIMIT, Rereading
from muxsim.spec import EnvSpec

NOW = Config(environments={"one": EnvSpec(name="one", command="true")}, default="one")


async def test_what_is_never_read_is_given_up_and_keeps_nobody_from_reading_what_stands_there_then(mock_clock):
    go_on, began = threading.Event(), []

    def hangs():
        began.append(threading.get_ident())
        go_on.wait()
        return NOW

    def reread():
        return files[-1]()

    async def refused():
        with pytest.raises(ConfigError, match="could not be read within 30 s"):
            await rereading.read(NOW)

    async def give_up():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused)
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(LIMIT)

    files = [hangs]
    rereading = Rereading(reread, NOW, None, Events())
    await give_up()
    files.append(lambda: NOW)
    assert await rereading.read(NOW) is NOW
    files.append(hangs)
    for _ in range(20):
        await give_up()
    go_on.set()
    assert len(began) <= 8
