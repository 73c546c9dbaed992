"""A server that asks its client, in either era, gets through muxsim the answers that it gets without it."""

import sys

import mcp_types as types
import pytest
import trio
from mcp import Client, StdioServerParameters
from mcp.client.subscriptions import ResourceUpdated

from .conftest import HERE
from .python_clients import DEADLINE, LATEST_HANDSHAKE, MODERN, connected, posted_session
from .ts_clients import gathered

pytestmark = [pytest.mark.children, pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")]

CURIOUS = str(HERE / "servers" / "curious.py")
NOTE = "note://today"


class Guest:
    """A client's user, who says different things when asked again."""

    def __init__(self):
        self.asked = []
        self.logged = []
        self.answers = [
            types.ElicitResult(action="accept", content={"name": "Ada", "age": 36}),
            types.ElicitResult(action="decline"),
        ]

    @property
    def options(self):
        """What `mcp.Client` is given."""
        return {
            "sampling_callback": self.sample,
            "elicitation_callback": self.fill_in,
            "list_roots_callback": self.list_roots,
            "logging_callback": self.log,
            "log_level": "info",
        }

    async def sample(self, context, params):
        self.asked.append(params.messages[0].content.text)
        content = types.TextContent(type="text", text="old pond")
        return types.CreateMessageResult(role="assistant", model="scripted", content=content)

    async def fill_in(self, context, params):
        self.asked.append([params.message, sorted(params.requested_schema["properties"])])
        return self.answers.pop(0)

    async def list_roots(self, context):
        return types.ListRootsResult(roots=[types.Root(uri="file:///tmp/one")])

    async def log(self, params):
        self.logged.append(params.data)


async def be_asked(client, guest):
    """Call every tool that asks or tells; a record in which nothing differs from run to run."""
    progress = []

    async def on_progress(*report):
        progress.append(report)

    said = [_text(await client.call_tool(tool)) for tool in ("welcome", "welcome", "recite", "look_around")]
    said.append(_text(await client.call_tool("work", progress_callback=on_progress)))
    return {"said": said, "asked": guest.asked, "logged": guest.logged, "progress": progress}


def _text(result):
    assert not result.is_error, result
    return result.content[0].text


WANTED = {
    "said": ["Welcome, Ada, 36.", "You decline.", "scripted: old pond", "file:///tmp/one", "worked"],
    "asked": [["Who are you?", ["age", "name"]], ["Who are you?", ["age", "name"]], "a haiku, please"],
    "logged": ["at step 0", "at step 1", "at step 2"],
    "progress": [(0, 3, "step 0"), (1, 3, "step 1"), (2, 3, "step 2")],
}
ROUTES = {
    LATEST_HANDSHAKE: ("/envs/<env>/mcp", "/sse", "stdio"),
    MODERN: ("/s/<id>/mcp", "/s/<id>/sse", "stdio"),
}


@pytest.mark.parametrize("revision", ROUTES)
async def test_a_servers_questions_reach_the_client_and_its_answers_the_server(servers, revision):
    mode = MODERN if revision == MODERN else "legacy"

    async def directly():
        guest, command = Guest(), StdioServerParameters(command=sys.executable, args=[CURIOUS])
        with trio.fail_after(DEADLINE):
            async with Client(command, mode=mode, **guest.options) as client:
                return await be_asked(client, guest)

    async def through_muxsim(route):
        guest = Guest()
        async with connected(servers, route, "curious", mode=mode, **guest.options) as client:
            assert client.protocol_version == revision
            return await be_asked(client, guest)

    records = await gathered(
        {"direct": directly, **{route: lambda route=route: through_muxsim(route) for route in ROUTES[revision]}}
    )
    assert records == dict.fromkeys(records, WANTED)


async def test_everyone_who_listens_to_a_session_hears_of_a_change(servers):
    with trio.fail_after(DEADLINE):
        async with (
            posted_session(servers, "curious") as session,
            Client(session["urls"]["mcp"], mode=MODERN) as first,
            Client(session["urls"]["mcp"], mode=MODERN) as second,
            Client(session["urls"]["mcp"], mode=MODERN) as writer,
            first.listen(resource_subscriptions=[NOTE]) as heard_by_first,
            second.listen(resource_subscriptions=[NOTE]) as heard_by_second,
        ):
            for text in ("sun", "rain"):
                assert _text(await writer.call_tool("note", {"text": text})) == "noted"
                for client, heard in ((first, heard_by_first), (second, heard_by_second)):
                    assert await anext(aiter(heard)) == ResourceUpdated(uri=NOTE)
                    assert (await client.read_resource(NOTE)).contents[0].text == text
