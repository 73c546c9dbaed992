"""Where the rows of a dataset come from: files of several formats, folders, pipes, Hugging Face's `datasets`.

Each gives records, one at a time: a number and what stands there. What a record means is for `rollouts.data.rows`.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec

from muxsim.rollouts.data.rows import DatasetError, shown

_BOM: Final = b"\xef\xbb\xbf"
_GZIP: Final = b"\x1f\x8b"
_PARQUET: Final = b"PAR1"
_STDIN: Final = "-"
_HUB: Final = "hf:"
_BATCH: Final = 256
# How far a pipe is looked into for what it is.
_SNIFFED: Final = 512
_LONGEST_CELL: Final = 2**31 - 1
_SUFFIXES: Final = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv"}
_TABLE: Final = ".parquet"
# train.jsonl, train-00000-of-00002.parquet
_SPLIT: Final = re.compile(r"(?P<split>.+?)(-\d+-of-\d+)?")

Record = tuple[int, Any]


@dataclass(frozen=True)
class Source:
    """Records of one place, each called ``unit`` and its number; ``name`` is the place as errors name it.

    Those of a ``table`` have a cell for each column (`rollouts.data.columns`).
    """

    name: str
    unit: str
    records: Iterable[Record]
    table: bool = True

    def where(self, number: int) -> str:
        """A record, as errors name it."""
        place = f"{self.unit} {number}"
        return f"{self.name}, {place}" if self.name else place


def open_source(path: str | Path, *, split: str | None = None) -> Source:
    """What ``path`` names: a file, ``-`` for stdin or a pipe, a folder, or ``hf:NAME`` and ``hf:NAME:CONFIG``.

    Raises `DatasetError`, here or where its records are read.
    """
    name = str(path)
    if name.startswith(_HUB):
        return _of_hub(name, split)
    if name == _STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            raise DatasetError("nothing is piped in: `make-rows | muxsim rollout --dataset -`", where="-")
        with _reading(name):
            return _single(name, _of_stream(name, sys.stdin.buffer), split)
    with _reading(name):
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            return _of_folder(Path(path), split)
        if stat.S_ISREG(mode):
            return _single(name, _of_file(Path(path), name), split)
        return _single(name, _of_stream(name, Path(path).open("rb")), split)


def require_rows(rows: Any) -> None:
    """Raises `DatasetError` for what a program may give by mistake in the place of its rows."""
    if isinstance(rows, str | bytes | Path):
        raise DatasetError(f"{rows!r:.80} names rows, and is none: give muxsim.load_dataset({rows!r:.80})")
    if isinstance(rows, Mapping):
        raise DatasetError(f"{rows!r:.80} is one row: give a list of rows")
    if not isinstance(rows, Iterable):
        raise DatasetError(f"{rows!r:.80} is no rows: give a list or an iterator of dicts, or a dataset")


def source_of_rows(rows: Iterable[Any]) -> Source:
    """Rows that a program makes, numbered from 0. Raises `DatasetError`: they are none."""
    require_rows(rows)
    return Source("", "row", enumerate(rows), table=False)


def _single(name: str, source: Source, split: str | None) -> Source:
    if split is not None:
        raise DatasetError("one file has no splits: name a folder of files, or leave --split out", where=name)
    return source


# Files and pipes.


def _of_file(path: Path, name: str) -> Source:
    last = _suffix(path)
    if last == _TABLE:
        return Source(name, "row", _parquet(path, name))
    form = _SUFFIXES.get(last)
    with path.open("rb") as file:
        if form is None and file.read(len(_PARQUET)) == _PARQUET:
            return Source(name, "row", _parquet(path, name))
    return _of_text(name, lambda: path.open("rb"), form)


def _suffix(path: Path) -> str:
    """What a name says of its file, packed or not."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        del suffixes[-1]
    return suffixes[-1] if suffixes else ""


def _is_table(path: Path) -> bool:
    return _SUFFIXES.get(_suffix(path)) != "jsonl"


def _of_stream(name: str, stream: BinaryIO) -> Source:
    """A pipe is read once, from its beginning: what it is shows there."""
    file = _plain(stream)
    if _peek(file).startswith(_PARQUET):
        return Source(name, "row", _piped_parquet(file, name))
    return _of_text(name, lambda: file, None)


