"""Runs a script of reward-kit's or eval-protocol's users as it is: `python -m muxsim.compat.reward_kit play.py`.

Or a module: `python -m muxsim.compat.reward_kit -m pytest tests`. What it imports of `reward_kit` and `eval_protocol`
it gets from here, whatever is installed. Processes that it starts itself do not.
"""

import runpy
import sys
from pathlib import Path

import muxsim.compat.reward_kit as ours

_USAGE = "usage: python -m muxsim.compat.reward_kit (SCRIPT.py | -m MODULE) [ARGUMENT...]"


def main(arguments: list[str]) -> None:
    """Run what the first arguments name."""
    for kit in ("reward_kit", "eval_protocol"):
        sys.modules[kit] = ours
    if arguments[:1] == ["-m"] and len(arguments) > 1:
        sys.argv[:] = arguments[1:]
        sys.path[0] = ""
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    if not arguments or arguments[0].startswith("-"):
        raise SystemExit(_USAGE)
    script = Path(arguments[0])
    if not script.is_file():
        raise SystemExit(f"muxsim.compat.reward_kit: there is no file {script}")
    sys.argv[:] = arguments
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
