"""Rows from files of several formats, folders and pipes: the same whatever they stand in, and errors that say where."""

import csv
import functools
import gc
import gzip
import io
import json
import os
import threading
import types
import weakref
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxsim.rollouts.data import sources, spool
from muxsim.rollouts.data.dataset import dataset_from_rows, load_dataset
from muxsim.rollouts.data.rows import DatasetError, Row
from muxsim.rollouts.data.spool import SpooledRows, kept
from muxsim.rollouts.play.left import Left

ROWS = [
    {"id": "a", "env": "lake", "seed": 3, "prompt": "Cross it.", "info": {"answer": "x"}},
    {"id": "b", "env": "ring", "prompt": "Go, “round”:\n\t1"},
    {"id": "c", "seed": 0, "prompt": "Stay."},
]
# Deeper than anything that reads JSON goes.
DEEP = "[" * 100_000 + "]" * 100_000
TABLE = (
    "id,env,seed,prompt,info.answer\n"
    'a,lake,3,Cross it.,x\nb,ring,,"Go, “round”:\n\t1",\nc,,0,Stay.,\n'
)  # fmt: skip


def as_jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_parquet(rows):
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


TWICE = io.BytesIO()
pyarrow.parquet.write_table(pyarrow.table([pyarrow.array([1]), pyarrow.array([2])], names=["seed", "seed"]), TWICE)
TWICE = TWICE.getvalue()
# What begins as gzip: its first bytes alone, a torn head, and one with no stream of bytes behind it.
TORN = [b"\x1f\x8b", b"\x1f\x8b\x08\x00", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03AAAAAAAA", b"\x1f\x8bplain"]

FORMS = {
    "rows.jsonl": as_jsonl(ROWS),
    "rows.ndjson": as_jsonl(ROWS),
    "rows.csv": TABLE.encode(),
    "bom.csv": b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").replace("”:\r\n\t1", "”:\n\t1").encode(),
    "rows.parquet": as_parquet(ROWS),
    "rows.jsonl.gz": gzip.compress(as_jsonl(ROWS)),
    "rows.csv.gz": gzip.compress(TABLE.encode()),
    # Without a name that says what they are.
    "rows": as_jsonl(ROWS),
    "rows.txt": TABLE.encode(),
    "rows.bin": as_parquet(ROWS),
}


def said(dataset):
    """What rows say, wherever they stand; a row without a seed has one by its id."""
    return [(row.id, row.env, row.seed, row.prompt, row.info) for row in dataset.rows]


def fault(path, **options):
    with pytest.raises(DatasetError) as caught:
        load_dataset(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", FORMS)
def test_rows_are_the_same_whatever_they_stand_in(tmp_path, name):
    (tmp_path / name).write_bytes(FORMS[name])
    dataset = load_dataset(tmp_path / name)
    assert said(dataset) == said(dataset_from_rows(ROWS))
    assert dataset.sha256 == dataset_from_rows(ROWS).sha256


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet", "rows.jsonl.gz"])
def test_rows_come_through_a_pipe(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")

    def write():
        with (tmp_path / "pipe").open("wb") as out:
            out.write(FORMS[name])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert said(load_dataset(tmp_path / "pipe")) == said(dataset_from_rows(ROWS))
    finally:
        writer.join()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_rows_come_from_stdin(monkeypatch, name):
    stdin = types.SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(FORMS[name])), isatty=lambda: False)
    monkeypatch.setattr(sources.sys, "stdin", stdin)
    assert said(load_dataset("-")) == said(dataset_from_rows(ROWS))


def test_a_terminal_is_asked_for_nothing(monkeypatch):
    monkeypatch.setattr(sources.sys, "stdin", types.SimpleNamespace(buffer=None, isatty=lambda: True))
    assert fault("-") == "-: nothing is piped in: `make-rows | muxsim rollout --dataset -`"


def test_no_more_is_read_of_a_pipe_than_is_wanted(tmp_path):
    """As of one that never ends."""

    class Endless(io.RawIOBase):
        read_of_it = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            line = b'{"prompt": "on"}\n' * (len(buffer) // 17)
            buffer[: len(line)] = line
            self.read_of_it += len(line)
            return len(line)

    endless = Endless()
    source = sources._of_stream("pipe", io.BufferedReader(endless))
    for (number, value), _ in zip(source.records, range(5), strict=False):
        assert (number, value) == (number, {"prompt": "on"})
    assert endless.read_of_it < 100_000


def test_a_table_says_objects_in_json_or_in_columns_of_their_own(tmp_path):
    table = [
        {"prompt": '[{"role": "user", "content": "Play."}]', "environment_context": '{"map": "4x4", "seed": 5}'},
        {"prompt": "[Play]", "environment_context.map": "8x8", "environment_context.seed": " 7 ", "info": "[1, 2]"},
    ]
    columns = sorted({column for row in table for column in row})
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(table)
    first, second = load_dataset(tmp_path / "rows.csv").rows
    assert (first.prompt, first.seed) == ([{"role": "user", "content": "Play."}], 5)
    assert (second.prompt, second.seed, second.info) == ("[Play]", 7, [1, 2])
    assert [row.environment_context["map"] for row in (first, second)] == ["4x4", "8x8"]


def test_columns_with_other_names_are_named_and_the_rest_may_be_info(tmp_path):
    (tmp_path / "qa.csv").write_text("question,answer,level\nTwo?,2,easy\n")
    (row,) = load_dataset(tmp_path / "qa.csv", columns={"prompt": "question", "info": "*"}).rows
    assert (row.prompt, row.info) == ("Two?", {"answer": "2", "level": "easy"})
    (row,) = load_dataset(
        tmp_path / "qa.csv", columns={"prompt": "question", "info.right": "answer", "info.hard": "level"}
    ).rows
    assert row.info == {"right": "2", "hard": "easy"}
    where = f"{tmp_path / 'qa.csv'}, row 1"
    assert fault(tmp_path / "qa.csv", columns={"prompt": "ask"}) == (
        f"{where}: prompt = ask: no such column; there are: question, answer, level"
    )
    assert fault(tmp_path / "qa.csv", columns={"info": "*", "environment_context": "*"}) == (
        f"{where}: environment_context = *: info has all that is left already; name columns"
    )
    assert fault(tmp_path / "qa.csv", columns={"prompt": "question"}).startswith(f"{where}: answer = ")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", "id,seed\na,1\nb,x\n", 'row 2: seed = "x": a seed is a whole number from 0 to'),
        ("rows.csv", "id,sed\na,1\n", 'row 1: sed = "1": no such key; did you mean seed?'),
        ("rows.jsonl", '{"info":' + DEEP + "}\n", "line 1: is not JSON: maximum recursion depth"),
        ("rows.csv", f"id,info\na,{DEEP}\n", "row 1: info = "),
        ("rows.csv", "id,question\na,q\n", "under info, or use --column (id, env, "),
        ("rows.csv", "id,seed\na,1,2\n", "row 1 (line 2): has 3 cells, and there are 2 columns"),
        ("rows.csv", 'id,prompt\na,"p\nb,q\n', "row 1: is no CSV: unexpected end of data"),
        ("rows.csv", "id,id\na,b\n", 'has no name or one of two columns: "id"; the first line names each column'),
        ("rows.csv", "id,info\na,not json\n", 'row 1: info = "not json": is not JSON: '),
        ("rows.csv", "id,info,info.x\na,[],1\n", "row 1: info.x: stands beside info, which is no object"),
        ("rows.csv", "id,info.x,info\na,1,[]\n", "row 1: info.x: stands beside info, which is no object"),
        ("rows.csv", 'id,info,info.x\na,"{""x"": 2}",1\n', "row 1: info.x: stands in info too; keep one of the two"),
        ("rows.csv", f"id,seed\na,{'9' * 5000}\n", 'row 1: seed = "999'),
        ("rows.csv", "id,seed\na,1\na,2\n", 'row 2: id = "a": '),
        ("rows.csv", "id,seed\n", "has no rows"),
        ("rows.csv", "", "has no rows"),
        ("rows.csv", b"id,prompt\na,\xff\n", "is not UTF-8: "),
        ("rows.parquet", "PAR1 it is not", "cannot be read as Parquet: "),
        ("rows.parquet", as_parquet([{"id": "a", "prompt": 7}]), "row 1: prompt = 7: must be text"),
        ("rows.parquet", as_parquet([{"id": "a", "info": [{"x": b"1"}]}, {"id": "a"}]), 'row 2: id = "a": '),
        ("rows.parquet", TWICE, 'has two columns that are called "seed": rename one'),
        *[(name, packed, "cannot be read: ") for name in ("rows.jsonl", "rows") for packed in TORN],
        ("rows.jsonl.gz", gzip.compress(as_jsonl(ROWS), mtime=0)[:-12], "cannot be read: "),
        ("rows.jsonl.gz", gzip.compress(as_jsonl(ROWS), mtime=0)[:30] + b"????" * 9, "cannot be read: "),
    ],
)
def test_a_fault_names_file_row_column_and_what_to_do(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    told = fault(tmp_path / name)
    assert told.startswith(f"{tmp_path / name}")
    assert message in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a"}, {"id": "a"}], "row 0 has this id"),
        ([{"id": "row-1"}, {}], "row 0 has this id"),
        ([{}, {"id": "row-0"}], "row 0 has this id"),
    ],
)
def test_two_rows_with_one_id_are_refused_whoever_gave_it(rows, message):
    with pytest.raises(DatasetError, match=message):
        dataset_from_rows(rows)


