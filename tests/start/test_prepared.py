"""Processes that wait for their order on stdin."""

import json
import os
import sys

import pytest
import trio
from harness import cancelled_once_it_waits
from serve.machine import read_all

from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.launcher import Launcher
from muxsim.start import prepared as prepared_module
from muxsim.start.prepared import Prepared, encode_order

pytestmark = pytest.mark.children

# Takes an order as it should, and tells of it and of what came after it.
WAITER = """
import json, os
def exactly(count):
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            raise SystemExit(7)
        data += more
    return data
order = json.loads(exactly(int.from_bytes(exactly(4), "big")))
told = [order["argv"], order["cwd"], order["umask"], len(order["env"]), os.read(0, 99).decode()]
os.write(1, json.dumps(told).encode())
"""
DEAF = "import time; time.sleep(1000)"


@pytest.fixture
async def launcher():
    async with Launcher.open() as launcher:
        yield launcher


async def prepare(launcher, program):
    return Prepared(await launcher.spawn(Command((sys.executable, "-ISc", program), {}, "/"), session="a"))


@pytest.mark.parametrize("size", [1, 300_000])
async def test_a_prepared_process_takes_its_order_and_not_a_byte_more(launcher, size):
    prepared = await prepare(launcher, WAITER)
    process = await prepared.activate(Command(("a", "bü"), {"BIG": "x" * size}, "/tmp", umask=0o27))
    os.write(process.stdin, b"the rest")
    process.close_stdin()
    assert json.loads(await read_all(process.stdout)) == [["a", "bü"], "/tmp", 0o27, 2, "the rest"]
    assert await process.end() == 0


async def test_a_process_that_was_never_ordered_exits_at_the_end_of_its_stdin(launcher):
    prepared = await prepare(launcher, WAITER)
    with trio.fail_after(60):
        assert await prepared.process.end() == 7


async def test_one_that_has_ended_is_no_use_and_says_so(launcher):
    prepared = await prepare(launcher, "raise SystemExit(3)")
    await prepared.process.wait()
    assert prepared.process.returncode is not None
    with pytest.raises(ProcessStartError, match="before its order") as caught:
        await prepared.activate(Command(("a",), {}, "/"))
    assert caught.value.stage == "order"
    assert launcher.statistics().alive == 0


async def test_one_that_takes_no_order_is_ended(launcher, monkeypatch):
    monkeypatch.setattr(prepared_module, "ORDER_LIMIT", 0.1)
    prepared = await prepare(launcher, DEAF)
    with pytest.raises(ProcessStartError, match="does not take"):
        await prepared.activate(Command(("a",), {"BIG": "x" * 3_000_000}, "/"))
    assert launcher.statistics().alive == 0


async def test_an_order_that_makes_no_sense_ends_the_process_that_waits_for_it(launcher):
    prepared = await prepare(launcher, WAITER)
    with pytest.raises(ProcessStartError, match="NUL"):
        await prepared.activate(Command(("a\0b",), {}, "/"))
    assert launcher.statistics().alive == 0


async def test_a_wait_that_is_cancelled_leaves_no_process(launcher):
    prepared = await prepare(launcher, DEAF)
    assert await cancelled_once_it_waits(prepared.activate, Command(("a",), {"BIG": "x" * 3_000_000}, "/"))
    assert launcher.statistics().alive == 0


def test_an_order_is_a_length_and_json():
    data = encode_order(Command(("a",), {"A": "b"}, "/"), "mark")
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    expected = {"argv": ["a"], "env": {"A": "b", "MUXSIM_PROCESS": "mark"}, "cwd": "/", "umask": None}
    assert json.loads(data[4:]) == expected
