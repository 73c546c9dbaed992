"""What passes between one session's clients and its backend, overheard at its seam and kept for whoever looks."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from muxsim.runtime.boundary import Part, optional
from muxsim.serve.watch import feed
from muxsim.serve.watch.pictures import Picture, taken_out
from muxsim.serve.watch.told import told
from muxsim.session import agent_answers, agent_requests, uris
from muxsim.session.agent_answers import META_KEY
from muxsim.session.control.control import ControlUnreadable, resource_value
from muxsim.session.control.ledger import TOTAL, count_in, number_in
from muxsim.session.correlation import target_of
from muxsim.session.exchange import Exchange
from muxsim.session.router import Router
from transports.messages import Kind, Message, RequestId, member

# What is kept while somebody looks: of events, and of their bytes.
_MOST_EVENTS: Final = 2000
_MOST_BYTES: Final = 8 * 2**20
# Beyond the last calls of a session at which nobody looks.
_MOST_QUIET_BYTES: Final = 2**20
# Of images, which are asked for by themselves.
_MOST_IMAGE_BYTES: Final = 16 * 2**20
# Characters of a body, or of what the control plane has beside numbers.
_BODY: Final = 16 * 1024
_INFO: Final = 4 * 1024
# A longer message is not looked into.
_READABLE: Final = 4 * 2**20
# Bytes of the objects that an image is, beside its own.
_OBJECTS: Final = 1024
# Characters of base64 that are sent at once, and not only when they are asked for.
_FRAME: Final = 512 * 1024
# Requests whose answers are waited for; a backend may never answer.
_MOST_PENDING: Final = 1024


class Item(NamedTuple):
    """One event: its bytes on the stream, and who may have it."""

    data: bytes
    for_agents: bool
    is_call: bool


@dataclass(slots=True)
class _Pending:
    """A request that has not been answered."""

    method: str
    began: float | None
    attachment: int | None
    own: bool
    part: str | None = None
    """Which part of the control plane it reads."""
    for_agents: bool = False
    """Whether it was an agent's, and so an agent may see what comes of it."""


