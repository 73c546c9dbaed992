"""`make`, and the environments that it makes: rows and where to play them. Processes start when they are played."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anyio

from muxsim.compat.reward_kit.outcomes import UNKNOWN, first_observation, observation_of
from muxsim.compat.reward_kit.places import Place, place_of
from muxsim.compat.reward_kit.policies import NO_CALL, TAPE_OVER
from muxsim.compat.reward_kit.records import DatasetRow, MCPSession, MCPToolCall
from muxsim.compat.reward_kit.renamed import renamed
from muxsim.errors import MuxsimError
from muxsim.rollouts.data.rows import SEED_ADVICE, SEED_LIMIT
from muxsim.rollouts.environments.environment import Environment, EnvironmentPool, Opened
from muxsim.rollouts.play.detached import Detached

Formatter = Callable[[str, Any, dict[str, Any]], Any]
"""Makes a user prompt, text or parts of a chat message, of template, observation and context."""

_SYSTEM: Final = "You are an AI agent interacting with an environment via available tools."
_TEMPLATE: Final = "Current observation: {observation}. Use available tools to interact with the environment."
_NOTHING_TO_SEE: Final = "Use available tools to interact with the environment."


def load_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file. Raises ValueError: a line is no JSON object; its number is named."""
    rows = []
    with Path(path).open(encoding="utf-8-sig") as lines:  # a text may have what `str.splitlines` takes for an end
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ValueError(f"{path}, line {number} is no JSON: {error}") from None
                if not isinstance(row, dict):
                    raise ValueError(f"{path}, line {number} is no object but {row!r:.80}")
                rows.append(row)
    return rows


def make(
    env_spec: Any,
    dataset: Sequence[Any] | None = None,
    n: int | None = None,
    seeds: Sequence[int] | None = None,
    model_id: str = "unknown",
    user_prompt_formatter: Formatter | None = None,
    *,
    evaluation_rows: Sequence[Any] | None = None,
    token: str | None = None,
) -> GeneralMCPVectorEnv:
    """Environments to play, one for each row of ``dataset``, or ``n`` of them with these ``seeds``, or random ones.

    ``env_spec`` is the URL of a muxsim (``http://127.0.0.1:8000/envs/frozen_lake/mcp``), an environment of a config
    (``examples/muxsim.toml#frozen_lake``), or a pool that is open. Rows are dicts, `DatasetRow`, or eval-protocol's
    rows, which may also be given as ``evaluation_rows``. Raises ValueError for what is none of these.
    """
    renamed("make", "muxsim.connect(url) and muxsim.open_pool(config) are muxsim's own")
    place = place_of(env_spec, token)
    given = evaluation_rows if evaluation_rows is not None else dataset
    if isinstance(given, str | Path | Mapping):
        raise ValueError(f"dataset is a list of rows, not {given!r:.80}: load_jsonl(path) reads a file of them")
    rows = _numbered(n, seeds) if given is None else [_row(row, at) for at, row in enumerate(given)]
    sessions = [MCPSession(row.id, place.name, row.seed, model_id, row) for row in rows]
    return GeneralMCPVectorEnv(sessions, rows, user_prompt_formatter, place=place)


