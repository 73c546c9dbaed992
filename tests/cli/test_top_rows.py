"""What `muxsim top` shows of sessions, as plain functions."""

from muxsim.cli.top_rows import Order, matching, news, summed


def row(id, **more):
    usual = {"env": "lake", "seed": 1, "state": "ready", "owner": None, "peer": None, "pid": 1, "age": 1.0}
    return {"id": id, "number": id, **usual, "memory": None, "attachments": 0, "calls": 0, "in_flight": 0, **more}


def ids(rows):
    return [one["id"] for one in rows]


def test_of_numbers_the_largest_is_first_and_of_names_the_first_and_what_is_not_known_is_last():
    rows = [row("a", calls=1, owner="eve"), row("b", calls=3), row("c", calls=2, owner="ada")]
    assert ids(Order("calls").sort(rows)) == ["b", "c", "a"]
    assert ids(Order("calls").chosen("calls").sort(rows)) == ["a", "c", "b"]
    assert ids(Order("owner").sort(rows)) == ["c", "a", "b"]
    assert ids(Order("owner", reverse=True).sort(rows)) == ["a", "c", "b"]
    assert ids(Order("calls", reverse=True).chosen("id").sort(rows)) == ["a", "b", "c"]


def test_the_next_order_goes_round():
    order, seen = Order("id"), []
    while order.column not in seen:
        seen.append(order.column)
        order = order.next()
    assert (order.column, len(seen)) == ("id", 12)


def test_a_row_matches_in_which_each_word_stands_somewhere():
    rows = [
        row("ab1", env="Lake", owner="ada"),
        row("cd2", env="lake", state="started"),
        row("ef3", env="maze", seed=77),
    ]
    assert ids(matching(rows, "")) == ["ab1", "cd2", "ef3"]
    assert ids(matching(rows, "LAKE ada")) == ["ab1"]
    assert ids(matching(rows, "77")) == ["ef3"]
    assert ids(matching(rows, "lake maze")) == []


def test_environments_are_summed_also_those_without_a_session():
    rows = [
        row("a", memory=10, calls=2, in_flight=1),
        row("b", memory=None, state="started"),
        row("c", state="ended", cause="deleted", calls=9),
        row("e", env="gone"),
    ]
    told = [
        {"name": "lake", "state": "failing", "error": {"text": "no\nluck"}},
        {"name": "maze", "state": "idle", "error": None},
    ]
    lake, maze, gone = summed(told, rows)
    assert (lake.live, lake.busy, lake.calls, lake.memory) == (2, 1, 2, 10)
    assert (lake.state, lake.error) == ("failing", "no luck")
    assert (maze.live, maze.memory, maze.state, maze.error) == (0, None, "idle", "")
    assert (gone.name, gone.live, gone.state) == ("gone", 1, "not served")


def test_of_a_ring_of_lines_those_are_new_that_follow_what_was_there():
    assert news([], ["a", "b"]) == ["a", "b"]
    assert news(["a", "b"], ["a", "b"]) == []
    assert news(["a", "b", "c"], ["b", "c", "d"]) == ["d"]
    assert news(["a", "b"], ["x", "y"]) == ["x", "y"]
    assert news(["a", "a"], ["a", "a", "a"]) == ["a"]
