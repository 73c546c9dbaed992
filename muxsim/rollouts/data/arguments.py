"""The arguments of a tool call, as models write them: mostly JSON, and mostly an object. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

# How deep arguments, and rows of datasets, may be nested: what is read has to be written again, inside of a request
# and of a trajectory.
DEEPEST: Final = 200


def arguments_of(raw: Any) -> tuple[dict[str, Any], str]:
    """A tool call's arguments, or what is wrong with them: models do not always write JSON."""
    try:
        arguments = raw if isinstance(raw, dict) else msgspec.json.decode(raw or "{}")
        within = is_within(arguments, DEEPEST)
    except (msgspec.DecodeError, TypeError) as error:
        return {}, f"the arguments are not JSON: {error}"
    except RecursionError:
        within = False
    if not within:
        return {}, f"the arguments are not to be read: they are nested more than {DEEPEST} deep"
    return (arguments, "") if isinstance(arguments, dict) else ({}, "the arguments are not a JSON object")


def is_within(value: Any, levels: int) -> bool:
    """Whether a value is nested so deep at most."""
    if not isinstance(value, dict | list):
        return True
    items = value.values() if isinstance(value, dict) else value
    return levels > 0 and all(is_within(item, levels - 1) for item in items)
