"""Whose an orphan is."""

import os

import pytest

from muxsim.inside.proc import Stat
from muxsim.inside.tree import Hiding, Orphan, Tree

NULL = os.open("/dev/null", os.O_RDWR)


def orphan(pid=7, *, group=1, session=1, started=100, environment=b"\0A=B\0"):
    return Orphan(pid, Stat(b"S", parent=1, group=group, session=session, started=started), environment)


@pytest.mark.parametrize(
    ("candidate", "owned"),
    [
        (orphan(), False),
        (orphan(group=50), True),
        (orphan(session=50), True),
        (orphan(environment=b"\0A=B\0MUXSIM_PROCESS=abc.1\0"), True),
        (orphan(environment=b"\0MUXSIM_PROCESS=abc.12\0"), False),
        (orphan(environment=b"\0NOT_MUXSIM_PROCESS=abc.1\0"), False),
        (orphan(pid=60, started=100), True),
        (orphan(pid=60, started=101), False),
        (orphan(session=61), True),
    ],
)
def test_a_tree_knows_its_own_by_group_session_mark_or_from_having_met_them(candidate, owned):
    tree = Tree(50, "abc.1")
    tree.remember({60: orphan(session=61, started=100).stat})
    assert tree.owns(candidate) is owned


def test_orphans_without_an_environment_are_given_some_time_once():
    hiding, hidden, later = Hiding(), orphan(environment=b""), orphan(8, environment=b"")
    hiding.see([orphan()], 0.0)
    assert hiding.is_settled(0.0)
    hiding.see([orphan(), hidden], 1.0)
    assert not hiding.is_settled(1.0)
    hiding.see([hidden], 1.2)
    assert hiding.is_settled(1.2)
    hiding.see([hidden, later], 2.0)
    assert not hiding.is_settled(2.0)
    hiding.see([hidden, orphan(8)], 2.05)
    assert hiding.is_settled(2.05)
