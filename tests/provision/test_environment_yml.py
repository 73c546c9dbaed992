"""What an `environment.yml` says, and what is wrong with one, in a line each."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

yaml = pytest.importorskip("yaml", reason="the extra conda is not installed")

from muxsim.provision.environment_yml import (  # noqa: E402
    EnvironmentFile,
    parse_environment_file,
    read_environment_file,
)

HOME = Path("/project")


def parse(text):
    return parse_environment_file(text.encode(), HOME)


def fault(text):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - its text is what the tests look at
        parse(text)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_channels_specs_the_pip_section_and_variables_are_read_in_their_order():
    found = parse("""
name: lander
channels: [conda-forge, https://example.org/mine, nodefaults]
dependencies:
  - python=3.10
  - conda-forge::numpy >=1.26,<3
  - pip
  - pip:
      - gymnasium[box2d]>=1.4
      - -r more.txt
variables:
  SCALE: 3.10
prefix: /home/somebody/miniconda3/envs/lander
""")
    assert found == EnvironmentFile(
        channels=("conda-forge", "https://example.org/mine"),
        specs=("python=3.10", "conda-forge::numpy >=1.26,<3", "pip"),
        pip=("gymnasium[box2d]>=1.4", "-r more.txt"),
        variables=(("SCALE", "3.10"),),
    )


def test_paths_among_the_channels_are_of_the_files_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = parse("channels: [./channel, ../other, /srv/channel, ~/mine, 'file:///as/it/is']")
    assert found.channels == (
        *("file:///project/channel", "file:///other", "file:///srv/channel", "file:///home/me/mine"),
        "file:///as/it/is",
    )


@pytest.mark.parametrize(
    "text", ["{}", "dependencies:", "channels:\ndependencies: []\nvariables:", "dependencies: [pip: ]"]
)
def test_what_is_empty_asks_for_nothing(text):
    assert parse(text) == EnvironmentFile()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file has to be a mapping of names, not None"),
        ("- python", "the file has to be a mapping of names, not ['python']"),
        ("dependences: [python]", "'dependences' is nothing that muxsim knows of: use channels, dependencies, "),
        ("dependencies: python", "dependencies has to be a list, not 'python'"),
        (
            "dependencies: [{python: 3.10}]",
            "dependencies has 'python' with something of its own, as only `pip:` may be",
        ),
        ("dependencies: [[python]]", "dependencies has ['python'], which is no text of one line"),
        ("dependencies: ['']", "dependencies has '', which is no text of one line"),
        ("dependencies: [pip: numpy]", "pip has to be a list, not 'numpy'"),
        ("channels: conda-forge", "channels has to be a list, not 'conda-forge'"),
        ("variables: [A]", "variables has to be a mapping of names, not ['A']"),
        ("variables: {A: [1]}", "variables has a A that is no text"),
        ("variables: {'A=B': 1}", "variables has 'A=B', which is no name of a variable"),
        ("channels: [a]\nchannels: [b]", "line 1: 'channels' stands there twice"),
        ("channels: [a\ndependencies: [b]", "line 2: "),
        ("a: &a [*a]", "recursive"),
        ("[" * 5000, "it is nested too deeply"),
    ],
)
def test_a_fault_is_named_in_one_line(text, said):
    assert said in fault(text)


def test_a_file_that_is_far_too_large_is_not_read_to_its_end(tmp_path):
    path = tmp_path / "environment.yml"
    path.write_bytes(b"#" * 2_000_000)
    with pytest.raises(ValueError, match="it has more than 1048576 bytes"):
        read_environment_file(path)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode(errors="replace")))
def test_whatever_the_bytes_are_they_are_read_or_refused_in_one_line(content):
    try:
        found = parse_environment_file(content, HOME)
    except ValueError as error:
        said = str(error)
    else:
        said = " ".join((*found.specs, *found.pip, *found.channels))
    assert "\n" not in said
