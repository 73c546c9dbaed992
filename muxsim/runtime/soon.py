"""What may be there at once, and else is waited for: one function for both, at every layer.

A step of trio costs half a millisecond where trio is a guest of another loop, and only a task of trio's can take it. So
a function says `await may_wait()` before the first thing that needs one, and `begin` runs it as far as that, from
anywhere: either it has come to its end, or whoever awaits the rest, on trio, goes on from there. In a task that nobody
has begun so `may_wait` is nothing.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Coroutine, Generator
from typing import Any, Final, Generic, TypeVar, cast

import trio

T = TypeVar("T")

_PAUSE: Final = object()


class _Here(threading.local):
    begins = False
    """Whether this thread is in the first step of something."""


_here = _Here()


class Soon(Generic[T]):
    """What a coroutine will return. Made by `begin`; if it is not ``ready``, await it, once, in a task of trio's.

    Until then what it holds so far stays held. One that nobody awaits is given up when it is forgotten.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._rest = coroutine
        self._error: BaseException | None = None
        self._value: T | None = None
        self.ready = True
        """Whether it has come to its end, by a result or by an error."""
        before, _here.begins = _here.begins, True
        try:
            said = coroutine.send(None)
        except StopIteration as end:
            self._value = end.value
        except Exception as error:  # whoever asks for the value gets it
            self._error = error
        else:
            self.ready = False
            if said is not _PAUSE:
                text = f"{coroutine!r} has waited without a word: may_wait() belongs before that"
                coroutine.close()
                raise RuntimeError(text)
        finally:
            _here.begins = before

    @property
    def value(self) -> T:
        """What came of it, once it is ready; raises what it raised."""
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def __await__(self) -> Generator[Any, Any, T]:
        if self.ready:
            return self.value
        if _here.begins:
            yield _PAUSE
        return (yield from self._rest.__await__())

    async def wait(self) -> T:
        """As to await it, for whoever takes a function."""
        return await self


def begin(coroutine: Coroutine[Any, Any, T]) -> Soon[T]:
    """Run it up to its first `may_wait`, in no task."""
    return Soon(coroutine)


@types.coroutine
def may_wait() -> Generator[object, None, None]:
    """Say that what follows needs a task of trio's; what was done before may not be left half done here."""
    if _here.begins:
        yield _PAUSE


async def in_time(seconds: float, coroutine: Coroutine[Any, Any, T]) -> T:
    """As `trio.fail_after`, also where this is begun: what is there at once is in time, and needs no scope."""
    deadline = trio.current_time() + seconds
    if not _here.begins:
        with trio.fail_at(deadline):
            return await coroutine
    soon = begin(coroutine)
    if soon.ready:
        return soon.value
    await may_wait()
    with trio.fail_at(deadline):
        return await soon
