"""Tests that run on asyncio, where the HTTP transports live; all others run on trio."""

import asyncio
import functools

# Seconds. Nothing in these tests takes any: past this they hang.
DEADLINE = 60


def on_asyncio(test):
    @functools.wraps(test)
    def run(*arguments, **named):
        async def bounded():
            async with asyncio.timeout(DEADLINE):
                await test(*arguments, **named)

        asyncio.run(bounded())

    return run