class GeneralMCPVectorEnv:
    """Several environments. `rollout` plays them; `reset` and `step` do so by hand, until `close`."""

    def __init__(
        self,
        sessions: list[MCPSession],
        dataset_rows: list[DatasetRow],
        user_prompt_formatter: Formatter | None = None,
        *,
        place: Place | None = None,
    ) -> None:
        if len(sessions) != len(dataset_rows):
            raise ValueError(f"{len(sessions)} sessions and {len(dataset_rows)} dataset rows: one for each is needed")
        self.sessions = sessions
        self.dataset_rows = dataset_rows
        self.user_prompt_formatter: Formatter = user_prompt_formatter or default_formatter
        self.n = len(sessions)
        self.tool_schemas: list[list[dict[str, Any]]] = [[] for _ in sessions]
        self.place = place or place_of(sessions[0].base_url)
        self._by_hand: _ByHand | None = None

    def __repr__(self) -> str:
        return f"<GeneralMCPVectorEnv of {self.n} at {self.place.name}>"

    async def reset(self, session: MCPSession | None = None) -> Any:
        """Begin all episodes: their observations, tools and system prompts. Of one session: observation and tools."""
        self._by_hand = self._by_hand or await _ByHand.begin(self.place)
        if session is not None:
            at = self._place_of(session)
            return await self._begin(at), self.tool_schemas[at]
        observations = await self._in_each(self._begin)
        return observations, self.tool_schemas, [row.system_prompt for row in self.dataset_rows]

    async def step(self, *given: Any) -> Any:
        """Make a call in each environment: observations, rewards, dones, infos. Or ``step(env_index, call)`` in one.

        A reward that is not known is nan. Raises `MuxsimError` for an environment that is gone.
        """
        if len(given) == 2:
            return await self._step(given[0], given[1])
        [calls] = given
        if len(calls) != self.n:
            raise ValueError(f"{self.n} calls are wanted, one for each environment, not {len(calls)}")
        made = await self._in_each(lambda at: self._step(at, calls[at]))
        return tuple(map(list, zip(*made, strict=True)))

    async def close(self) -> None:
        """End the sessions that `reset` has begun; those of a rollout have ended with it."""
        by_hand, self._by_hand = self._by_hand, None
        if by_hand is not None:
            await by_hand.end()

    def format_user_prompts(self, observations: Sequence[Any]) -> list[Any]:
        """The user prompts for these observations."""
        return [self.format_user_prompt(at, observation) for at, observation in enumerate(observations)]

    def format_user_prompt(self, env_index: int, observation: Any) -> Any:
        """The user prompt for an observation: text, or parts of a chat message where there is an image."""
        row = self.dataset_rows[env_index]
        # A formatter may take out what it has used.
        seen = dict(observation) if isinstance(observation, dict) else observation
        return self.user_prompt_formatter(row.user_prompt_template, seen, row.environment_context)

    def format_tool_response(self, obs: Any) -> str | list[dict[str, Any]]:
        """An observation as the content of a tool's message."""
        image = obs.get("image_url") if isinstance(obs, dict) else None
        words = {key: value for key, value in obs.items() if key != "image_url"} if image else obs
        text = words if isinstance(words, str) else json.dumps(words)
        return [{"type": "text", "text": text}, {"type": "image_url", "image_url": image}] if image else text

    def first_prompt(self, env_index: int, opened: Opened) -> tuple[Any, Any]:
        """The first observation, and the user prompt with it.

        Raises ValueError: the row's template asks for an observation, and the environment shows none.
        """
        row, observation = self.dataset_rows[env_index], first_observation(opened.initial_state)
        if observation is None and opened.instructions:
            observation = opened.instructions
        if observation is None:
            if row.user_prompt_template == _TEMPLATE:
                return None, _NOTHING_TO_SEE
            if "{observation" in row.user_prompt_template:
                raise ValueError(
                    f"row {row.id}: user_prompt_template asks for {{observation}}, but the environment shows none "
                    "before the first call (control://initial_state)"
                )
        return observation, self.format_user_prompt(env_index, observation)

    async def _in_each(self, do: Callable[[int], Awaitable[Any]]) -> list[Any]:
        """What comes of it in each, at once. Raises what the first has raised, when all are done."""
        made: list[Any] = [None] * self.n
        failed: dict[int, Exception] = {}

        async def one(at: int) -> None:
            try:
                made[at] = await do(at)
            except Exception as error:  # raised as it is, and not in a group of one
                failed[at] = error

        async with anyio.create_task_group() as tasks:
            for at in range(self.n):
                tasks.start_soon(one, at)
        if failed:
            raise failed[min(failed)]
        return made

    def _place_of(self, session: MCPSession) -> int:
        return next(at for at, one in enumerate(self.sessions) if one is session)

    async def _begin(self, at: int) -> Any:
        session = self.sessions[at]
        assert self._by_hand is not None
        opened = await self._by_hand.open(at, self.place.env, seed_of(session))
        self.tool_schemas[at] = schemas_of(opened)
        session.terminated = False
        session.last_observation, _ = self.first_prompt(at, opened)
        return session.last_observation

    async def _step(self, at: int, call: MCPToolCall) -> tuple[Any, float, bool, dict[str, Any]]:
        session = self.sessions[at]
        if session.terminated or call.tool_name in (NO_CALL, TAPE_OVER):
            session.terminated = True
            return session.last_observation, 0.0, True, {}
        if self._by_hand is None or at not in self._by_hand.environments:
            raise MuxsimError(f"environment {at} has not been reset")
        result = await self._by_hand.environments[at].call(call.tool_name, call.arguments)
        session.last_observation = observation_of(result.content, result.structured)
        control = result.control
        if control is None:
            return session.last_observation, UNKNOWN, False, {}
        session.terminated = control.terminated or control.truncated
        refused = result.is_error and control.problem is None
        reward = control.reward if control.reward is not None else 0.0 if refused else UNKNOWN
        return session.last_observation, reward, session.terminated, {"control_plane": control.as_metadata()}


