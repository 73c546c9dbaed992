"""Strings that match a regular expression, drawn at random."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable

# Not public, but the only parser of regular expressions that Python has, in its place since 3.11; the shape of its
# trees is that of the pattern, one (operation, argument) per item.
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final

_PRINTABLE: Final = string.ascii_letters + string.digits + string.punctuation + " "
_CATEGORIES: Final = {
    "CATEGORY_DIGIT": string.digits,
    "CATEGORY_WORD": string.ascii_letters + string.digits + "_",
    "CATEGORY_SPACE": " ",
}
# How often more than its least an unbounded repeat is repeated.
_MORE: Final = 5


class UnsupportedPattern(ValueError):
    """A pattern that Python cannot read, or with a part that cannot be drawn."""


def draw_matching(pattern: str, rng: random.Random) -> str:
    """A string for ``pattern``, without regard to its lookarounds and boundaries: these the caller has to check."""
    try:
        tree = _parser.parse(pattern)
    except (re.error, RecursionError) as error:
        raise UnsupportedPattern(f"the pattern {pattern!r:.80} cannot be read: {error}") from None
    return _Drawing(rng, {}).sequence(tree)


class _Drawing:
    """One walk through a pattern's tree; ``groups`` are the texts of those that were passed, by number."""

    def __init__(self, rng: random.Random, groups: dict[int, str]) -> None:
        self.rng = rng
        self.groups = groups

        self._draw: dict[str, Callable[[Any], str]] = {
            "LITERAL": chr,
            "NOT_LITERAL": lambda code: rng.choice(_PRINTABLE.replace(chr(code), "")),
            "ANY": lambda _: rng.choice(_PRINTABLE),
            "IN": lambda items: rng.choice(_members(items)),
            "BRANCH": lambda branch: self.sequence(rng.choice(branch[1])),
            "SUBPATTERN": lambda group: self._group(group[0], group[-1]),
            "ATOMIC_GROUP": self.sequence,
            "GROUPREF": lambda number: groups.get(number, ""),
            "MAX_REPEAT": lambda repeat: self._repeated(*repeat),
            "MIN_REPEAT": lambda repeat: self._repeated(*repeat),
            "POSSESSIVE_REPEAT": lambda repeat: self._repeated(*repeat),
            "AT": lambda _: "",
            "ASSERT": lambda _: "",
            "ASSERT_NOT": lambda _: "",
        }

    def sequence(self, tree: Any) -> str:
        """A string for each item of the tree, one behind the other."""
        return "".join(self._item(str(operation), argument) for operation, argument in tree)

    def _item(self, operation: str, argument: Any) -> str:
        if operation not in self._draw:
            raise UnsupportedPattern(f"no string can be drawn for {operation.lower()} in a pattern")
        return self._draw[operation](argument)

    def _group(self, number: int | None, tree: Any) -> str:
        text = self.sequence(tree)
        if number is not None:
            self.groups[number] = text
        return text

    def _repeated(self, least: int, most: int, tree: Any) -> str:
        times = self.rng.randint(least, min(int(most), least + _MORE))
        return "".join(self.sequence(tree) for _ in range(times))


def _members(items: Any) -> str:
    """The characters of a class. One that excludes or names a category is taken from what can be printed."""
    operations = [(str(operation), argument) for operation, argument in items]
    negated = operations[0][0] == "NEGATE"
    named = "".join(_named(operation, argument) for operation, argument in operations[negated:])
    members = "".join(character for character in _PRINTABLE if character not in named) if negated else named
    if not members:
        raise UnsupportedPattern("a class of characters has none that can be printed")
    return members


def _named(operation: str, argument: Any) -> str:
    match operation:
        case "LITERAL":
            return chr(argument)
        case "RANGE":
            # A few of a long range, as of all letters there are: it is only drawn from.
            return "".join(map(chr, range(argument[0], min(argument[1], argument[0] + len(_PRINTABLE)) + 1)))
        case "CATEGORY":
            name = str(argument)
            if "_NOT_" in name:
                excluded = _CATEGORIES.get(name.replace("_NOT_", "_"), "")
                return "".join(character for character in _PRINTABLE if character not in excluded)
            return _CATEGORIES.get(name, "")
    raise UnsupportedPattern(f"no character can be drawn for {operation.lower()} in a pattern")
