"""Sessions on lease: renewed for as long as their program lives, and gone some seconds after it was killed."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest
import trio
from harness import given_time, serving
from serve.conftest import environment
from serve.machine import eventually, log_lines, logged
from serve.wire import live_sessions

import muxsim
from muxsim.errors import StartError
from muxsim.rollouts.environments.leases import Renewals

LIMIT = 120
SOON = 0.03


class Asked:
    """Stands for a muxsim: what it is asked to renew, and what is over."""

    def __init__(self, *answers):
        self.asked = queue.Queue()
        self._answers = iter(answers)

    def __call__(self, ids, timeout):
        self.asked.put(tuple(ids))
        answer = next(self._answers, ())
        if isinstance(answer, Exception):
            raise answer
        return answer

    def next(self):
        return self.asked.get(timeout=LIMIT)


def test_all_leases_are_renewed_with_one_request_and_those_that_are_over_no_more():
    ask = Asked((), ("b",))
    renewals = Renewals(SOON, ask)
    for id in "abc":
        renewals.hold(id)
    found = [ask.next() for _ in range(8)]
    renewals.stop()
    # The first may have gone out before all were held.
    assert ("a", "b", "c") in found[:2]
    assert found[-1] == ("a", "c")
    assert repr(renewals) == "<Renewals of 0 leases of 0.03 s>"


def test_a_renewal_that_fails_is_tried_again_and_what_is_let_go_is_not_renewed():
    ask = Asked(OSError("no route"), OSError("no route"), ())
    renewals = Renewals(SOON, ask)
    renewals.hold("a")
    assert [ask.next() for _ in range(4)] == [("a",)] * 4
    renewals.hold("b")
    while ask.next() != ("a", "b"):
        pass
    renewals.let_go("a")
    while ask.next() != ("b",):
        pass
    renewals.stop()


def test_nothing_is_renewed_after_the_end_nor_before_anything_is_held():
    before = threading.active_count()
    renewals = Renewals(SOON, Asked())
    assert threading.active_count() == before
    renewals.hold("a")
    renewals.stop()
    assert threading.active_count() == before


def test_a_fork_renews_nothing_of_its_parents():
    renewals = Renewals(SOON, Asked())
    renewals.hold("a")
    pid = os.fork()
    if pid == 0:
        renewals.hold("b")
        os._exit(threading.active_count() + 10 * ("b" in renewals.held))
    _, status = os.waitpid(pid, 0)
    renewals.stop()
    assert os.waitstatus_to_exitcode(status) == 1, "the thread that called fork is the only one"


@pytest.mark.parametrize("lease", [0, -1, float("inf"), float("nan")])
async def test_a_lease_that_is_none_is_an_error_that_says_so(lease):
    with pytest.raises(StartError, match="more than 0 seconds"):
        async with muxsim.connect("http://127.0.0.1:1", lease=lease):
            pass


# It opens two sessions and never lets its loop go on again, as a training step does.
TRAINER = """
import sys, time, anyio, muxsim

async def main(url, backend, wire, lease):
    async with muxsim.connect(url, wire=wire, lease=float(lease)) as pool:
        for seed in (1, 2):
            await pool.open("naughty", seed)
        closed = await pool.open("naughty", 3)
        await closed.close()
        print("open", flush=True)
        time.sleep(3600)

anyio.run(main, *sys.argv[1:], backend=sys.argv[2])
"""


@pytest.mark.children
@pytest.mark.fault("L2")
@pytest.mark.parametrize(("backend", "wire"), [("trio", "http"), ("asyncio", "sse")])
async def test_a_trainer_that_is_killed_leaves_nothing_and_one_that_computes_loses_nothing(tmp_path, backend, wire):
    """L2: it holds its sessions for longer than their lease without a word of theirs."""
    config = tmp_path / "muxsim.toml"
    config.write_text('[server]\nlog_level = "debug"\n' + environment("naughty", "--seed", "{seed}"))
    async with serving(tmp_path, config) as running:
        await given_time(partial(is_killed, running, backend, wire), 2, 8, 30)


async def is_killed(running, backend, wire, lease):
    command = [sys.executable, "-c", TRAINER, running.url, backend, wire, str(lease)]
    trainer = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        with trio.fail_after(LIMIT):
            said = b""
            while not said.endswith(b"\n"):
                piece = await trainer.stdout.receive_some()
                assert piece, "it has ended"
                said += piece
            assert said == b"open\n"
            ids = {one["id"] for one in await live_sessions(running)}
            assert len(ids) == 2

            async def outlived_a_lease():
                now = {one["id"]: one["age"] for one in await live_sessions(running)}
                assert now.keys() == ids
                return min(now.values()) > 1.5 * lease

            await eventually(outlived_a_lease)
    finally:
        trainer.send_signal(signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await trainer.wait()
        await trainer.stdout.aclose()
    for id in ids:
        ended = await logged(running, event="session.ended", session=id)
        assert (ended["cause"], ended["text"]) == ("lease", f"nobody renewed its lease for {lease} s (lease)")
    assert not log_lines(running, event="session.ended", cause="internal_error")
