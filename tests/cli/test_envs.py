"""`muxsim envs`: the whole life of what environments have installed, with the real uv and wheels of this machine."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest
from wheels import wheel

from .terminal import muxsim

pytestmark = pytest.mark.children

LIMIT = 300  # s, on a machine that is busy with others


class House:
    """A config with environments, a cache of its own, and wheels."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = folder / "muxsim.lock"
        self.store = folder / "cache" / "environments"
        self.env = {
            "MUXSIM_CACHE": str(folder / "cache"),
            "MUXSIM_RUNTIME_DIR": str(folder / "runtime"),
            "COLUMNS": "80",
        }
        (folder / "runtime").mkdir(mode=0o700)
        wheel(folder / "wheels", "mine", "1.0")
        wheel(folder / "wheels", "other", "1.0")
        self.configure(lake="mine", maze="other")

    def configure(self, **wanted):
        text = ""
        for name, requirement in wanted.items():
            file = self.folder / f"{name}.txt"
            file.write_text(f"--no-index\n--find-links ./wheels\n{requirement}\n")
            text += f"[environments.{name}]\ncommand = 'python'\nargs = ['-c', 'pass']\nrequirements = '{file.name}'\n"
        text += "[environments.plain]\ncommand = 'python'\nargs = ['-c', 'pass']\n"
        (self.folder / "muxsim.toml").write_text(text)

    def envs(self, *args, **options):
        return muxsim(self.folder, "envs", *args, env=self.env, limit=LIMIT, **options)

    def rows(self, *args):
        """What a command says as JSON, by environment; its exit status is that of `finished`."""
        self.finished = self.envs(*args, "--json")
        return {row["name"]: row for row in json.loads(self.finished.stdout)}

    def states(self, *args):
        return {name: row["state"] for name, row in self.rows(*args).items()}

    def damage(self, name):
        """Delete a file of what is installed."""
        (file,) = Path(self.rows("list")[name]["place"]).glob("*/lib/*/site-packages/*.py")
        file.unlink()


@pytest.fixture
def house(tmp_path):
    return House(tmp_path)


def test_the_whole_life_of_an_environment(house):
    assert house.states("list") == {"lake": "missing", "maze": "missing", "plain": "nothing"}
    assert house.states("verify") == {"lake": "missing", "maze": "missing", "plain": "nothing"}
    assert house.finished.status == 1  # what is missing is not verified

    rows = house.rows("build")
    assert house.finished.status == 0, house.finished.stderr
    assert {name: row["state"] for name, row in rows.items()} == {"lake": "ready", "maze": "ready", "plain": "nothing"}
    lake = rows["lake"]
    assert (lake["kind"], lake["packages"], lake["users"]) == (["uv"], {"uv": {"mine": "1.0"}}, [])
    assert lake["bytes"] > 0
    assert lake["last_used"] >= lake["built"] > 0
    assert house.states("verify") == {"lake": "ready", "maze": "ready", "plain": "nothing"}
    assert house.finished.status == 0

    house.damage("lake")
    rows = house.rows("verify")
    assert (house.finished.status, rows["lake"]["state"], rows["maze"]["state"]) == (1, "damaged", "ready")
    assert "mine.py is missing" in rows["lake"]["problem"]
    assert house.states("verify", "--repair")["lake"] == "ready"
    assert house.finished.status == 0

    house.configure(maze="other")  # lake is in no config any more
    (place,) = set(house.states("list")) - {"maze", "plain"}
    assert "nothing to remove" in house.envs("clean").stdout  # it was used a moment ago
    dry = house.envs("clean", "--older-than", "0", "--dry-run").stdout
    assert f"would remove {place}" in dry
    assert house.envs("clean", "--older-than", "0").stdout.startswith(f"removed {place}")
    assert house.states("list") == {"maze": "ready", "plain": "nothing"}
    assert house.envs("remove", "maze").status == 0
    assert house.states("list") == {"maze": "missing", "plain": "nothing"}
    assert list(house.store.iterdir()) == []


def test_one_that_cannot_be_made_says_why_and_harms_no_other(house):
    house.configure(lake="nothing-like-it>=3", maze="other")
    rows = house.rows("build")
    assert house.finished.status == 1
    assert rows["maze"]["state"] == "ready"
    problem = rows["lake"]["problem"]
    assert "nothing-like-it>=3" in problem
    assert str(house.store) in problem
    log = problem.partition("all that was said is in ")[2].split()[0]
    assert "nothing-like-it" in Path(log).read_text()
    assert "nothing-like-it" in house.envs("build", "lake").stdout


