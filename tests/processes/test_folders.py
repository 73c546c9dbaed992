"""Which temporary folders a dead muxsim has left, and that it is no others."""

import fcntl
import os

import pytest

from muxsim.processes import folders
from muxsim.processes.folders import find_folders, own_folder, remove_folders
from muxsim.processes.owner import new_token, owner_of
from processes.owners import dead_owner, token_of


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(folders.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_left_behind_when_its_owner_is_gone_and_nobody_holds_it(temporary):
    left = temporary / f"muxsim-{token_of(dead_owner())}"
    left.mkdir()
    (left / "workspace").mkdir()
    assert find_folders() == find_folders(os.getpid()) == [left]
    assert find_folders(1) == []
    held = os.open(left, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert find_folders() == []
    os.close(held)
    assert remove_folders(find_folders()) == []
    assert not left.exists()


def test_other_folders_are_nobodys_business(temporary):
    for name in ("muxsim-notes", "muxsim-1-2-3", "other", f"muxsim-{new_token()}"):
        (temporary / name).mkdir()
    (temporary / f"muxsim-{token_of(dead_owner())}").write_text("a file")
    (temporary / f"muxsim-{token_of(dead_owner())[:-1]}1").symlink_to(temporary / "other")
    assert find_folders() == []


def test_a_folder_of_ones_own_is_held_and_named_by_its_owner(temporary):
    with own_folder() as folder:
        assert folder.parent == temporary
        assert owner_of(folder.name.removeprefix("muxsim-")).pid == os.getpid()
        other = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
        folder.rmdir()
