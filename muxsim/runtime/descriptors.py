"""How many files this process may have open, and whether there is room for those of one more session."""

from __future__ import annotations

import os
import resource
from typing import Final

from muxsim.inside.descriptors import close

OF_A_SESSION: Final = 6
"""Of each session: three pipes and the handle of its process. Of its clients: a connection or two."""

SPARE: Final = 64
"""What stays free for connections, so that who is refused a session can be told so; with few to share, an eighth."""


def raise_limit() -> None:
    """Let this process open as many files as it may. Children started before keep the limit they have.

    The usual 1,024 are there for programs that use select(), and would do for 170 sessions.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def has_room() -> bool:
    """Whether another session's descriptors would leave enough for connections."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        lowest = os.open("/", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False
    close(lowest)
    # A new one gets the lowest number that is free.
    return lowest + OF_A_SESSION <= limit - min(SPARE, limit // 8)
