"""What is left of a launcher that was killed, and is removed for it."""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

from muxsim.inside.confine import enter_cgroup

ITSELF = "itself"
"""Name of the cgroup, in a pool's, that the launcher and we are in where we had to leave the one above."""


class Estate(NamedTuple):
    """What the launcher leaves if it is killed: its sessions' folder and cgroup, or "" where it has none."""

    folder: str = ""
    cgroup: str = ""

    def clear(self) -> None:
        """Remove them, when nothing runs there any more. A launcher that lives does that itself, and may do it too."""
        if self.cgroup:
            clear_cgroup(self.cgroup)
        if self.folder:
            # Only at the end: it would be in every fork's memory.
            from muxsim.inside.removal import remove_tree  # noqa: PLC0415

            remove_tree(self.folder)


def clear_cgroup(folder: str) -> None:
    """Remove a pool's group as cgroups.py lays it out, whose last process we may be ourselves."""
    try:
        groups = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:  # it has been removed
        return
    if os.path.join(folder, ITSELF) in groups:
        # It was made to hand out controllers above, and nobody can go back there as long as they are.
        above = os.path.dirname(folder)
        stop_handing_out(folder)
        stop_handing_out(above)
        with contextlib.suppress(OSError):
            enter_cgroup(above)
    for group in (*groups, folder):
        with contextlib.suppress(OSError):  # somebody is in it still: the next muxsim finds it
            os.rmdir(group)


def stop_handing_out(folder: str) -> None:
    path = os.path.join(folder, "cgroup.subtree_control")
    with contextlib.suppress(OSError):
        with open(path, "rb") as file:
            handed_out = file.read().split()
        with open(path, "wb", buffering=0) as file:
            file.write(b" ".join(b"-" + name for name in handed_out))
