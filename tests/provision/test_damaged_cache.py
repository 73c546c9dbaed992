"""What uv's own cache has in it is not believed: it may be torn, and copies of it would be. The real uv, no index."""

import shutil
import zipfile
from pathlib import Path

import pytest
import trio
from wheels import wheel

from muxsim.provision.inventory import verified
from muxsim.provision.packages import prepare
from muxsim.provision.store import homes
from muxsim.spec import Dependencies, EnvSpec

pytestmark = pytest.mark.children

LIMIT = 300  # s, on a machine that is busy with others


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """What wants two wheels of this machine, with caches of its own for muxsim and uv."""
    monkeypatch.setenv("MUXSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    for name in ("mine", "other"):
        wheel(tmp_path / "wheels", name, "1.0", {f"{name}_data.txt": "as it is"})
    file = tmp_path / "requirements.txt"
    file.write_text("--no-index\n--find-links ./wheels\nmine\nother\n")
    dependencies = Dependencies(requirements_file=str(file))
    return EnvSpec(name="lake", command="python", args=("-c", "1"), dependencies=dependencies)


def unpacked(tmp_path, name):
    """Where uv keeps what was in a wheel."""
    (found,) = (tmp_path / "uv").glob(f"archive-v*/*/{name}.py")
    return found.parent


def emptied(file):
    file.write_text("")


SPOILT = {
    "cut off": lambda place: emptied(place / "mine_data.txt"),
    "another of that size": lambda place: (place / "mine_data.txt").write_text("as it xx"),
    "missing": lambda place: (place / "mine.py").unlink(),
    "not recorded": lambda place: emptied(place / "mine-1.0.dist-info" / "RECORD"),
    "without a record": lambda place: (place / "mine-1.0.dist-info" / "RECORD").unlink(),
    "nameless": lambda place: emptied(place / "mine-1.0.dist-info" / "METADATA"),
    "gone": shutil.rmtree,
    "empty": lambda place: (shutil.rmtree(place), place.mkdir()),
}


def contents(ready):
    (packages,) = Path(ready.installed[0]).glob("lib/*/site-packages")
    return {file.name: file.read_text() for file in [*packages.glob("*.py"), *packages.glob("*.txt")]}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
async def test_what_is_damaged_there_is_fetched_anew(spec, spoil, tmp_path):
    with trio.fail_after(LIMIT):
        right = contents(await prepare(spec))
        spoil(unpacked(tmp_path, "mine"))
        emptied(unpacked(tmp_path, "other") / "other.py")
        shutil.rmtree(tmp_path / "cache")
        assert contents(await prepare(spec)) == right


async def test_so_it_is_without_a_network(spec, tmp_path, monkeypatch):
    monkeypatch.setenv("UV_OFFLINE", "1")
    with trio.fail_after(LIMIT):
        right = contents(await prepare(spec))
        emptied(unpacked(tmp_path, "mine") / "mine.py")
        shutil.rmtree(tmp_path / "cache")
        assert contents(await prepare(spec)) == right


async def test_a_package_that_is_unlike_its_own_record_is_had_as_it_is(spec, tmp_path):
    path = wheel(tmp_path / "wheels", "mine", "2.0", {"mine_data.txt": "as it is"})
    wheel(tmp_path / "other", "mine", "2.0", {"mine_data.txt": "as it was"})
    torn = tmp_path / "other" / path.name
    with_record(torn, of=path)
    torn.replace(path)
    with trio.fail_after(LIMIT):
        assert contents(await prepare(spec))["mine_data.txt"] == "as it was"
        assert (await verified(spec)).state == "ready"


def with_record(path, *, of):
    """Give a wheel the record of another one."""
    with zipfile.ZipFile(of) as other, zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
        content["mine-2.0.dist-info/RECORD"] = other.read("mine-2.0.dist-info/RECORD")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def change(ready):
    (file,) = Path(ready.installed[0]).glob("lib/*/site-packages/mine_data.txt")
    file.chmod(0o644)
    file.write_text("as it xx")


async def test_a_file_whose_contents_changed_and_not_its_size_is_found_by_who_looks_at_all(spec, tmp_path):
    with trio.fail_after(LIMIT):
        ready = await prepare(spec)
        change(ready)
        found = await verified(spec)
    assert (found.state, found.problem) == ("damaged", "environment lake: mine_data.txt is not as mine has it")
    (home,) = homes(tmp_path / "cache" / "environments")
    assert home.damage() is None  # by sizes nothing is wrong
