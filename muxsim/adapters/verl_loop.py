"""Environments of muxsim for verl: an agent loop, named in the file of ``agent.agent_loop_config_path``.

    - name: frozen_lake
      _target_: muxsim.adapters.verl_loop.MuxsimAgentLoop
      source: muxsim.toml
      env: frozen_lake

Each sample is a session of its own with the row's seed. An episode that has broken is played again: verl has no word
for a reward that nobody knows.
"""

from __future__ import annotations

import time
from typing import Any, Final
from uuid import uuid4

import anyio

from muxsim.adapters.needed import needed

with needed(__name__, "pip install verl"):
    from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
    from verl.experimental.agent_loop.tool_parser import ToolParser
    from verl.tools.schemas import OpenAIFunctionToolSchema

from muxsim.adapters.dialogue import (
    DEFAULT_CALL_TIMEOUT,
    Dialogue,
    EpisodeBroken,
    EpisodeOver,
    Terms,
    asked,
    of_its_own,
    open_dialogue,
    seed_in,
)
from muxsim.adapters.running import Running, Source, kept, portable
from muxsim.adapters.written_calls import NoCall, arguments_in, kinds
from muxsim.errors import Busy, StartError
from muxsim.rollouts.environments.environment import Tool

_TRIES: Final = 3
# What verl is told of each generation: counts of it alone, and of the weights that were there last.
_COUNTS: Final[tuple[str, ...]] = ("spec_num_draft_tokens", "spec_num_accepted_tokens", "spec_num_verify_steps")
_LAST: Final = "max_global_steps"


