"""Exports in rows: what TRL, verl and verifiers read, as JSONL and as tables."""

import json
import subprocess
from pathlib import Path

import pyarrow.parquet
import pytest
from harness import MUXSIM, ROOT
from hypothesis import given
from hypothesis import strategies as st

from muxsim.cli import export as command
from muxsim.errors import MuxsimError
from muxsim.rollouts.data.comparison import compare
from muxsim.rollouts.data.run_folder import RunError, RunFolder
from muxsim.rollouts.data.trajectory import EndReason
from muxsim.rollouts.view import tables
from muxsim.rollouts.view.export import export_atif, export_traces
from muxsim.rollouts.view.report import write_comparison, write_report
from muxsim.rollouts.view.tables import ExportError, chat_rows, export_rows
from muxsim.rollouts.view.token_rows import TOKEN_FORMS, token_rows
from muxsim.rollouts.view.traces import trace_rows

from .samples import config, failure, image_part, png, trajectory

FIRST = {"prompt_token_ids": [1, 2], "token_ids": [3, 4], "logprobs": [-0.5, -0.25]}
SECOND = {"prompt_token_ids": [1, 2, 3, 4, 9], "token_ids": [5], "logprobs": [-1.0]}
ELSEWHERE = {"prompt_token_ids": [1, 8], "token_ids": [5], "logprobs": None}


@pytest.fixture
def run(tmp_path):
    def run(*trajectories, **described):
        policy = {"kind": "openai", "model": "small", "temperature": 0.5}
        with RunFolder.create(tmp_path / "run", config(policy=policy, **described)) as writer:
            for one in trajectories:
                writer.append(one)
        return RunFolder(tmp_path / "run")

    return run


def with_tokens(*tokens, id="lake-0", **changes):
    return trajectory(id, tokens=list(tokens), **changes)


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_chat_row_has_the_tokens_of_each_reply_and_a_mask_of_what_was_sampled(run):
    folder = run(with_tokens(FIRST, None))
    (row,), (bare,) = chat_rows(folder), chat_rows(folder, bare=True)
    assert row["tokens"] == [{**FIRST, "loss_mask": [0, 0, 1, 1], "problem": None}, None]
    assert "tokens" not in bare


def test_a_reply_whose_tokens_are_not_whole_has_no_mask(run):
    (row,) = chat_rows(run(with_tokens({**FIRST, "problem": "one is missing"}, {"token_ids": [5]})))
    first, second = row["tokens"]
    assert (first["loss_mask"], first["problem"], first["token_ids"]) == (None, "one is missing", [3, 4])
    assert (second["loss_mask"], second["prompt_token_ids"], second["token_ids"]) == (None, None, [5])


@pytest.mark.parametrize(
    ("form", "row"),
    [
        (
            "tokens",
            {
                "prompt_token_ids": [1, 2],
                "token_ids": [3, 4, 9, 5],
                "loss_mask": [1, 1, 0, 1],
                "logprobs": [-0.5, -0.25, None, -1.0],
            },
        ),
        (
            "trl",
            {
                "prompt_ids": [1, 2],
                "completion_ids": [3, 4, 9, 5],
                "env_mask": [1, 1, 0, 1],
                "logprobs": [-0.5, -0.25, 0.0, -1.0],
            },
        ),
        ("sft", {"input_ids": [1, 2, 3, 4, 9, 5], "labels": [-100, -100, 3, 4, -100, 5]}),
        (
            "verl",
            {
                "prompt_ids": [1, 2],
                "response_ids": [3, 4, 9, 5],
                "response_mask": [1, 1, 0, 1],
                "response_logprobs": [-0.5, -0.25, 0.0, -1.0],
                "reward_score": 1.0,
                "num_turns": 5,
                "metrics": {"generate_sequences": 0.5, "tool_calls": 0.02},
            },
        ),
    ],
)
def test_an_episode_in_one_piece_is_one_row_in_the_words_of_each_trainer(form, row):
    assert list(token_rows([with_tokens(FIRST, SECOND)], form, bare=True)) == [row]
    (told,) = token_rows([with_tokens(FIRST, SECOND)], form)
    assert row.items() <= told.items()
    assert (told["id"], told["row"], told["reward"], told["segments"], told["turns"]) == ("lake-0", "lake-0", 1.0, 1, 2)


