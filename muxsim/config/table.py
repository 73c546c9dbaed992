"""A table of a config file, and the one-line faults of what stands in it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from muxsim.config.variables import VariableFault, Variables, expand
from muxsim.errors import ConfigError
from muxsim.spec import literal, misspelt_placeholder
from muxsim.values import AnyKind, Kind, ListOf, OneOrMany, PairsOf

_SHOWN_CHARACTERS = 80
_SLIP_LIKENESS = 0.8  # between mcp_servers and mcpServers it is more, between context_servers and mcpServers less

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the file, with its place for the error messages."""

    file: str
    name: str
    values: Mapping[str, Any]
    folder: Path
    variables: Variables | None
    """What ``${VAR}`` stands for; None leaves it as it is."""

    slips: list[str] | None = None
    """Where words that look like a slip of a placeholder are put, in a file of others; None refuses them."""

    def error(self, key: str, advice: str, value: Any = None) -> ConfigError:
        """The fault of a key; its value is the one in the table unless another is given."""
        value = self.values.get(key) if value is None else value
        text = "" if value is None or isinstance(value, dict) else shown(value)
        return ConfigError(advice, file=self.file, table=self.name, key=key, value=text)

    def table(self, key: str) -> Table:
        """The table under a key, empty where there is none."""
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.error(key, "must be a table of keys and values")
        return replace(self, name=self.name_of(key), values=value or {})

    def name_of(self, key: str) -> str:
        """The dotted name of a table in this one, which fits into a line."""
        return f"{self.name}.{in_one_line(key)}" if self.name else in_one_line(key)

    def tables(self) -> Iterator[tuple[str, Table]]:
        """The tables in this one, which holds nothing else, under names that fit into a URL."""
        for name in self.values:
            if not NAME.fullmatch(name):
                raise self.error(
                    shown(name),
                    "cannot be an environment's name, which is part of URLs: use letters, digits, _, - and ., "
                    "beginning with a letter, a digit or _",
                )
            yield name, self.table(name)

    def know(self, keys: Iterable[str], *, others: bool = False) -> None:
        """Refuses keys that are not among these; with ``others`` only what looks like one of them misspelt."""
        known = list(keys)
        for key in self.values:
            if key not in known and not (others and not closest(key, known, _SLIP_LIKENESS)):
                raise self.error(key, f"is not a known key: {advise(key, known)}")

    def read(self, keys: Mapping[str, AnyKind], *, others: bool = False) -> dict[str, Any]:
        """The values of these keys, checked and with ``${VAR}`` replaced; null counts as absent."""
        if not others:
            self.know(keys)
        return {
            key: self._read(key, value, keys[key])
            for key, value in self.values.items()
            if key in keys and value is not None
        }

    def _read(self, key: str, value: Any, kind: AnyKind) -> Any:
        if isinstance(kind, OneOrMany):
            kind = ListOf(kind.wants, kind.many) if isinstance(value, list) else replace(kind.one, wants=kind.wants)
        if isinstance(kind, ListOf):
            if not isinstance(value, list):
                raise self.error(key, f"must be {kind.wants}", value)
            return tuple(self._read(f"{key}[{at}]", item, kind.item) for at, item in enumerate(value))
        if isinstance(kind, PairsOf):
            if not isinstance(value, dict):
                raise self.error(key, f"must be {kind.wants}", value)
            return {name: self._read(self._variable_key(key, name), item, kind.item) for name, item in value.items()}
        if kind.filled and isinstance(value, str) and (slip := misspelt_placeholder(value)):
            self._look_at_slip(key, value, *slip)
        try:
            return kind.read(self._expanded(key, value, kind) if isinstance(value, str) else value)
        except (ValueError, OverflowError):
            raise self.error(key, f"must be {kind.wants}", value) from None

    def _variable_key(self, key: str, name: str) -> str:
        if not name or "=" in name or "\0" in name:
            raise self.error(f"{key}.{shown(name)}", "is not the name of a variable: it needs letters, and no =")
        return f"{key}.{name}"

    def _look_at_slip(self, key: str, value: str, word: str, meant: str) -> None:
        if self.slips is not None:
            self.slips.append(f"{key} has {{{word}}}, which is left as it is: did you mean {{{meant}}}?")
            return
        raise self.error(
            key, f"{{{word}}} is not known: write {{{meant}}}, or {{{{{word}}}}} for a literal {{{word}}}", value
        )

    def _expanded(self, key: str, text: str, kind: Kind) -> str:
        if self.variables is None:
            return text
        try:
            # Nobody wrote what a variable holds as a template.
            return expand(text, self.variables, literal if kind.filled else str)
        except VariableFault as fault:
            raise self.error(key, fault.advice, text) from None


def closest(word: str, known: Iterable[str], likeness: float = 0.6) -> list[str]:
    """The known word that this one may be a slip of; [] if none is that close."""
    by_lower = {name.lower(): name for name in known}
    return [by_lower[close] for close in difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=likeness)]


def advise(word: str, known: Iterable[str]) -> str:
    """What to write instead of a word that is not known."""
    known = list(known)
    close = closest(word, known)
    return f"did you mean {close[0]}?" if close else f"use one of {', '.join(known)}"


def in_one_line(key: str) -> str:
    """A key that may hold anything, for a line of a message."""
    return key if key.isprintable() else json.dumps(key)


def shown(value: Any) -> str:
    """A value as JSON writes it, cut to what fits into a line of a message."""
    text = json.dumps(value, ensure_ascii=False, default=str)  # unlike msgspec, it takes any number that TOML has
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
