"""The feed of one session: its conversation as it goes on, beside it the control plane, stderr and processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from muxsim.observe.events import FAILURES
from muxsim.placement.placement import ProcessUsage
from muxsim.runtime.boundary import Part
from muxsim.serve.auth.callers import Caller
from muxsim.serve.watch import feed
from muxsim.serve.watch.readers import Readers, Reading
from muxsim.serve.watch.record import Record
from muxsim.serve.watch.records import Records, Watched
from muxsim.serve.watch.told import told
from muxsim.session.agent_view import BACKEND_ENDED
from muxsim.session.attachment import Attachment
from muxsim.session.session import Session
from muxsim.session.states import State

# Seconds between two looks at what nobody tells of, and the least between two writes to one reader.
_LOOK: Final = 0.25
_PAUSE: Final = 0.03
_PROCESSES: Final = 2.0
_MOST_READERS: Final = 256


ProcessesOf: TypeAlias = Callable[[int], list[ProcessUsage]]


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks: an agent sees nothing of the control plane, of stderr and of processes."""

    reading: Reading
    urls: Mapping[str, str]

    @property
    def caller(self) -> Caller:
        """By whose token."""
        return self.reading.caller

    @property
    def controls(self) -> bool:
        """Whether it is no agent."""
        return self.caller.controls


class SessionFeeds:
    """The feeds of all sessions that somebody looks at. Runs on asyncio; ``now`` gives the seconds since 1970."""

    def __init__(self, records: Records, processes_of: ProcessesOf, part: Part, now: Callable[[], float]) -> None:
        """``processes_of`` reads what there is below a pid."""
        self._processes_of = processes_of
        self._records = records
        self._part = part
        self._now = now
        self.readers = Readers("feeds of sessions", _MOST_READERS, now)

    async def events(self, viewer: Viewer, session: Session) -> AsyncGenerator[bytes, None]:
        """Encoded events for one reader of a session that is live, or is remembered."""
        past = self._records.past(session.id)
        if past is not None:
            yield b"".join(self._all_of(viewer, past))
            return
        watched = self._records.watch(session)
        try:
            async for piece in self._follow(viewer, watched):
                yield piece
        finally:
            self._records.leave(watched)

    def _all_of(self, viewer: Viewer, watched: Watched) -> list[bytes]:
        items = watched.record.since(0)
        seen = [item.data for item in items if item.for_agents or viewer.controls]
        return [told("session", self._fact(viewer, watched)), *seen, told("ended", self._ended(viewer, watched))]

    async def _follow(self, viewer: Viewer, watched: Watched) -> AsyncGenerator[bytes, None]:
        session, record = watched.session, watched.record
        loop = asyncio.get_running_loop()
        position, fact = record.first, None
        next_look = next_processes = loop.time()
        processes = _Processes(self._processes_of, self._now)
        while viewer.reading.goes_on and not self._part.is_off:
            is_over = session.state is State.ENDED
            pieces, position = _news(viewer, record, position)
            if is_over or loop.time() >= next_look:
                next_look = loop.time() + _LOOK
                before, fact = fact, self._fact(viewer, watched)
                pieces = [*pieces, told("session", fact)] if fact != before else pieces
            if viewer.controls and loop.time() >= next_processes and session.pid is not None:
                next_processes = loop.time() + _PROCESSES
                pieces.append(told("processes", await processes.read(session.pid)))
            if is_over:
                pieces.append(told("ended", self._ended(viewer, watched)))
            if pieces:
                yield b"".join(pieces)
            if is_over:
                return
            await _more(record, _LOOK)
            await asyncio.sleep(_PAUSE)

    def _fact(self, viewer: Viewer, watched: Watched) -> feed.Session:
        session, controls = watched.session, viewer.controls
        conversation, over = session.conversation, session.state is State.ENDED
        return feed.Session(
            id=session.id,
            env=session.spec.name,
            seed=session.seed if controls else None,
            owner=session.owner,
            state=session.state.value,
            opened=watched.opened,
            urls=dict(viewer.urls),
            lease=session.lease if controls else None,
            pid=session.pid if controls and not over else None,
            calls=conversation.calls_made,
            in_flight=0 if over else conversation.in_flight,
            attachments=[]
            if over
            else [_attached(viewer, one) for one in sorted(conversation.clients, key=lambda one: one.number or 0)],
            controls=controls,
            may_end=controls and viewer.caller.may_end(session.owner),
            history=watched.record.keeps,
            ended=self._ended(viewer, watched) if over else None,
        )

    def _ended(self, viewer: Viewer, watched: Watched) -> feed.Ended:
        ending, ended = watched.session.ending, watched.record.ended
        cause, text = ("", "") if ending is None else (ending.cause, ending.said if viewer.controls else ending.text)
        exit = None if ending is None or not viewer.controls else ending.exit
        failed = cause in FAILURES
        return feed.Ended(
            time=round(self._now(), 3) if ended is None else ended,
            cause=cause,
            text=text if viewer.controls or not failed else BACKEND_ENDED,
            exit_status=None if exit is None else exit.returncode,
            stderr=[] if exit is None else list(exit.stderr),
            failed=failed,
        )


def _attached(viewer: Viewer, attachment: Attachment) -> feed.Attached:
    principal = attachment.principal
    return feed.Attached(
        number=attachment.number,
        transport=attachment.kind,
        name=principal if viewer.controls or principal == viewer.caller.name else None,
        is_agent=attachment.is_agent,
    )


def _news(viewer: Viewer, record: Record, position: int) -> tuple[list[bytes], int]:
    """What has come since a position, with a mark for what is not there any more; and the next position."""
    lost = record.first - position
    marks = [told("lost", feed.Lost(events=lost))] if lost > 0 else []
    items = record.since(position)
    return [*marks, *(item.data for item in items if item.for_agents or viewer.controls)], record.end


async def _more(record: Record, patience: float) -> None:
    """Wait for another event, or so many seconds."""
    came = asyncio.Event()
    record.on_more(came.set)
    try:
        async with asyncio.timeout(patience):
            await came.wait()
    except TimeoutError:
        record.leave(came.set)


class _Processes:
    """Reads the processes of a session again and again, for the CPU between two looks."""

    def __init__(self, processes_of: ProcessesOf, now: Callable[[], float]) -> None:
        self._processes_of = processes_of
        self._now = now
        self._before: dict[int, float] = {}
        self._read_at = 0.0

    async def read(self, pid: int) -> feed.Processes:
        members = await asyncio.to_thread(self._processes_of, pid)
        now = self._now()
        passed = now - self._read_at
        told = [self._process(member, passed) for member in members]
        self._before, self._read_at = {member.pid: member.cpu for member in members}, now
        return feed.Processes(time=round(now, 3), processes=told)

    def _process(self, member: ProcessUsage, passed: float) -> feed.Process:
        before = self._before.get(member.pid)
        cpu = None if before is None or passed <= 0 else round((member.cpu - before) / passed, 3)
        return feed.Process(pid=member.pid, parent=member.parent, command=member.name, memory=member.memory, cpu=cpu)
