"""Starts Python backends by forking them from zygotes (zygote.py), and any other way as soon as that fails.

`Zygotes.spawn` stands in the place of `Launcher.spawn`. The first backend of an environment is a learner: a fresh
interpreter that notes what it imports (learner.py). When it has answered its first request there is a zygote for those
that come after it. Sessions wait for a zygote that is importing, since their own import would take as long.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import math
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final
from weakref import WeakKeyDictionary

import msgspec
import trio

from muxsim import inside
from muxsim.inside import wire
from muxsim.inside.as_main import LEARNING, TAG_BYTES
from muxsim.processes.process import AT_ONCE, Command, Launcher, Process, ProcessStartError, confinement_of
from muxsim.provision.cache import cache_folder
from muxsim.runtime.boundary import Boundary, Part, optional
from muxsim.spec import EnvSpec
from muxsim.start.fork.forkable import Forkable, forkable
from muxsim.start.fork.learned import Learned, LearnedModules, key_of, read_names, script_stamp
from muxsim.start.prepared import Prepared

# Seconds for a zygote to have imported everything.
IMPORT_LIMIT: Final = 30.0
# Seconds without any fork while some are waited for: then a zygote counts as hanging.
FORK_SILENCE: Final = 5.0
# Seconds for a learner to begin with the script: an interpreter starts in 0.02, on a crowded machine in one.
LEARNER_LIMIT: Final = 10.0
# How many modules in a row may turn out to be unfit, each costing another start of the zygote.
MOST_CULPRITS: Final = 20
# Seconds between a zygote's death and the next one; doubled each time, since one that dies again costs an import.
FIRST_REST: Final = 1.0
LONGEST_REST: Final = 60.0
# A zygote that has lived so long, in seconds, or forked so often, was sound.
SOUND_AGE: Final = 30.0
SOUND_FORKS: Final = 20
# While one learner is under way so many more backends start afresh; for others it is faster to wait for the zygote,
# unless nobody talks to the learner for so many seconds.
COLD_STARTS: Final = (os.cpu_count() or 1) - 1
LEARNER_PATIENCE: Final = 3.0
# Sessions wait for a zygote that imports for so many times as long as the learner needed, and at least these seconds.
IMPORT_PATIENCE: Final = 3.0
LEAST_PATIENCE: Final = 5.0
# The pages of a fork are looked at when it has said so many things: a first result, before that the answer to a
# handshake where the protocol has one, and some more.
STUDIED_AT: Final = (1, 2, 4)
# So often for each zygote: all of its forks begin alike.
MOST_STUDIES: Final = 6

_STDERR_KEPT = 2000
_SHOWN = 200
# Seconds for a rehearsed script to exit when nobody talks to it any more.
REHEARSAL_LIMIT: Final = 10.0
# What a rehearsed script is asked, all at once: so much has it import what it puts off until it is used.
_REHEARSED: Final = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
    b'"clientInfo":{"name":"muxsim","version":"1"}}}\n'
    b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
    b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}\n'
)
# Reads until the word of a learner is there, before which a `.pth` file, say, may have printed.
_MOST_NOISE = 10_000
# Of pids and errnos: a C int.
_LARGEST_NUMBER = 2**31 - 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ZygoteStatistics:
    """``alive`` is now, the rest since the pool was opened.

    ``forked`` and ``fresh`` count backends of Python environments by how they started, learners among the fresh;
    ``failed`` the zygotes that died or could not be made.
    """

    alive: int = 0
    started: int = 0
    failed: int = 0
    forked: int = 0
    fresh: int = 0
    learners: int = 0


@dataclass
class _Counts:
    started: int = 0
    failed: int = 0
    forked: int = 0
    fresh: int = 0
    learners: int = 0


class ZygoteFailed(Exception):
    """A zygote is no use. ``culprit`` is the module at fault, if it is one that can be left out."""

    def __init__(self, why: str, culprit: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.culprit = culprit


class Nonsense(Exception):
    """What came over a zygote's channel is no report of the zygote's."""


class Importing(msgspec.Struct, tag_field="kind", tag="importing"):
    module: str


class Ready(msgspec.Struct, tag_field="kind", tag="ready"):
    modules: int


class FoundUnfit(msgspec.Struct, tag_field="kind", tag="culprit"):
    module: str
    why: str


class Refused(msgspec.Struct, tag_field="kind", tag="refused"):
    why: str


class Stale(msgspec.Struct, tag_field="kind", tag="stale"):
    ref: int
    why: str


class Forked(msgspec.Struct, tag_field="kind", tag="forked"):
    ref: int
    pid: Annotated[int, msgspec.Meta(gt=0, le=_LARGEST_NUMBER)]


class Failed(msgspec.Struct, tag_field="kind", tag="failed"):
    ref: int
    stage: str
    errno: Annotated[int, msgspec.Meta(ge=0, le=_LARGEST_NUMBER)] | None


Report = Importing | Ready | FoundUnfit | Refused | Stale | Forked | Failed
"""What a zygote says, see zygote.py."""


@dataclass
class _Answer:
    settled: trio.Event = field(default_factory=trio.Event)
    pid: int = 0
    error: Exception | None = None


def rest_after(failures: int) -> float:
    """Seconds to do without a zygote after so many failures in a row."""
    return min(LONGEST_REST, FIRST_REST * 2.0 ** (failures - 1)) if failures else 0.0


class Zygote:
    """One zygote process. `run` follows it to its end."""

    def __init__(self, launcher: Launcher, process: Process, tag: str) -> None:
        self.process = process
        self.began = trio.current_time()
        self.forks = 0
        self.studies = 0
        self.ready = trio.Event()
        self.gone = trio.Event()
        self.why = ""
        self.stale = False
        self.culprit: str | None = None
        self._launcher = launcher
        self._importing: str | None = None
        self._tag = tag
        self._channel = socket.socket(fileno=process.channel)
        self._answers: dict[int, _Answer] = {}
        self._next_ref = 0
        self._progress = trio.current_time()
        self._said = b""
        process.hand_over("channel")
        process.close_stdin()

    def __repr__(self) -> str:
        state = "gone" if self.gone.is_set() else "ready" if self.ready.is_set() else f"importing {self._importing}"
        return f"<Zygote {self.process.pid}: {state}, {self.forks} forks>"

    @property
    def sound(self) -> bool:
        """Whether it has shown that it works."""
        return self.forks >= SOUND_FORKS or trio.current_time() - self.began >= SOUND_AGE

    async def run(self) -> None:
        """Read what it says until it ends, and end whatever is left of it then."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_read_on, self.process.stdout, self._keep)
                nursery.start_soon(_read_on, self.process.stderr, self._keep)
                # What a module has started may hold the channel open.
                nursery.start_soon(_cancel_after, self.process.wait, nursery.cancel_scope)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            try:
                self._hear_the_rest()
                with trio.CancelScope(shield=True):
                    returncode = await self.process.end(AT_ONCE)
                self._bury(returncode)
            finally:  # whatever goes wrong above, nobody waits for this zygote any more
                self._close()
                self.gone.set()

    def instruct(self, recipe: Mapping[str, Any]) -> None:
        """Tell it what it is for, which is all that it waits for. Raises OSError."""
        packet = wire.pack({"kind": "recipe", "tag": self._tag, **recipe})
        try:
            wire.send(self._channel, packet)
        finally:
            packet.close()

    async def retire(self) -> None:
        """Let it finish what was asked of it, and exit."""
        while self._answers:
            await next(iter(self._answers.values())).settled.wait()
            await trio.lowlevel.checkpoint()
        self.stop()

    def stop(self) -> None:
        """Let it exit; `run` sees to it."""
        self._close()

    async def wait_ready(self, deadline: float) -> None:
        """Wait until it can fork. Raises `ZygoteFailed`, with the module that it hangs in past the deadline."""
        with trio.move_on_at(deadline):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_after, self.gone.wait, nursery.cancel_scope)
                await self.ready.wait()
                nursery.cancel_scope.cancel()
        if self.ready.is_set() and not self.gone.is_set():
            return
        if not self.gone.is_set():
            self.culprit = self._importing
            self.why = f"was still importing {self._importing} after {trio.current_time() - self.began:.0f} s"
            self.stop()
            await self.gone.wait()
        raise ZygoteFailed(self.why, self.culprit)

    async def fork(self, command: Command, session: str, *, early: bool) -> Prepared:
        """A backend that waits for its order, confined as ``command`` says. One that is ``early`` has time before it.

        Raises `ZygoteFailed` or `ProcessStartError`.
        """

        async def make(mark: str, streams: tuple[int, ...]) -> int:
            order = {"kind": "fork", "mark": mark, "confinement": confinement_of(command), "early": early}
            return await self._fork(order, streams)

        process = await self._launcher.adopt(self.process, make, session=session)
        self.forks += 1
        return Prepared(process)

    def study(self, pid: int) -> None:
        """Have it see which pages a fork of it uses, which later forks then fetch early."""
        self.studies += 1
        with contextlib.suppress(OSError):
            wire.send(self._channel, wire.pack({"kind": "study", "pid": pid}))

    async def _fork(self, order: wire.Message, streams: tuple[int, ...]) -> int:
        self._next_ref = ref = self._next_ref + 1
        order["ref"] = ref
        try:
            packet = wire.pack(order, streams)
        except OSError as error:
            raise ZygoteFailed(f"could not be asked to fork: {error.strerror}") from error
        answer = self._answers[ref] = _Answer()
        self._progress = max(self._progress, trio.current_time()) if len(self._answers) > 1 else trio.current_time()
        try:
            await self._send(packet)
            await self._wait(answer)
        finally:
            packet.close()
            del self._answers[ref]
        if answer.error is not None:
            raise answer.error
        return answer.pid

    async def _send(self, packet: wire.Packet) -> None:
        while True:
            try:
                wire.send(self._channel, packet)
            except BlockingIOError:
                try:
                    await trio.lowlevel.wait_writable(self._channel)
                except trio.ClosedResourceError:
                    raise ZygoteFailed(self.why or "has ended") from None
            except OSError as error:
                raise ZygoteFailed(self.why or f"could not be asked to fork: {error.strerror}") from error
            else:
                return

    async def _wait(self, answer: _Answer) -> None:
        while not answer.settled.is_set():
            deadline = self._progress + FORK_SILENCE
            with trio.move_on_at(deadline):
                await answer.settled.wait()
            if not answer.settled.is_set() and self._progress + FORK_SILENCE <= trio.current_time():
                self.why = f"did not fork within {FORK_SILENCE:g} s"
                self.stop()
                raise ZygoteFailed(self.why)

    # what it says

    async def _read(self) -> None:
        while True:
            try:
                await trio.lowlevel.wait_readable(self._channel)
                received = wire.receive(self._channel)
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                return
            for fd in received.fds:
                os.close(fd)
            if received.message is None:
                return
            self._hear(received.message)

    def _hear_the_rest(self) -> None:
        with contextlib.suppress(OSError, wire.Unreadable, Nonsense):  # it has ended in any case
            while (received := wire.receive(self._channel)).message is not None:
                for fd in received.fds:
                    os.close(fd)
                self._hear(received.message)

    def _hear(self, message: wire.Message) -> None:
        """Take one report. Raises `Nonsense` for what is none: whoever says it is no use as a zygote."""
        if message.pop("tag", None) != self._tag:
            raise Nonsense(f"something in {self!r} that is not the zygote has said {str(message)[:_SHOWN]}")
        try:
            report = msgspec.convert(message, type=Report)
        except msgspec.ValidationError as error:
            raise Nonsense(f"{self!r} has said {str(message)[:_SHOWN]}: {error}") from None
        self._take(report)

    def _take(self, report: Report) -> None:
        match report:
            case Importing(module):
                self._importing = module
            case Ready():
                self._importing = None
                self.ready.set()
            case FoundUnfit(module, why):
                self.why, self.culprit = why, module
            case Refused(why):
                self.why = why
            case Stale(ref, why):
                self.why, self.stale = why, True
                self._settle(ref, error=ZygoteFailed(why))
            case Forked(ref, pid):
                self._settle(ref, pid=pid)
            case Failed(ref, stage, number):
                number = number or errno.EAGAIN
                why = f"could not fork ({stage}): {os.strerror(number)}"
                self._settle(ref, error=ProcessStartError(number, stage, why))

    def _settle(self, ref: int, *, pid: int = 0, error: Exception | None = None) -> None:
        self._progress = trio.current_time()
        if answer := self._answers.get(ref):
            answer.pid, answer.error = pid, error
            answer.settled.set()

    def _keep(self, said: bytes) -> None:
        self._said = (self._said + said)[-_STDERR_KEPT:]

    def _bury(self, returncode: int) -> None:
        if not self.why:
            last = self._said.decode("utf-8", "replace").strip().rpartition("\n")[2]
            self.why = f"ended with status {returncode}" + (f", saying {last!r}" if last else "")
        for answer in self._answers.values():
            if not answer.settled.is_set():
                answer.error = ZygoteFailed(self.why)
                answer.settled.set()

    def _close(self) -> None:
        if self._channel.fileno() >= 0:
            trio.lowlevel.notify_closing(self._channel)
            self._channel.close()


