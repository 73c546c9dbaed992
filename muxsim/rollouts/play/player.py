"""One episode: a policy plays an environment to an end that is on the record, with a reason, whatever happens."""

from __future__ import annotations

import inspect
import math
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import anyio

from muxsim.errors import Busy, MuxsimError, StartError, UnknownEnvironment
from muxsim.rollouts.data.arguments import arguments_of
from muxsim.rollouts.data.dataset import Episode
from muxsim.rollouts.data.prompts import first_messages
from muxsim.rollouts.data.trajectory import (
    CONTROL_METADATA_KEY,
    VALID_ENDS,
    Control,
    EndReason,
    Step,
    ToolsChanged,
    Trajectory,
    shown_to_agent,
)
from muxsim.rollouts.environments.environment import (
    CallTimeout,
    Environment,
    EnvironmentFailed,
    EnvironmentGone,
    EnvironmentPool,
    MachineryFailed,
    Tool,
    ToolResult,
)
from muxsim.rollouts.play.options import RolloutOptions
from muxsim.rollouts.play.outlook import Outlook
from muxsim.rollouts.play.own_code import is_failure
from muxsim.rollouts.play.scoring import score_by, traceback_of
from muxsim.rollouts.play.watching import Watchers
from muxsim.rollouts.policy.checked import WrongReply, checked_reply
from muxsim.rollouts.policy.messages import tool_messages, without_images
from muxsim.rollouts.policy.playback import PlayedEpisode, current_episode
from muxsim.rollouts.policy.protocol import Policy, PolicyError, RateLimited, Reply, TokenLimit

# Between two tries to open a session on a pool that is full, when it does not say; doubled each time, and spread.
_FIRST_RETRY: Final = 0.5
_LONGEST_RETRY: Final = 30.0
_CLOSE_TIMEOUT: Final = 15.0

# What OpenAI, Anthropic, Google and Mistral call it when a reply ends for its length.
_CUT_OFF: Final = frozenset({"length", "max_tokens", "model_length", "model_context_window_exceeded"})
# What OpenAI, and Google, call it when a filter has ended a reply: what the model would have said is not on record.
_WITHHELD: Final = frozenset({"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii"})

# What an environment raises for a call that has no result.
_FAULTS: Final = (EnvironmentGone, EnvironmentFailed, MachineryFailed, CallTimeout)

# In place of the results of calls that have none.
_NOT_MADE: Final = "(not called: the episode had ended)"
_NO_ANSWER: Final = "(no result: the episode ended before it came)"


@dataclass(frozen=True)
class Company:
    """What all episodes of a run have in common."""

    pool: EnvironmentPool
    policy: Policy
    options: RolloutOptions
    watchers: Watchers
    outlook: Outlook


