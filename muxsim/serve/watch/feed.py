"""What the dashboard is told, event by event: the contract between the server and its page. Pure.

`scripts/generate_feed.py` makes `dashboard/src/feed.ts` of it. Times (``time``, ``since``) are in seconds since 1970,
durations (``seconds``) in seconds, memory in bytes; null is what is not known. Every text that an environment, its
files or a client has a say in may be anything at all: it is to be shown as text.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

SAMPLE_SECONDS: Final = 10
"""How long one sample of the history covers."""

SAMPLES: Final = 360
"""How many are kept: those of an hour."""

MOST_ROWS: Final = 5_000
"""With more sessions than this they are counted, and not listed."""

SessionState: TypeAlias = Literal["opening", "started", "ready", "restoring", "ending", "ended"]
"""``opening`` is one that waits for its turn or for its process; the rest as in docs/life-of-a-session.md."""

Source: TypeAlias = Literal["client", "server"]
"""Where a message comes from."""

EnvironmentState: TypeAlias = Literal["ok", "broken", "failed", "installing"]
"""``broken``: starts keep failing, and none is tried for ``retry_after`` seconds; ``failed``: the last one did."""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Anything that is told."""


# ---- GET /watch: the whole server


class Hello(Fact, frozen=True):
    """First of all: who answers, and what the caller may do here."""

    name: str
    version: str
    scope: str
    """``agent``, ``trainer``, ``monitor`` or ``admin``, or several with commas between."""
    principal: str | None
    """The caller's name; null where no tokens are asked for."""
    controls: bool
    """Whether the caller may see rewards and ends of episodes."""
    opens: bool
    """Whether the caller may open sessions, and end those that are its own."""
    ends_all: bool
    """Whether the caller may end sessions of others."""
    now: float
    """The server's time, for ages on a machine whose clock goes wrong."""


class Failure(Fact, frozen=True):
    """What went wrong, and when."""

    time: float
    text: str
    stderr: list[str]
    """What the backend had said last; only for those who may see all sessions."""


class Starts(Fact, frozen=True):
    """The median seconds of the last starts by each way; null for a way that none has come."""

    fresh: float | None = None
    fork: float | None = None
    slot: float | None = None


class Environment(Fact, frozen=True):
    """One environment as it is now; ``opens`` and ``failures`` are counted since the server's start."""

    name: str
    kind: str
    """What its command is: ``python``, ``node``, ``npx``, ``uvx`` or ``program``."""
    shared: bool
    default: bool
    """Whether it is the one of a client that names none."""
    state: EnvironmentState
    retry_after: float | None
    live: int
    warm: int
    """Processes that are ready before anybody asks."""
    wanted_warm: int
    waiting: int
    """Sessions in the queue."""
    starting: int
    opens: int
    failures: int
    starts: Starts
    memory: int | None
    error: Failure | None
    """The last failure, in full."""


class SessionRow(Fact, frozen=True):
    """One session as it is now."""

    id: str
    """Whole for those who may open the session; else one that opens nothing."""
    env: str
    seed: int
    owner: str | None
    state: SessionState
    since: float
    """When it came into this state."""
    opened: float
    calls: int
    """Of tools, since it was opened."""
    in_flight: int
    """Requests of any kind that are not answered."""
    end: str | None
    """The cause of its end; null for one that goes on."""
    failed: bool
    """Whether it ended as nobody wished."""


class Count(Fact, frozen=True):
    """So many sessions are alike in this."""

    env: str
    state: SessionState
    end: str | None
    sessions: int


class Bound(Fact, frozen=True):
    """A bound that has been met: the setting of this name, so often since the server's start."""

    setting: str
    met: int
    last: float | None
    """When it was met last."""


class Sample(Fact, frozen=True):
    """What happened in the `SAMPLE_SECONDS` up to ``time``; seconds are null where there was nothing."""

    time: float
    sessions: int
    queue: int
    opens: float
    """Sessions opened a second."""
    calls: float | None
    """Tool calls answered a second; null with ``metrics = false``, which counts none."""
    errors: float
    """Failed opens, sessions that ended as nobody wished, and refusals, a second."""
    start_p50: float | None
    start_p99: float | None
    call_p50: float | None
    call_p99: float | None
    memory: int | None
    """Of all sessions' processes; null while nobody looks."""


class Snapshot(Fact, frozen=True):
    """All of it: after `Hello`, and again when listing gives way to counting or the other way round."""

    environments: list[Environment]
    sessions: list[SessionRow]
    """Those that the caller may see; none while they are counted."""
    counts: list[Count] | None
    """In their place, if there are more than `MOST_ROWS`; null while they are listed."""
    bounds: list[Bound]
    history: list[Sample]
    """The oldest first, at most `SAMPLES`."""


