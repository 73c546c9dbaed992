"""The unit files for systemd, as its own checker reads them."""

from __future__ import annotations

import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
UNITS = ("muxsim.service", "muxsim.socket")


def settings(unit, section):
    parsed = ConfigParser(strict=True, interpolation=None)
    parsed.optionxform = str
    parsed.read(DEPLOY / unit)
    return parsed[section]


def test_systemd_finds_no_fault_in_the_units(tmp_path):
    for unit in UNITS:
        text = (DEPLOY / unit).read_text()
        # It asks whether the program is there, which on this machine is another one.
        (tmp_path / unit).write_text(text.replace("/opt/muxsim/bin/muxsim", f"{Path(sys.executable).parent}/muxsim"))
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit) for unit in UNITS)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),  # or a start is over before it serves
        ("Delegate", "yes"),  # or sessions have no bounds together
        ("KillMode", "mixed"),  # or backends are signalled before muxsim has answered their calls
        ("OOMPolicy", "continue"),  # or a session that is out of memory ends all
        ("RestartPreventExitStatus", "2"),  # which is that of a config with a fault
    ],
)
def test_the_service_has_what_muxsim_relies_on(key, value):
    assert settings("muxsim.service", "Service")[key] == value


def test_the_service_keeps_nothing_from_sessions_that_a_config_may_give_them():
    keys = settings("muxsim.service", "Service").keys()
    in_the_way = {
        *("ProtectControlGroups", "RestrictNamespaces", "SystemCallFilter", "MemoryDenyWriteExecute"),
        *("ProtectKernelTunables", "ProtectKernelLogs", "ProtectHostname", "ProtectProc", "ProcSubset"),
    }
    assert in_the_way & keys == set()