IDS = st.lists(st.integers(0, 99), max_size=5)
SAID = st.lists(st.tuples(st.integers(0, 99), st.floats(-9, 0)), max_size=5)


@given(st.lists(st.tuples(IDS, SAID, st.booleans()), max_size=5))
def test_every_form_says_the_same_of_each_token(episode):
    turns, known, sampled = [], [], []
    for between, said, goes_on in episode:
        prompt = [*known, *between] if goes_on else between
        ids, logprobs = [id for id, _ in said], [one for _, one in said]
        turns.append({"prompt_token_ids": prompt, "token_ids": ids, "logprobs": logprobs})
        known = [*prompt, *ids]
        sampled += said
    rows = [list(token_rows([trajectory("a", tokens=turns)], form, bare=True)) for form in TOKEN_FORMS]
    told = []
    for plain, trl, sft, verl in zip(*rows, strict=True):
        prompt, ids, mask = plain["prompt_token_ids"], plain["token_ids"], plain["loss_mask"]
        logprobs = plain["logprobs"] or [None] * len(ids)
        assert (trl["prompt_ids"], trl["completion_ids"], trl["env_mask"]) == (prompt, ids, mask)
        assert (verl["prompt_ids"], verl["response_ids"], verl["response_mask"]) == (prompt, ids, mask)
        assert trl["logprobs"] == verl["response_logprobs"] == [one or 0.0 for one in logprobs]
        assert sft["input_ids"] == [*prompt, *ids]
        assert sft["labels"] == [-100] * len(prompt) + [id if bit else -100 for id, bit in zip(ids, mask, strict=True)]
        told += [(id, one) for id, one, bit in zip(ids, logprobs, mask, strict=True) if bit]
    assert told == sampled, "each sampled token is in one row, with its own log probability"


@pytest.mark.parametrize("form", TOKEN_FORMS)
def test_a_conversation_that_was_rewritten_is_a_row_for_each_part_and_says_why(form):
    one, other = token_rows([with_tokens(FIRST, ELSEWHERE)], form)
    assert [(row["segment"], row["segments"], row["turn"], row["turns"]) for row in (one, other)] == [
        *((0, 2, 0, 1), (1, 2, 1, 1))
    ]
    assert one["begins"] is None
    assert "token 1 is 8, it was 2" in other["begins"]
    assert other.get("logprobs", other.get("response_logprobs")) is None


def test_an_unknown_reward_is_none_and_no_number():
    (row,) = token_rows([with_tokens(FIRST, SECOND, total_reward=None)], "verl")
    assert (row["reward_score"], row["reward"]) == (None, None)


def test_episodes_without_tokens_are_told_of_and_a_run_of_only_these_is_no_export(run, tmp_path):
    folder = run(with_tokens(FIRST, SECOND), trajectory("dumb"), trajectory("mute", tokens=[]), failure())
    left = {}
    count = export_rows(
        folder, tmp_path / "out.jsonl", rows="trl", left_out=lambda episode, why: left.update({episode.id: why})
    )
    assert (count, len(lines(tmp_path / "out.jsonl"))) == (1, 1)
    assert left == {"dumb": "the endpoint told no token ids", "mute": "the policy gave no reply"}


@pytest.mark.parametrize("table", ["jsonl", "parquet"])
def test_nothing_is_left_of_an_export_that_fails(run, tmp_path, table):
    folder = run(trajectory())
    target = tmp_path / "out" / "rows"
    target.parent.mkdir()
    target.write_text("as it was")
    with pytest.raises(ExportError, match="none of these episodes has token ids: play them with --token-ids"):
        export_rows(folder, target, rows="tokens", table=table)
    assert [one.name for one in target.parent.iterdir()] == ["rows"]
    assert target.read_text() == "as it was"