def _of_text(name: str, opened: Any, form: str | None) -> Source:
    file = _plain(opened())
    if form is None:
        form = "jsonl" if _peek(file).removeprefix(_BOM).lstrip()[:1] in (b"{", b"[", b"") else "csv"
    if form == "jsonl":
        return Source(name, "line", _jsonl(file, name), table=False)
    return Source(name, "row", _csv(file, name, "\t" if form == "tsv" else ","))


def _plain(stream: BinaryIO) -> io.BufferedReader:
    """The stream with a look ahead, unpacked if it is gzip."""
    buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, stream))
    if _peek(buffered).startswith(_GZIP):
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=buffered)))
    return buffered


def _peek(file: io.BufferedReader) -> bytes:
    return file.peek(_SNIFFED)[:_SNIFFED]


def _jsonl(file: io.BufferedReader, name: str) -> Iterator[Record]:
    with file:
        for number, line in enumerate(_read(file, name), 1):
            text = line.removeprefix(_BOM) if number == 1 else line
            if not text.strip():
                continue
            if number == 1 and text.lstrip().startswith(b"["):
                advice = "is one JSON array; a dataset has one object on each line: `jq -c '.[]'` makes it"
                raise DatasetError(advice, where=name)
            try:
                yield number, msgspec.json.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise DatasetError(f"is not JSON: {error}", where=f"{name}, line {number}") from None


def _csv(file: io.BufferedReader, name: str, delimiter: str) -> Iterator[Record]:
    number = 0
    with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.reader(_read(text, name), delimiter=delimiter, strict=True)
        rows = _cells(reader)
        try:
            header = next(rows, [])
            for column in header:
                if not column.strip() or header.count(column) > 1:
                    problem = f"has no name or one of two columns: {shown(column)}; the first line names each column"
                    raise DatasetError(problem, where=name)
            for number, cells in enumerate(rows, 1):
                if not cells:
                    continue
                if len(cells) != len(header):
                    advice = f"has {len(cells)} cells, and there are {len(header)} columns"
                    raise DatasetError(advice, where=f"{name}, row {number} (line {reader.line_num})")
                yield number, {column: cell or None for column, cell in zip(header, cells, strict=True)}
        except csv.Error as error:
            raise DatasetError(f"is no CSV: {error}", where=f"{name}, row {number + 1}") from None


