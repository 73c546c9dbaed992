"""An adapter whose trainer is not installed says what installs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.children
LIMIT = 300


@pytest.mark.parametrize(
    ("adapter", "missing", "remedy"),
    [
        ("gymnasium_env", "gymnasium", "pip install 'mcp-muxsim[gymnasium]'"),
        ("gymnasium_env", "numpy", "pip install 'mcp-muxsim[gymnasium]'"),
        ("sb3_vector", "stable_baselines3", "pip install 'mcp-muxsim[sb3]'"),
        ("inspect_solver", "inspect_ai", "pip install 'mcp-muxsim[inspect]'"),
        ("skyrl_text_env", "skyrl_gym", "pip install 'mcp-muxsim[skyrl]'"),
        ("verl_loop", "verl", "pip install verl"),
        ("nemo_server", "nemo_gym", "pip install nemo-gym"),
        ("rllm_flow", "rllm", "it is not on PyPI, see docs/adapters/trainers.md"),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(adapter, missing, remedy):
    program = f"import sys; sys.modules[{missing!r}] = None; import muxsim.adapters.{adapter}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=LIMIT)
    last = ended.stderr.splitlines()[-1]
    said, _, told = last.partition(": ")[2].partition(": ")
    assert (said.partition(f" {missing}")[0], told) == (f"muxsim.adapters.{adapter} needs", remedy)
