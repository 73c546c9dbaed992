import asyncio
import contextlib

import pytest
from asyncio_tests import on_asyncio
from hypothesis import given
from hypothesis import strategies as st

from transports import messages
from transports.event_stream import KEPT_BYTES, KEPT_MESSAGES, EventStream


def numbered(number, size=0):
    return messages.notification("n", {"number": number, "filler": "x" * size})


def number_of(message):
    return int(message.encode().split(b'"number":')[1].split(b",")[0])


SIZE = len(numbered(1).encode())


class Stream:
    """A stream, and how often its owner was told that something has been taken."""

    def __init__(self, *, attended=False):
        self.taken = 0
        self.stream = EventStream("s", self._took, attended=attended)

    def _took(self):
        self.taken += 1

    def put(self, *numbers, last=False):
        for number in numbers:
            self.stream.put(numbered(number), last=last and number == numbers[-1])


async def take(reader, count):
    """The next so many messages of a reader, as (number of the event, number in the message)."""
    async with contextlib.aclosing(reader):
        return [(number, number_of(message)) for number, message in [await anext(reader) for _ in range(count)]]


async def all_of(reader):
    return [(number, number_of(message)) async for number, message in reader]


def pairs(*numbers):
    return [(number, number) for number in numbers]


@on_asyncio
async def test_messages_are_numbered_from_one_in_the_order_they_came():
    made = Stream()
    made.put(1, 2, 3, last=True)
    assert await all_of(made.stream.read()) == pairs(1, 2, 3)


@on_asyncio
async def test_a_reader_gets_what_came_before_it_and_waits_for_what_comes_after():
    made = Stream()
    made.put(1)
    reader = asyncio.create_task(all_of(made.stream.read()))
    await asyncio.sleep(0)
    made.put(2)
    await asyncio.sleep(0)
    made.put(3)
    made.stream.end()
    assert await reader == pairs(1, 2, 3)


@on_asyncio
async def test_an_ended_stream_gives_what_it_has_and_then_ends():
    made = Stream()
    made.put(1)
    made.stream.end()
    assert await all_of(made.stream.read()) == pairs(1)
    assert await all_of(made.stream.read()) == []


@on_asyncio
async def test_ending_wakes_a_reader_that_waits():
    made = Stream()
    reader = asyncio.create_task(all_of(made.stream.read()))
    await asyncio.sleep(0)
    made.stream.end()
    assert await reader == []


@on_asyncio
async def test_a_reader_that_comes_back_goes_on_where_the_last_one_stopped():
    made = Stream()
    made.put(1, 2, 3, last=True)
    assert await take(made.stream.read(), 2) == pairs(1, 2)
    assert await all_of(made.stream.read()) == pairs(3)


@pytest.mark.parametrize(
    ("after", "numbers"), [(0, [1, 2, 3, 4]), (1, [2, 3, 4]), (3, [4]), (4, []), (5, []), (10**30, [])]
)
@on_asyncio
async def test_a_reader_may_go_back_to_the_message_after_the_last_it_saw(after, numbers):
    made = Stream()
    made.put(1, 2, 3, 4, last=True)
    assert await take(made.stream.read(), 3) == pairs(1, 2, 3)
    assert await all_of(made.stream.read(after)) == pairs(*numbers)


@on_asyncio
async def test_a_reader_that_went_ahead_gets_what_comes_next():
    made = Stream()
    made.put(1)
    reader = asyncio.create_task(all_of(made.stream.read(999)))
    await asyncio.sleep(0)
    made.put(2, last=True)
    assert await reader == pairs(2)


@on_asyncio
async def test_going_back_on_a_stream_that_has_had_nothing_yet_is_harmless():
    made = Stream()
    reader = asyncio.create_task(all_of(made.stream.read(7)))
    await asyncio.sleep(0)
    made.put(1, last=True)
    assert await reader == pairs(1)


