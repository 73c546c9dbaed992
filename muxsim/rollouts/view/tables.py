"""Rows of an export as a JSONL file, a Parquet file, or a folder of Hugging Face's `datasets`.

A table has one type for each of its columns, so what differs from row to row, tools, scores and files, is JSON in text
there. Parquet needs pyarrow, the folder `datasets` (the extras `data` and `datasets`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, get_args

import msgspec

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.images import url_of
from muxsim.rollouts.data.run_folder import RunFolder, keep_runs
from muxsim.rollouts.data.trajectory import Trajectory, shown_to_agent
from muxsim.rollouts.view.fate import fate_of
from muxsim.rollouts.view.selection import Selection
from muxsim.rollouts.view.token_rows import TOKEN_FORMS, TokenForm, token_rows, turn_rows
from muxsim.rollouts.view.writing import whole

RowForm = Literal["chat", "tokens", "trl", "sft", "verl"]
TableForm = Literal["jsonl", "parquet", "datasets"]
ROW_FORMS: Final[tuple[RowForm, ...]] = get_args(RowForm)
# In memory at a time, and a group of a Parquet file.
_ROWS_AT_ONCE: Final = 256
_NO_TOKENS: Final = (
    "none of these episodes has token ids: play them with --token-ids against an endpoint that tells them, such as vLLM"
)

Json = dict[str, Any]


class ExportError(MuxsimError):
    """A run could not be exported. The message names the file."""


def chat_rows(run: RunFolder, *, inline_images: bool = False, bare: bool = False, **chosen: Any) -> Iterator[Json]:
    """``{"messages", "tools"}`` of each episode in OpenAI's format, free of the control plane, and what became of it.

    ``tokens`` has the tokens of each reply, where an endpoint has told any: ``prompt_token_ids``, ``token_ids``,
    ``logprobs`` and a ``loss_mask`` over both, 1 for what was sampled; null for a reply of which it has told none.
    ``inline_images`` makes images ``data:`` URLs; otherwise they are files of the run, ``images/<sha256>.png``.
    ``bare`` leaves out what OpenAI's files for fine-tuning do not have: tokens, id, row, sample, env, seed, reward, end
    reason and validity. ``chosen`` are fields of `Selection`.
    """
    for trajectory in Selection(**chosen).of(run):
        messages = shown_to_agent(trajectory.messages)
        row = {"messages": run.with_images(messages) if inline_images else messages, "tools": trajectory.tools}
        tokens = turn_rows(trajectory)
        yield row if bare else row | ({"tokens": tokens} if any(tokens) else {}) | fate_of(trajectory)


def export_rows(
    run: RunFolder,
    output: str | Path | BinaryIO,
    *,
    rows: RowForm = "chat",
    table: TableForm = "jsonl",
    inline_images: bool = False,
    bare: bool = False,
    left_out: Callable[[Trajectory, str], object] | None = None,
    **chosen: Any,
) -> int:
    """Write `chat_rows` or `token_rows` as a file or folder, whole or not at all; returns how many.

    JSONL may go to a stream. ``left_out`` is called for each episode without tokens, with the reason. Raises
    `ExportError`, and `RunError`.
    """
    stream, path = (None, Path(output)) if isinstance(output, str | Path) else (output, Path("-"))
    if stream is not None and table != "jsonl":
        raise ExportError(f"{table} goes to no stream: name a file or folder")
    if rows == "chat":
        found = chat_rows(run, inline_images=inline_images, bare=bare, **chosen)
    else:
        found = token_rows(Selection(**chosen).of(run), rows, bare=bare, left_out=left_out)
    counted = _Counted(found)
    try:
        if stream is not None:
            _write_lines(counted, stream, rows)
            stream.flush()
        elif table == "jsonl":
            _write_jsonl(counted, path, rows)
        else:
            _package(*(("pyarrow", "data") if table == "parquet" else ("datasets", "datasets")))
            parts = rows == "chat" and any(_has_parts(one) for one in Selection(**chosen).of(run))
            write = _write_parquet if table == "parquet" else _write_folder
            write(counted, path, _Columns(rows, bare=bare, parts=parts))
    except OSError as error:
        raise ExportError(f"{path} could not be written: {error.strerror or error}") from None
    return counted.count


class _Counted:
    """Rows that are counted as they go by."""

    def __init__(self, rows: Iterable[Json]) -> None:
        self._rows = rows
        self.count = 0

    def __iter__(self) -> Iterator[Json]:
        for row in self._rows:
            self.count += 1
            yield row


def _write_jsonl(rows: _Counted, output: Path, form: RowForm) -> None:
    with whole(output) as unfinished, unfinished.open("wb") as out:
        _write_lines(rows, out, form)


def _write_lines(rows: _Counted, out: BinaryIO, form: RowForm) -> None:
    for row in rows:
        out.write(msgspec.json.encode(row) + b"\n")
    _check_tokens(rows, form)


def _check_tokens(rows: _Counted, form: RowForm) -> None:
    if form in TOKEN_FORMS and not rows.count:
        raise ExportError(_NO_TOKENS)


class _Columns:
    """The columns of a table, and rows as it takes them."""

    def __init__(self, form: RowForm, *, bare: bool, parts: bool) -> None:
        self._parts = parts
        self._pyarrow = _package("pyarrow", "data")
        self.form = form
        self.schema = self._pyarrow.schema([*self._of(form), *(() if bare else self._of_fate(form))])

    def table(self, rows: Iterable[Json]) -> Any:
        """The rows as a table of pyarrow's."""
        return self._pyarrow.Table.from_pylist([self._row(row) for row in rows], schema=self.schema)

    def _row(self, row: Json) -> Json:
        row = {**row}
        for name in ("tools", "scores", "files"):
            if name in row:
                row[name] = msgspec.json.encode(row[name]).decode()
        if "messages" in row:
            row["messages"] = [self._message(message) for message in row["messages"]]
        return row

    def _message(self, message: Json) -> Json:
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):  # a dataset's prompt may bring anything
            content = _as_text(content)
        if self._parts and isinstance(content, str):
            content = [{"type": "text", "text": content}]
        elif self._parts and content is not None:
            content = [_part(part) for part in content]
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        calls = [_call(call) for call in message.get("tool_calls") or ()]
        return {
            "role": message.get("role"),
            "content": content,
            "reasoning_content": reasoning if isinstance(reasoning, str) else None,
            "tool_calls": calls or None,
            "tool_call_id": message.get("tool_call_id"),
        }

    def _of(self, form: RowForm) -> list[tuple[str, Any]]:
        arrow = self._pyarrow
        ids, mask, logprobs = arrow.list_(arrow.int32()), arrow.list_(arrow.int8()), arrow.list_(arrow.float64())
        if form == "chat":
            turn = {"prompt_token_ids": ids, "token_ids": ids, "logprobs": logprobs, "loss_mask": mask}
            turns = arrow.list_(arrow.struct({**turn, "problem": arrow.string()}))
            return [("messages", self._messages()), ("tools", arrow.string()), ("tokens", turns)]
        seconds = arrow.struct({"generate_sequences": arrow.float64(), "tool_calls": arrow.float64()})
        columns: dict[TokenForm, Json] = {
            "tokens": {"prompt_token_ids": ids, "token_ids": ids, "loss_mask": mask, "logprobs": logprobs},
            "trl": {"prompt_ids": ids, "completion_ids": ids, "env_mask": mask, "logprobs": logprobs},
            "sft": {"input_ids": ids, "labels": ids},
            "verl": {
                "prompt_ids": ids,
                "response_ids": ids,
                "response_mask": mask,
                "response_logprobs": logprobs,
                "reward_score": arrow.float64(),
                "num_turns": arrow.int32(),
                "metrics": seconds,
            },
        }
        return list(columns[form].items())

    def _messages(self) -> Any:
        text, struct, list_ = self._pyarrow.string(), self._pyarrow.struct, self._pyarrow.list_
        part = struct({"type": text, "text": text, "image_url": struct({"url": text})})
        call = struct({"id": text, "type": text, "function": struct({"name": text, "arguments": text})})
        content = list_(part) if self._parts else text
        message = {"role": text, "content": content, "reasoning_content": text}
        return list_(struct({**message, "tool_calls": list_(call), "tool_call_id": text}))

    def _of_fate(self, form: RowForm) -> list[tuple[str, Any]]:
        text, whole, number = self._pyarrow.string(), self._pyarrow.int64(), self._pyarrow.float64()
        place = {"segment": whole, "segments": whole, "turn": whole, "turns": whole, "begins": text}
        names = {"id": text, "row": text, "sample": whole, "env": text, "seed": whole, "reward": number}
        rest = {"scores": text, "end_reason": text, "valid": self._pyarrow.bool_(), "files": text}
        return list({**({} if form == "chat" else place), **names, **rest}.items())


