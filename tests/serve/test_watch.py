"""The feed of the whole server, as the dashboard gets it."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

from .wire import ask, connect, shake_hands

pytestmark = pytest.mark.children

LIMIT = 300  # s, on a machine that is busy with others
STREAM = ("Accept", "text/event-stream")


class Watching:
    """A reader of a feed, which keeps what it has been told."""

    def __init__(self, events):
        self._events = events
        self.told = []

    async def until(self, find):
        """What ``find`` makes of the first event that it makes anything of: those that are here, or come yet."""
        with trio.fail_after(LIMIT):
            for event in self.told:
                if found := find(*event):
                    return found
            async for event in self._events:
                if event.type:
                    self.told.append((event.type, event.json()))
                    if found := find(*self.told[-1]):
                        return found
        raise AssertionError(f"the feed has ended: {self.told}")

    async def event(self, name):
        """The first event of this name."""
        return await self.until(lambda type, data: data if type == name else None)

    async def row(self, id, **wanted):
        """The row of a session, once these of its fields are so."""

        def find(type, data):
            rows = data["sessions"] if type in ("snapshot", "change") else []
            fits = [row for row in rows if row["id"] == id and all(row[name] == wanted[name] for name in wanted)]
            return fits[-1] if fits else None

        return await self.until(find)


@asynccontextmanager
async def watching(url, path="/watch", token=None):
    """A reader of the feed at ``path``."""
    headers = [STREAM, *([("Authorization", f"Bearer {token}")] if token else [])]
    async with connect(url) as connection:
        await connection.send("GET", path, headers)
        status, answered = await connection.head()
        assert (status, answered["content-type"].partition(";")[0]) == (200, "text/event-stream")
        yield Watching(connection.events())


async def test_the_feed_begins_with_who_answers_and_all_that_is(muxsim):
    async with watching(muxsim.url) as feed:
        hello = await feed.event("hello")
        assert (hello["name"], hello["scope"], hello["controls"], hello["ends_all"]) == ("muxsim", "admin", True, True)
        snapshot = await feed.event("snapshot")
        naughty = next(one for one in snapshot["environments"] if one["name"] == "naughty")
        assert naughty["default"]
        assert naughty["state"] == "ok"
        assert naughty["opens"] >= 1
        assert snapshot["counts"] is None
        assert [type for type, _ in feed.told] == ["hello", "snapshot"]


async def test_a_session_appears_with_what_becomes_of_it(muxsim):
    async with watching(muxsim.url) as feed:
        await feed.event("snapshot")
        opened = (
            await ask(muxsim.url, "POST", "/sessions", body={"env": "naughty", "seed": 7, "id": "watched"})
        ).json()
        row = await feed.row(opened["id"], state="started")
        assert (row["env"], row["seed"], row["end"], row["failed"]) == ("naughty", 7, None, False)
        client = await shake_hands(muxsim.url, "/s/watched/mcp")
        await feed.row("watched", state="ready")
        await client.text("say", text="hello")
        await feed.row("watched", calls=1, in_flight=0)
        await ask(muxsim.url, "DELETE", "/sessions/watched")
        row = await feed.row("watched", state="ended")
        assert (row["end"], row["failed"]) == ("deleted", False)


async def test_an_environment_that_fails_says_so_in_full(muxsim):
    async with watching(muxsim.url) as feed:
        await feed.event("snapshot")
        refused = await ask(muxsim.url, "POST", "/sessions", body={"env": "missing"})

        def failure(type, data):
            environments = data["environments"] if type in ("snapshot", "change") else []
            return next((one for one in environments if one["name"] == "missing" and one["error"]), None)

        missing = await feed.until(failure)
        assert missing["error"]["text"] in refused.error["message"]
        assert missing["state"] == "failed"
        assert missing["failures"] >= 1


async def test_one_that_does_not_take_an_event_stream_is_refused(muxsim):
    assert (await ask(muxsim.url, "GET", "/watch", [("Accept", "application/json")])).status == 406
