"""Files of a workspace that are kept when an episode ends, whoever has written it."""

import hashlib
import os
import socket
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxsim.processes.folders import remove_tree
from muxsim.rollouts.data import kept_files
from muxsim.rollouts.data.kept_files import Collect, KeptFile, keep_files, quoted

MANY = 10_000


@pytest.fixture
def workspace(tmp_path):
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def kept(tmp_path, workspace):
    """Keeps files by these patterns; what was kept, and the problem."""

    def kept(*patterns, max_bytes=2**20, max_files=MANY):
        collect = Collect(patterns or ("**",), max_bytes, max_files)
        return keep_files(workspace, tmp_path / "files" / "one", collect)

    return kept


def put(workspace, **files):
    for name, content in files.items():
        path = workspace / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_what_the_patterns_mean_is_kept_with_its_size_and_hash(kept, workspace, tmp_path):
    put(workspace, a_png=b"1", b_txt=b"22", out__c_png=b"333", out__deep__d_txt=b"4444")
    files, problem = kept("*.png", "out/**")
    assert problem is None
    assert files == [
        KeptFile(path=path, file=f"files/one/{path}", size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for path, content in (("a.png", b"1"), ("out/c.png", b"333"), ("out/deep/d.txt", b"4444"))
    ]
    assert [(tmp_path / one.file).read_bytes() for one in files] == [b"1", b"333", b"4444"]


def test_nothing_is_made_where_nothing_is_meant(kept, workspace, tmp_path):
    put(workspace, b_txt=b"22")
    assert kept("*.png") == ([], None)
    assert not (tmp_path / "files").exists()


def test_no_link_is_followed(kept, workspace, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "x.png").write_text("secret")
    put(workspace, real_png=b"mine")
    (workspace / "shadow.png").symlink_to(secret / "x.png")
    (workspace / "inner.png").symlink_to("real.png")
    (workspace / "nowhere.png").symlink_to("/nowhere")
    (workspace / "folder").symlink_to(secret)
    files, problem = kept("**/*.png")
    assert [one.path for one in files] == ["real.png"]
    links = [f"{name}.png is a link, which is not followed" for name in ("inner", "nowhere", "shadow")]
    assert problem == "; ".join(links)
    assert "secret" not in "".join(path.read_text() for path in (tmp_path / "files").rglob("*") if path.is_file())


def test_what_waits_or_has_no_end_is_not_opened(kept, workspace):
    os.mkfifo(workspace / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(workspace / "socket.png"))
    (workspace / "folder.png").mkdir()
    put(workspace, real_png=b"mine")
    files, problem = kept("*.png")
    assert [one.path for one in files] == ["real.png"]
    assert problem == "pipe.png is no regular file; socket.png is no regular file"


@pytest.mark.parametrize("becomes", ["link", "FIFO", "nothing"])
def test_a_file_that_becomes_something_else_meanwhile_is_not_kept(kept, workspace, tmp_path, monkeypatch, becomes):
    put(workspace, a_png=b"mine")
    (tmp_path / "secret").write_text("secret")
    opened = os.open

    def open_after_a_change(path, flags, *args, **named):
        if path == "a.png":
            os.unlink(workspace / "a.png")
            if becomes == "link":
                os.symlink(tmp_path / "secret", workspace / "a.png")
            elif becomes == "FIFO":
                os.mkfifo(workspace / "a.png")
        return opened(path, flags, *args, **named)

    monkeypatch.setattr(os, "open", open_after_a_change)
    files, problem = kept("*.png")
    assert files == []
    assert problem.startswith("a.png ")


def test_a_file_that_grows_is_kept_as_far_as_it_was_and_told_of(kept, workspace, tmp_path, monkeypatch):
    put(workspace, a_log=b"12345")
    read = os.read

    def read_while_it_grows(fd, size):
        with (workspace / "a.log").open("ab") as file:
            file.write(b"more")
        return read(fd, size)

    monkeypatch.setattr(os, "read", read_while_it_grows)
    (one,), problem = kept()
    assert (one.size, (tmp_path / one.file).read_bytes()) == (5, b"12345")
    assert problem == "a.log was changed while it was kept"


def test_bytes_and_number_are_bounded_and_what_is_past_them_is_told(kept, workspace):
    put(workspace, a=b"1" * 60, b=b"2" * 50, c=b"3" * 40, d=b"4")
    with (workspace / "huge").open("wb") as file:
        file.truncate(2**40)
    files, problem = kept(max_bytes=100)
    assert [one.path for one in files] == ["a", "c"]
    assert problem == (
        "b (50 bytes) is past max_collected = 100; d (1 bytes) is past max_collected = 100; "
        f"huge ({2**40} bytes) is past max_collected = 100"
    )


def test_files_past_the_number_are_counted(kept, workspace):
    put(workspace, a=b"1", b=b"2", c__d=b"3", c__e=b"4")
    files, problem = kept(max_files=2)
    assert [one.path for one in files] == ["a", "b"]
    assert problem == "2 files are past max_collected_files = 2"


def test_a_workspace_without_end_is_not_looked_through(kept, workspace, monkeypatch):
    monkeypatch.setattr(kept_files, "_MOST_ENTRIES", 50)
    for number in range(60):
        (workspace / f"f{number}").touch()
    files, problem = kept()
    assert (files, problem) == ([], "there are more than 50 files and folders, of which the rest was not seen")


def test_folders_are_looked_into_only_so_deep(kept, workspace):
    fd = os.open(workspace, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(os.open("file", os.O_CREAT, dir_fd=fd))
    os.close(fd)
    files, problem = kept()
    assert files == []
    assert problem.endswith("is too deep to be looked into")
    assert len(problem) < 200
    remove_tree(workspace)


def test_problems_are_told_in_one_line_of_bounded_length(kept, workspace):
    for number in range(30):
        (workspace / f"{number:02}{'x' * 200}").symlink_to("/")
    _, problem = kept()
    assert problem.count(";") == 5
    assert problem.endswith("25 more of that kind")
    assert len(problem) < 1200


def test_a_disk_that_is_full_is_told_and_leaves_no_part_of_a_file(kept, workspace, tmp_path, monkeypatch):
    put(workspace, a=b"1", b=b"2")

    def full(self, *_):
        os.close(os.open(self, os.O_CREAT | os.O_WRONLY))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    files, problem = kept()
    assert files == []
    assert problem.startswith("a could not be kept: No space left on device; b could")
    assert [path for path in (tmp_path / "files").rglob("*") if path.is_file()] == []


def test_a_workspace_that_is_gone_is_told(kept, workspace):
    workspace.rmdir()
    assert kept() == ([], "the workspace cannot be read: No such file or directory")


names = st.binary(min_size=1, max_size=20).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(names, st.binary(max_size=20), max_size=6), names)
def test_whatever_a_file_is_called_it_is_kept_under_a_name_that_can_be_written_down(files, folder):
    with tempfile.TemporaryDirectory() as base:
        inner = os.path.join(os.fsencode(base), b"workspace", folder)
        os.makedirs(inner)
        for name, content in files.items():
            with open(os.path.join(inner, name), "wb") as file:
                file.write(content)
        kept, problem = keep_files(Path(base, "workspace"), Path(base, "files", "one"), Collect(("**",), 2**20, MANY))
        assert problem is None
        assert sorted(Path(base, one.file).read_bytes() for one in kept) == sorted(files.values())
        again = msgspec.json.decode(msgspec.json.encode(kept), type=list[KeptFile])
        assert again == kept
        assert all(one.file.isprintable() for one in kept)


@given(st.lists(names, unique=True, max_size=10))
def test_two_names_are_never_kept_as_one(raw):
    written = [quoted(os.fsdecode(name)) for name in raw]
    assert len(set(written)) == len(raw)
    assert quoted("plot 1 (ä).png") == "plot 1 (ä).png"
