"""A policy that goes on when it is told to: whoever watches has all the time that a busy machine takes."""

from pathlib import Path

import anyio

from muxsim.rollouts import RandomPolicy
from muxsim.rollouts.policy.messages import turn_of

_TURN = 2


class PatientPolicy(RandomPolicy):
    """Takes two steps of each episode, and the rest when there is a file ``gate``."""

    def __init__(self, *, gate):
        super().__init__()
        self._gate = Path(gate)

    async def next_message(self, conversation, tools, seed):
        while turn_of(conversation) >= _TURN and not self._gate.exists():  # noqa: ASYNC110 - another process opens it
            await anyio.sleep(0.05)
        return await super().next_message(conversation, tools, seed)
