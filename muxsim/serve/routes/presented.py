"""What clients of eval-protocol and reward-kit say of an episode with their handshake, in ``clientInfo._extra``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from muxsim.session.registry import SEED_LIMIT
from transports.errors import INVALID_PARAMS
from transports.http_rules import HTTPRefusal
from transports.messages import Message, member

_LONGEST_ALIAS: Final = 256


@dataclass(frozen=True, slots=True)
class Presented:
    """The seed that a client wants, and what it goes by when it reads the control plane."""

    seed: int | None = None
    alias: str = ""

    @classmethod
    def by(cls, handshake: Message) -> Presented:
        """What a handshake has of these; everything else in there is the client's own.

        Raises `HTTPRefusal` with the status 200: it stands in the message, and of what has another status the client
        tells nothing, but has its program's task cancelled.
        """
        raw = member(handshake.params, "clientInfo", "_extra")
        if raw is None:
            return cls()
        try:
            extra = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            return cls()
        if not isinstance(extra, dict):
            return cls()
        return cls(_seed(extra.get("seed"), handshake), _alias(extra.get("session_id"), handshake))


def _seed(value: Any, handshake: Message) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < SEED_LIMIT):
        return value
    text = f"clientInfo._extra.seed {value!r:.80} must be a whole number from 0 to {SEED_LIMIT - 1}"
    raise HTTPRefusal(200, text, code=INVALID_PARAMS, id=handshake.id)


def _alias(value: Any, handshake: Message) -> str:
    if value is None or (isinstance(value, str) and len(value) <= _LONGEST_ALIAS):
        return value or ""
    text = f"clientInfo._extra.session_id {value!r:.80} must be a text of at most {_LONGEST_ALIAS} characters"
    raise HTTPRefusal(200, text, code=INVALID_PARAMS, id=handshake.id)