def test_a_cell_may_be_as_long_as_a_document(tmp_path):
    before = csv.field_size_limit()
    (tmp_path / "long.csv").write_text(f"id,prompt\na,{'x' * 1_000_000}\n")
    [row] = load_dataset(tmp_path / "long.csv").rows
    assert len(row.prompt) == 1_000_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("depth", [199, 200, 900, 5_000])
def test_a_row_is_no_deeper_than_what_is_made_of_it_can_be_written(depth, tmp_path):
    info = functools.reduce(lambda inside, _: [inside], range(depth), 1)
    (tmp_path / "rows.jsonl").write_text(f'{{"info": {"[" * depth}1{"]" * depth}}}\n')
    for read in (lambda: dataset_from_rows([{"info": info}]), lambda: load_dataset(tmp_path / "rows.jsonl")):
        if depth < 200:
            assert [row.info for row in read().rows] == [info]
        else:
            with pytest.raises(DatasetError, match=r"is nested more than 200 deep|recursion depth"):
                read()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("tasks.jsonl", r"'tasks.jsonl' names rows, and is none: give muxsim.load_dataset\('tasks.jsonl'\)"),
        (Path("tasks.jsonl"), "names rows"),
        (b"{}", "names rows"),
        ({"env": "lake"}, "is one row: give a list of rows"),
        (32, "32 is no rows: give a list"),
        (None, "None is no rows"),
    ],
)
def test_what_is_no_rows_is_told_as_that_to_a_list_and_to_an_iterator(rows, message):
    with pytest.raises(DatasetError, match=message):
        dataset_from_rows(rows)
    with pytest.raises(DatasetError, match=message):
        Left(rows, ["lake"], rollouts_per_row=1, skip=frozenset())


