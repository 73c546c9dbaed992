"""Runs that are looked at while they are written."""

import base64

import pytest

from muxsim.rollouts.data.run_folder import RunError, RunFolder
from muxsim.rollouts.view import following
from muxsim.rollouts.view.following import FollowedRun
from muxsim.rollouts.view.playing import Playing

from .samples import config, failure, image_block, png, step, trajectory


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def ids(news):
    return [one["id"] for one in news.episodes]


def test_each_episode_is_told_once_and_what_the_run_comes_to_with_it(folder):
    with RunFolder.create(folder, config(notes={"rollouts": 3})) as writer:
        run = FollowedRun("1", folder)
        first = run.news()
        assert (ids(first), first.state, first.metrics.planned) == ([], "running", 3)
        writer.append(trajectory("a"))
        writer.append(failure("b"))
        second = run.news(first.mark)
        assert (second.first, ids(second), second.metrics.valid) == (0, ["a", "b"], 1)
        third = run.news(second.mark)
        assert (third.first, ids(third), third.metrics) == (2, [], None)
        writer.append(trajectory("c"))
        assert ids(run.news(second.mark)) == ["c"]
        writer.finish(3)
    last = run.news(third.mark)
    assert (last.state, last.metrics.episodes) == ("complete", 3)
    assert ids(run.news()) == ["a", "b", "c"]


def test_a_run_whose_process_is_gone_is_incomplete_and_one_that_is_written_is_not(folder):
    with RunFolder.create(folder, config()) as writer:
        writer.append(trajectory("a"))
        other = FollowedRun("1", folder)
        assert other.news().state == "running"
    assert other.news().state == "incomplete"


def test_looking_whether_a_run_is_written_never_keeps_anybody_from_writing_it(folder, monkeypatch):
    RunFolder.create(folder, config()).close()
    looking = RunFolder(folder)
    assert not looking.is_being_written()
    with RunFolder.resume(folder, config()) as writer:
        assert looking.is_being_written()
        with pytest.raises(RunError, match="written by another process"):
            RunFolder.resume(folder, config())
        writer.append(trajectory("a"))


def test_a_row_that_is_being_written_is_told_when_it_is_whole(folder):
    with RunFolder.create(folder, config()) as writer:
        writer.append(trajectory("a"))
    rows = folder / "rollouts.jsonl"
    row = rows.read_bytes()
    rows.write_bytes(row[:-20])
    run = FollowedRun("1", folder)
    assert ids(run.news()) == []
    with rows.open("ab") as file:
        file.write(row[-20:])
    assert ids(run.news()) == ["a"]


def test_a_resumed_run_is_told_anew(folder):
    with RunFolder.create(folder, config()) as writer:
        for one in (trajectory("a"), failure("b")):
            writer.append(one)
    run = FollowedRun("1", folder)
    known = run.news()
    with RunFolder.resume(folder, config()) as writer:
        writer.append(trajectory("b"))
        again = run.news(known.mark)
    assert (again.first, ids(again)) == (0, ["a", "b"])
    assert run.episode("b")["valid"] is True


def test_tokens_of_tries_that_were_played_again_are_counted_once(folder):
    with RunFolder.create(folder, config()) as writer:
        for one in (trajectory("a"), failure("b")):
            writer.append(one)
    early = FollowedRun("1", folder)
    assert early.news().metrics.usage.total_tokens == 30
    with RunFolder.resume(folder, config()) as writer:
        writer.append(trajectory("b"))
        for run in (early, FollowedRun("2", folder)):
            assert run.news().metrics.usage.total_tokens == 45
        assert writer.finish(2).usage.total_tokens == 45


def test_a_run_that_is_resumed_as_a_longer_one_is_told_as_that(folder):
    with RunFolder.create(folder, config(notes={"rollouts": 1, "success_reward": 0.5})) as writer:
        writer.append(trajectory("a"))
    run = FollowedRun("1", folder)
    known = run.news()
    assert (known.metrics.planned, known.metrics.success_rate) == (1, 1.0)
    with RunFolder.resume(folder, config(notes={"rollouts": 2, "success_reward": 100.0})):
        again = run.news(known.mark)
    assert (ids(again), again.metrics.planned, again.metrics.success_rate) == (["a"], 2, 0.0)


def test_a_broken_row_is_a_problem_that_is_told_and_what_stands_before_it_is_shown(folder):
    with RunFolder.create(folder, config()) as writer:
        writer.append(trajectory("a"))
    with (folder / "rollouts.jsonl").open("ab") as file:
        file.write(b'{"id": 5}\n')
    news = FollowedRun("1", folder).news()
    assert ids(news) == ["a"]
    assert "rollouts.jsonl, line 2" in news.metrics.problem
    assert news.state == "incomplete"


def test_a_large_run_comes_in_parts(folder, monkeypatch):
    monkeypatch.setattr(following, "_READ_AT_ONCE", 1)
    monkeypatch.setattr(following, "_TOLD_AT_ONCE", 2)
    with RunFolder.create(folder, config()) as writer:
        for number in range(5):
            writer.append(trajectory(f"e{number}"))
        writer.finish(5)
    run, mark, told, more = FollowedRun("1", folder), "", [], True
    while more:
        news = run.news(mark)
        told += ids(news)
        mark, more = news.mark, news.more
    assert told == [f"e{number}" for number in range(5)]
    assert news.state == "complete"


@pytest.mark.parametrize("mark", ["", "x", "1.2", "0.-1.0", "9.9.9", "0.99.0", "²..", "0.0.0.0"])
def test_a_mark_that_is_none_of_this_run_gets_what_there_is(folder, mark):
    with RunFolder.create(folder, config()) as writer:
        writer.append(trajectory("a"))
    run = FollowedRun("1", folder)
    assert len(run.news(mark).episodes) in (0, 1)
    assert ids(run.news("7.1.1")) == ["a"]


def test_an_episode_is_read_whole_and_one_that_is_not_there_is_none(folder):
    with RunFolder.create(folder, config()) as writer:
        writer.append(trajectory("a"))
        writer.append(trajectory("é"))
    run = FollowedRun("1", folder)
    run.news()
    assert run.episode("é")["steps"][1]["control"]["terminated"] is True
    assert run.episode("nothing") is None


def test_an_episode_under_way_is_shown_with_its_images_as_far_as_it_is(folder):
    playing = Playing()
    with RunFolder.create(folder, config()) as writer:
        run = FollowedRun("1", folder, playing)
        frame = png(9, 9, 9)
        flight = trajectory("a", [step(0, image_block(frame), reward=0.5)])
        playing.started(flight)
        (seen,) = run.news().playing
        assert (seen["id"], seen["end"], seen["reward"], seen["steps"]) == ("a", None, 0.5, 1)
        flight.steps.append(step(1, reward=1.0))
        assert run.news().playing[0]["reward"] == 1.5
        whole = run.episode("a")
        assert whole["end_reason"] is None
        name = whole["steps"][0]["content"][0]["path"]
        assert run.image(name) == frame
        assert base64.b64encode(frame).decode() not in str(whole)
        playing.ended(flight)
        assert run.news().playing == []
        assert run.episode("a") is None
        writer.append(flight)
        run.news()
        assert run.image(name) == frame
    assert run.image("images/../config.json") is None


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        FollowedRun("1", tmp_path)
