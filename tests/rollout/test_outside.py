"""What is seen of what sessions write outside of their workspaces."""

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.rollouts.play.outside import (
    Outside,
    Place,
    changed,
    every_process,
    open_for_writing,
    places_of,
    stamps_of,
    told,
)

HOME, TEMPORARY = "/home/me", "/var/tmp"
STORE = "/home/me/.cache/muxsim/environments"


def sessions(*windows, held=(), idle=()):
    """What counts as written by sessions of which each saw these files change."""
    outside = Outside(("/own",))
    for window in windows:
        outside.saw(window)
        outside.saw(held, for_certain=True)
        outside.session_over()
    outside.clear(idle)
    return outside.written()


def test_a_file_counts_if_each_session_changed_it_and_nobody_did_while_none_was_there():
    assert sessions(["/a"], ["/a", "/b"], ["/a", "/own/c"], ["/a", "/b", "/own/c"]) == {"/a": 4}
    assert sessions(["/a"], ["/a"], idle=["/a"]) == {}
    assert sessions(["/a"], ["/a"], [], idle=[]) == {}


def test_one_session_alone_tells_nothing_but_of_what_it_holds_open():
    assert sessions(["/a"]) == {}
    assert sessions(["/a"], held=["/a"]) == {"/a": 1}


def test_a_file_that_a_session_holds_open_is_its_own_whoever_else_writes():
    assert sessions([], held=["/a"], idle=["/a"]) == {"/a": 1}
    assert sessions(["/a"], ["/a"], held=["/a"], idle=["/a"]) == {"/a": 2}


@given(st.lists(st.sets(st.sampled_from("abcdef")), max_size=6), st.sets(st.sampled_from("abcdef")))
def test_nothing_counts_but_what_changed_in_each(windows, idle):
    windows = [{f"/{name}" for name in window} for window in windows]
    written = sessions(*windows, idle={f"/{name}" for name in idle})
    for path, count in written.items():
        assert count == len(windows) == sum(path in window for window in windows) > 1
        assert path[1:] not in idle


def test_changes_are_seen_by_time_size_and_inode_but_not_what_interpreters_leave(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "a").write_text("1")
    (tmp_path / "deep" / "er" / "b").write_text("1")
    before = stamps_of([Place(str(tmp_path))])
    assert changed(before, stamps_of([Place(str(tmp_path))])) == set()
    (tmp_path / "new").write_text("1")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "__pycache__" / "x.pyc").write_text("1")
    (tmp_path / "deep" / "er" / "b").write_text("22")
    replaced = tmp_path / "replacement"
    replaced.write_text("1")
    os.utime(replaced, ns=((tmp_path / "a").stat().st_atime_ns, (tmp_path / "a").stat().st_mtime_ns))
    replaced.rename(tmp_path / "a")
    seen = changed(before, stamps_of([Place(str(tmp_path))]))
    assert seen == {str(tmp_path / name) for name in ("a", "new", "deep/er/b")}
    assert changed({}, stamps_of([Place(str(tmp_path), 1)])) == {str(tmp_path / name) for name in ("a", "new")}
    assert changed({}, stamps_of([Place(str(tmp_path))], [str(tmp_path / "deep")])) == {
        str(tmp_path / name) for name in ("a", "new")
    }


def test_a_process_is_seen_to_write_what_it_holds_open_for_that(tmp_path):
    (tmp_path / "read").write_text("1")
    with (
        (tmp_path / "read").open(),
        (tmp_path / "written").open("w"),
        (tmp_path / "gone").open("w"),
        (tmp_path / "renamed").open("w"),
    ):
        (tmp_path / "gone").unlink()
        (tmp_path / "renamed").rename(tmp_path / "moved")
        (tmp_path / "renamed").write_text("another of that name")
        mine = {path for path in open_for_writing([os.getpid(), 2**22 + 1]) if path.startswith(str(tmp_path))}
        assert mine == {str(tmp_path / "written"), str(tmp_path / "moved")}
    assert stat.S_ISREG((tmp_path / "read").stat().st_mode)


def test_what_somebody_else_has_open_when_a_session_is_over_is_known_whoever_that_is(tmp_path):
    with (tmp_path / "log").open("w"):
        assert str(tmp_path / "log") in open_for_writing(every_process())
    assert str(tmp_path / "log") not in open_for_writing(every_process())


def test_it_looks_where_the_code_is_and_where_it_runs(tmp_path):
    (tmp_path / "node").touch()
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "index.js").touch()
    words = [str(tmp_path / "node"), str(tmp_path / "dist" / "index.js"), "--seed", "7"]
    assert places_of(words, "/srv/project", HOME, TEMPORARY) == [
        Place("/srv/project"),
        Place(str(tmp_path / "dist")),
        Place(HOME, 2),
        Place(TEMPORARY, 1),
    ]


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ({"/p/a": 2, "/p/b/c": 1}, 'private = ["/p"] gives each session its own view'),
        ({f"{HOME}/.x": 2}, 'env = { HOME = "{workspace}" } has it write into its workspace'),
        ({f"{TEMPORARY}/x": 2}, 'env = { TMPDIR = "{workspace}" } has it write into its workspace'),
        ({f"{HOME}/.x/y": 2}, f'private = ["{HOME}/.x"] gives each session its own view'),
        (
            {f"{STORE}/memory-0/1f0c/npm/memory.jsonl": 2},
            "what muxsim has installed is private to each session by itself: take private = [] out",
        ),
    ],
)
def test_the_advice_is_a_setting_that_keeps_the_files_apart(written, advice):
    text = told(written, HOME, TEMPORARY, STORE)
    assert text.endswith(f": {advice}")
    assert all(path in text for path in written)


def test_of_many_files_the_first_are_told():
    text = told({f"/p/{number}": 2 for number in range(9)}, HOME, TEMPORARY, STORE)
    assert "/p/4 (2 sessions wrote it), and 4 more: private" in text
