"""``muxsim rollout``: run episodes, show how they go on, write them down."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import signal
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import anyio
import trio

from muxsim.cli.chosen import Chosen
from muxsim.cli.console import console_of
from muxsim.cli.installing import Installing
from muxsim.cli.named_pool import NamedPool, named_pool
from muxsim.cli.options import Bounds, Kept, Model, Players, Remote, Rows, Watch
from muxsim.cli.progress import Progress, estimated
from muxsim.cli.watching import Shown, watching
from muxsim.config import find_config
from muxsim.errors import MuxsimError, raised_as_itself
from muxsim.observe.events import BackendStderr, Event, SessionEnded, SessionOpenFailed
from muxsim.rollouts.data.dataset import Dataset, Episodes, generate_dataset, load_dataset
from muxsim.rollouts.data.metrics import Metrics
from muxsim.rollouts.data.rows import Row
from muxsim.rollouts.data.run_config import RunConfig
from muxsim.rollouts.data.run_folder import RunFolder, RunWriter
from muxsim.rollouts.data.trajectory import Trajectory
from muxsim.rollouts.environments.environment import EnvironmentPool
from muxsim.rollouts.play.options import RolloutOptions
from muxsim.rollouts.play.runner import episodes
from muxsim.rollouts.policy.playback import playback_file, with_playback
from muxsim.rollouts.policy.protocol import Policy, PolicyError

_STDERR_LINES_KEPT: Final = 2000


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """What the command line asked for."""

    config: Path | None
    remote: Remote
    rows: Rows
    chosen: Chosen
    success_reward: float | None
    options: RolloutOptions
    kept: Kept
    trackers: Sequence[Any] = ()


def run(
    config: Path | None,
    remote: Remote,
    rows: Rows,
    players: Players,
    model: Model,
    bounds: Bounds,
    kept: Kept,
    watch: Watch,
) -> Metrics:
    """Run what the command line asks for. Raises `MuxsimError` for anything that stops it before its first episode."""
    if rows.dataset is None and (
        given := [name for name in ("split", "column", "limit", "shuffle") if getattr(rows, name)]
    ):
        raise MuxsimError(f"--{given[0]} goes with --dataset")
    if config is None and not remote.url:
        config = find_config(Path.cwd(), "name a config, or a serving muxsim with --url")
    chosen = Chosen.read(players, model)
    plan = RolloutPlan(
        config=config,
        remote=remote,
        rows=rows,
        chosen=chosen,
        success_reward=players.success_reward,
        options=RolloutOptions(**asdict(bounds), reward=chosen.reward_function, images=players.images),
        kept=kept,
        trackers=_trackers(watch.track or (), kept.output),
    )
    with watching(watch) as shown:
        return trio.run(_run, plan, shown)


def _trackers(names: Sequence[str], folder: Path) -> list[Any]:
    """The trackers that are to be told. Raises `MuxsimError`: one is not known, or not installed."""
    if not names:
        return []
    from muxsim.adapters.trackers import named  # noqa: PLC0415 - of who asks for one

    return [named(name, folder=folder) for name in dict.fromkeys(names)]


async def _run(plan: RolloutPlan, shown: Shown) -> Metrics:
    logs = _SessionLogs()
    kept = [plan.kept.output] if plan.kept.output else []
    console = console_of(stderr=True)
    installing = Installing(console)

    def listen(event: Event) -> None:
        logs.listen(event)
        installing.listen(event)

    async with named_pool(plan.config, plan.remote, plan.options.max_concurrent, listen, hidden=kept) as pool:
        # In a thread: whoever writes a pipe may take its time.
        dataset = await trio.to_thread.run_sync(_dataset, plan, list(pool.environments), abandon_on_cancel=True)
        policy = with_playback(plan.chosen.make_policy, playback_file())
        config = await _run_config(plan, pool, dataset)
        planned = dataset.episodes(plan.rows.rollouts_per_row)
        with _writer(plan, config, planned) as writer:
            stopped: str | None = None
            shown.begin(plan.kept.output)
            done = writer.done
            left = len(planned) - (sum(one.id in done for one in planned) if done else 0)
            with Progress(left, console, policy=policy, installing=installing) as progress:
                logs.writer = writer
                try:
                    watchers = [writer, logs, progress, *shown.watchers, *plan.trackers]
                    await _play(plan, pool, dataset, policy, watchers, config)
                except PolicyError as error:
                    stopped = str(error)
                finally:
                    summary = progress.summary()  # of a policy that has its connections
                    await _close(policy)
            metrics = writer.finish(len(planned), problem=stopped)
        for line in [summary, *estimated(metrics)]:
            console.print(line, soft_wrap=True)
        return metrics


def _writer(plan: RolloutPlan, config: RunConfig, planned: Episodes) -> RunWriter:
    if not plan.kept.resume:
        return RunFolder.create(plan.kept.output, config)
    writer = RunFolder.resume(plan.kept.output, config, episodes={episode.id for episode in planned})
    if writer.done and (unknown := writer.folder.config.not_compared(config)):
        where = f"{plan.remote.url} does not tell" if plan.remote.url else "the run does not say"
        words = f"{where} what {', '.join(unknown)} consists of: whether that has changed since is not known"
        print(f"muxsim: {words}", file=sys.stderr)
    return writer


async def _play(
    plan: RolloutPlan, pool: EnvironmentPool, dataset: Dataset, policy: Policy, watchers: list[Any], config: RunConfig
) -> None:
    writer: RunWriter = watchers[0]
    with trio.CancelScope() as whole, raised_as_itself():
        async with anyio.create_task_group() as group:
            group.start_soon(_stop_on_signal, whole)
            played = episodes(
                pool,
                dataset,
                policy=policy,
                rollouts_per_row=plan.rows.rollouts_per_row,
                watchers=watchers,
                skip=writer.done,
                options=plan.options,
                config=config,
            )
            async with aclosing(played):
                async for _ in played:  # the watchers have put it on record
                    pass
            group.cancel_scope.cancel()


async def _close(policy: Policy) -> None:
    """Close a policy that holds connections; most hold none. What it does wrong then is no harm to the run."""
    close = getattr(policy, "aclose", None)
    if close is None:
        return
    try:
        with trio.CancelScope(shield=True):
            closing = close()
            if inspect.isawaitable(closing):
                await closing
    except Exception as error:  # of the user's own
        print(f"muxsim: the policy could not be closed: {type(error).__name__}: {error}", file=sys.stderr)


async def _stop_on_signal(whole: trio.CancelScope) -> None:
    """The first signal ends the episodes under way and keeps what is there; --resume goes on."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            whole.cancel()
            return


