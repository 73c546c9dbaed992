"""Every row of the table of faults (C1 to C30, L1 to L29, H1 to H20) has a test that proves it with the real thing.

Such a test is marked `@pytest.mark.fault("C1")`, wherever it stands; `pytest -m fault` runs them all.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
ROWS = {f"{kind}{number}" for kind, count in (("C", 30), ("L", 29), ("H", 20)) for number in range(1, count + 1)}

# Rows whose feature is not there yet. A row that gets its test has to leave this list.
AWAITED = set()


def test_every_row_has_a_test_or_is_named_as_awaited():
    assert ROWS - marked_rows().keys() == AWAITED


def test_every_mark_is_of_a_row():
    assert marked_rows().keys() <= ROWS


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
