"""What a run has learned: that an environment never starts, or a policy is broken, is known before all have tried."""

from __future__ import annotations

from collections import Counter, defaultdict

import anyio

# Failed starts, and none that succeeded. One may be bad luck, on a machine that is short of memory; three are the rule.
_HOPELESS_AFTER = 3
# Episodes in which a policy raised or returned what is no reply, while it has not given a single one.
_BROKEN_AFTER = 10


class Outlook:
    """Which environments are worth another start, and whether the policy is worth another question."""

    def __init__(self) -> None:
        self.replied = False
        """Whether the policy has given a message: then it can."""
        self._broken = 0
        self._failed: Counter[str] = Counter()
        self._started: set[str] = set()
        self._words: dict[str, str] = {}
        self._given_up: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)

    def broke(self) -> bool:
        """The policy has raised, or returned what is no reply; whether it never does anything else."""
        self._broken += 1
        return not self.replied and self._broken >= _BROKEN_AFTER

    def started(self, env: str) -> None:
        """An environment has started: whatever fails now, it can."""
        self._started.add(env)
        self._words.pop(env, None)

    def failed(self, env: str, error: str) -> None:
        """A start has failed; ``error`` ends with the last that the environment said."""
        self._failed[env] += 1
        if env not in self._started and self._failed[env] >= _HOPELESS_AFTER:
            last = error.strip().splitlines()[-1] if error.strip() else "without a word"
            self._words[env] = f"{env} has failed to start {self._failed[env]} times, and never started: {last}"
            self._given_up[env].set()

    def hopeless(self, env: str) -> str | None:
        """Why an environment need not be started; None if it may be worth it."""
        return self._words.get(env)

    async def wait(self, env: str, seconds: float) -> None:
        """Return after so many seconds, or when an environment has been given up."""
        with anyio.move_on_after(seconds):
            await self._given_up[env].wait()
