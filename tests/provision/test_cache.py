"""One way to make a folder of the cache, whoever fills it: recorded when it is whole, made anew when it is not."""

import pytest
import trio

from muxsim.errors import PackageError
from muxsim.provision.cache import damage, made_whole


class Builds:
    """Fills a folder with a version of its own, which it takes from what was there before if it can."""

    def __init__(self, version="1", fails=None):
        self.version, self.fails, self.count = version, fails, 0

    async def __call__(self, home, before, lock):
        self.count += 1
        kept = before / "package.json"
        (home / "package.json").write_text(kept.read_text() if kept.exists() else self.version)
        if self.fails is not None:
            raise self.fails
        (home / "server.py").write_text("print()")


@pytest.fixture
def home(tmp_path):
    return tmp_path / "cache" / "grid-0"


def folders(home):
    return sorted(path.name for path in home.parent.iterdir() if path.is_dir())


async def test_what_is_whole_is_not_made_again(home):
    builds = Builds()
    await made_whole(home, builds)
    await made_whole(home, builds)
    assert (builds.count, damage(home), folders(home)) == (1, None, [home.name])


async def test_what_is_damaged_is_made_anew_from_what_is_left_of_it(home):
    await made_whole(home, Builds("1"))
    (home / "server.py").unlink()
    await made_whole(home, Builds("2"))
    assert ((home / "package.json").read_text(), damage(home), folders(home)) == ("1", None, [home.name])


@pytest.mark.parametrize("error", [PackageError("no network"), OSError("disk full"), KeyboardInterrupt()])
async def test_what_cannot_be_made_is_not_there_and_what_was_there_before_stays(home, error):
    with pytest.raises(type(error)):
        await made_whole(home, Builds(fails=error))
    assert folders(home) == []
    await made_whole(home, Builds("1"))
    (home / "server.py").unlink()
    with pytest.raises(type(error)):
        await made_whole(home, Builds("2", fails=error))
    assert ((home / "package.json").read_text(), folders(home)) == ("1", [home.name])


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
async def test_a_repair_that_was_killed_loses_nothing_of_what_was_there_before(home, again):
    await made_whole(home, Builds("1"))
    for _ in range(1 + again):  # as kill -9 leaves it: the one before aside, and part of the next in its place
        if not home.with_name("grid-0.before").exists():
            home.rename(home.with_name("grid-0.before"))
        home.mkdir(exist_ok=True)
        (home / "half").touch()
        with pytest.raises(PackageError, match="cannot be made anew: no network"):
            await made_whole(home, Builds("2", fails=PackageError("no network")))
        (home / "server.py").unlink(missing_ok=True)
    await made_whole(home, Builds("2"))
    assert ((home / "package.json").read_text(), damage(home), folders(home)) == ("1", None, [home.name])


async def test_one_builds_while_others_wait(home):
    builds = Builds()
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(made_whole, home, builds)
    assert builds.count == 1
