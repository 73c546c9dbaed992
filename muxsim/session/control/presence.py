"""Whether a server has a control plane at all of which nothing could be read. Pure: it says what to ask, and is told.

Servers answer in their own words for a resource that they do not have, many with the words of an exception and the code
of any failure. So what one says is compared with what it says of a resource that nobody has, and with its own lists.
Absent is only what both bear out: a control plane that fails in its first moment must not be taken for none.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from enum import Enum
from typing import Any, Final

import msgspec
from msgspec import Raw

from muxsim.session import uris
from transports.errors import INVALID_PARAMS, METHOD_NOT_FOUND
from transports.messages import Kind, Message, error_code, member, members_of, text_of

Question = tuple[str, dict[str, Any]]
Answers = Mapping[str, Message]
"""What the server itself has answered to the read of each part, by its name."""

# MCP's codes for a resource that is not there, and for a server that has none at all: nothing else has them.
_NEVER_THERE: Final = frozenset({-32002, METHOD_NOT_FOUND})
# In later revisions it is one for whatever is wrong with params. SDKs that have no code for it say it in words.
_NOT_THERE: Final = _NEVER_THERE | {INVALID_PARAMS}
_SAYS_NOT_THERE: Final = re.compile(
    r"(unknown|no such) resource|resource\b.*\b(not found|unknown|(does not|doesn't) exist)", re.IGNORECASE | re.DOTALL
)
# As long as the scheme of the control plane, and nobody's.
_NOBODYS: Final = "nowhere"
_REPEATED: Final = re.compile(
    rb"(?i)%s|%s|reward|status|info|initial_state" % (uris.SCHEME.encode(), _NOBODYS.encode())
)
# A server that lists more pages than this has not said what it has.
_MOST_PAGES: Final = 20
_LISTS: Final = (
    ("resources/list", "resources", "uri"),
    ("resources/templates/list", "resourceTemplates", "uriTemplate"),
)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Presence(Enum):
    """What is known of a control plane."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Listed(Enum):
    """What a server's lists say of it."""

    NAMED = "named"
    NOT_NAMED = "not named"
    NO_LIST = "no list"
    UNKNOWN = "unknown"


def inquire(answers: Answers, *, declared: bool, capable: bool) -> Generator[Question, Message, Presence]:
    """Ask a server what it has. ``declared``: its configuration says that there is one; ``capable``: it has said at
    its start that it has resources, or could not say it.

    Each question's answer is sent to the generator if it is the server's own; else nothing is known.
    """
    if all(error_code(answer) in _NEVER_THERE for answer in answers.values()):
        return Presence.ABSENT
    capable = capable or any(map(_has_contents, answers.values()))
    listed = yield from look_through_lists(capable=capable)
    if listed is Listed.NAMED:
        return Presence.PRESENT
    if listed is Listed.UNKNOWN:
        return Presence.UNKNOWN
    doubtful = [answer for answer in answers.values() if not says_not_there(answer)]
    if not doubtful:
        return Presence.ABSENT
    if declared or (capable and listed is Listed.NO_LIST):  # where there is no list none can bear out that it is absent
        return Presence.UNKNOWN
    nobodys = yield "resources/read", {"uri": f"{_NOBODYS}://status"}
    usual = _bare(nobodys)
    same = all(_bare(answer) == usual for answer in doubtful)
    return Presence.ABSENT if same else Presence.UNKNOWN


def look_through_lists(*, capable: bool = True) -> Generator[Question, Message, Listed]:
    """Look for a reward or status on every page of a server's lists of resources and of templates."""
    listed = Listed.NO_LIST
    for method, members, uri in _LISTS:
        cursor: Raw | None = None
        for _ in range(_MOST_PAGES):
            answer = yield method, {} if cursor is None else {"cursor": cursor}
            if answer.kind is not Kind.RESULT:
                if capable and method == "resources/list" and not says_not_there(answer):
                    return Listed.UNKNOWN
                break
            page = members_of(answer.members["result"])
            entries = page.get(members)
            if entries is None:
                break
            listed = _look_through(entries, uri)
            if listed is not Listed.NOT_NAMED:
                return listed
            cursor = page.get("nextCursor")
            if cursor is None or bytes(cursor) == b"null":
                break
        else:
            return Listed.UNKNOWN
    return listed


def says_not_there(answer: Message) -> bool:
    """Whether a server's answer says in so many words that it has no such resource, or none at all."""
    if answer.kind is not Kind.ERROR:
        return False
    words = text_of(member(answer.members.get("error"), "message"))
    return error_code(answer) in _NOT_THERE or bool(_SAYS_NOT_THERE.search(words))


def _has_contents(answer: Message) -> bool:
    """Whether this is an answer of a server with resources, whatever it says that it has."""
    contents = member(answer.members.get("result"), "contents")
    return contents is not None and bytes(contents).strip() not in (b"null", b"[]")


def _look_through(entries: Raw, name: str) -> Listed:
    try:
        listed: list[dict[str, Any]] = msgspec.json.decode(entries, type=list[dict[str, Any]])
    except _UNREADABLE:
        return Listed.UNKNOWN
    named = (entry.get(name) for entry in listed)
    return Listed.NAMED if any(isinstance(uri, str) and uris.scores(uri) for uri in named) else Listed.NOT_NAMED


def _bare(answer: Message) -> tuple[Kind, bytes]:
    """An answer without what it may repeat of the question."""
    payload = bytes(answer.members["error" if answer.kind is Kind.ERROR else "result"])
    return answer.kind, _REPEATED.sub(b"", payload)