class _Ended(Exception):
    """The episode is over."""

    def __init__(self, reason: EndReason, error: str | None = None, stderr: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error
        self.stderr = list(stderr)


@dataclass
class Player:
    """Plays one episode and writes its trajectory."""

    company: Company
    episode: Episode
    trajectory: Trajectory = field(init=False)
    hopeless: PolicyError | None = None
    # What the policy sees, copies all: whatever it does to them is not on record.
    _tools: list[dict[str, Any]] = field(default_factory=list)
    _shown: list[dict[str, Any]] = field(default_factory=list)
    _late: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    # Of the last reply: its calls that have no result yet, and the images of those that have one.
    _open_calls: list[dict[str, Any]] = field(default_factory=list)
    _pictures: list[dict[str, Any]] = field(default_factory=list)
    _calling: bool = False

    def __post_init__(self) -> None:
        self.options, self.watchers = self.company.options, self.company.watchers
        row = self.episode.row
        self.trajectory = Trajectory(
            id=self.episode.id,
            row=row.id,
            sample=self.episode.sample,
            env=row.env,
            seed=row.seed,
            end_reason=EndReason.CANCELLED,
            valid=False,
            evaluation_criteria=row.evaluation_criteria,
            info=row.info,
            started_at=datetime.now(UTC).isoformat(),
        )

    async def play(self) -> None:
        """Play to the end; every way out leaves a complete trajectory."""
        began = time.perf_counter()
        played = PlayedEpisode(self.episode.index, self.episode.id)
        token = current_episode.set(played)
        try:
            with self._in_time():
                await self._play()
        except _Ended as ended:
            self._end(ended)
        except Exception as error:  # a bug here, or in a pool: this episode only
            self._end(_Ended(EndReason.MACHINERY_FAILED, f"{type(error).__name__}: {error}"))
            self.trajectory.traceback = traceback_of(error)
        finally:
            current_episode.reset(token)
            self.trajectory.seconds = time.perf_counter() - began - self.trajectory.times.queue
            self._answer_open_calls()
            self.trajectory.usage.add(played.spent)
            self._tell_over(played)
            self.watchers.ended(self.trajectory)

    def _tell_over(self, played: PlayedEpisode) -> None:
        try:
            played.over(self.trajectory.valid)
        except PolicyError as error:
            self._end(_Ended(EndReason.POLICY_ERROR, str(error)))

    async def _play(self) -> None:
        async with self._environment() as environment:
            self._begin(environment)
            try:
                await self._take_turns(environment)
            except _Ended as ended:
                self._end(ended)
            try:
                await self._settle(environment)
            except BaseException:  # cancelled: what is not scored is not over
                self._end(_Ended(EndReason.CANCELLED))
                raise

    async def _take_turns(self, environment: Environment) -> None:
        # What comes behind the last turn is not the episode's own time.
        deadline, self._late.deadline = self._late.deadline, math.inf
        self._late = anyio.CancelScope(deadline=deadline)
        with self._in_time():
            while len(self.trajectory.steps) < self.options.max_steps:
                await self._turn(environment)
            raise _Ended(EndReason.MAX_STEPS)

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """End the episode where its time is over in this block."""
        with self._late as late:
            yield
        if late.cancelled_caught:
            raise _Ended(EndReason.EPISODE_TIMEOUT, f"over {self.options.episode_timeout:g} s")

    async def _settle(self, environment: Environment) -> None:
        """Keep the files of an episode that is over, and find what it has earned, as long as its workspace is there.

        One that the machinery broke has no score.
        """
        reward = self.options.reward
        try:
            if reward is None and self.trajectory.valid:
                self.trajectory.total_reward = await environment.earned(timeout=self.options.call_timeout, over=True)
        except _FAULTS as fault:
            self._end(_fault_of(fault))
        try:
            await self._keep_files(environment)
            if reward is not None and self.trajectory.valid:
                await self._finish(environment)
                await score_by(reward, self.trajectory, environment.opened.workspace)
        except _Ended as ended:
            self._end(ended)

    async def _keep_files(self, environment: Environment) -> None:
        collect, workspace = environment.opened.collect, environment.opened.workspace
        if collect is None or not self.watchers.keepers:
            return
        if workspace is None:
            self.trajectory.files_problem = "its files are on another machine: play there to keep them"
            return
        await self._finish(environment)
        await anyio.to_thread.run_sync(self.watchers.keep_files, self.trajectory, workspace, collect)

    async def _finish(self, environment: Environment) -> None:
        """Let nothing write any more to a workspace that somebody is going to look into."""
        if environment.opened.workspace is None:
            return
        began = time.perf_counter()
        with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True) as late:
            await environment.finish()
        self.trajectory.times.close += time.perf_counter() - began
        if late.cancelled_caught:
            text = f"its processes did not end within {_CLOSE_TIMEOUT:g} s: what it has left is not final"
            raise _Ended(EndReason.MACHINERY_FAILED, text)

    @asynccontextmanager
    async def _environment(self) -> AsyncIterator[Environment]:
        environment = await self._open()
        times = self.trajectory.times
        times.start, times.handshake = environment.opened.start_seconds, environment.opened.handshake_seconds
        try:
            yield environment
        finally:
            began = time.perf_counter()
            with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await environment.close()
            times.close += time.perf_counter() - began

    async def _open(self) -> Environment:
        env, outlook = self.trajectory.env, self.company.outlook
        wait, began = _FIRST_RETRY, time.perf_counter()
        for remaining in reversed(range(self.options.start_tries)):
            if (words := outlook.hopeless(env)) is not None:
                raise _Ended(EndReason.ENV_START_FAILED, words)
            if self.options.episode_timeout is not None:
                self._late.deadline = anyio.current_time() + self.options.episode_timeout
            try:
                environment = await self.company.pool.open(
                    env, self.trajectory.seed, start_timeout=self.options.start_timeout
                )
                outlook.started(env)
                return environment
            except Busy as busy:
                if not remaining:
                    raise _Ended(EndReason.ENV_START_FAILED, str(busy)) from None
                self._late.deadline = math.inf  # an episode's time begins when its turn has come
                # Whoever is refused together must not come back together.
                await outlook.wait(env, max(wait, busy.retry_after) * random.uniform(1.0, 1.5))
                wait = min(2 * wait, _LONGEST_RETRY)
                self.trajectory.times.queue = time.perf_counter() - began
            except (StartError, UnknownEnvironment) as error:
                outlook.failed(env, str(error))
                raise _Ended(EndReason.ENV_START_FAILED, str(error)) from None
        raise AssertionError("start_tries is at least 1")

    def _begin(self, environment: Environment) -> None:
        trajectory, opened = self.trajectory, environment.opened
        trajectory.session, trajectory.seed = environment.id, environment.seed
        trajectory.initial_state = opened.initial_state
        trajectory.tools = [tool.for_chat() for tool in opened.tools]
        self._tools = deepcopy(trajectory.tools)
        state = opened.initial_state
        observation = state.get("observation") if isinstance(state, dict) else None
        begun = first_messages(self.episode.row, observation, instructions=opened.instructions)
        trajectory.messages = begun if self.options.images else without_images(begun)
        self.watchers.started(trajectory)

    async def _turn(self, environment: Environment) -> None:
        reply = await self._decide()
        calls = reply.message.get("tool_calls") or []
        if not calls:
            raise _Ended(EndReason.NO_TOOL_CALL)
        seconds = self._decided
        for call in calls:
            ended = await self._act(environment, call, seconds)
            seconds = 0.0
            if ended is not None or len(self.trajectory.steps) >= self.options.max_steps:
                raise _Ended(ended or EndReason.MAX_STEPS)
        self._show_pictures()

    def _show_pictures(self) -> None:
        """Those of all results come behind the last of them: between two results of one reply no endpoint takes any."""
        self.trajectory.messages += self._pictures
        self._pictures = []

    def _answer_open_calls(self) -> None:
        """Give a message to each call of the last reply that has no result: no endpoint takes a chat without."""
        for call in self._open_calls:
            content = _NO_ANSWER if self._calling else _NOT_MADE
            self._calling = False
            message = {"role": "tool", "tool_call_id": str(call.get("id", "")), "content": content}
            self.trajectory.messages.append(message)
        self._open_calls = []
        self._show_pictures()

    async def _decide(self) -> Reply:
        trajectory = self.trajectory
        began = time.perf_counter()
        try:
            policy, seed = self.company.policy, self.episode.policy_seed
            given = policy.next_message(self._conversation(), self._tools, seed)
            reply = checked_reply(await given if inspect.isawaitable(given) else given)
        except PolicyError as error:
            trajectory.usage.add(error.usage)
            trajectory.times.throttled += error.throttled
            broken = isinstance(error, WrongReply) and self.company.outlook.broke()
            self.hopeless = error if error.ends_run or broken else None
            raise _Ended(_end_by(error), str(error)) from None
        except BaseException as error:  # a policy of the user's: this episode only
            if not is_failure(error):
                raise
            words = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self.hopeless = PolicyError(f"the policy only raises: {words}") if self.company.outlook.broke() else None
            trajectory.traceback = traceback_of(error)
            raise _Ended(EndReason.POLICY_ERROR, words) from error
        finally:
            self._decided = time.perf_counter() - began
            trajectory.times.model += self._decided
        self.company.outlook.replied = True
        trajectory.usage.add(reply.usage)
        trajectory.times.throttled += reply.throttled
        trajectory.tokens.append(reply.tokens)
        trajectory.messages.append(reply.message if reply.finish_reason is None else _with_reason(reply))
        self._open_calls = list(reply.message.get("tool_calls") or ())
        reason = str(reply.finish_reason).lower()
        if reason in _CUT_OFF:
            raise _Ended(EndReason.TOKEN_LIMIT, f"the reply was cut off: its finish_reason is {reply.finish_reason!r}")
        if reason in _WITHHELD:
            text = f"the endpoint has withheld the reply: its finish_reason is {reply.finish_reason!r}"
            raise _Ended(EndReason.POLICY_ERROR, text)
        return reply

    def _conversation(self) -> list[dict[str, Any]]:
        """The messages as the policy may see them, each copied once; the list is the policy's own."""
        messages = self.trajectory.messages
        if len(self._shown) > len(messages):  # a watcher has forgotten some
            self._shown.clear()
        self._shown += shown_to_agent(messages[len(self._shown) :])
        return list(self._shown)

    async def _act(self, environment: Environment, call: dict[str, Any], model_seconds: float) -> EndReason | None:
        """Carry out one tool call; returns why the episode has ended, if it has."""
        function = call.get("function") or {}
        name, raw = str(function.get("name", "")), function.get("arguments")
        arguments, problem = arguments_of(raw)
        result = _not_called(problem) if problem else await self._call(environment, name, arguments)
        del self._open_calls[0]
        step = Step(
            index=len(self.trajectory.steps),
            tool=name,
            arguments=arguments,
            call_id=str(call.get("id", "")),
            content=result.content,
            is_error=result.is_error,
            control=result.control,
            structured=result.structured,
            called=not problem,
            model_seconds=model_seconds,
            tool_seconds=result.seconds,
            control_seconds=result.control_seconds,
        )
        self.trajectory.times.tool += result.seconds
        self.trajectory.times.control += result.control_seconds
        self.trajectory.steps.append(step)
        images = self.options.images
        message, shown = tool_messages(step.call_id, result.content, result.structured, images=images)
        if step.control is not None:
            message["metadata"] = {CONTROL_METADATA_KEY: step.control.as_metadata()}
        self.trajectory.messages.append(message)
        if shown is not None:
            self._pictures.append(shown)
        if result.tools is not None:
            self._follow(result.tools)
        self.watchers.stepped(self.trajectory)
        if self.options.reward is None and _unscored(step):
            raise _Ended(EndReason.ENV_FAILED, f"a reward could not be read: {step.control and step.control.problem}")
        return _end_of(step.control)

    async def _call(self, environment: Environment, name: str, arguments: dict[str, Any]) -> ToolResult:
        self._calling = True
        try:
            result = await environment.call(name, arguments, timeout=self.options.call_timeout)
        except _FAULTS as fault:
            raise _fault_of(fault) from None
        self._calling = False
        return result

    def _follow(self, tools: Sequence[Tool]) -> None:
        """The environment has other tools now: the policy gets them with its next turn."""
        change = ToolsChanged(step=self.trajectory.steps[-1].index, tools=[tool.for_chat() for tool in tools])
        self._tools = deepcopy(change.tools)
        self.trajectory.tools_changed = [*self.trajectory.tools_changed, change]

    def _end(self, ended: _Ended) -> None:
        self._answer_open_calls()
        self.trajectory.end_reason = ended.reason
        self.trajectory.valid = ended.reason in VALID_ENDS
        if not self.trajectory.valid:  # whatever it had earned before that was found out
            self.trajectory.total_reward, self.trajectory.scores = None, {}
        # Half a character, which a policy may well have in its words, cannot be written down.
        self.trajectory.error = ended.error and ended.error.encode(errors="replace").decode()
        self.trajectory.stderr = ended.stderr


