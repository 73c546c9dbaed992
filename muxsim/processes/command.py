"""What to run, and what the guardian, or a process that waits for its order, is told of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from muxsim.inside import proc, wire
from muxsim.inside.landlock import Walls
from muxsim.inside.libc import DAC_OVERRIDE
from muxsim.inside.views import View


@dataclass(frozen=True)
class Command:
    """What to run.

    A first word without a slash is looked up on the PATH of `env`; one with a slash is relative to `cwd`. `env` is the
    whole environment, to which only `MUXSIM_PROCESS` is added, by which the guardian finds what the process leaves
    behind. `rlimits` maps `resource.RLIMIT_*` to (soft, hard); a `umask` of None leaves the launcher's; `nice` is added
    to its niceness. With `no_new_privs` no setuid program or file capability gives it, or what it runs, more rights.
    `cgroup` is the folder of a cgroup v2 for it to be in, `views` are what it sees of folders alone. With
    `walls` nothing else is left to it, nor capabilities.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    umask: int | None = None
    rlimits: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    nice: int = 0
    no_new_privs: bool = False
    cgroup: str = ""
    views: tuple[View, ...] = ()
    walls: Walls | None = None

    def writing(self, *files: str) -> Command:
        """The same, which may write these too."""
        walls = self.walls
        return self if walls is None else replace(self, walls=walls._replace(write=[*walls.write, *files]))


class ProcessStartError(OSError):
    """A process could not be started, and nothing of it is left.

    `stage` says where: "command" (what was asked for makes no sense), "descriptors", "fork", "prepare", "chdir", a key
    of its confinement ("cgroup", "nice", "private" or "installed" for a view of a folder which was asked for or not,
    "no_new_privs", "landlock", "rlimits", "capabilities"), "exec", "guardian" (the helper process is gone) or "closed"
    (the launcher is).
    """

    def __init__(self, number: int, stage: str, message: str) -> None:
        super().__init__(number, message)
        self.stage = stage

    def __str__(self) -> str:
        return str(self.strerror)


def order_of(command: Command, mark: str) -> wire.Message:
    """What the guardian, or a process that waits for its order, is told of `command`."""
    # Not the session's id: it opens the session's URLs, and many servers show their environment to the agent.
    env = {**command.env, proc.MARK: mark}
    _check_command(command, env)
    return {
        "kind": "spawn",
        "argv": list(command.argv),
        "env": env,
        "cwd": os.path.abspath(command.cwd),
        "umask": command.umask,
        "confinement": confinement_of(command),
    }


def confinement_of(command: Command) -> wire.Message:
    """What `inside.confine` is to apply."""
    wanted = {
        "cgroup": command.cgroup,
        "nice": command.nice,
        "private": command.views,
        "no_new_privs": command.no_new_privs,
        "landlock": {} if command.walls is None else command.walls._asdict(),
        "rlimits": dict(command.rlimits),
        # What a file's mode refuses to root is no wall; the others would lead around those that there are.
        "capabilities": 0 if command.walls is None else 1 << DAC_OVERRIDE,
    }
    return {key: value for key, value in wanted.items() if value}


def _check_command(command: Command, env: Mapping[str, str]) -> None:
    """Refuse here what would only confuse later; the rest the kernel knows best. Raises ProcessStartError."""
    fault = None
    if not command.argv or not command.argv[0]:
        fault = "the command is empty: name the program to run"
    elif "\0" in "".join((*command.argv, *env, *env.values(), command.cwd)):
        fault = f"cannot start {command.argv[0]!r}: its arguments, environment or cwd hold a NUL character"
    elif "" in env or "=" in "".join(env):
        bad = [name for name in env if not name or "=" in name]
        fault = f"cannot start {command.argv[0]!r}: {bad[0]!r} cannot be the name of an environment variable"
    if fault is not None:
        raise ProcessStartError(errno.EINVAL, "command", fault)