class Keeper:
    """Sees to the zygote of one environment: learns for it, makes it, and makes another when it is gone or outdated."""

    def __init__(self, env: str, program: Forkable, owner: Zygotes) -> None:
        self.env = env
        self.part = owner.part.part(f"the zygote of environment {env}", self.retire)
        self.program = program
        self.stamp = script_stamp(program)
        self.zygote: Zygote | None = None
        self._alive: set[Zygote] = set()
        self.limit = IMPORT_LIMIT
        self._owner = owner
        self._key = key_of(program)
        self._learned = owner.store.load(self._key) or Learned()
        self._unfit: str | None = None
        self._no_new_privs = False
        self._learning: trio.Event | None = None
        self._learning_since = trio.current_time()
        self._learners_file = Path(os.devnull)
        self._cold = 0
        self._making: trio.Event | None = None
        self._making_since = 0.0
        self._failures = 0
        self._rest_until = 0.0
        self._complained = False

    def __repr__(self) -> str:
        return f"<Keeper of {self.env}: {self.zygote!r}, {len(self._learned.modules)} modules known>"

    @optional(NoneType, passing=(ProcessStartError,))
    async def spawn(self, command: Command, session: str) -> Process | None:
        """A backend, forked or learning; None if it has to be a fresh one."""
        if self._unfit is not None:
            return None
        self._no_new_privs = command.no_new_privs
        if not self._learned.modules:
            if self._learning is None:
                return await self._learn(command, session)
            if self._cold < COLD_STARTS:
                self._cold += 1
                return None
            await self._wait_for_the_learner()
        return await self._fork(command, session)

    def retire(self) -> None:
        """There will be no more sessions of this program."""
        self._unfit = "it has changed"
        for zygote in self._alive:
            zygote.stop()

    async def rehearse(self, command: Command, session: str) -> None:
        """Learn without a session, if nothing was learned yet: run the script once, with a client that leaves."""
        if self._unfit is None and not self._learned.modules and self._learning is None:
            process = await self._learn(command, session)
            if process is not None:
                await self._see_through(process)

    async def _see_through(self, process: Process) -> None:
        try:
            with contextlib.suppress(OSError):  # it has ended, which is told of
                os.write(process.stdin, _REHEARSED)
            process.close_stdin()
            with trio.move_on_after(REHEARSAL_LIMIT):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_read_on, process.stdout, len)
                    nursery.start_soon(_read_on, process.stderr, len)
                    await process.wait()
                    nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await process.end(AT_ONCE)
        self._take()

    # forking

    @optional(NoneType, passing=(ProcessStartError,))
    async def prepare(self, command: Command, session: str, *, early: bool = False) -> Prepared | None:
        """A fork that waits for its order, see `Zygote.fork`; None if there is no zygote for it."""
        zygote = await self._a_zygote()
        if zygote is None:
            return None
        try:
            prepared = await zygote.fork(command, session, early=early)
        except ZygoteFailed:  # it ends, and `_follow` takes note of that
            return None
        except ProcessStartError as error:
            self._complain(str(error))
            return None
        self._owner.counts.forked += 1
        if zygote.studies < MOST_STUDIES:
            study = partial(_study, zygote, prepared.process.pid, itertools.count(1))
            self._owner.hooks[prepared.process] = partial(self._heard, study)
        return prepared

    def _heard(self, hook: Callable[[], bool]) -> bool:
        return bool(self.part.attempt(hook))

    async def _fork(self, command: Command, session: str) -> Process | None:
        prepared = await self.prepare(command, session)
        if prepared is None:
            return None
        try:
            return await prepared.activate(command)
        except ProcessStartError as error:
            self._complain(str(error))
            return None

    async def _a_zygote(self) -> Zygote | None:
        if self.zygote is None and self._is_worth_a_try():
            making = self._begin_making()
            patience = max(LEAST_PATIENCE, IMPORT_PATIENCE * self._learned.seconds)
            with trio.move_on_at(self._making_since + patience):
                await making.wait()
        return self.zygote

    def _is_worth_a_try(self) -> bool:
        return trio.current_time() >= self.next_try

    @property
    def next_try(self) -> float:
        """When a zygote may be made."""
        return self._rest_until if self._unfit is None and self._learned.modules else math.inf

    def _begin_making(self) -> trio.Event:
        if self._making is None:
            self._making, self._making_since = trio.Event(), trio.current_time()
            self.part.start_soon(self._make, self._making)
        return self._making

    async def _make(self, making: trio.Event) -> None:
        try:
            before, self.zygote = self.zygote, await self._make_without_culprits(trio.current_time() + self.limit)
            if before is not None:
                self.part.start_soon(before.retire)
            self._owner.on_ready(self.env)
        except (ZygoteFailed, ProcessStartError, OSError) as error:
            self._failed(str(error))
        finally:
            self._making = None
            making.set()

    async def _make_without_culprits(self, deadline: float) -> Zygote:
        for _ in range(MOST_CULPRITS):
            with trio.move_on_at(deadline) as starting:
                zygote = await self._start()
            if starting.cancelled_caught:
                raise ZygoteFailed("was not started in time")
            try:
                await zygote.wait_ready(deadline)
            except ZygoteFailed as error:
                if error.culprit is None:
                    raise
                self._leave_out(error.culprit, error.why)
                if trio.current_time() >= deadline:
                    raise
            else:
                return zygote
        raise ZygoteFailed(f"more than {MOST_CULPRITS} modules cannot be held")

    async def _start(self) -> Zygote:
        owner, program = self._owner, self.program
        argv = (program.python, *program.options, inside.ZYGOTE)
        # Of what confines the backends, this can be had before any of them is known.
        command = Command(argv, dict(program.env), program.cwd, no_new_privs=self._no_new_privs)
        process = await owner.launcher.spawn(command, session=f"zygote of {self.env}", channel=True)
        owner.counts.started += 1
        zygote = Zygote(owner.launcher, process, secrets.token_hex(TAG_BYTES))
        owner.alive.add(zygote)
        self._alive.add(zygote)
        self.part.start_soon(self._follow, zygote)
        recipe = {
            "words": program.words,
            "options": len(program.options),
            "modules": self._learned.modules,
            "preload": program.preload,
            "left_out": list(self._learned.left_out),
            "variables": program.variables,
        }
        try:
            zygote.instruct(recipe)
        except OSError:
            zygote.stop()
            raise
        return zygote

    async def _follow(self, zygote: Zygote) -> None:
        owner = self._owner
        try:
            await zygote.run()
        finally:
            owner.alive.discard(zygote)
            self._alive.discard(zygote)
        if self.zygote is not zygote:
            return
        self.zygote = None
        if zygote.stale:
            _log.info("environment %s: its zygote was out of date: %s", self.env, zygote.why)
            return
        if zygote.sound:
            self._failures = 0
        self._failed(zygote.why)

    def _leave_out(self, module: str, why: str) -> None:
        self._learned = replace(self._learned, left_out={**self._learned.left_out, module: why})
        self._owner.store.save(self._key, self._learned)
        _log.warning(
            "environment %s: its zygote does without the module %s, which %s; sessions import it themselves",
            *(self.env, module, why),
        )

    def _failed(self, why: str) -> None:
        if self._unfit is not None:
            return  # it was asked to go
        self._owner.counts.failed += 1
        self._failures += 1
        self._rest_until = trio.current_time() + rest_after(self._failures)
        self._complain(f"its zygote {why}")

    def _complain(self, why: str) -> None:
        """Say why sessions start afresh; once, for each of them would say the same."""
        if not self._complained:
            self._complained = True
            _log.warning("environment %s: sessions start afresh, since %s (zygote = false turns it off)", self.env, why)

    # learning

    async def _learn(self, command: Command, session: str) -> Process | None:
        learning = self._learning = trio.Event()
        try:
            process = await self._start_learner(command, session)
        except BaseException:
            self._forget_learning(learning)
            raise
        if process is None:
            self._forget_learning(learning)
        return process

    async def _start_learner(self, command: Command, session: str) -> Process | None:
        owner, program = self._owner, self.program
        file = owner.new_file(f"learned-{self.env}")
        head = (program.python, *program.options)
        argv = (*head, inside.LEARNER, str(file), str(len(program.options)), *command.argv)
        process = await owner.launcher.spawn(replace(command, argv=argv), session=session)
        tag = secrets.token_hex(TAG_BYTES).encode()
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and says nothing
                os.write(process.stdin, tag)
            begun = await _begins(process, LEARNING % tag)
        except BaseException:
            await process.end(AT_ONCE)
            raise
        if not begun:
            await process.end(AT_ONCE)
            self._unfit = "its interpreter could not run the script for learning what it imports"
            self._complain(self._unfit)
            return None
        owner.counts.learners += 1
        self._learners_file, self._learning_since = file, trio.current_time()
        self.part.start_soon(self._follow_learner, process)
        owner.hooks[process] = partial(self._heard, self._learner_answered)
        return process

    async def _follow_learner(self, process: Process) -> None:
        """Take what it has imported later too, for the next zygote and the next run."""
        await process.wait()
        self._owner.hooks.pop(process, None)
        if self._take() and self.zygote is not None and self._is_worth_a_try():
            self._begin_making()
        self._learners_file.unlink(missing_ok=True)
        if self._learning is not None:
            self._forget_learning(self._learning)

    def _learner_answered(self) -> bool:
        self._learned = replace(self._learned, seconds=trio.current_time() - self._learning_since)
        self._take()
        if self._learning is not None:
            self._learning.set()
        if self.zygote is None and self._is_worth_a_try():
            self._begin_making()
        return False

    async def _wait_for_the_learner(self) -> None:
        assert self._learning is not None
        with trio.move_on_at(self._learning_since + LEARNER_PATIENCE):
            await self._learning.wait()
        self._take()

    def _take(self) -> bool:
        """Read what the learner has noted; whether there is more of it than before."""
        names = read_names(self._learners_file)
        if not names or names == self._learned.modules:
            return False
        self._learned = replace(self._learned, modules=names)
        self._owner.store.save(self._key, self._learned)
        return True

    def _forget_learning(self, learning: trio.Event) -> None:
        learning.set()
        if self._learning is learning and not self._learned.modules:
            self._learning = None


