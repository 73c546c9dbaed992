"""cgroup v2: one group per session, below the group in which muxsim was started.

    OWN/                            where muxsim found itself; it has to be allowed to write there
        muxsim-TOKEN/               one per pool: whose it is (owner.py)
            itself/                 muxsim, where it has to leave OWN so that OWN may hand out controllers
            1/ 2/ 3/ …              sessions

Nothing here waits: making a group takes some 0.1 ms. A child enters its group by itself, before it runs its program.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Mapping
from typing import Final

from muxsim.inside.descriptors import close
from muxsim.inside.estate import ITSELF
from muxsim.processes.owner import new_name, owner_by_name

# Not every kernel has these, and without them a bound is kept all the same.
_OPTIONAL: Final = frozenset({"memory.oom.group", "memory.swap.max"})


class CgroupError(Exception):
    """There can be no group, or not with what was asked of it; the message says why and what to do."""


class CgroupFiles:
    """The kernel's files. Every error is an OSError."""

    def read(self, path: str) -> str:
        """What a control file says."""
        with open(path, encoding="utf-8", errors="surrogateescape") as file:  # names are bytes
            return file.read()

    def write(self, path: str, text: str) -> None:
        """Tell a control file; in one piece, as the kernel takes it."""
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            close(fd)

    def make(self, folder: str) -> None:
        """Make a group."""
        os.mkdir(folder)

    def remove(self, folder: str) -> None:
        """Remove a group, which has to be empty."""
        os.rmdir(folder)

    def groups_in(self, folder: str) -> list[str]:
        """The names of the groups in a group."""
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


class Cgroup:
    """The group of one session."""

    def __init__(self, folder: str, files: CgroupFiles) -> None:
        self.folder = folder
        self._files = files

    def __repr__(self) -> str:
        return f"<Cgroup {self.folder}>"

    def is_populated(self) -> bool:
        """Whether a process is in it; also no if it is gone."""
        return self._number("cgroup.events", "populated") > 0

    def kill(self) -> None:
        """SIGKILL to whatever is in it (from Linux 5.14 on; before, nothing)."""
        with contextlib.suppress(OSError):
            self._files.write(f"{self.folder}/cgroup.kill", "1")

    def out_of_memory(self) -> bool:
        """Whether it has reached its memory's bound and lost processes by that."""
        return self._number("memory.events", "oom_kill") > 0

    def remove(self) -> bool:
        """Remove it; False if something is in it still."""
        try:
            self._files.remove(self.folder)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def _number(self, name: str, key: str) -> int:
        try:
            text = self._files.read(f"{self.folder}/{name}")
        except OSError:
            return 0
        return int(pairs(text).get(key, "0"))


