"""How it is known which process a token is of, and whether that is gone."""

import os

import pytest

from muxsim.inside.proc import read_stat
from muxsim.processes.owner import Owner, new_token, owner_of


def test_a_token_says_which_process_made_it():
    owner = owner_of(new_token())
    assert (owner.pid, owner.started) == (os.getpid(), read_stat(os.getpid()).started)
    assert not owner.is_gone()
    assert new_token() != new_token()


@pytest.mark.parametrize("text", ["", "5", "abcdef0123456789", "1-2-3-xyz", "1-2-3-00000000.4", "-1-2-3-00000000"])
def test_what_is_no_token_has_no_owner(text):
    assert owner_of(text) is None


def test_an_owner_is_gone_when_its_pid_is_anothers_H19():
    """H19."""
    me = owner_of(new_token())
    assert Owner(me.pid, me.started + 1, me.namespace).is_gone()
    assert Owner(2**22 + 1, me.started, me.namespace).is_gone()


def test_of_another_namespace_nobody_is_known_to_be_gone():
    me = owner_of(new_token())
    assert not Owner(2**22 + 1, me.started, me.namespace + 1).is_gone()
