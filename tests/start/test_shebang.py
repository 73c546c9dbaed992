"""What the first lines of a file make of a command line, as pure functions, and beside what the kernel makes of it."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.spec import EnvSpec
from muxsim.start.fork.entry import entered, own_packages
from muxsim.start.fork.reading import read_program
from muxsim.start.fork.shebang import interpreted, without_env

EXEC = "#!/bin/sh\n'''exec' {} \"$0\" \"$@\"\n' '''\nimport sys\n"
BESIDE = '"$(dirname -- "$(realpath -- "$0")")"/'


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ("#!/v/bin/python\nimport sys", ("/v/bin/python", "/p")),
        ("#! /v/bin/python3 -sE \n", ("/v/bin/python3", "-sE", "/p")),
        ("#!/v/bin/python -u -B\n", ("/v/bin/python", "-u -B", "/p")),
        ("#!/usr/bin/env python3", ("/usr/bin/env", "python3", "/p")),
        (EXEC.format("/long/python"), ("/long/python", "/p")),
        (EXEC.format("'/a b/python' -I"), ("/a b/python", "-I", "/p")),
        (EXEC.format('"/a b/python"'), ("/a b/python", "/p")),
        (EXEC.format(BESIDE + "'python3'"), ("/real/python3", "/p")),
        (EXEC.format("$HOME/python"), ("/bin/sh", "/p")),
        (EXEC.format("`which python`"), ("/bin/sh", "/p")),
        (EXEC.format("'/an end"), ("/bin/sh", "/p")),
        ('#!/bin/sh\nexec python3 "$0"\n', ("/bin/sh", "/p")),
        ("#!/v/" + "x" * 300 + "\n", None),
        ("#!\n", None),
        ("import sys\n", None),
        ("", None),
        ("\x7fELF", None),
    ],
)
def test_the_first_lines_of_a_script_are_read_as_the_kernel_and_a_shell_read_them(first, words):
    assert interpreted(first.encode(), "/p", "/real") == words


@given(st.binary(max_size=300))
def test_no_first_bytes_are_too_strange(rest):
    for first in (rest, b"#!" + rest, b"#!/bin/sh\n'''exec' " + rest + b' "$0" "$@"\n'):
        words = interpreted(first, "/p", "/real")
        assert words is None or words[-1] == "/p"


@pytest.mark.parametrize(
    ("args", "made"),
    [
        (("python3", "s.py"), ((), 0)),
        (("-S", "python3 -u", "s.py"), (("python3", "-u"), 2)),
        (("-Spython3 -u", "s.py"), (("python3", "-u"), 1)),
        (("A=b", "python3"), None),
        (("-i", "python3"), None),
        (("-S", "A=b python3"), None),
        (("-S", "'"), None),
        ((), None),
    ],
)
def test_env_is_followed_where_it_only_looks_for_a_program(args, made):
    assert without_env(args) == made


SHOW = "import sys, json; print(json.dumps([sys.argv, sys.orig_argv, sys.executable, list(sys.flags), sys.path[0]]))\n"
KINDS = {
    "line": f"#!{sys.executable}\n",
    "option": f"#!{sys.executable} -sE\n",
    "env": "#!/usr/bin/env python3\n",
    "env with options": "#!/usr/bin/env -S python3 -B\n",
    "beside": EXEC.format(BESIDE + "'python3'"),
    "exec": EXEC.format(f"'{sys.executable}'"),
}


@pytest.mark.children
@pytest.mark.parametrize("by", ["path", "name", "link"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_script_run_as_a_command_is_what_the_interpreter_is_told_it_is(tmp_path, kind, by):
    """The command line that is made of it does what the kernel does with the script itself."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "elsewhere").mkdir()
    script = tmp_path / "bin" / "game"
    script.write_text(KINDS[kind] + SHOW)
    script.chmod(0o755)
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    (tmp_path / "elsewhere" / "game").symlink_to(script)
    command = {"path": str(script), "name": "game", "link": str(tmp_path / "elsewhere" / "game")}[by]
    environ = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    spec = EnvSpec(name="game", command=command, args=("--seed", "{seed}"), cwd="/")

    program = read_program(spec, environ)
    launch = spec.launch(seed=7, session_id="s", workspace="/w", environ=environ)
    told = program.command_line(launch.argv)
    as_typed, as_told = (
        subprocess.run(argv, env=launch.env, cwd="/", capture_output=True, check=True, timeout=60).stdout
        for argv in (launch.argv, told)
    )
    assert as_typed == as_told
    assert told[: len(program.head)] == program.head
    assert told[-2:] == ("--seed", "7")


def test_a_command_that_is_no_python_script_has_no_zygote(tmp_path):
    def write(name, text, mode=0o755):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(mode)

    write("shell", "#!/bin/sh\nexec true\n")
    write("data", "")
    write("forbidden", f"#!{sys.executable}\n", 0o644)
    write("loop", f"#!{tmp_path / 'loop'}\n")
    os.mkfifo(tmp_path / "fifo", 0o755)
    for name in ("shell", "data", "forbidden", "loop", "fifo", "missing", "."):
        assert read_program(EnvSpec(name="e", command=str(tmp_path / name)), {}) == "its command is not python"


def test_env_as_a_command_is_followed_too():
    program = read_program(EnvSpec(name="e", command="env", args=("python3", "-u", "s.py", "{seed}")), os.environ)
    assert program.head == ("python3", "-u", "s.py")
    assert program.command_line(("env", "python3", "-u", "s.py", "7")) == ("python3", "-u", "s.py", "7")
    assert program.command_line(("env", "python3", "-u", "t.py", "7")) is None


def test_a_script_with_a_brace_in_its_path_is_found(tmp_path):
    (tmp_path / "{seed}").mkdir()
    script = tmp_path / "{seed}" / "game"
    script.write_text(f"#!{sys.executable}\n")
    script.chmod(0o755)
    spec = EnvSpec(name="e", command=str(tmp_path / "{{seed}}" / "game"))
    assert read_program(spec, {}).head == (sys.executable, str(script))


@pytest.mark.parametrize(
    ("script", "own"),
    [
        (
            "import re\nimport sys\nfrom game.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n",
            ["game"],
        ),
        ("import game.a, other\nif __name__ == '__main__':\n    game.a.main()\n", ["game", "other"]),
        ("from game import main\nmain()\n", []),
        ("import numpy\nSTATE = {}\nif __name__ == '__main__':\n    pass\n", []),
        ("import numpy\nif", []),
        ("", []),
        ("#" * 9000, []),
    ],
)
def test_the_package_that_a_console_script_calls_is_the_environments_own(script, own):
    assert entered(script.encode()) == own


def test_a_console_script_that_is_given_a_script_runs_that_and_its_package_is_nobodys_own(tmp_path):
    script = tmp_path / "mcp"
    script.write_text(f"#!{sys.executable}\nfrom mcp.cli import app\nif __name__ == '__main__':\n    app()\n")
    script.chmod(0o755)

    def own(*args):
        return own_packages(read_program(EnvSpec(name="e", command=str(script), args=args, cwd="/"), {}))

    assert own("version", "{seed}") == ["mcp"]
    os.mkfifo(tmp_path / "pipe")
    assert own_packages(read_program(EnvSpec(name="e", command="python3", args=(str(tmp_path / "pipe"),)), {})) == []
    assert own("run", "server.py", "{seed}") == own("run", "/x/server.py:app") == []