class Cgroups:
    """The groups of one pool, with these controllers. `open` makes them possible, `close` leaves nothing of them."""

    def __init__(self, own: str, folder: str, files: CgroupFiles) -> None:
        self.controllers: frozenset[str] = frozenset()
        self.folder = folder
        self._own = own
        self._files = files
        self._handed_out: frozenset[str] = frozenset()
        self._moved = False
        self._names = itertools.count(1)
        self._full: list[Cgroup] = []

    def __repr__(self) -> str:
        return f"<Cgroups {self.folder} {' '.join(sorted(self.controllers))}>"

    @classmethod
    def open(cls, wanted: Iterable[str], files: CgroupFiles | None = None) -> Cgroups:
        """Raises `CgroupError` if this process has no cgroup v2 with these controllers in which it may make groups."""
        files = CgroupFiles() if files is None else files
        own = own_group(files)
        clear_dead(own, files)
        groups = cls(own, f"{own}/{new_name()}", files)
        try:
            files.make(groups.folder)
        except OSError as error:
            raise CgroupError(f"{own}: {error.strerror}; {_DELEGATE}") from error
        try:
            groups._obtain(frozenset(wanted))
        except OSError as error:
            groups.close()
            raise CgroupError(f"{error.filename}: {error.strerror}") from error
        except BaseException:
            groups.close()
            raise
        return groups

    def group(self, settings: Mapping[str, str]) -> Cgroup:
        """A group for one session, with these control files written. Raises `CgroupError`."""
        self._try_again()
        group = Cgroup(f"{self.folder}/{next(self._names)}", self._files)
        at = group.folder
        try:
            self._files.make(at)
            for name, value in settings.items():
                at = f"{group.folder}/{name}"
                with contextlib.suppress(FileNotFoundError) if name in _OPTIONAL else contextlib.nullcontext():
                    self._files.write(at, value)
        except OSError as error:
            self.give_back(group)
            raise CgroupError(f"{at}: {error.strerror}") from error
        return group

    def give_back(self, group: Cgroup) -> bool:
        """Remove a group. One that is not empty yet is tried again later."""
        removed = group.remove()
        if not removed:
            self._full.append(group)
        return removed

    def close(self) -> None:
        """Remove everything, and go back to where we were. What is not empty is left to the next muxsim."""
        self._try_again()
        if self._handed_out or self._moved:
            self._go_back()
        with contextlib.suppress(OSError):
            self._files.remove(self.folder)

    def _try_again(self) -> None:
        self._full = [group for group in self._full if not group.remove()]

    def _obtain(self, wanted: frozenset[str]) -> None:
        """Have our groups bounded by these controllers."""
        offered = frozenset(self._files.read(f"{self._own}/cgroup.controllers").split())
        if missing := wanted - offered:
            raise CgroupError(
                f"{self._own} offers no controller {' or '.join(sorted(missing))}; {_DELEGATE}; "
                "on a system that has it in cgroup v1 there is no way"
            )
        handed_out = frozenset(self._files.read(f"{self._own}/cgroup.subtree_control").split())
        if lacking := wanted - handed_out:
            if not self._is_root():
                self._step_aside()
            self._handed_out = lacking
            self._tell_control(self._own, "+", lacking)
        if wanted:
            self._tell_control(self.folder, "+", wanted)
        self.controllers = wanted

    def _is_root(self) -> bool:
        """The root of all groups may hand out controllers and have processes."""
        try:
            self._files.read(f"{self._own}/cgroup.type")
        except FileNotFoundError:
            return True
        return False

    def _step_aside(self) -> None:
        """A group that hands controllers to its children may have no process of its own, and we are one of its.

        With some controllers (cpu, pids) the kernel does not refuse that, but makes groups of threads of its children.
        """
        itself = f"{self.folder}/{ITSELF}"
        try:
            self._files.make(itself)
            self._files.write(f"{itself}/cgroup.procs", str(os.getpid()))
        except OSError as error:
            raise CgroupError(f"{itself}: {error.strerror}; {_DELEGATE}") from error
        self._moved = True
        if self._files.read(f"{self._own}/cgroup.procs").split():
            raise CgroupError(f"{self._own}: other processes live in it; {_DELEGATE}")

    def _go_back(self) -> None:
        with contextlib.suppress(CgroupError):
            self._tell_control(self.folder, "-", self.controllers)
        with contextlib.suppress(CgroupError):
            self._tell_control(self._own, "-", self._handed_out)
        if self._moved:
            with contextlib.suppress(OSError):
                self._files.write(f"{self._own}/cgroup.procs", str(os.getpid()))
                self._files.remove(f"{self.folder}/{ITSELF}")

    def _tell_control(self, folder: str, sign: str, controllers: frozenset[str]) -> None:
        try:
            words = " ".join(f"{sign}{name}" for name in sorted(controllers))
            self._files.write(f"{folder}/cgroup.subtree_control", words)
        except OSError as error:
            raise CgroupError(f"{folder}: {error.strerror}; {_DELEGATE}") from error


_DELEGATE: Final = (
    "start muxsim in a cgroup of its own, such as systemd-run --user --scope -p Delegate=yes muxsim …, "
    "or a service with Delegate=yes"
)


def own_group(files: CgroupFiles) -> str:
    """The folder of the cgroup v2 that this process is in. Raises `CgroupError`."""
    try:
        path = own_path(files.read("/proc/self/cgroup"))
        mounts = files.read("/proc/self/mountinfo")
    except OSError as error:
        raise CgroupError(f"{error.filename}: {error.strerror}") from error
    folder = None if path is None else folder_of(path, mounts)
    if folder is None:
        raise CgroupError("this system has no cgroup v2, or shows none of it here")
    return folder


def own_path(text: str) -> str | None:
    """The path within cgroup v2, from /proc/self/cgroup."""
    return next((line[len("0::") :] for line in text.splitlines() if line.startswith("0::")), None)


def folder_of(path: str, mountinfo: str) -> str | None:
    """Where a path within cgroup v2 is to be found, from /proc/self/mountinfo; None if no mount shows it."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] != "cgroup2":
            continue
        root, at = map(_unescaped, before.split(" ")[3:5])
        root = root.rstrip("/")
        if path == root or path.startswith(root + "/"):
            return at.rstrip("/") + path[len(root) :].rstrip("/")
    return None


def _unescaped(text: str) -> str:
    for number in (0o40, 0o11, 0o12, 0o134):
        text = text.replace(f"\\{number:03o}", chr(number))
    return text


def pairs(text: str) -> dict[str, str]:
    """A control file of lines such as `populated 1`."""
    return {key: value for key, _, value in (line.partition(" ") for line in text.splitlines())}


def clear_dead(own: str, files: CgroupFiles) -> None:
    """End and remove what a muxsim that was killed has left in its groups."""
    with contextlib.suppress(OSError):
        for name in files.groups_in(own):
            owner = owner_by_name(name)
            if owner is not None and owner.is_gone():
                _clear(f"{own}/{name}", files)


def _clear(folder: str, files: CgroupFiles) -> None:
    """What does not end at once is found by the next muxsim."""
    Cgroup(folder, files).kill()
    with contextlib.suppress(OSError):
        for name in files.groups_in(folder):
            with contextlib.suppress(OSError):
                files.remove(f"{folder}/{name}")
        files.remove(folder)
