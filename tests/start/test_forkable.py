"""Which environments a zygote can serve, as a table of cases."""

import pytest

from muxsim.spec import EnvSpec
from muxsim.start.fork.forkable import forkable

PYTHON = "/usr/bin/python3"


def spec(*args, **fields):
    return EnvSpec(name="env", command=PYTHON, args=args, **fields)


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        (("s.py",), (), ("s.py",)),
        (("s.py", "--seed", "{seed}", "-c"), (), ("s.py",)),
        (("-I", "-S", "s.py"), ("-I", "-S"), ("s.py",)),
        (
            ("-uB", "-X", "utf8", "-Wignore", "-W", "error", "s.py"),
            ("-uB", "-X", "utf8", "-Wignore", "-W", "error"),
            None,
        ),
        (("-m", "package.module", "--x"), (), ("-m", "package.module")),
        (("-u", "-m", "package"), ("-u",), ("-m", "package")),
        (("-uIm", "package", "-c"), ("-uI",), ("-uIm", "package")),
        (("script",), (), ("script",)),
    ],
)
def test_scripts_and_modules_are_told_from_options(args, options, words):
    program = forkable(spec(*args), {})
    assert (program.options, program.words) == (options, words or ("s.py",))
    assert program.head == (PYTHON, *args[: len(program.head) - 1])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (EnvSpec(name="e", command="node", args=("s.js",)), "not python"),
        (EnvSpec(name="e", command="/opt/pypy3", args=("s.py",)), "not python"),
        (spec(), "names no script"),
        (spec("-u"), "names no script"),
        (spec("-c", "1"), "-c runs neither"),
        (spec("-"), "- runs neither"),
        (spec("-i", "s.py"), "-i runs neither"),
        (spec("-mx"), "-mx runs neither"),
        (spec("-m"), "names no module"),
        (spec("s.pyc"), "compiled already"),
        (EnvSpec(name="e", command="python3", args=("s.py",), env={"PATH": "{workspace}"}), "PATH"),
        (spec("{workspace}/s.py"), "depends on the session"),
        (spec("-m", "game_{seed}"), "depends on the session"),
        (spec("s.py", env={"PYTHONHASHSEED": "{seed}"}), "PYTHONHASHSEED"),
        (spec("s.py", env={"LD_PRELOAD": "{workspace}/x.so"}), "LD_PRELOAD"),
    ],
)
def test_whatever_differs_before_the_first_line_is_no_case_for_a_zygote(given, why):
    assert why in forkable(given, {})


def test_variables_are_parted_into_those_of_the_environment_and_those_of_the_session():
    program = forkable(spec("s.py", env={"LEVEL": "3", "PLACE": "{workspace}/x"}, cwd="{workspace}"), {"PATH": "/bin"})
    assert dict(program.env) == {"PATH": "/bin", "PYTHONHASHSEED": "0", "LEVEL": "3"}
    assert program.variables == ("MUXSIM_SEED", "MUXSIM_WORKSPACE", "PLACE")
    assert program.cwd == "/"


def test_programs_that_differ_in_anything_need_zygotes_of_their_own():
    one = spec("s.py", cwd="/a")
    others = [spec("s.py", cwd="/b"), spec("-O", "s.py", cwd="/a"), spec("s.py", cwd="/a", preload=("json",))]
    assert forkable(one, {}) == forkable(spec("s.py", "--more", cwd="/a"), {})
    assert all(forkable(one, {}) != forkable(other, {}) for other in others)
