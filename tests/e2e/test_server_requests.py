"""What a server asks of its client, and what it says unasked, reaches the Python client as it does without muxsim."""

import pytest
import trio
from mcp import Client, StdioServerParameters

from .conversation import Person, converse
from .python_clients import DEADLINE, LATEST_HANDSHAKE, connected
from .ts_clients import EVERYTHING, gathered, install_clients

pytestmark = [
    pytest.mark.children,
    pytest.mark.network,
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),  # what 2026-07-28 drops has to work until then
]


@pytest.fixture(scope="module", autouse=True)
def _server():
    install_clients()


async def _without_muxsim(mode):
    person, server = Person(), StdioServerParameters(command="node", args=[str(EVERYTHING)])
    with trio.fail_after(DEADLINE):
        async with Client(server, mode=mode, **person.options) as client:
            return await converse(client, person)


async def _through_muxsim(servers, route, mode):
    person = Person()
    async with connected(servers, route, "everything", mode=mode, **person.options) as client:
        return await converse(client, person)


@pytest.mark.parametrize(
    ("mode", "routes"),
    [("legacy", ["/mcp", "/sse", "stdio"]), ("auto", ["/mcp", "/s/<id>/mcp", "/s/<id>/sse", "stdio"])],
)
async def test_a_conversation_is_the_same_through_muxsim(servers, mode, routes):
    records = await gathered(
        {
            "direct": lambda: _without_muxsim(mode),
            **{route: lambda route=route: _through_muxsim(servers, route, mode) for route in routes},
        }
    )
    direct = records["direct"]
    assert direct["revision"] == LATEST_HANDSHAKE
    assert len(direct["asked"]) == 4
    assert "declined" in direct["answers"][2][0]
    assert direct["roots"] == [["file:///tmp/one"], ["file:///tmp/one", "file:///tmp/two"]]
    assert [progress for progress, _, _ in direct["progress"][0]] == [1, 2, 3]
    assert direct["given up"] == [True, ["Echo: still here"]]
    for route in routes:
        assert records[route] == direct, route
