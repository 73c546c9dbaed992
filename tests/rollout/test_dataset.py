import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.rollouts.data.dataset import Episode, dataset_from_rows, generate_dataset, load_dataset
from muxsim.rollouts.data.prompts import fill_template, first_messages
from muxsim.rollouts.data.rows import SEED_LIMIT, DatasetError, Row

IMAGE = [{"type": "image", "data": "aGk=", "mimeType": "image/png"}]
LAKE = {
    "id": "run_001",
    "system_prompt": "You are playing FrozenLake.",
    "user_prompt_template": "Current state:\n{observation}\n\nMove on the {map_name} lake.",
    "environment_context": {"game": "FrozenLake", "map_name": "4x4", "seed": 42},
    "evaluation_criteria": {"goal": True},
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(*lines):
        text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
        Path("tasks.jsonl").write_text(text + "\n", encoding="utf-8")
        return "tasks.jsonl"

    return write


def fault_of(row):
    with pytest.raises(DatasetError) as caught:
        dataset_from_rows([row])
    return str(caught.value)


def test_a_row_of_reward_kits_form_is_read_whole(write):
    (row,) = load_dataset(write({**LAKE, "env": "frozen_lake"})).rows
    assert (row.id, row.seed, row.env) == ("run_001", 42, "frozen_lake")
    assert row.evaluation_criteria == {"goal": True}
    assert first_messages(row, "SFFF") == [
        {"role": "system", "content": "You are playing FrozenLake."},
        {"role": "user", "content": "Current state:\nSFFF\n\nMove on the 4x4 lake."},
    ]


def test_a_plain_row_has_its_prompt_and_info(write):
    (row,) = load_dataset(write({"prompt": "Play {well}.", "info": {"answer": 7}})).rows
    assert (row.id, row.info) == ("line-1", {"answer": 7})
    assert first_messages(row) == [{"role": "user", "content": "Play {well}."}]


def test_blank_lines_and_a_byte_order_mark_do_not_count(tmp_path):
    file = tmp_path / "tasks.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\n{"prompt": "b"}')
    assert [row.id for row in load_dataset(file).rows] == ["line-1", "line-3"]


@pytest.mark.parametrize("seed", [0, 1, SEED_LIMIT - 1])
def test_a_seed_may_stand_in_the_context_or_beside_it_and_zero_is_one(seed):
    rows = dataset_from_rows(
        [{"prompt": "a", "seed": seed}, {"prompt": "a", "environment_context": {"seed": seed}}]
    ).rows
    assert [row.seed for row in rows] == [seed, seed]


def test_a_row_without_a_seed_gets_one_from_the_base_seed_and_its_id():
    def seeds(*ids, base_seed=0):
        return [
            row.seed for row in dataset_from_rows([{"id": id, "prompt": "p"} for id in ids], base_seed=base_seed).rows
        ]

    assert seeds("a", "b") == list(reversed(seeds("b", "a")))
    assert len({*seeds("a", "b"), *seeds("a", "b", base_seed=1)}) == 4
    assert all(0 <= seed < SEED_LIMIT for seed in seeds(*map(str, range(100))))


def test_the_samples_of_a_row_start_alike_and_are_played_differently():
    dataset = dataset_from_rows([{"id": "a", "prompt": "p", "seed": 7}, {"id": "b", "prompt": "p", "seed": 8}])
    episodes = dataset.episodes(3)
    assert [episode.id for episode in episodes] == ["a#0", "a#1", "a#2", "b#0", "b#1", "b#2"]
    assert [episode.index for episode in episodes] == list(range(6))
    assert {episode.row.seed for episode in episodes[:3]} == {7}
    assert episodes[0].policy_seed == 7
    assert len({episode.policy_seed for episode in episodes}) == 6


def test_a_single_episode_is_called_like_its_row():
    dataset = dataset_from_rows([{"id": "a", "prompt": "p", "seed": 7}])
    assert list(dataset.episodes()) == [Episode(0, "a", dataset.rows[0], 0)]
    with pytest.raises(DatasetError, match="rollouts_per_row = 0"):
        dataset.episodes(0)


def test_generated_rows_count_their_seeds_up_and_are_dealt_to_the_environments():
    assert [(row.id, row.seed) for row in generate_dataset(3).rows] == [("seed-0", 0), ("seed-1", 1), ("seed-2", 2)]
    dealt = generate_dataset(5, envs=["lake", "ring"], first_seed=10).rows
    assert [(row.env, row.seed) for row in dealt] == [
        ("lake", 10),
        ("ring", 10),
        ("lake", 11),
        ("ring", 11),
        ("lake", 12),
    ]


@pytest.mark.parametrize(("rollouts", "first_seed"), [(0, 0), (-1, 0), (1, -1), (1, SEED_LIMIT), (2, SEED_LIMIT - 1)])
def test_rows_that_cannot_be_generated_are_refused(rollouts, first_seed):
    with pytest.raises(DatasetError):
        generate_dataset(rollouts, first_seed=first_seed)


# Faults.


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "tasks.jsonl: has no rows"),
        (
            ['[{"id": 1}]'],
            "tasks.jsonl: is one JSON array; a dataset has one object on each line: `jq -c '.[]'` makes it",
        ),
        ([LAKE, '{"id": '], "tasks.jsonl, line 2: is not JSON: Input data was truncated"),
        ([LAKE, "", "7"], "tasks.jsonl, line 3: is 7; a row is a JSON object"),
        (
            [LAKE, {"prompt": "x"}, LAKE],
            'tasks.jsonl, line 3: id = "run_001": tasks.jsonl, line 1 has this id; each row needs its own',
        ),
        (
            [{**LAKE, "environment_context": {"seed": -1, "map_name": ""}}],
            f"tasks.jsonl, line 1: environment_context.seed = -1: a seed is a whole number from 0 to {SEED_LIMIT - 1}",
        ),
    ],
)
def test_a_fault_names_file_line_key_value_and_what_to_do(write, lines, message):
    with pytest.raises(DatasetError) as caught:
        load_dataset(write(*lines))
    assert str(caught.value) == message


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere\.jsonl: cannot be read: No such file"):
        load_dataset(tmp_path / "nowhere.jsonl")


