"""TypeScript clients of both SDK generations get through muxsim what they get without it."""

import json
import secrets

import httpx2
import pytest

from .games import CONTROL, GAMES, LAKE
from .python_clients import LATEST_HANDSHAKE, MODERN, ROUTES
from .test_python_client import HANDSHAKE_ROUTES
from .ts_clients import (
    CLIENTS,
    EVERYTHING,
    SCENARIOS,
    by_command,
    expected,
    gathered,
    install_clients,
    run_client,
    run_on_route,
)

pytestmark = [pytest.mark.children, pytest.mark.network]


@pytest.fixture(scope="module", autouse=True)
def _clients():
    install_clients()


def _revision(route, client):
    choice = client[1] == MODERN or (client[1] == "auto" and route not in HANDSHAKE_ROUTES)
    return MODERN if choice else LATEST_HANDSHAKE


@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.env)
@pytest.mark.parametrize("route", ROUTES)
async def test_a_game_is_the_same_for_every_client(examples, references, route, game):
    asking = ["--tool", game.tool, "--arguments", json.dumps(game.calls), "--meta", json.dumps({CONTROL: True})]
    # A lake takes a second of a processor to start, so not every mode goes there.
    clients = [("v1", "legacy"), ("v2", "auto")] if game is LAKE else CLIENTS
    clients = [client for client in clients if route not in HANDSHAKE_ROUTES or client[1] != MODERN]
    reports = await gathered(
        {
            client: lambda client=client: run_on_route("play", client, examples, route, game.env, game.seed, *asking)
            for client in clients
        }
    )
    for client, report in reports.items():
        assert report["ok"], report
        assert report["client"]["revision"] == _revision(route, client)
        assert report["result"] == references[game.env]


async def test_a_url_is_an_episode_for_every_client_that_comes_and_goes(examples):
    async def play(client):
        id = secrets.token_hex(16)
        for step, path in enumerate(("mcp", "agent/mcp"), 1):
            url = f"{examples.url}/s/{id}/{path}?env=frozen_lake&seed=3"
            move = ["--tool", "lake_move", "--arguments", json.dumps([{"action": "DOWN"}])]
            report = await run_client("play", client, ["--transport", "http", "--url", url, *move])
            assert report["ok"], report
            assert report["client"]["revision"] == _revision("/s/<id>/mcp", client)
            assert bool(report["result"]["before"]) == (path == "mcp"), "an agent reads no control plane"
            status = httpx2.get(f"{examples.url}/s/{id}/control/status").raise_for_status().json()
            assert status["step"] == step
        assert httpx2.delete(f"{examples.url}/sessions/{id}").status_code == 204

    await gathered({client: lambda client=client: play(client) for client in CLIENTS})


async def test_what_was_recorded_is_what_the_server_itself_says():
    direct = by_command(["node", str(EVERYTHING)])
    reports = await gathered(
        {scenario: lambda name=scenario: run_client(name, ("v1", "legacy"), direct) for scenario in SCENARIOS}
    )
    assert {scenario: report.get("result", report) for scenario, report in reports.items()} == {
        scenario: expected(scenario) for scenario in SCENARIOS
    }


@pytest.mark.parametrize(
    ("route", "client"),
    [
        ("/envs/<env>/mcp", ("v1", "legacy")),
        ("/envs/<env>/mcp", ("v2", "legacy")),
        ("/s/<id>/mcp", ("v2", "auto")),
        ("/sse", ("v1", "legacy")),
        ("/sse", ("v2", "auto")),
        ("/s/<id>/sse", ("v2", "legacy")),
        ("stdio", ("v1", "legacy")),
        ("stdio", ("v2", "auto")),
    ],
    ids=str,
)
async def test_whatever_server_and_client_say_to_each_other_goes_through(servers, route, client):
    reports = await gathered(
        {
            scenario: lambda name=scenario: run_on_route(name, client, servers, route, "everything")
            for scenario in SCENARIOS
        }
    )
    for scenario, report in reports.items():
        assert report["ok"], report
        assert report["client"]["revision"] == LATEST_HANDSHAKE
        assert report["result"] == expected(scenario), scenario
