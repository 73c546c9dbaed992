"""Tries the private folders that specs ask for before there is any session: in a process that does nothing there."""

from __future__ import annotations

import os
from pathlib import Path

from muxsim.inside.removal import remove_tree
from muxsim.processes.command import Command, ProcessStartError
from muxsim.processes.launcher import Launcher
from muxsim.processes.process import AT_ONCE
from muxsim.processes.views import ASKED, Manner, make_views, views_folder, why_not
from muxsim.spec import EnvSpec, fixed, has_placeholder


async def fault_of(spec: EnvSpec, launcher: Launcher, sessions: Path) -> str | None:
    """Why the kernel does not let a spec have what it asks for; None as far as that is not known before a session.

    ``sessions`` is where these will have their folders. Raises `NotPrivateError`.
    """
    known = tuple(fixed(folder) for folder in spec.private or () if not has_placeholder(folder))
    if not known:
        return None
    workspace = sessions / "trial"
    try:
        views = make_views(known, (), workspace, Manner.PRIVATE)
        process = await launcher.spawn(Command(("true",), {"PATH": os.defpath}, "/", views=views), session="trial")
    except OSError as error:
        if isinstance(error, ProcessStartError) and error.stage != ASKED:
            return None  # it is not about folders, and may be over when there is a session
        return f"{', '.join(known)}: {why_not(error.errno)}"
    finally:
        remove_tree(views_folder(workspace))
    await process.end(AT_ONCE)
    return None