@pytest.mark.parametrize("form", ["chat", *TOKEN_FORMS])
@pytest.mark.parametrize("bare", [False, True])
def test_a_parquet_file_says_what_the_rows_do(run, tmp_path, form, bare):
    folder = run(with_tokens(FIRST, SECOND), with_tokens(FIRST, ELSEWHERE, id="torn", scores={"style": 0.5}))
    export_rows(folder, tmp_path / "rows.jsonl", rows=form, bare=bare)
    count = export_rows(folder, tmp_path / "rows.parquet", rows=form, table="parquet", bare=bare)
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet")
    rows = table.to_pylist()
    assert len(rows) == count > 1
    for row, told in zip(rows, lines(tmp_path / "rows.jsonl"), strict=True):
        for name in ("tools", "scores"):
            if name in row:
                row[name] = json.loads(row[name])
        if form == "chat":
            row["messages"] = [{k: v for k, v in message.items() if v is not None} for message in row["messages"]]
            told["messages"] = [{k: v for k, v in message.items() if v is not None} for message in told["messages"]]
        assert {name: value for name, value in row.items() if value is not None} == {
            name: value for name, value in told.items() if value is not None
        }


def test_a_parquet_file_of_conversations_with_images_has_parts_everywhere(run, tmp_path):
    seen = trajectory("a")
    seen.messages.insert(4, {"role": "user", "content": [{"type": "text", "text": "see"}, image_part(png(1, 2, 3))]})
    export_rows(run(seen, trajectory("b")), tmp_path / "rows.parquet", table="parquet", inline_images=True)
    first, second = pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert first["messages"][4]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    assert second["messages"][1]["content"] == [{"type": "text", "text": "Cross it.", "image_url": None}]


def test_a_large_run_is_written_in_pieces(run, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_ROWS_AT_ONCE", 2)
    folder = run(*[with_tokens(FIRST, SECOND, id=f"lake-{n}") for n in range(5)])
    export_rows(folder, tmp_path / "rows.parquet", rows="sft", table="parquet")
    assert pyarrow.parquet.ParquetFile(tmp_path / "rows.parquet").num_row_groups == 3


def test_what_a_table_needs_is_named_where_it_is_missing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "find_spec", lambda _: None)
    with pytest.raises(ExportError, match=r"needs the package pyarrow: pip install 'mcp-muxsim\[data\]'"):
        export_rows(run(trajectory()), tmp_path / "rows.parquet", table="parquet")
    with pytest.raises(ExportError, match=r"needs the package datasets: pip install 'mcp-muxsim\[datasets\]'"):
        export_rows(RunFolder(tmp_path / "run"), tmp_path / "rows", table="datasets")


# What verifiers reads.


def branches(trace):
    """Each path from a root to a leaf, as verifiers walks them."""
    nodes = trace["nodes"]
    leaves = set(range(len(nodes))) - {node["parent"] for node in nodes}
    for leaf in sorted(leaves):
        path, place = [], leaf
        while place is not None:
            path.append(nodes[place])
            place = nodes[place]["parent"]
        yield path[::-1]


def joined(path, name):
    return [one for node in path for one in node.get(name, ())]


def test_a_trace_has_each_message_once_and_tokens_where_they_were_sampled(run):
    (row,) = trace_rows(run(with_tokens(FIRST, SECOND, scores={"style": 0.5})))
    (trace,) = row["traces"]
    (path,) = branches(trace)
    assert [node["message"]["role"] for node in path] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert joined(path, "token_ids") == [1, 2, 3, 4, 9, 5]
    assert joined(path, "mask") == [False, False, True, True, False, True]
    assert joined(path, "logprobs") == [-0.5, -0.25, -1.0]
    assert [node.get("sampled", False) for node in path] == [False, False, True, False, True, False]
    assert (trace["rewards"], trace["metrics"], trace["ok"]) == (
        {"reward": {"score": 1.0, "weight": 1.0}},
        {"style": 0.5},
        True,
    )
    assert [call["node"] for call in trace["calls"]] == [2, 4]
    assert "control_plane" not in json.dumps(row)


