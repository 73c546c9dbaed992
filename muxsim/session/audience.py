"""Who may hear what a server says when it does not say whom it is about. Pure.

A session that many share has one backend, and on stdio neither a log line nor a request of the server's names the call
that caused it. Only where all who could have caused it are one principal may it go to anybody.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final

from msgspec import Raw

from muxsim.session.exchange import Attachment
from transports.messages import text_of

# Resources that one client may be subscribed to, and how long the URI of one may be.
MOST_SUBSCRIPTIONS: Final = 1000
LONGEST_URI: Final = 4096
_PARTS: Final = ("/", "?", "#")


class Audience:
    """The principals of a shared session, and which of its clients is subscribed to which resource."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._subscribed: dict[Attachment, set[str]] = {}

    def heard_from(self, attachment: Attachment) -> None:
        """Somebody takes part. What a principal has caused may be told of later, so its name is not forgotten."""
        if attachment.principal is not None and len(self._names) < 2:
            self._names.add(attachment.principal)

    def is_one(self, present: Iterable[Attachment]) -> bool:
        """Whether those ``present``, and all who had a name before, are one. Who has no name is one for himself."""
        found: set[Hashable] = set(self._names)
        for attachment in present:
            found.add(attachment.principal or attachment)
            if len(found) > 1:
                return False
        return len(found) <= 1

    # ---- resources

    def subscribe(self, attachment: Attachment, uri: Raw | None) -> str:
        """Note a subscription; returns why it cannot be, or ""."""
        mine = self._subscribed.setdefault(attachment, set())
        text = _plain(uri)
        if len(text) > LONGEST_URI:
            return f"a resource of a shared session cannot be subscribed to by more than {LONGEST_URI} characters"
        if text not in mine and len(mine) >= MOST_SUBSCRIPTIONS:
            return f"this client is subscribed to {MOST_SUBSCRIPTIONS} resources of a shared session, as many as may be"
        mine.add(text)
        return ""

    def unsubscribe(self, attachment: Attachment, uri: Raw | None) -> bool:
        """Note the end of a subscription; returns whether nobody else has it, so that the server may be told."""
        text = _plain(uri)
        self._subscribed.get(attachment, set()).discard(text)
        return not any(text in theirs for theirs in self._subscribed.values())

    def left(self, attachment: Attachment) -> None:
        """A client has gone."""
        self._subscribed.pop(attachment, None)

    def subscribers(self, uri: Raw | None) -> list[Attachment]:
        """Who is to hear that a resource has changed: it may be a part of the one that was subscribed to."""
        text = _plain(uri)
        beginnings = {text, *(text[:at] for at, sign in enumerate(text) if sign in _PARTS)}
        return [attachment for attachment, theirs in self._subscribed.items() if not theirs.isdisjoint(beginnings)]


def _plain(uri: Raw | None) -> str:
    """A URI as it is compared: servers write the scheme, the host and a last slash in their own way."""
    return text_of(uri).rstrip("/").lower()
