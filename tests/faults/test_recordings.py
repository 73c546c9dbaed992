"""What `muxsim rollout` has on record is not lost by a full disk, nor by being killed while it writes."""

from __future__ import annotations

import random
import resource
import shutil
import subprocess
import time

import pytest
import trio
from cli.terminal import muxsim
from harness import MUXSIM
from rollout.runs import played, treasure
from serve.machine import descendants, gone

from muxsim.rollouts.data.run_folder import RunFolder

pytestmark = pytest.mark.children

LIMIT = 300  # s, on a machine that is busy with others
EPISODES = 8
KILLS = 3
OPTIONS = ("muxsim.toml", "--rollouts", str(EPISODES), "--max-steps", "6", "--output", "run")


@pytest.fixture
def folder(tmp_path):
    treasure(tmp_path)
    return tmp_path


@pytest.mark.fault("H4")
def test_h4_a_disk_that_is_full_loses_episodes_but_not_the_run_and_says_so(folder):
    """No file may grow past a limit that leaves room for some of the rows. With room again, the rest is played."""
    whole = muxsim(folder, "rollout", *OPTIONS)
    assert whole.status == 0
    size = (folder / "run" / "rollouts.jsonl").stat().st_size
    shutil.rmtree(folder / "run")
    limit = size // 2
    command = [*MUXSIM, "rollout", *OPTIONS]
    full = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    metrics, kept = RunFolder(folder / "run").metrics(), played(folder / "run")
    assert full.returncode == 1, full.stderr
    assert "Traceback" not in full.stderr
    assert "File too large" in full.stderr
    assert not metrics.complete
    assert metrics.lost == EPISODES - len(kept) > 0
    assert len(kept) > 0
    assert muxsim(folder, "rollout", *OPTIONS, "--resume").status == 0
    assert len(played(folder / "run")) == EPISODES
    assert RunFolder(folder / "run").metrics().complete


@pytest.mark.fault("H5")
def test_h5_a_run_killed_again_and_again_keeps_every_row_that_was_complete_and_is_finished_in_the_end(
    folder, monkeypatch
):
    monkeypatch.setenv("TMPDIR", str(folder))  # nobody is left to remove the folders of one that was killed
    lot, rows = random.Random(), folder / "run" / "rollouts.jsonl"
    seen = {}
    for kill in range(KILLS):
        process = subprocess.Popen(
            [*MUXSIM, "rollout", *OPTIONS, *(["--resume"] if kill else [])],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_rows(rows, len(seen) + lot.randint(0, 4), process)
        time.sleep(lot.random() * 0.05)  # any moment will do
        below = descendants(process.pid)
        process.kill()
        process.wait()
        trio.run(gone, *below)
        kept = played(folder / "run") if (folder / "run" / "config.json").exists() else {}
        assert seen.keys() <= kept.keys()
        assert all(kept[id].session == seen[id] for id in seen)
        complete = rows.read_bytes().count(b"\n") if rows.exists() else 0
        assert len(kept) == complete
        seen = {id: one.session for id, one in kept.items()}
    assert muxsim(folder, "rollout", *OPTIONS, "--resume").status == 0
    finished = played(folder / "run")
    assert len(finished) == EPISODES
    assert {id: finished[id].session for id in seen} == seen


@pytest.mark.fault("H5")
def test_h5_wherever_a_row_is_torn_the_rows_before_it_are_read(folder):
    assert muxsim(folder, "rollout", *OPTIONS[:2], "3", *OPTIONS[3:]).status == 0
    file = folder / "run" / "rollouts.jsonl"
    whole = file.read_bytes()
    for _ in range(100):
        torn = whole[: random.randrange(len(whole) + 1)]
        file.write_bytes(torn)
        assert len(list(RunFolder(folder / "run").trajectories())) == torn.count(b"\n")


def wait_for_rows(file, count, process):
    """Wait until so many rows are on record, or the run is over."""
    deadline = time.monotonic() + LIMIT
    while process.poll() is None and (not file.exists() or file.read_bytes().count(b"\n") < count):
        assert time.monotonic() < deadline
        time.sleep(0.005)