@pytest.mark.parametrize("second", [ELSEWHERE, None])
def test_a_trace_branches_where_tokens_do_not_go_on(run, second):
    (row,) = trace_rows(run(with_tokens(FIRST, second)))
    first, other = branches(row["traces"][0])
    assert joined(first, "token_ids") == [1, 2, 3, 4]
    assert joined(other, "token_ids") == ([1, 8, 5] if second else [])
    assert [node["message"]["role"] for node in other] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert sum(node.get("sampled", False) for node in row["traces"][0]["nodes"]) == 2


def test_a_trace_of_a_broken_episode_has_an_error_and_no_reward(run):
    (row,) = trace_rows(run(failure(), rollouts_per_row=2), include_invalid=True)
    (trace,) = row["traces"]
    assert (row["ok"], trace["ok"], trace["rewards"]) == (False, False, {"reward": None})
    assert trace["errors"][0]["type"] == EndReason.ENV_CRASHED.value
    assert row["group"] == {"id": "lake-9"}


def test_traces_are_a_folder_that_verifiers_finds(run, tmp_path):
    assert export_traces(run(with_tokens(FIRST, SECOND)), tmp_path / "out") == 1
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["traces.jsonl"]


# The command.


def exported(run, output, form, rows=None, bare=False, inline_images=False, **chosen):
    return command.run(run.path, output, form, rows, chosen, bare=bare, inline_images=inline_images, fps=4.0)


def test_the_command_says_how_many_rows_there_are_and_which_episodes_have_none(run, tmp_path):
    folder = run(with_tokens(FIRST, ELSEWHERE), trajectory("dumb"))
    assert exported(folder, tmp_path / "a", "trl") == [
        f"{tmp_path / 'a'}: 2 rows",
        "muxsim: 1 episodes have no row: the endpoint told no token ids",
    ]
    assert exported(folder, tmp_path / "b", "parquet") == [f"{tmp_path / 'b'}: 2 episodes"]
    assert exported(folder, tmp_path / "c", "parquet", "verl")[0] == f"{tmp_path / 'c'}: 2 rows"
    assert exported(folder, tmp_path / "d", "verifiers") == [f"{tmp_path / 'd'}: 2 episodes"]
    with pytest.raises(MuxsimError, match="--rows goes with --format parquet and datasets; trl says itself"):
        exported(folder, tmp_path / "e", "trl", "trl")


@pytest.mark.parametrize(
    ("form", "how", "said"),
    [
        ("atif", {"bare": True}, "--bare says nothing of atif: it goes with --format chat, "),
        ("verifiers", {"bare": True}, "--bare says nothing of verifiers"),
        (
            "trl",
            {"inline_images": True},
            "--inline-images says nothing of trl: it goes with --format chat, verifiers, ",
        ),
        ("chat", {}, r"rows.parquet would be chat and no Parquet: add --format parquet"),
    ],
)
def test_what_would_be_passed_over_or_mistaken_is_refused(form, how, said, run, tmp_path):
    with pytest.raises(MuxsimError, match=said):
        exported(run(trajectory("a")), tmp_path / "rows.parquet", form, **how)
    assert not (tmp_path / "rows.parquet").exists()


def test_every_format_of_the_command_is_in_the_manual():
    manual = (ROOT / "docs" / "rollouts.md").read_text()
    assert {form for form in command.Form.__args__ if f"`{form}`" not in manual} == set()


# Where an export goes.


