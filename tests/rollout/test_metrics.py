import math

import msgspec
import pytest

from muxsim.rollouts.metrics import Metrics, MetricsBuilder

from .samples import failure, trajectory


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
