"""What trackers are told of episodes, and that one which raises or blocks harms none of them."""

import asyncio
import logging
import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType

import anyio
import pytest
import trio
from rollout.samples import failure, trajectory
from rollout.test_runner import Decides, FakePool, calls, result, rows

from muxsim.adapters.trackers import Tracker, TrackerError, named, track
from muxsim.rollouts.data.metrics import MetricsBuilder
from muxsim.rollouts.data.run_config import RunConfig
from muxsim.rollouts.data.trajectory import Usage
from muxsim.rollouts.play.runner import rollout

LIMIT = 60


class Notes:
    """A tracker that notes its entries."""

    def __init__(self):
        self.entries = []

    def log(self, values, step):
        self.entries.append((step, values))

    def series(self, name):
        return [(step, values[name]) for step, values in self.entries if name in values]


def told(tracker, *trajectories, config=None):
    """Tell a tracker of a run."""
    tracker.config(config or {"environments": ["frozen_lake"]})
    for one in trajectories:
        tracker.started(one)
        tracker.ended(one)
    tracker.finished(MetricsBuilder(trajectories).metrics())


def test_each_episode_that_has_ended_is_an_entry_and_steps_count_up():
    notes = Notes()
    told(track(notes.log), trajectory("a", total_reward=1.0), trajectory("b", total_reward=3.0))
    assert [step for step, _ in notes.entries] == [1, 2, 2]
    assert notes.series("rollout/reward") == [(1, 1.0), (2, 3.0)]
    assert notes.series("rollout/reward_mean") == [(1, 1.0), (2, 2.0)]
    assert notes.series("rollout/end/terminated") == [(1, 1.0), (2, 2.0)]
    assert notes.series("rollout/steps") == [(1, 2.0), (2, 2.0)]
    assert notes.series("rollout/run/mean_reward") == [(2, 2.0)]


def test_what_is_not_known_is_left_out_and_never_0():
    notes = Notes()
    unscored = trajectory("b", total_reward=None, usage=Usage())
    told(track(notes.log), failure("a"), unscored, trajectory("c", total_reward=float("nan")))
    assert notes.series("rollout/reward") == notes.series("rollout/reward_mean") == []
    assert notes.series("rollout/run/mean_reward") == []
    assert notes.series("rollout/valid") == [(1, 0.0), (2, 1.0), (3, 1.0)]
    assert [step for step, _ in notes.series("rollout/steps")] == [2, 3]
    assert [step for step, _ in notes.series("rollout/tokens")] == [1, 3]
    assert all(isinstance(value, float) for _, values in notes.entries for value in values.values())


def test_rewards_of_several_environments_have_series_of_their_own_too():
    notes = Notes()
    episodes = (trajectory("a", env="ring", total_reward=5.0), trajectory("b", total_reward=1.0))
    told(track(notes), *episodes, config={"environments": ["frozen_lake", "ring"]})
    assert (notes.series("rollout/ring/reward"), notes.series("rollout/frozen_lake/reward")) == ([(1, 5.0)], [(2, 1.0)])


def test_a_prefix_is_the_users_and_names_are_such_as_trackers_take():
    notes = Notes()
    told(track(notes.log, prefix="eval/"), trajectory("a", scores={"so/so!": 1.0}))
    assert notes.series("eval/scores/so/so_") == [(1, 1.0)]


class Board:
    def __init__(self):
        self.scalars = []

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))


def test_a_writer_of_scalars_is_a_tracker():
    board = Board()
    told(track(board), trajectory("a", total_reward=1.0))
    assert ("rollout/reward", 1.0, 1) in board.scalars


def test_what_logs_nothing_is_refused():
    with pytest.raises(TrackerError, match="is no tracker"):
        track(7)
    with pytest.raises(TrackerError, match="there is no tracker comet: wandb, trackio, mlflow, tensorboard"):
        named("comet", folder=None)


@pytest.mark.parametrize(("named_by_user", "place"), [(False, "mlruns"), (True, None)])
def test_a_mlflow_without_a_database_logs_into_a_folder_unless_it_is_told_where(
    named_by_user, place, tmp_path, monkeypatch
):
    mlflow, places = ModuleType("mlflow"), []
    mlflow.__spec__ = ModuleSpec("mlflow", None)
    entries = []
    vars(mlflow).update(
        is_tracking_uri_set=lambda: named_by_user,
        set_tracking_uri=places.append,
        set_experiment=lambda name: None,
        start_run=lambda run_name: None,
        log_params=lambda values: None,
        log_metrics=lambda values, step: entries.append(step),
        end_run=lambda: None,
        active_run=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)  # it is not there
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    monkeypatch.chdir(tmp_path)
    told(named("mlflow", folder=tmp_path / "run"), trajectory("a", total_reward=1.0))
    assert places == ([] if place is None else [(tmp_path / place).as_uri()])
    assert entries == [1, 1]


def test_one_that_raises_loses_its_entries_which_is_said_once(caplog):
    def log(values, step):
        raise ValueError("no such project")

    tracker = track(log)
    with caplog.at_level(logging.WARNING):
        told(tracker, trajectory("a"), trajectory("b"))
    assert [record.getMessage() for record in caplog.records] == [
        "a tracker has lost 3 of 3 entries: ValueError: no such project"
    ]


def test_one_that_fails_for_a_while_loses_only_that(caplog):
    notes = Notes()

    def log(values, step):
        if step == 1:
            raise SystemExit(3)
        notes.log(values, step)

    with caplog.at_level(logging.WARNING):
        told(track(log), trajectory("a"), trajectory("b"))
    assert [step for step, _ in notes.entries] == [2, 2]
    assert "lost 1 of 3 entries: SystemExit: 3" in caplog.text


