"""The official client on a URL that is an episode: one line of its config, and nothing that has to be made before."""

from __future__ import annotations

import secrets

import httpx2
import pytest
import trio
from mcp import Client

from .python_clients import DEADLINE, MODERN


def look(url):
    return httpx2.get(url).raise_for_status().json()


@pytest.mark.children
@pytest.mark.parametrize("mode", [MODERN, "auto", "legacy"])
async def test_a_url_is_an_episode_for_a_client_of_any_kind_that_comes_and_goes(examples, mode):
    id = secrets.token_hex(16)
    for path, action, step in (("mcp", "DOWN", 1), ("agent/mcp", "UP", 2)):
        with trio.fail_after(DEADLINE):
            async with Client(f"{examples.url}/s/{id}/{path}?env=frozen_lake&seed=3", mode=mode) as client:
                result = await client.call_tool("lake_move", {"action": action})
                assert not result.is_error
                uris = {str(one.uri) for one in (await client.list_resources()).resources}
                assert ("control://reward" in uris) == (path == "mcp")
        # Whatever its client speaks, a trainer reads what has come of it.
        control = look(f"{examples.url}/s/{id}/control")
        assert control.keys() == {"reward", "status", "info", "initial_state"}
        assert control["status"]["step"] == look(f"{examples.url}/s/{id}/control/status")["step"] == step
    seen = look(f"{examples.url}/sessions/{id}")
    assert (seen["env"], seen["seed"], seen["calls"]) == ("frozen_lake", 3, 2)
    assert httpx2.delete(f"{examples.url}/sessions/{id}").status_code == 204
    with pytest.raises(ExceptionGroup), trio.fail_after(DEADLINE):
        async with Client(f"{examples.url}/s/{id}/mcp?env=frozen_lake&seed=3", mode=mode) as client:
            await client.list_tools()
    assert httpx2.get(f"{examples.url}/sessions/{id}").status_code == 404
