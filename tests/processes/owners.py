"""Launchers that are gone, for tests of what they have left."""

import os

from muxsim.processes.owner import Owner, new_token, owner_of


def dead_owner():
    """One that is gone: nobody has this pid since that time."""
    me = owner_of(new_token())
    return Owner(os.getpid(), me.started - 1, me.namespace)


def token_of(owner):
    return f"{owner.pid}-{owner.started}-{owner.namespace}-00000000"