class Zygotes:
    """The zygotes of a pool. Made by `zygotes_behind`."""

    def __init__(
        self,
        launcher: Launcher,
        part: Part,
        folder: Path,
        environ: dict[str, str],
        enabled: bool,
    ) -> None:
        self.launcher = launcher
        self.part = part
        self.store = LearnedModules(cache_folder(environ) / "python")
        self.counts = _Counts()
        self.alive: set[Zygote] = set()
        self.hooks: WeakKeyDictionary[Process, Callable[[], bool]] = WeakKeyDictionary()
        self.on_ready: Callable[[str], None] = lambda _: None
        self.enabled = enabled
        self._folder = folder
        self._files = 0
        self._environ = environ
        self._keepers: dict[str, Keeper | None] = {}
        self._specs: dict[str, EnvSpec] = {}

    def __repr__(self) -> str:
        return f"<Zygotes: {self.statistics()}>"

    def statistics(self) -> ZygoteStatistics:
        """A snapshot."""
        counts = self.counts
        return ZygoteStatistics(
            sum(zygote.process.returncode is None for zygote in self.alive),
            counts.started,
            counts.failed,
            counts.forked,
            counts.fresh,
            counts.learners,
        )

    async def spawn(self, spec: EnvSpec, command: Command, *, session: str) -> Process:
        """Start ``command``, which is what ``spec`` gives for one session, in the fastest way that works.

        Raises ProcessStartError as `Launcher.spawn` does.
        """
        process = await self._spawn_fast(spec, command, session)
        return process or await self.launcher.spawn(command, session=session)

    @optional(NoneType, passing=(ProcessStartError,))
    async def _spawn_fast(self, spec: EnvSpec, command: Command, session: str) -> Process | None:
        keeper = self._keeper(spec)
        if keeper is None or not _applies(keeper.program, command):
            return None
        process = await keeper.spawn(command, session)
        self.counts.fresh += process is None
        return process

    @optional(NoneType, passing=(ProcessStartError,))
    async def prepare(self, spec: EnvSpec, command: Command, *, session: str) -> Prepared | None:
        """A process that has all but begun, to become any command of ``spec`` confined as this one is.

        None if ``spec`` has no zygote, or one that
        is no use now: see `next_try`. It has none before a first session was played; `on_ready` tells when it has.
        """
        keeper = self._keeper(spec)
        if keeper is None or not _applies(keeper.program, command):
            return None
        return await keeper.prepare(command, session, early=True)

    @optional(NoneType, passing=(ProcessStartError,))
    async def rehearse(self, spec: EnvSpec, command: Command, *, session: str) -> None:
        """Have `prepare` work before a first session was played: runs ``command`` once, if nobody has so far."""
        keeper = self._keeper(spec)
        if keeper is not None and _applies(keeper.program, command):
            await keeper.rehearse(command, session)

    @optional(lambda: math.inf)
    def next_try(self, name: str) -> float:
        """When `prepare` may give a fork of this environment, if `on_ready` tells nothing before."""
        keeper = self._keepers.get(name)
        return math.inf if keeper is None or keeper.part.is_off else keeper.next_try

    @optional(NoneType)
    def hook_of(self, process: Process) -> Callable[[], bool] | None:
        """What is to be called with each thing that this process says, if anything is, until it returns False."""
        return self.hooks.pop(process, None)

    def new_file(self, name: str) -> Path:
        """A path in a folder that goes with the pool."""
        self._files += 1
        return self._folder / f"{self._files}-{name}"

    def _keeper(self, spec: EnvSpec) -> Keeper | None:
        if not self.enabled or not spec.zygote or spec.shared:
            return None
        name = spec.name
        keeper = self._keepers.get(name)
        if self._specs.get(name) is not spec:
            self._specs[name] = spec
            program = forkable(spec, self._environ)
            if isinstance(program, str):
                self._replace(name, None)
                _log.info("environment %s: sessions start afresh, since %s", name, program)
                return None
            if keeper is None or keeper.program != program:
                keeper = self._replace(name, Keeper(name, program, self))
        if keeper is not None and keeper.stamp != script_stamp(keeper.program):
            keeper = self._replace(name, Keeper(name, keeper.program, self))
        if keeper is not None:
            keeper.limit = min(IMPORT_LIMIT, spec.limits.start_timeout)
        return keeper

    def _replace(self, name: str, keeper: Keeper | None) -> Keeper | None:
        if (old := self._keepers.get(name)) is not None:
            old.retire()
        self._keepers[name] = keeper
        return keeper


