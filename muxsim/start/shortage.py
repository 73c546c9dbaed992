"""What the machine may have no more of, for a while."""

from __future__ import annotations

import errno
from typing import Final

from muxsim.errors import Busy

EXHAUSTED: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.ETOOMANYREFS}
)
"""What a process cannot be started for that is the machine's fault, and may be over soon."""

# Seconds to come back after.
_RETRY: Final = 5.0


def no_more(text: str) -> Busy:
    """The refusal of a start that there is no room for."""
    return Busy(text, _RETRY)