class Change(Fact, frozen=True):
    """What is different now, at most four times a second: rows take the place of those of the same id or name."""

    sessions: list[SessionRow]
    gone: list[str]
    """Sessions that are to be forgotten: a while after their end."""
    counts: list[Count] | None
    environments: list[Environment]
    gone_environments: list[str]
    bounds: list[Bound]


# ---- GET /watch/sessions/<id>: one session


class Attached(Fact, frozen=True):
    """A client that takes part: the how manieth it is, and over which transport."""

    number: int | None
    transport: str
    name: str | None
    """The principal who speaks through it, for those who may know."""
    is_agent: bool
    """Whether it is kept from the control plane."""


class Ended(Fact, frozen=True):
    """The session is over, and so is the feed."""

    time: float
    cause: str
    text: str
    exit_status: int | None
    stderr: list[str]
    """What the backend said last, if the end was its own."""
    failed: bool


class Session(Fact, frozen=True):
    """The session as it is now: first of all, and again when something of it changes."""

    id: str
    env: str
    seed: int | None
    """An agent is not told."""
    owner: str | None
    state: SessionState
    opened: float
    urls: dict[str, str]
    """``mcp``, ``sse``, ``agent_mcp``, ``handle``, ``control`` and ``session``; an agent has only ``agent_mcp``."""
    lease: float | None
    """Seconds after which it ends unless somebody renews its lease; null for one that is on none."""
    pid: int | None
    calls: int
    in_flight: int
    attachments: list[Attached]
    controls: bool
    """Whether `Control`, `Stderr` and `Processes` are told to this caller."""
    may_end: bool
    history: int
    """So many calls are kept while nobody looks; 0: what is told of the conversation begins with this feed."""
    ended: Ended | None


class Image(Fact, frozen=True):
    """An image in a message, which has been taken out of its body: ``GET <feed>/images/<number>`` has it."""

    number: int
    mime: str
    bytes: int
    block: int
    """Which of the content blocks it was in, from 0."""


class Seen(Fact, frozen=True):
    """A message that has passed between the clients and the backend."""

    n: int
    """Counts up from 1; what is missing between two is not for this reader, or has been left out, as `Lost` says."""
    time: float
    source: Source = msgspec.field(name="from")
    attachment: int | None
    """Whose it is; null for one to all, or of muxsim itself."""
    kind: Literal["request", "result", "error", "notification"]
    method: str | None
    """Of a result or error: that of the request."""
    target: str | None
    """Of a request: the tool, prompt or resource that it is about."""
    id: str | None
    """The request's, as JSON, as the backend has it; an answer has that of its request."""
    body: str
    """The JSON text of params, result or error, without control plane and images; cut short if ``cut`` is not 0."""
    cut: int
    """So many characters of it have been left out at the end."""
    seconds: float | None
    """How long the request took, of an answer."""
    images: list[Image]


class Frame(Fact, frozen=True):
    """An image as it comes, right behind its message, to those of a size that is quickly sent."""

    n: int
    """Of the message."""
    image: Image
    data: str
    """Base64."""


class Control(Fact, frozen=True):
    """What the control plane has said, for those who may know: never asked for here, only overheard."""

    time: float
    n: int | None
    """The message that it came with; null for one that somebody has asked for by itself."""
    step: int | None
    reward: float | None
    """Of this step."""
    total: float | None
    """Of all steps that have been overheard."""
    terminated: bool | None
    truncated: bool | None
    info: str | None
    """JSON text."""
    problem: str | None
    """Why the reward is not known, if that was said."""


class Stderr(Fact, frozen=True):
    """A line that the backend has written on stderr."""

    time: float
    line: str


class Process(Fact, frozen=True):
    """A process of the session; ``cpu`` is the share of one core since the last look."""

    pid: int
    parent: int
    command: str
    memory: int | None
    cpu: float | None


class Processes(Fact, frozen=True):
    """The session's processes, every two seconds."""

    time: float
    processes: list[Process]


class Lost(Fact, frozen=True):
    """So many events have been left out here, since this reader was too slow for them."""

    events: int


FEEDS: Final[dict[str, dict[str, type[Fact]]]] = {
    "Server": {"hello": Hello, "snapshot": Snapshot, "change": Change, "sample": Sample},
    "Session": {
        "session": Session,
        "message": Seen,
        "frame": Frame,
        "control": Control,
        "stderr": Stderr,
        "processes": Processes,
        "lost": Lost,
        "ended": Ended,
    },
}
"""The events of each feed by their names: those of ``GET /watch``, and those of ``GET /watch/sessions/<id>``."""
