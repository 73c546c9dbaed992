"""An adapter whose trainer is not installed says what installs it."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.children


@pytest.mark.parametrize(
    ("adapter", "missing", "extra"),
    [
        ("gymnasium_env", "gymnasium", "gymnasium"),
        ("gymnasium_env", "numpy", "gymnasium"),
        ("sb3_vector", "stable_baselines3", "sb3"),
        ("inspect_solver", "inspect_ai", "inspect"),
        ("skyrl_text_env", "skyrl_gym", "skyrl"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(adapter, missing, extra):
    program = f"import sys; sys.modules[{missing!r}] = None; import muxsim.adapters.{adapter}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    last = ended.stderr.splitlines()[-1]
    assert last == (
        f"ModuleNotFoundError: muxsim.adapters.{adapter} needs {missing}: pip install 'mcp-muxsim[{extra}]'"
    )
