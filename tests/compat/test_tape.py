"""Recordings, of muxsim's making and of reward-kit's."""

import json

import pytest

import muxsim.compat.reward_kit as rk
from muxsim.compat.reward_kit.tape import load, save
from muxsim.rollouts.policy.playback import PlaybackError

from .walks import Walks, rows

pytestmark = pytest.mark.filterwarnings("ignore:.*reward-kit:DeprecationWarning")

OLD, NEW = "REWARD_KIT_PLAYBACK_FILE", "EP_PLAYBACK_FILE"


@pytest.fixture(params=[OLD, NEW])
def tape(request, monkeypatch, tmp_path):
    for name in (OLD, NEW):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "tape.jsonl"
    monkeypatch.setenv(request.param, str(file))
    return file


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def said(*actions):
    calls = [
        {"id": f"c{at}", "type": "function", "function": {"name": "go", "arguments": json.dumps({"action": action})}}
        for at, action in enumerate(actions)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(at=0):
    return {"role": "tool", "tool_call_id": f"c{at}", "content": "{}", "metadata": {"reward": 1.0}}


PROMPT = [{"role": "system", "content": "Walk."}, {"role": "user", "content": "See."}]


async def play(pool, policy, steps=9):
    return await rk.rollout(rk.make(pool, dataset=rows(2)), policy=policy, steps=steps)


async def test_what_is_recorded_is_played_back_by_a_policy_without_a_model(tape, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    policy = rk.StaticPolicy("go", ["A", "B", "C"])
    assert not policy.is_playback_mode()
    recorded = await play(Walks(), policy)
    assert [(line["env_index"], line["step"]) for line in lines(tape)] == [
        *((0, 0), (0, 1), (0, 2)),
        *((1, 0), (1, 1), (1, 2), (1, 3)),
    ]
    first = lines(tape)[0]["messages"]
    assert [message["role"] for message in first] == ["system", "user", "assistant", "tool"]
    assert first[3]["metadata"]["reward"] == 1.0

    playback = rk.OpenAIPolicy("gpt-4.1-mini")
    assert playback.is_playback_mode()
    assert playback.get_playback_progress()["environments"][0] == {
        "current_step": 0,
        "total_steps": 3,
        "completed": False,
    }
    before = tape.read_text()
    again = await play(Walks(), playback)
    assert [one.actions for one in again] == [one.actions for one in recorded]
    assert [one.total_reward for one in again] == [3.0, 4.0]
    assert not playback.has_more_playback_data(0)
    assert tape.read_text() == before
    assert playback.conversation_histories[1] == again[1].conversation_history


async def test_where_the_recording_ends_the_episode_does_and_is_no_failure(tape):
    await play(Walks(), rk.StaticPolicy("go", ["A"]), steps=2)
    first, _ = await play(Walks(), rk.StaticPolicy("go", ["A"]))
    assert (first.steps, first.terminated, first.valid, first.error) == (2, True, True, None)
    assert (first.rewards, first.total_reward, first.termination_reason) == ([1.0, 1.0], 2.0, "stop")


async def test_episodes_that_fail_are_not_on_it(tape):
    await play(Walks(), rk.StaticPolicy("go", ["A", "CRASH"]))
    assert not tape.exists() or tape.read_text() == ""
    assert not rk.StaticPolicy("go").is_playback_mode()


async def test_a_recording_of_reward_kits_is_played(tape):
    turns = [[*PROMPT, said("X"), result()], [*PROMPT, said("X"), result(), said("Y"), result()]]
    tape.write_text(
        "".join(json.dumps({"env_index": 0, "step": at, "messages": turn}) + "\n" for at, turn in enumerate(turns))
    )
    first, second = await play(Walks(), rk.FireworksPolicy("some/model"))
    assert first.actions == ["go({'action': 'X'})", "go({'action': 'Y'})"]
    assert (second.steps, second.valid) == (0, True)  # of which there is nothing on it


async def test_a_line_for_each_call_of_a_reply_is_one_turn(tape):
    turns = [[*PROMPT, said("X", "Y"), result(0)], [*PROMPT, said("X", "Y"), result(0), result(1)]]
    tape.write_text(
        "".join(json.dumps({"env_index": 0, "step": at, "messages": turn}) + "\n" for at, turn in enumerate(turns))
    )
    assert [turn["step"] for turn in load(tape)["0"]] == [0]
    [first, _] = await play(Walks(), rk.FireworksPolicy("some/model"))
    assert first.actions == ["go({'action': 'X'})", "go({'action': 'Y'})"]


@pytest.mark.parametrize(("count", "named"), [(3, "tuple"), (4, "list")])
async def test_a_playback_can_be_asked_by_hand_in_both_forms(tape, count, named):
    save(tape, 0, [*PROMPT, said("X"), result()])
    policy = rk.StaticPolicy("go")
    history = []
    asked = ([], 0, history) if count == 3 else ([[]], [None], ["Walk."], ["See."])
    for expected in ("go", "_playback_terminate"):
        answer = await policy(*asked)
        assert type(answer).__name__ == named
        [call] = answer[0] if count == 3 else answer
        assert call.tool_name == expected


async def test_a_policy_can_be_asked_by_the_names_of_its_arguments():
    calls, _, _ = await rk.StaticPolicy("go")(tool_schemas=[], env_index=0, conversation_history=[])
    assert [call.tool_name for call in calls] == ["go"]
    calls = await rk.FireworksPolicy("m", _playback_actions={})([[]], [None], system_prompts=[""], user_prompts=[""])
    assert [call.tool_name for call in calls] == ["_playback_terminate"]
    with pytest.raises(TypeError, match="not prompts"):
        await rk.StaticPolicy("go")([], 0, prompts=[])


def test_images_are_left_out_of_it(tmp_path):
    image = {"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {}}]}
    save(tmp_path / "tape", 0, [image, said("X")])
    [line] = lines(tmp_path / "tape")
    assert line["messages"][0]["content"] == [{"type": "text", "text": "See"}, {"type": "text", "text": "[an image]"}]


@pytest.mark.parametrize("line", ["{", '{"env_index": 0}', '{"env_index": 0, "step": 0, "messages": "none"}'])
def test_a_line_that_is_none_is_named(tape, line):
    tape.write_text(f"\n{line}\n")
    with pytest.raises(PlaybackError, match=r"tape\.jsonl, line 2: .*remove the file to record it again"):
        rk.StaticPolicy("go")


def test_two_files_are_too_many(tape, monkeypatch):
    monkeypatch.setenv(OLD, "one")
    monkeypatch.setenv(NEW, "two")
    with pytest.raises(PlaybackError, match="name different files"):
        rk.StaticPolicy("go")


async def test_a_policy_that_writes_its_recording_itself_is_let(tape):
    class Writing(rk.StaticPolicy):
        def log_conversation_state_for_playback(self, env_index, step, conversation_history):
            with tape.open("a") as file:
                file.write(json.dumps([env_index, step, len(conversation_history)]) + "\n")

    await play(Walks(), Writing("go"), steps=1)
    assert sorted(lines(tape)) == [[0, 0, 4], [1, 0, 4]]
