"""One function for what is there at once and for what is waited for."""

from __future__ import annotations

import gc
import threading

import pytest
import trio

from muxsim.runtime.soon import begin, in_time, may_wait


class Left:
    """What a function has done so far."""

    def __init__(self):
        self.steps = []

    async def get(self, *, now, error=None):
        try:
            self.steps.append("asked")
            if not now:
                await may_wait()
                await trio.sleep(1)
            if error is not None:
                raise error
            return "it"
        finally:
            self.steps.append("left")


async def inner(left, **how):
    return await left.get(**how)


def test_what_is_there_at_once_needs_no_task():
    left = Left()
    soon = begin(inner(left, now=True))
    assert (soon.ready, soon.value, left.steps) == (True, "it", ["asked", "left"])


def test_an_error_at_once_is_raised_to_whoever_asks_for_the_value():
    soon = begin(inner(Left(), now=True, error=KeyError("no")))
    assert soon.ready
    for _ in range(2):
        with pytest.raises(KeyError):
            _ = soon.value


async def test_what_is_not_there_stops_before_it_waits_and_goes_on_in_a_task(autojump_clock):
    left = Left()
    soon = begin(inner(left, now=False))
    assert (soon.ready, left.steps) == (False, ["asked"])
    begun = trio.current_time()
    assert await soon == "it"
    assert (trio.current_time() - begun, left.steps) == (1, ["asked", "left"])


async def test_what_is_begun_in_something_begun_stops_that_too(autojump_clock):
    left = Left()

    async def outer():
        return await begin(inner(left, now=False))

    soon = begin(outer())
    assert not soon.ready
    assert await soon.wait() == "it"
    assert await begin(inner(left, now=True)) == "it"


async def test_in_a_task_of_its_own_it_is_a_function_as_any(autojump_clock):
    assert await inner(Left(), now=False) == "it"
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(begin(inner(Left(), now=False)).wait)


async def test_tasks_that_are_started_in_a_first_step_are_tasks_as_any(autojump_clock):
    left = Left()

    async def start(nursery):
        nursery.start_soon(inner_task, left)

    async def inner_task(left):
        await left.get(now=False)

    async with trio.open_nursery() as nursery:
        assert begin(start(nursery)).ready
    assert left.steps == ["asked", "left"]


async def test_what_nobody_awaits_is_given_up():
    left = Left()
    soon = begin(inner(left, now=False))
    del soon
    gc.collect()
    assert left.steps == ["asked", "left"]


async def test_a_cancellation_reaches_what_is_awaited(autojump_clock):
    left = Left()
    soon = begin(inner(left, now=False))
    with trio.move_on_after(0.5) as scope:
        await soon
    assert scope.cancelled_caught
    assert left.steps == ["asked", "left"]


async def test_whoever_waits_without_a_word_is_told_so():
    async def silent():
        await trio.lowlevel.checkpoint()

    with pytest.raises(RuntimeError, match=r"silent.* has waited"):
        begin(silent())


async def test_the_time_runs_from_the_first_step_on(autojump_clock):
    soon = begin(in_time(0.75, inner(Left(), now=False)))
    await trio.sleep(0.5)
    begun = trio.current_time()
    with pytest.raises(trio.TooSlowError):
        await soon
    assert trio.current_time() - begun == pytest.approx(0.25)
    assert await in_time(2, inner(Left(), now=False)) == "it"
    assert begin(in_time(0, inner(Left(), now=True))).value == "it"


def test_threads_begin_apart():
    found = []

    async def nested():
        thread = threading.Thread(target=lambda: found.append(trio.run(waits)))
        thread.start()
        thread.join()

    async def waits():
        await may_wait()
        return "waited in a task"

    assert begin(nested()).ready
    assert found == ["waited in a task"]
