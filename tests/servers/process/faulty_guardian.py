"""The guardian, with a fault in it: stands in for guardian.py in tests. Standard library only; run with -I -S.

`GUARDIAN_FAULT` is `no-subreaper`, `no-children-files`, `crash`, or `CALL ERRNO N`: the Nth `os.CALL` fails so, or the
Nth `send` of the guardian's, or `open`; `close` does its work all the same. In children it makes, calls are counted on.
If `GUARDIAN_FAULT_FILE` names a file, there is one when it has failed, and nothing fails a second time.
"""

import builtins
import errno
import os
import pathlib
import sys
import types

FOLDER = pathlib.Path(__file__).parents[3] / "muxsim" / "inside"
for name, path in (("muxsim", []), ("muxsim.inside", [str(FOLDER)])):  # as the guardian does
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = path

from muxsim.inside import guardian, libc, proc, wire  # noqa: E402 - found by the lines above


def fail_at(name, number, nth):
    module = {"send": wire, "open": builtins}.get(name, os)
    real, touch = getattr(module, name), os.open
    calls = 0

    def sometimes(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls != nth or not is_first():
            return real(*args, **kwargs)
        if name == "close":
            real(*args)
        raise OSError(number, os.strerror(number))

    def is_first():
        if (file := os.environ.get("GUARDIAN_FAULT_FILE")) is None:
            return True
        try:
            touch(file, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC)  # never closed, for that may be what is to fail
        except FileExistsError:
            return False
        return True

    setattr(module, name, sometimes)


def main():
    fault = os.environ["GUARDIAN_FAULT"].split()
    if fault == ["crash"]:
        sys.exit(3)
    elif fault == ["no-subreaper"]:
        real = guardian.prctl
        guardian.prctl = lambda option, value: option != libc.PR_SET_CHILD_SUBREAPER and real(option, value)
    elif fault == ["no-children-files"]:
        proc.CHILDREN_FILES = False
    else:
        fail_at(fault[0], getattr(errno, fault[1]), int(fault[2]))
    guardian.main()


main()
