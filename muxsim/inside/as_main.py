"""Runs an environment's script as the interpreter itself would: for what begin.py begins.

These are run by their path, with the environment's own interpreter, which need not have muxsim; standard library only,
and little of it, since every module that is here before the script is one that the script might not have wanted.
"""

from __future__ import annotations

import os
import sys
import types
from importlib.machinery import SourceFileLoader
from typing import Any, NamedTuple

TAG_BYTES = 16
"""Of the tag that reports carry, which is twice as long in hexadecimal; nothing that is imported can guess it."""

LEARNING = b"muxsim: learning %s\n"
"""What a learner writes to its stdout just before the script begins, with the tag that came on its stdin."""


class Program(NamedTuple):
    """What to run as `__main__`: the code of a script, or a module's name, which is "" for that of a container."""

    code: types.CodeType | None
    main: types.ModuleType
    """Held here, or the interpreter would forget it on its way out before it has ended what is in it."""
    module: str


def script_folder(script: str) -> str:
    """What Python puts first on sys.path for a script."""
    return os.path.dirname(os.path.realpath(script))


def safe_path() -> bool:
    return bool(getattr(sys.flags, "safe_path", False) or sys.flags.isolated)


def is_module(words: list[str]) -> bool:
    """Whether it is -m, perhaps at the end of other options, and the name of a module."""
    return words[0].startswith("-")


def is_container(script: str) -> bool:
    """Whether modules can be imported from it: a folder or a zip file, of which Python runs `__main__`."""
    for hook in sys.path_hooks:
        try:
            hook(script)
        except ImportError:
            continue
        return True
    return False


def withdraw() -> None:
    """Leave nothing of this folder to be found by the script, which may have a muxsim of its own."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "muxsim"]:
        del sys.modules[name]
    if not safe_path():
        del sys.path[0]  # the folder itself, as that of what was run


def new_main(script: str | None, names: list[str]) -> types.ModuleType:
    """A `__main__` as the interpreter makes it, with these names, in the place of ours."""
    main = types.ModuleType("__main__")
    namespace = main.__dict__
    namespace.clear()
    values: dict[str, Any] = {
        "__name__": "__main__",
        "__annotations__": {},
        "__builtins__": sys.modules["builtins"],
        "__loader__": None,
    }
    for name in names:
        if script is None and name in ("__file__", "__cached__"):
            continue
        namespace[name] = values.get(name)
    if script is not None:
        namespace["__file__"] = os.path.abspath(script)
        namespace["__loader__"] = SourceFileLoader("__main__", namespace["__file__"])
    sys.modules["__main__"] = main
    return main


def compile_script(script: str) -> types.CodeType:
    with open(script, "rb") as file:
        return compile(file.read(), os.path.abspath(script), "exec", dont_inherit=True)


def become(argv: list[str], options: int, names: list[str], code: types.CodeType | None = None) -> Program:
    """Set up what the interpreter does before the script or module of `argv` begins to run.

    `options` counts those of the interpreter, `names` are what its `__main__` has at first. sys.path is without
    an entry for the script.
    """
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = argv
    words = argv[options + 1 :]
    if is_module(words):
        sys.argv[:] = ["-m", *words[2:]]
        if not safe_path():
            sys.path.insert(0, os.getcwd())
        return Program(None, new_main(None, names), words[1])
    sys.argv[:] = words
    if code is None and is_container(words[0]):
        sys.path.insert(0, words[0])
        return Program(None, new_main(None, names), "")
    if not safe_path():
        sys.path.insert(0, script_folder(words[0]))
    main = new_main(words[0], names)
    return Program(code or compile_script(words[0]), main, "")


def hide(ours: str, error: BaseException) -> None:
    """Leave the frames of the file `ours` out of the traceback that is about to be printed."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename == ours:
        traceback = traceback.tb_next
    error.__traceback__ = traceback
    hook = sys.excepthook

    def without_us(kind: Any, value: Any, _: Any) -> None:
        value.__traceback__ = traceback
        sys.excepthook = hook
        hook(kind, value, traceback)

    sys.excepthook = without_us
