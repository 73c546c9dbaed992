"""Runs a script just as the interpreter would, and notes which modules it looks for: those that a zygote will hold.

    python [options] learner.py FILE COUNT PYTHON [options] SCRIPT ARGS…

with the environment's own interpreter and, from the second one on, its command line; COUNT is that of its options. It
takes a tag from its stdin, and writes `as_main.LEARNING` to stdout when nothing can go wrong any more, before the
script begins, and then each name to FILE as it is looked for: so the file is right however the process ends.
"""

import sys

MAIN_NAMES = [name for name in globals() if name.startswith("__")]

import os  # noqa: E402 - a `__main__` has no names but those above

if __name__ == "__main__":  # by its path, in an interpreter that need not have muxsim: there is this folder of it alone
    for name, folder in (("muxsim", []), ("muxsim.inside", [os.path.dirname(os.path.abspath(__file__))])):
        sys.modules[name] = type(sys)(name)
        sys.modules[name].__path__ = folder

from muxsim.inside import as_main  # noqa: E402

if __name__ == "__main__":
    as_main.withdraw()


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


def main() -> as_main.Program:
    file, options, *argv = sys.argv[1:]
    tag = os.read(0, 2 * as_main.TAG_BYTES)  # written at once, and so here at once
    with open(file, "a", encoding="utf-8"):
        pass  # if it cannot be written, this fails before anything of the script's has run
    program = as_main.become(argv, int(options), MAIN_NAMES)
    os.write(1, as_main.LEARNING % tag)
    sys.meta_path.insert(0, Recorder(file))
    return program


if __name__ == "__main__":
    program = main()
    try:
        # Here and not in a function, to have one frame below the script's own and not several.
        if program.code is not None:
            exec(program.code, vars(program.main))
        else:
            as_main.run_module(program.module)
    except SystemExit:
        raise
    except BaseException as error:
        as_main.hide(__file__, error)
        raise
