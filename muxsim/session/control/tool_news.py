"""Who is to hear, with the result of a call, that the tools have changed since they were listed. Pure.

As a notification this may come before the result or behind it, and on another stream: one who plays an episode again
would see another. It still goes to every client, as it came.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

from msgspec import Raw

from muxsim.session.control.control import with_meta
from transports.messages import Kind, Message, RequestId

TOOLS_CHANGED_KEY: Final = "muxsim/tools_changed"
_CHANGED: Final = "notifications/tools/list_changed"

Client = Hashable


class ToolNews:
    """Counts how often one session's tools change. Told are clients that list them and ask for the control plane."""

    def __init__(self) -> None:
        self._changes = 0
        self._listed: dict[Client, int] = {}
        self._curious: set[tuple[Client, RequestId | None]] = set()

    def __repr__(self) -> str:
        return f"<ToolNews {self._changes} changes, {len(self._curious)} calls>"

    def listed(self, client: Client) -> None:
        """A client asks for the tools that there are."""
        self._listed[client] = self._changes

    def wanted(self, client: Client, id: RequestId | None) -> None:
        """A client makes a call with whose result it wants to hear."""
        self._curious.add((client, id))

    def said(self, message: Message) -> None:
        """Take note of what the backend says."""
        self._changes += message.method == _CHANGED

    def answered(self, client: Client, id: RequestId, answer: Message) -> Message:
        """The answer to a client's request, with the news if there are any and it is a call that wants them."""
        if (client, id) not in self._curious:
            return answer
        self._curious.discard((client, id))
        if answer.kind is not Kind.RESULT or self._listed.get(client, self._changes) == self._changes:
            return answer
        return with_meta(answer, TOOLS_CHANGED_KEY, Raw(b"true"))

    def given_up(self, client: Client, id: RequestId) -> None:
        """A request gets no answer any more."""
        self._curious.discard((client, id))

    def left(self, client: Client) -> None:
        """A client has gone."""
        self._listed.pop(client, None)
        self._curious = {key for key in self._curious if key[0] is not client}
