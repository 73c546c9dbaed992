"""The folder that a workspace begins as."""

import errno
import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxsim.inside.removal import remove_tree
from muxsim.start.template import Contents, TemplateFault, begin_as

NOTHING = Contents()
DAY = 1_700_000_000_000_000_000

names = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
files = st.tuples(st.just("file"), st.binary(max_size=50), st.sampled_from([0o644, 0o600, 0o755, 0o444]))
links = st.tuples(st.just("link"), st.sampled_from(["a", "../x", "/etc/passwd", "nowhere"]), st.none())
trees = st.recursive(
    st.dictionaries(names, files | links, max_size=4),
    lambda inner: st.dictionaries(names, files | links | inner, max_size=4),
    max_leaves=12,
)


def look_up():
    """Nothing is to be seen."""


def build(folder, tree, at=DAY):
    folder.mkdir()
    for name, what in tree.items():
        path = folder / name
        if isinstance(what, dict):
            build(path, what, at + 7)
        elif what[0] == "link":
            path.symlink_to(what[1])
        else:
            path.write_bytes(what[1])
            path.chmod(what[2])
            os.utime(path, ns=(at, at + 123_456_789))
    os.utime(folder, ns=(at, at))


def seen(folder):
    """Everything of what is in a folder that a program can see."""
    found = {}
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(place, name)
            status = os.lstat(path)
            content = None
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    content = file.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            found[os.path.relpath(path, folder)] = (stat.filemode(status.st_mode), status.st_mtime_ns, content)
    return found


