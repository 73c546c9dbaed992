"""Datasets: JSONL files whose rows (`rollouts.data.rows`) say what to play, read whole before anything starts.

All samples of a row start from the row's seed: a group shares its start state, and its policies differ
(`Episode.policy_seed`).
"""

from __future__ import annotations

import difflib
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from muxsim.rollouts.data.prompts import check_placeholders
from muxsim.rollouts.data.rows import SEED_ADVICE, SEED_LIMIT, DatasetError, Row, RowReader, derived_seed, shown

_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Episode:
    """One sample of a row.

    ``index`` is its place in the run, ``id`` its name there: the row's, and in groups ``row#sample``.
    """

    index: int
    id: str
    row: Row
    sample: int = 0

    @property
    def policy_seed(self) -> int:
        """The seed for a policy: the environment's for the first sample, another for each further one of a group."""
        return self.row.seed if self.sample == 0 else derived_seed("policy", self.row.seed, self.sample)


@dataclass(frozen=True)
class Dataset:
    """The rows to play; ``source`` is the file as it was given, "" for generated rows and those of a program."""

    rows: tuple[Row, ...]
    source: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def sha256(self) -> str:
        """The hash of what the rows say, with derived seeds and environments, and whatever the file's layout."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(msgspec.json.encode(replace(row, where=""), order="deterministic") + b"\n")
        return digest.hexdigest()

    def episodes(self, rollouts_per_row: int = 1) -> list[Episode]:
        """All episodes, the samples of a row side by side."""
        if rollouts_per_row < 1:
            raise DatasetError("a row has at least one rollout", key="rollouts_per_row", value=str(rollouts_per_row))
        pairs = [(row, sample) for row in self.rows for sample in range(rollouts_per_row)]
        grouped = rollouts_per_row > 1
        return [
            Episode(index, f"{row.id}#{sample}" if grouped else row.id, row, sample)
            for index, (row, sample) in enumerate(pairs)
        ]

    def with_environments(self, names: Sequence[str], default: str | None = None) -> Dataset:
        """The rows with their environments settled: their own, else ``default``, else the only one of ``names``.

        Raises `DatasetError` for a row without one, or with one that is not in ``names``.
        """
        only = names[0] if len(names) == 1 else ""
        rows = tuple(replace(row, env=_known_env(row, row.env or default or only, names)) for row in self.rows)
        return Dataset(rows, self.source)


def load_dataset(path: str | Path, *, base_seed: int = 0) -> Dataset:
    """The rows of a JSONL file; ``base_seed`` is for those without a seed.

    Raises `DatasetError`: it cannot be read, has no rows, or a row is wrong.
    """
    file = str(path)
    try:
        content = Path(path).read_bytes().removeprefix(_BOM)
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror}", where=file) from None
    if content.lstrip().startswith(b"["):
        raise DatasetError(
            "is one JSON array; a dataset has one object on each line: `jq -c '.[]'` makes it", where=file
        )
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    read = [(f"line-{number}", f"{file}, line {number}", _decoded(line, file, number)) for number, line in lines]
    if not read:
        raise DatasetError("has no rows", where=file)
    return Dataset(_rows(read, base_seed), file)


def dataset_from_rows(rows: Iterable[Mapping[str, Any]], *, base_seed: int = 0) -> Dataset:
    """The same for rows that a program has made. Raises `DatasetError`."""
    read = [(f"row-{index}", f"row {index}", _as_json(row, index)) for index, row in enumerate(rows)]
    return Dataset(_rows(read, base_seed))


def generate_dataset(rollouts: int, *, envs: Sequence[str] = (), first_seed: int = 0) -> Dataset:
    """``rollouts`` rows without prompts, dealt to ``envs`` in turn; the seeds of each count up from ``first_seed``."""
    if rollouts < 1:
        raise DatasetError("at least one is needed", key="rollouts", value=str(rollouts))
    names = list(envs) or [""]
    last_seed = first_seed + (rollouts - 1) // len(names)
    if first_seed < 0 or last_seed >= SEED_LIMIT:
        raise DatasetError(SEED_ADVICE, key="seed", value=str(first_seed if first_seed < 0 else last_seed))
    made = [(names[index % len(names)], first_seed + index // len(names)) for index in range(rollouts)]
    return Dataset(tuple(Row(id=f"{env or 'seed'}-{seed}", seed=seed, env=env) for env, seed in made))


def _decoded(line: bytes, file: str, number: int) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"is not JSON: {error}", where=f"{file}, line {number}") from None


def _as_json(row: Mapping[str, Any], index: int) -> Any:
    try:
        return msgspec.json.decode(msgspec.json.encode(row))
    except (TypeError, ValueError) as error:
        raise DatasetError(f"has no JSON form: {error}", where=f"row {index}") from None


def _rows(read: Iterable[tuple[str, str, Any]], base_seed: int) -> tuple[Row, ...]:
    """Rows from (id for those without, place, JSON)."""
    seen: dict[str, str] = {}
    rows = []
    for default_id, where, value in read:
        row = RowReader(where, value).row(default_id, base_seed)
        check_placeholders(row)
        if row.id in seen:
            raise DatasetError(
                f"{seen[row.id]} has this id; each row needs its own", where=where, key="id", value=shown(row.id)
            )
        seen[row.id] = where
        rows.append(row)
    return tuple(rows)


def _known_env(row: Row, env: str, names: Sequence[str]) -> str:
    choice = ", ".join(names)
    if not env:
        raise DatasetError(f"names no environment; add env to the row, or name one for all ({choice})", where=row.where)
    if env not in names:
        near = difflib.get_close_matches(env, names, 1)
        advice = f"did you mean {near[0]}?" if near else f"there are: {choice}"
        raise DatasetError(f"no such environment; {advice}", where=row.where, key="env", value=shown(env))
    return env
