"""Whatever a trainer holds ends with it: also where it is killed, and not before, whatever its forks do."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio
from harness import muxsim_serve
from own_environments import python_with
from serve.machine import eventually, gone, log_lines

from .begins import ENV, LEASE

pytestmark = pytest.mark.children

PROGRAM = Path(__file__).with_name("begins.py")
SCORED = Path(__file__).parent.parent / "servers" / "scored.py"
KINDS = ("trl", "skyrl", "verl", "nemo", "rllm", "gymnasium", "reward_kit", "reward_kit_by_hand")
MARK = "MUXSIM_TEST_MARK"


def config_with(mark):
    return f"""
[environments.{ENV}]
command = "python3"
args = ["-I", "-S", "{SCORED}", "--counting", "--seed", "{{seed}}"]
env = {{ {MARK} = "{mark}" }}
warm = 0
zygote = false
"""


def backends(mark):
    """The processes of sessions: those with this mark."""
    found, wanted = [], f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            marked = wanted in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if marked and b"scored.py" in (folder / "cmdline").read_bytes():
            found.append(int(folder.name))
    return found


@contextmanager
def in_the_middle(kind, source, folder, python):
    """A trainer that begins an episode, and forks; it is killed at the end. Gives what waits until it is there."""
    trainer = subprocess.Popen(
        [str(python), str(PROGRAM), kind, source],
        cwd=folder,  # where inspect keeps its logs
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def begun():
        assert trainer.stdout.readline() == "in the middle\n", f"{kind}: {trainer.communicate()[1]}"

    try:
        yield begun
    finally:
        trainer.send_signal(signal.SIGKILL)
        trainer.communicate()


async def check_local(kinds, folder, python=sys.executable):
    """Each with a config, and so a guardian, of its own. They are killed one after the other: none takes another's."""
    held = []
    for kind in kinds:
        mark = secrets.token_hex(8)
        config = folder / f"{kind}.toml"
        config.write_text(config_with(mark))
        trainers = ExitStack()
        held.append((trainers, trainers.enter_context(in_the_middle(kind, str(config), folder, python)), mark))
    with ExitStack() as all_of_them:
        for trainers, _, _ in held:
            all_of_them.push(trainers)
        for trainers, begun, mark in held:
            await trio.to_thread.run_sync(begun)
            [pid] = backends(mark)  # a fork that has ended has not taken it along
            trainers.close()
            await gone(pid)


async def check_served(kinds, folder, python=sys.executable):
    mark = secrets.token_hex(8)
    manager = muxsim_serve(folder, config_with(mark))
    server = await trio.to_thread.run_sync(manager.__enter__)
    try:
        with ExitStack() as trainers:
            for begun in [trainers.enter_context(in_the_middle(kind, server.url, folder, python)) for kind in kinds]:
                await trio.to_thread.run_sync(begun)
            pids = backends(mark)
            assert len(pids) == len(kinds)
        await gone(*pids, within=60 + 2 * LEASE)
        await eventually(lambda: len(log_lines(server, event="session.ended", cause="lease")) == len(kinds))
    finally:
        await trio.to_thread.run_sync(manager.__exit__, None, None, None)


async def test_a_trainer_that_is_killed_leaves_no_process_and_its_forks_take_none(tmp_path):
    await check_local(KINDS, tmp_path)


async def test_a_trainer_that_is_killed_loses_its_lease_on_what_is_served(tmp_path):
    await check_served(KINDS, tmp_path)


@pytest.mark.large
@pytest.mark.network
async def test_so_it_is_with_inspect(tmp_path):
    python = python_with("inspect", "inspect-ai==0.3.285", "pytest>=9", extras=("inspect",))
    await check_local(["inspect"], tmp_path, python)
    await check_served(["inspect"], tmp_path, python)
