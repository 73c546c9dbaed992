"""Steps of OpenEnv's own client, in an interpreter that has it: `python openenv_steps.py URL TOOL ARGUMENTS`.

For each line, which has so many seconds, it steps for as long and prints how many steps there were in one.
"""

import json
import sys
import time

from openenv.core import GenericEnvClient


def main() -> None:
    url, tool, arguments = sys.argv[1:]
    action = {"type": "call_tool", "tool_name": tool, "arguments": json.loads(arguments)}
    with GenericEnvClient(base_url=url).sync() as client:
        client.reset(seed=0)
        for line in sys.stdin:
            steps, seconds, begun = 0, float(line), time.perf_counter()
            while time.perf_counter() - begun < seconds:
                client.step(action)
                steps += 1
            print(steps / (time.perf_counter() - begun), flush=True)


if __name__ == "__main__":
    main()
