"""Rows that are too many for memory, in a temporary file that nobody else sees."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final, overload

import msgspec

from muxsim.rollouts.data.rows import Row

# So many are kept in memory: some megabytes.
MOST_IN_MEMORY: Final = 10_000

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Row).decode


def kept(rows: Iterable[Row]) -> Sequence[Row]:
    """The rows to be read again and again: a tuple, or where they are many a file of them."""
    left = iter(rows)
    first = tuple(islice(left, MOST_IN_MEMORY + 1))
    return first if len(first) <= MOST_IN_MEMORY else SpooledRows(chain(first, left))


class SpooledRows(Sequence[Row]):
    """Rows in a file that has no name, of which memory holds 8 bytes each; in another order by `in_order`."""

    def __init__(self, rows: Iterable[Row]) -> None:
        # It goes with the last of those that read it.
        self._file = tempfile.TemporaryFile(prefix="muxsim-rows-")  # noqa: SIM115
        self._places = array("Q", [0])
        for row in rows:
            content = _encode(row)
            self._file.write(content)
            self._places.append(self._places[-1] + len(content))
        self._order: Sequence[int] = range(len(self._places) - 1)

    def __repr__(self) -> str:
        return f"<SpooledRows: {len(self)}>"

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...

    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return self.in_order(self._order[index])
        place = self._order[index]
        start, end = self._places[place : place + 2]
        self._file.seek(start)
        return _decode(self._file.read(end - start))

    def __iter__(self) -> Iterator[Row]:
        for index in range(len(self)):
            yield self[index]

    def in_order(self, order: Sequence[int]) -> SpooledRows:
        """The same rows, or some of them, as ``order`` names their places."""
        other: Any = object.__new__(SpooledRows)
        other._file, other._places, other._order = self._file, self._places, order
        return other  # type: ignore[no-any-return]
