"""Servers written for reward-kit's McpGym, behind the official client in one process."""

import base64
import dataclasses
import json
from contextlib import asynccontextmanager
from typing import Annotated, Any

import numpy as np
import pytest
import trio
from gymnasium import spaces
from mcp import Client, MCPError
from mcp_types import TextContent
from pydantic import BaseModel, Field

from muxsim.mcpgym import ToolError
from muxsim.mcpgym.exact import from_exact
from muxsim.mcpgym.reward_kit import (
    Context,
    EnvironmentAdapter,
    FastMCP,
    GymProductionServer,
    McpGym,
    control_plane_endpoint,
)
from muxsim.mcpgym.reward_kit.contents import for_agent
from muxsim.mcpgym.space_json import space_from_json

KEY = "muxsim/control"
ASK = {KEY: True}
PIXEL = base64.b64encode(b"a picture").decode()


class Walk:
    """A step to the right earns its number; at 3 it is over. It is no environment of Gymnasium's."""

    def __init__(self, config=None):
        self.config = config
        self.at = 0

    def reset(self, seed=None):
        self.at, self.seed = 0, seed
        return self.at, {"seed": seed}

    def step(self, action):
        self.at += 1
        return self.at, np.float64(action), np.bool_(self.at >= 3), False, {"at": np.int64(self.at)}

    def close(self):
        self.closed = True


class WalkMcp(McpGym):
    def __init__(self, seed=None, adapter=None, **more):
        super().__init__("walk", adapter or EnvironmentAdapter(Walk, {"speed": 1}), seed, **more)

    def _register_tools(self):
        @self.mcp.tool(name="go", description="Go right.")
        def go(action: int, ctx: Context) -> dict[str, Any]:
            """Not this one."""
            if action > 9:
                raise ValueError(f"{action} is too far")
            session_id = self._get_session_id(ctx)
            self._get_or_create_session(ctx)
            return self._execute_session_environment_step(session_id, action)

        @self.mcp.tool()
        async def look() -> dict[str, Any]:
            """Look around."""
            return {"at": self.obs, "reward": 100.0}

    def format_observation(self, obs, env):
        return {"at": obs}


@asynccontextmanager
async def connected(server):
    mcp = server if isinstance(server, FastMCP) else server.mcp
    with trio.fail_after(60):
        async with Client(mcp.server(), mode="2026-07-28") as client:
            yield client


async def call(client, name="go", meta=ASK, **arguments):
    result = await client.call_tool(name, arguments, meta=meta)
    said = "".join(getattr(block, "text", "") for block in result.content)
    return said, bool(result.is_error), (result.meta or {}).get(KEY)


async def read(client, part):
    [contents] = (await client.read_resource(f"control://{part}")).contents
    return json.loads(contents.text)


async def test_the_agent_gets_observations_and_the_trainer_what_they_have_earned():
    async with connected(WalkMcp(seed=5)) as client:
        assert await read(client, "initial_state") == {"observation": {"at": 0}, "info": {"seed": 5}, "seed": 5}
        assert await call(client, action=2) == (
            '{"at": 1}',
            False,
            {"reward": 2.0, "terminated": False, "truncated": False, "step": 1, "info": {"at": 1}},
        )
        assert (await call(client, action=1, meta=None))[2] is None
        assert (await call(client, action=4))[2] == {
            "reward": 4.0,
            "terminated": True,
            "truncated": False,
            "step": 3,
            "info": {"at": 3},
        }
        assert await read(client, "reward") == {"reward": 4.0, "step_count": 3, "step": 3}
        assert await read(client, "status") == {
            "terminated": True,
            "truncated": False,
            "step_count": 3,
            "step": 3,
            "total_reward": 7.0,
        }
        assert await read(client, "info") == {"at": 3}


async def test_a_tool_that_only_looks_has_earned_nothing_and_shows_no_reward():
    async with connected(WalkMcp(seed=5)) as client:
        said, _, control = await call(client, "look")
        assert said == '{"at": 0}'
        assert control["reward"] == 0.0