class _SessionLogs:
    """Collects what the sessions of a local pool write on stderr, until their episode is on record.

    Of one that ends before its episode has begun nothing is kept: what failed its start has its last words already.
    """

    def __init__(self) -> None:
        self.writer: RunWriter | None = None
        self._lines: dict[str, list[str]] = {}
        self._playing: set[str] = set()

    def listen(self, event: Event) -> None:
        """A listener for the pool's events."""
        if isinstance(event, SessionEnded | SessionOpenFailed) and event.session not in self._playing:
            self._lines.pop(event.session, None)
        if isinstance(event, BackendStderr):
            lines = self._lines.setdefault(event.session, [])
            if len(lines) < _STDERR_LINES_KEPT:
                lines.append(event.line)

    def started(self, trajectory: Trajectory) -> None:
        """Keep the session's lines until its episode has ended, whenever it does."""
        self._playing.add(trajectory.session)

    def stepped(self, trajectory: Trajectory) -> None:
        """Nothing yet."""

    def ended(self, trajectory: Trajectory) -> None:
        """Write the session's lines, if it wrote any."""
        self._playing.discard(trajectory.session)
        lines = self._lines.pop(trajectory.session, None)
        if lines and self.writer is not None:
            self.writer.write_stderr(trajectory.session, lines)


def _dataset(plan: RolloutPlan, names: list[str]) -> Dataset:
    rows = plan.rows
    if rows.dataset is not None:
        read = load_dataset(
            rows.dataset,
            base_seed=rows.seed,
            split=rows.split,
            limit=rows.limit,
            shuffle=rows.seed if rows.shuffle else None,
            columns=rows.columns(),
        )
        return read.with_environments(names, rows.env)
    envs = [rows.env] if rows.env else names
    return generate_dataset(rows.rollouts, envs=envs, first_seed=rows.seed).with_environments(names)


async def _run_config(plan: RolloutPlan, pool: NamedPool, dataset: Dataset) -> RunConfig:
    reward = plan.chosen.describe_reward()
    options = asdict(replace(plan.options, reward=None))
    del options["reward"]
    if options["images"]:  # as it always was, and so as of the reward
        del options["images"]
    if reward:  # where there is none, a run is what it was before there could be one
        options["reward"] = reward
    concurrent = options.pop("max_concurrent")
    options |= plan.rows.selection()
    return RunConfig(
        environments=tuple(sorted({row.env for row in dataset.rows})),
        policy=plan.chosen.describe_policy(),
        dataset=plan.rows.dataset or "",
        dataset_sha256=_identity(plan, dataset),
        rollouts_per_row=plan.rows.rollouts_per_row,
        config="" if plan.config is None else str(plan.config),
        config_sha256=_hash(plan.config),
        url=plan.remote.url or "",
        parts=await _parts(pool, dataset) | plan.chosen.parts(),
        options=options,
        notes={
            "rollouts": len(dataset),
            "max_concurrent": concurrent,
            "transport": plan.remote.transport if plan.remote.url else "local",
            "success_reward": plan.success_reward,
        },
    )


def _identity(plan: RolloutPlan, dataset: Dataset) -> str:
    """The hash of the rows; of generated ones that of the first of each environment, from which the others follow."""
    if plan.rows.dataset is not None:
        return dataset.sha256
    firsts: dict[str, Row] = {}
    for row in dataset.rows:
        firsts.setdefault(row.env, row)
    return Dataset(tuple(firsts[env] for env in sorted(firsts))).sha256


async def _parts(pool: NamedPool, dataset: Dataset) -> dict[str, dict[str, str]]:
    """What the environments consist of, as far as that is told."""
    told = {env: await pool.parts(env) for env in sorted({row.env for row in dataset.rows})}
    return {env: parts for env, parts in told.items() if parts}


def _hash(path: Path | None) -> str:
    if path is None:
        return ""
    with contextlib.suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""
