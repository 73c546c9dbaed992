"""The Python client in conversation with server-everything: what a server may ask of its client, or say unasked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

import mcp_types as types
import trio

LONG = "trigger-long-running-operation"  # takes `duration` seconds and reports progress `steps` times
DOCUMENT = "demo://resource/static/document/features.md"
FORM = {"name": "Ada", "check": True, "email": "ada@example.org", "integer": 7}
SAMPLED = types.TextContent(type="text", text="a haiku")

# Seconds; a local server says things within a few hundred milliseconds.
PATIENCE = 60


@dataclass
class Person:
    """Who sits at the client: answers what the server asks, and remembers what it said."""

    asked: list = field(default_factory=list)
    heard: list = field(default_factory=list)
    roots: list = field(default_factory=lambda: ["file:///tmp/one"])
    forms: list = field(
        default_factory=lambda: [
            types.ElicitResult(action="accept", content=FORM),
            types.ElicitResult(action="decline"),
            types.ElicitResult(action="cancel"),
        ]
    )
    _news: trio.Event = field(default_factory=trio.Event)

    @property
    def options(self):
        """What `mcp.Client` is given."""
        return {
            "sampling_callback": self.sample,
            "elicitation_callback": self.fill_in,
            "list_roots_callback": self.list_roots,
            "message_handler": self.hear,
        }

    async def sample(self, context, params):
        self.asked.append(_plain(params))
        return types.CreateMessageResult(role="assistant", model="scripted", content=SAMPLED, stop_reason="endTurn")

    async def fill_in(self, context, params):
        self.asked.append(_plain(params))
        return self.forms.pop(0)

    async def list_roots(self, context):
        return types.ListRootsResult(roots=[types.Root(uri=uri) for uri in self.roots])

    async def hear(self, message):
        self.heard.append(message)
        news, self._news = self._news, trio.Event()
        news.set()

    async def first(self, kind, matches=lambda params: True):
        """The params of the first notification of a kind that matches, once it has come."""
        with trio.fail_after(PATIENCE):
            while True:
                news = self._news
                for message in self.heard:
                    if isinstance(message, kind) and matches(message.params):
                        return message.params
                await news.wait()


async def converse(client, person):
    """Everything in turn; a record in which nothing differs from run to run."""
    return {
        "revision": client.protocol_version,
        "tools": sorted(tool.name for tool in (await client.list_tools()).tools),
        "given up": await _give_up(client),  # early: what comes after must not be taken for part of it
        "answers": await _be_asked(client),
        "asked": list(person.asked),
        "roots": await _change_roots(client, person),
        "progress": await _watch_progress(client),
        "logged": await _listen_to_logs(client, person),
        "updated": await _listen_to_updates(client, person),
        "list changed": await _make_a_resource(client, person),
    }


async def _be_asked(client):
    sampled = await _texts(client, "trigger-sampling-request", {"prompt": "a haiku", "maxTokens": 20})
    return [sampled, *[await _texts(client, "trigger-elicitation-request") for _ in range(3)]]


async def _change_roots(client, person):
    before = await _texts(client, "get-roots-list")
    person.roots.append("file:///tmp/two")
    await client.send_roots_list_changed()
    await person.first(types.LoggingMessageNotification, lambda params: "2 root(s)" in str(params.data))
    after = await _texts(client, "get-roots-list")
    return [re.findall(r"URI: (\S+)", "\n".join(texts)) for texts in (before, after)]


async def _watch_progress(client):
    reports = []

    async def on_progress(progress, total, message):
        if progress < total:  # the last one may come too late for a client that has the result already
            reports.append([progress, total, message])

    answer = await client.call_tool(LONG, {"duration": 1, "steps": 4}, progress_callback=on_progress)
    return [reports, answer.content[0].text]


async def _give_up(client):
    """Give a long call up after its first progress; the session goes on."""
    with trio.CancelScope() as scope:

        async def enough(progress, total, message):
            scope.cancel()

        await client.call_tool(LONG, {"duration": 20, "steps": 100}, progress_callback=enough)
    await client.send_ping()
    return [scope.cancelled_caught, await _texts(client, "echo", {"message": "still here"})]


async def _listen_to_logs(client, person):
    await client.set_logging_level("debug")
    await _texts(client, "toggle-simulated-logging")
    said = await person.first(types.LoggingMessageNotification, lambda params: "level" in str(params.data).lower())
    await _texts(client, "toggle-simulated-logging")
    return "message" in str(said.data)  # the level in front of that is drawn by lot


async def _listen_to_updates(client, person):
    await client.subscribe_resource(DOCUMENT)
    await _texts(client, "toggle-subscriber-updates")
    updated = await person.first(types.ResourceUpdatedNotification)
    await _texts(client, "toggle-subscriber-updates")
    await client.unsubscribe_resource(DOCUMENT)
    return str(updated.uri)


async def _make_a_resource(client, person):
    file = {"name": "hello.gz", "data": "data:text/plain,hello", "outputType": "resourceLink"}
    made = await client.call_tool("gzip-file-as-resource", file)
    await person.first(types.ResourceListChangedNotification)
    listed = [str(resource.uri) for resource in (await client.list_resources()).resources]
    return [str(made.content[0].uri), str(made.content[0].uri) in listed]


async def _texts(client, tool, arguments=None):
    result = await client.call_tool(tool, arguments or {})
    assert not result.is_error, result
    return [block.text for block in result.content]


def _plain(params):
    return json.loads(params.model_dump_json(by_alias=True, exclude_none=True, exclude={"meta"}))
