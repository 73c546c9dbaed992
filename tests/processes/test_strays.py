"""How it is known which processes a dead muxsim has left, and that nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from muxsim.processes.owner import Owner, new_token, owner_by_mark, owner_of
from muxsim.processes.strays import end_strays, find_strays
from processes.owners import dead_owner, token_of

SLEEP = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
STUBBORN = [
    *SLEEP[:-1],
    "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)",
]
SHELL = ["sh", "-c", "sleep 60 & wait"]


@contextmanager
def marked(token, argv=SLEEP, mark="MUXSIM_PROCESS", number=".7"):
    """A process that was started under this token."""
    env = {**os.environ, mark: f"{token}{number}"}
    process = subprocess.Popen(argv, env=env, start_new_session=True, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.children
@pytest.mark.parametrize("mark", [("MUXSIM_PROCESS", ".7"), ("MUXSIM_GUARDIAN", "")], ids=["backend", "guardian"])
def test_a_process_whose_launcher_is_gone_is_a_stray_with_all_below_it(mark):
    owner = dead_owner()
    with marked(token_of(owner), SHELL, *mark) as process:
        found = []
        while "sleep 60" not in {one.command for one in found}:  # it is a copy of the shell for a moment
            found = [one for one in find_strays(os.getpid()) if one.owner == owner]
        assert process.pid in {one.pid for one in found}
        assert all(0 <= one.age < 60 for one in found)
        assert end_strays(found) == []
        assert process.wait(60) == -15


@pytest.mark.children
def test_a_stray_that_began_after_the_look_at_the_clock_is_of_no_age(monkeypatch):
    owner = dead_owner()
    monkeypatch.setattr(time, "clock_gettime", lambda _: 0.0)
    with marked(token_of(owner), STUBBORN) as process:
        process.stdout.readline()
        found = [one for one in find_strays() if one.owner == owner]
        assert [one.age for one in found] == [0.0]
        end_strays(found, polite=0.1)


@pytest.mark.children
def test_a_stray_that_ignores_a_sigterm_is_killed():
    owner = dead_owner()
    with marked(token_of(owner), STUBBORN) as process:
        process.stdout.readline()
        assert end_strays([one for one in find_strays() if one.owner == owner], polite=0.1) == []
        assert process.wait(60) == -9


@pytest.mark.children
def test_who_has_a_launcher_or_no_mark_or_a_strange_one_is_no_stray():
    foreign = Owner(1, 1, owner_of(new_token()).namespace + 1)
    tokens = (new_token(), token_of(foreign), "0123456789abcdef", "")
    for token in tokens:
        with marked(token) as process:
            assert process.pid not in {one.pid for one in find_strays()}


@pytest.mark.children
def test_a_live_launchers_process_below_a_stray_is_spared():
    """A muxsim that runs in an environment of another one, say."""
    script = f"import os, subprocess; subprocess.run({SLEEP!r}, env={{'MUXSIM_PROCESS': {new_token() + '.1'!r}}})"
    owner = dead_owner()
    with marked(token_of(owner), [sys.executable, "-c", script]) as process:
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        below = []
        while not below or owner_by_mark(int(below[0])) == owner:  # it is a copy of its parent for a moment
            below = open(children).read().split()  # noqa: SIM115
        assert int(below[0]) not in {one.pid for one in find_strays()}
        os.kill(int(below[0]), 9)


@pytest.mark.children
def test_nobody_reaps_itself_or_what_it_runs_in():
    found = [sys.executable, "-c", "from muxsim.processes.strays import find_strays; print(find_strays())"]
    owner = dead_owner()
    env = {**os.environ, "MUXSIM_PROCESS": f"{token_of(owner)}.1"}
    said = subprocess.run(found, env=env, capture_output=True, text=True, check=True).stdout
    assert f"pid={owner.pid}" not in said
