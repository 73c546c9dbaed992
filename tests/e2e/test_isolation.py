"""Many sessions at once, each with a state of its own; and one seed, which is one episode wherever it is played."""

import json

import pytest
import trio

from .games import CONTROL, GAMES, GRID, LAKE, play, play_directly
from .peers import HTTPPeer, http_client, request, text_of, tool_call
from .python_clients import DEADLINE, connected
from .ts_clients import gathered

pytestmark = pytest.mark.children

SESSIONS = 32
# A lake needs a second of a processor to start, a grid a fifth of it.
PLAYED = [(LAKE if seed % 4 == 0 else GRID).with_seed(seed) for seed in range(SESSIONS)]


class Everybody:
    """A place to meet: nobody goes on before all have come."""

    def __init__(self, count):
        self.count = count
        self.came = 0
        self.complete = trio.Event()

    async def meet(self):
        self.came += 1
        if self.came == self.count:
            self.complete.set()
        await self.complete.wait()


async def read(peer, id, uri):
    (answer,) = await peer.ask(request(id, "resources/read", {"uri": uri}))
    assert answer["id"] == id
    return json.loads(answer["result"]["contents"][0]["text"])


async def play_raw(http, url, game, opened, played):
    """Play a game with request ids that are the same in every session."""
    peer = await HTTPPeer.open(http, f"{url}/mcp?env={game.env}&seed={game.seed}")
    await opened.meet()
    start = await read(peer, 1, "control://initial_state")
    steps = []
    for id, arguments in enumerate(game.calls, 2):
        (answer,) = await peer.ask(tool_call(id, game.tool, arguments, meta={CONTROL: True}))
        assert answer["id"] == id
        steps.append((text_of(answer), answer["result"].get("isError", False)))
    status = await read(peer, 100, "control://status")
    await played.meet()
    await peer.close()
    return {"start": start, "steps": steps, "status": status}


def as_raw(transcript):
    """A transcript in the form of `play_raw`."""
    return {
        "start": transcript["before"]["initial_state"],
        "steps": [(step["text"], step["is_error"]) for step in transcript["steps"]],
        "status": transcript["after"]["status"],
    }


async def test_sessions_at_once_with_the_same_request_ids_each_see_their_own_state_only(examples):
    opened, played = Everybody(SESSIONS), Everybody(SESSIONS)
    with trio.fail_after(2 * DEADLINE):
        async with http_client() as http:
            episodes = await gathered(
                {game: lambda game=game: play_raw(http, examples.url, game, opened, played) for game in PLAYED}
            )
        direct = await gathered({game: lambda game=game: play_directly(game) for game in (*PLAYED[:2], *PLAYED[-2:])})
    for game, episode in episodes.items():
        counted = [step for step in episode["steps"] if not step[1]]
        assert episode["start"]["seed"] == game.seed
        assert episode["status"]["step"] == len(counted)
    assert {game: episodes[game] for game in direct} == {
        game: as_raw(transcript) for game, transcript in direct.items()
    }
    grids = [episode["start"]["observation"] for game, episode in episodes.items() if game.env == GRID.env]
    assert len(set(grids)) == len(grids)


@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.env)
async def test_a_seed_is_the_same_episode_over_each_transport_and_another_seed_is_another(examples, game):
    seeds, routes = (0, 20240229), ("/mcp", "/sse", "stdio")

    async def episode(seed, route):
        async with connected(examples, route, game.env, seed) as client:
            return await play(client, game)

    episodes = await gathered(
        {(seed, route): lambda seed=seed, route=route: episode(seed, route) for seed in seeds for route in routes}
    )
    for seed in seeds:
        transcripts = [episodes[seed, route] for route in routes]
        assert transcripts[0]["before"]["initial_state"]["seed"] == seed
        assert transcripts == [transcripts[0]] * len(routes)
    assert episodes[seeds[0], "/mcp"]["steps"] != episodes[seeds[1], "/mcp"]["steps"]