@pytest.mark.parametrize(
    "name", ["rollouts.jsonl", "config.json", "failures.jsonl", "images/x.png", "files/lake-0/new", "link"]
)
def test_nothing_that_a_run_consists_of_is_written_over(run, tmp_path, name):
    folder = run(trajectory())
    (folder.path / "link").symlink_to("rollouts.jsonl")
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    for write in (
        lambda file: export_rows(folder, file),
        lambda file: export_rows(folder, file, table="parquet"),
        lambda file: write_report(folder, file),
        lambda file: write_comparison(compare(folder, folder), [folder, folder], file),
    ):
        with pytest.raises(RunError, match=r"is a part of the run .*, and is not written over: name another file"):
            write(folder.path / name)
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before
    assert export_rows(folder, folder.path / "chat.jsonl") == 1


def test_an_episode_that_is_called_like_a_file_of_its_run_is_not_written_over_that(run):
    folder = run(trajectory("config"))
    with pytest.raises(RunError, match=r"config\.json is a part of the run"):
        export_atif(folder, folder.path)
    assert RunFolder(folder.path).config.environments


def test_a_file_is_written_into_a_new_folder_and_where_a_link_leads(run, tmp_path):
    export_rows(run(trajectory()), tmp_path / "a" / "b" / "rows.jsonl")
    (tmp_path / "link").symlink_to(tmp_path / "rows.jsonl")
    export_rows(RunFolder(tmp_path / "run"), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "rows.jsonl").read_bytes() == (tmp_path / "a" / "b" / "rows.jsonl").read_bytes()
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["rows.jsonl"]


def test_rows_go_to_stdout_and_only_they(run, tmp_path):
    run(trajectory())
    kept = tmp_path / "kept"
    for output in ("-", "/dev/stdout"):
        asked = [*MUXSIM, "export", "run", output]
        piped = subprocess.run(asked, cwd=tmp_path, capture_output=True, check=True)
        assert [json.loads(line)["id"] for line in piped.stdout.splitlines()] == ["lake-0"]
        assert piped.stderr.decode() == f"{output}: 1 episodes\n"
        kept.write_text("before\n")
        with kept.open("ab") as file:
            into = subprocess.run(asked, cwd=tmp_path, stdout=file, stderr=subprocess.PIPE, check=False)
        assert kept.read_text().startswith("before\n")
        assert (into.returncode, len(kept.read_text().splitlines())) == ((0, 2) if output == "-" else (2, 1))
    with pytest.raises(MuxsimError, match="atif cannot be written to stdout: name a file or folder"):
        exported(RunFolder(tmp_path / "run"), Path("-"), "atif")


def test_it_is_said_of_how_many_episodes_an_export_is(run, tmp_path):
    folder = run(trajectory(), failure("b"), trajectory("c", total_reward=None))
    output = tmp_path / "chat.jsonl"
    assert exported(folder, output, "chat") == [f"{output}: 2 of 3 episodes"]
    assert exported(folder, output, "chat", include_invalid=True) == [f"{output}: 3 episodes"]
    assert exported(folder, tmp_path / "atif", "atif", min_reward=0.5) == [f"{tmp_path / 'atif'}: 1 of 3 episodes"]


def test_two_episodes_of_one_name_are_two_files(run, tmp_path):
    folder = run(trajectory("a"))
    rows = folder.path / "rollouts.jsonl"
    rows.write_bytes(rows.read_bytes() * 2)
    assert [path.name for path in export_atif(folder, tmp_path / "atif")] == ["a.json", "a.2.json"]


def test_contents_of_any_form_have_a_place_in_a_table(run, tmp_path):
    parts = ["words", {"type": "text", "text": 5}, {"type": "image_url", "image_url": "data:x"}, {"type": "audio"}]
    contents = [parts, {"x": 1}, 7, None, "plain"]
    folder = run(trajectory(messages=[{"role": "user", "content": content} for content in contents]))
    export_rows(folder, tmp_path / "rows.parquet", table="parquet")
    (row,) = pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    first, *others = [message["content"] for message in row["messages"]]
    told = ['"words"', '{"type":"text","text":5}', {"url": "data:x"}, '{"type":"audio"}']
    assert [part["text"] or part["image_url"] for part in first] == told
    assert [content and content[0]["text"] for content in others] == ['{"x":1}', "7", None, "plain"]
