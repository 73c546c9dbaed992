"""The folders of sessions."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import trio

from muxsim.runtime import descriptors


class Folders:
    """Makes folders in one of their own, and removes them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._left: list[Path] = []

    def make(self, env: str) -> Path:
        """A new one. Raises OSError."""
        return Path(tempfile.mkdtemp(prefix=f"{env}-", dir=self.root))

    async def remove(self, folder: Path) -> None:
        """Remove one, whatever is in it. Not to be cancelled, and never raises."""
        self._left.append(folder)
        # A folder has to be opened to be emptied. Without descriptors it stays until another one is removed.
        if descriptors.has_room():
            folders, self._left = self._left, []
            await remove_trees(folders)


async def remove_trees(folders: list[Path]) -> None:
    """Remove these with all that is in them. Not to be cancelled, and never raises."""
    with trio.CancelScope(shield=True):
        try:
            await trio.to_thread.run_sync(_remove, folders)
        except RuntimeError:  # there can be no more threads
            _remove(folders)


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        # What a backend left read-only, or is being removed by somebody else, is not worth a session's end.
        shutil.rmtree(folder, ignore_errors=True)
