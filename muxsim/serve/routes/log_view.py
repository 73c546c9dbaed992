"""The log of a muxsim that runs, for whoever operates it: the last lines, those that come, and how much is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec
from starlette.responses import StreamingResponse

from muxsim.observe.log import LEVELS, EventLog
from muxsim.observe.recent import Page
from muxsim.serve.routes.guard import caller_of
from muxsim.serve.routes.openings import query_of
from muxsim.serve.watch.readers import Readers, Reading
from muxsim.session.registry import Sessions
from transports.asgi import Call, read_body
from transports.http_rules import HTTPRefusal, check_json_content

# Seconds for which whoever follows is not answered, while nothing happens; then they ask again.
_PATIENCE: Final = 5.0
# Each may hold a connection for as long as its session lives.
_MOST_READERS: Final = 64
_MOST_BODY: Final = 4096
_BODY_TIMEOUT: Final = 10.0


class Unanswerable(Exception):
    """What is asked for is not there; the message says what is."""


class LevelWish(msgspec.Struct, forbid_unknown_fields=True):
    """The body of ``PUT /loglevel``: of one environment, or of all."""

    level: str
    env: str | None = None


class LogView:
    """What an operator may ask of the log; ``log`` is None in a program that writes none."""

    def __init__(self, log: EventLog | None, sessions: Sessions) -> None:
        self._log = log
        self._sessions = sessions
        self.readers = Readers("logs", _MOST_READERS, time.time)

    # ---- for `muxsim logs` and `muxsim ctl`

    async def logs(self, wanted: Mapping[str, Any], by: str) -> dict[str, Any]:
        """Lines of a session, or of all, from ``after`` on; ``wait`` until there is one, so many seconds if it says."""
        session, after, wait = wanted.get("session"), wanted.get("after", 0), wanted.get("wait")
        try:
            id = None if session is None else self._find(str(session))
            if type(after) is not int or not isinstance(wait, int | float | None):
                raise Unanswerable("after must be the whole number of the page before, and wait true or seconds")
            patience = _PATIENCE if isinstance(wait, bool) or not wait else min(_PATIENCE, wait)
            page = await self._page(id, after, wait=bool(wait), patience=patience)
        except Unanswerable as error:
            return {"error": str(error)}
        return {"session": id, **msgspec.to_builtins(page), "over": self._is_over(id, page)}

    def loglevel(self, wanted: Mapping[str, Any], by: str) -> dict[str, Any]:
        """Set a ``level``, of one ``env`` or of all, if there is one; returns those in use."""
        level, env = wanted.get("level"), wanted.get("env")
        try:
            if level is None and env is not None:
                raise Unanswerable("name a level for the environment")
            return self._levels() if level is None else self._set_level(str(level), env, by)
        except Unanswerable as error:
            return {"error": str(error)}

    def _levels(self) -> dict[str, Any]:
        return self._there().levels()

    def _set_level(self, level: str, env: str | None, by: str) -> dict[str, Any]:
        log = self._there()
        if level not in LEVELS:
            raise Unanswerable(f"there is no level {level[:40]!r}: use one of {', '.join(LEVELS)}")
        names = [spec.name for spec in self._sessions.specs()]
        if env is not None and env not in names:
            raise Unanswerable(f"no environment is called {str(env)[:100]!r}; there are {', '.join(names)}")
        log.set_level(level, env, by)
        return log.levels()

    def _there(self) -> EventLog:
        if self._log is None:
            raise Unanswerable("this muxsim writes no log")
        return self._log

    def _find(self, beginning: str) -> str:
        """The one session whose id begins so, of which there are lines, or will be."""
        known = self._there().recent.sessions_like(beginning)
        known |= {one.id for one in self._sessions.all() if one.id.startswith(beginning)}
        if beginning in known or self._sessions.knows(beginning):
            return beginning
        if len(known) == 1:
            return known.pop()
        if known:
            raise Unanswerable(f"{len(known)} sessions have an id that begins with {beginning[:64]!r}: give more of it")
        raise Unanswerable(f"there is no session {beginning[:64]!r}, and no line of one is kept (server.log_kept)")

    async def _page(self, id: str | None, after: int, *, wait: bool, patience: float = _PATIENCE) -> Page:
        recent = self._there().recent
        page = recent.page(id, after)
        try:
            async with asyncio.timeout(patience):
                while wait and not page.lines and not self._is_over(id, page):
                    if not page.more:
                        await recent.wait()
                    page = recent.page(id, page.after)
        except TimeoutError:
            pass
        return page

    def _is_over(self, id: str | None, page: Page) -> bool:
        """Whether nothing more will come of a session."""
        return page.over or (id is not None and not page.more and not self._sessions.knows(id))

    # ---- by HTTP, for an admin

    async def of_session(self, call: Call, id: str) -> None:
        """``GET /sessions/<id>/logs``: its lines, each JSON; with ``?follow=1`` those that come too, to its last."""
        follow = query_of(call.scope["query_string"], None).get("follow", "") not in ("", "0", "false")
        try:
            found = self._find(id)
        except Unanswerable as error:
            raise HTTPRefusal(404, str(error)) from None
        with self.readers.admit(caller_of(call), call.peer) as reading:
            call.answered = True
            lines = self._lines(found, reading, follow=follow)
            response = StreamingResponse(lines, media_type="application/x-ndjson")
            await response(call.scope, call.receive, call.send)

    async def _lines(self, id: str, reading: Reading, *, follow: bool) -> AsyncIterator[str]:
        after, over = 0, False
        while not over:
            page = await self._page(id, after, wait=follow)
            if not reading.goes_on:
                return
            if page.lines:
                yield "".join(f"{line}\n" for line in page.lines)
            after = page.after
            over = self._is_over(id, page) if follow else not page.more

    async def level(self, call: Call) -> Any:
        """``GET /loglevel``: the levels in use. ``PUT``: another one."""
        try:
            if call.scope["method"] != "PUT":
                return self._levels()
            check_json_content(call.headers)
            wish = _decoder.decode(await read_body(call, _MOST_BODY, _BODY_TIMEOUT))
            return self._set_level(wish.level, wish.env, caller_of(call).known_as(call.peer))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HTTPRefusal(400, f"the body must be {{level, env?}}: {error}") from None
        except Unanswerable as error:
            raise HTTPRefusal(400, str(error)) from None


_decoder: Final = msgspec.json.Decoder(LevelWish)