@given(st.lists(st.none() | st.sampled_from([f"row-{number}" for number in range(6)]), max_size=6))
def test_ids_are_refused_if_and_only_if_two_rows_have_one(ids):
    rows = [{"prompt": "p", **({} if id is None else {"id": id})} for id in ids]
    names = [f"row-{number}" if id is None else id for number, id in enumerate(ids)]
    second = next((number for number, name in enumerate(names) if name in names[:number]), None)
    if second is None:
        assert [row.id for row in dataset_from_rows(rows).rows] == names
        return
    with pytest.raises(DatasetError) as caught:
        dataset_from_rows(rows)
    first = names.index(names[second])
    assert str(caught.value).startswith(f'row {second}: id = "{names[second]}": row {first} has this id')


# Folders.


def test_a_folder_of_files_has_their_names_as_splits(tmp_path):
    (tmp_path / "README.md").write_text("rows")
    (tmp_path / "train-00000-of-00002.parquet").write_bytes(as_parquet(ROWS[:1]))
    (tmp_path / "train-00001-of-00002.parquet").write_bytes(as_parquet([{"id": None, "prompt": "x"}, ROWS[2]]))
    (tmp_path / "test.jsonl").write_bytes(as_jsonl(ROWS[:2]))
    train = load_dataset(tmp_path, split="train")
    assert [row.id for row in train.rows] == ["a", "row-2", "c"]
    assert [row.id for row in load_dataset(tmp_path, split="test").rows] == ["a", "b"]
    assert fault(tmp_path) == f"{tmp_path}: has the splits test, train: choose one with --split"
    assert fault(tmp_path, split="dev") == f"{tmp_path}: split = dev: no such split; there are: test, train"
    assert "one file has no splits" in fault(tmp_path / "test.jsonl", split="test")


def test_a_folder_with_one_split_needs_no_choice_and_data_may_be_below(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl.gz").write_bytes(gzip.compress(as_jsonl(ROWS)))
    assert said(load_dataset(tmp_path)) == said(dataset_from_rows(ROWS))


@pytest.mark.parametrize("packed", [*TORN, gzip.compress(as_parquet(ROWS))[:-40]])
def test_what_is_torn_is_told_wherever_it_comes_from(tmp_path, monkeypatch, packed):
    for shard in ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"):
        (tmp_path / shard).write_bytes(packed)
    assert fault(tmp_path).startswith(f"{tmp_path / 'train-00000-of-00002.jsonl'}")
    stdin = types.SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(packed)), isatty=lambda: False)
    monkeypatch.setattr("sys.stdin", stdin)
    assert fault("-").startswith("-: cannot be read: ")


