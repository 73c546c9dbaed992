"""Datasets: rows (`rollouts.data.rows`) that say what to play, read and checked whole before anything starts.

Memory holds some of them, and a temporary file the others (`rollouts.data.spool`).

All samples of a row start from the row's seed: a group shares its start state, and its policies differ
(`Episode.policy_seed`).
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import random
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, overload

import msgspec

from muxsim.rollouts.data.arguments import DEEPEST, is_within
from muxsim.rollouts.data.columns import nested, renamed
from muxsim.rollouts.data.prompts import check_placeholders
from muxsim.rollouts.data.rows import SEED_ADVICE, SEED_LIMIT, DatasetError, Row, RowReader, derived_seed, shown
from muxsim.rollouts.data.sources import Source, open_source, source_of_rows
from muxsim.rollouts.data.spool import SpooledRows, kept


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
class Episodes(Sequence[Episode]):
    """The samples of all rows, those of one row side by side; each is made when it is asked for."""

    rows: Sequence[Row]
    rollouts_per_row: int = 1

    def __len__(self) -> int:
        return len(self.rows) * self.rollouts_per_row

    @overload
    def __getitem__(self, index: int) -> Episode: ...

    @overload
    def __getitem__(self, index: slice) -> list[Episode]: ...

    def __getitem__(self, index: int | slice) -> Episode | list[Episode]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        row, sample = divmod(place, self.rollouts_per_row)
        return _episode(place, self.rows[row], sample, self.rollouts_per_row)

    def __iter__(self) -> Iterator[Episode]:
        for number, row in enumerate(self.rows):
            yield from samples_of(row, number, self.rollouts_per_row)


def samples_of(row: Row, number: int, rollouts_per_row: int) -> Iterator[Episode]:
    """The episodes of the row that is the ``number``-th of its run."""
    for sample in range(rollouts_per_row):
        yield _episode(number * rollouts_per_row + sample, row, sample, rollouts_per_row)


def check_rollouts_per_row(rollouts_per_row: int) -> None:
    """Raises `DatasetError`."""
    if rollouts_per_row < 1:
        raise DatasetError("a row has at least one rollout", key="rollouts_per_row", value=str(rollouts_per_row))


def _episode(index: int, row: Row, sample: int, rollouts_per_row: int) -> Episode:
    return Episode(index, f"{row.id}#{sample}" if rollouts_per_row > 1 else row.id, row, sample)


@dataclass(frozen=True)
class Dataset:
    """The rows to play; ``source`` is the file as it was given, "" for generated rows and those of a program."""

    rows: Sequence[Row]
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

    def episodes(self, rollouts_per_row: int = 1) -> Episodes:
        """All episodes, the samples of a row side by side."""
        check_rollouts_per_row(rollouts_per_row)
        return Episodes(self.rows, rollouts_per_row)

    def with_environments(self, names: Sequence[str], default: str | None = None) -> Dataset:
        """The rows with their environments settled: their own, else ``default``, else the only one of ``names``.

        Raises `DatasetError` for a row without one, or with one that is not in ``names``.
        """
        return Dataset(kept(with_environment(row, names, default) for row in self.rows), self.source)

    def chosen(self, *, shuffle: int | None = None, limit: int | None = None) -> Dataset:
        """The first ``limit`` rows, of an order drawn from the seed ``shuffle`` if there is one."""
        order: Any = range(len(self.rows))
        if shuffle is not None:
            order = array("Q", order)
            random.Random(shuffle).shuffle(order)
        order = order[:limit]
        rows = self.rows
        taken = rows.in_order(order) if isinstance(rows, SpooledRows) else tuple(rows[place] for place in order)
        return Dataset(taken, self.source)


def with_environment(row: Row, names: Sequence[str], default: str | None = None) -> Row:
    """A row with its environment settled: its own, else ``default``, else the only one of ``names``.

    Raises `DatasetError`.
    """
    only = names[0] if len(names) == 1 else ""
    return replace(row, env=_known_env(row, row.env or default or only, names))


def load_dataset(
    path: str | Path,
    *,
    base_seed: int = 0,
    split: str | None = None,
    limit: int | None = None,
    shuffle: int | None = None,
    columns: Mapping[str, str] | None = None,
) -> Dataset:
    """The rows of a file, a folder, a pipe or a dataset of Hugging Face's (`rollouts.data.sources`).

    ``base_seed`` is for those without a seed. ``split`` is one of several, ``limit`` takes only so many rows, and
    ``shuffle`` draws their order from a seed; only with both is more read than is taken. ``columns`` has the columns of
    a table whose names are others, by the key that they are for: ``{"prompt": "question", "info": "*"}``, where ``*``
    stands for all that are left.

    Raises `DatasetError`: it cannot be read, has no rows, or a row is wrong.
    """
    if limit is not None and limit < 1:
        raise DatasetError("at least one is needed", key="limit", value=str(limit))
    source = open_source(path, split=split)
    read = Reading(source, base_seed, columns).rows()
    rows = kept(islice(read, limit) if shuffle is None else read)
    if not rows:
        raise DatasetError("has no rows", where=source.name)
    whole = Dataset(rows, str(path))
    return whole if shuffle is None else whole.chosen(shuffle=shuffle, limit=limit)


def dataset_from_rows(rows: Iterable[Mapping[str, Any]], *, base_seed: int = 0) -> Dataset:
    """The same for rows that a program has made. Raises `DatasetError`."""
    return Dataset(kept(Reading(source_of_rows(rows), base_seed, as_json=True).rows()))


class Reading:
    """Reads records as rows, one at a time. Of those that have gone by only the ids that they brought are kept."""

    def __init__(
        self,
        source: Source,
        base_seed: int = 0,
        columns: Mapping[str, str] | None = None,
        *,
        as_json: bool = False,
    ) -> None:
        self._source = source
        self._base_seed = base_seed
        self._columns = columns
        self._as_json = as_json
        self._seen: dict[str, int] = {}
        # Of rows without an id, whose name is their number.
        self._own_id = re.compile(rf"{source.unit}-(0|[1-9]\d{{0,17}})")
        self._unnamed = _Numbers()

    def rows(self) -> Iterator[Row]:
        """All of them. Raises `DatasetError`."""
        for number, value in self._source.records:
            yield self.row(number, value)

    def row(self, number: int, value: Any) -> Row:
        """What stands at ``number``. Raises `DatasetError`."""
        where = self._source.where(number)
        if self._as_json:
            value = _as_json(value, where)
        if isinstance(value, dict) and (self._source.table or self._columns):
            cells = renamed(value, self._columns, where) if self._columns else value
            value = nested(cells, where, table=self._source.table)
        if not is_within(value, DEEPEST):
            raise DatasetError(f"is nested more than {DEEPEST} deep", where=where)
        row = RowReader(where, value).row(f"{self._source.unit}-{number}", self._base_seed)
        check_placeholders(row)
        self._check_id(row, number, brought=isinstance(value, dict) and value.get("id") is not None)
        return row

    def _check_id(self, row: Row, number: int, *, brought: bool) -> None:
        first = self._seen.get(row.id)
        numbered = self._own_id.fullmatch(row.id)
        if brought and first is None and numbered and int(numbered[1]) in self._unnamed:
            first = int(numbered[1])
        if first is not None:
            advice = f"{self._source.where(first)} has this id; each row needs its own"
            raise DatasetError(advice, where=row.where, key="id", value=shown(row.id))
        if brought:
            self._seen[row.id] = number
        else:
            self._unnamed.add(number)


class _Numbers:
    """A set of small numbers, a bit for each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def __contains__(self, number: int) -> bool:
        place, bit = divmod(number, 8)
        return place < len(self._bits) and bool(self._bits[place] >> bit & 1)

    def add(self, number: int) -> None:
        place, bit = divmod(number, 8)
        self._bits.extend(bytes(max(0, place + 1 - len(self._bits))))
        self._bits[place] |= 1 << bit


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


def _as_json(row: Mapping[str, Any], where: str) -> Any:
    try:
        return msgspec.json.decode(msgspec.json.encode(row))
    except (TypeError, ValueError, RecursionError) as error:
        raise DatasetError(f"has no JSON form: {error}", where=where) from None


def _known_env(row: Row, env: str, names: Sequence[str]) -> str:
    choice = ", ".join(names)
    if not env:
        raise DatasetError(f"names no environment; add env to the row, or name one for all ({choice})", where=row.where)
    if env not in names:
        near = difflib.get_close_matches(env, names, 1)
        advice = f"did you mean {near[0]}?" if near else f"there are: {choice}"
        raise DatasetError(f"no such environment; {advice}", where=row.where, key="env", value=shown(env))
    return env
