"""``muxsim replay``: play a run's actions again and compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from muxsim.cli.named_pool import named_pool
from muxsim.cli.options import Remote
from muxsim.errors import MuxsimError
from muxsim.rollouts.data.images import reference, with_references
from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.play.replay import Replayed, replay


def run(folder: Path, config: Path | None, remote: Remote, max_concurrent: int) -> list[Replayed]:
    """Replay every valid episode of a run where it says, else where it was made.

    Raises `MuxsimError` if it cannot begin.
    """
    made = RunFolder(folder)
    if config is None and not remote.url:
        config, remote = Path(made.config.config), replace(remote, url=made.config.url)
    return trio.run(_run, made, config, remote, max_concurrent)


async def _run(folder: RunFolder, config: Path | None, remote: Remote, max_concurrent: int) -> list[Replayed]:
    trajectories = [trajectory for trajectory in folder.trajectories() if trajectory.valid]
    if not trajectories:
        raise MuxsimError(f"{folder.path} has no valid episode to replay")
    async with named_pool(config, remote, max_concurrent) as pool:
        return await replay(pool, trajectories, content_of=_as_stored, max_concurrent=max_concurrent)


def _as_stored(block: dict[str, Any]) -> dict[str, Any]:
    """A content block as a run's rows have it: images by the hash of their file."""
    stored: dict[str, Any] = with_references(block, reference)
    return stored