def test_shards_of_lines_mean_what_one_file_of_them_means(tmp_path):
    row = {"id": "a", "info": "some text", "prompt": '[{"no": "message"}]'}
    (tmp_path / "train-00000-of-00002.jsonl").write_bytes(as_jsonl([row]))
    (tmp_path / "train-00001-of-00002.JSONL.gz").write_bytes(gzip.compress(as_jsonl([{**row, "id": "b"}])))
    assert [(one.info, one.prompt) for one in load_dataset(tmp_path).rows] == [(row["info"], row["prompt"])] * 2
    (tmp_path / "train.csv").write_text(TABLE)
    assert "tables and JSON lines are one split here (train-00000-of-00002.jsonl, " in fault(tmp_path)


def test_a_folder_of_something_else_is_no_dataset(tmp_path):
    assert "is neither a saved dataset nor a folder of files (.jsonl" in fault(tmp_path)


def test_what_a_source_needs_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "find_spec", lambda _: None)
    (tmp_path / "state.json").write_text("{}")
    assert fault(tmp_path) == f"{tmp_path}: needs the package datasets: pip install 'mcp-muxsim[datasets]'"
    assert fault("hf:gsm8k") == "hf:gsm8k: needs the package datasets: pip install 'mcp-muxsim[datasets]'"
    (tmp_path / "rows.parquet").write_bytes(as_parquet(ROWS))
    assert "needs the package pyarrow: pip install 'mcp-muxsim[data]'" in fault(tmp_path / "rows.parquet")


# Some of the rows, and in another order.


def test_a_limit_takes_the_first_rows_and_reads_no_further(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl(ROWS) + b"and this is none\n")
    assert [row.id for row in load_dataset(tmp_path / "rows.jsonl", limit=2).rows] == ["a", "b"]
    assert fault(tmp_path / "rows.jsonl", limit=0) == "limit = 0: at least one is needed"


def test_an_order_is_drawn_from_its_seed_and_rows_keep_their_names(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(as_jsonl([{"prompt": str(number)} for number in range(40)]))
    whole = load_dataset(tmp_path / "rows.jsonl")
    ones = [load_dataset(tmp_path / "rows.jsonl", shuffle=seed) for seed in (1, 1, 2)]
    assert ones[0].rows == ones[1].rows != ones[2].rows
    assert ones[0].sha256 != whole.sha256
    assert sorted(ones[0].rows, key=lambda row: row.where) == sorted(whole.rows, key=lambda row: row.where)
    some = load_dataset(tmp_path / "rows.jsonl", shuffle=1, limit=5)
    assert some.rows == ones[0].rows[:5]


# More rows than memory should hold.


TEXTS = st.text(max_size=8)


@settings(max_examples=30)
@given(
    st.lists(
        st.builds(
            Row,
            id=TEXTS,
            seed=st.integers(0, 9),
            prompt=st.none() | TEXTS,
            info=st.none() | st.just({"a": [1.5, None]}),
        ),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_rows_in_a_file_are_the_rows(rows, random):
    spooled = SpooledRows(rows)
    assert (len(spooled), list(spooled)) == (len(rows), rows)
    order = random.sample(range(len(rows)), k=random.randint(0, len(rows)))
    assert list(spooled.in_order(order)) == [rows[place] for place in order]
    assert list(spooled.in_order(order)[1:3]) == [rows[place] for place in order[1:3]]
    assert rows == [spooled[place - len(rows)] for place in range(len(rows))]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.parquet"])
def test_no_more_rows_are_in_memory_than_the_bound_says(tmp_path, monkeypatch, name):
    monkeypatch.setattr(spool, "MOST_IN_MEMORY", 20)
    count = 2000
    table = [{"id": f"r{number}", "seed": number, "prompt": "p"} for number in range(count)]
    text = "id,seed,prompt\n" + "".join(f"r{number},{number},p\n" for number in range(count))
    content = {"rows.jsonl": as_jsonl(table), "rows.csv": text.encode(), "rows.parquet": as_parquet(table)}[name]
    (tmp_path / name).write_bytes(content)
    most, made = 0, weakref.WeakSet()

    class Seen(Row):
        __hash__, __eq__ = object.__hash__, object.__eq__

        def __init__(self, **members):
            nonlocal most
            super().__init__(**members)
            made.add(self)
            most = max(most, len(made))

    monkeypatch.setattr("muxsim.rollouts.data.rows.Row", Seen)
    dataset = load_dataset(tmp_path / name, shuffle=1).with_environments(["lake"])
    gc.collect()
    assert 20 < most <= 25
    assert isinstance(dataset.rows, SpooledRows)
    assert len(dataset.episodes(3)) == 3 * count
    assert sorted(episode.row.seed for episode in dataset.episodes()) == list(range(count))
    assert dataset.episodes(3)[-1].id == f"{dataset.rows[-1].id}#2"


def test_few_rows_are_kept_as_they_are():
    rows = dataset_from_rows(ROWS).rows
    assert kept(rows) == tuple(rows)