class Record:
    """One session's. Its methods are called in the midst of what it records: what fails in them fails alone.

    ``keeps`` is of how many calls it is to know while nobody looks. ``now`` gives the seconds since 1970. ``whole`` is
    whether no call was made before it: else nobody here knows what those have earned. ``last`` are the numbers of the
    message and the image that were told last of this session: a page that was there then has them still.
    """

    def __init__(
        self,
        router: Router,
        part: Part,
        now: Callable[[], float],
        keeps: int,
        *,
        whole: bool = True,
        last: tuple[int, int] = (0, 0),
    ) -> None:
        self.part = part
        self._router = router
        self._now = now
        self.keeps = keeps
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._calls = 0
        self._said, self._last_image = last
        self.end = 0
        """The number of the next event; that of the first one is 0."""
        self.readers = 0
        self.ended: float | None = None
        """When its session was over."""
        self._images: OrderedDict[int, tuple[Picture, bool]] = OrderedDict()
        self._image_bytes = 0
        self._from_clients: OrderedDict[RequestId, _Pending] = OrderedDict()
        self._from_backend: OrderedDict[RequestId, _Pending] = OrderedDict()
        self._total: float | None = None
        self._whole = whole
        self._wakers: set[Callable[[], None]] = set()

    def __repr__(self) -> str:
        return f"<Record of {len(self._items)} events, {self.readers} readers>"

    # ---- for readers

    @property
    def first(self) -> int:
        """The number of the oldest event that is kept."""
        return self.end - len(self._items)

    def since(self, number: int) -> list[Item]:
        """Those from this number on that are kept."""
        skipped = max(0, number - self.first)
        return [self._items[at] for at in range(skipped, len(self._items))]

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return self._bytes + self._image_bytes

    @property
    def last(self) -> tuple[int, int]:
        """The numbers of the last message and the last image."""
        return self._said, self._last_image

    def image(self, number: int, *, for_agent: bool) -> Picture | None:
        """The image of this number, if it is kept, and nothing that an agent must not see."""
        picture, for_agents = self._images.get(number, (None, False))
        return picture if for_agents or not for_agent else None

    def on_more(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once, when there is another event."""
        self._wakers.add(wake)

    def leave(self, wake: Callable[[], None]) -> None:
        """Do not call it."""
        self._wakers.discard(wake)

    def quieten(self) -> None:
        """Nobody looks any more: keep what is to be kept then."""
        self._trim()

    @optional(lambda: None)
    def begin(self) -> None:
        """Take note of the requests that are in flight already, and of who waits for an answer."""
        for exchange in list(self._router.exchanges()):
            if exchange.asked is not None and not exchange.abandoned:
                self._request_of_client(exchange.asked, began=None, left_out=exchange.left_out)

    # ---- what passes the seam (muxsim.session.seam.Witness)

    @optional(lambda: None)
    def to_backend(self, message: Message) -> None:
        """Take note of what the backend is sent."""
        if message.kind is Kind.REQUEST:
            self._request_of_client(message, began=self._now())
        elif message.is_answer:
            self._answer(message, self._from_backend, "client")
        else:
            self._see(message, "client", None)

    @optional(lambda: None)
    def from_backend(self, message: Message) -> None:
        """Take note of what the backend says."""
        if message.is_answer:
            self._answer(message, self._from_clients, "server")
            return
        for_agents = self._see(message, "server", None)
        if message.kind is Kind.REQUEST and message.id is not None:
            pending = _Pending(message.method, self._now(), None, False, for_agents=for_agents)
            _wait(self._from_backend, message.id, pending)

    @optional(lambda: None)
    def scored(self, control: Mapping[str, Any]) -> None:
        """Take note of what the control plane says of the call that was answered last."""
        self._tell_control(control, self._said)

    @optional(lambda: None)
    def stderr(self, line: str) -> None:
        """Take note of a line of the backend's stderr."""
        self._keep(told("stderr", feed.Stderr(time=self._time(), line=line)), for_agents=False)

    def _request_of_client(self, message: Message, *, began: float | None, left_out: int = 0) -> None:
        assert message.id is not None
        pending = self._asked_by(self._router.exchange(message.id)) or _Pending(message.method, None, None, False)
        pending.began, pending.part = began, _part_read(message)
        _wait(self._from_clients, message.id, pending)
        if not pending.own and pending.part is None:
            self._see(message, "client", pending, left_out)

    def _answer(self, message: Message, waiting: OrderedDict[RequestId, _Pending], source: feed.Source) -> None:
        pending = None if message.id is None else waiting.pop(message.id, None)
        if pending is None and source == "server":
            pending = self._asked_by(self._router.exchange(message.id))
        if pending is not None and pending.part is not None:
            # What muxsim reads for a call becomes known as a whole, by `scored`.
            if not pending.own:
                self._tell_part(pending.part, message)
            return
        if pending is not None and pending.own:
            return
        self._see(message, source, pending)
        if pending is not None and pending.method == "tools/call" and message.kind is Kind.RESULT:
            raw = member(message.members["result"], "_meta", META_KEY)
            if raw is not None:
                self._tell_control(_object(raw), self._said)

    def _asked_by(self, exchange: Exchange | None) -> _Pending | None:
        """What the router knows of a request, also of one that was made before anybody looked."""
        if exchange is None:
            return None
        client = exchange.attachment
        return _Pending(exchange.method, None, client.number, exchange.aside, for_agents=client.is_agent)

    def _see(self, message: Message, source: feed.Source, pending: _Pending | None, left_out: int = 0) -> bool:
        """Keep a message, which may be the answer to a request; whether an agent may see it.

        Of one that was abridged ``left_out`` is the size.
        """
        self._said += 1
        began = pending.began if pending is not None and message.is_answer else None
        size = len(message.encode())
        payload, pictures, for_agents = b"", list[Picture](), False
        if size <= _READABLE:
            shown, for_agents = _without_control(message, source)
            payload, pictures = taken_out(b"" if left_out else _payload(shown))
        if pending is not None:
            for_agents = for_agents and pending.for_agents
        elif source == "server":
            for_agents = for_agents and not message.is_answer and self._only_agents_ask()
        body = payload.decode("utf-8", "replace")
        images = [self._keep_image(picture, for_agents) for picture in pictures]
        seen = feed.Seen(
            n=self._said,
            time=self._time(),
            source=source,
            attachment=None if pending is None else pending.attachment,
            kind=message.kind.value,
            method=message.method or (None if pending is None else pending.method),
            target=target_of(message) or None,
            id=None if message.raw_id is None else message.raw_id.decode("utf-8", "replace")[:_INFO],
            body=body[:_BODY],
            cut=left_out or (max(0, len(body) - _BODY) if size <= _READABLE else size),
            seconds=None if began is None else round(self._now() - began, 6),
            images=images,
        )
        self._keep(told("message", seen), for_agents=for_agents, is_call=message.method == "tools/call")
        for image, picture in zip(images, pictures, strict=True):
            if len(picture.data) <= _FRAME:
                frame = feed.Frame(n=self._said, image=image, data=picture.data)
                self._keep(told("frame", frame), for_agents=for_agents)
        return for_agents

    def _only_agents_ask(self) -> bool:
        """Whether what the server says by itself can be about no request that an agent could not have made."""
        return all(one.attachment.is_agent for one in self._router.exchanges())

    def _keep_image(self, picture: Picture, for_agents: bool) -> feed.Image:
        self._last_image += 1
        self._images[self._last_image] = picture, for_agents
        self._image_bytes += _weight(picture)
        return feed.Image(number=self._last_image, mime=picture.mime, bytes=picture.size, block=picture.block)

    # ---- the control plane

    def _tell_control(self, control: Mapping[str, Any], n: int | None) -> None:
        reward = number_in(control.get("reward"))
        if reward is not None and (self._whole or self._total is not None):
            self._total = reward + (self._total or 0.0)
        self._keep_control(control, n, reward)

    def _tell_part(self, part: str, answer: Message) -> None:
        """What somebody has read by themselves: of rewards only the total says whose they are."""
        try:
            value = resource_value(answer.well_formed())
        except ControlUnreadable:
            return
        if part == "status" and isinstance(value, dict):
            self._total = number_in(value.get(TOTAL)) if TOTAL in value else self._total
            self._keep_control(value, None, None)
        elif part == "info" and isinstance(value, dict):
            self._keep_control({"info": value}, None, None)
        elif part == "reward" and isinstance(value, dict):
            self._keep_control({}, None, number_in(value.get("reward")))

    def _keep_control(self, control: Mapping[str, Any], n: int | None, reward: float | None) -> None:
        info, problem = control.get("info"), control.get("problem")
        fact = feed.Control(
            time=self._time(),
            n=n,
            step=count_in(control.get("step")),
            reward=reward,
            total=self._total,
            terminated=_flag(control.get("terminated")),
            truncated=_flag(control.get("truncated")),
            info=msgspec.json.encode(info).decode()[:_INFO] if info else None,
            problem=problem[:_INFO] if isinstance(problem, str) else None,
        )
        self._keep(told("control", fact), for_agents=False)

    # ---- the ring

    def _time(self) -> float:
        return round(self._now(), 3)

    def _keep(self, data: bytes, *, for_agents: bool, is_call: bool = False) -> None:
        self._items.append(Item(data, for_agents, is_call))
        self._bytes += len(data)
        self._calls += is_call
        self.end += 1
        self._trim()
        wakers, self._wakers = self._wakers, set()
        for wake in wakers:
            wake()

    @property
    def _has_more_calls(self) -> bool:
        """Whether something is kept of more calls than are wanted, be it what came before the first that is."""
        return self._calls > self.keeps or (self._calls == self.keeps and not self._items[0].is_call)

    def _trim(self) -> None:
        quiet = not self.readers
        most = _MOST_QUIET_BYTES if quiet else _MOST_BYTES
        while self._items and (
            self._bytes > most or len(self._items) > _MOST_EVENTS or (quiet and self._has_more_calls)
        ):
            oldest = self._items.popleft()
            self._bytes -= len(oldest.data)
            self._calls -= oldest.is_call
        most = _MOST_QUIET_BYTES if quiet else _MOST_IMAGE_BYTES
        while self._image_bytes > most:
            _, (picture, _) = self._images.popitem(last=False)
            self._image_bytes -= _weight(picture)


def _weight(picture: Picture) -> int:
    return len(picture.data) + _OBJECTS


def _wait(waiting: OrderedDict[RequestId, _Pending], id: RequestId, pending: _Pending) -> None:
    waiting[id] = pending
    if len(waiting) > _MOST_PENDING:
        waiting.popitem(last=False)


def _part_read(message: Message) -> str | None:
    """Which part of the control plane a request reads; None for any other request."""
    if message.method != "resources/read":
        return None
    uri = target_of(message)
    return uri.partition("://")[2].strip("/").lower() if uris.is_control(uri) else None


def _without_control(message: Message, source: feed.Source) -> tuple[Message, bool]:
    """A message as it may be shown, and whether an agent may see it."""
    try:
        heard = agent_answers.heard if source == "server" else agent_requests.admitted
        return heard(message), True
    except (agent_answers.Withheld, agent_requests.NotForAgents):
        return message, False


def _payload(message: Message) -> bytes:
    if not message.is_answer:
        return b"" if message.params is None else bytes(message.params)
    return bytes(message.members.get("result") or message.members.get("error") or Raw(b""))


def _object(raw: Raw) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