def test_a_line_that_is_no_utf8_is_named(tmp_path):
    file = tmp_path / "tasks.jsonl"
    file.write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(DatasetError, match=r"line 1: is not JSON"):
        load_dataset(file)


def called(id):
    return {"id": id, "type": "function", "function": {"name": "move", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"promt": "x"}, 'row 0: promt = "x": no such key; did you mean prompt?'),
        ({"prompt": "x", "answer": 7}, "row 0: answer = 7: no such key; put what your rewards need under info"),
        ({"prompt": "x", "seed": True}, "row 0: seed = true: a seed is a whole number"),
        ({"prompt": "x", "seed": 1.5}, "row 0: seed = 1.5: a seed is a whole number"),
        ({"prompt": "x", "seed": SEED_LIMIT}, f"row 0: seed = {SEED_LIMIT}: a seed is a whole number"),
        ({"prompt": "x", "seed": 1, "environment_context": {"seed": 2}}, "row 0: seed = 1: differs from"),
        ({"prompt": 7}, "row 0: prompt = 7: must be text"),
        ({"prompt": []}, "row 0: prompt = []: must be text, or a list of chat messages"),
        ({"prompt": [{"role": "robot", "content": "x"}]}, "must be text, or a list of chat messages"),
        *[
            ({"prompt": [{"role": "assistant", "content": None, "tool_calls": calls}]}, f"message 0 has {wrong}")
            for calls, wrong in [
                ("no", "tool_calls that are not ["),
                ([None], "tool_calls that are not ["),
                ([{"id": "a"}], "tool_calls that are not ["),
                ([called("a")], 'the call "a", and no tool message behind it answers that'),
            ]
        ],
        (
            {
                "prompt": [
                    {"role": "assistant", "content": None, "tool_calls": [called("a"), called("b")]},
                    {"role": "tool", "content": "x", "tool_call_id": "a"},
                    {"role": "user", "content": "Go on."},
                    {"role": "tool", "content": "x", "tool_call_id": "b"},
                ]
            },
            'message 0 has the call "b", and no tool message behind it answers that',
        ),
        ({"prompt": [{"role": "user", "content": ["x"]}]}, "message 0 has a part of its content that is no object"),
        ({"prompt": "x", "user_prompt_template": "y"}, 'row 0: prompt = "x": stands beside user_prompt_template'),
        (
            {"system_prompt": "x", "prompt": [{"role": "system", "content": "y"}]},
            'row 0: system_prompt = "x": stands beside a prompt that has a system message',
        ),
        ({"id": "", "prompt": "x"}, 'row 0: id = "": must be text or a whole number'),
        ({"environment_context": []}, "row 0: environment_context = []: must be an object"),
        ({"env": 3}, "row 0: env = 3: must be text"),
        ({"user_simulation": {"enabled": True}}, "users are not simulated here"),
        ({"prompt": {1, 2}, "info": object()}, "row 0: has no JSON form"),
        (
            {**LAKE, "user_prompt_template": "{observation} {size}"},
            "row 0: user_prompt_template: nothing to fill in for {size} "
            "(there are: seed, game, map_name, observation); {{size}} keeps the braces",
        ),
    ],
)
def test_a_wrong_row_is_refused_before_anything_starts(row, message):
    assert message in fault_of(row)


