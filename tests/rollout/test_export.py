import json

import pytest
from atif import Trajectory as AtifTrajectory
from PIL import Image, ImageSequence

from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.data.trajectory import EndReason
from muxsim.rollouts.view.animation import AnimationError
from muxsim.rollouts.view.export import atif, export_atif, export_chat, export_gif
from muxsim.rollouts.view.tables import ExportError, chat_rows

from .samples import TOOL, config, failure, image_block, image_part, png, step, text_block, trajectory

FRAME = png(9, 9, 9)


@pytest.fixture
def run(tmp_path):
    """Writes episodes into a run, and reads it."""

    def run(*trajectories):
        described = config(policy={"kind": "openai", "model": "small"})
        with RunFolder.create(tmp_path / "run", described) as writer:
            for one in trajectories:
                writer.append(one)
        return RunFolder(tmp_path / "run")

    return run


def flight(id="flight"):
    episode = trajectory(id, [step(0, text_block("Up."), image_block(FRAME)), step(1, reward=-0.5, terminated=True)])
    picture = {"role": "user", "content": [{"type": "text", "text": "[image 1]"}, image_part(FRAME)]}
    episode.messages.insert(4, picture)
    return episode


def document_of(run, **changes):
    episode = trajectory(**changes)
    folder = run(episode)
    document = atif(episode, folder)
    AtifTrajectory.model_validate(document)
    return document


# Chat.


def test_chat_rows_have_messages_and_tools_and_no_control_plane(run):
    (row,) = chat_rows(run(trajectory()))
    assert row["tools"] == [TOOL]
    assert [message["role"] for message in row["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
    ]
    assert "control_plane" not in json.dumps(row)
    assert "reward" not in json.dumps(row["messages"])


def test_chat_rows_tell_what_became_of_their_episode_unless_they_are_to_be_bare(run):
    folder = run(trajectory("lake#1", sample=1, scores={"format": 1.0}))
    (row,), (bare,) = chat_rows(folder), chat_rows(folder, bare=True)
    assert bare.keys() == {"messages", "tools"}
    assert {key: value for key, value in row.items() if key not in bare} == {
        "id": "lake#1",
        "row": "lake",
        "sample": 1,
        "env": "frozen_lake",
        "seed": 0,
        "reward": 1.0,
        "scores": {"format": 1.0},
        "end_reason": "terminated",
        "valid": True,
    }


GROUPS = [("a#0", 0.0), ("b#1", 0.5), ("a#2", 1.0), ("a#1", 1.0), ("b#0", None), ("c#0", -1.0), ("d#0", None)]


@pytest.mark.parametrize(
    ("selection", "ids"),
    [
        ({}, ["a#0", "b#1", "a#2", "a#1", "b#0", "c#0", "d#0"]),
        ({"min_reward": 0.5}, ["b#1", "a#2", "a#1"]),
        ({"min_reward": -5.0}, ["a#0", "b#1", "a#2", "a#1", "c#0"]),
        ({"best_of_group": True}, ["b#1", "a#1", "c#0"]),
        ({"best_of_group": True, "min_reward": 0.0}, ["b#1", "a#1"]),
        ({"min_reward": 0.0, "include_invalid": True}, ["a#0", "b#1", "a#2", "a#1", "broken#0"][:4]),
    ],
)
def test_episodes_are_selected_by_their_reward_and_as_the_best_of_their_row(run, selection, ids):
    given = [trajectory(id, sample=int(id[-1]), total_reward=reward) for id, reward in GROUPS]
    folder = run(*given, failure("broken#0"))
    assert [row["id"] for row in chat_rows(folder, **selection)] == ids


# Moving pictures.


def test_the_frames_of_an_episode_become_a_gif(run, tmp_path):
    steps = [step(0, image_block(png(255, 0, 0))), step(1), step(2, image_block(png(0, 0, 255, size=12)))]
    (file,) = export_gif(run(trajectory("a", steps), trajectory("b")), tmp_path / "out", frames_per_second=10)
    assert file == tmp_path / "out" / "a.gif"
    with Image.open(file) as picture:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(picture)]
        assert (picture.size, picture.info["loop"]) == ((12, 12), 0)
    assert [frame.getpixel((4, 4)) for frame in frames] == [(255, 0, 0), (0, 0, 255)]


