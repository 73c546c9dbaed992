"""What is asked for of Python packages, wherever it stands, and whether that is what is installed."""

import contextlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from muxsim.provision.inline import Metadata, parse_metadata
from muxsim.provision.requirements import admits, failing, parse_pyproject, read_file, unmet

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}([-_.][a-z0-9]{1,5})?", fullmatch=True)
VERSIONS = st.lists(st.integers(0, 50), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))
MARKERS = {"python_version": "3.11", "sys_platform": "linux"}


def script(block):
    return (
        "#!/usr/bin/env python\n" + "".join(f"# {line}".rstrip() + "\n" for line in block.splitlines()) + "import x\n"
    )


@given(st.lists(st.tuples(NAMES, VERSIONS).map(">=".join), max_size=5))
def test_what_a_script_says_it_needs_is_read_whatever_stands_around_it(lines):
    listed = "".join(f'    "{line}",\n' for line in lines)
    text = script(f"/// script\ndependencies = [\n{listed}]\n\nrequires-python = '>=3.11'\n///")
    assert parse_metadata(text) == Metadata(tuple(lines), ">=3.11")


@pytest.mark.parametrize(
    ("block", "word"),
    [
        ("/// script\ndependencies = []", "has no end"),
        ("/// script\ndependencies = [\n///", "cannot be read"),
        ("/// script\ndependencies = 'mcp'\n///", "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_block_is_told(block, word):
    with pytest.raises(ValueError, match=word):
        parse_metadata(script(block))


def test_two_blocks_are_one_too_many():
    with pytest.raises(ValueError, match="several"):
        parse_metadata(script("/// script\nx = 1\n///") * 2)


@given(st.text(max_size=200))
def test_any_text_is_a_block_or_an_error_of_one_kind(text):
    with contextlib.suppress(ValueError):
        parse_metadata("# /// script\n" + text)


def test_a_file_of_requirements_is_read_with_what_it_includes(tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base.txt").write_text(
        "-r ../requirements.txt\n-c limits.txt\nnumpy ; python_version >= '3'\n"
    )
    (tmp_path / "more" / "limits.txt").write_text("numpy<3\n")
    (tmp_path / "requirements.txt").write_text(
        "\ufeff# all of it\n--index-url https://h/simple\nmcp>=2 \\\n  --hash=sha256:00  # pinned\n"
        "-r more/base.txt\n-e ./own\nname[extra] @ https://h/x#egg=name\n\n"
    )
    found = read_file(tmp_path / "requirements.txt")
    lines = ("mcp>=2", "numpy ; python_version >= '3'", "-e ./own", "name[extra] @ https://h/x#egg=name")
    assert found.lines == lines
    assert [(one.path, one.editable) for one in found.paths] == [(tmp_path / "own", True)]
    assert len(found.texts) == 3


def test_a_project_is_a_package_where_it_can_be_built():
    text = "[project]\nname = 'demo'\nrequires-python = '>=3.12'\ndependencies = ['mcp']\n"
    assert parse_pyproject(text).metadata == Metadata(("mcp",), ">=3.12")
    assert parse_pyproject(text).name == ""
    assert parse_pyproject(text + "[build-system]\nrequires = []\n").name == "demo"
    for wrong, word in (("", "has no"), ("[project]\ndependencies = 'mcp'", "array"), ("[project", "Expected")):
        with pytest.raises(ValueError, match=word):
            parse_pyproject(wrong)


@given(NAMES, VERSIONS, VERSIONS)
def test_a_version_is_as_it_was_asked_for_or_the_two_are_told(name, asked, there):
    line = f"{name.upper()}=={asked}"
    same = Requirement(line).specifier.contains(there)
    told = unmet([line], {name.replace("-", "_"): there}, MARKERS)
    assert told == (None if same else f"{line} was asked for, and {name.upper()} {there} is installed")
    assert unmet([line], {}, MARKERS) == f"{line} was asked for, and {name.upper()} is not installed"


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("a", "1"),
        ("a>=1", "2.0rc1"),
        ("a==1.0", "1.0+cpu"),
        ("a[x]>=1", "1"),
        ("b; python_version < '3'", "1"),
        ("./here", "1"),
        ("git+https://h/x", "1"),
        ("a", "no-version"),
    ],
)
def test_what_does_not_apply_or_cannot_be_told_is_no_fault(line, version):
    assert unmet([line], {"a": version}, MARKERS) is None


def test_the_requirement_that_failed_is_found_in_what_an_installer_says():
    lines = ["numpy", "Box2D_py==2", "nosuch>=3"]
    assert failing(lines, "Because nosuch was not found in the package registry and you require nosuch>=3") == lines[2]
    assert failing(lines, "Failed to build `box2d-py==2`\n  swig: not found") == lines[1]
    assert failing(lines, "error: out of cheese") == ""


def test_a_python_is_admitted_by_its_version():
    assert admits(">=3.11", "3.11.7")
    assert not admits(">=3.12", "3.11.7")
    assert admits(">=3", sys.version.split()[0].rstrip("+"))
    with pytest.raises(ValueError, match="is no set of versions"):
        admits("three", "3.11")
