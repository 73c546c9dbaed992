"""``muxsim replay``: play a run's actions again and compare."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from muxsim.cli.notes import tell_notes
from muxsim.config import load
from muxsim.errors import MuxsimError
from muxsim.rollouts.data.images import reference, with_references
from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.environments.environment import EnvironmentPool
from muxsim.rollouts.environments.pool import open_pool
from muxsim.rollouts.environments.remote import Wire, connect
from muxsim.rollouts.play.replay import Replayed, replay


def run(
    folder: Path, config: Path | None, url: str | None, wire: Wire, max_concurrent: int, token: str | None
) -> list[Replayed]:
    """Replay every valid episode of a run. Raises `MuxsimError` if it cannot begin."""
    return trio.run(_run, RunFolder(folder), config, url, wire, max_concurrent, token)


async def _run(
    folder: RunFolder, config: Path | None, url: str | None, wire: Wire, max_concurrent: int, token: str | None
) -> list[Replayed]:
    trajectories = [trajectory for trajectory in folder.trajectories() if trajectory.valid]
    if not trajectories:
        raise MuxsimError(f"{folder.path} has no valid episode to replay")
    async with _pool(folder, config, url, wire, max_concurrent, token) as pool:
        return await replay(pool, trajectories, content_of=_as_stored, max_concurrent=max_concurrent)


def _as_stored(block: dict[str, Any]) -> dict[str, Any]:
    """A content block as a run's rows have it: images by the hash of their file."""
    stored: dict[str, Any] = with_references(block, reference)
    return stored


@asynccontextmanager
async def _pool(
    folder: RunFolder, config: Path | None, url: str | None, wire: Wire, max_concurrent: int, token: str | None
) -> AsyncIterator[EnvironmentPool]:
    """The pool that was named, else the one that the run was made with."""
    url = url or (folder.config.url if config is None else "")
    if url:
        async with connect(url, wire=wire, max_sessions=max_concurrent, token=token) as remote:
            yield remote
        return
    loaded = load(config or Path(folder.config.config))
    tell_notes(loaded)
    async with open_pool(loaded, max_sessions=max_concurrent) as pool:
        yield pool
