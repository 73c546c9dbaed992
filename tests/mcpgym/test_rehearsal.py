"""A rehearsal leaves nothing behind but what is ready in memory."""

import subprocess
import sys

import pytest

from muxsim.mcpgym import rehearsal

# In an interpreter of its own, where nothing else has been imported or changed.
LOOK = """
import asyncio, contextvars, gc, logging, os, pathlib, random, signal, sys, threading, warnings

import gymnasium
import numpy as np

import muxsim.mcpgym


def all_that_may_not_change():
    return {
        "descriptors": {name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")},
        "threads": (len(os.listdir("/proc/self/task")), threading.enumerate()),
        "children": pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text(),
        "random": random.getstate(),
        "numpy": repr(np.random.get_state()),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "hooks": (sys.get_asyncgen_hooks(), sys.excepthook, sys.unraisablehook, threading.excepthook),
        "policy": asyncio.events._event_loop_policy,
        "warnings": (list(warnings.filters), warnings.showwarning),
        "logging": (logging.root.handlers, logging.root.level, logging.raiseExceptions),
        "environment": (dict(os.environ), os.getcwd(), list(sys.argv), list(sys.path)),
        "context": dict(contextvars.copy_context()),
        "registry": dict(gymnasium.registry),
        "collector": (gc.isenabled(), gc.get_freeze_count(), gc.get_threshold()),
        "printing": np.get_printoptions(),
        "errors": np.geterr(),
    }


np.random.seed(5)
random.seed(5)
all_that_may_not_change()
before = all_that_may_not_change()
import muxsim.mcpgym.rehearsal
after = all_that_may_not_change()
for what in before:
    assert before[what] == after[what], (what, before[what], after[what])
assert signal.set_wakeup_fd(-1) == -1
"""


@pytest.mark.children
def test_nothing_is_left_of_a_rehearsal_and_nothing_is_said():
    seen = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOOK], capture_output=True, text=True, timeout=60, check=False
    )
    assert (seen.returncode, seen.stdout, seen.stderr) == (0, "", "")


def test_it_goes_all_the_way_again_and_again(monkeypatch):
    asked = []
    request = rehearsal._request
    monkeypatch.setattr(rehearsal, "_request", lambda *one: asked.append(one[1]) or request(*one))
    rehearsal.rehearse()
    rehearsal.rehearse()
    assert asked.count("initialize") == asked.count("server/discover") == 2
    assert asked.count("tools/call") == 2 * 2 * rehearsal._STEPS


def test_a_call_that_fails_is_an_error(monkeypatch):
    monkeypatch.setattr(rehearsal._Line, "step", lambda self, action: ("not", "a", "step"))
    with pytest.raises(RuntimeError, match="tools/call has failed in the rehearsal"):
        rehearsal.rehearse()
    monkeypatch.undo()
    rehearsal.rehearse()


def test_it_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(rehearsal, "_LONGEST", 0.05)
    monkeypatch.setattr(rehearsal, "_with_handshake", lambda: iter([{"jsonrpc": "2.0", "id": 0, "result": {}}]))
    with pytest.raises(TimeoutError):
        rehearsal.rehearse()
