"""A launcher whose processes are all gone afterwards."""

import os

import pytest

from muxsim.inside import proc
from muxsim.processes.launcher import Launcher
from processes.launching import BRISK, open_descriptors


@pytest.fixture
def no_leaks():
    descriptors, children = open_descriptors(), proc.children_of(os.getpid())
    yield
    assert open_descriptors() == descriptors
    assert proc.children_of(os.getpid()) == children


@pytest.fixture
async def launcher():
    async with Launcher.open(end_times=BRISK) as launcher:
        yield launcher
    assert proc.marked(launcher._token) == {}
    assert launcher.statistics().unswept == 0