class MuxsimAgentLoop(AgentLoopBase):
    """Plays one sample. ``source`` is a config file or a URL, ``env`` an environment's name there.

    ``tries`` is how often an episode is begun that breaks, or does not start; ``max_calls`` truncates one. Times are in
    seconds; ``token`` is for a URL. The rest is verl's own.
    """

    def __init__(
        self,
        *args: Any,
        source: Source,
        env: str,
        max_calls: int | None = None,
        instructions: bool = True,
        tries: int = _TRIES,
        start_timeout: float | None = None,
        call_timeout: float | None = DEFAULT_CALL_TIMEOUT,
        token: str | None = None,
        tools: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if tries < 1:
            raise ValueError(f"tries = {tries}: give 1 or more")
        self._source, self._env, self._token, self._tries = portable(source), env, token, tries
        self._instructions = instructions
        self._terms = Terms(max_calls=max_calls, start_timeout=start_timeout, call_timeout=call_timeout)
        self._parser = ToolParser.get_tool_parser(self.rollout_config.multi_turn.format, self.tokenizer)

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        """Play a sample. Raises `EpisodeBroken`, `StartError` or `Busy`: every try has failed."""
        running = await anyio.to_thread.run_sync(kept, self._source, self._token)
        seed = seed_in(row)
        for remaining in reversed(range(self._tries)):
            try:
                return await self._play(running, seed, sampling_params, row)
            except (EpisodeBroken, StartError, Busy):
                if not remaining:
                    raise
        raise AssertionError("there is at least one try")

    async def _play(
        self, running: Running, seed: int, sampling_params: dict[str, Any], row: dict[str, Any]
    ) -> AgentLoopOutput:
        dialogue = await running.wait(open_dialogue, self._env, seed, self._terms)
        try:
            sample = _Sample(self, running, dialogue, sampling_params, row)
            await sample.begin(asked(row["raw_prompt"], dialogue, instructions=self._instructions))
            await sample.play()
            reward = await running.wait(of_its_own(dialogue.earned))
            if reward is None:
                raise ValueError(f"{self._env} has no control plane, so that nobody knows what an episode has earned")
            return sample.output(reward)
        finally:
            with anyio.CancelScope(shield=True):
                await running.wait(of_its_own(dialogue.close))

    @property
    def parser(self) -> Any:
        """What finds the calls in a model's tokens, by ``multi_turn.format``."""
        return self._parser


def for_parser(tool: Tool) -> OpenAIFunctionToolSchema:
    """A tool as verl's parsers want it, of which some read values by it: for those each argument has one type."""
    properties = {name: {"type": kind} for name, kind in kinds(tool.input_schema).items()}
    parameters = {"type": "object", "properties": properties}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return OpenAIFunctionToolSchema.model_validate({"type": "function", "function": function})


class _Sample:
    """The tokens of an episode, of which a mask says which the model has written."""

    def __init__(
        self,
        loop: MuxsimAgentLoop,
        running: Running,
        dialogue: Dialogue,
        sampling_params: dict[str, Any],
        row: dict[str, Any],
    ) -> None:
        self.loop, self.running, self.dialogue = loop, running, dialogue
        stop = [*(sampling_params.get("stop_token_ids") or ()), *loop.parser.stop_token_ids]
        self.sampling = {**sampling_params, "stop_token_ids": sorted(set(stop))} if stop else sampling_params
        self.tools = [tool.for_chat() for tool in dialogue.tools]
        self.for_parser = [for_parser(tool) for tool in dialogue.tools]
        same_each_time = loop.rollout_config.full_determinism
        self.request = f"det-{row.get('priority', 0)}" if same_each_time else uuid4().hex
        self.messages: list[dict[str, Any]] = []
        self.ids: list[int] = []
        self.mask: list[int] = []
        self.logprobs: list[float] = []
        self.turns = 0
        self.extra: dict[str, Any] = {}
        self.experts: Any = None
        self.preempted: list[int] = []
        self.times = {"generate_sequences": 0.0, "tool_calls": 0.0}

    async def begin(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages
        self.ids = await self.loop.ct_build_initial_tokens(messages, tools=self.tools)

    async def play(self) -> None:
        """Take turns until the environment, the model or verl's bounds end it."""
        bounds = self.loop.rollout_config.multi_turn
        while True:
            token_ids = await self._generate()
            self.turns += 1
            answered = self.turns - 1
            if (
                len(self.mask) >= self.loop.rollout_config.response_length
                or (bounds.max_assistant_turns and self.turns >= bounds.max_assistant_turns)
                or (bounds.max_user_turns and answered >= bounds.max_user_turns)
            ):
                return
            content, calls = await self.loop.parser.extract_tool_calls(token_ids, self.for_parser)
            if not calls:
                return
            answers = await self._call(calls)
            if self.dialogue.ended or not await self._show(_assistant(content, calls), answers):
                return

    async def _generate(self) -> list[int]:
        began = time.perf_counter()
        output = await self.loop.server_manager.generate(
            request_id=self.request, prompt_ids=self.ids, sampling_params=self.sampling
        )
        self.times["generate_sequences"] += time.perf_counter() - began
        self._keep(output)
        known = self.logprobs if self.logprobs or output.log_probs else None
        merged, self.mask, logprobs = await self.loop.ct_merge_assistant_token(
            self.ids, output.token_ids, self.mask, known, assistant_logprobs=output.log_probs or None
        )
        self.ids, self.logprobs = merged.token_ids, logprobs or []
        return list(output.token_ids)

    def _keep(self, output: Any) -> None:
        """What is told beside the tokens: that of the first generation, but for counts and what was there last."""
        told = output.extra_fields or {}
        counts = {name: self.extra[name] + told[name] for name in _COUNTS if name in self.extra and name in told}
        last = {_LAST: told[_LAST]} if told.get(_LAST) is not None else {}
        self.extra = {**told, **self.extra, **counts, **last}
        if output.routed_experts is not None:  # of all tokens so far
            self.experts = output.routed_experts
        if output.num_preempted is not None:
            self.preempted.append(output.num_preempted)

    async def _call(self, calls: list[Any]) -> list[dict[str, Any]]:
        """The answers to calls, one after the other; those behind the end are not made."""
        began = time.perf_counter()
        answers = []
        for call in calls:
            try:
                said = await self.running.wait(of_its_own(self.dialogue.call), call.name, arguments_in(call.arguments))
                content = said.text
            except (NoCall, EpisodeOver) as error:
                content = str(error)
            answers.append({"role": "tool", "content": content, **_id("tool_call_id", call)})
        self.times["tool_calls"] += time.perf_counter() - began
        return answers

    async def _show(self, reply: dict[str, Any], answers: list[dict[str, Any]]) -> bool:
        """Append what the tools say; whether there was room for it."""
        before = [*self.messages, reply]
        after = [*before, *answers]
        merged, mask, logprobs = await self.loop.ct_merge_context_msg(
            before, after, self.ids, self.mask, self.logprobs or None, tools=self.tools
        )
        if len(mask) >= self.loop.rollout_config.response_length:
            return False
        self.messages, self.ids, self.mask, self.logprobs = after, merged.token_ids, mask, logprobs or []
        return True

    def output(self, reward: float) -> AgentLoopOutput:
        room = self.loop.rollout_config.response_length
        asked = len(self.ids) - len(self.mask)
        preempted = {"num_preempted": sum(self.preempted)} if self.preempted else {}
        return AgentLoopOutput(
            prompt_ids=self.ids[:asked],
            response_ids=self.ids[asked:][:room],
            response_mask=self.mask[:room],
            response_logprobs=self.logprobs[:room] if self.logprobs else None,
            routed_experts=None if self.experts is None else self.experts[: asked + room],
            reward_score=reward,
            num_turns=2 * self.turns,
            metrics=AgentLoopMetrics(**self.times, **preempted),
            extra_fields={**self.extra, "turn_scores": [], "tool_rewards": [], "muxsim_seed": self.dialogue.seed},
        )


def _assistant(content: str, calls: list[Any]) -> dict[str, Any]:
    made = []
    for call in calls:
        function = {"name": call.name, "arguments": _or_empty(call.arguments)}
        made.append({"type": "function", "function": function, **_id("id", call)})
    return {"role": "assistant", "content": content or "", "tool_calls": made}


def _id(key: str, call: Any) -> dict[str, str]:
    """What some models name a call by, which their chat template wants to see again."""
    return {} if call.tool_call_id is None else {key: call.tool_call_id}


def _or_empty(arguments: Any) -> dict[str, Any]:
    try:
        return arguments_in(arguments)
    except NoCall:
        return {}