def test_a_lock_holds_versions_until_something_else_is_asked_for(house):
    locked = house.envs("lock")
    assert locked.status == 0, locked.stderr
    assert json.loads(house.lock.read_text())["environments"]["lake"]["uv"]["pins"] == ["mine==1.0"]
    wheel(house.folder / "wheels", "mine", "2.0")
    shutil.rmtree(house.store)
    assert house.rows("build", "--locked")["lake"]["packages"] == {"uv": {"mine": "1.0"}}
    assert "lake: the same as before" in house.envs("lock").stdout
    assert "lake: locked" in house.envs("lock", "--upgrade", "lake").stdout
    assert house.rows("build", "--locked")["lake"]["packages"] == {"uv": {"mine": "2.0"}}

    house.configure(lake="mine>=1", maze="other", more="other")
    rows = house.rows("build", "--locked")
    assert house.finished.status == 1
    assert "now asks for mine>=1" in rows["lake"]["problem"]
    assert "muxsim.lock has no uv packages of it" in rows["more"]["problem"]
    assert all("muxsim envs lock" in rows[name]["problem"] for name in ("lake", "more"))
    assert rows["maze"]["state"] == "ready"
    # Without --locked it is found anew, and the lock stays as it is.
    before = house.lock.read_bytes()
    assert house.states("build")["lake"] == "ready"
    assert house.lock.read_bytes() == before


def test_what_has_become_of_a_lock_is_told_as_json_too(house):
    rows = house.rows("lock")
    assert (rows["lake"]["kind"], rows["lake"]["asked"][0], rows["lake"]["changed"]) == (["uv"], "mine", True)
    assert (rows["plain"]["kind"], rows["plain"]["file"]) == ([], str(house.lock))
    assert [row["changed"] for row in house.rows("lock").values()] == [False, False, False]


def test_no_lock_is_written_of_what_cannot_be_made(house):
    house.envs("lock")
    before = house.lock.read_bytes()
    house.configure(lake="nothing-like-it", maze="other")
    failed = house.envs("lock")
    assert failed.status == 2
    assert "nothing is locked" in failed.stderr
    assert "nothing-like-it" in failed.stderr
    assert house.lock.read_bytes() == before


def test_what_is_in_use_is_not_removed_and_it_is_said_by_whom(house):
    rows = house.rows("build")
    place = Path(rows["lake"]["place"])
    (used,) = place.glob("*.used")
    with used.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert house.rows("list")["lake"]["users"] == [os.getpid()]
        refused = house.envs("remove", "lake")
        assert refused.status == 1
        assert f"lake is in use by {os.getpid()}, and stays" in refused.stdout
        house.configure(maze="other")
        assert "nothing to remove" in house.envs("clean", "--older-than", "0").stdout
    assert place.is_dir()


@pytest.mark.parametrize("command", ["build", "verify", "lock", "remove"])
def test_an_environment_that_there_is_not_is_named_with_those_that_there_are(house, command):
    finished = house.envs(command, "laek")
    assert finished.status == 2
    assert "'laek'" in finished.complaint
    assert "lake" in finished.complaint


def test_what_earlier_versions_and_the_killed_have_left_goes_with_clean(house):
    cache = house.folder / "cache"
    for left in ("npm/old-1", "uv/tool-2", "environments/grid-0.going-12"):
        (cache / left / "inner").mkdir(parents=True)
    assert house.envs("clean").status == 0
    assert [path for path in cache.glob("*/*") if path.is_dir()] == []


def test_what_a_killed_one_was_making_goes_with_clean_and_what_is_whole_stays(house):
    place = Path(house.rows("build")["lake"]["place"])
    (half,) = [path for path in place.iterdir() if path.is_dir()]
    for folder, left in ((place, "0f0f0f"), (house.store / "half-0", "1f1f1f")):
        (folder / left / "bin").mkdir(parents=True)
        (folder / "lock").touch()
    with (house.store / "half-0" / "lock").open() as lock:  # somebody is making this one
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert house.envs("clean").status == 0
        assert (house.store / "half-0" / "1f1f1f").exists()
        assert [path for path in place.iterdir() if path.is_dir()] == [half]
    assert house.envs("clean").status == 0
    assert not (house.store / "half-0" / "1f1f1f").exists()
    assert house.states("list")["lake"] == "ready"


def test_who_only_looks_installs_nothing_and_removes_nothing_while_it_cannot_tell_whose_it_is(house):
    house.envs("build")
    text = (house.folder / "muxsim.toml").read_text()
    (house.folder / "muxsim.toml").write_text(text + "[environments.old]\ncommand = 'python'\npython = '3.7'\n")
    rows = house.rows("list")
    assert rows["old"]["state"] == "failed"
    assert "Python 3.7 is not installed" in rows["old"]["problem"]
    refused = house.envs("clean", "--older-than", "0")
    assert refused.status == 2
    assert "nothing is removed, for which is that of old cannot be told" in refused.complaint
    assert house.states("list")["lake"] == "ready"
