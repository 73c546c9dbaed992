"""A backend in bubblewrap: no network, everything read-only but its workspace, and nothing of it left behind.

Pure: what bubblewrap is told, from what the backend is.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from typing import Final

from muxsim.processes.views import within
from muxsim.spec import Launch

# Empty in the sandbox. A socket can be spoken to also where its folder is read-only, so /run goes too.
_PRIVATE: Final = ("/tmp", "/run")


def sandboxed(
    bubblewrap: str, launch: Launch, workspace: str, views: Iterable[str] = (), *, network: bool = False
) -> tuple[str, ...]:
    """The command that runs ``launch`` in a sandbox of its own, with ``workspace`` the one folder of ours to write in.

    Beside it there are the views that it has already (inside/views.py), which are its own as well.
    What the command, its arguments, its cwd and its PATH name in a private folder is seen there, read-only.
    With a ``network`` it has that of the machine.
    """
    private = list(private_folders(launch.env.get("TMPDIR", "")))
    named = [*launch.argv, launch.cwd, *launch.env.get("PATH", "").split(":")]
    # fmt: off
    return (
        bubblewrap,
        "--unshare-all",       # network, processes, IPC, host name; users where that is allowed
        *(("--share-net",) if network else ()),
        "--die-with-parent",
        "--cap-drop", "ALL",   # root's, which would undo the rest
        "--ro-bind", "/", "/",
        "--dev", "/dev",
        "--proc", "/proc",
        *(word for folder in private for word in ("--tmpfs", folder)),
        *(word for entry in needed(named, private) for word in ("--ro-bind-try", entry, entry)),
        *(word for folder in views for word in ("--bind", folder, folder)),
        *(word for path in launch.readable for word in ("--ro-bind-try", path, path)),
        *(word for path in launch.writable for word in ("--bind", path, path)),
        "--tmpfs", posixpath.dirname(workspace),  # other sessions have theirs beside it
        "--bind", workspace, workspace,
        "--chdir", launch.cwd,
        "--",
        *launch.argv,
    )
    # fmt: on


def private_folders(temporary: str) -> Iterator[str]:
    """The folders that are empty in the sandbox; ``temporary`` is where the backend has its temporary files."""
    yield from _PRIVATE
    temporary = posixpath.normpath(temporary) if temporary.startswith("/") else "/"
    if temporary != "/" and not any(within(temporary, folder) for folder in _PRIVATE):
        yield temporary


def needed(named: Iterable[str], private: Iterable[str]) -> list[str]:
    """The entries of private folders under which the named paths are."""
    entries = []
    for path in map(posixpath.normpath, named):
        for folder in private:
            if within(path, folder) and path != folder:
                entries.append(posixpath.join(folder, posixpath.relpath(path, folder).split("/", 1)[0]))
    return list(dict.fromkeys(entries))