@pytest.fixture
def begun(tmp_path):
    """Has a workspace begin as the folder `prepared`; what it holds, and its path."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()

    def begun(held=NOTHING, look_up=look_up):
        return begin_as(str(tmp_path / "prepared"), str(workspace), held, look_up), workspace

    return begun


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(trees)
def test_a_workspace_begins_as_its_folder_is(tmp_path_factory, tree):
    base = tmp_path_factory.mktemp("case")
    build(base / "prepared", tree)
    (base / "workspace").mkdir()
    begin_as(str(base / "prepared"), str(base / "workspace"), NOTHING, look_up)
    assert seen(base / "workspace") == seen(base / "prepared")


@pytest.mark.parametrize("lacking", ["nothing", "copy_file_range", "SEEK_DATA"])
def test_a_large_file_keeps_its_content_and_its_holes_by_whatever_means(begun, tmp_path, monkeypatch, lacking):
    (tmp_path / "prepared").mkdir()
    with (tmp_path / "prepared" / "sparse").open("wb") as file:
        file.write(b"head" * 1000)
        file.seek(40 * 2**20)
        file.write(b"tail" * 1000)
        file.truncate(64 * 2**20)

    def unknown(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    if lacking == "copy_file_range":
        monkeypatch.setattr(os, "copy_file_range", unknown)
    elif lacking == "SEEK_DATA":
        monkeypatch.setattr(os, "lseek", unknown)
    _, workspace = begun()
    copy = workspace / "sparse"
    assert copy.read_bytes() == (tmp_path / "prepared" / "sparse").read_bytes()
    if lacking != "SEEK_DATA":
        assert copy.stat().st_blocks * 512 < 2**20


def test_nothing_that_a_session_writes_reaches_the_folder(begun, tmp_path):
    build(tmp_path / "prepared", {"a": ("file", b"as it was", 0o644)})
    _, workspace = begun()
    (workspace / "a").write_text("another")
    assert (tmp_path / "prepared" / "a").read_text() == "as it was"


def test_a_copy_lends_nobody_rights(begun, tmp_path):
    build(tmp_path / "prepared", {"su": ("file", b"", 0o6755), "shared": {"x": ("file", b"", 0o644)}})
    (tmp_path / "prepared" / "shared").chmod(0o3777)
    _, workspace = begun()
    assert stat.S_IMODE((workspace / "su").stat().st_mode) == 0o755
    assert stat.S_IMODE((workspace / "shared").stat().st_mode) == 0o1777


@pytest.mark.parametrize("kind", ["FIFO", "socket"])
def test_what_has_no_copy_is_refused_by_its_name(begun, tmp_path, kind):
    (tmp_path / "prepared" / "deep").mkdir(parents=True)
    odd = tmp_path / "prepared" / "deep" / "odd"
    if kind == "FIFO":
        os.mkfifo(odd)
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(odd))
    with pytest.raises(TemplateFault, match=rf"deep/odd is a {kind}, of which there is no copy: take it out"):
        begun()


@pytest.mark.parametrize("what", ["missing", "a file"])
def test_a_folder_that_is_none_is_named(begun, tmp_path, what):
    if what == "a file":
        (tmp_path / "prepared").write_text("")
    with pytest.raises(TemplateFault, match="prepared cannot be read: N"):
        begun()


@pytest.mark.parametrize("what", ["a", "folder"])
def test_what_vanishes_while_it_is_copied_is_named(begun, tmp_path, monkeypatch, what):
    build(tmp_path / "prepared", {"a": ("file", b"1", 0o644), "folder": {"b": ("file", b"2", 0o644)}})
    vanishing, opened = str(tmp_path / "prepared" / what), os.open

    def open_after_a_removal(path, *args, **named):
        if path == vanishing and os.path.lexists(path):
            with monkeypatch.context() as plain:
                plain.setattr(os, "open", opened)  # for what removes it, too
                remove_tree(path) if os.path.isdir(path) else os.unlink(path)
        return opened(path, *args, **named)

    monkeypatch.setattr(os, "open", open_after_a_removal)
    with pytest.raises(TemplateFault, match=rf"prepared/{what} cannot be read: No such file"):
        begun()


@pytest.mark.parametrize("changes", [4, 1_000])
def test_a_folder_that_changes_while_it_is_copied_is_copied_anew_or_refused(begun, tmp_path, changes):
    build(tmp_path / "prepared", {"a": ("file", b"1", 0o644), "folder": {"b": ("file", b"2", 0o644)}})
    left = iter(range(changes))

    def change():
        if (number := next(left, None)) is not None:
            (tmp_path / "prepared" / "a").write_text("x" * number)

    if changes == 4:  # as often as it looks up in one copy
        contents, workspace = begun(look_up=change)
        assert seen(workspace) == seen(tmp_path / "prepared")
        assert begun(contents)[0] is contents
    else:
        with pytest.raises(TemplateFault, match="was changed while it was copied, 3 times"):
            begun(look_up=change)


def test_a_workspace_begins_anew_if_its_folder_has_changed_since_and_only_then(begun, tmp_path):
    build(tmp_path / "prepared", {"a": ("file", b"1", 0o644), "old": {"b": ("file", b"2", 0o444)}})
    (tmp_path / "prepared" / "old").chmod(0o555)
    contents, workspace = begun()
    (workspace / "own").write_text("")
    assert begun(contents)[0] is contents
    assert (workspace / "own").exists()
    # By its content alone: size, time and permissions are as they were.
    file = tmp_path / "prepared" / "a"
    before = file.stat()
    file.write_bytes(b"3")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    again, _ = begun(contents)
    assert again != contents
    assert seen(workspace) == seen(tmp_path / "prepared")


def test_a_workspace_can_begin_as_another_folder_or_as_none_after_all(begun, tmp_path):
    build(tmp_path / "prepared", {"a": ("file", b"1", 0o644)})
    build(tmp_path / "other", {"b": {"c": ("file", b"2", 0o644)}})
    contents, workspace = begun()
    contents = begin_as(str(tmp_path / "other"), str(workspace), contents, look_up)
    assert seen(workspace) == seen(tmp_path / "other")
    assert begin_as("", str(workspace), contents, look_up) == NOTHING
    assert seen(workspace) == {}


def test_a_folder_that_holds_the_sessions_is_refused(tmp_path):
    (tmp_path / "sessions" / "one").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path)
    for source in (tmp_path, tmp_path / "link", tmp_path / "sessions" / "one"):
        with pytest.raises(TemplateFault, match="holds the folder of muxsim's sessions"):
            begin_as(str(source), str(tmp_path / "sessions" / "one"), NOTHING, look_up)


def test_who_looks_up_can_end_it(begun, tmp_path):
    build(tmp_path / "prepared", {"a": ("file", b"1" * 100, 0o644)})

    class Enough(Exception):
        pass

    def look_up():
        raise Enough

    with pytest.raises(Enough):
        begun(look_up=look_up)


def in_a_child(do):
    """The status of a child that does this: 0 if nothing comes of it. Whatever happens, it goes no further."""
    if child := os.fork():
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        status = 1 if do() else 0
    finally:
        os._exit(status)


def test_a_folder_is_removed_however_deep_and_read_only_it_is(tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    fd = os.open(top, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    assert in_a_child(lambda: remove_tree(top) or os.listdir(tmp_path)) == 0


@pytest.mark.parametrize("leads_to", ["theirs", "theirs/file", "nowhere", "top"])
def test_what_a_link_in_the_place_of_a_folder_leads_to_is_left_alone(tmp_path, leads_to):
    theirs = tmp_path / "theirs"
    build(theirs, {"file": ("file", b"1", 0o444), "folder": {"file": ("file", b"1", 0o444)}})
    theirs.chmod(0o555)
    (tmp_path / "top").symlink_to(leads_to)
    remove_tree(tmp_path / "top")
    assert os.listdir(tmp_path) == ["theirs"]
    assert sorted(os.listdir(theirs)) == ["file", "folder"]
    assert theirs.stat().st_mode & 0o777 == 0o555


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody whom permissions stop")
def test_a_read_only_folder_of_ones_own_is_removed():
    with tempfile.TemporaryDirectory() as place:  # pytest's own are closed to others, in depth
        top = Path(place) / "top"
        build(top, {"a": {"b": {"c": ("file", b"1", 0o444)}}})
        for folder in (Path(place), top, top / "a", top / "a" / "b"):
            os.chown(folder, 65534, 65534)
        for folder in (top / "a" / "b", top / "a"):
            folder.chmod(0o500)

        def as_nobody():
            os.setresuid(65534, 65534, 65534)
            remove_tree(top)
            return top.exists()

        assert in_a_child(as_nobody) == 0
