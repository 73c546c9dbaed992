"""The dashboard and the pages of runs in Chromium: what is tested stands in `dashboard/e2e`, which Vitest runs."""

import subprocess
from pathlib import Path

import pytest
import trio

pytestmark = [pytest.mark.children, pytest.mark.browser]

DASHBOARD = Path(__file__).parents[2] / "dashboard"
# Seconds.
DEADLINE = 600


@pytest.mark.parametrize("tests", ["pages", "live", "playground", "runs"])
async def test_the_pages_hold_in_chromium(tests):
    command = ["npm", "run", "--silent", "--prefix", str(DASHBOARD), "e2e", "--", tests]
    with trio.fail_after(DEADLINE):
        done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout.decode()