@pytest.mark.parametrize("raised", [asyncio.CancelledError, KeyboardInterrupt, GeneratorExit])
def test_one_that_raises_what_ends_threads_loses_only_that_entry(caplog, raised):
    steps = []

    def log(values, step):
        if step == 1:
            raise raised("two\nlines")
        steps.append(step)

    with caplog.at_level(logging.WARNING):
        told(track(log), trajectory("a"), trajectory("b"))
    assert steps == [2, 2]
    assert f"lost 1 of 3 entries: {raised.__name__}: two lines" in caplog.text


def test_a_mean_past_the_largest_number_is_left_out():
    entries = []
    told(track(lambda values, step: entries.append(values)), *(trajectory(id, total_reward=1e308) for id in "abc"))
    assert [one.get("rollout/reward_mean") for one in entries[:3]] == [1e308, None, None]


def test_one_that_cannot_be_opened_loses_all(caplog):
    def open(config):
        raise OSError("no network")

    with caplog.at_level(logging.WARNING):
        told(Tracker(open), trajectory("a"))
    assert "lost 2 of 2 entries: OSError: no network" in caplog.text


def test_one_that_blocks_is_waited_for_as_long_as_was_said_and_holds_no_more_than_its_queue(caplog):
    gate = threading.Event()
    tracker = Tracker(lambda config: lambda values, step: gate.wait(LIMIT), waiting=2, flush_seconds=0.05)
    with caplog.at_level(logging.WARNING):
        told(tracker, *(trajectory(f"a{number}") for number in range(9)))
    assert "of 10 entries: it is slower than the episodes" in caplog.text
    gate.set()


def test_a_tracker_is_opened_and_closed_in_its_own_thread_around_all_entries():
    order, threads = [], set()

    def note(word):
        order.append(word)
        threads.add(threading.current_thread().name)

    def open(config):
        note(config["policy"])
        return lambda values, step: note(step)

    told(Tracker(open, lambda summary: note("closed")), trajectory("a"), config={"policy": "mine", "environments": []})
    assert (order, threads) == (["mine", 1, 1, "closed"], {"muxsim tracker"})


async def test_a_rollout_tells_its_trackers_of_config_and_end():
    notes, configs = Notes(), []

    def open(config):
        configs.append(config)
        return notes.log

    tracker = Tracker(open)
    pool = FakePool(result(reward=1.0, terminated=True))
    with trio.fail_after(LIMIT):
        await rollout(pool, rows(0, 1), policy=Decides(), watchers=[tracker], max_steps=7)
    [config] = configs
    assert (config["environments"], config["policy"], config["options"]["max_steps"]) == (
        ["lake"],
        {"kind": "Decides"},
        7,
    )
    assert notes.series("rollout/run/episodes") == [(2, 2.0)]


async def test_a_rollout_that_is_cancelled_tells_its_trackers_too():
    notes = Notes()
    with trio.fail_after(LIMIT), trio.CancelScope() as scope:

        def cancel(conversation):
            scope.cancel()
            return calls("on")

        await rollout(FakePool(), rows(0), policy=Decides(cancel), watchers=[track(notes)])
    assert notes.series("rollout/run/episodes") == [(1, 1.0)]
    assert notes.series("rollout/reward") == []


async def test_episodes_do_not_wait_for_a_tracker_that_blocks(caplog):
    gate = threading.Event()
    tracker = track(lambda values, step: gate.wait(LIMIT), flush_seconds=0.05)
    with trio.fail_after(LIMIT), caplog.at_level(logging.WARNING):
        played = await rollout(FakePool(result(terminated=True)), rows(0, 1, 2), policy=Decides(), watchers=[tracker])
    assert [one.valid for one in played] == [True] * 3
    assert "lost" in caplog.text
    gate.set()


class Old:
    """A watcher of before there was more to be told; it has other uses for the names."""

    def __init__(self):
        self.ids = []
        self.config, self.finished = {"mine": 1}, False

    def started(self, trajectory):
        pass

    def stepped(self, trajectory):
        pass

    def ended(self, trajectory):
        self.ids.append(trajectory.id)


class Raises(Old):
    def __init__(self):
        self.ids = []

    def config(self, config):
        raise ValueError("a")

    def finished(self, metrics):
        raise ValueError("b")


@pytest.mark.parametrize("watcher", [Old(), Raises()], ids=["old", "raises"])
def test_watchers_may_lack_what_is_told_of_the_run_and_may_fail_at_it(watcher):
    pool = FakePool(result(terminated=True))

    async def play():
        with anyio.fail_after(LIMIT):
            return await rollout(pool, rows(0), policy=Decides(), watchers=[watcher])

    [played] = anyio.run(play)
    assert (played.valid, watcher.ids) == (True, ["row-0"])


class Ends(Old):
    def __init__(self):
        self.ids = []

    config = Old.started

    def finished(self, metrics):
        self.metrics = metrics


def test_a_success_is_for_a_tracker_what_it_is_for_the_run():
    watcher = Ends()
    told = RunConfig(environments=("lake",), policy={}, notes={"success_reward": 2.0})

    async def play():
        with anyio.fail_after(LIMIT):
            pool = FakePool(
                by_seed={0: [result(reward=1.0, terminated=True)], 1: [result(reward=2.0, terminated=True)]}
            )
            await rollout(pool, rows(0, 1), policy=Decides(), watchers=[watcher], config=told)

    anyio.run(play)
    assert (watcher.metrics.success_reward, watcher.metrics.success_rate) == (2.0, 0.5)
