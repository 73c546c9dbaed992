"""Makes a child: from the fork until it runs the program that was ordered."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Mapping, Sequence
from typing import NoReturn

from muxsim.inside.confine import Unconfined, confine
from muxsim.inside.descriptors import close, give
from muxsim.inside.libc import PR_SET_PDEATHSIG, prctl
from muxsim.inside.wire import Message


def fork(order: Message, fds: Sequence[int]) -> tuple[int, int]:
    """Start making a child. Returns its pid and a pipe that ends, empty, once the child runs its program."""
    report, report_end = os.pipe()
    parent = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        close(report)
        raise
    else:
        if pid == 0:
            become(order, fds, report_end, parent)
    finally:
        close(report_end)
    return pid, report


def become(order: Message, fds: Sequence[int], report: int, parent: int) -> NoReturn:
    """In the fork: turn into the program that was ordered, or say which stage failed and end."""
    stage = "prepare"
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above could tie us to it
            os._exit(127)
        report = give(fds, report)
        if order["umask"] is not None:
            os.umask(order["umask"])
        confine(order["confinement"])
        # Afterwards, to be in what is seen from now on, and not below it.
        stage = "chdir"
        os.chdir(order["cwd"])
        stage = "exec"
        execute(order["argv"], order["env"])
    except Unconfined as error:
        os.write(report, json.dumps([error.key, error.number]).encode())
    except Exception as error:  # whatever is not reported would look like a child that started
        number = getattr(error, "errno", None) or errno.EINVAL
        os.write(report, json.dumps([stage, number]).encode())
    finally:
        os._exit(127)


def execute(argv: list[str], env: Mapping[str, str]) -> NoReturn:
    failure = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for program in places(argv[0], env):
        try:
            os.execve(program, argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:  # as a shell does: perhaps a later folder has one that may be run
            failure = error
    raise failure


def places(program: str, env: Mapping[str, str]) -> list[str]:
    """Where `program` is looked for: the PATH is the child's own, never ours."""
    if "/" in program:
        return [program]
    return [os.path.join(folder or ".", program) for folder in env.get("PATH", os.defpath).split(os.pathsep)]
