"""On which core a process that is woken goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from muxsim.supervise.guardian import LIBC


@contextmanager
def woken_elsewhere(pid: int) -> Iterator[None]:
    """Whoever of `pid` is woken in this block, which does not wait, runs on another core than this thread.

    Linux wakes the reader of a pipe on the writer's core, which is right for a writer that is about to wait. One that
    is not makes its reader wait: over a millisecond where the cores have no cache in common that the kernel knows of,
    as in many virtual machines. Nothing is changed for good, and nothing at all where there is no other core.
    """
    cores, others = _cores_of(pid)
    try:
        _keep_to(pid, others)
        yield
    finally:
        _keep_to(pid, cores if others else set())


def _cores_of(pid: int) -> tuple[set[int], set[int]]:
    """Where a process may run, and which of that is not here."""
    try:
        cores = os.sched_getaffinity(pid)
    except OSError:  # it has gone
        return set(), set()
    return cores, cores - {LIBC.sched_getcpu()} if LIBC is not None else set()


def _keep_to(pid: int, cores: set[int]) -> None:
    if cores:
        with suppress(OSError):  # it has gone, or is another user's
            os.sched_setaffinity(pid, cores)