class Seen(BaseModel):
    at: int = 3
    reward: float = 1.0


@dataclasses.dataclass
class Moved:
    at: int = 3
    terminated: bool = True
    last: Any = None


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        ({"at": 3, "reward": 1.0}, '{"at": 3}'),
        (json.dumps({"at": 3, "reward": 1.0}), '{"at": 3}'),
        ([{"at": 3}, {"reward": 1.0}], '[{"at": 3}, {}]'),
        (Seen(), '{"at": 3}'),
        (
            {"seen": Moved(last=Seen(reward=0))},
            '{"seen": {"at": 3, "terminated": true, "last": {"at": 3, "reward": 0.0}}}',
        ),
        (Moved(), '{"at": 3, "last": null}'),
        ('{ "at":3 }', '{ "at":3 }'),
        ("{no JSON}, a reward", "{no JSON}, a reward"),
        (TextContent(type="text", text="on"), "on"),
    ],
)
def test_an_object_of_any_form_is_shown_without_what_is_not_the_agents(returned, shown):
    result = for_agent(returned, McpGym.hidden_from_agent)
    assert [block.text for block in result.content] == [shown]


async def test_what_a_tool_refuses_is_told_the_agent_and_has_no_reward():
    async with connected(WalkMcp(seed=5)) as client:
        said, is_error, control = await call(client, action=10)
        assert (said, is_error) == ("10 is too far", True)
        assert control["reward"] is None
        assert "failed" not in control
        assert (await call(client, action=1))[2]["reward"] == 1.0


async def test_no_step_is_possible_after_the_end():
    async with connected(WalkMcp(seed=5)) as client:
        for _ in range(3):
            await call(client, action=1)
        said, is_error, control = await call(client, action=1)
        assert is_error
        assert "the episode has ended" in said
        assert control["step"] == 3


class Broken(EnvironmentAdapter):
    def __init__(self, returns):
        super().__init__(Walk)
        self.returns = returns

    def step_environment(self, env, action):
        if isinstance(self.returns, Exception):
            raise self.returns
        return self.returns


@pytest.mark.parametrize(
    ("returns", "why"),
    [
        (RuntimeError("physics"), "the environment failed in a step: RuntimeError: physics"),
        ((1, float("nan"), False, False, {}), "the reward is not finite but nan"),
        ((1, "much", False, False, {}), "the reward is not a number but 'much'"),
        ((1, 1.0, "yes", False, {}), "terminated is not a bool but 'yes'"),
        ((1, 1.0, False), "not enough values to unpack"),
    ],
)
async def test_an_environment_that_fails_has_no_reward_and_no_further_step(returns, why):
    async with connected(WalkMcp(seed=5, adapter=Broken(returns))) as client:
        said, _, control = await call(client, action=1)
        assert control["reward"] is None
        assert why in control["failed"]
        assert why not in said
        assert why in (await read(client, "status"))["failed"]
        assert await call(client, action=1) == (
            "the environment has failed: no further step is possible in this session",
            True,
            control,
        )


async def test_a_tool_that_fails_after_its_step_has_lost_its_reward():
    class Forgetful(WalkMcp):
        def format_observation(self, obs, env):
            return {"at": {}[obs]} if obs else {"at": obs}

    async with connected(Forgetful(seed=5)) as client:
        said, is_error, control = await call(client, action=1)
        assert (said, is_error) == ("the tool failed (KeyError)", True)
        assert control["reward"] is None
        assert "KeyError" in control["failed"]


async def test_an_adapter_that_refuses_an_action_has_not_failed():
    class Strict(EnvironmentAdapter):
        def step_environment(self, env, action):
            raise ToolError("not that way")

    async with connected(WalkMcp(seed=5, adapter=Strict(Walk))) as client:
        assert (await call(client, action=1))[0] == "not that way"
        assert "failed" not in await read(client, "status")


