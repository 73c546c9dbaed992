import fcntl
import json
import os
import resource
from contextlib import contextmanager

import pytest

from muxsim.rollouts.data.row_file import RunError
from muxsim.rollouts.data.run_folder import RunFolder, RunWriter
from muxsim.rollouts.data.trajectory import EndReason

from .samples import config, failure, image_block, image_part, png, step, trajectory

FRAME = png(1, 2, 3)


def ids(rows):
    return [row.id for row in rows]


def flight(id="flight"):
    """An episode with a picture, as the runner hands it over."""
    episode = trajectory(id, [step(0, image_block(FRAME))])
    episode.messages.append({"role": "user", "content": [image_part(FRAME)]})
    return episode


@contextmanager
def files_at_most(size):
    """The kernel refuses to let a file grow past ``size``, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_run_is_read_as_it_was_written(tmp_path):
    with RunFolder.create(tmp_path / "runs" / "one", config()) as writer:
        assert writer.append(trajectory("a"))
        assert writer.append(failure("b"))
        assert repr(writer) == f"<RunWriter {tmp_path}/runs/one: 2 episodes, 0 lost>"
    folder = RunFolder(tmp_path / "runs" / "one")
    assert list(folder.trajectories()) == [trajectory("a"), failure("b")]
    assert list(folder.failures()) == [failure("b")]
    assert folder.config.policy == {"kind": "random"}
    assert repr(folder) == f"RunFolder('{tmp_path}/runs/one')"


def test_the_config_is_there_before_the_first_episode(tmp_path):
    with RunFolder.create(tmp_path, config(options={"max_steps": 7})):
        written = json.loads((tmp_path / "config.json").read_text())
    assert written["options"] == {"max_steps": 7}
    assert written["muxsim"]
    assert written["started_at"]


def test_an_episode_is_in_its_file_as_soon_as_it_is_on_record(tmp_path):
    with RunFolder.create(tmp_path, config(), fsync=True) as writer:
        for count in range(1, 4):
            writer.ended(trajectory(f"a{count}"))
            assert len((tmp_path / "rollouts.jsonl").read_text().splitlines()) == count


def test_images_become_files_and_rows_refer_to_them(tmp_path):
    episode = flight()
    with RunFolder.create(tmp_path, config()) as writer:
        writer.append(episode)
        (row,) = writer.folder.trajectories()
        assert writer.stored(episode.steps[0].content) == row.steps[0].content
    (image,) = (tmp_path / "images").iterdir()
    assert image.read_bytes() == FRAME
    assert row.steps[0].content == [{"type": "image", "mimeType": "image/png", "path": f"images/{image.name}"}]
    assert row.messages[-1]["content"][0]["image_url"] == {"url": f"images/{image.name}"}
    assert RunFolder(tmp_path).with_images(row.messages) == episode.messages
    assert RunFolder(tmp_path).with_images(row.steps[0].content) == [image_block(FRAME)]


def test_the_trajectory_of_the_run_keeps_its_images(tmp_path):
    episode = flight()
    with RunFolder.create(tmp_path, config()) as writer:
        writer.append(episode)
    assert episode == flight()


def test_what_a_session_wrote_on_stderr_is_kept_by_its_name(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        writer.ended(failure("b"))
        writer.write_stderr("../../evil", ["x"])
    folder = RunFolder(tmp_path)
    assert folder.stderr("session-b").splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert folder.stderr("unknown") == ""
    assert sorted(path.name for path in (tmp_path / "env_logs").iterdir()) == [
        ".._.._evil.stderr",
        "session-b.stderr",
    ]


def test_metrics_are_written_at_the_end_and_counted_from_the_rows(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        writer.append(trajectory("a"))
        writer.append(failure("b"))
        assert not writer.folder.metrics().complete
        metrics = writer.finish(planned=2)
    assert (metrics.complete, metrics.planned, metrics.episodes, metrics.valid) == (True, 2, 2, 1)
    assert RunFolder(tmp_path).metrics() == metrics
    assert json.loads((tmp_path / "metrics.json").read_text())["mean_reward"] == 1.0


def test_a_run_with_episodes_missing_is_not_complete(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        writer.append(trajectory("a"))
        assert not writer.finish(planned=2).complete
    assert not RunFolder(tmp_path).metrics().complete


# Going on.


def test_what_is_on_record_need_not_be_played_again(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        writer.append(trajectory("a"))
        writer.finish(planned=3)
    with RunFolder.resume(tmp_path, config()) as writer:
        assert writer.done == {"a"}
        assert not (tmp_path / "metrics.json").exists()
        writer.append(trajectory("b"))
        assert writer.finish(planned=2).complete
    assert ids(RunFolder(tmp_path).trajectories()) == ["a", "b"]
    assert RunFolder(tmp_path).metrics().episodes == 2


def test_episodes_that_the_machinery_broke_are_played_again_and_stay_on_record_as_failures(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        for row in (failure("a"), trajectory("b"), failure("c")):
            writer.append(row)
    with RunFolder.resume(tmp_path, config()) as writer:
        assert writer.done == {"b"}
        writer.append(trajectory("a"))
        writer.append(failure("c", end_reason=EndReason.TOOL_TIMEOUT))
        metrics = writer.finish(planned=3)
    assert ids(RunFolder(tmp_path).trajectories()) == ["b", "a", "c"]
    assert [row.end_reason.value for row in RunFolder(tmp_path).failures()] == [
        "env_crashed",
        "env_crashed",
        "tool_timeout",
    ]
    assert (metrics.valid, metrics.end_reasons) == (2, {"terminated": 2, "tool_timeout": 1})


@pytest.mark.parametrize("torn", [b'{"id": "c", "row', b'{"id": "c"}', b"\xff\x00"])
def test_a_torn_last_line_is_overlooked_and_gone_when_the_run_goes_on(tmp_path, torn):
    with RunFolder.create(tmp_path, config()) as writer:
        writer.append(trajectory("a"))
        writer.append(failure("b"))
    for name in ("rollouts.jsonl", "failures.jsonl"):
        with (tmp_path / name).open("ab") as file:
            file.write(torn)
    assert ids(RunFolder(tmp_path).trajectories()) == ["a", "b"]
    with RunFolder.resume(tmp_path, config()) as writer:
        writer.append(trajectory("c"))
        writer.append(failure("b"))
    assert ids(RunFolder(tmp_path).trajectories()) == ["a", "c", "b"]
    assert ids(RunFolder(tmp_path).failures()) == ["b", "b"]


def test_what_a_longer_run_has_on_record_stays_when_fewer_episodes_are_asked_for(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        for one in (trajectory("a"), failure("b"), failure("c")):
            writer.append(one)
    with RunFolder.resume(tmp_path, config(), episodes={"a", "b"}) as writer:
        assert writer.done == {"a", "c"}
        writer.append(trajectory("b"))
        metrics = writer.finish(2)
    assert ids(RunFolder(tmp_path).trajectories()) == ["a", "c", "b"]
    assert (metrics.episodes, metrics.valid) == (3, 2)


def test_rows_that_stay_are_not_written_anew(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        writer.append(trajectory("a"))
        writer.append(failure("b"))
    file = tmp_path / "rollouts.jsonl"
    first, second = file.read_bytes().splitlines(keepends=True)
    from_a_later_version = first.replace(b'{"id"', b'{"colour":"red","id"', 1)
    file.write_bytes(from_a_later_version + second)
    with RunFolder.resume(tmp_path, config()):
        assert file.read_bytes() == from_a_later_version


def test_a_broken_row_within_a_run_is_named(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        writer.append(trajectory("a"))
    with (tmp_path / "rollouts.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(RunError, match=r"rollouts\.jsonl, line 2: .*missing required field"):
        list(RunFolder(tmp_path).trajectories())
    with pytest.raises(RunError, match="line 2"):
        RunFolder.resume(tmp_path, config())


def test_a_run_that_is_not_there_yet_is_started(tmp_path):
    with RunFolder.resume(tmp_path / "new", config()) as writer:
        assert writer.done == frozenset()


def test_another_run_is_not_gone_on_with(tmp_path):
    before = config(policy={"kind": "openai", "model": "small"}, options={"max_steps": 50, "call_timeout": 60.0})
    RunFolder.create(tmp_path, before).close()
    after = config(policy={"kind": "openai", "model": "large"}, options={"max_steps": 100, "call_timeout": 60.0})
    with pytest.raises(RunError) as caught:
        RunFolder.resume(tmp_path, after)
    assert str(caught.value) == (
        f"{tmp_path} is another run, resume it as it was or choose another folder: "
        'options.max_steps was 50, is 100; policy.model was "small", is "large"'
    )


def test_what_does_not_change_an_episode_may_differ(tmp_path):
    RunFolder.create(tmp_path, config(notes={"max_concurrent": 4}, dataset="a.jsonl", muxsim="0.0.1")).close()
    changed = config(notes={"max_concurrent": 64, "more": 1}, dataset="moved/a.jsonl", muxsim="9.9.9")
    with RunFolder.resume(tmp_path, changed) as writer:
        assert writer.folder.config.muxsim == "0.0.1"


def test_a_resumed_run_is_told_of_as_it_was_resumed(tmp_path):
    before = config(notes={"rollouts": 1, "success_reward": 0.5, "transport": "http"})
    with RunFolder.create(tmp_path, before) as writer:
        writer.append(trajectory("a"))
        assert writer.finish(1).success_rate == 1.0
    with RunFolder.resume(tmp_path, config(notes={"rollouts": 2, "success_reward": 100.0})) as writer:
        writer.append(trajectory("b"))
        assert writer.finish(2).success_rate == 0.0
    read = RunFolder(tmp_path)
    assert (read.config.planned, read.config.notes["transport"], read.metrics().success_rate) == (2, "http", 0.0)
    assert read.config.started_at == before.started_at
    with RunFolder.resume(tmp_path, config(notes={"rollouts": 3, "success_reward": None})) as writer:
        assert (writer.finish(3).success_reward, RunFolder(tmp_path).config.planned) == (100.0, 3)


def test_a_run_that_is_resumed_with_other_notes_is_written_by_one_process_all_the_same(tmp_path):
    RunFolder.create(tmp_path, config(notes={"rollouts": 1})).close()
    before = os.open(tmp_path / "config.json", os.O_RDONLY)  # as a process that waits for its turn has it
    try:
        with RunFolder.resume(tmp_path, config(notes={"rollouts": 2})):
            assert RunFolder(tmp_path).is_being_written()
            with pytest.raises(RunError, match="written by another process"):
                RunFolder.resume(tmp_path, config(notes={"rollouts": 3}))
            with pytest.raises(BlockingIOError):
                fcntl.flock(before, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(before)
    assert RunFolder(tmp_path).config.planned == 2


# Folders that cannot be used.


def test_a_run_is_never_written_over(tmp_path):
    RunFolder.create(tmp_path, config()).close()
    with pytest.raises(RunError, match=r"holds a run: go on with it \(--resume\), or choose another folder"):
        RunFolder.create(tmp_path, config())


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunError, match="is not empty"):
        RunFolder.create(tmp_path, config())
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize(
    ("content", "message"), [(None, "holds no run"), ("{", "cannot be read"), ("{}", "missing required field")]
)
def test_a_folder_without_a_run_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match=message):
        RunFolder(tmp_path)


def test_a_file_is_no_run_either(tmp_path):
    (tmp_path / "rows.csv").write_text("")
    with pytest.raises(RunError, match=r"rows\.csv holds no run"):
        RunFolder(tmp_path / "rows.csv")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="a run cannot be started there"):
        RunFolder.create(tmp_path / "file" / "run", config())


def test_two_processes_cannot_write_one_run(tmp_path):
    with RunFolder.create(tmp_path, config()), pytest.raises(RunError, match="is being written by another process"):
        RunFolder.resume(tmp_path, config())
    RunFolder.resume(tmp_path, config()).close()


def test_an_episode_is_put_on_record_once(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        writer.append(trajectory("a"))
        with pytest.raises(ValueError, match="on record already"):
            writer.append(trajectory("a"))


def test_closing_twice_is_harmless(tmp_path):
    writer = RunFolder.create(tmp_path, config())
    writer.close()
    writer.close()
    assert isinstance(writer, RunWriter)


# A disk that is full.


def test_an_episode_that_cannot_be_written_is_counted_and_the_run_goes_on(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        assert writer.append(trajectory("a"))
        size = (tmp_path / "rollouts.jsonl").stat().st_size
        with files_at_most(size + 100):  # room for the beginning of a row
            assert not writer.append(trajectory("b"))
        assert (tmp_path / "rollouts.jsonl").stat().st_size == size
        assert writer.append(trajectory("c"))
        metrics = writer.finish(planned=3)
    assert (metrics.complete, metrics.lost, metrics.episodes) == (False, 1, 2)
    assert metrics.problem == "b could not be written: [Errno 27] File too large"
    assert RunFolder(tmp_path).metrics() == metrics
    with RunFolder.resume(tmp_path, config()) as writer:
        assert writer.done == {"a", "c"}


def test_an_image_that_cannot_be_stored_leaves_no_half_file(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        with files_at_most(20):
            assert not writer.append(flight("a"))
        assert list((tmp_path / "images").iterdir()) == []
        assert writer.append(flight("a"))
        assert writer.lost == 1


def test_metrics_that_cannot_be_written_are_still_returned_as_incomplete(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        writer.append(trajectory("a"))
        with files_at_most(10):
            metrics = writer.finish(planned=1)
    assert not metrics.complete
    assert "metrics.json could not be written" in metrics.problem
    assert not (tmp_path / "metrics.json").exists()


def test_stderr_that_cannot_be_written_is_a_problem_and_not_an_error(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        (tmp_path / "env_logs").write_text("in the way")
        writer.ended(failure("b"))
        assert "stderr of session session-b could not be written" in writer.problem
        assert writer.finish(planned=1).lost == 0


def test_an_environment_that_has_changed_is_another_run_and_says_what_has(tmp_path):
    before = {"script.py": "1", "maze.py": "1", "old.py": "1", "package gymnasium": "1.1"}
    now = {"script.py": "1", "maze.py": "2", "new.py": "1", "package gymnasium": "1.2"}
    RunFolder.create(tmp_path, config(parts={"lake": before})).close()
    with pytest.raises(RunError) as caught:
        RunFolder.resume(tmp_path, config(parts={"lake": now}))
    for words in (
        "lake: maze.py has changed",
        "lake: new.py is new",
        "lake: old.py is not there any more",
        "lake: package gymnasium was 1.1, is 1.2",
    ):
        assert words in str(caught.value)
    RunFolder.resume(tmp_path, config()).close()


def test_tokens_of_tries_that_were_played_again_are_counted(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        writer.append(trajectory("a"))
        writer.append(failure("b"))
        assert writer.finish(2).usage.total_tokens == 30
    assert RunFolder(tmp_path).metrics().usage.total_tokens == 30
    with RunFolder.resume(tmp_path, config()) as writer:
        writer.append(trajectory("b"))
        assert writer.finish(2).usage.total_tokens == 45
    assert RunFolder(tmp_path).metrics().usage.total_tokens == 45


def test_tokens_of_a_failure_that_stays_on_record_are_counted_once(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        for one in (trajectory("a"), failure("b"), failure("c")):
            writer.append(one)
    with RunFolder.resume(tmp_path, config(), episodes={"a", "b"}) as writer:  # c stays: it failed in a longer run
        writer.append(trajectory("b"))
        assert writer.finish(2).usage.total_tokens == 60
    assert RunFolder(tmp_path).metrics().usage.total_tokens == 60


def test_a_run_with_more_episodes_than_were_asked_for_is_complete(tmp_path):
    with RunFolder.create(tmp_path, config()) as writer:
        writer.append(trajectory("a"))
        writer.append(trajectory("b"))
        assert writer.finish(1).complete
