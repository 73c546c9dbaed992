"""Patterns for the paths of files."""

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.rollouts.data.globs import Globs


def meant(path, *patterns):
    """Whether a path is one that the patterns mean, and whether each folder on the way would be looked into."""
    globs = Globs(patterns)
    state = globs.start
    *folders, name = path.split("/")
    for folder in folders:
        state = globs.below(state, folder)
        if not globs.leads_on(state):
            return False
    return globs.matches(globs.below(state, name))


@pytest.mark.parametrize(
    ("pattern", "these", "not_those"),
    [
        ("*.png", ["a.png", ".png", ".a.png"], ["a/b.png", "a.jpg", "a.png.txt"]),
        ("**/*.png", ["a.png", "a/b.png", "a/b/c.png"], ["a.jpg"]),
        ("out/**", ["out/a", "out/a/b", "out/.a"], ["out", "a/out/b"]),
        ("out/", ["out/a", "out/a/b"], ["out"]),
        ("./out/*.txt", ["out/a.txt"], ["a.txt", "out/a/b.txt"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["z", "a/b"]),
        ("**", ["a", "a/b"], []),
        ("**/**/x", ["x", "a/x", "a/b/x"], ["a"]),
        ("report[0-9].?", ["report1.a"], ["reportx.a", "report1."]),
        ("a*b", ["ab", "a\nb", "a\udcffb"], ["ba"]),
    ],
)
def test_a_pattern_means_these_and_not_those(pattern, these, not_those):
    assert [path for path in these if not meant(path, pattern)] == []
    assert [path for path in not_those if meant(path, pattern)] == []


names = st.text("ab.", min_size=1, max_size=3).filter(lambda name: name.strip("."))
parts = st.one_of(
    st.just("**"), st.text("ab.*?", min_size=1, max_size=3).filter(lambda one: "**" not in one and one.strip("."))
)


@given(st.lists(parts, min_size=1, max_size=4), st.lists(names, min_size=1, max_size=5))
def test_walking_name_by_name_means_what_the_whole_pattern_means(pattern, path):
    if pattern[-1] == "**":
        pattern = [*pattern, "*"]
    assert meant("/".join(path), "/".join(pattern)) == _slowly(pattern, path)


def _slowly(pattern, path):
    if not pattern:
        return not path
    if pattern[0] == "**":
        return _slowly(pattern[1:], path) or (bool(path) and _slowly(pattern, path[1:]))
    return (
        bool(path)
        and re.fullmatch(fnmatch.translate(pattern[0]), path[0]) is not None
        and _slowly(pattern[1:], path[1:])
    )


@given(
    st.lists(st.lists(parts, min_size=1, max_size=3).map("/".join), min_size=2, max_size=3),
    st.lists(names, min_size=1, max_size=4),
)
def test_several_patterns_mean_what_each_of_them_does(patterns, path):
    path = "/".join(path)
    assert meant(path, *patterns) == any(meant(path, pattern) for pattern in patterns)
