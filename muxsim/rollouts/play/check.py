"""Is this environment fit for rollouts? It is started a few times, played with random actions, and looked at."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from muxsim.config import Config
from muxsim.errors import MuxsimError
from muxsim.inside.proc import families
from muxsim.observe.events import BackendRejected, Event, SessionEnded, SessionReady, SessionStarted
from muxsim.placement.last_words import with_last_said
from muxsim.provision.cache import cache_folder
from muxsim.provision.store import store_folder
from muxsim.rollouts.environments.environment import Environment, ToolResult
from muxsim.rollouts.environments.pool import LocalPool, open_pool
from muxsim.rollouts.play.differences import first_difference
from muxsim.rollouts.play.outside import (
    Outside,
    Place,
    Stamps,
    changed,
    every_process,
    open_for_writing,
    places_of,
    stamps_of,
    told,
)
from muxsim.rollouts.policy.protocol import Policy, PolicyError

DEFAULT_STEPS: Final = 10
# Seconds from the end of stdin; an interpreter takes one of them to end on a busy machine.
_EOF_TIMEOUT: Final = 5.0
_SEEDS: Final = (0, 1, 2, 3)
_CALL_TIMEOUT: Final = 60.0
# Folders of the cache in which muxsim itself writes while sessions play.
_OWN_CACHES: Final = ("python", "node")
# Seconds for which others are watched who may have written what sessions seem to have.
_LONGEST_WATCH: Final = 5.0
# Characters of what a failed call said.
_SAID: Final = 120


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the table: ``ok`` is None for what is only measured or could not be looked at.

    ``files`` are those that it is about.
    """

    name: str
    ok: bool | None
    detail: str
    files: tuple[str, ...] = ()


Action = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Play:
    """What an environment said to a list of actions: its start, then each result, as JSON that compares."""

    seed: int
    initial_state: Any
    tools: list[dict[str, Any]]
    results: list[Any]
    actions: list[Action]

    def seen(self) -> Any:
        """Everything that a seed decides."""
        return [_without_seed(self.initial_state), self.results]

    @property
    def failed(self) -> list[int]:
        """The steps whose calls were answered with an error."""
        return [index for index, result in enumerate(self.results) if result["is_error"]]


class _Died(Exception):
    """An environment did not play on; the message says where, and with what words."""


@dataclass
class _Diary:
    """What the sessions did beside their answers."""

    rejected: list[str] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    pids: dict[str, int] = field(default_factory=dict)

    def listen(self, event: Event) -> None:
        match event:
            case BackendRejected(again=None):
                self.rejected.append(event.line)
            case SessionReady():
                self.starts.append(event.seconds)
            case SessionStarted(pid=int(pid)):
                self.pids[event.session] = pid
            case SessionEnded(exit_status=int(status)):
                self.exits.append(status)


