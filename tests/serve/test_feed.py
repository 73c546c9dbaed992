"""What the dashboard is told, and what its page takes it for."""

import sys
from pathlib import Path

import msgspec
import trio

from muxsim.serve.watch import feed

ROOT = Path(__file__).parents[2]


async def test_the_types_of_the_page_are_those_of_the_server():
    run = await trio.run_process(
        [sys.executable, "scripts/generate_feed.py", "--check"], check=False, cwd=ROOT, capture_stderr=True
    )
    assert (run.returncode, run.stderr) == (0, b"")


async def test_every_fact_is_told_as_json_with_all_its_fields():
    row = feed.SessionRow(
        id="a", env="lake", seed=0, owner=None, state="ready", since=1.0, opened=1.0, calls=0, in_flight=0, end=None,
        failed=False,
    )  # fmt: skip
    assert set(msgspec.json.decode(msgspec.json.encode(row))) == set(row.__struct_fields__)
