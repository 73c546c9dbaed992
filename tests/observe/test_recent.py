"""The last lines of the log: what is kept of them, and in which pages they come."""

from __future__ import annotations

import trio
import trio.testing

from muxsim.observe import recent
from muxsim.observe.recent import RecentLines


def kept(*lines, most=10_000):
    found = RecentLines(most)
    for session, text in lines:
        found.keep(session, text)
    return found


def test_the_lines_of_a_session_come_in_their_order_and_go_on_where_the_last_page_ended():
    lines = kept(("a", "a1"), ("b", "b1"), (None, "of none"), ("a", "a2"))
    page = lines.page("a")
    assert (page.lines, page.more, page.lost, page.over) == (["a1", "a2"], False, False, False)
    assert lines.page(None).lines == ["a1", "b1", "of none", "a2"]
    lines.keep("b", "b2")
    lines.keep("a", "a3", is_last=True)
    page = lines.page("a", page.after)
    assert (page.lines, page.over) == (["a3"], True)
    assert lines.page("a", page.after).lines == []
    assert lines.sessions_like("a") == {"a"}
    assert lines.sessions_like("") == {"a", "b"}


def test_an_id_that_is_used_again_has_not_ended():
    lines = kept(("a", "a1"))
    lines.keep("a", "the end", is_last=True)
    lines.keep("a", "begun again")
    page = lines.page("a")
    assert (page.lines, page.over) == (["a1", "the end", "begun again"], False)
    lines.keep("a", "the end again", is_last=True)
    assert lines.page("a", page.after).over


def test_past_the_bounds_the_oldest_go_and_a_page_says_that_they_did():
    lines = kept(*((str(n), "x" * 10) for n in range(100)), most=55)
    assert lines.page(None).lines == ["x" * 10] * 5
    assert lines.page(None).lost
    assert not lines.page(None, 95).lost
    assert lines.sessions_like("1") == set()
    many = kept(*((None, "") for _ in range(recent.MOST_LINES + 5)))
    assert len(many._lines) == recent.MOST_LINES
    assert kept(("a", "longer than all")).page("a").lines
    assert not kept(("a", "longer than all"), most=3).page("a").lines


def test_a_page_holds_only_so_much_and_the_next_one_has_the_rest():
    lines = kept(*(("a", str(n)) for n in range(1000)))
    found, after, pages = [], 0, 0
    while True:
        page = lines.page("a", after)
        found += page.lines
        after, pages = page.after, pages + 1
        if not page.more:
            break
    assert found == [str(n) for n in range(1000)]
    assert pages == 4
    wide = kept(*(("a", "x" * 100_000) for _ in range(8)), most=10**6)
    assert len(wide.page("a").lines) == 3


async def test_whoever_waits_is_woken_by_the_next_line():
    lines = kept()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lines.wait)
            await trio.testing.wait_all_tasks_blocked()
            lines.keep("a", "a line")
