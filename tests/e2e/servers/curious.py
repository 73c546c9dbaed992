"""A server on the Python SDK that asks its client for things, and tells it some: by the handshake or by 2026-07-28."""

from typing import Annotated

from mcp.server.mcpserver import Context, Elicit, ElicitationResult, ListRoots, MCPServer, Resolve, Sample
from mcp_types import CreateMessageResult, ListRootsResult, SamplingMessage, TextContent
from pydantic import BaseModel

NOTE = "note://today"

server = MCPServer("curious")
notes = ["nothing yet"]


class Guest(BaseModel):
    name: str
    age: int


def ask_who() -> Elicit[Guest]:
    return Elicit("Who are you?", Guest)


def ask_for_a_haiku() -> Sample:
    wish = SamplingMessage(role="user", content=TextContent(type="text", text="a haiku, please"))
    return Sample([wish], max_tokens=20)


def ask_for_roots() -> ListRoots:
    return ListRoots()


@server.tool()
def welcome(guest: Annotated[ElicitationResult[Guest], Resolve(ask_who)]) -> str:
    """Greets whoever says who they are."""
    return f"Welcome, {guest.data.name}, {guest.data.age}." if guest.action == "accept" else f"You {guest.action}."


@server.tool()
def recite(sampled: Annotated[CreateMessageResult, Resolve(ask_for_a_haiku)]) -> str:
    """Says what the client's model wrote."""
    return f"{sampled.model}: {sampled.content.text}"


@server.tool()
def look_around(found: Annotated[ListRootsResult, Resolve(ask_for_roots)]) -> list[str]:
    """Names the client's roots."""
    return [str(root.uri) for root in found.roots]


@server.tool()
async def work(context: Context) -> str:
    """Reports progress, and says something to the log."""
    for step in range(3):
        await context.report_progress(step, 3, f"step {step}")
        await context.info(f"at step {step}")
    return "worked"


@server.resource(NOTE)
def today() -> str:
    """What was noted last."""
    return notes[-1]


@server.tool()
async def note(text: str, context: Context) -> str:
    """Changes the note, and tells those who listen."""
    notes.append(text)
    await context.notify_resource_updated(NOTE)
    return "noted"


if __name__ == "__main__":
    server.run()