def test_a_long_value_is_shown_in_part():
    assert len(fault_of({"prompt": "x", "nonsense": "y" * 1000})) < 300


# Environments.


def test_rows_get_their_own_environment_or_the_default_or_the_only_one():
    dataset = dataset_from_rows([{"prompt": "a", "env": "ring"}, {"prompt": "b"}])
    assert [row.env for row in dataset.with_environments(["lake", "ring"], "lake").rows] == ["ring", "lake"]
    assert [row.env for row in dataset.with_environments(["ring"]).rows] == ["ring", "ring"]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (None, "row 0: names no environment; add env to the row, or name one for all (frozen_lake, ring)"),
        ("frozen-lake", 'row 0: env = "frozen-lake": no such environment; did you mean frozen_lake?'),
        ("chess", 'row 0: env = "chess": no such environment; there are: frozen_lake, ring'),
    ],
)
def test_an_environment_that_is_not_there_is_an_error(env, message):
    with pytest.raises(DatasetError) as caught:
        dataset_from_rows([{"prompt": "a", "env": env}]).with_environments(["frozen_lake", "ring"])
    assert str(caught.value) == message


def test_the_hash_is_of_what_the_rows_say_and_not_of_the_file(write):
    def sha256(*lines, **options):
        return load_dataset(write(*lines), **options).sha256

    one, spaced, other = '{"id": "a", "prompt": "p"}', '\n{"prompt":  "p", "id": "a"}', '{"id": "a", "prompt": "q"}'
    assert sha256(one) == sha256(spaced)
    assert len({sha256(one), sha256(one, base_seed=1), sha256(other), sha256(one, LAKE)}) == 4


# Prompts.


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{a}{a}", "11"),
        ("{text}", "as it is"),
        ("{flag} {nothing} {list} {map}", 'true null [1,"x"] {"size":4}'),
        ("{map.size} {list.1}", "4 x"),
        ('{"json": {"a": {}}}', '{"json": {"a": {}}}'),
        ("{ a } {} {1} {a-b} {", "{ a } {} {1} {a-b} {"),
        ("{{a}} {{missing}} {{map.size}}", "{a} {missing} {map.size}"),
        ("{brace}", "{a}"),
    ],
)
def test_keys_are_filled_in_and_other_braces_survive(template, filled):
    values = {
        "a": 1,
        "text": "as it is",
        "flag": True,
        "nothing": None,
        "list": [1, "x"],
        "map": {"size": 4},
        "brace": "{a}",
    }
    assert fill_template(template, values) == filled


@pytest.mark.parametrize("template", ["{missing}", "{map.missing}", "{list.9}", "{list.x}", "{text.size}"])
def test_a_key_that_is_not_there_is_an_error(template):
    with pytest.raises(DatasetError, match="nothing to fill in"):
        fill_template(template, {"map": {}, "list": [], "text": "x"})


@given(st.text(alphabet='{}ab". 1', max_size=30))
def test_a_template_without_names_in_braces_stays_as_it_is(text):
    unnamed = text.replace("a", "-").replace("b", "+")
    assert fill_template(unnamed, {}) == unnamed


def test_an_observation_is_never_taken_for_a_template():
    row = Row(id="a", seed=0, template="{observation}", environment_context={"key": "secret"})
    assert first_messages(row, "{key} {observation}")[0]["content"] == "{key} {observation}"


@pytest.mark.parametrize(
    ("observation", "shown"), [({"position": 0}, '{"position":0}'), ([0.5, 1], "[0.5,1]"), (0, "0"), ("", "")]
)
def test_an_observation_that_is_not_text_is_shown_as_json(observation, shown):
    assert first_messages(Row(id="a", seed=0), observation) == [{"role": "user", "content": shown}]


def test_a_part_of_an_observation_can_be_asked_for():
    row = Row(id="a", seed=0, template="At {observation.position}, seed {seed}.")
    assert first_messages(row, {"position": 3})[0]["content"] == "At 3, seed 0."


