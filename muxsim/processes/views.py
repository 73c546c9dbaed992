"""Which views of folders a backend has (inside/views.py): those its spec asks for, and of what muxsim has installed.

What was asked for is had, or nothing starts. What muxsim installed cannot be written to where there are no views, and
where not even that can be had it is as the disk has it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Final

from muxsim.inside.views import View
from muxsim.observe.events import Listener, NotPrivate
from muxsim.processes.command import ProcessStartError
from muxsim.spec import EnvSpec

ASKED: Final = "private"
INSTALLED: Final = "installed"
"""The stages of a start at which a view cannot be had: one that was asked for, and one that was not."""

# What the kernel may have again the next time.
_FOR_NOW: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC})
_DIGITS: Final = 16
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class Manner(Enum):
    """How sessions see what was installed for them."""

    PRIVATE = "each its own view of it"
    READ_ONLY = "read-only"
    AS_IT_IS = "as the disk has it, for all"


class NotPrivateError(Exception):
    """A folder cannot be private; says which and what to do."""


def views_folder(workspace: Path) -> Path:
    """Where what is written in the views of a session goes that has this workspace, which does not show it."""
    return workspace.with_name(f"{workspace.name}.private")


class Views:
    """The views of a pool's backends."""

    def __init__(self, tell: Listener) -> None:
        self._tell = tell
        self._manners: dict[str, Manner] = {}
        self._told: set[str] = set()

    def manners(self, spec: EnvSpec) -> list[Manner]:
        """How what was installed may be seen, the best that is not known to be impossible first."""
        if not installed_of(spec):
            return [Manner.PRIVATE]
        manners = list(Manner)
        return manners[manners.index(self._manners.get(spec.name, Manner.PRIVATE)) :]

    def settle(self, spec: EnvSpec, manner: Manner, error: ProcessStartError) -> None:
        """Take note that no better manner can be had, at least for now, and tell it once."""
        if error.errno not in _FOR_NOW:
            self._manners[spec.name] = manner
        if spec.name not in self._told:
            self._told.add(spec.name)
            self._tell(NotPrivate(spec.name, installed_of(spec), why_not(error.errno), manner.value))


def installed_of(spec: EnvSpec) -> tuple[str, ...]:
    """What was installed for an environment and is to be private, which an empty `private` switches off."""
    return () if spec.private == () else spec.installed


def make_views(asked: Iterable[str], installed: Iterable[str], workspace: Path, manner: Manner) -> tuple[View, ...]:
    """The views of a backend of the session that has this workspace, with folders for what it writes.

    Raises `NotPrivateError`, or OSError.
    """
    made = []
    installed = () if manner is Manner.AS_IT_IS else installed
    for folder, was_asked in covered(asked, installed, workspace.parent):
        written = was_asked or manner is Manner.PRIVATE
        upper, work = _layers(views_folder(workspace), folder) if written else ("", "")
        anyway = written and not os.stat(folder).st_mode & stat.S_IWUSR
        made.append(View(folder, upper, work, was_asked, anyway))
    return tuple(made)


def _layers(own: Path, folder: str) -> tuple[str, str]:
    """Where what is written there goes: where it went before, if the session has had another backend."""
    layers = own / hashlib.sha256(os.fsencode(folder)).hexdigest()[:_DIGITS]
    upper = layers / "upper"
    if not upper.exists():
        upper.mkdir(mode=0o700, parents=True)
        _look_like(folder, upper)
    return str(upper), tempfile.mkdtemp(prefix="work-", dir=layers)


def _look_like(folder: str, upper: Path) -> None:
    """What the folder of a view itself looks like is what this does."""
    found = os.stat(folder)
    if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
        os.chown(upper, found.st_uid, found.st_gid)
    os.chmod(upper, found.st_mode & 0o7777)
    os.utime(upper, ns=(found.st_atime_ns, found.st_mtime_ns))


# ---- which folders


