import json

import pytest
import trio

from muxsim.rollouts.policy.playback import (
    PlaybackError,
    PlaybackPolicy,
    PlayedEpisode,
    RecordingPolicy,
    current_episode,
    playback_file,
    with_playback,
)
from muxsim.rollouts.policy.protocol import PolicyError, Reply, TokenLimit

USER = {"role": "user", "content": "Go."}


def call(name, id="call_1", **arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": id, "type": "function", "function": function}]}


def result(text, id="call_1"):
    return {"role": "tool", "tool_call_id": id, "content": text}


class Counting:
    """Answers with the number of replies so far and the seed, and counts how often it was asked."""

    def __init__(self, last=3):
        self.asked = 0
        self._last = last

    async def next_message(self, conversation, tools, seed):
        self.asked += 1
        so_far = sum(message["role"] == "assistant" for message in conversation)
        if so_far == self._last:
            return Reply({"role": "assistant", "content": f"done, {seed}"})
        return Reply(call("move", f"call_{so_far}", step=so_far, seed=seed))


async def play(policy, index, *, seed=0, start=(USER,), most=10, id=None, valid=True):
    """The replies of one episode, played as a runner does."""
    episode = PlayedEpisode(index, id or f"row-{index}")
    token = current_episode.set(episode)
    try:
        conversation, replies = list(start), []
        while len(replies) < most:
            reply = (await policy.next_message(conversation, [], seed)).message
            replies.append(reply)
            conversation.append(reply)
            if not reply.get("tool_calls"):
                break
            await trio.lowlevel.checkpoint()
            conversation += [result("there", one["id"]) for one in reply["tool_calls"]]
        return replies
    finally:
        current_episode.reset(token)
        episode.over(valid)


async def play_all(policy, seeds, **options):
    """Many episodes at once, mixed as the scheduler likes it."""
    played = {}

    async def one(index, seed):
        played[index] = await play(policy, index, seed=seed, **options)

    async with trio.open_nursery() as nursery:
        for index, seed in enumerate(seeds):
            nursery.start_soon(one, index, seed)
    return played


def written(path, *entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


async def test_a_missing_file_is_recorded_and_then_played_back_without_a_model(tmp_path):
    path, live = tmp_path / "recording.jsonl", Counting()
    recorded = await play_all(with_playback(lambda: live, path), [7, 7, 8])
    assert live.asked == 12

    def no_model():
        raise AssertionError("a model was made")

    assert await play_all(with_playback(no_model, path), [7, 7, 8]) == recorded
    assert repr(PlaybackPolicy(path)) == f"<PlaybackPolicy {path}: 12 replies in 3 episodes>"


async def test_without_a_file_the_policy_is_as_it_was_made():
    live = Counting()
    assert with_playback(lambda: live, None) is live


async def test_an_empty_file_is_recorded_into(tmp_path):
    path = written(tmp_path / "recording.jsonl")
    assert isinstance(with_playback(Counting, path), RecordingPolicy)


async def test_a_recording_has_reward_kits_lines(tmp_path):
    path = tmp_path / "recording.jsonl"
    await play(RecordingPolicy(Counting(last=1), path), 4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["env_index"], line["step"]) for line in lines] == [(4, 0), (4, 1)]
    assert lines[0]["messages"] == [USER, call("move", "call_0", step=0, seed=0)]
    assert lines[1]["messages"][-2:] == [result("there", "call_0"), {"role": "assistant", "content": "done, 0"}]


async def test_a_line_of_each_call_of_a_reply_is_one_reply(tmp_path):
    two = {**call("a", "1"), "tool_calls": call("a", "1")["tool_calls"] + call("b", "2")["tool_calls"]}
    first, second = [USER, two, result("x", "1")], [USER, two, result("x", "1"), result("y", "2")]
    third = [*second, call("c", "3"), result("z", "3")]
    path = written(
        tmp_path / "recording.jsonl",
        *({"env_index": 0, "step": step, "messages": messages} for step, messages in enumerate([first, second, third])),
    )
    assert await play(PlaybackPolicy(path), 0, most=2) == [two, call("c", "3")]


async def test_lines_with_only_the_newest_reply_are_played_back(tmp_path):
    path = written(
        tmp_path / "recording.jsonl",
        *({"env_index": 0, "step": step, "messages": [USER, call("same")]} for step in range(3)),
    )
    assert await play(PlaybackPolicy(path), 0, most=3) == [call("same")] * 3


async def test_an_episode_whose_replies_are_used_up_is_an_error_and_no_end_of_its_own(tmp_path):
    path = written(tmp_path / "recording.jsonl", {"env_index": 0, "step": 0, "messages": [USER, call("move")]})
    with pytest.raises(PolicyError, match="has no more than 1 replies of episode row-0: remove the file"):
        await play(PlaybackPolicy(path), 0)


class Overflows(Counting):
    """Has no room for another reply after the last."""

    async def next_message(self, conversation, tools, seed):
        reply = await super().next_message(conversation, tools, seed)
        if not reply.message.get("tool_calls"):
            raise TokenLimit("400: the context is full")
        return reply


@pytest.mark.parametrize("room", [0, 1, 2])
@pytest.mark.parametrize("start", [(USER,), (USER, {"role": "assistant", "content": "an example"}, USER)])
async def test_a_conversation_that_was_too_long_is_too_long_when_it_is_played_back(tmp_path, room, start):
    path = tmp_path / "recording.jsonl"
    live = Overflows(last=room + len(start) // 2)
    for _ in ("recorded", "played back"):
        policy = with_playback(lambda: live, path)
        with pytest.raises(TokenLimit, match=r"^400: the context is full$"):
            await play(policy, 0, start=start)
    assert live.asked == room + 1
    with pytest.raises(PolicyError, match="has episode row-0 with another prompt"):
        await play(PlaybackPolicy(path), 0, start=({"role": "user", "content": "Stop."}, *start[1:]))


async def test_an_episode_that_is_not_on_record_is_an_error(tmp_path):
    path = written(tmp_path / "recording.jsonl", {"env_index": 0, "step": 0, "messages": [USER, call("move")]})
    with pytest.raises(PolicyError, match="does not have episode row-1: remove the file"):
        await play(PlaybackPolicy(path), 1)


async def test_an_episode_is_found_by_its_name_wherever_it_stands_in_the_run(tmp_path):
    path = tmp_path / "recording.jsonl"
    recorder = RecordingPolicy(Counting(last=1), path)
    recorded = {id: await play(recorder, at, id=id, seed=at) for at, id in enumerate("abc")}
    player = PlaybackPolicy(path)
    assert {id: await play(player, 9 - at, id=id, seed=at) for at, id in enumerate("abc")} == recorded
    with pytest.raises(PolicyError, match="does not have episode d"):
        await play(player, 0, id="d")


async def test_replies_to_another_prompt_or_seed_are_not_played(tmp_path):
    path = tmp_path / "recording.jsonl"
    await play(RecordingPolicy(Counting(), path), 0, seed=3)
    player = PlaybackPolicy(path)
    with pytest.raises(PolicyError, match="with the seed 3, and it is played with 4"):
        await play(player, 0, seed=4)
    with pytest.raises(PolicyError, match=r'another prompt, message 0 was "Go\." and is "Stop\."'):
        await play(player, 0, seed=3, start=({"role": "user", "content": "Stop."},))
    with pytest.raises(PolicyError, match="another prompt"):
        await play(player, 0, seed=3, start=({"role": "system", "content": "Be good."}, USER))


async def test_an_episode_that_failed_is_not_on_the_tape(tmp_path):
    path = tmp_path / "recording.jsonl"
    recorder = RecordingPolicy(Counting(last=1), path)
    await play(recorder, 0, valid=False)
    await play(recorder, 1)
    with pytest.raises(PolicyError, match="does not have episode row-0"):
        await play(PlaybackPolicy(path), 0)
    assert len(await play(PlaybackPolicy(path), 1)) == 2


async def test_an_episode_that_was_played_again_is_the_one_played_back(tmp_path):
    path = tmp_path / "recording.jsonl"
    await play(RecordingPolicy(Counting(last=3), path), 0, seed=1)
    again = await play(RecordingPolicy(Counting(last=1), path), 0, seed=1)
    assert await play(PlaybackPolicy(path), 0, seed=1) == again


async def test_examples_in_the_prompt_are_no_replies(tmp_path):
    path, start = tmp_path / "recording.jsonl", [USER, call("example"), result("nice"), USER]
    recorded = await play(RecordingPolicy(Counting(last=3), path), 0, start=start)
    assert len(recorded) == 3
    assert await play(PlaybackPolicy(path), 0, start=start) == recorded


async def test_images_are_left_out_of_a_recording(tmp_path):
    path = tmp_path / "recording.jsonl"
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}}
    start = [{"role": "user", "content": [{"type": "text", "text": "Look."}, image]}]
    await play(RecordingPolicy(Counting(last=1), path), 0, start=start)
    assert "AAAA" not in path.read_text()
    assert len(await play(PlaybackPolicy(path), 0, start=start)) == 2