def _fault_of(error: MuxsimError) -> _Ended:
    """How an episode ends whose environment could not be asked: for the reason whose fault it is."""
    if isinstance(error, EnvironmentGone):
        return _Ended(EndReason.ENV_CRASHED, str(error), error.stderr)
    if isinstance(error, EnvironmentFailed):
        return _Ended(EndReason.ENV_FAILED, str(error), error.stderr)
    late = isinstance(error, CallTimeout)
    return _Ended(EndReason.TOOL_TIMEOUT if late else EndReason.MACHINERY_FAILED, str(error))


def _unscored(step: Step) -> bool:
    """Whether a step may have earned something that nobody knows; a call that was refused has earned nothing."""
    return step.control is not None and step.control.reward is None and step.control.problem is not None


def _end_by(error: PolicyError) -> EndReason:
    if isinstance(error, TokenLimit):
        return EndReason.TOKEN_LIMIT
    return EndReason.RATE_LIMITED if isinstance(error, RateLimited) else EndReason.POLICY_ERROR


def _with_reason(reply: Reply) -> dict[str, Any]:
    """A reply's message with its finish reason, where a policy does not see it."""
    return {**reply.message, "metadata": {**reply.message.get("metadata", {}), "finish_reason": reply.finish_reason}}


def _end_of(control: Control | None) -> EndReason | None:
    if control is None:
        return None
    if control.terminated:
        return EndReason.TERMINATED
    return EndReason.TRUNCATED if control.truncated else None


def _not_called(problem: str) -> ToolResult:
    return ToolResult([{"type": "text", "text": problem}], is_error=True, control=None)