class Elder(GymProductionServer):
    """As reward-kit's first production servers: no control plane, and all that a step gives in the tool's result."""

    def __init__(self):
        super().__init__("elder", EnvironmentAdapter(Walk))

    def _register_tools(self):
        @self.mcp.tool(name="go", description="Go right.")
        def go(action: int, ctx: Context) -> dict[str, Any]:
            self.extract_seed_from_context(ctx)
            obs, reward, terminated, truncated, info = self.adapter.step_environment(self.env, action)
            self.obs = obs
            own = {"reward": float(reward), "terminated": bool(terminated), "truncated": bool(truncated), "info": info}
            return {**self._render(obs), "action": action, **own, "rendered_frame": f"data:image/png;base64,{PIXEL}"}

    @staticmethod
    def format_observation(obs, env):
        return {"at": obs, "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}


async def test_a_server_that_shows_the_agent_its_reward_shows_it_to_the_trainer_alone():
    async with connected(Elder()) as client:
        result = await client.call_tool("go", {"action": 2}, meta=ASK)
        assert [block.type for block in result.content] == ["text", "image", "image"]
        assert json.loads(result.content[0].text) == {"at": 1, "action": 2}
        assert result.content[1].data == PIXEL
        assert result.meta[KEY]["reward"] == 2.0
        assert result.meta[KEY]["step"] == 1


async def test_the_first_observation_has_its_picture_as_an_image():
    async with connected(Elder()) as client:
        assert (await read(client, "initial_state"))["observation"] == [
            {"type": "text", "text": '{"at": 0}'},
            {"type": "image", "data": PIXEL, "mimeType": "image/png"},
        ]


async def test_an_observation_that_is_no_object_is_itself_at_the_start_too():
    class Plain(WalkMcp):
        format_observation = McpGym.format_observation

    async with connected(Plain(seed=1)) as client:
        assert (await read(client, "initial_state"))["observation"] == 0
        assert (await call(client, action=1))[0] == '{"observation": 1}'


class Shaped(WalkMcp):
    """Says itself what a step has earned."""

    def _update_session_control_plane(self, session_id, reward, terminated, truncated, info):
        super()._update_session_control_plane(session_id, reward - 0.5, terminated, truncated, info)


class Counting(WalkMcp):
    """Writes into the state itself."""

    def _update_session_control_plane(self, session_id, reward, terminated, truncated, info):
        state = self._get_or_create_session_control_plane(session_id)
        state.update(
            reward=reward - 0.5, terminated=bool(terminated), total_reward=state["total_reward"] + reward - 0.5
        )
        state["step_count"] += 1


@pytest.mark.parametrize("kind", [Shaped, Counting])
async def test_what_a_server_writes_into_its_control_plane_is_what_counts(kind):
    async with connected(kind(seed=5)) as client:
        assert [(await call(client, action=2))[2]["reward"] for _ in range(2)] == [1.5, 1.5]
        assert (await read(client, "status"))["total_reward"] == 3.0


class Endpoints(WalkMcp):
    """With endpoints of its own."""

    points = 0

    @control_plane_endpoint("/control/reward")
    async def points_endpoint(self, session_data):
        return {"reward": 10.0 * session_data["obs"], "step_count": session_data["obs"]}

    @control_plane_endpoint("/control/where")
    def where(self, session_data):
        return {"at": session_data["obs"], "session": session_data["session_id"]}


async def test_endpoints_of_a_servers_own_are_resources_and_are_asked_before_ours():
    async with connected(Endpoints(seed=5)) as client:
        assert (await call(client, action=2))[2] is None  # muxsim reads what the server says
        assert await read(client, "reward") == {"reward": 10.0, "step_count": 1, "step": 1}
        assert await read(client, "where") == {"at": 1, "session": "session"}
        assert {str(one.uri) for one in (await client.list_resources()).resources} == {
            f"control://{part}" for part in ("reward", "status", "info", "initial_state", "where")
        }


async def test_an_endpoint_that_is_overridden_without_its_mark_is_one_all_the_same():
    class Unmarked(WalkMcp):
        def get_reward_endpoint(self, session_data):
            return {"reward": 1.25}

    async with connected(Unmarked(seed=5)) as client:
        assert await read(client, "reward") == {"reward": 1.25}


async def test_control_resources_that_a_server_registers_are_the_control_plane():
    mcp = FastMCP("bare", host="0.0.0.0", port=8000)

    @mcp.resource("control://status")
    def status() -> str:
        return json.dumps({"terminated": False, "step_count": 4})

    @mcp.resource("game://initial_state")
    def start() -> str:
        return json.dumps({"grid": "SG"})

    @mcp.tool()
    def fail() -> str:
        raise KeyError("x")

    async with connected(mcp) as client:
        assert await read(client, "status") == {"terminated": False, "step_count": 4, "step": 4}
        assert await read(client, "initial_state") == {"observation": {"grid": "SG"}}
        assert await call(client, "fail") == ("'x'", True, None)
        with pytest.raises(MCPError, match="not found"):
            await read(client, "reward")


async def test_the_trainers_tool_is_not_the_agents():
    class Telling(WalkMcp):
        def _register_tools(self):
            super()._register_tools()

            @self.mcp.tool(name="get_control_plane_state", description="For the trainer.")
            def state(ctx: Context) -> dict[str, Any]:
                return self.get_control_plane_state(self._get_session_id(ctx))

    async with connected(Telling(seed=5)) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["go", "look"]
        with pytest.raises(MCPError, match="Unknown tool"):
            await call(client, "get_control_plane_state")


async def test_a_tools_arguments_are_those_of_its_function_without_the_context():
    mcp = FastMCP("arguments")

    @mcp.tool()
    def book(
        user: Annotated[str, Field(description="Who")],
        ctx: Context[Any, Any],
        bags: int = Field(description="How many", ge=0, default=1),
        flights: list[dict[str, Any]] | None = None,
    ) -> str:
        return f"{user} {bags} {ctx.session.client_params.clientInfo}"

    async with connected(mcp) as client:
        [tool] = (await client.list_tools()).tools
        schema = tool.input_schema
        assert schema["required"] == ["user"]
        assert set(schema["properties"]) == {"user", "bags", "flights"}
        assert schema["properties"]["bags"] | {"title": ""} == {
            "type": "integer",
            "minimum": 0,
            "description": "How many",
            "default": 1,
            "title": "",
        }
        assert (await call(client, "book", user="Ann"))[0] == "Ann 1 None"
        assert (await call(client, "book", user="Ann", bags=-1))[1]


@pytest.mark.parametrize("known", [{"ACTION_NAMES": ["LEFT", "UP"]}, {"action_map": {"LEFT": 0, "UP": 1}}])
async def test_agents_are_told_the_actions_that_an_adapter_names(known):
    adapter = EnvironmentAdapter(Walk)
    vars(adapter).update(known)

    class Named(WalkMcp):
        def _register_tools(self):
            @self.mcp.tool()
            def go(action: str, ctx: Context) -> str:
                return action

    async with connected(Named(seed=1, adapter=adapter)) as client:
        [tool] = (await client.list_tools()).tools
        assert tool.input_schema["properties"]["action"]["enum"] == ["LEFT", "UP"]
        assert (await call(client, action="left"))[0] == "left"  # which the tool may well take


def test_a_seed_comes_from_the_server_else_from_muxsim(monkeypatch):
    monkeypatch.setenv("MUXSIM_SEED", "7")
    assert WalkMcp().env.seed == 7
    assert WalkMcp(seed=0).env.seed == 0
    monkeypatch.setenv("MUXSIM_SEED", "seven")
    with pytest.raises(ValueError, match="MUXSIM_SEED: a seed is a whole number"):
        WalkMcp()


def test_a_default_config_is_whatever_its_adapter_makes_of_it():
    class Named(EnvironmentAdapter):
        def get_default_config(self):
            return "Walk-v1"

        def create_environment(self, config=None):
            return Walk(config)

    assert WalkMcp(seed=1, adapter=Named()).env.config == "Walk-v1"


def test_a_servers_own_state_is_that_of_its_only_session():
    server = WalkMcp(seed=3)
    server._execute_environment_step(2)
    assert server.obs == server.sessions["session"]["obs"] == 1
    assert server.control_plane_state["total_reward"] == 2.0
    assert server.get_control_plane_state("session") == server.control_plane_state
    assert server.get_control_plane_state("another") is None
    assert server.env.config == {"speed": 1}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda mcp: mcp.tool(lambda: None), "write @mcp.tool"),
        (lambda mcp: mcp.resource("game://{tile}"), "is a template"),
        (lambda mcp: mcp.streamable_http_app(), "muxsim itself serves HTTP"),
        (lambda mcp: control_plane_endpoint("/reward"), "is like /control/reward"),
        (lambda mcp: EnvironmentAdapter().create_environment(), "needs an env_class"),
    ],
)
def test_what_cannot_be_had_says_what_to_do(wrong, says):
    with pytest.raises((TypeError, ValueError, AttributeError, NotImplementedError), match=says):
        wrong(FastMCP("wrong"))