def test_an_image_of_the_prompt_is_the_first_frame(run, tmp_path):
    episode = trajectory("a", [step(0, image_block(png(0, 255, 0)))])
    episode.messages[1]["content"] = [{"type": "text", "text": "look:"}, image_part(FRAME)]
    (file,) = export_gif(run(episode), tmp_path / "out")
    with Image.open(file) as picture:
        assert picture.n_frames == 2


def test_what_cannot_be_a_moving_picture_says_why(run, tmp_path):
    folder = run(trajectory("a", [step(0, image_block(png(1, 2, 3)))]))
    with pytest.raises(ExportError, match="none of these episodes has shown an image"):
        export_gif(folder, tmp_path / "out", min_reward=99.0)
    (image,) = (folder.path / "images").iterdir()
    image.write_bytes(b"no picture")
    with pytest.raises(AnimationError, match=rf"{image.name} cannot be read"):
        export_gif(folder, tmp_path / "out")


def test_failed_episodes_are_no_examples_unless_asked_for(run):
    folder = run(trajectory("a"), failure("b"))
    assert len(list(chat_rows(folder))) == 1
    assert len(list(chat_rows(folder, include_invalid=True))) == 2


def test_images_are_files_of_the_run_or_inline(run):
    folder = run(flight())
    (with_files,) = chat_rows(folder)
    (inline,) = chat_rows(folder, inline_images=True)
    assert with_files["messages"][4]["content"][1]["image_url"]["url"].startswith("images/")
    assert inline["messages"][4]["content"][1] == image_part(FRAME)


def test_chat_rows_are_written_as_json_lines(run, tmp_path):
    folder = run(trajectory("a"), trajectory("b"))
    assert export_chat(folder, tmp_path / "chat.jsonl") == 2
    lines = (tmp_path / "chat.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(chat_rows(folder))


def test_a_file_that_cannot_be_written_is_named(run, tmp_path):
    folder = run(trajectory())
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"file/chat\.jsonl could not be written: .*file is no folder"):
        export_chat(folder, tmp_path / "file" / "chat.jsonl")
    with pytest.raises(ExportError, match="could not be written"):
        export_atif(folder, tmp_path / "file")


# ATIF.


def test_each_message_is_a_step_and_results_are_observations_of_their_call(run):
    document = document_of(run)
    steps = document["steps"]
    assert [(one["step_id"], one["source"]) for one in steps] == [
        (1, "system"),
        (2, "user"),
        (3, "agent"),
        (4, "agent"),
    ]
    assert steps[0]["timestamp"] == "2026-11-21T12:00:00+00:00"
    assert steps[2]["tool_calls"] == [
        {"tool_call_id": "call_0", "function_name": "lake_move", "arguments": {"action": "RIGHT"}}
    ]
    (result,) = steps[2]["observation"]["results"]
    assert (result["source_call_id"], result["content"]) == ("call_0", "you are at 1")
    assert document["schema_version"] == "ATIF-v1.8"


def test_the_control_plane_is_in_the_extra_of_observations_and_root(run):
    document = document_of(run)
    (result,) = document["steps"][3]["observation"]["results"]
    assert result["extra"]["control_plane"]["reward"] == 1.0
    assert result["extra"]["control_plane"]["terminated"] is True
    extra = document["extra"]
    assert (extra["env"], extra["seed"], extra["end_reason"], extra["valid"]) == ("frozen_lake", 0, "terminated", True)
    assert extra["total_reward"] == 1.0