class _ByHand:
    """A pool that stays open between the calls of a program, and the sessions in it."""

    def __init__(self, place: Place) -> None:
        self.environments: dict[int, Environment] = {}
        self._place = place
        self._pool: EnvironmentPool | None = None
        self._open = anyio.Event()
        self._enough = anyio.Event()
        self._task = Detached(self._hold)

    @classmethod
    async def begin(cls, place: Place) -> _ByHand:
        made = cls(place)
        await made._open.wait()
        if made._pool is None:
            await made._task.end()  # raises why
        return made

    async def open(self, at: int, env: str, seed: int) -> Opened:
        assert self._pool is not None
        before = self.environments.pop(at, None)
        if before is not None:
            await before.close()
        name = environment_in(self._pool, env)
        self.environments[at] = environment = await self._pool.open(name, seed)
        return environment.opened

    async def end(self) -> None:
        self._enough.set()
        await self._task.end()

    async def _hold(self) -> None:
        try:
            async with self._place.open() as self._pool:
                try:
                    self._open.set()
                    await self._enough.wait()
                finally:
                    with anyio.CancelScope(shield=True):
                        for environment in self.environments.values():
                            await environment.close()
        finally:
            self._open.set()


def environment_in(pool: EnvironmentPool, env: str) -> str:
    """The environment's name. Raises ValueError: none is named, and there are several."""
    if not env and len(pool.environments) != 1:
        names = ", ".join(pool.environments)
        raise ValueError(f"which environment? name it: …/envs/NAME/mcp, or CONFIG#NAME, with one of {names}")
    return env or pool.environments[0]


def seed_of(session: MCPSession) -> int:
    """The session's seed, drawn now if it has none. Raises ValueError: it is no seed."""
    if session.seed is None:
        session.seed = random.randrange(SEED_LIMIT)
    if isinstance(session.seed, bool) or not isinstance(session.seed, int) or not 0 <= session.seed < SEED_LIMIT:
        raise ValueError(f"session {session.session_id}: {session.seed!r} is no seed; {SEED_ADVICE}")
    return session.seed


def schemas_of(opened: Opened) -> list[dict[str, Any]]:
    """The tools as reward-kit's policies get them."""
    return [
        {"name": tool.name, "description": tool.description, "input_schema": tool.input_schema} for tool in opened.tools
    ]


def default_formatter(template: str, observation: Any, context: dict[str, Any]) -> Any:
    """reward-kit's: the template with the observation's own words, and its image behind them."""
    image = None
    shown = observation
    if isinstance(observation, dict):
        image = observation.get("image_url")
        shown = {key: value for key, value in observation.items() if key != "image_url"}
        shown = shown.get("grid_layout", shown.get("observation", shown))
    text = template.format(observation=shown, **context)
    return text if image is None else [{"type": "text", "text": text}, {"type": "image_url", "image_url": image}]


def _numbered(n: int | None, seeds: Sequence[int] | None) -> list[DatasetRow]:
    if n is None:
        raise ValueError("either dataset (or evaluation_rows) or n is needed")
    drawn = [random.randrange(SEED_LIMIT) for _ in range(n)] if seeds is None else list(seeds)
    if len(drawn) != n:
        raise ValueError(f"expected {n} seeds, got {len(drawn)}")
    renamed("make(n=, seeds=)", "give rows: dataset=[{'id': …, 'environment_context': {'seed': …}, …}]")
    return [DatasetRow(f"session_{at}", seed, _SYSTEM, _TEMPLATE) for at, seed in enumerate(drawn)]


def _row(row: Any, at: int) -> DatasetRow:
    if isinstance(row, DatasetRow):
        return row
    evaluation_row = row if hasattr(row, "input_metadata") else None
    if evaluation_row is not None:
        row = _of_evaluation(row, at)
    elif not isinstance(row, Mapping):
        raise ValueError(f"row {at} is no row but {row!r:.80}")
    missing = [key for key in ("id", "system_prompt", "user_prompt_template") if key not in row]
    if missing:
        raise ValueError(f"row {at} has no {', '.join(missing)}")
    for key in ("environment_context", "user_simulation"):
        if not isinstance(row.get(key), Mapping | None):
            raise ValueError(f"row {at}: {key} is no object but {row[key]!r:.80}")
    simulation = row.get("user_simulation")
    if simulation and simulation.get("enabled"):
        raise ValueError(f"row {at}: users are not simulated here; take user_simulation out of it")
    context = dict(row.get("environment_context") or {})
    made = DatasetRow(row["id"], context.get("seed"), row["system_prompt"], row["user_prompt_template"], context)
    made.user_simulation, made.evaluation_row = simulation, evaluation_row
    return made


def _of_evaluation(row: Any, at: int) -> dict[str, Any]:
    """A row of eval-protocol's: what is played stands in its metadata, the system prompt among its messages."""
    info = getattr(row.input_metadata, "dataset_info", None) or {}
    system = [message.content for message in row.messages if message.role == "system"]
    return {
        "id": getattr(row.input_metadata, "row_id", None) or f"task_{at}",
        "system_prompt": str(system[0] or "") if system else "",
        "user_prompt_template": info.get("user_prompt_template", ""),
        "environment_context": info.get("environment_context", {}),
        "user_simulation": info.get("user_simulation", {}),
    }