class Arrays:
    """An environment of Gymnasium's, with an array that it uses again."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Box(-9, 9, (2,), np.float32)

    def __init__(self, config=None):
        self.seen = np.zeros(2, np.float32)

    def reset(self, seed=None):
        return self.seen, {"n": np.int64(1)}

    def step(self, action):
        self.seen[0] += action
        return self.seen, 1.0, False, False, {"n": np.int64(2)}

    def close(self):
        pass


class ArrayMcp(McpGym):
    def __init__(self, env=Arrays):
        super().__init__("arrays", EnvironmentAdapter(env), 5)

    def _register_tools(self):
        @self.mcp.tool(name="go")
        def go(action: int) -> dict[str, Any]:
            return self._execute_environment_step(action)


async def test_who_trains_on_what_the_environment_itself_gives_has_its_spaces_and_observations():
    async with connected(ArrayMcp()) as client:
        told = await read(client, "spaces")
        assert told["step"] is None
        assert [space_from_json(told[name]) for name in ("action", "observation")] == [
            *(Arrays.action_space, Arrays.observation_space)
        ]
        [contents] = (await client.read_resource("control://initial_state", meta={KEY: {"exact": True}})).contents
        exact = from_exact(json.loads(contents.text)["exact"])
        assert exact["observation"].dtype == np.float32
        assert (exact["observation"].tolist(), exact["info"]) == ([0.0, 0.0], {"n": 1})
        assert "exact" not in await read(client, "initial_state")
        assert "exact" not in (await call(client, action=1))[2]
        exact = from_exact((await call(client, meta={KEY: {"exact": True}}, action=1))[2]["exact"])
        assert (exact["observation"].tolist(), exact["info"]) == ([2.0, 0.0], {"n": 2})
        [contents] = (await client.read_resource("control://initial_state", meta={KEY: {"exact": True}})).contents
        assert "exact" not in json.loads(contents.text), "the array is that of the last step by now"


class Elsewhere(Arrays):
    """One whose adapter shows something else than what is in its space."""

    def reset(self, seed=None):
        return np.zeros(3), {}


@pytest.mark.parametrize("server", [lambda: ArrayMcp(Elsewhere), lambda: WalkMcp(seed=5)])
async def test_spaces_that_nobody_knows_are_not_told(server):
    async with connected(server()) as client:
        assert "control://spaces" not in {str(one.uri) for one in (await client.list_resources()).resources}
        assert "exact" not in (await call(client, meta={KEY: {"exact": True}}, action=1))[2]
