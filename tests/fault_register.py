"""Whether each row of the table of faults was proved in this run: what is marked may still be skipped, or not chosen.

A run of the whole suite fails with the names of the rows of which no test ran, unless this machine cannot run them. A
part of the suite knows only itself, and is not asked.
"""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

ROWS = {f"{kind}{number}" for kind, count in (("C", 30), ("L", 29), ("H", 20)) for number in range(1, count + 1)}

# What a machine may lack. Any other reason to skip is one that nobody has agreed to.
LACKS = re.compile(
    r"bubblewrap (is not installed|cannot run here)|no cgroup (can be made here|for this test)|there is one core only"
    r"|needs root, unshare and Linux|only root can become a user"
)
_ROW = "fault"
_PARTIAL = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "stepwise", "collectonly", "maxfail")
_WHOLE = "not large"  # what scripts/test leaves to scripts/test_large proves no row


def is_whole(config):
    """Whether the run is one of everything that there is; a worker of it sees but its part."""
    chosen = [name for name in _PARTIAL if config.getoption(name, None) and config.getoption(name) != _WHOLE]
    is_worker = hasattr(config, "workerinput")
    return not is_worker and config.args_source == pytest.Config.ArgsSource.TESTPATHS and not chosen


class FaultRegister:
    """A plugin that hears of each test how it went."""

    def __init__(self, rows, whole):
        self.rows, self.whole = rows, whole
        self._ran, self._skipped = set(), defaultdict(list)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item):
        # A report carries these to wherever the run is looked after, another process too.
        marks = item.iter_markers("fault")
        item.user_properties.extend((_ROW, row) for row in sorted({row for mark in marks for row in mark.args}))

    def pytest_runtest_logreport(self, report):
        rows = {value for name, value in report.user_properties if name == _ROW}
        if report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            for row in rows:
                self._skipped[row].append(reason)
        elif report.when == "call":
            self._ran |= rows

    def unproved(self):
        """The rows of which no test ran though this machine could have run one, each with why."""
        found = {}
        for row in sorted(self.rows - self._ran):
            reasons = self._skipped[row]
            if not reasons or not all(LACKS.search(reason) for reason in reasons):
                found[row] = "; ".join(sorted(set(reasons))) or "none of its tests was run"
        return found

    def pytest_sessionfinish(self, session, exitstatus):
        if self.whole and exitstatus == pytest.ExitCode.OK and self.unproved():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        if not self.whole:
            return
        for row, why in self.unproved().items():
            terminalreporter.write_line(f"FAULT {row} was not proved: {why}", red=True)
