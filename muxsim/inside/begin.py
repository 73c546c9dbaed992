"""Begins a process that becomes an environment's script: `python [options] begin.py learner ...`, or `begin.py zygote`.

With the environment's own interpreter, which need not have muxsim, by its path; standard library only. The module of
that name beside this file prepares what is to run as `__main__`. Nothing of ours is there then for the script to find.
"""

import sys

# This file is read whole by whatever interpreter there is; what follows is for those that can be forked.
if not (sys.version_info >= (3, 9) and sys.implementation.name == "cpython"):
    _ITS_NAME = getattr(getattr(sys, "implementation", None), "name", "python")
    sys.exit("it is %s %s, and CPython from 3.9 on is forked" % (_ITS_NAME, ".".join(map(str, sys.version_info[:3]))))  # noqa: UP031

MAIN_NAMES = [name for name in globals() if name.startswith("__")]
STARTUP_MODULES = frozenset(sys.modules)

import os  # noqa: E402 - what was there before our first line belongs to the interpreter

if __name__ == "__main__":
    for name, folder in (("muxsim", []), ("muxsim.inside", [os.path.dirname(os.path.abspath(__file__))])):
        sys.modules[name] = type(sys)(name)
        sys.modules[name].__path__ = folder
    from muxsim.inside import as_main

    role = getattr(__import__("muxsim.inside", fromlist=[sys.argv[1]]), sys.argv[1])
    as_main.withdraw()
    program = role.main(sys.argv[2:], MAIN_NAMES, STARTUP_MODULES)
    try:
        # Here and not in a function, to have one frame below the script's own and not several.
        if program.code is not None:
            exec(program.code, vars(program.main))
        else:
            import runpy  # a script needs none of it

            runpy._run_module_as_main(  # type: ignore[attr-defined] # it is what -m itself calls
                program.module or "__main__", alter_argv=bool(program.module)
            )
    except SystemExit:
        raise
    except BaseException as error:
        as_main.hide(__file__, error)
        raise
