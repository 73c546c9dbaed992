"""Framing, envelope and event streams under bytes of every kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from .strategies import LINES
from .targets import TARGETS

FIELDS = st.sampled_from([b"data:", b"data: x", b"\n", b"\r\n", b"id: 1", b": ping", b"\n\n", b"event"])
EVENTS = st.lists(FIELDS | LINES).map(b"".join)
STREAMS = st.lists(st.sampled_from([b"\n", b"\r\n", b" ", b"x" * 200]) | LINES, max_size=6).map(b"".join)


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.one_of(LINES, STREAMS, EVENTS))
@example(data=b'{"jsonrpc":"2.0","id":%b,"method":"ping"}' % (b"9" * 5000))
@example(data=b'{"jsonrpc":"2.0","id":1,"id":"1","method":"ping","method":"x"}')
@example(data=b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}')
@example(data=b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}')
@example(data=b'{"jsonrpc":"2.0","id":-0,"method":"ping"}')
@example(data=b'{"jsonrpc":"2.0","id":1e2,"method":"ping"}')
@example(data=b'{"\\u006asonrpc":"2.0","id":1,"method":"ping"}')
@example(data=b"\x00")
@settings(max_examples=200)
def test_no_bytes_bring_out_more_than_a_refusal(target, data):
    TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_a_search_for_new_lines_finds_no_bytes_that_break_a_promise(target, tmp_path):
    pytest.importorskip("atheris", reason="atheris has wheels for few platforms; `uv pip install atheris` where it has")
    command = [
        sys.executable,
        str(Path(__file__).with_name("by_coverage.py")),
        target,
        "-max_total_time=5",
        "-max_len=4096",
    ]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    finished = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
