"""A line below the log says what is being installed, and is never in the way of the log."""

import pytest

from muxsim.observe.events import Draining, InstallFailed, InstallFinished, InstallStarted
from muxsim.observe.status_line import StatusLine

CLEAR = "\r\x1b[K"


class Terminal:
    """What a terminal would show of what is written to it: whole lines, and the one that the cursor is in."""

    def __init__(self):
        self.lines, self.last, self.writes = [], "", 0

    def write(self, text):
        self.writes += 1
        for piece in text.replace(CLEAR, "\r").splitlines(keepends=True):
            self.last = piece.rpartition("\r")[2] if "\r" in piece else self.last + piece
            if self.last.endswith("\n"):
                self.lines.append(self.last[:-1])
                self.last = ""

    def flush(self):
        pass


@pytest.fixture
def terminal():
    return Terminal()


@pytest.fixture
def status(terminal):
    return StatusLine(terminal, -1)


def test_what_is_installed_stands_below_every_line_until_it_is_done(status, terminal):
    status.write("before\n")
    status(InstallStarted("lake", "grid-1", ["mcp<2", "numpy"]))
    assert terminal.last == "installing lake (mcp<2 numpy)"
    status.write("one\ntwo\n")
    assert (terminal.lines, terminal.last) == (["before", "one", "two"], "installing lake (mcp<2 numpy)")
    status(InstallStarted("maze", "grid-2", []))
    assert terminal.last == "installing lake (mcp<2 numpy), maze (an environment without packages)"
    status(InstallFailed("lake", "no such package"))
    assert terminal.last == "installing maze (an environment without packages)"
    status(InstallFinished("maze", "grid-2", 1.0, 1, 1))
    status.write("after\n")
    assert (terminal.lines, terminal.last) == (["before", "one", "two", "after"], "")


def test_a_log_without_installs_is_as_it_was(status, terminal):
    status(Draining(1))
    status.write("one\n")
    assert (terminal.lines, terminal.last, terminal.writes) == (["one"], "", 1)


def test_it_is_never_longer_than_a_line(status, terminal):
    status(InstallStarted("lake", "grid-1", ["package"] * 100))
    assert len(terminal.last) < 80
