"""Descriptors: to close one for good, and those that a child begins with."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

STREAMS = 3
"""Standard input, output and error."""

CHANNEL = 3
"""The descriptor of a child's channel: no standard one, which any library may read, write or close."""


def close(fd: int) -> None:
    """Close a descriptor, which Linux does also where it says that something went wrong on the way."""
    try:
        os.close(fd)
    except OSError as error:
        if error.errno == errno.EBADF:  # it was closed before, and may be somebody else's by now: a bug of ours
            raise


def give(fds: Sequence[int], report: int) -> int:
    """Make these the child's first descriptors; returns where the report's is now, which may be in the way."""
    if report < len(fds):
        report = os.dup(report)  # no exec has it, and those below are taken
    for target, fd in enumerate(fds):
        if fd == target:
            os.set_inheritable(fd, True)
        else:
            os.dup2(fd, target)
    return report
