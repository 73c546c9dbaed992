"""``muxsim export``: a run in a format of other tools."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from muxsim.cli.options import Form
from muxsim.errors import MuxsimError
from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.data.trajectory import Trajectory
from muxsim.rollouts.view import export as exports
from muxsim.rollouts.view.tables import ROW_FORMS, RowForm, TableForm, export_rows

_TABLES: Final = ("parquet", "datasets")
_STDOUT: Final = "-"
_CHAT: Final[RowForm] = "chat"
# With which formats an option goes that says how.
_FORMS_OF: Final[dict[str, tuple[str, ...]]] = {
    "--bare": (*ROW_FORMS, *_TABLES),
    "--inline-images": (_CHAT, "verifiers", *_TABLES),
}


def run(
    run: Path,
    output: Path,
    form: Form,
    rows: RowForm | None,
    chosen: dict[str, Any],
    *,
    bare: bool,
    inline_images: bool,
    fps: float,
) -> list[str]:
    """Write it; returns what there is to say of it. Raises `MuxsimError`."""
    if rows is not None and form not in _TABLES:
        raise MuxsimError(f"--rows goes with --format parquet and datasets; {form} says itself what a row is")
    given = {"--bare": bare, "--inline-images": inline_images}
    if odd := [option for option, there in given.items() if there and form not in _FORMS_OF[option]]:
        raise MuxsimError(f"{odd[0]} says nothing of {form}: it goes with --format {', '.join(_FORMS_OF[odd[0]])}")
    if output.suffix == ".parquet" and form != "parquet":
        raise MuxsimError(f"{output} would be {form} and no Parquet: add --format parquet, or name it otherwise")
    if str(output) == _STDOUT and form not in ROW_FORMS:
        raise MuxsimError(f"{form} cannot be written to stdout: name a file or folder")
    folder = RunFolder(run)
    if form == "atif":
        return [_of_episodes(output, len(exports.export_atif(folder, output, **chosen)), folder)]
    if form == "gif":
        written = exports.export_gif(folder, output, frames_per_second=fps, **chosen)
        return [_of_episodes(output, len(written), folder)]
    if form == "verifiers":
        count = exports.export_traces(folder, output, inline_images=inline_images, **chosen)
        return [_of_episodes(output, count, folder)]
    return _rows(folder, output, form, rows, chosen, bare=bare, inline_images=inline_images)


def _of_episodes(output: Path, count: int, folder: RunFolder) -> str:
    """How many there are, and of how many, where some were left out: not valid, or not chosen."""
    recorded = folder.recorded()
    return f"{output}: {count}{f' of {recorded}' if count < recorded else ''} episodes"


def _rows(
    folder: RunFolder, output: Path, form: str, rows: RowForm | None, chosen: dict[str, Any], **how: bool
) -> list[str]:
    kind: RowForm = next((one for one in ROW_FORMS if one == form), rows or _CHAT)
    table: TableForm = "parquet" if form == "parquet" else "datasets" if form == "datasets" else "jsonl"
    why: Counter[str] = Counter()

    def left_out(_: Trajectory, reason: str) -> None:
        why[reason] += 1

    stream = sys.stdout.buffer if str(output) == _STDOUT else output
    count = export_rows(folder, stream, rows=kind, table=table, left_out=left_out, **how, **chosen)
    said = [_of_episodes(output, count, folder) if kind == _CHAT else f"{output}: {count} rows"]
    return said + [f"muxsim: {times} episodes have no row: {reason}" for reason, times in why.most_common()]
