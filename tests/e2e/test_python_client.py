"""The official Python client, in every mode and on every way into muxsim, plays what it plays without muxsim."""

import pytest
import trio
from mcp import Client, MCPError

from .games import GAMES, GRID, LAKE, play, read_control, unasked
from .python_clients import DEADLINE, LATEST_HANDSHAKE, MODERN, ROUTES, connected, posted_session

pytestmark = pytest.mark.children

# On the URLs that make sessions by a handshake there is no other revision; elsewhere client and environment choose.
HANDSHAKE_ROUTES = ("/mcp", "/envs/<env>/mcp")
WAYS = [
    *((route, "legacy", LATEST_HANDSHAKE) for route in ROUTES),
    *((route, "auto", LATEST_HANDSHAKE if route in HANDSHAKE_ROUTES else MODERN) for route in ROUTES),
    *((route, MODERN, MODERN) for route in ROUTES if route not in HANDSHAKE_ROUTES),
]
by_env = pytest.mark.parametrize("game", GAMES, ids=lambda game: game.env)


def test_the_games_are_won_and_end_without_muxsim(references):
    lake, grid = references[LAKE.env], references[GRID.env]
    assert (lake["tools"], grid["tools"]) == (["lake_move"], ["look", "move"])
    for game, transcript in ((LAKE, lake), (GRID, grid)):
        steps = len(game.moves)
        assert transcript["before"]["status"] == {
            "terminated": False, "truncated": False, "step": 0, "total_reward": 0
        }  # fmt: skip
        assert transcript["after"]["status"] == {
            "terminated": True, "truncated": False, "step": steps, "total_reward": 1
        }  # fmt: skip
        assert transcript["before"]["initial_state"]["seed"] == game.seed
        assert [step["control"]["step"] for step in transcript["steps"][:-1]] == list(range(1, steps + 1))
        assert [step["is_error"] for step in transcript["steps"]] == [False] * steps + [True]
        assert "has ended" in transcript["steps"][-1]["text"]


@by_env
@pytest.mark.parametrize(("route", "mode", "revision"), WAYS)
async def test_a_game_is_the_same_through_muxsim(examples, references, game, route, mode, revision):
    async with connected(examples, route, game.env, game.seed, mode=mode) as client:
        assert client.protocol_version == revision
        assert await play(client, game) == references[game.env]


@pytest.mark.parametrize("route", HANDSHAKE_ROUTES)
async def test_a_client_of_the_new_revision_only_is_told_to_make_a_session_first(examples, route):
    with pytest.RaisesGroup(
        pytest.RaisesExc(MCPError, match="POST /sessions first"), allow_unwrapped=True, flatten_subgroups=True
    ):
        async with connected(examples, route, GRID.env, mode=MODERN) as client:
            await client.list_tools()
    assert examples.health()["sessions"] == 0


@pytest.mark.parametrize(("game", "route"), [(LAKE, "/mcp"), (GRID, "/mcp"), (GRID, "/sse"), (GRID, "stdio")])
async def test_the_control_plane_is_in_no_result_that_was_not_asked_for_it(examples, references, game, route):
    async with connected(examples, route, game.env, game.seed, mode="legacy") as client:
        assert await play(client, game, ask=False) == unasked(references[game.env])


@by_env
@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_an_agent_at_its_own_url_sees_the_game_but_nothing_of_the_control_plane(examples, references, game, mode):
    hidden = {**unasked(references[game.env]), "before": {}, "after": {}}
    with trio.fail_after(DEADLINE):
        async with posted_session(examples, game.env, game.seed) as session:
            async with Client(session["urls"]["agent_mcp"], mode=mode) as agent:
                assert await play(agent, game) == hidden
                with pytest.raises(MCPError):
                    await agent.read_resource("control://reward")
            async with Client(session["urls"]["mcp"], mode=mode) as trainer:
                assert await read_control(trainer) == references[game.env]["after"]
