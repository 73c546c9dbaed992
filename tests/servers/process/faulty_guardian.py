"""The guardian, with a fault in it: stands in for guardian.py in tests. Standard library only; run with -I -S.

`GUARDIAN_FAULT` is `no-subreaper`, `no-children-files`, `crash`, or `CALL ERRNO N`: the Nth `os.CALL` fails so, or the
Nth `send` of the guardian's.
"""

import errno
import os
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parents[3] / "muxsim" / "supervise"
sys.path.append(str(FOLDER))

import guardian  # noqa: E402 - found by the line above


def fail_at(name, number, nth):
    module = guardian if name == "send" else os
    real = getattr(module, name)
    calls = 0

    def sometimes(*args):
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(number, os.strerror(number))
        return real(*args)

    setattr(module, name, sometimes)


def main():
    fault = os.environ["GUARDIAN_FAULT"].split()
    if fault == ["crash"]:
        sys.exit(3)
    elif fault == ["no-subreaper"]:
        real = guardian.prctl
        guardian.prctl = lambda option, value: option != guardian.PR_SET_CHILD_SUBREAPER and real(option, value)
    elif fault == ["no-children-files"]:
        guardian.CHILDREN_FILES = False
    else:
        fail_at(fault[0], getattr(errno, fault[1]), int(fault[2]))
    guardian.main()


main()