class Checker:
    """Checks one environment of a config."""

    def __init__(self, config: Config, env: str, policy: Policy, steps: int = DEFAULT_STEPS) -> None:
        self._config = _patient(config, env)
        self._env = env
        self._policy = policy
        self._steps = steps
        self._diary = _Diary()
        self._memory: list[float] = []
        self._solo: dict[int, Play] = {}
        self._miscounted = ""
        self._home, self._temporary = os.path.expanduser("~"), tempfile.gettempdir()
        self._places: list[Place] = []
        self._outside = Outside(())
        self._longest = 0.0
        self._pool: LocalPool

    async def run(self) -> list[Finding]:
        """Every finding, in the order of the table; an environment that does not start, or play, has only those."""
        async with open_pool(self._config, on_event=self._diary.listen) as pool:
            self._pool = pool
            try:
                again = await self._solo_plays()
            except PolicyError as error:  # there are no actions to try: nothing can be said of how it plays
                return [self._starts(), Finding("plays", False, f"not tried: {error}"), *self._of_processes()]
            except MuxsimError as error:
                return [Finding("starts", False, str(error))]
            except _Died as died:
                return [self._starts(), Finding("plays", False, str(died)), *self._of_processes()]
            findings = [
                self._starts(),
                Finding("plays", True, f"{self._steps} actions at most, on the seeds {_listed(_SEEDS)}"),
                self._no_call_failed(again),
                self._tools(again),
                self._control_plane(),
                self._same_seed(again),
                self._different_seeds(),
                await self._guarded("interleaved sessions are independent", self._interleaved),
                await self._written_outside(),
            ]
        return [*findings, *self._of_processes(), self._measured_memory()]

    def _starts(self) -> Finding:
        return Finding("starts", True, f"and answers in {statistics.median(self._diary.starts):.2f} s")

    def _of_processes(self) -> list[Finding]:
        return [self._exits_on_eof(), self._stdout_is_clean()]

    async def _guarded(self, name: str, check: Callable[[], Awaitable[Finding]]) -> Finding:
        try:
            return await check()
        except (MuxsimError, _Died) as error:
            return Finding(name, False, str(error))

    async def _solo_plays(self) -> Play:
        """Play each seed alone, and the first one twice; returns its second play."""
        for seed in _SEEDS:
            self._solo[seed] = await self._play_watched(seed)
        return await self._play_watched(_SEEDS[0])

    async def _play_watched(self, seed: int) -> Play:
        """Play a seed alone, and see what has become of files meanwhile, where it is known by now which to look at."""
        before = await self._stamps()
        began = time.perf_counter()
        try:
            return await self._play_alone(seed)
        finally:
            if before:
                self._longest = max(self._longest, time.perf_counter() - began)
                # Its processes have ended: who has a file open now is somebody else.
                others = await anyio.to_thread.run_sync(open_for_writing, every_process())
                self._outside.saw(changed(before, await self._stamps()) - others)
            self._outside.session_over(watched=bool(before))

    async def _stamps(self) -> Stamps:
        passed_over = (*self._outside.passed_over, str(cache_folder(os.environ)))
        return await anyio.to_thread.run_sync(stamps_of, self._places, passed_over)

    async def _play_alone(self, seed: int) -> Play:
        environment = await self._pool.open(self._env, seed)
        try:
            # With its children: a sandbox, or a launcher such as npx, has the server below it.
            pid = self._diary.pids[environment.id]
            self._look_around(environment, pid)
            play = _begun(environment)
            while len(play.results) < self._steps and await self._step(environment, play):
                self._outside.saw(open_for_writing(families([pid])), for_certain=True)
            family = families([pid])
            self._outside.saw(open_for_writing(family), for_certain=True)
            self._memory.append(sum(map(_pss_mib, family)))
            await self._count(environment)
            return play
        finally:
            await environment.close()

    async def _count(self, environment: Environment) -> None:
        """See whether it counts what it has said, as it is seen of an episode that is over."""
        try:
            await environment.earned(timeout=_CALL_TIMEOUT, over=True)
        except MuxsimError as error:
            self._miscounted = self._miscounted or str(error)

    def _look_around(self, environment: Environment, pid: int) -> None:
        """Where to look for what it writes, once there is a process that shows it."""
        workspace = environment.opened.workspace
        if self._places or workspace is None:
            return
        own = str(workspace.parent)  # with those of all its sessions
        self._outside.passed_over = (own, *(str(cache_folder(os.environ) / name) for name in _OWN_CACHES))
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            cwd = os.readlink(f"/proc/{pid}/cwd")
            spec = self._config.environments[self._env]
            given = [*map(os.fsdecode, words), spec.command, *spec.args]
            places = places_of(given, cwd, self._home, self._temporary)
            self._places = [one for one in places if not f"{one.path}/".startswith(f"{own}/")]

    async def _written_outside(self) -> Finding:
        name = "writes nothing outside"
        if self._outside.suspects():  # as long as a session took, for others who write all the time
            before = await self._stamps()
            await anyio.sleep(min(self._longest, _LONGEST_WATCH))
            self._outside.clear(changed(before, await self._stamps()))
        written = self._outside.written()
        if not written:
            return Finding(name, True, "of its workspace, that could be seen")
        # A file of each session's own is litter; one of several is what they have in common.
        shared = any(count > 1 for count in written.values())
        return Finding(
            name,
            not shared and None,
            told(written, self._home, self._temporary, str(store_folder(os.environ))),
            tuple(written),
        )

    async def _step(self, environment: Environment, play: Play) -> bool:
        """One more action of the same sequence, whatever the seed; False when the episode is over."""
        turns = [{"role": "assistant", "content": ""}] * len(play.results)
        # The same actions for all seeds: else nobody could tell whether it is the seed that makes a difference.
        reply = await self._policy.next_message(turns, play.tools, _SEEDS[0])
        for tool, arguments in _actions(reply.message):
            try:
                result = await environment.call(tool, arguments, timeout=_CALL_TIMEOUT)
            except MuxsimError as error:
                raise _Died(_last_words(play, tool, error)) from None
            play.actions.append((tool, arguments))
            play.results.append(_comparable(result))
            if result.control is not None and (result.control.terminated or result.control.truncated):
                return False
        return bool(reply.message.get("tool_calls"))

    def _no_call_failed(self, again: Play) -> Finding:
        name, plays = "no tool call failed", [*self._solo.values(), again]
        failed = [(play, index) for play in plays for index in play.failed]
        calls = sum(len(play.results) for play in plays)
        if not failed:
            return Finding(name, True, f"of {calls}")
        play, index = failed[0]
        said = next((block["text"] for block in play.results[index]["content"] if block.get("type") == "text"), "")
        return Finding(
            name,
            False,
            f"{len(failed)} of {calls}, the first at step {index} of seed {play.seed}: "
            f"{play.actions[index][0]} {_short(play.actions[index][1])} says {said.strip()[:_SAID]!r}",
        )

    def _tools(self, again: Play) -> Finding:
        plays = [*self._solo.values(), again]
        names = [tool["function"]["name"] for tool in plays[0].tools]
        if not names:
            return Finding("has tools", False, "tools/list is empty: an agent could do nothing")
        if any(play.tools != plays[0].tools for play in plays):
            return Finding("tools are stable", False, "tools/list differs between sessions")
        return Finding("tools are stable", True, ", ".join(names))

    def _control_plane(self) -> Finding:
        name = "control plane"
        controls = [result["control"] for play in self._solo.values() for result in play.results]
        if all(control is None for control in controls):
            return Finding(name, None, "none: rollouts need a reward function")
        problems = [control["problem"] for control in controls if control and control.get("problem")]
        if problems:
            return Finding(name, False, str(problems[0]))
        if self._miscounted:
            return Finding(name, False, self._miscounted)
        if any(control is None for control in controls):
            return Finding(name, False, "some results have it and some do not")
        if self._solo[_SEEDS[0]].initial_state is None:
            return Finding(name, False, "control://initial_state cannot be read")
        return Finding(name, True, "reward, ends and initial state are well-formed")

    def _same_seed(self, again: Play) -> Finding:
        name = "same seed, same episode"
        first = self._solo[_SEEDS[0]]
        if first.initial_state != again.initial_state:
            difference = first_difference(first.initial_state, again.initial_state)
            return Finding(name, False, f"the initial state differs {difference}")
        for index, (one, other) in enumerate(zip(first.results, again.results, strict=False)):
            if (difference := first_difference(one, other)) is not None:
                return Finding(name, False, f"step {index} of seed {first.seed} differs {difference}")
        if len(first.results) != len(again.results):
            return Finding(name, False, f"it ended after {len(first.results)} steps, then after {len(again.results)}")
        return Finding(name, True, f"over {len(first.results)} steps")

    def _different_seeds(self) -> Finding:
        name = "different seeds differ"
        first, *others = self._solo.values()
        starts = {msgspec.json.encode(_without_seed(play.initial_state)) for play in self._solo.values()}
        if len(starts) > 1:
            return Finding(name, True, f"{len(starts)} starts for {len(_SEEDS)} seeds")
        for other in others:
            difference = first_difference(first.results, other.results)
            if difference is not None:
                where = f"seeds {first.seed} and {other.seed} start alike, and with the same actions differ"
                return Finding(name, True, f"{where} {difference}")
        return Finding(
            name,
            None,
            f"seeds {_listed(_SEEDS)} start alike and go alike with the same actions; fine if that is meant",
        )

    async def _interleaved(self) -> Finding:
        """Step two sessions in turn: what each says must be what it said alone."""
        name = "interleaved sessions are independent"
        seeds = _SEEDS[:2]
        async with AsyncExitStack() as stack:
            environments = [await self._pool.open(self._env, seed) for seed in seeds]
            for environment in environments:
                stack.push_async_callback(environment.close)
            plays = [_begun(environment) for environment in environments]
            going = [True, True]
            while any(going):
                for index, environment in enumerate(environments):
                    if going[index]:
                        more = len(plays[index].results) < self._steps
                        going[index] = more and await self._step(environment, plays[index])
        for seed, play in zip(seeds, plays, strict=True):
            difference = first_difference(self._solo[seed].seen(), play.seen())
            if difference is not None:
                return Finding(name, False, f"seed {seed} plays differently beside another session, {difference}")
        return Finding(name, True, "two at a time play as each does alone")

    def _exits_on_eof(self) -> Finding:
        signalled = [status for status in self._diary.exits if status < 0]
        if signalled:
            count = f"{len(signalled)} of {len(self._diary.exits)}"
            return Finding("exits on EOF", False, f"{count} sessions had to be ended by a signal")
        return Finding("exits on EOF", True, "when its stdin is closed")

    def _stdout_is_clean(self) -> Finding:
        if self._diary.rejected:
            count, first = len(self._diary.rejected), self._diary.rejected[0]
            return Finding("stdout is clean", False, f"{count} lines are no MCP messages, the first: {first[:120]!r}")
        return Finding("stdout is clean", True, "nothing but MCP")

    def _measured_memory(self) -> Finding:
        return Finding("memory", None, f"{statistics.median(self._memory):.0f} MiB (PSS) a session")


