"""What requirements name on this machine: files, folders and repositories. The real uv, no index."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from wheels import wheel

from muxsim.config import load
from muxsim.errors import PackageError
from muxsim.provision import local_paths as places
from muxsim.provision.local_paths import LocalPath, is_path, local_path
from muxsim.provision.packages import lock_of, prepare, taken, wanted_of

LIMIT = 300  # s, on a machine that is busy with others

BACKEND = """
import os, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "it-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        archive.write("it.py")
        archive.writestr("it-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: it\\nVersion: 1.0\\n")
        archive.writestr("it-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr("it-1.0.dist-info/RECORD", "")
    os.makedirs("build", exist_ok=True)
    open("build/made", "a").write("again")
    return name
build_editable = build_wheel
"""


def project(folder, version):
    """A package that can be built without anything installed for it."""
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(
        "[project]\nname = 'it'\nversion = '1.0'\n"
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    )
    (folder / "backend.py").write_text(BACKEND)
    (folder / "it.py").write_text(f"version = {version!r}\n")
    return folder


@pytest.fixture
def reads(tmp_path, monkeypatch):
    """Reads a config with such requirements, with caches of its own for muxsim and uv."""
    monkeypatch.setenv("MUXSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))

    def read(requirements, more=""):
        text = f"[environments.lake]\ncommand = 'python'\nargs = ['-c', '1']\nrequirements = {requirements!r}\n{more}"
        (tmp_path / "muxsim.toml").write_text(text)
        return load(tmp_path / "muxsim.toml").environments["lake"]

    return read


def version(ready):
    return subprocess.check_output([ready.command, "-c", "import it; print(it.version)"], text=True).strip()


PLACES = {
    "a wheel": (
        lambda folder, one: wheel(folder, "it", "1.0", {"it.py": f"version = {one!r}\n"}),
        "./it-1.0-py3-none-any.whl",
    ),
    "a folder": (lambda folder, one: project(folder / "project", one), "./project"),
    "a folder by its name": (lambda folder, one: project(folder / "project", one), "it @ ./project"),
    "a file of requirements": (
        lambda folder, one: ((folder / "more.txt").write_text("./project\n"), project(folder / "project", one)),
        "-r more.txt",
    ),
}


@pytest.mark.children
@pytest.mark.parametrize(("make", "line"), PLACES.values(), ids=PLACES.keys())
async def test_what_is_there_under_the_same_name_is_what_is_installed(reads, tmp_path, make, line):
    with trio.fail_after(LIMIT):
        make(tmp_path, "one")
        first = await prepare(reads([line]))
        assert version(first) == "one"
        assert await prepare(reads([line])) == first
        make(tmp_path, "two")
        assert version(await prepare(reads([line]))) == "two"
        make(tmp_path, "one")
        again = await prepare(reads([line]))
        assert (again.installed, version(again)) == (first.installed, "one")


def with_setup_py(folder, one):
    """The project of who has written no [project], whose name nobody can read."""
    project(folder, one)
    (folder / "pyproject.toml").write_text(
        (folder / "pyproject.toml").read_text().replace("[project]\nname = 'it'\nversion = '1.0'\n", "")
    )


@pytest.mark.children
@pytest.mark.parametrize("make", [project, with_setup_py])
async def test_a_folder_is_built_anew_without_a_network(reads, tmp_path, monkeypatch, make):
    monkeypatch.setenv("UV_OFFLINE", "1")
    with trio.fail_after(LIMIT):
        for content in ("one", "two"):
            make(tmp_path / "project", content)
            assert version(await prepare(reads(["./project"]))) == content


@pytest.mark.children
async def test_an_editable_one_stays_where_it_is_worked_on(reads, tmp_path):
    project(tmp_path / "project", "one")
    with trio.fail_after(LIMIT):
        first = await prepare(reads(["-e ./project"]))
        (tmp_path / "project" / "it.py").write_text("version = 'two'\n")
        assert await prepare(reads(["-e ./project"])) == first


@pytest.mark.children
async def test_a_wheel_that_is_another_than_the_locked_one_is_not_installed(reads, tmp_path):
    make, line = PLACES["a wheel"]
    make(tmp_path, "one")
    with trio.fail_after(LIMIT):
        spec = reads([line])
        _, held = await taken(spec)
        pins = await lock_of(await wanted_of(spec), held)
        held.close()

        def locked():
            found = reads([line])
            return replace(found, dependencies=replace(found.dependencies, pins=pins, locked=True))

        assert version(await prepare(locked())) == "one"
        make(tmp_path, "two")
        with pytest.raises(PackageError, match=r"now asks for \./it-1\.0-py3-none-any\.whl sha256:"):
            await prepare(locked())


@pytest.mark.children
@pytest.mark.parametrize("requirements", ["more.txt", ["-r more.txt"]])
async def test_what_has_paths_in_a_file_of_requirements_can_be_locked(reads, tmp_path, requirements):
    project(tmp_path / "project", "one")
    wheel(tmp_path / "wheels", "other", "1.0")
    (tmp_path / "more.txt").write_text("--no-index\n--find-links ./wheels\nother\n./project\n")
    with trio.fail_after(LIMIT):
        spec = reads(requirements)
        _, held = await taken(spec)
        (of_uv,) = await lock_of(await wanted_of(spec), held)
        held.close()
        assert of_uv.pins == "other==1.0\n"  # a folder of wheels has no hashes
        locked = replace(spec, dependencies=replace(spec.dependencies, pins=(of_uv,), locked=True))
        assert version(await prepare(locked)) == "one"


def git(folder, *args):
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    return subprocess.check_output(["git", *who, *args], cwd=folder, text=True).strip()


@pytest.mark.children
@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git on this machine")
@pytest.mark.parametrize("named", ["it @ ", ""])
async def test_a_lock_has_the_commit_of_what_comes_from_git(reads, tmp_path, named):
    repository = project(tmp_path / "repository", "one")
    git(repository, "init", "-q")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "one")
    commit = git(repository, "rev-parse", "HEAD")
    line = f"{named}git+file://{repository}@main"
    (tmp_path / "more.txt").write_text(f"{line}\n")
    with trio.fail_after(LIMIT):
        spec = reads("more.txt")
        wanted = await wanted_of(spec)
        _, held = await taken(spec)
        (of_uv,) = pins = await lock_of(wanted, held)
        held.close()
        assert of_uv.pins == f"it @ git+file://{repository}@{commit}\n"
        project(repository, "two")
        git(repository, "commit", "-qam", "two")
        locked = replace(spec, dependencies=replace(spec.dependencies, pins=pins, locked=True))
        shutil.rmtree(tmp_path / "cache")
        assert version(await prepare(locked)) == "one"
        shutil.rmtree(tmp_path / "cache")
        assert version(await prepare(spec)) == "two"


def test_of_a_folder_with_much_in_it_sizes_and_times_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "_MOST_READ", 10)
    (tmp_path / "a").write_text("1234")
    (tmp_path / "b").write_text("12345678")
    digests = {(one := LocalPath("./", tmp_path, editable=False)).digest()}
    for file, time in (("a", 0), ("b", 1), ("b", 2)):
        (tmp_path / file).write_text((tmp_path / file).read_text()[::-1])
        os.utime(tmp_path / file, (time, time))
        digests.add(one.digest())
    assert len(digests) == 4


def grown(folder, file):
    """Write more to a file of a folder, which may not be there yet."""
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    with (folder / file).open("a") as opened:
        opened.write("more\n")


def test_what_is_played_in_a_project_makes_it_no_other(tmp_path):
    one = LocalPath(".", project(tmp_path / "project", "one"), editable=False)
    before = one.digest()
    for made in ("runs/a/1.log", "target/a", "mlruns/0/meta", "wandb/run/a", "logs/a", "muxsim.toml", "muxsim.lock"):
        grown(one.path, made)
        assert one.digest() == before, made
    for run in ("mine", "of/yesterday"):
        for made in ("config.json", "rollouts.jsonl", "images/a.png"):
            grown(one.path, f"{run}/{made}")
        assert one.digest() == before, run


@pytest.mark.parametrize("file", ["runs/__init__.py", "it/runs/a.py", "it/muxsim.toml", "data/rollouts.jsonl", "a.py"])
def test_what_a_project_has_of_such_names_is_its_own(tmp_path, file):
    one = LocalPath(".", project(tmp_path / "project", "one"), editable=False)
    digests = {one.digest()}
    for _ in range(2):
        grown(one.path, file)
        digests.add(one.digest())
    assert len(digests) == 3


def test_what_cannot_be_read_of_a_folder_hides_nothing_else_of_it(tmp_path, monkeypatch):
    one = LocalPath(".", project(tmp_path / "project", "one"), editable=False)
    read = places._digest_of_file

    def refused(path):
        if path.name == "secret":
            raise PermissionError(path)
        return read(path)

    monkeypatch.setattr(places, "_digest_of_file", refused)
    (one.path / "leads-nowhere").symlink_to("nothing")
    digests = {one.digest()}
    for file in ("secret", "secret", "it.py"):
        grown(one.path, file)
        digests.add(one.digest())
    assert len(digests) == 4
    assert one.digest() in digests - {""}
    assert LocalPath("./none", tmp_path / "none", editable=False).digest() == ""


@given(st.text(max_size=30))
def test_any_line_names_something_here_or_nothing(line):
    found = local_path(line, Path("/p"))
    assert found is None or found.path.is_absolute()
    assert isinstance(is_path(line), bool)


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("numpy>=2", None),
        ("it @ git+https://h/it@main", None),
        ("https://h/it.whl", None),
        ("-r more.txt", None),
        ("it @ file:///w/it%20s.whl", "/w/it s.whl"),
        ("./it[gym] ; python_version > '3'", "/p/it"),
        ("./it; python_version > '3'", "/p/it"),
        ("it @ ./it; python_version > '3'", "/p/it"),
        ("./it;1", "/p/it;1"),
        ("-e ../it", "/it"),
        ("-e ../it ; python_version > '3'", "/it"),
        ("--editable=it", "/p/it"),
        ("~/it", os.path.expanduser("~/it")),
        ("it.tar.gz", "/p/it.tar.gz"),
    ],
)
def test_where_a_line_leads_is_known(line, path):
    found = local_path(line, Path("/p"))
    assert path == (None if found is None else str(found.path))
