"""What sessions leave behind, and what they cost while nothing happens; tests/churn.py has longer runs."""

from __future__ import annotations

from contextlib import closing

import pytest
import trio
from churn import CONFIG, churn_fakes, churn_real, idle
from harness import Collector, serving

pytestmark = pytest.mark.children


@pytest.mark.fault("H11")
async def test_ten_thousand_sessions_that_come_and_go_leave_nothing_behind():
    """H11: with children in this process."""
    with trio.fail_after(600):
        report = await churn_fakes(10_000)
    assert report.faults() == [], report


@pytest.mark.fault("H11")
@pytest.mark.parametrize("env", ["minimal", "python"])
async def test_hundreds_of_sessions_with_real_children_leave_nothing_behind(tmp_path, env):
    """H11: over HTTP."""
    with trio.fail_after(600):
        with closing(Collector(tmp_path)) as collector:
            async with serving(tmp_path, CONFIG, env=collector.env) as server:
                report = await churn_real(320, server, collector, env)
    assert report.faults() == [], report


async def test_an_idle_session_costs_little_besides_its_process(tmp_path):
    with trio.fail_after(240):
        async with serving(tmp_path, CONFIG) as server:
            found = await idle(100, server, seconds=3)
    assert found.memory < 50 * 1024, found
    assert found.cpu < 0.02, found
    assert found.threads < 10, found
