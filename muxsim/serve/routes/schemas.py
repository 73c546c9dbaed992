"""The input schemas of an environment's tools, asked of a backend when a 2026-07-28 call has headers to be checked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from muxsim.session.control.own_client import OwnClient
from muxsim.session.correlation import envelope_of
from muxsim.session.session import Session
from muxsim.spec import EnvSpec
from transports.messages import Kind, Message, member, text_of

# How long a listing is believed, of all sessions of an environment: the revision has no way to tell a server's clients
# of every change.
_FRESH: Final = 60.0
_PATIENCE: Final = 10.0
_MOST_PAGES: Final = 100


@dataclass(frozen=True)
class _Listing:
    spec: EnvSpec
    asked: float
    schemas: dict[str, Any]

    def is_of(self, spec: EnvSpec) -> bool:
        return self.spec == spec and time.monotonic() - self.asked <= _FRESH


class ToolSchemas:
    """Input schemas by environment and tool name."""

    def __init__(self) -> None:
        self._known: dict[str, _Listing] = {}

    async def of_call(self, session: Session, call: Message) -> Any | None:
        """The schema of the tool that a ``tools/call`` names; None if the backend does not list it."""
        name = text_of(member(call.params, "name"))
        spec = session.spec
        known = self._known.get(spec.name)
        if known is None or not known.is_of(spec) or name not in known.schemas:
            known = _Listing(spec, time.monotonic(), await _list_tools(session, call))
            self._known[spec.name] = known
        return known.schemas.get(name)


async def _list_tools(session: Session, call: Message) -> dict[str, Any]:
    """All pages of tools/list, under the envelope of the call that needs it: what it may see is what counts."""
    envelope = envelope_of(call)
    client = OwnClient(session, aside=True)
    schemas: dict[str, Any] = {}
    params: dict[str, Any] = {"_meta": envelope}
    for _ in range(_MOST_PAGES):
        try:
            answer = await client.ask("tools/list", params, _PATIENCE)
        except TimeoutError:
            break
        page = _page_of(answer)
        schemas.update({tool.name: tool.input_schema for tool in page.tools})
        if page.next_cursor is None:
            break
        params = {"_meta": envelope, "cursor": page.next_cursor}
    return schemas


class _Tool(msgspec.Struct, rename="camel"):
    name: str
    input_schema: Any = None


class _Page(msgspec.Struct, rename="camel"):
    tools: list[_Tool] = []
    next_cursor: str | None = None


def _page_of(answer: Message) -> _Page:
    """A page of a listing; an empty one for what is none: a call must not fail for headers that cannot be checked."""
    if answer.kind is not Kind.RESULT:
        return _Page()
    try:
        return msgspec.json.decode(answer.members["result"], type=_Page)
    except (msgspec.DecodeError, RecursionError):
        return _Page()