def test_images_of_an_observation_become_parts_of_the_message():
    observation = [{"type": "text", "text": "Land!"}, *IMAGE]
    parts = [
        {"type": "text", "text": "See: Land!"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
    ]
    (from_template,) = first_messages(Row(id="a", seed=0, template="See: {observation}"), observation)
    (from_prompt,) = first_messages(Row(id="a", seed=0, prompt="See: {observation}"), observation)
    (from_list,) = first_messages(
        Row(id="a", seed=0, prompt=[{"role": "user", "content": "See: {observation}"}]), observation
    )
    assert from_template["content"] == from_prompt["content"] == from_list["content"] == parts
    (unseen,) = first_messages(Row(id="a", seed=0, template="Blind."), observation)
    assert unseen["content"] == "Blind."


def test_an_environment_that_tells_nothing_first_is_met_with_a_plain_start():
    assert first_messages(Row(id="a", seed=0), None, instructions="Play.") == [
        {"role": "system", "content": "Play."},
        {"role": "user", "content": "Begin."},
    ]


@pytest.mark.parametrize("row", [{"user_prompt_template": "Now: {observation}"}, {"prompt": "Now: {observation}"}])
def test_a_prompt_that_asks_for_an_observation_that_is_not_there_is_an_error(row):
    (row,) = dataset_from_rows([row]).rows
    with pytest.raises(DatasetError, match=r"row 0: (prompt|user_prompt_template): asks for \{observation\}"):
        first_messages(row, None)


@pytest.mark.parametrize(
    ("observation", "told"),
    [
        ("You are at row 0.", "You are at row 0."),
        ([{"type": "text", "text": "You are at row 0."}, *IMAGE], "You are at row 0."),
        ({"row": 0, "column": [1, 2]}, '{"row": 0, "column": [1, 2]}'),
    ],
)
def test_an_observation_that_ends_the_environments_instructions_is_shown_once(observation, told):
    instructions = f"Find the way.\n\n{told}\n"
    system, user = first_messages(Row(id="a", seed=0), observation, instructions=instructions)
    assert system == {"role": "system", "content": "Find the way."}
    assert "row" in str(user["content"])
    (alone,) = first_messages(Row(id="a", seed=0), observation, instructions=told)
    assert alone == user
    blind = first_messages(Row(id="a", seed=0, template="Go."), observation, instructions=instructions)
    assert blind[0]["content"] == instructions


@pytest.mark.parametrize("instructions", ["Reach tile 0", "You are at row 0. Find the way.", "Find the way.", ""])
def test_instructions_that_do_not_end_with_what_is_shown_stay_as_they_are(instructions):
    for observation in (0, "0", "You are at row 0."):
        messages = first_messages(Row(id="a", seed=0), observation, instructions=instructions)
        assert [one["content"] for one in messages[:-1]] == [instructions] * bool(instructions)


def test_the_rows_own_system_prompt_goes_before_the_environments_instructions():
    row = Row(id="a", seed=0, system_prompt="Mine.", prompt="p")
    assert first_messages(row, instructions="Theirs.")[0]["content"] == "Mine."
    conversation = [{"role": "system", "content": "S"}, {"role": "user", "content": "U {x}"}]
    assert first_messages(Row(id="a", seed=0, prompt=conversation), instructions="Theirs.") == conversation


# ---- null

FULL = {**LAKE, "env": "lake", "seed": 42, "info": {"a": 1}, "user_simulation": {"enabled": False}}
PLAIN = {"id": "p", "env": "lake", "seed": 3, "system_prompt": "Be brief.", "prompt": "Play.", "info": 1}


@given(st.sampled_from([FULL, PLAIN]), st.data())
def test_a_key_that_is_null_is_as_if_it_were_left_out(whole, data):
    absent = data.draw(st.sets(st.sampled_from(sorted({*FULL, *PLAIN}))))
    there = {key: value for key, value in whole.items() if key not in absent}
    with_nulls = {**there, **dict.fromkeys(absent)}

    def read(row):
        try:
            return dataset_from_rows([row]).rows
        except DatasetError as error:
            return str(error)

    assert read(with_nulls) == read(there)


def test_a_null_inside_a_row_is_not_there_either(write):
    (row,) = load_dataset(write('{"environment_context": {"seed": null, "x": null}, "seed": 5, "id": null}')).rows
    assert (row.id, row.seed, row.environment_context) == ("line-1", 5, {"x": None})
    padded = {"role": "user", "content": "Play.", "name": None, "tool_calls": None}
    assert dataset_from_rows([{"prompt": [padded]}]).rows[0].prompt == [{"role": "user", "content": "Play."}]
    asks = {"role": "assistant", "content": None, "tool_calls": [called("a")]}
    told = {"role": "tool", "content": "x", "tool_call_id": "a"}
    assert dataset_from_rows([{"prompt": [{**asks, "name": None}, told]}]).rows[0].prompt == [asks, told]


def test_a_key_that_nobody_knows_is_a_fault_also_when_it_is_null():
    assert "no such key" in fault_of({"promt": None})
