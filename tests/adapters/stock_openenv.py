"""Plays with OpenEnv's stock clients, in an interpreter that has them and knows nothing of muxsim; prints JSON.

python stock_openenv.py SCENARIO URL [ARGUMENTS as JSON]
"""

import asyncio
import json
import os
import signal
import sys

from openenv.core import GenericEnvClient
from openenv.core.env_server.mcp_types import CallToolAction, ListToolsAction
from openenv.core.harness import (
    HarnessRunLimits,
    MCPHarnessAdapter,
    ModelStepResult,
    StepEnvSessionAdapter,
    build_harness_rollout_func,
)
from openenv.core.llm_client import LLMResponse, ToolCall
from openenv.core.mcp_client import MCPToolClient


def action_of(tool, move):
    return {"type": "call_tool", "tool_name": tool, "arguments": {"action": move}}


def told(result):
    return {"observation": result.observation, "reward": result.reward, "done": result.done, "meta": result.metadata}


def generic_sync(url, seed, tool, moves):
    with GenericEnvClient(base_url=url).sync() as env:
        listed = env.step({"type": "list_tools"})
        found = [told(env.reset(seed=seed, episode_id="mine"))]
        found += [told(env.step(action_of(tool, move))) for move in moves]
        try:
            env.reset(seed=-1)
        except RuntimeError as error:
            refusal = str(error)
        return {"tools": listed.observation["tools"], "told": found, "state": env.state(), "refusal": refusal}


def generic_async(url, seed, tool, moves):
    async def play():
        async with GenericEnvClient(base_url=url) as env:
            found = [told(await env.reset(seed=seed))]
            for move in moves:
                found.append(told(await env.step(action_of(tool, move))))
            other = await env.new_session()
            beside = told(await other.reset(seed=seed))
            return {"told": found, "beside": beside, "state": await env.state()}

    return asyncio.run(play())


def mcp_tools(url, seed, tool, moves):
    async def play():
        async with MCPToolClient(base_url=url) as env:
            tools = [one.model_dump() for one in await env.list_tools()]
            await env.reset(seed=seed)
            first = await env.call_tool(tool, action=moves[0])  # the agent's side, which knows no reward
            steps = [await env.step(CallToolAction(tool_name=tool, arguments={"action": move})) for move in moves[1:]]
            listed = await env.step(ListToolsAction())
            try:
                await env.call_tool(tool, action="SIDEWAYS")
            except RuntimeError as error:
                refusal = str(error)
            return {
                "tools": tools,
                "listed": [one.name for one in listed.observation.tools],
                "first": first,
                "rewards": [one.reward for one in steps],
                "metadata": steps[-1].metadata,
                "step_count": (await env.state()).step_count,
                "refusal": refusal,
            }

    return asyncio.run(play())


class Sessions:
    """What OpenEnv's harness takes its sessions from."""

    def __init__(self, url, seed):
        self.url, self.seed = url, seed

    def create(self, task, seed=None, episode_id=None):
        client = MCPToolClient(base_url=self.url).sync()
        tools = client.list_tools()
        return StepEnvSessionAdapter(
            client=client,
            task=task,
            seed=self.seed,
            tool_specs=tools,
            action_builder=lambda name, arguments: CallToolAction(tool_name=name, arguments=arguments),
            initial_messages_builder=lambda result, task: [{"role": "user", "content": result.observation.text}],
        )


def harness(url, seed, tool, moves):
    said = []

    def build_model_step(trainer, session):
        left = iter(moves)

        def model_step(messages, tools, sampling):
            said.append([one.name for one in tools])
            move = next(left, None)
            calls = [] if move is None else [ToolCall(id="1", name=tool, args={"action": move})]
            return ModelStepResult(LLMResponse(content="", tool_calls=calls))

        return model_step

    rollout = build_harness_rollout_func(
        session_factory=Sessions(url, seed),
        harness_adapter=MCPHarnessAdapter(),
        model_step_builder=build_model_step,
        limits=HarnessRunLimits(max_turns=20),
    )
    found = rollout(["play", "again"], None)
    return {"rewards": found["env_reward"], "metrics": found["verify_metrics"], "tools": said[0]}


def killed(url, seed, tool, moves):
    """In the midst of an episode."""
    env = GenericEnvClient(base_url=url).sync()
    env.connect()
    found = env.reset(seed=seed)
    env.step(action_of(tool, moves[0]))
    agent = MCPToolClient(base_url=url).sync()
    agent.connect()
    agent.reset(seed=seed)
    print(json.dumps({"sessions": [found.metadata["session"]]}), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    scenario, url, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    print(json.dumps({**globals()[scenario](url, **arguments)}))
