"""`rollout` and `test_mcp`: muxsim's own rollouts, with what reward-kit's programs give and get."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from muxsim.compat.reward_kit.asking import Asker
from muxsim.compat.reward_kit.envs import GeneralMCPVectorEnv, environment_in, make, schemas_of, seed_of
from muxsim.compat.reward_kit.outcomes import ended_by_environment, log_entry, old_messages, outcome_of
from muxsim.compat.reward_kit.records import Trajectory
from muxsim.compat.reward_kit.renamed import renamed
from muxsim.compat.reward_kit.tape import is_recorded, named_file, save
from muxsim.rollouts.data.trajectory import Trajectory as Played
from muxsim.rollouts.environments.environment import Environment, EnvironmentPool
from muxsim.rollouts.play.options import RolloutOptions
from muxsim.rollouts.play.runner import rollout as play
from muxsim.rollouts.policy.playback import current_episode
from muxsim.rollouts.policy.random import RandomPolicy

_MOST_AT_ONCE: Final = 32
_TEST_STEPS: Final = 10


async def rollout(
    envs: GeneralMCPVectorEnv | str,
    policy: Any,
    steps: int = 512,
    openai_format_log_file: str | Path | None = None,
    *,
    evaluation_rows: Sequence[Any] | None = None,
    dataset: Sequence[Any] | None = None,
    model_id: str | None = None,
    max_concurrent_rollouts: int | None = None,
) -> list[Trajectory]:
    """Play each environment once, with at most ``steps`` calls; trajectories in their order.

    ``envs`` may also be what `make` takes, with ``dataset`` or ``evaluation_rows``. ``policy`` is one of this package,
    one of muxsim's, or a callable in one of reward-kit's two forms (`policies.PlaybackPolicyBase`).

    ``EP_PLAYBACK_FILE`` (or ``REWARD_KIT_PLAYBACK_FILE``) names a recording: of a file that is not there yet one is
    made, each episode when it is over. ``openai_format_log_file`` begins anew, and has a line for each episode that its
    environment has ended.

    An episode that fails harms no other: its trajectory has ``valid`` False and an ``error``. Sessions end with their
    episodes, and a policy that holds connections is closed. Raises ValueError for rows that cannot be played.
    """
    renamed("rollout", "muxsim.rollout(pool, dataset, policy=…) is muxsim's own")
    if not isinstance(envs, GeneralMCPVectorEnv):
        if dataset is None and evaluation_rows is None:
            raise ValueError("either dataset or evaluation_rows is needed where envs is a URL or a config")
        name = str(model_id or getattr(policy, "model_id", "unknown"))
        envs = make(envs, dataset, model_id=name, evaluation_rows=evaluation_rows)
    run = _Run(envs, policy, openai_format_log_file)
    try:
        return await run.play(steps, max_concurrent_rollouts)
    finally:
        close = getattr(policy, "aclose", None)
        if close is not None:
            closing = close()
            if inspect.isawaitable(closing):
                await closing


async def test_mcp(base_url: Any, seeds: Sequence[int]) -> dict[str, Any]:
    """Play a few random calls with each seed: ``{"total_tests", "successful", "failed", "results": [...]}``."""
    renamed("test_mcp", "`muxsim check ENV` finds more")
    results = []
    for seed in seeds:
        try:
            envs = make(base_url, n=1, seeds=[seed], model_id="test-model")
            [played] = await rollout(envs, RandomPolicy(), steps=_TEST_STEPS)
        except Exception as error:  # of one seed, as the result says
            results.append({"seed": seed, "status": "failed", "error": str(error)})
            continue
        if played.valid and played.steps:
            earned = {"steps": played.steps, "total_reward": played.total_reward}
            results.append({"seed": seed, "status": "success", **earned})
        else:
            results.append({"seed": seed, "status": "failed", "error": played.error or "empty_trajectory"})
    counts = Counter(result["status"] for result in results)
    return {
        "total_tests": len(results),
        "successful": counts["success"],
        "failed": counts["failed"],
        "results": results,
    }


# Else pytest takes it for a test of whoever imports it.
vars(test_mcp)["__test__"] = False


class _Run:
    """One rollout: a pool of its own, and a watcher that writes down what is over."""

    def __init__(self, envs: GeneralMCPVectorEnv, policy: Any, log_file: str | Path | None) -> None:
        self._envs = envs
        self._asker = Asker(policy, envs.n, envs.format_user_prompt)
        self._prompts = _Prompts(envs, self._asker.begin)
        self._log = None if log_file is None else Path(log_file)
        tape = named_file()
        is_playback = getattr(policy, "is_playback_mode", bool)()
        self._tape = None if is_playback or tape is None or is_recorded(tape) else tape
        self._places: dict[str, int] = {}
        self._made: dict[int, Trajectory] = {}

    async def play(self, steps: int, most: int | None) -> list[Trajectory]:
        """Play them all."""
        envs = self._envs
        if self._log is not None:
            self._log.write_text("", encoding="utf-8")
        if not envs.n:
            return []
        together = envs.n if self._asker.form.name == "ALL" else most or min(envs.n, _MOST_AT_ONCE)
        options = RolloutOptions(max_steps=steps, max_concurrent=together)
        if self._asker.form.name == "ALL":  # who waits for room holds up all others, which wait for them
            options = replace(options, start_tries=1)
        async with envs.place.open() as pool:
            rows = self._rows(environment_in(pool, envs.place.env))
            self._places = {row["id"]: at for at, row in enumerate(rows)}
            self._prompts.pool = pool
            await play(self._prompts, rows, policy=self._asker, watchers=[self], options=options)
        if self._prompts.fault is not None:
            raise self._prompts.fault
        return [self._made[at] for at in range(envs.n)]

    def _rows(self, env: str) -> list[dict[str, Any]]:
        """Rows of muxsim's. Their ids are those of the script's rows, as far as they differ."""
        ids = Counter(session.session_id for session in self._envs.sessions)
        pairs = zip(self._envs.sessions, self._envs.dataset_rows, strict=True)
        return [
            {
                "id": session.session_id if ids[session.session_id] == 1 else f"{session.session_id}-{at}",
                "env": env,
                "seed": seed_of(session),
                "system_prompt": row.system_prompt,
            }
            for at, (session, row) in enumerate(pairs)
        ]

    def started(self, trajectory: Played) -> None:
        """Nothing is written of it yet."""

    def stepped(self, trajectory: Played) -> None:
        """Tell the policy what its call has come to."""
        self._asker.stepped(self._places[trajectory.row], trajectory, recording=self._tape is not None)

    def ended(self, trajectory: Played) -> None:
        """Write an episode down that is over."""
        at = self._places[trajectory.row]
        session = self._envs.sessions[at]
        self._asker.ended(at, trajectory)
        tape_over = at in self._asker.tape_over
        made = self._made[at] = outcome_of(session, self._prompts.firsts.get(at), trajectory, tape_over=tape_over)
        made.tools = self._envs.tool_schemas[at]
        session.terminated, session.last_observation = made.terminated, made.observations[-1]
        if self._log is not None and ended_by_environment(trajectory):
            with self._log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(log_entry(made)) + "\n")
        if self._tape is not None and trajectory.valid and not self._asker.writes_itself:
            save(self._tape, at, old_messages(trajectory))


class _Prompts:
    """A pool whose environments begin with the prompts that the script's own formatter makes."""

    def __init__(self, envs: GeneralMCPVectorEnv, begin: Callable[[int, Any], None]) -> None:
        self.pool: EnvironmentPool | None = None
        self.firsts: dict[int, Any] = {}
        self.fault: Exception | None = None
        self._envs = envs
        self._begin = begin

    @property
    def environments(self) -> tuple[str, ...]:
        """Those of the pool."""
        assert self.pool is not None
        return self.pool.environments

    async def open(self, env: str, seed: int, *, start_timeout: float | None = None) -> Environment:
        """Open a session, and fill in the row's template."""
        assert self.pool is not None
        environment = await self.pool.open(env, seed, start_timeout=start_timeout)
        episode = current_episode.get()
        assert episode is not None
        at = episode.index
        try:
            self.firsts[at], prompt = self._envs.first_prompt(at, environment.opened)
            shown = {"observation": _as_content(prompt)}
        except Exception as error:  # the script's own: its caller is told, when the others are over
            self.fault = self.fault or error
            await environment.close()
            raise
        self._envs.tool_schemas[at] = schemas_of(environment.opened)
        self._begin(at, self.firsts[at])
        environment.opened = replace(environment.opened, initial_state=shown)
        return environment


def _as_content(prompt: Any) -> Any:
    """A prompt as an observation that fills muxsim's own template: chat parts as content blocks."""
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list):
        raise ValueError(f"a user prompt is text or a list of parts, not {prompt!r:.80}")
    return [_block(part) for part in prompt]


def _block(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") == "text":
        return {"type": "text", "text": part["text"]}
    url = str(part.get("image_url", {}).get("url", ""))
    head, comma, data = url.partition(";base64,")
    if not (comma and head.startswith("data:image/")):
        raise ValueError(f"a part of a user prompt is text or an image as a data URL, not {part!r:.80}")
    return {"type": "image", "mimeType": head.removeprefix("data:"), "data": data}
