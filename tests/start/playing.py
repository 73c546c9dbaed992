"""Sessions of Python environments, played on a pool."""

from __future__ import annotations

import json
import os
import sys
from contextlib import asynccontextmanager

import pytest
import trio
from harness import SERVERS
from serve.machine import eventually

from muxsim.admission.pool import capacity_of, open_pool
from muxsim.config import ServerSettings
from muxsim.observe.counters import Counters
from muxsim.observe.events import Events
from muxsim.observe.log import LibraryLog
from muxsim.spec import EnvSpec, Limits

# The environments', which need not be ours: `MUXSIM_TEST_PYTHON=/usr/bin/python3.13 pytest …` tries another.
PYTHON = os.environ.get("MUXSIM_TEST_PYTHON", sys.executable)
LONGEST = 600  # s; whatever hangs
PROBE = SERVERS / "zygote" / "probe.py"
LIMITS = Limits(eof_timeout=1.0, term_timeout=0.3)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MUXSIM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
async def in_time():
    async with trio.open_nursery() as nursery:

        async def expire():
            await trio.sleep(LONGEST)
            pytest.fail("not finished in time")

        nursery.start_soon(expire)
        yield
        nursery.cancel_scope.cancel()


def probe(*args, **fields):
    fields = {"limits": LIMITS, "cwd": "{workspace}", **fields}
    # A pool knows one spec of each name.
    name = "probe" if fields.get("zygote", True) else "fresh"
    return EnvSpec(name=name, command=PYTHON, args=(str(PROBE), *args), **fields)


def script(folder, text, name="script.py", *, after="", **fields):
    """An environment whose script tells one line, and waits for the end of its stdin."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + TELL + after)
    return EnvSpec(name="scripted", command=PYTHON, args=(str(path),), limits=LIMITS, **fields)


TELL = """
import json, os, sys
told = {name: value for name, value in globals().items() if name.isupper()}
told["PID"], told["MODULES"] = os.getpid(), sorted(sys.modules)
print(json.dumps({"jsonrpc": "2.0", "method": "told", "params": told}), flush=True)
sys.stdin.read()
"""


class Listener:
    clients_ready = True
    traffic = None

    def __init__(self):
        self.told = []
        self.lines = []

    def from_backend(self, message):
        self.told.append(json.loads(bytes(message.params)))

    def unreadable(self, line, error):
        self.lines.append(f"stdout: {line!r}")

    def stderr(self, line):
        self.lines.append(line)

    def backend_drained(self):
        """Nobody waits."""

    async def wait_clients_ready(self):
        """They are."""


class Played:
    """One backend, from its start to its end."""

    def __init__(self, pool, spec, seed):
        self.pool, self.spec, self.seed = pool, spec, seed
        self.listener = Listener()
        self.exit = None

    async def __aenter__(self):
        self.lease = await self.pool.acquire(self.spec)
        self.backend = await self.pool.start(self.lease, seed=self.seed, session="s", listener=self.listener)
        self.nursery = trio.open_nursery()
        self._inner = await self.nursery.__aenter__()
        self._inner.start_soon(self._run)
        await eventually(lambda: self.listener.told or self.exit, within=60)
        return self

    async def _run(self):
        self.exit = await self.backend.run()

    @property
    def told(self):
        return self.listener.told[0]

    async def __aexit__(self, *_):
        self._inner.cancel_scope.cancel()
        await self.nursery.__aexit__(None, None, None)
        self.status = await self.backend.end()
        await self.pool.release(self.lease)


@asynccontextmanager
async def some_pool(**settings):
    """A pool whose events are counted, and logged."""
    capacity = capacity_of(ServerSettings(**{"opens_per_second": 1000, **settings}))
    async with open_pool(capacity, events=Events(Counters(), LibraryLog())) as pool:
        yield pool


def counted(pool):
    """What has been counted of what this pool tells."""
    return next(listener for listener in pool.events.listeners if isinstance(listener, Counters))


def slots_counted(pool, spec, what):
    """How many of an environment's slots were used, missed or replaced, or have died."""
    return counted(pool).total(f"slots_{what}", spec.name)


def starts(pool, way):
    return counted(pool).total("starts", way)


async def has_zygote(pool, number=1):
    await eventually(
        lambda: sum(zygote.ready.is_set() for zygote in pool.placement.starter.zygotes.fleet.alive) >= number, within=60
    )


async def learn(pool, spec):
    """Play a first session, after which there is a zygote."""
    async with Played(pool, spec, 1) as first:
        await has_zygote(pool)
    return first


async def forked(pool, spec, seed=1):
    """Play a session, which has to be a fork."""
    before = starts(pool, "fork")
    async with Played(pool, spec, seed) as played:
        pass
    assert starts(pool, "fork") == before + 1
    return played


def zygote_of(pool):
    (zygote,) = pool.placement.starter.zygotes.fleet.alive
    return zygote


def assert_sees_the_same(played, fresh):
    """A probe that was forked sees of its process what one in a fresh process does, and no descriptors but three."""

    def seen(one):
        return json.loads(json.dumps(one.told["seen"]).replace(str(one.lease.workspace), "WORKSPACE"))

    assert [item for item in seen(played).items() if item not in seen(fresh).items()] == []
    assert played.told["seen"]["descriptors"] == [0, 1, 2]
    # A frame of ours is below the script's own, and no more.
    assert played.told["frames"] == fresh.told["frames"] + 1