def covered(asked: Iterable[str], installed: Iterable[str], sessions: Path) -> list[tuple[str, bool]]:
    """The real folders to have views of, those below others after them, and whether each was asked for.

    ``sessions`` is where all sessions have their folders. Raises `NotPrivateError`.
    """
    own = os.path.realpath(sessions)
    wanted = {os.path.realpath(folder): False for folder in installed if os.path.isdir(folder)}
    wanted = {folder: False for folder in wanted if not _meet(folder, own)}
    wanted |= {_real_folder(folder, own): True for folder in asked}
    found: list[tuple[str, bool]] = []
    for folder in outermost(wanted):
        strict = any(wanted[other] for other in wanted if within(other, folder))
        try:
            found += [(place, strict) for place in (folder, *mounted_below(folder))]
        except NotPrivateError:
            if strict:
                raise
    return found


def _real_folder(folder: str, sessions: str) -> str:
    real = os.path.realpath(folder)
    if not os.path.isdir(real):
        advice = "is a file: name its folder" if os.path.exists(real) else "is not there: make it, or correct its name"
        raise NotPrivateError(f"{folder} {advice}")
    if within(sessions, real):
        advice = "name folders below it, or another TMPDIR for muxsim"
        raise NotPrivateError(f"{folder} has the folders of sessions in it ({sessions}): {advice}")
    if within(real, sessions):
        raise NotPrivateError(f"{folder} is among the folders of sessions, which are each one's own: take it out")
    return real


def _meet(one: str, other: str) -> bool:
    return within(one, other) or within(other, one)


def outermost(folders: Iterable[str]) -> list[str]:
    """Those that are in no other of them."""
    found: list[str] = []
    for folder in sorted(folders):
        if not any(within(folder, other) for other in found):
            found.append(folder)
    return found


def within(path: str, folder: str) -> bool:
    """Whether a path is the folder or below it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def mounted_below(folder: str) -> list[str]:
    """What is mounted below a folder, of which a view would not show what is there. Raises `NotPrivateError`."""
    places = sorted({place for place in _mount_points() if place != folder and within(place, folder)})
    for place in places:
        if not os.path.isdir(place):
            raise NotPrivateError(f"{folder} has a file mounted in it, {place}: name folders below it")
    return places


def are_had(views: Iterable[View], pid: int) -> bool:
    """Whether a process has these views still: one whose folder is moved or removed goes with that."""
    wanted = {view.folder for view in views}
    if not wanted:
        return True
    try:
        return wanted.issubset(_mount_points(str(pid)))
    except OSError:
        return False


def _mount_points(process: str = "self") -> Iterator[str]:
    with open(f"/proc/{process}/mountinfo", "rb") as file:
        for line in file:
            yield _ESCAPED.sub(lambda code: chr(int(code[1], 8)), os.fsdecode(line.split(b" ", 5)[4]))


# ---- why they cannot be had


def why_not(number: int | None) -> str:
    """Why the kernel gives no view of a folder, which it has refused with this errno, and what to do."""
    return f"{os.strerror(number or errno.EPERM)}; {remedy(number)}"


def remedy(number: int | None) -> str:
    """What to do about that."""
    return _forbidden() if number in (errno.EPERM, errno.EACCES) else _REMEDIES.get(number or 0, _OTHERWISE)


_OTHERWISE: Final = "see whether overlayfs takes the file systems of the folder and of TMPDIR"
_REMEDIES: Final = {
    errno.ENOSPC: "see whether there may be more namespaces (user.max_user_namespaces, user.max_mnt_namespaces)",
    errno.EUSERS: "user namespaces are too deep in others here",
    errno.ENODEV: "the kernel has no overlayfs (modprobe overlay)",
    errno.ENOSYS: "the kernel has no mount namespaces, or the interpreter no ctypes",
    errno.EINVAL: "overlayfs does not take the file system of the folder, or of TMPDIR (an overlay itself, as in a"
    " container, or one on the network): name another TMPDIR",
}

# What forbids namespaces to those who are not root: a setting, the value that does, and what lets them.
_FORBIDDING: Final = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "an AppArmor profile for muxsim's interpreter"),
    ("user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
)


def _forbidden() -> str:
    for path, forbids, allows in _FORBIDDING:
        with contextlib.suppress(OSError):
            if Path("/proc/sys", path).read_text(encoding="ascii").strip() == forbids:
                return f"{path.replace('/', '.')} is {forbids}: what allows it is {allows}"
    return "a container's seccomp filter or a security module forbids it, or muxsim is not root and Linux before 5.11"