@given(st.lists(st.sampled_from(["put", "read", "back"]), max_size=30), st.data())
def test_whatever_the_readers_do_each_gets_consecutive_messages(actions, data):
    @on_asyncio
    async def scenario():
        made, put, seen = Stream(), 0, 0
        for action in actions:
            if action == "put":
                put += 1
                made.put(put)
            elif action == "read" and seen < put:
                assert await take(made.stream.read(), 1) == pairs(seen + 1)
                seen += 1
            elif action == "back" and put:
                after = data.draw(st.integers(0, put - 1))
                assert await take(made.stream.read(after), 1) == pairs(after + 1)
                seen = after + 1
        made.stream.end()
        assert await all_of(made.stream.read()) == pairs(*range(seen + 1, put + 1))

    scenario()


# one reader at a time


@on_asyncio
async def test_a_new_reader_takes_the_place_of_one_that_waits():
    made = Stream()
    old = asyncio.create_task(all_of(made.stream.read()))
    await asyncio.sleep(0)
    new = asyncio.create_task(all_of(made.stream.read()))
    assert await old == []
    made.put(1, last=True)
    assert await new == pairs(1)


@on_asyncio
async def test_a_new_reader_takes_the_place_of_one_that_is_busy():
    made = Stream()
    made.put(1, 2, 3)
    old = made.stream.read()
    assert await anext(old) == (1, made.stream._kept[0][1])
    new = made.stream.read()
    assert (await anext(new))[0] == 2
    with pytest.raises(StopAsyncIteration):
        await anext(old)
    assert made.stream.attended
    assert (await anext(new))[0] == 3
    await new.aclose()


@on_asyncio
async def test_the_stream_is_attended_as_long_as_its_reader_is_there():
    made = Stream()
    made.put(1)
    assert not made.stream.attended
    reader = made.stream.read()
    await anext(reader)
    assert made.stream.attended
    await reader.aclose()
    assert not made.stream.attended


@on_asyncio
async def test_a_reader_that_is_cancelled_leaves_the_stream_unattended():
    made = Stream()
    reader = asyncio.create_task(all_of(made.stream.read()))
    await asyncio.sleep(0)
    assert made.stream.attended
    reader.cancel()
    await asyncio.wait([reader])
    assert not made.stream.attended
    made.put(1, last=True)
    assert await all_of(made.stream.read()) == pairs(1)


# what is kept


def test_unattended_the_oldest_messages_past_the_count_are_dropped():
    made = Stream()
    made.put(*range(1, KEPT_MESSAGES + 6))
    assert made.stream.dropped == 5
    made.stream.end()
    assert [number for number, _ in asyncio.run(all_of(made.stream.read()))] == list(range(6, KEPT_MESSAGES + 6))


