"""The store: an environment is whole or not there, in use or removable, whoever is killed at whatever moment."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from muxsim.errors import PackageError
from muxsim.provision.manifest import Manifest
from muxsim.provision.store import Home, homes, removed, whole

FILES = {"server.py": "print()", "data/table.json": "{}"}


class Builds:
    """Fills a folder with a version of its own, or that of the one before."""

    def __init__(self, version="1", fails=None):
        self.version, self.fails, self.count = version, fails, 0

    async def __call__(self, folder, lock, before):
        self.count += 1
        version = before.pins["letters"] if before is not None else self.version
        for name, text in FILES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        (folder / "link").symlink_to("server.py")
        if self.fails is not None:
            raise self.fails
        asked = {"letters": ("a",)}
        return Manifest(
            folder=folder.name, asked=asked, packages={"letters": {"a": version}}, pins={"letters": version}
        )


async def is_fine(folder, lock):
    return None


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "environments" / "grid-0")


async def used_once(home, builds, check=is_fine, **options):
    """Have it whole, and give it back; returns its folder."""
    held = await whole(home, builds, check, **options)
    held.close()
    return held.prefix


def version(home):
    return home.manifest().packages["letters"]["a"]


def folders(home):
    return [path for path in home.folder.iterdir() if path.is_dir()]


def writable(folder):
    """What nobody can have done to it by mistake."""
    for inner, _, files in os.walk(folder):
        os.chmod(inner, 0o755)
        for name in files:
            os.chmod(os.path.join(inner, name), 0o644)


async def test_what_is_whole_is_not_made_again(home):
    builds = Builds()
    first = await used_once(home, builds)
    assert await used_once(home, builds) == first
    assert (builds.count, home.damage(), folders(home)) == (1, None, [first])


async def test_what_has_been_made_cannot_be_written_to(home):
    folder = await used_once(home, Builds())
    writing = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    found = [folder, *folder.rglob("*")]
    assert len(found) == 5
    assert [path for path in found if not path.is_symlink() and path.stat().st_mode & writing] == []


@pytest.mark.parametrize("file", [*FILES, "link"])
@pytest.mark.parametrize("how", ["removed", "cut off"])
async def test_what_is_damaged_is_made_anew_as_it_was(home, file, how):
    folder = await used_once(home, Builds("1"))
    writable(folder)
    (folder / file).unlink()
    if how == "cut off":
        (folder / file).touch()
    assert file in home.damage()
    again = await used_once(home, Builds("2"))
    assert again != folder
    assert (version(home), home.damage(), folders(home)) == ("1", None, [again])


async def test_what_is_not_what_was_asked_for_is_made_anew_though_all_its_files_are_there(home):
    async def check(folder, lock):
        return "it does not start" if folder == first else None

    builds = Builds()
    first = await used_once(home, builds)
    assert await used_once(home, builds, check) != first
    assert builds.count == 2


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b'{"folder": "../.."}', b"\xff"])
async def test_a_manifest_that_says_nothing_of_use_is_none(home, manifest):
    folder = await used_once(home, Builds())
    (home.folder / "manifest.json").write_bytes(manifest)
    assert home.manifest() is None
    assert await used_once(home, Builds()) != folder
    assert len(folders(home)) == 1


async def test_what_has_come_to_it_is_no_damage(home):
    builds = Builds()
    folder = await used_once(home, builds)
    writable(folder)
    (folder / "memory.json").write_text("{}")
    assert await used_once(home, builds) == folder


@pytest.mark.parametrize("error", [PackageError("no network"), OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
async def test_what_cannot_be_made_is_not_there_and_what_was_there_before_stays(home, error):
    with pytest.raises(type(error)):
        await used_once(home, Builds(fails=error))
    assert (home.manifest(), folders(home)) == (None, [])
    folder = await used_once(home, Builds("1"))
    writable(folder)
    (folder / "server.py").unlink()
    with pytest.raises(type(error)) as caught:
        await used_once(home, Builds("2", fails=error))
    assert (version(home), folders(home)) == ("1", [folder])
    if isinstance(error, PackageError):
        assert "is damaged (server.py is missing), and cannot be made anew: no network" in caught.value.message


async def test_one_builds_while_others_wait(home):
    builds = Builds()
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(used_once, home, builds)
    assert builds.count == 1


async def test_what_is_in_use_is_not_removed_and_what_is_not_leaves_nothing(home):
    held = await whole(home, Builds(), is_fine)
    assert (home.is_used(), home.users(), await removed(home)) == (True, (os.getpid(),), False)
    assert home.damage() is None
    held.close()
    assert (home.is_used(), home.users(), await removed(home)) == (False, (), True)
    assert list(home.folder.parent.iterdir()) == []


async def test_what_is_being_made_is_not_removed(home):
    async def build(folder, lock, before):
        assert home.is_being_made()
        assert not await removed(home)
        return await Builds()(folder, lock, before)

    await used_once(home, build)
    assert not home.is_being_made()
    assert home.damage() is None


async def test_one_that_is_made_anew_leaves_the_one_before_to_who_uses_it(home):
    first = await whole(home, Builds(), is_fine)
    second = await whole(home, Builds(), is_fine, force=True)
    assert (second.made_anew, sorted(folders(home))) == (True, sorted([first.prefix, second.prefix]))
    second.close()
    first.close()
    third = await whole(home, Builds(), is_fine, force=True)
    assert folders(home) == [third.prefix]
    third.close()


async def test_use_is_noted(home):
    await used_once(home, Builds())
    os.utime(home.used(home.manifest()), (1.0, 1.0))
    assert home.last_used() == 1.0
    await used_once(home, Builds())
    assert home.last_used() > home.built() - 1


HALF = """
import os, signal, sys, trio
from pathlib import Path
from muxsim.provision.store import Home, removed, whole
from muxsim.provision import store
sys.path.insert(0, sys.argv[3])
from provision.test_store import Builds, is_fine

