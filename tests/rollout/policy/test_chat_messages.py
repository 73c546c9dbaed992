"""Results as chat messages, and conversations as endpoints take them."""

import copy
import json

import pytest

from muxsim.rollouts.policy.messages import assistant_calls, request_messages, tool_messages, turn_of, without_images

RED = {"type": "image", "mimeType": "image/png", "data": "cmVk"}
BLUE = {"type": "image", "mimeType": "image/jpeg", "data": "Ymx1ZQ=="}
RED_URL = "data:image/png;base64,cmVk"
BLUE_URL = "data:image/jpeg;base64,Ymx1ZQ=="


def text(words):
    return {"type": "text", "text": words}


def image_part(url):
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        ([text("at 0, 0")], "at 0, 0"),
        ([text("one"), text("two")], "one\ntwo"),
        ([], "(no output)"),
        ([text("")], "(no output)"),
        ([{"type": "audio", "mimeType": "audio/wav", "data": "AAAA"}], "[audio, audio/wav, not shown]"),
        ([{"type": "resource_link", "uri": "file:///map", "name": "map"}], "map file:///map"),
        ([{"type": "resource", "resource": {"uri": "file:///map", "text": "SFFG"}}], "SFFG"),
        ([{"type": "resource", "resource": {"uri": "f:///a", "blob": "AA"}}], "[resource f:///a, not shown]"),
        ([{"type": "hologram", "depth": 3}], '{"type":"hologram","depth":3}'),
    ],
)
def test_a_result_without_images_is_one_message_of_text(content, seen):
    assert tool_messages("call_1", content) == (
        {"role": "tool", "tool_call_id": "call_1", "content": seen},
        None,
    )


def test_images_go_into_a_message_of_the_user_and_leave_their_place_in_the_text():
    told, shown = tool_messages("call_1", [text("before"), RED, text("between"), BLUE])
    assert told["content"] == "before\n[image 1]\nbetween\n[image 2]"
    assert shown == {
        "role": "user",
        "content": [
            text("[image 1] of the result of call_1:"),
            image_part(RED_URL),
            text("[image 2] of the result of call_1:"),
            image_part(BLUE_URL),
        ],
    }


def test_the_same_image_twice_is_two_images():
    told, shown = tool_messages("call_1", [RED, RED])
    assert told["content"] == "[image 1]\n[image 2]"
    assert [part for part in shown["content"] if part["type"] == "image_url"] == [image_part(RED_URL)] * 2


def test_an_embedded_resource_that_is_an_image_is_shown():
    block = {"type": "resource", "resource": {"uri": "frame://1", "mimeType": "image/png", "blob": "cmVk"}}
    told, shown = tool_messages("call_1", [block])
    assert told["content"] == "[image 1]"
    assert image_part(RED_URL) in shown["content"]


def test_a_request_has_nothing_that_only_the_trainer_may_see():
    recorded = {"role": "tool", "tool_call_id": "a", "content": "ok", "metadata": {"control_plane": {"reward": 1.0}}}
    assert request_messages([recorded]) == [{"role": "tool", "tool_call_id": "a", "content": "ok"}]


def test_what_a_model_thought_goes_back_to_it():
    thought = {"role": "assistant", "content": "left", "reasoning_content": "the hole is right"}
    assert request_messages([thought]) == [thought]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ('{"action": "up"}', {"action": "up"}),
        ('{"action": "u', {"not_json": '{"action": "u'}),
        ("[1]", {"not_json": "[1]"}),
        ("", {}),
        (None, {}),
        ({"action": "up"}, {"action": "up"}),
        ({}, {}),
        ('{"action": NaN}', {"not_json": '{"action": NaN}'}),
    ],
)
def test_a_request_has_a_json_object_for_the_arguments_of_every_earlier_call(written, sent):
    call = {"id": "a", "type": "function", "function": {"name": "move", "arguments": written}}
    conversation = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    before = copy.deepcopy(conversation)
    (message,) = request_messages(conversation)
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == sent
    assert conversation == before


@pytest.mark.parametrize(("limit", "left"), [(None, 3), (3, 3), (9, 3), (2, 2), (1, 1), (0, 0)])
def test_a_request_shows_the_last_images_only(limit, left):
    conversation = [
        {"role": "user", "content": [text("look:"), image_part("1"), image_part("2")]},
        {"role": "assistant", "content": "hm"},
        {"role": "user", "content": [image_part("3")]},
    ]
    before = copy.deepcopy(conversation)
    sent = request_messages(conversation, max_images=limit)
    parts = [part for message in sent if isinstance(message["content"], list) for part in message["content"]]
    images = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert images == ["1", "2", "3"][3 - left :]
    assert len([part for part in parts if "no longer shown" in part.get("text", "")]) == 3 - left
    assert sent[0]["content"][0] == text("look:")
    assert conversation == before


def test_calls_made_here_have_ids_unlike_any_others_of_the_conversation():
    turns = [assistant_calls([("a", {}), ("b", {"x": 1})], turn) for turn in range(3)]
    ids = [call["id"] for message in turns for call in message["tool_calls"]]
    assert len(set(ids)) == 6
    assert turns[0]["tool_calls"][1]["function"] == {"name": "b", "arguments": '{"x":1}'}


def test_turns_are_counted_by_the_assistants_messages():
    roles = ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert turn_of({"role": role, "content": ""} for role in roles) == 2


def test_without_images_a_result_says_that_there_is_one():
    message, shown = tool_messages("c", [text("here"), RED], images=False)
    assert (message["content"], shown) == ("here\n[image, not shown]", None)


def test_without_images_a_prompt_is_plain_text_again_and_what_is_no_text_stays_a_part():
    heard = {"type": "input_audio", "input_audio": {}}
    pictured = {"role": "user", "content": [text("look"), image_part(RED_URL)]}
    mixed = {"role": "user", "content": [image_part(RED_URL), heard]}
    plain = {"role": "system", "content": "rules"}
    assert without_images([plain, pictured, mixed]) == [
        plain,
        {"role": "user", "content": "look\n[image, not shown]"},
        {"role": "user", "content": [text("[image, not shown]"), heard]},
    ]
