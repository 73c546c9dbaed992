"""The table of bounds is whole: each is a setting, and each setting that bounds something is in it."""

from __future__ import annotations

import dataclasses

from muxsim.config import ServerSettings
from muxsim.limits import CONNECTIONS, OPENS, PROCESSES, SERVER, SESSIONS
from muxsim.spec import Confinement, Limits

BOUNDS = {*CONNECTIONS, *OPENS, *SERVER, *SESSIONS, *PROCESSES}
# Numbers that say how, or are a part of another bound; and what the kernel refuses to a process, which no one counts.
NO_BOUNDS = {
    *("port", "stream_silence", "ping_interval", "opens_burst", "failed_start_window", "history", "log_kept"),
    *("install_timeout", "eof_timeout", "term_timeout", "stderr_lines", "nice"),
    *("network", "max_cpus", "max_processes", "max_address_space", "max_open_files"),
}


def numbers():
    for settings in (ServerSettings, Limits, Confinement):
        for field in dataclasses.fields(settings):
            if "int" in str(field.type) or "float" in str(field.type):
                yield field.name


def test_every_setting_that_is_a_number_is_a_bound_with_a_counter_or_known_to_be_none():
    assert {name for name in numbers() if name not in BOUNDS | NO_BOUNDS} == set(), "add it to muxsim/limits.py"
    assert {name for name in BOUNDS if name not in set(numbers())} == set()
