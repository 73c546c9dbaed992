"""Packages that an adapter imports, and the base install does not have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needed(adapter: str, remedy: str) -> Iterator[None]:
    """Around an adapter's imports: what is missing is named, with what installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{adapter} needs {error.name}: {remedy}", name=error.name) from error
