"""The code that runs in interpreters of environments, which may be as old as 3.9."""

import ast
import json
import os
import subprocess
from pathlib import Path

import pytest

from muxsim.inside.freshness import Freshness

INSIDE = Path(__file__).parent.parent / "muxsim" / "inside"
OLDEST = (3, 9)
# What the oldest has not, and is looked for before it is used.
LOOKED_FOR = {"sys.orig_argv", "sys.flags.safe_path"}


@pytest.mark.parametrize("file", sorted(INSIDE.glob("*.py")), ids=lambda file: file.name)
def test_the_oldest_interpreter_can_read_it(file):
    ast.parse(file.read_text(), feature_version=OLDEST)


def test_any_interpreter_can_read_what_says_that_it_is_too_old():
    """Python 2 too, as far as can be told: no annotations, no f-strings, nothing after a star alone."""
    text = (INSIDE / "begin.py").read_text()
    assert text.isascii()
    tree = ast.parse(text)
    newer = (ast.AnnAssign, ast.JoinedStr, ast.NamedExpr, ast.AsyncFunctionDef, ast.FunctionDef, ast.Starred, ast.Match)
    assert [node for node in ast.walk(tree) if isinstance(node, newer)] == []


def oldest_python():
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    return next(versions.glob(f"{OLDEST[0]}.{OLDEST[1]}.*/bin/python"), None)


def used():
    """Every `module.name` and `module.name.name` of the standard library that it uses, and what it imports by name."""
    found = set()
    for file in INSIDE.glob("*.py"):
        tree = ast.parse(file.read_text())
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(("muxsim", "__future__")):
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Attribute) and ast.unparse(node).partition(".")[0] in modules:
                found.add(ast.unparse(node))
    return sorted(found)


ASK = """
import importlib, json, sys
def has(name):
    module, *names = name.split(".")
    value = importlib.import_module(module)
    for one in names:
        if not hasattr(value, one):
            try:
                importlib.import_module(module + "." + one)
            except ImportError:
                return False
        value, module = getattr(value, one), module + "." + one
    return True
print(json.dumps([name for name in json.load(sys.stdin) if not has(name)]))
"""


def test_the_oldest_interpreter_has_every_name_of_the_standard_library_that_it_uses():
    python = oldest_python()
    if python is None:
        pytest.skip("this machine has no Python 3.9")
    names = [name for name in used() if all(part.isidentifier() for part in name.split("."))]
    assert "os.pidfd_open" in names
    asked = subprocess.run([python, "-c", ASK], input=json.dumps(names).encode(), capture_output=True, check=True)
    assert set(json.loads(asked.stdout)) - LOOKED_FOR == set()


@pytest.fixture
def packages(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages"
    (folder / "game-1.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(folder)
    return folder


def test_a_package_that_is_installed_exchanged_or_removed_is_seen_and_what_an_import_leaves_is_nothing(packages):
    def exchange():
        (packages / "new").mkdir()  # two at once, so that it cannot have the same inode
        (packages / "game-1.dist-info").rmdir()
        (packages / "new").rename(packages / "game-1.dist-info")

    for change in ((packages / "other").mkdir, exchange, (packages / "other").rmdir):
        freshness = Freshness(None, ())
        assert freshness.fault() is None
        (packages / "__pycache__").mkdir()
        assert freshness.fault() is None
        change()
        assert freshness.fault() == f"{packages} has changed"
        (packages / "__pycache__").rmdir()
