"""The page on the Python interface: its programs run, and it has every option that there is."""

import re
import subprocess
import sys
from dataclasses import fields

import pytest
from harness import ROOT

from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.data.trajectory import Trajectory
from muxsim.rollouts.environments.environment import Opened, ToolResult
from muxsim.rollouts.play.options import RolloutOptions
from muxsim.rollouts.policy.openai import OpenAIPolicy, PolicyStatistics
from muxsim.rollouts.policy.protocol import Reply

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def is_told(name, page):
    return re.search(rf"\b{name}\b", page) is not None


@pytest.mark.children
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.split("async def main")[0].split()[-1])
def test_each_program_on_the_page_runs(program):
    ran = subprocess.run(
        [sys.executable, "-c", program], check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout


@pytest.mark.parametrize("kind", [OpenAIPolicy, PolicyStatistics, RolloutOptions, Reply, ToolResult, Opened])
def test_every_field_is_on_the_page(kind):
    names = [field.name for field in fields(kind)]
    assert [name for name in names if not is_told(name, PAGE)] == []


def test_every_method_of_a_run_is_on_the_page():
    methods = [name for name in vars(RunFolder) if not name.startswith("_")]
    assert [name for name in methods if not is_told(name, PAGE)] == []


def test_every_field_of_a_trajectory_is_on_the_page_of_rollouts():
    page = (ROOT / "docs" / "rollouts.md").read_text(encoding="utf-8")
    assert [name for name in Trajectory.__struct_fields__ if not is_told(name, page)] == []
