"""What is left to play: the episodes of a dataset, or of rows that come while others are played."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from inspect import isawaitable
from typing import Any, Final

import anyio

from muxsim.rollouts.data.dataset import (
    Dataset,
    Episode,
    Reading,
    check_rollouts_per_row,
    dataset_from_rows,
    samples_of,
    with_environment,
)
from muxsim.rollouts.data.rows import DatasetError
from muxsim.rollouts.data.sources import require_rows, source_of_rows
from muxsim.rollouts.play.own_code import is_failure

RowsLike = Dataset | Iterable[Mapping[str, Any]] | AsyncIterable[Mapping[str, Any]]

# For an async generator of rows to end in, when nobody wants more of them.
_CLOSE_TIMEOUT: Final = 15.0


class Left:
    """Gives out episodes, one for each who asks, and reads no row before it is asked for.

    A `Dataset` and a list have been read and checked whole before. Any other iterable, and an async one, is read as
    episodes are played: a row that is wrong is an error when its turn comes, and nobody is given an episode after it.
    """

    def __init__(
        self, rows: RowsLike, environments: Sequence[str], *, rollouts_per_row: int, skip: frozenset[str]
    ) -> None:
        check_rollouts_per_row(rollouts_per_row)
        self._environments = environments
        self._rollouts_per_row = rollouts_per_row
        self._skip = skip
        self._reading = Reading(source_of_rows(()), as_json=True)
        self._number = 0
        self._over = False
        # One at a time: an iterator is not made to be asked twice at once.
        self._turn = anyio.Lock()
        self._episodes: Iterator[Episode] = iter(())
        self._rows: Iterator[Any] | AsyncIterator[Any] | None = None
        self._samples: deque[Episode] = deque()
        if isinstance(rows, Dataset | Sequence):
            dataset = rows if isinstance(rows, Dataset) else dataset_from_rows(rows)
            self._episodes = iter(dataset.with_environments(environments).episodes(rollouts_per_row))
        elif isinstance(rows, AsyncIterable):
            self._rows = aiter(rows)
        else:
            require_rows(rows)
            self._rows = iter(rows)

    async def take(self) -> Episode | None:
        """The next episode, None if there is none. Raises `DatasetError`, and what the rows' iterator raises."""
        async with self._turn:
            try:
                while (episode := await self._next()) is not None:
                    if episode.id not in self._skip:
                        return episode
            except BaseException as error:
                self._over = True
                if isinstance(error, Exception | SystemExit) or not is_failure(error):
                    raise
                words = f"the rows break off: {type(error).__name__} {error}".strip()
                raise DatasetError(words) from error
            self._over = True
            return None

    async def aclose(self) -> None:
        """End an async generator of rows, which would else be left half-way."""
        close = getattr(self._rows, "aclose", None)
        if close is not None:
            with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                closing = close()
                if isawaitable(closing):
                    await closing

    async def _next(self) -> Episode | None:
        if self._over:
            return None
        if self._rows is None:
            return next(self._episodes, None)
        if not self._samples:
            value = await anext(self._rows, _END) if isinstance(self._rows, AsyncIterator) else next(self._rows, _END)
            if value is _END:
                return None
            row = with_environment(self._reading.row(self._number, value), self._environments)
            self._samples.extend(samples_of(row, self._number, self._rollouts_per_row))
            self._number += 1
        return self._samples.popleft()


_END: Final = object()