def test_the_agent_is_muxsim_with_its_policys_model_and_tools(run):
    document = document_of(run)
    agent = document["agent"]
    assert (agent["name"], agent["model_name"], agent["tool_definitions"]) == ("muxsim", "small", [TOOL])
    assert document["final_metrics"]["total_prompt_tokens"] == 10
    assert document["final_metrics"]["total_steps"] == 4
    assert document["final_metrics"]["extra"]["environment_steps"] == 2


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [
        ([-1], {"logprobs": [-1.0]}),
        # For other tokens than there are.
        ([-0.5, -1], {"extra": {"logprobs": [-0.5, -1]}}),
        ({"content": [{"token": "a", "logprob": -0.5}]}, {"logprobs": [-0.5]}),
        ({"other": 1}, {"extra": {"logprobs": {"other": 1}}}),
        (["a"], {"extra": {"logprobs": ["a"]}}),
        (None, {}),
    ],
)
def test_token_ids_and_logprobs_are_the_metrics_of_a_reply(run, logprobs, expected):
    tokens = {"prompt_token_ids": [1, 2], "token_ids": [3], "logprobs": logprobs}
    document = document_of(run, tokens=[None, tokens])
    assert "metrics" not in document["steps"][2]
    assert document["steps"][3]["metrics"] == {"prompt_token_ids": [1, 2], "completion_token_ids": [3], **expected}


def test_several_calls_of_one_reply_are_observed_together(run):
    steps = [step(0), step(1)]
    episode = trajectory(steps=steps)
    system, user, first, result, second, other = episode.messages
    first["tool_calls"] += second["tool_calls"]
    document = document_of(run, steps=steps, messages=[system, user, first, result, other])
    assert [one["source_call_id"] for one in document["steps"][2]["observation"]["results"]] == ["call_0", "call_1"]


@pytest.mark.parametrize(
    "raw", ['{"action": ', "[1]", None, pytest.param('{"a":' * 5000 + "1" + "}" * 5000, id="deep")]
)
def test_arguments_that_are_not_an_object_are_kept_as_they_came(run, raw):
    call = {"id": "c", "type": "function", "function": {"name": "lake_move", "arguments": raw}}
    reply = {"role": "assistant", "content": "Hm.", "reasoning_content": "Left?", "tool_calls": [call]}
    (only,) = document_of(run, messages=[reply])["steps"]
    assert (only["message"], only["reasoning_content"]) == ("Hm.", "Left?")
    assert only["tool_calls"] == [
        {"tool_call_id": "c", "function_name": "lake_move", "arguments": {}, "extra": {"raw_arguments": raw}}
    ]


def test_results_that_nobody_asked_for_break_nothing(run):
    stray = {"role": "tool", "tool_call_id": "unknown", "content": "boo"}
    document = document_of(run, messages=[stray, {"role": "assistant", "content": "ok"}, stray])
    assert [one["source"] for one in document["steps"]] == ["system", "agent"]
    assert document["steps"][1]["observation"]["results"] == [{"content": "boo"}]


def test_a_document_is_written_for_each_episode_with_its_images(run, tmp_path):
    files = export_atif(run(flight("../a/b"), trajectory("plain#1"), failure("c")), tmp_path / "out")
    assert [file.parent for file in files] == [tmp_path / "out"] * 2
    assert files[1].name == "plain#1.json"
    document = json.loads(files[0].read_text())
    AtifTrajectory.model_validate(document)
    (image,) = [part for part in document["steps"][3]["message"] if part["type"] == "image"]
    assert (tmp_path / "out" / image["source"]["path"]).read_bytes() == FRAME


def test_images_that_are_not_of_the_run_are_told_of_in_words(run):
    content = [
        {"type": "image_url", "image_url": {"url": "images/../../etc/passwd"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
    ]
    document = document_of(run, messages=[{"role": "user", "content": content}])
    assert isinstance(document["steps"][0]["message"], str)
    assert "https://example.org/a.png" in document["steps"][0]["message"]


def test_an_episode_whose_environment_never_started_has_no_document(run, tmp_path):
    never = failure("a", messages=[], steps=[], end_reason=EndReason.ENV_START_FAILED)
    assert export_atif(run(never, failure("b")), tmp_path / "out", include_invalid=True) == [
        tmp_path / "out" / "b.json"
    ]


@pytest.mark.parametrize("ids", [["a/b", "a%2Fb"], ["x" * 300, "x" * 299 + "y"], [".", ".."], ["ü", "u"]])
def test_file_names_of_different_episodes_differ(run, tmp_path, ids):
    files = export_atif(run(*map(trajectory, ids)), tmp_path / "out")
    assert len(set(files)) == 2
    assert all(file.parent == tmp_path / "out" for file in files)