def _patient(config: Config, env: str) -> Config:
    """The config with time for the environment to end by itself: how busy the machine is says nothing of it."""
    spec = config.environment(env)
    limits = replace(spec.limits, eof_timeout=max(spec.limits.eof_timeout, _EOF_TIMEOUT))
    return replace(config, environments={**config.environments, env: replace(spec, limits=limits)})


def _begun(environment: Environment) -> Play:
    tools = [tool.for_chat() for tool in environment.opened.tools]
    return Play(environment.seed, environment.opened.initial_state, tools, [], [])


def _last_words(play: Play, tool: str, error: MuxsimError) -> str:
    last = with_last_said(str(error), getattr(error, "stderr", ()))
    return f"died at step {len(play.results)} of seed {play.seed}, in {tool}: {last}"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _actions(message: dict[str, Any]) -> Sequence[Action]:
    calls = message.get("tool_calls") or []
    return [(call["function"]["name"], msgspec.json.decode(call["function"]["arguments"])) for call in calls]


def _comparable(result: ToolResult) -> dict[str, Any]:
    return {
        "content": result.content,
        "structured": result.structured,
        "is_error": result.is_error,
        "control": None if result.control is None else msgspec.to_builtins(result.control),
    }


def _without_seed(state: Any) -> Any:
    return {key: value for key, value in state.items() if key != "seed"} if isinstance(state, dict) else state


def _pss_mib(pid: int) -> float:
    """A process's share of memory; 0 where the kernel does not tell."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    pss = next((line for line in rollup.splitlines() if line.startswith("Pss:")), "Pss: 0 kB")
    return int(pss.split()[1]) / 1024


def _short(value: Any, limit: int = 120) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= limit else f"{text[:limit]}…"


async def check(config: Config, env: str, policy: Policy, steps: int = DEFAULT_STEPS) -> list[Finding]:
    """Check one environment of a config; ``policy`` chooses the actions, from the seed alone."""
    return await Checker(config, env, policy, steps).run()