def _call(call: Json) -> Json:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    named = {"name": str(function.get("name", "")), "arguments": text}
    return {"id": str(call.get("id", "")), "type": "function", "function": named}


def _part(part: Any) -> Json:
    """A part of a message in the columns that there are for it; what has none of them is JSON in its text."""
    text, url = (part.get("text"), url_of(part)) if isinstance(part, dict) else (None, "")
    if url:
        return {"type": "image_url", "image_url": {"url": url}}
    if isinstance(text, str):
        return {"type": "text", "text": text}
    return {"type": "text", "text": _as_text(part)}


def _as_text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _has_parts(trajectory: Trajectory) -> bool:
    return any(isinstance(message.get("content"), list) for message in trajectory.messages)


def _write_parquet(rows: _Counted, output: Path, columns: _Columns) -> None:
    parquet = _package("pyarrow.parquet", "data")
    with whole(output) as unfinished, parquet.ParquetWriter(unfinished, columns.schema, compression="zstd") as out:
        left = iter(rows)
        while some := list(islice(left, _ROWS_AT_ONCE)):
            out.write_table(columns.table(some))
        _check_tokens(rows, columns.form)


def _write_folder(rows: _Counted, output: Path, columns: _Columns) -> None:
    """By way of a Parquet file: it is read in pieces, so that no run has to fit in memory."""
    datasets = _package("datasets", "datasets")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ExportError(f"{output} is there already: name a folder that is new or empty")
    keep_runs(output / "dataset_info.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        _write_parquet(rows, beside / "rows.parquet", columns)
        with _quiet(datasets):
            file, cache = str(beside / "rows.parquet"), str(beside / "cache")
            if rows.count:
                features = datasets.Features.from_arrow_schema(columns.schema)
                read = datasets.Dataset.from_parquet(file, features=features, cache_dir=cache)
            else:  # from a file without rows it cannot tell that there is a split
                read = datasets.Dataset(columns.schema.empty_table())
            read.save_to_disk(str(beside / "folder"), num_shards=None if rows.count else 1)
        if output.exists():
            output.rmdir()
        (beside / "folder").replace(output)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _package(name: str, extra: str) -> Any:
    """A package that not everybody has. Raises `ExportError`."""
    top = name.partition(".")[0]
    if find_spec(top) is None:
        raise ExportError(f"this needs the package {top}: pip install 'mcp-muxsim[{extra}]'")
    return import_module(name)
