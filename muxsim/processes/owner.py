"""Whose a process, a folder or a cgroup is: told by a launcher's token, never by a name.

The token says which process the launcher is: pid, start time and pid namespace, so one process ever.
"""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass
from typing import Final

from muxsim.inside.proc import MARK, environment, read_stat

GUARDIAN_MARK: Final = "MUXSIM_GUARDIAN"
"""Environment variable of every guardian: its launcher's token."""

_TOKEN: Final = re.compile(r"(\d+)-(\d+)-(\d+)-[0-9a-f]{8}")
_NAMED: Final = "muxsim-"
_MARKED: Final = re.compile(rb"\0(?:%b|%b)=([0-9a-f-]+)[.\0]" % (MARK.encode(), GUARDIAN_MARK.encode()))


@dataclass(frozen=True)
class Owner:
    """A launcher's process: its pid, its start in clock ticks since boot, and the namespace that the pid is of."""

    pid: int
    started: int
    namespace: int

    def is_gone(self) -> bool:
        """Whether it has ended. Of a process of another namespace that cannot be known, so it has not."""
        if self.namespace != _namespace():
            return False
        found = read_stat(self.pid)
        return found is None or found.started != self.started or found.state in (b"Z", b"X")


def new_token() -> str:
    """A token for a launcher in this process, for `MUXSIM_PROCESS` of all it starts."""
    pid = os.getpid()
    found = read_stat(pid)
    return f"{pid}-{found.started if found else 0}-{_namespace()}-{secrets.token_hex(4)}"


def new_name() -> str:
    """A name for a folder or a cgroup of this process."""
    return _NAMED + new_token()


def owner_of(token: str) -> Owner | None:
    """The process that made a token; None for anything else."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else Owner(int(found[1]), int(found[2]), int(found[3]))


def owner_by_name(name: str) -> Owner | None:
    """The process that a folder or a cgroup of this name is of; None if it is no muxsim's."""
    return owner_of(name.removeprefix(_NAMED)) if name.startswith(_NAMED) else None


def owner_by_mark(pid: int) -> Owner | None:
    """Whose launcher started a process, or what it comes from; None if no muxsim did."""
    found = _MARKED.search(environment(pid))
    return None if found is None else owner_of(found[1].decode())


def _namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
