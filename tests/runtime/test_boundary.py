"""Optional parts fail alone: they are told of, switched off, and nobody else notices."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from muxsim.runtime.boundary import background, open_boundary, optional


class Failed(list):
    """Who is told of parts that have failed: their names, and how."""

    def __call__(self, name, error):
        self.append((name, error))


@pytest.fixture
def failed():
    return Failed()


class Sum:
    """An optional part with a plain method and one that waits."""

    def __init__(self, part):
        self.part = part
        self.fails = None

    @optional(int)
    def add(self, one, other):
        if self.fails is not None:
            raise self.fails
        return one + other

    @optional(int, passing=(KeyError,))
    async def add_later(self, one, other):
        await trio.lowlevel.checkpoint()
        if self.fails is not None:
            raise self.fails
        return one + other


async def fail():
    raise ZeroDivisionError("a bug")


async def fail_as_it_is_cancelled():
    try:
        await trio.sleep_forever()
    finally:
        raise ZeroDivisionError("a bug on its way out")


async def fail_beside_a_task_that_waits():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(fail_as_it_is_cancelled)
        nursery.start_soon(fail)


@pytest.mark.parametrize("failing", [fail, fail_beside_a_task_that_waits])
async def test_a_task_that_fails_switches_its_part_off_and_no_other(failing, failed):
    told = []
    with trio.fail_after(60):
        async with open_boundary(failed) as boundary:
            part, other = boundary.part("this one", lambda: told.append("off")), boundary.part("another")
            part.start_soon(trio.sleep_forever)
            other.start_soon(trio.sleep_forever)
            part.start_soon(failing)
            await trio.testing.wait_all_tasks_blocked()
            assert (part.is_off, other.is_off, told) == (True, False, ["off"])
            assert repr(part) == "<Part 'this one': off>"
            assert repr(other) == "<Part 'another': 1 tasks>"
    ((name, error),) = failed
    assert name == "this one"
    assert "ZeroDivisionError('a bug')" in repr(error)


async def test_a_part_that_is_off_starts_nothing_and_its_parts_go_with_it(failed):
    begun = []

    async def begin():
        begun.append(True)

    with trio.fail_after(60):
        async with open_boundary(failed) as boundary:
            part = boundary.part("whole")
            inner = part.part("inner")
            inner.start_soon(trio.sleep_forever)
            part.switch_off()
            part.start_soon(begin)
            inner.start_soon(begin)
            await trio.testing.wait_all_tasks_blocked()
            assert inner.is_off
            assert begun == []


async def test_calls_into_a_part_give_what_is_had_without_it_once_it_has_failed(failed):
    async with open_boundary(failed) as boundary:
        for attempt in (lambda one: trio.to_thread.run_sync(one.add, 1, 2), lambda one: one.add_later(1, 2)):
            one = Sum(boundary.part("the sum"))
            assert await attempt(one) == 3
            one.fails = ZeroDivisionError("a bug")
            assert await attempt(one) == 0
            one.fails = None
            assert await attempt(one) == 0
            assert one.part.is_off
    assert [(name, str(error)) for name, error in failed] == [("the sum", "a bug")] * 2


async def test_what_a_part_answers_by_raising_it_is_no_failure(failed):
    async with open_boundary(failed) as boundary:
        one = Sum(boundary.part("the sum"))
        one.fails = KeyError("an answer")
        with pytest.raises(KeyError, match="an answer"):
            await one.add_later(1, 2)
        assert not one.part.is_off


async def test_a_cancellation_goes_through_a_part_and_does_not_switch_it_off(failed):
    async with open_boundary(failed) as boundary:
        one = Sum(boundary.part("the sum"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await one.add_later(1, 2)
        assert scope.cancelled_caught
        assert not one.part.is_off


async def test_a_failure_beside_a_cancellation_is_told_and_the_cancellation_goes_on(failed):
    async with open_boundary(failed) as boundary:
        part = boundary.part("this one")
        with trio.CancelScope() as scope, part.alone():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail_as_it_is_cancelled)
                nursery.start_soon(trio.sleep_forever)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert part.is_off
    assert "a bug on its way out" in repr(failed)


async def test_a_part_that_cannot_be_switched_off_cleanly_is_off_all_the_same(failed):
    def cannot():
        raise KeyError("not cleanly")

    async with open_boundary(failed) as boundary:
        part = boundary.part("this one", cannot)
        part.start_soon(fail)
        await trio.testing.wait_all_tasks_blocked()
        assert part.is_off
    assert [name for name, _ in failed] == ["this one", "the end of this one"]
    assert "not cleanly" in repr(failed[1])


async def test_the_end_of_a_boundary_ends_all_that_is_behind_it(failed):
    ended = []

    async def wait():
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    with trio.fail_after(60):
        async with open_boundary(failed) as boundary:
            boundary.part("one").part("inner").start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
    assert ended == [True]


async def test_the_exception_of_a_block_with_a_background_is_its_own():
    async def block():
        async with background() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            raise KeyError

    with pytest.raises(KeyError):
        await block()
