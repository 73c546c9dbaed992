"""Reading a config again, which may take as long as its file system likes."""

from __future__ import annotations

import threading

import pytest
import trio

from muxsim.config import Config
from muxsim.errors import ConfigError
from muxsim.observe.events import Events
from muxsim.serve.operate.rereading import LIMIT, Rereading
from muxsim.spec import EnvSpec

NOW = Config(environments={"one": EnvSpec(name="one", command="true")}, default="one")


async def test_a_file_that_is_never_read_is_waited_for_until_a_limit_and_by_one_thread(autojump_clock):
    go_on, began = threading.Event(), []

    def hangs():
        began.append(threading.get_ident())
        go_on.wait()
        return NOW

    rereading = Rereading(hangs, NOW, None, Events())
    for attempt in (1, 2):
        with pytest.raises(ConfigError, match="could not be read within 30 s"):
            await rereading.read(NOW)
        assert trio.current_time() == pytest.approx(attempt * LIMIT)
    go_on.set()
    assert len(began) <= 1