def _cells(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """Its rows, however long a cell is: csv has one bound for all of a process, of 128 KiB, which is put back."""
    while True:
        before = csv.field_size_limit(_LONGEST_CELL)
        try:
            cells = next(reader, None)
        finally:
            csv.field_size_limit(before)
        if cells is None:
            return
        yield cells


def _read(lines: Iterable[Any], name: str) -> Iterator[Any]:
    with _reading(name):
        yield from lines


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Whatever reads a file stands in it: also a look ahead unpacks what may be no gzip."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DatasetError(f"is not UTF-8: {error}", where=name) from None
    except (OSError, EOFError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) else None
        raise DatasetError(f"cannot be read: {why or error}", where=name) from None


# Tables.


def _parquet(path: Any, name: str) -> Iterator[Record]:
    arrow, parquet = _package("pyarrow", "data", name), _package("pyarrow.parquet", "data", name)
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if twice := [column for column in columns if columns.count(column) > 1]:
                raise DatasetError(f"has two columns that are called {shown(twice[0])}: rename one", where=name)
            for batch in file.iter_batches(batch_size=_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _of_table(row, f"{name}, row {number}")
    except (OSError, arrow.ArrowException) as error:
        raise DatasetError(f"cannot be read as Parquet: {_in_one_line(error)}", where=name) from None


def _piped_parquet(file: BinaryIO, name: str) -> Iterator[Record]:
    """What a Parquet file has stands at its end."""
    with tempfile.TemporaryFile(prefix="muxsim-") as whole:
        with _reading(name):
            shutil.copyfileobj(file, whole)
        whole.seek(0)
        yield from _parquet(whole, name)


def _of_table(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row as JSON has it."""
    return {column: _plain_json(cell, column, where) for column, cell in row.items()}


def _plain_json(cell: Any, column: str, where: str) -> Any:
    try:
        return msgspec.json.decode(msgspec.json.encode(cell))
    except (TypeError, ValueError):
        kind = type(cell).__name__
        raise DatasetError(f"has no JSON form ({kind}); leave the column out", where=where, key=column) from None


# Hugging Face.


def _of_hub(name: str, split: str | None) -> Source:
    datasets = _package("datasets", "datasets", name)
    faults = _package("datasets.exceptions", "datasets", name)
    path, _, config = name.removeprefix(_HUB).partition(":")
    if not path:
        raise DatasetError("names no dataset: write hf:NAME, or hf:NAME:CONFIG", where=name)
    try:
        found = datasets.load_dataset(path, config or None, split=split)
    except (OSError, ValueError, ImportError, faults.DatasetsError) as error:  # of the hub, and of what is there
        why = f": {_in_one_line(error.__cause__)}" if isinstance(error.__cause__, Exception) else ""
        raise DatasetError(f"cannot be loaded: {_in_one_line(error)}{why}", where=name) from None
    return Source(name, "row", _of_datasets(_one_split(found, name, split), name))


def _of_datasets(rows: Any, name: str) -> Iterator[Record]:
    for number, row in enumerate(rows, 1):
        yield number, _of_table(row, f"{name}, row {number}")


def _one_split(found: Any, name: str, split: str | None) -> Any:
    """A split of several, which are a dict there."""
    return found[_split_of(list(found), name, split)] if isinstance(found, dict) else found


def _split_of(splits: list[str], name: str, split: str | None) -> str:
    choice = ", ".join(splits)
    if split is None:
        if len(splits) == 1:
            return splits[0]
        raise DatasetError(f"has the splits {choice}: choose one with --split", where=name)
    if split not in splits:
        raise DatasetError(f"no such split; there are: {choice}", where=name, key="split", value=split)
    return split


def _of_folder(path: Path, split: str | None) -> Source:
    name = str(path)
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        datasets = _package("datasets", "datasets", name)
        try:
            found = datasets.load_from_disk(name)
        except (OSError, ValueError) as error:
            raise DatasetError(f"cannot be loaded: {_in_one_line(error)}", where=name) from None
        except (LookupError, TypeError) as error:  # it has other members than `save_to_disk` writes
            raise DatasetError(f"is no dataset that was saved whole: {error!r}", where=name) from None
        if split is not None and not isinstance(found, dict):
            raise DatasetError("was saved without splits: leave --split out", where=name, key="split", value=split)
        return Source(name, "row", _of_datasets(_one_split(found, name, split), name))
    files = _files_of(path)
    if not files:
        known = ", ".join([*_SUFFIXES, _TABLE])
        raise DatasetError(f"is neither a saved dataset nor a folder of files ({known})", where=name)
    chosen = files[_split_of(sorted(files), name, split)]
    if len(chosen) == 1:
        return _of_file(chosen[0], str(chosen[0]))
    place = f"{name}, {split or next(iter(files))}"
    table = {_is_table(file) for file in chosen}
    if len(table) > 1:
        names = ", ".join(file.name for file in chosen)
        raise DatasetError(f"tables and JSON lines are one split here ({names}): keep one kind", where=place)
    return Source(place, "row", _one_after_the_other(chosen), table=table.pop())


def _files_of(path: Path) -> dict[str, list[Path]]:
    """The files of each split, of the folder itself, or of its `data` as on Hugging Face's hub."""
    for folder in (path, path / "data"):
        found: dict[str, list[Path]] = {}
        for file in sorted(folder.glob("*")):
            if file.is_file() and (_suffix(file) in _SUFFIXES or _suffix(file) == _TABLE):
                match = _SPLIT.fullmatch(file.name.partition(".")[0])
                found.setdefault(match["split"] if match else file.name, []).append(file)
        if found:
            return found
    return {}


def _one_after_the_other(files: list[Path]) -> Iterator[Record]:
    """The records of the shards of one split, numbered through."""
    number = 0
    for file in files:
        with _reading(str(file)):
            records = _of_file(file, str(file)).records
        for _, value in records:
            number += 1
            yield number, value


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _package(module: str, extra: str, where: str) -> Any:
    """A package that not everybody has. Raises `DatasetError`."""
    name = module.partition(".")[0]
    if find_spec(name) is None:
        raise DatasetError(f"needs the package {name}: pip install 'mcp-muxsim[{extra}]'", where=where)
    return import_module(module)
