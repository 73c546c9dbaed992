"""A launcher whose processes are all gone afterwards."""

import os

import pytest

from muxsim.inside import proc
from muxsim.observe.counters import Counters
from muxsim.processes.launcher import Launcher
from processes.launching import BRISK, open_descriptors, unswept


@pytest.fixture
def no_leaks():
    descriptors, children = open_descriptors(), proc.children_of(os.getpid())
    yield
    assert open_descriptors() == descriptors
    assert proc.children_of(os.getpid()) == children


@pytest.fixture
async def launcher():
    async with Launcher.open(end_times=BRISK, emit=Counters()) as launcher:
        yield launcher
    assert proc.marked(launcher._token) == {}
    assert unswept(launcher) == 0
