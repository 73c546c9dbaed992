"""What a backend said last, as text that harms nobody who shows it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.placement.last_words import last_said, plain, with_last_said, with_unsaid

OF_NODE = """\
file:///game/server.js:13
  throw new Error("the map is missing");
        ^

Error: the map is missing
    at step (file:///game/server.js:13:9) {
  code: 'ENOENT'
}

Node.js v20.20.2
"""


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], ""),
        (["", " "], ""),
        (["Traceback:", "  File x", "KeyError: 'a'", ""], "KeyError: 'a'"),
        (OF_NODE.splitlines(), "Error: the map is missing"),
        (["Node.js v20.20.2"], "Node.js v20.20.2"),
    ],
)
def test_the_last_line_that_says_something_is_what_an_environment_said_last(lines, said):
    assert last_said(lines) == said


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("KeyError: 'a'", "KeyError: 'a'"),
        ("\x1b[31;1mred\x1b[0m and \x1b]0;a title\x07plain\x1b[2J", "red and plain"),
        ("\x1b]8;;http://evil.example\x1b\\a link\x1b]8;;\x1b\\", "a link"),
        ("one\rtwo\x00\x08three\tfour\u2028five", "one two three four five"),
        ("moc.elpmaxe\u202e\u2066 \ufeffx", "moc.elpmaxe x"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("größe 文字", "größe 文字"),
        ("x" * 5000, "x" * 299 + "…"),
        ("\x1b[", ""),
    ],
)
def test_a_line_is_shown_as_text_and_nothing_else(line, shown):
    assert plain(line) == shown


@given(st.lists(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\x1b[]m;0\x07\x9b\r\n")))))
def test_whatever_it_said_is_one_short_line_without_control_characters(lines):
    shown = with_last_said("it exited", lines)
    assert shown.isprintable()
    assert len(shown) <= 400


def test_the_reason_stands_alone_where_nothing_was_said():
    assert with_last_said("it exited", ["", " \x1b[0m"]) == "it exited"
    assert with_last_said("it exited", ["a", "b", "\x1b[0m"]) == "it exited; its last line on stderr: b"


def test_a_line_that_a_text_has_in_it_is_not_said_again():
    assert with_unsaid("it exited; its last line on stderr: b", ["a", "\x1b[31mb\x1b[0m"]) == (
        "it exited; its last line on stderr: b\na"
    )
    assert with_unsaid("it exited", ["a", "b"]) == "it exited\na\nb"
    assert with_unsaid("it exited", []) == "it exited"