def test_unattended_the_oldest_messages_past_the_size_are_dropped():
    made = Stream()
    for number in range(1, 5):
        made.stream.put(numbered(number, KEPT_BYTES // 2))
    made.stream.end()
    assert made.stream.dropped == 3
    assert asyncio.run(all_of(made.stream.read())) == pairs(4)


def test_the_newest_message_is_kept_whatever_its_size():
    made = Stream()
    made.put(1)
    made.stream.put(numbered(2, KEPT_BYTES * 3), last=True)
    assert made.stream.dropped == 1
    assert asyncio.run(all_of(made.stream.read())) == pairs(2)


def test_attended_everything_is_kept_until_it_has_been_taken():
    made = Stream(attended=True)
    many = KEPT_MESSAGES * 3
    for number in range(1, many + 1):
        made.stream.put(numbered(number, KEPT_BYTES // 16))
    made.stream.end()
    assert made.stream.dropped == 0
    assert asyncio.run(all_of(made.stream.read())) == pairs(*range(1, many + 1))


@on_asyncio
async def test_taken_messages_stay_for_a_reader_that_comes_back_within_the_bounds():
    made = Stream()
    many = KEPT_MESSAGES * 2
    reader = asyncio.create_task(all_of(made.stream.read()))
    await asyncio.sleep(0)
    made.put(*range(1, many + 1), last=True)
    assert len(await reader) == many
    again = await all_of(made.stream.read(0))
    assert again == pairs(*range(many - KEPT_MESSAGES + 1, many + 1))
    assert made.stream.dropped == 0


@on_asyncio
async def test_what_a_lost_reader_left_behind_is_bounded_like_everything_unattended():
    made = Stream()
    made.put(1)
    reader = made.stream.read()
    await anext(reader)
    made.put(*range(2, KEPT_MESSAGES * 2 + 1))
    assert made.stream.dropped == 0
    await reader.aclose()
    assert made.stream.dropped == KEPT_MESSAGES - 1
    made.stream.end()
    assert (await all_of(made.stream.read()))[0] == (KEPT_MESSAGES + 1,) * 2


@on_asyncio
async def test_a_reader_that_went_back_too_far_goes_on_at_the_oldest_kept():
    made = Stream()
    made.put(*range(1, KEPT_MESSAGES + 11), last=True)
    assert (await take(made.stream.read(3), 1)) == pairs(11)


# how far the reader is behind


def test_unattended_nothing_is_a_backlog():
    made = Stream()
    made.put(1, 2, 3)
    assert made.stream.backlog == 0


@on_asyncio
async def test_the_backlog_is_the_bytes_that_wait_for_somebody_who_is_there():
    made = Stream(attended=True)
    made.put(1, 2, 3)
    assert made.stream.backlog == 3 * SIZE
    reader = made.stream.read()
    await anext(reader)
    assert made.stream.backlog == 2 * SIZE
    made.put(4)
    assert made.stream.backlog == 3 * SIZE
    await reader.aclose()
    assert made.stream.backlog == 0
    assert await take(made.stream.read(), 2) == pairs(2, 3)


@on_asyncio
async def test_going_back_makes_the_backlog_longer_again():
    made = Stream()
    made.put(1, 2, 3)
    assert await take(made.stream.read(), 3) == pairs(1, 2, 3)
    reader = made.stream.read(1)
    await anext(reader)
    assert made.stream.backlog == SIZE
    await reader.aclose()


@on_asyncio
async def test_messages_dropped_before_their_reader_came_are_no_backlog():
    made = Stream()
    made.put(*range(10, KEPT_MESSAGES + 20))
    reader = made.stream.read()
    await anext(reader)
    kept = sum(size for _, _, size in made.stream._kept)
    assert made.stream.backlog == kept - made.stream._kept[0][2]
    await reader.aclose()


@on_asyncio
async def test_the_owner_is_told_of_each_message_taken_and_of_a_reader_lost():
    made = Stream()
    made.put(1, 2)
    reader = made.stream.read()
    await anext(reader)
    assert made.taken == 1
    await anext(reader)
    assert made.taken == 2
    await reader.aclose()
    assert made.taken == 3


# looking without taking


def test_the_first_message_can_be_seen_without_taking_it():
    made = Stream()
    assert made.stream.first() is None
    made.put(1, 2)
    assert number_of(made.stream.first()) == 1
    made.stream.end()
    assert asyncio.run(all_of(made.stream.read())) == pairs(1, 2)
    assert made.stream.first() is None


@on_asyncio
async def test_waiting_ends_with_a_message_with_the_end_and_with_the_time():
    made = Stream()
    waiting = asyncio.create_task(made.stream.wait(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    made.put(1)
    await waiting
    await made.stream.wait(60)

    empty = Stream()
    await empty.stream.wait(0.001)
    waiting = asyncio.create_task(empty.stream.wait(60))
    await asyncio.sleep(0)
    empty.stream.end()
    await waiting
    await empty.stream.wait(60)


@on_asyncio
async def test_waiting_that_is_over_leaves_no_timer_behind():
    made = Stream()
    waiting = asyncio.create_task(made.stream.wait(0.001))
    await asyncio.sleep(0)
    made.stream.wake()
    await waiting
    again = asyncio.create_task(made.stream.wait(60))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(again), 0.01)
    made.stream.end()
    await again


def test_a_callback_is_called_once_at_the_next_change():
    made, calls = Stream(), []
    made.stream.on_change(lambda: calls.append("changed"))
    made.put(1)
    made.put(2)
    assert calls == ["changed"]
    made.stream.on_change(lambda: calls.append("ended"))
    made.stream.end()
    assert calls == ["changed", "ended"]


def test_a_stream_shows_its_state():
    made = Stream()
    assert repr(made.stream) == "<EventStream s unattended, 0 kept>"
    made.put(1)
    made.stream.attended = True
    assert repr(made.stream) == "<EventStream s attended, 1 kept>"
    made.stream.end()
    assert repr(made.stream) == "<EventStream s ended, 1 kept>"