def _applies(program: Forkable, command: Command) -> bool:
    """Whether this is the program itself, and not in something else, and can be started where it is to run."""
    head = program.head
    return command.argv[: len(head)] == head and os.path.isdir(command.cwd)


async def _read_on(fd: int, hear: Callable[[bytes], object]) -> None:
    """Read to the end, so that nobody waits for room to write."""
    try:
        while True:
            await trio.lowlevel.wait_readable(fd)
            data = os.read(fd, 65536)
            if not data:
                return
            hear(data)
    except (OSError, ValueError, trio.ClosedResourceError):
        return


async def _begins(process: Process, word: bytes) -> bool:
    """Whether a learner gets as far as the script: it says this word then; what was said before is nothing to anybody.

    Not a byte is read of what the script says.
    """
    said = b""
    with trio.move_on_after(LEARNER_LIMIT):
        for _ in range(_MOST_NOISE):
            missing = len(word) - _begun(word, said)
            if not missing:
                return True
            await trio.lowlevel.wait_readable(process.stdout)
            more = os.read(process.stdout, missing)
            if not more:
                return False
            said = (said + more)[-len(word) :]
    return False


def _begun(word: bytes, said: bytes) -> int:
    """How many bytes of the word there are at the end of what was said."""
    return next(count for count in range(len(word), -1, -1) if said.endswith(word[:count]))


def _study(zygote: Zygote, pid: int, said: Iterator[int]) -> bool:
    """Have a fork studied when it has said enough; whether it is to be listened to further."""
    count = next(said)
    if count in STUDIED_AT:
        zygote.study(pid)
    return count < STUDIED_AT[-1] and zygote.studies < MOST_STUDIES


async def _cancel_after(wait: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()


def zygotes_behind(boundary: Boundary, launcher: Launcher, folder: Path, *, enabled: bool = True) -> Zygotes:
    """Zygotes, which the launcher ends with everything else of its own."""
    return Zygotes(launcher, boundary.part("all zygotes"), folder, dict(os.environ), enabled)
