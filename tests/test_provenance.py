"""What an environment consists of, told from its files."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from harness import ROOT

from muxsim.provenance import parts_of, parts_of_file, parts_of_module
from muxsim.spec import EnvSpec

FILES = {
    "server.py": "import json\nimport maze\nfrom tools import doors\nfrom tools.keys import golden\nimport gymnasium\n",
    "maze.py": "import walls\n",
    "walls.py": "",
    "unused.py": "",
    "tools/__init__.py": "",
    "tools/doors.py": "from . import locks\nfrom .. import nowhere\n",
    "tools/keys.py": "golden = 1\n",
    "tools/locks.py": "",
    "map.txt": "a map",
}
NEEDED = {"server.py", "maze.py", "walls.py", "tools/__init__.py", "tools/doors.py", "tools/keys.py", "tools/locks.py"}


@pytest.fixture
def spec(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return EnvSpec(name="maze", command="python3", args=("server.py", "--seed", "{seed}"), cwd=str(tmp_path))


def test_a_script_is_followed_into_the_modules_of_its_folder_and_to_the_packages_it_imports(spec):
    parts = parts_of(spec)
    assert parts.keys() == NEEDED | {"package gymnasium"}
    assert parts["package gymnasium"] == version("gymnasium")


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_every_file_that_is_needed_makes_another_environment_when_it_changes(spec, tmp_path, name):
    before = parts_of(spec)
    assert parts_of(spec) == before
    with (tmp_path / name).open("a") as file:
        file.write("# changed\n")
    after = parts_of(spec)
    assert [part for part in before if after[part] != before[part]] == [name]


def test_what_is_not_needed_may_change(spec, tmp_path):
    before = parts_of(spec)
    (tmp_path / "unused.py").write_text("x = 1")
    assert parts_of(spec) == before


def test_a_file_among_the_arguments_is_part_of_the_environment(tmp_path, spec):
    given = EnvSpec(name="maze", command="./server.py", args=("map.txt",), cwd=str(tmp_path))
    assert parts_of(given).keys() == NEEDED | {"package gymnasium", "map.txt"}


def test_a_package_of_javascript_is_followed_from_its_entry():
    folder = ROOT / "js_servers" / "treasure-grid"
    parts = parts_of(EnvSpec(name="grid", command=str(folder), cwd=str(ROOT)))
    assert {"package.json", "server.js", "src/episode.js", "src/board.js", "package zod"} <= parts.keys()
    assert parts["package zod"][0].isdigit()


def test_a_prepared_npm_package_is_its_version():
    assert parts_of(EnvSpec(name="x", command="no-such-program", package="@a/b@1.2.3")) == {"package @a/b": "1.2.3"}


@pytest.mark.parametrize("text", ["import", "\0", "from .... import x", "def f(:\n"])
def test_a_script_that_cannot_be_read_is_its_hash(tmp_path, text):
    (tmp_path / "odd.py").write_text(text)
    parts = parts_of(EnvSpec(name="odd", command="python3", args=("odd.py",), cwd=str(tmp_path)))
    assert parts.keys() <= {"odd.py"}


@pytest.fixture
def importable(spec, tmp_path, monkeypatch):
    """The files above where `--policy` and `--reward` find them."""
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_a_policy_is_followed_into_the_modules_of_its_folder_as_an_environment_is(importable, spec, tmp_path, name):
    before = parts_of_module("server")
    assert before == parts_of(spec)
    with (tmp_path / name).open("a") as file:
        file.write("# changed\n")
    after = parts_of_module("server")
    assert [part for part in before if after[part] != before[part]] == [name]


def test_a_module_in_a_package_stands_with_the_packages_it_is_in_and_what_is_imported_beside_them(importable, tmp_path):
    (tmp_path / "tools" / "locks.py").write_text("import maze")
    assert parts_of_module("tools.locks").keys() == {"tools/__init__.py", "tools/locks.py", "maze.py", "walls.py"}


def test_a_module_that_is_installed_is_known_by_its_version_and_its_own_files():
    parts = parts_of_module("gymnasium.spaces.box")
    assert parts["package gymnasium"] == version("gymnasium")
    own = {"gymnasium/__init__.py", "gymnasium/spaces/__init__.py", "gymnasium/spaces/box.py"}
    assert parts.keys() == {"package gymnasium"} | own


def test_of_what_is_not_there_or_no_python_nothing_is_said(tmp_path):
    assert [parts_of_module(name) for name in ("no_such_module", "no.such.module", "sys", "", "1")] == [{}] * 5
    assert parts_of_file(tmp_path / "no-such-file") == {}


def test_a_script_of_actions_is_known_by_its_content(tmp_path):
    (tmp_path / "moves.json").write_text("[]")
    before = parts_of_file(tmp_path / "moves.json")
    (tmp_path / "moves.json").write_text("[[]]")
    after = parts_of_file(tmp_path / "moves.json")
    assert (before.keys(), before == after) == (after.keys(), False)


def test_the_folder_that_workspaces_begin_as_is_a_part(tmp_path):
    tasks = tmp_path / "tasks"
    for seed in range(2):
        (tasks / str(seed)).mkdir(parents=True)
        (tasks / str(seed) / "task.txt").write_text("a task")
    spec = EnvSpec(name="x", command="no-such-program", workspace_from=f"{tasks}/{{seed}}")
    before = parts_of(spec)
    assert list(before) == ["workspace_from"]
    assert parts_of(spec) == before
    (tasks / "1" / "task.txt").write_text("A task")
    after = parts_of(spec)
    assert after != before
    (tasks / "1" / "task.txt").rename(tasks / "1" / "other.txt")
    assert parts_of(spec) not in (before, after)
    assert parts_of(EnvSpec(name="x", command="no-such-program")) == {}
