"""Steps of OpenEnv's own client, in an interpreter that has it: `python openenv_steps.py URL TOOL ARGUMENTS [async]`.

For each line, which has so many seconds, it steps for as long and prints how many steps there were in one. The client
that is not asynchronous has a thread for the one that is, so that each step crosses to it and back.
"""

import asyncio
import json
import sys
import time

from openenv.core import GenericEnvClient


def play(url: str, action: dict[str, object]) -> None:
    with GenericEnvClient(base_url=url).sync() as client:
        client.reset(seed=0)
        for line in sys.stdin:
            steps, seconds, begun = 0, float(line), time.perf_counter()
            while time.perf_counter() - begun < seconds:
                client.step(action)
                steps += 1
            print(steps / (time.perf_counter() - begun), flush=True)


async def play_async(url: str, action: dict[str, object]) -> None:
    async with GenericEnvClient(base_url=url) as client:
        await client.reset(seed=0)
        for line in sys.stdin:
            steps, seconds, begun = 0, float(line), time.perf_counter()
            while time.perf_counter() - begun < seconds:
                await client.step(action)
                steps += 1
            print(steps / (time.perf_counter() - begun), flush=True)


def main() -> None:
    url, tool, arguments, *how = sys.argv[1:]
    action = {"type": "call_tool", "tool_name": tool, "arguments": json.loads(arguments)}
    if how == ["async"]:
        asyncio.run(play_async(url, action))
    else:
        play(url, action)


if __name__ == "__main__":
    main()
