"""The folders of sessions."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import trio

from muxsim.errors import PlaceError
from muxsim.inside.removal import remove_tree
from muxsim.processes.views import views_folder
from muxsim.runtime import descriptors
from muxsim.spec import EnvSpec
from muxsim.start.shortage import EXHAUSTED, no_more
from muxsim.start.template import Contents, TemplateFault, begin_as

# Of start_timeout for what a folder begins as: the process has to start within it too.
_SHARE_OF_START: Final = 0.9


_NOTHING: Final = Contents()


class Folders:
    """Makes folders in one of their own, and removes them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._left: list[Path] = []

    def make(self, env: str) -> Path:
        """A new one. Raises OSError."""
        return Path(tempfile.mkdtemp(prefix=f"{env}-", dir=self.root))

    async def begin(self, folder: Path, source: str, spec: EnvSpec, held: Contents = _NOTHING) -> Contents:
        """Have one, which began as ``held``, begin as the folder ``source``; "" is none.

        Raises `PlaceError` or `Busy`; what is in it is undefined then, or if this is cancelled.
        """
        if not source and not held.source:
            return held
        limit = _SHARE_OF_START * spec.limits.start_timeout
        who, why = f"environment {spec.name!r}: workspace_from", ""
        deadline = trio.current_time() + limit
        with trio.move_on_at(deadline):
            try:
                return await trio.to_thread.run_sync(
                    begin_as, source, str(folder), held, trio.from_thread.check_cancelled
                )
            except trio.Cancelled:
                if trio.current_time() < deadline:
                    raise
                # Late, whoever else's time is over by now: a disk may stand still for as long.
            except TemplateFault as fault:
                why = str(fault)
            except (OSError, RuntimeError) as error:  # a RuntimeError: there can be no more threads
                if not isinstance(error, OSError) or error.errno in EXHAUSTED:
                    raise no_more(f"{who}: {source} could not be copied: {error}") from error
                why = f"{source} could not be copied: {error}"
        late = f"{source} was not copied within {limit:g} s: take out what is not needed, or raise start_timeout"
        raise PlaceError(f"{who}: {why or late}")

    async def remove(self, folder: Path) -> None:
        """Remove one, whatever is in it, and what its session has in its views of others.

        Not to be cancelled, and never raises.
        """
        self._left.append(folder)
        # A folder has to be opened to be emptied. Without descriptors it stays until another one is removed.
        if descriptors.has_room():
            folders, self._left = self._left, []
            await remove_trees(folders)


async def remove_trees(folders: list[Path]) -> None:
    """Remove these with all that is in them, and that is theirs. Not to be cancelled, and never raises."""
    with trio.CancelScope(shield=True):
        try:
            await trio.to_thread.run_sync(_remove, folders)
        except RuntimeError:  # there can be no more threads
            _remove(folders)


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        # What is being removed by somebody else, say, is not worth a session's end.
        remove_tree(folder)
        remove_tree(views_folder(folder))