async def killed(folder, lock, before):
    await Builds()(folder, lock, before)
    os.kill(os.getpid(), signal.SIGKILL)

async def held():
    held = await whole(Home(Path(sys.argv[1])), Builds(), is_fine)
    print("held", flush=True)
    sys.stdin.read()

async def main():
    home = Home(Path(sys.argv[1]))
    if sys.argv[2] == "building":
        await whole(home, killed, is_fine)
    elif sys.argv[2] == "sealing":
        store.manifests.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        await whole(home, Builds(), is_fine)
    elif sys.argv[2] == "removing":
        (await whole(home, Builds(), is_fine)).close()
        store.remove = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
        await removed(home)
    else:
        await held()
trio.run(main)
"""


def another(home, how):
    """A process that does so."""
    argv = [sys.executable, "-c", HALF, str(home.folder), how, str(Path(__file__).parent.parent)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.children
@pytest.mark.parametrize("when", ["building", "sealing", "removing"])
async def test_who_is_killed_leaves_nothing_half_and_nothing_for_good(home, when):
    process = another(home, when)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert home.manifest() is None
    folder = await used_once(home, Builds())
    assert folders(home) == [folder]
    assert [one.folder for one in homes(home.folder.parent)] == [*home.folder.parent.iterdir()] == [home.folder]
    assert {path.name for path in home.folder.iterdir()} == {
        *("manifest.json", "lock", folder.name, f"{folder.name}.used")
    }


@pytest.mark.children
async def test_what_another_process_uses_is_known_and_not_removed_until_that_has_gone(home):
    process = another(home, "using")
    assert await trio.to_thread.run_sync(process.stdout.readline) == b"held\n"
    assert (home.users(), await removed(home)) == ((process.pid,), False)
    process.kill()  # as it may end, without giving anything back
    process.communicate()
    assert (home.users(), await removed(home)) == ((), True)
