"""One request on its way, and what the router says is to be sent. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Protocol

import msgspec
from msgspec import Raw

from transports.messages import Message, RequestId


class Attachment(Hashable, Protocol):
    """Who asks, as far as it matters here; in a session, one of `muxsim.session.attachment`."""

    @property
    def principal(self) -> str | None:
        """The name of whoever speaks through it; None where nobody has to have one."""

    @property
    def number(self) -> int | None:
        """Which of its session's clients it is; None for one that is there for a single request."""

    @property
    def is_agent(self) -> bool:
        """Whether its client must not see the control plane."""


class Exchange(msgspec.Struct, eq=False):
    """One client's request on its way: who asked, and under which id and progress token of theirs.

    This and what follows are Structs, which cost a fraction of other classes to make: several are made for each call.
    ``asked`` is what the backend was sent, for whoever begins to look while it is at work. A call may last, and a Raw
    that is not a copy keeps the whole message: of a large one it is abridged, and ``left_out`` its size. ``envelope``
    is what a 2026-07-28 request has in its ``_meta``, else {}. ``aside``: nothing but the answer can be meant for its
    client.
    ``again``, of a request that has no end, is what another backend is asked that takes this one's place; ``silent``
    until that has acknowledged it. ``began`` and ``size`` are when it was sent on and its bytes, where that is counted.
    """

    attachment: Attachment
    id: RequestId
    raw_id: bytes
    method: str
    progress_token: Raw | None
    envelope: dict[str, Raw]
    aside: bool = False
    abandoned: bool = False
    again: Message | None = None
    silent: bool = False
    began: float = 0.0
    size: int = 0
    asked: Message | None = None
    left_out: int = 0


class Delivery(msgspec.Struct, frozen=True):
    """One message for one attachment; ``about`` is the client's own request that it belongs to.

    ``own``: it is an answer of muxsim's, and not the backend's.
    """

    attachment: Attachment
    message: Message
    about: RequestId | None = None
    own: bool = False


class Routed(msgspec.Struct, frozen=True):
    """What comes of one message: lines for the backend, messages for attachments, and requests withdrawn by them."""

    to_backend: tuple[Message, ...] = ()
    to_clients: tuple[Delivery, ...] = ()
    withdrawn: tuple[tuple[Attachment, RequestId], ...] = ()


NOTHING: Final = Routed()
