"""What is known of a script's imports from one run to the next."""

import os
import shutil

import pytest

from muxsim.spec import EnvSpec
from muxsim.start.fork import learned as module
from muxsim.start.fork.content import Content
from muxsim.start.fork.forkable import forkable
from muxsim.start.fork.learned import Learned, LearnedModules, key_of, read_names


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text("import json\n")
    return path


def key(script, *options):
    return key_of(Content(forkable(EnvSpec(name="e", command="/usr/bin/python3", args=(*options, str(script))), {})))


def test_a_changed_script_another_option_and_another_path_are_learned_anew(script, tmp_path):
    first = key(script)
    assert key(script) == first
    (tmp_path / "other.py").write_text("import json\n")
    others = {key(script, "-I"), key(tmp_path / "other.py")}
    os.utime(script, ns=(1, 1))
    others.add(key(script))
    assert len(others) == 3
    assert first not in others


def test_what_is_installed_beside_an_interpreter_is_learned_anew_when_it_changes(tmp_path):
    """And not when an import has left something, or all of it is copied to the same place."""
    python, packages = tmp_path / "venv" / "bin" / "python", tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    python.parent.mkdir(parents=True)
    python.symlink_to("/usr/bin/python3")
    (packages / "game-1.dist-info").mkdir(parents=True)
    content = Content(forkable(EnvSpec(name="e", command=str(python), args=("-m", "game")), {}))
    first, stamp = key_of(content), content.stamp()
    (packages / "__pycache__").mkdir()
    assert (key_of(content), content.stamp()) == (first, stamp)
    shutil.copytree(packages, tmp_path / "copy")
    shutil.rmtree(packages)
    (tmp_path / "copy").rename(packages)
    assert key_of(content) == first
    (packages / "game-1.dist-info").rename(packages / "game-2.dist-info")
    assert key_of(content) != first
    assert content.stamp() != stamp


def test_what_was_saved_is_there_again(tmp_path):
    store = LearnedModules(tmp_path / "deep" / "folder")
    assert store.load("k") is None
    learned = Learned(("json", "os"), {"os": "starts a thread"}, 1.5)
    store.save("k", learned)
    assert LearnedModules(tmp_path / "deep" / "folder").load("k") == learned
    assert [path.name for path in (tmp_path / "deep" / "folder").iterdir()] == ["k.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"modules": 3}', b"\xff"])
def test_a_file_that_is_no_use_counts_as_none(tmp_path, content):
    (tmp_path / "k.json").write_bytes(content)
    assert LearnedModules(tmp_path).load("k") is None


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    told = []
    store = LearnedModules(tmp_path / "file", told.append)
    for _ in range(3):
        store.save("k", Learned(("json",)))
    assert store.load("k") is None
    assert [(one.folder, one.again) for one in told] == [
        (str(tmp_path / "file"), again) for again in (None, True, True)
    ]
    assert "File exists" in told[0].error


def test_the_oldest_go_when_there_are_many(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    store = LearnedModules(tmp_path)
    for number in range(5):
        store.save(f"k{number}", Learned(("json",)))
        os.utime(tmp_path / f"k{number}.json", (number + 1, number + 1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["k2.json", "k3.json", "k4.json"]


def test_names_are_read_as_far_as_their_lines_are_whole(tmp_path):
    file = tmp_path / "names"
    assert read_names(file) == ()
    file.write_text("json\nos.path\njson\nhal")
    assert read_names(file) == ("json", "os.path")
