"""Tests that run on asyncio, where the HTTP transports live; all others run on trio.

Their clock jumps, as trio's `autojump_clock` does: once all that could be done has been done, it is at once the time
that somebody waits for. A test that sleeps lets everything else happen first, and takes no time.
"""

import asyncio
import functools
import selectors

# Seconds of a clock that jumps: whoever waits for what will never come is told so at once.
DEADLINE = 600


class JumpingLoop(asyncio.SelectorEventLoop):
    """For what has neither threads nor sockets of others, of which nobody knows when they have done all they can."""

    def __init__(self):
        self._clock = _Clock()
        super().__init__(self._clock)

    def time(self):
        """Seconds since it was made, most of them skipped."""
        return self._clock.now


class _Clock(selectors.DefaultSelector):
    now = 0.0

    def select(self, timeout=None):
        ready = super().select(timeout and 0)
        if timeout and not ready:
            self.now += timeout
        return ready


def on_asyncio(test):
    @functools.wraps(test)
    def run(*arguments, **named):
        async def bounded():
            async with asyncio.timeout(DEADLINE):
                await test(*arguments, **named)

        with asyncio.Runner(loop_factory=JumpingLoop) as runner:
            runner.run(bounded())

    return run
