"""Every row of the table of faults (C1 to C30, L1 to L29, H1 to H20) has a test that proves it with the real thing.

Such a test is marked `@pytest.mark.fault("C1")`, wherever it stands; `pytest -m fault` runs them all. That each of them
ran is told at the end of a run of everything (`fault_register`).
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from fault_register import ROWS

TESTS = Path(__file__).resolve().parent.parent

# Rows whose feature is not there yet. A row that gets its test has to leave this list.
AWAITED = set()

SUITE = {
    "conftest.py": """
from fault_register import FaultRegister, is_whole
def pytest_configure(config):
    config.addinivalue_line("markers", "fault(*rows): x")
    config.pluginmanager.register(FaultRegister({"C1", "C2", "C3"}, is_whole(config)))
""",
    "suite/test_some.py": """
import pytest
@pytest.mark.fault("C1")
def test_one(): pass
@pytest.mark.fault("C2")
@pytest.mark.skip(reason="%s")
def test_two(): pass
%s
def test_three(): pass
""",
}
ALL_RUN = '@pytest.mark.fault("C3")'


def test_every_row_has_a_test_or_is_named_as_awaited():
    assert ROWS - marked_rows().keys() == AWAITED


def test_every_mark_is_of_a_row():
    assert marked_rows().keys() <= ROWS


@pytest.mark.parametrize(
    ("reason", "third", "arguments", "unproved"),
    [
        ("there is one core only", ALL_RUN, (), ""),
        ("not today", ALL_RUN, (), "C2 was not proved: Skipped: not today"),
        ("there is one core only", "", (), "C3 was not proved: none of its tests was run"),
        ("not today", "", ("-k", "one"), ""),
        ("not today", "", ("suite/test_some.py",), ""),
        ("not today", "", ("-m", "fault"), ""),
        ("there is one core only", "", ("-m", "not large"), "C3 was not proved: none of its tests was run"),
    ],
)
def test_a_row_whose_tests_all_were_left_out_fails_the_whole_run_and_no_part_of_it(
    tmp_path, reason, third, arguments, unproved
):
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = suite\n")
    (tmp_path / "suite").mkdir()
    (tmp_path / "conftest.py").write_text(SUITE["conftest.py"])
    (tmp_path / "suite" / "test_some.py").write_text(SUITE["suite/test_some.py"] % (reason, third))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    env = {**os.environ, "PYTHONPATH": str(TESTS), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert [line for line in done.stdout.splitlines() if line.startswith("FAULT")] == (
        [f"FAULT {unproved}"] if unproved else []
    ), done.stdout
    assert done.returncode == bool(unproved)


def marked_rows():
    """The rows, each with the tests that are marked for it. Read, not run: a part of the suite knows only itself."""
    found = defaultdict(list)
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for row in [row for decorator in node.decorator_list for row in rows_of(decorator)]:
                    found[row].append(f"{file.relative_to(TESTS)}:{node.name}")
    return found


def rows_of(decorator):
    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
        return [ast.literal_eval(row) for row in decorator.args]
    return []
