"""Columns of tables, and of records that call things otherwise, as keys of rows. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from muxsim.rollouts.data.rows import ROW_KEYS, DatasetError, shown

# All columns that are named nowhere else.
_REST: Final = "*"
# Of a table's cells that are text: these are objects or lists, and these whole numbers.
_JSON_CELLS: Final = frozenset({"environment_context", "evaluation_criteria", "info", "user_simulation"})
_NUMBERS: Final = frozenset({"seed", "environment_context.seed"})


def renamed(value: Mapping[str, Any], columns: Mapping[str, str], where: str) -> dict[str, Any]:
    """A record with its columns under the keys that they are for.

    Those that are named nowhere stay, or go to the key of ``*``, unless they are called like a key of rows.

    Raises `DatasetError`: there is no such column.
    """
    left, row = dict(value), {}
    for key, column in columns.items():
        if column == _REST:
            continue
        if column not in value:
            there = ", ".join(value)
            raise DatasetError(f"no such column; there are: {there}", where=where, key=key, value=column)
        row[key] = value[column]
        left.pop(column, None)
    keys = [key for key, column in columns.items() if column == _REST]
    if not keys:
        return left | row
    rest, *others = keys
    if others:
        raise DatasetError(
            f"{rest} has all that is left already; name columns", where=where, key=others[0], value=_REST
        )
    own = {column: value for column, value in left.items() if column.partition(".")[0] in ROW_KEYS}
    return own | row | {rest: {column: value for column, value in left.items() if column not in own}}


def nested(cells: Mapping[str, Any], where: str, *, table: bool) -> dict[str, Any]:
    """A row of cells: ``info.answer`` is a member of info; of a ``table`` what is no text in a row is read as JSON.

    Raises `DatasetError`.
    """
    row: dict[str, Any] = {}
    for column, cell in cells.items():
        if table and cell is None:
            continue
        top, dot, inner = column.partition(".")
        value = _cell(column, cell, where) if table else cell
        members = {inner: value} if dot else value
        if top not in row:
            row[top] = members
            continue
        if not isinstance(row[top], dict) or not isinstance(members, dict):
            inside = next(other for other in cells if other.startswith(f"{top}."))
            raise DatasetError(f"stands beside {top}, which is no object", where=where, key=inside)
        if twice := row[top].keys() & members.keys():
            raise DatasetError(f"stands in {top} too; keep one of the two", where=where, key=f"{top}.{min(twice)}")
        row[top] = row[top] | members
    return row


def _cell(column: str, cell: Any, where: str) -> Any:
    if not isinstance(cell, str):
        return cell
    if column in _NUMBERS:
        return int(cell) if re.fullmatch(r"\s*\d{1,40}\s*", cell) else cell
    if column in _JSON_CELLS or (column == "prompt" and cell.lstrip().startswith("[{")):
        try:
            return msgspec.json.decode(cell)
        except (msgspec.DecodeError, RecursionError) as error:
            if column == "prompt":
                return cell
            advice = f"is not JSON: {error}; write {column}.NAME as a column of its own for text"
            raise DatasetError(advice, where=where, key=column, value=shown(cell)) from None
    return cell
