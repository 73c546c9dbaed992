import math

import msgspec
import pytest

from muxsim.cli.progress import estimated
from muxsim.rollouts.data.metrics import Metrics, MetricsBuilder
from muxsim.rollouts.data.run_folder import RunFolder

from .samples import config, failure, trajectory


def metrics_of(*trajectories):
    return MetricsBuilder(trajectories).metrics()


def at(second, seconds, **changes):
    return trajectory(f"lake-{second}", started_at=f"2026-11-21T12:00:{second:02}+00:00", seconds=seconds, **changes)


def test_no_episodes_come_to_nothing_and_not_to_an_error():
    metrics = metrics_of()
    assert (metrics.episodes, metrics.mean_reward, metrics.steps_per_second, metrics.seconds) == (0, None, None, 0.0)
    assert msgspec.json.decode(msgspec.json.encode(metrics), type=Metrics) == metrics


def test_rewards_count_only_where_an_episode_is_valid_and_scored():
    metrics = metrics_of(
        trajectory("a", total_reward=1.0),
        trajectory("b", total_reward=0.0),
        trajectory("c", total_reward=5.0),
        trajectory("d", total_reward=None),
        trajectory("e", total_reward=math.nan),
        failure("f", total_reward=-100.0),
    )
    assert (metrics.episodes, metrics.valid, metrics.scored) == (6, 5, 3)
    assert (metrics.mean_reward, metrics.median_reward) == (2.0, 1.0)
    assert (metrics.min_reward, metrics.max_reward) == (0.0, 5.0)
    assert metrics.end_reasons == {"terminated": 5, "env_crashed": 1}


def test_steps_per_second_are_over_the_time_in_which_something_ran():
    side_by_side = metrics_of(at(0, 4.0), at(1, 2.0), at(2, 4.0))
    assert side_by_side.seconds == pytest.approx(6.0)
    assert side_by_side.steps_per_second == pytest.approx(1.0)
    after_a_pause = metrics_of(at(0, 4.0), at(30, 2.0))
    assert after_a_pause.seconds == pytest.approx(6.0)
    assert (after_a_pause.started_at, after_a_pause.ended_at) == (
        "2026-11-21T12:00:00+00:00",
        "2026-11-21T12:00:32+00:00",
    )


def test_episodes_without_a_time_are_counted_without_one():
    assert metrics_of(trajectory(started_at="")).steps_per_second is None
    assert metrics_of(trajectory(started_at="2026-11-21T12:00:00"), trajectory("b")).seconds == pytest.approx(2.0)


def test_each_environment_has_its_own_summary():
    metrics = metrics_of(trajectory("a"), trajectory("b", env="ring", total_reward=3.0), failure("c", env="ring"))
    assert list(metrics.environments) == ["frozen_lake", "ring"]
    ring = metrics.environments["ring"]
    assert (ring.episodes, ring.valid, ring.mean_reward) == (2, 1, 3.0)


def test_tokens_and_times_are_summed():
    metrics = metrics_of(trajectory("a"), trajectory("b"))
    assert (metrics.usage.prompt_tokens, metrics.usage.completion_tokens, metrics.usage.total_tokens) == (20, 10, 30)
    queue = metrics.times["queue"]
    assert (queue.total, queue.mean, queue.longest) == (1.0, 0.5, 0.5)
    assert list(metrics.times) == ["queue", "start", "handshake", "model", "throttled", "tool", "control", "close"]


def test_rows_are_told_apart_where_any_has_several_episodes_and_the_best_comes_first():
    given = [("a#0", 0.0), ("a#1", 1.0), ("b#0", 1.0), ("b#1", 1.0), ("c#0", None), ("c#1", None)]
    metrics = metrics_of(*(trajectory(id, total_reward=reward) for id, reward in given))
    assert [(row.row, row.mean_reward, row.scored, row.valid) for row in metrics.rows] == [
        ("b", 1.0, 2, 2),
        ("a", 0.5, 2, 2),
        ("c", None, 0, 2),
    ]
    assert metrics.rows[1].pass_at_k["2"].value == 1.0
    assert (metrics.pass_at_k["1"].value, metrics.pass_at_k["1"].rows, metrics.scored) == (0.75, 2, 4)
    assert metrics_of(trajectory("a"), trajectory("b")).rows == []


def test_what_a_success_is_is_the_runs_to_say(tmp_path):
    with RunFolder.create(tmp_path / "run", config(notes={"success_reward": 2.0})) as writer:
        writer.append(trajectory("a", total_reward=1.0))
        writer.append(trajectory("b", total_reward=2.0))
        written = writer.finish()
    read = RunFolder(tmp_path / "run").metrics()
    assert (written.success_rate, read.success_rate, read.success_reward) == (0.5, 0.5, 2.0)


def test_rows_that_are_alike_are_told_in_the_same_order_in_whatever_order_their_episodes_have_ended():
    episodes = [trajectory(f"{row}#{sample}", row=row, sample=sample) for row in "abc" for sample in range(2)]
    assert metrics_of(*episodes).rows == metrics_of(*reversed(episodes)).rows


def test_a_run_is_told_on_the_terminal_with_its_intervals_and_its_best_and_worst_rows():
    given = [("a#0", 0.0), ("a#1", 1.0), ("b#0", 1.0), ("b#1", 1.0)]
    metrics = metrics_of(*(trajectory(id, total_reward=reward) for id, reward in given), failure("c#0"))
    first, rows = estimated(metrics)
    assert first.startswith("mean reward 0.75 (0.5 to 1) over 4 of 5, standard deviation 0.5, success 0.75 (0.5 to 1)")
    assert first.endswith("pass@2 1 (1 to 1)")
    assert rows == "best rows: b 1, a 0.5; worst: a 0.5"


def test_rewards_whose_sum_is_past_the_largest_number_have_a_mean():
    told = MetricsBuilder(trajectory(f"a-{n}", total_reward=1e308) for n in range(4)).metrics()
    assert (told.mean_reward, told.median_reward, told.scored) == (1e308, 1e308, 4)
    assert msgspec.json.decode(msgspec.json.encode(told), type=Metrics) == told