async def test_a_reply_that_cannot_be_recorded_ends_its_episode(tmp_path):
    with pytest.raises(PolicyError, match=r"could not be recorded in .*: Is a directory"):
        await play(RecordingPolicy(Counting(), tmp_path), 0)


async def test_a_runner_that_names_no_episode_is_told_so(tmp_path):
    with pytest.raises(PolicyError, match="current_episode"):
        await RecordingPolicy(Counting(), tmp_path / "r").next_message([USER], [], 0)


@pytest.mark.parametrize("line", ["{", "7", '{"env_index": 0}', '{"env_index": "a", "step": 0, "messages": []}'])
def test_a_file_that_is_no_recording_is_named_with_its_line(tmp_path, line):
    path = tmp_path / "recording.jsonl"
    path.write_text('{"env_index": 0, "step": 0, "messages": []}\n' + line + "\n")
    with pytest.raises(PlaybackError, match=r"recording\.jsonl, line 2: "):
        PlaybackPolicy(path)


def test_the_file_is_named_by_either_variable(tmp_path):
    path = str(tmp_path / "r.jsonl")
    assert playback_file({}) is None
    assert playback_file({"EP_PLAYBACK_FILE": ""}) is None
    assert str(playback_file({"EP_PLAYBACK_FILE": path})) == path
    assert str(playback_file({"REWARD_KIT_PLAYBACK_FILE": path})) == path
    assert str(playback_file({"REWARD_KIT_PLAYBACK_FILE": path, "EP_PLAYBACK_FILE": path})) == path
    with pytest.raises(PlaybackError, match="name different files"):
        playback_file({"REWARD_KIT_PLAYBACK_FILE": path, "EP_PLAYBACK_FILE": "other"})
