"""Runs a script just as the interpreter would, and notes which modules it looks for: those that a zygote will hold.

    python [options] begin.py learner FILE COUNT PYTHON [options] SCRIPT ARGS…

where from PYTHON on stands the environment's command line; COUNT is that of its options. It takes a tag from its
stdin, and writes `as_main.LEARNING` to stdout when nothing can go wrong any more, before the script begins, and then
each name to FILE as it is looked for: so the file is right however the process ends. Standard library only, and little
of it.
"""

from __future__ import annotations

import os
import sys

from muxsim.inside import as_main


class Recorder:
    """A finder that finds nothing and writes down what was looked for."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._seen: set[str] = set()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self._seen:
            return
        self._seen.add(name)
        try:
            # Opened anew each time: a backend has no descriptors but its three.
            with open(self._file, "a", encoding="utf-8") as file:
                file.write(name + "\n")
        except (OSError, ValueError):
            sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]


def main(words: list[str], names: list[str], startup: frozenset[str]) -> as_main.Program:
    file, options, *argv = words
    tag = os.read(0, 2 * as_main.TAG_BYTES)  # written at once, and so here at once
    with open(file, "a", encoding="utf-8"):
        pass  # if it cannot be written, this fails before anything of the script's has run
    program = as_main.become(argv, int(options), names)
    os.write(1, as_main.LEARNING % tag)
    sys.meta_path.insert(0, Recorder(file))
    return program
