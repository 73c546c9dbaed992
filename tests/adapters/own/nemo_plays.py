"""Run by test_nemo with NeMo Gym installed: its gymnasium_agent over HTTP, between a model and muxsim's server.

Both are served as its `run_webserver` does it, but on one loop, and without Ray, which none of them uses.
"""

import asyncio
import json
import os
import socket
import sys
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import uvicorn
from fastapi import FastAPI
from nemo_gym.global_config import NEMO_GYM_CONFIG_DICT_ENV_VAR_NAME, NEMO_GYM_CONFIG_PATH_ENV_VAR_NAME
from nemo_gym.server_utils import ServerClient, get_global_config_dict, get_response_json
from responses_api_agents.gymnasium_agent.app import GymnasiumAgent

import muxsim
from muxsim.adapters.nemo_server import MuxsimServer, tools_of

ENV = "frozen_lake"
MOVES = ("DOWN", "RIGHT") * 3  # to the goal, where no hole is in the way
QUESTION, QUIET = "Cross it.", "Say nothing."
SEEDS = range(4)


async def main(source, tools):
    config, sockets = configured(source)
    os.environ[NEMO_GYM_CONFIG_DICT_ENV_VAR_NAME] = json.dumps(config)
    rows = [*(row(QUESTION, tools, seed) for seed in SEEDS), row(QUIET, tools, 0), row(QUESTION, tools, "no seed")]
    client = ServerClient(
        head_server_config=ServerClient.load_head_server_config(), global_config_dict=get_global_config_dict()
    )
    lake, agent = (made(cls, name, client) for cls, name in ((MuxsimServer, "lake"), (GymnasiumAgent, "agent")))
    async with AsyncExitStack() as serving:
        for name, app in (("model", model()), ("lake", app_of(lake)), ("agent", app_of(agent))):
            await serving.enter_async_context(served(app, sockets[name]))
        rollouts = await asyncio.gather(*(rollout(client, one) for one in rows))
        closed = await given_up(client, rows[0])
    async with muxsim.open_pool(source) as pool:
        expected = [await walked(pool, seed) for seed in SEEDS]
    return {"rollouts": rollouts, "expected": expected, "closed": closed}


def configured(source):
    """What `gym env start` hands to its servers, and a socket for each."""
    resources = {"source": source, "env": ENV, "domain": "games", "max_calls": len(MOVES)}
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ("model", "lake", "agent")}
    places = {
        name: {"host": "127.0.0.1", "port": bound.getsockname()[1], "entrypoint": "app.py"}
        for name, bound in sockets.items()
    }
    return {
        "head_server": {"host": "127.0.0.1", "port": 1},
        "model": {"responses_api_models": {"walker": places["model"]}},
        "lake": {"resources_servers": {"lake": {**places["lake"], **resources}}},
        "agent": {
            "responses_api_agents": {
                "gymnasium_agent": {
                    **places["agent"],
                    "resources_server": {"type": "resources_servers", "name": "lake"},
                    "model_server": {"type": "responses_api_models", "name": "model"},
                    "max_steps": len(MOVES),
                }
            }
        },
    }, sockets


def made(cls, name, client):
    os.environ[NEMO_GYM_CONFIG_PATH_ENV_VAR_NAME] = name
    return cls(config=cls.load_config_from_global_config(), server_client=client)


def app_of(server):
    app = server.setup_webserver()
    server.setup_exception_middleware(app)
    return app


@asynccontextmanager
async def served(app, bound):
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    yield
    server.should_exit = True
    await serving


def model():
    """Makes one move after the other; none if that is what its user asks for."""
    app = FastAPI()

    @app.post("/v1/responses")
    async def responses(body: dict):
        kinds = Counter(item.get("type") for item in body["input"])
        turn = kinds["function_call_output"]
        arguments = json.dumps({"action": MOVES[turn]})
        call = {"type": "function_call", "name": body["tools"][0]["name"], "arguments": arguments, "call_id": f"{turn}"}
        words = {"type": "output_text", "text": "No.", "annotations": []}
        message = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [words]}
        quiet = any(item.get("content") == QUIET for item in body["input"])
        rest = {"parallel_tool_calls": False, "tool_choice": "auto", "tools": body["tools"], "created_at": 0}
        return {"id": "r", "object": "response", "model": "walker", "output": [message if quiet else call], **rest}

    return app


def row(question, tools, seed):
    return {
        "responses_create_params": {"input": [{"role": "user", "content": question}], "tools": tools},
        "seed": seed,
    }


async def rollout(client, one):
    """What NeMo's collection of rollouts gets for a row."""
    response = await client.post(server_name="agent", url_path="/run", json=one)
    told = await get_response_json(response)
    if response.status != 200:
        return {"status": response.status, "told": told}
    output = told["response"]["output"]
    return {
        "status": response.status,
        "asked": told["responses_create_params"]["input"][-1]["content"],
        "heard": [item["output"] for item in output if item["type"] == "function_call_output"],
        "reward": told["reward"],
        "ended": [told["terminated"], told["truncated"]],
    }


async def walked(pool, seed):
    """The same walk without NeMo Gym."""
    session = await pool.open(ENV, seed)
    heard, reward, over = [], 0.0, False
    moves = iter(MOVES)
    while not over:
        result = await session.call("lake_move", {"action": next(moves)})
        reward, over = reward + result.control.reward, result.control.terminated
        heard.append(result.content[0]["text"])
    state = session.opened.initial_state["observation"]
    await session.close()
    # Nobody hears what ends it.
    return {"state": state, "heard": heard[:-1], "reward": reward, "ended": [over, False]}


async def given_up(client, one):
    """What a server says that the agent of NeMo Gym 0.7 begins an episode with, and ends it before its end."""
    began = await client.post(server_name="lake", url_path="/reset", json=one)
    ends = (await get_response_json(began))["info"]["supports_explicit_close"]
    cookies = began.cookies
    closed = [
        (await client.post(server_name="lake", url_path="/close", json={}, cookies=cookies)).status for _ in range(2)
    ]
    response = {"id": "r", "object": "response", "model": "walker", "output": [], "created_at": 0, "tools": []}
    step = {**one, "response": {**response, "parallel_tool_calls": False, "tool_choice": "auto"}}
    after = await client.post(server_name="lake", url_path="/step", json=step, cookies=cookies)
    return {"ends": ends, "closed": closed, "after": await get_response_json(after)}


if __name__ == "__main__":
    config, output = sys.argv[1:]
    played = asyncio.run(main(config, tools_of(config, ENV)))
    with open(output, "w") as file:
        json.dump(played, file)
