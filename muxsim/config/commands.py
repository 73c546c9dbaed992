"""What a command runs: paths made absolute, and Python's interpreter put in place."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from muxsim.config.table import Table, shown
from muxsim.provision.as_it_stands import AsItStands
from muxsim.provision.npx import is_npx, is_package_folder, parse_npx
from muxsim.provision.uvx import is_uvx, parse_uvx
from muxsim.spec import fixed, literal

_PYTHON_NAME = re.compile(r"python(3(\.\d+)?)?")
_VERSION = re.compile(r"\d+(\.\d+){0,2}")
_PYTHON_MODULE = re.compile(r"-[bBdEhiIOPqRsSuvVx?]*[cm]")  # -m, -c, and clusters such as -um
_PYTHON_OPTIONS_WITH_VALUE = frozenset({"-X", "-W", "--check-hash-based-pycs"})

# The keys with which an environment has a Python of its own, whatever its command is.
BRING_PYTHON = ("requirements", "pyproject", "conda")

# Programs whose first argument names the server better than their own name does.
_RUNNERS = frozenset({"node", "npx", "uvx"})
_SCRIPT_SUFFIXES = frozenset({".py", ".js", ".mjs", ".cjs", ".ts", ".sh"})

# The folder from which the path in a word goes.
Start: TypeAlias = Callable[[str], Path]


def read_command(table: Table, values: Mapping[str, Any], first: Path | None) -> tuple[str, tuple[str, ...]]:
    """Command and arguments with their paths absolute and Python's interpreter in place.

    Paths go from the folder ``first``, if there is one and it has what they name, else from the table's.
    """
    command, args = values["command"], values.get("args", ())

    def start(word: str) -> Path:
        return first if first is not None and os.path.lexists(first / fixed(word)) else table.folder

    _check_one_word(table, command, args, start)
    python = "" if is_version(values.get("python", "")) else values.get("python", "")
    interpreter = _program(python, start) if python else literal(sys.executable)
    if command.endswith(".py"):
        return interpreter, (in_folder(command, start(command)), *args)
    if runs_own_python(command):
        return interpreter, _with_python_script(args, start)
    if "python" in values and not (is_uvx(command) or any(key in values for key in BRING_PYTHON)):
        raise table.error("python", f"is for Python commands only, and {shown(command)} is none: take it out")
    if is_npx(command):
        return _npx(table, command, args, start)
    if is_uvx(command):
        return _uvx(table, command, args)
    if _PYTHON_NAME.fullmatch(os.path.basename(command)):
        args = _with_python_script(args, start)
    elif os.path.basename(command) == "node":
        args = _with_node_script(args, start)
    return _program(command, start), args


def runs_own_python(command: str) -> bool:
    """Whether a command of the config is run by the interpreter that muxsim or the environment has."""
    return command.endswith(".py") or command in ("python", "python3")


def is_version(python: str) -> bool:
    """Whether the interpreter is named by its version, and not by a path."""
    return _VERSION.fullmatch(python) is not None


def _check_one_word(table: Table, command: str, args: tuple[str, ...], start: Start) -> None:
    """Raise the fault of a command that has its arguments in it, as shells and other programs take it."""
    words = _words(command)
    path = start(command) / os.path.expanduser(fixed(command))
    if len(words) < 2 or path.exists() or shutil.which(command) is not None:
        return
    if "/" in words[0] and not (start(words[0]) / os.path.expanduser(words[0])).exists():
        return  # a path with a space in it, of something that is not there yet
    if table.variables is None:
        raise table.error("command", f"is one word to the shell: take its quotes away: {shlex.join([*words, *args])}")
    split = json.dumps([*words[1:], *args], ensure_ascii=False)
    raise table.error("command", f"has arguments in it, which go into args: command {shown(words[0])}, args {split}")


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # a quote without an end
        return command.split()


def _program(command: str, start: Start) -> str:
    """An absolute path for a path or a package's folder; a name to be found on PATH as it is."""
    folder = start(command)
    is_path = "/" in command or command.startswith("~") or is_package_folder(folder / fixed(command))
    return in_folder(command, folder) if is_path else command


def absolute(path: str, folder: Path) -> str:
    """The path as it is from anywhere."""
    return os.path.normpath(folder / os.path.expanduser(path))


def in_folder(path: str, folder: Path) -> str:
    """The same for one in which placeholders may stand. Those in the names of the folder itself are none."""
    if path.startswith("{workspace}"):
        return path  # it is absolute once it is filled in
    first, slash, rest = path.partition("/")
    home = literal(os.path.expanduser(first)) if first.startswith("~") else first
    return os.path.normpath(os.path.join(literal(str(folder)), home + slash + rest))


def _with_python_script(args: tuple[str, ...], start: Start) -> tuple[str, ...]:
    at = 0
    while at < len(args) and args[at].startswith("-"):
        if args[at] == "-" or _PYTHON_MODULE.match(args[at]):
            return args
        at += 2 if args[at] in _PYTHON_OPTIONS_WITH_VALUE else 1
    return (*args[:at], *(in_folder(arg, start(arg)) for arg in args[at : at + 1]), *args[at + 1 :])


def _with_node_script(args: tuple[str, ...], start: Start) -> tuple[str, ...]:
    # Node has too many options with values to know them all, so a script is what is there as a file.
    at = next((at for at, arg in enumerate(args) if not arg.startswith("-")), len(args))
    if at == len(args) or not os.path.isfile(start(args[at]) / fixed(args[at])):
        return args
    return (*args[:at], in_folder(args[at], start(args[at])), *args[at + 1 :])


def _npx(table: Table, command: str, args: tuple[str, ...], start: Start) -> tuple[str, tuple[str, ...]]:
    try:
        call = parse_npx(args)
    except AsItStands:
        return command, args
    except ValueError as error:
        raise table.error("args", str(error)) from None
    package = call.packages[0].removeprefix("file:")
    if not package.startswith((".", "/", "~")):
        return command, args
    return in_folder(package, start(package)), call.args


def _uvx(table: Table, command: str, args: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    try:
        parse_uvx(args)
    except AsItStands:
        pass  # it is told when it starts
    except ValueError as error:
        raise table.error("args", str(error)) from None
    return command, args


def name_of(argv: Sequence[str], folder: Path) -> str:
    """An environment's name for a command: of the script, module or package where one is run, else the program."""
    program = os.path.basename(argv[0])
    words = [arg for arg in argv[1:] if not arg.startswith("-")]
    by_runner = words and (program in _RUNNERS or _PYTHON_NAME.fullmatch(program))
    named = os.path.basename(os.path.normpath(folder / (words[0] if by_runner else argv[0])))
    stem, suffix = os.path.splitext(named.partition("@")[0])
    name = stem if suffix in _SCRIPT_SUFFIXES else stem + suffix
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-") or "environment"
