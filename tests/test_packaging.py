"""What is built of this repository: wheels and sdists, with the dashboard and without it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from harness import ROOT

# Stands for npm: builds a page of one file, and notes that it was asked.
NPM = """#!/bin/sh
echo "$1" >> ../asked
if [ "$1" = ci ]; then mkdir -p node_modules; else mkdir -p dist/ui; cp src/app.ts dist/index.html; fi
"""


def run(*command, cwd, **env):
    done = subprocess.run(command, cwd=cwd, env={"PATH": "", **env}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def small(tmp_path):
    """The script that builds the dashboard, in a repository that has nothing else, and an npm that builds at once."""
    for folder in ("scripts", "dashboard/src", "muxsim/serve", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "build_dashboard.py", tmp_path / "scripts")
    (tmp_path / "dashboard" / "src" / "app.ts").write_text("one")
    (tmp_path / "bin" / "npm").write_text(NPM)
    (tmp_path / "bin" / "npm").chmod(0o755)
    return tmp_path


def build_in(folder):
    run(sys.executable, "scripts/build_dashboard.py", cwd=folder, PATH=f"{folder / 'bin'}:/usr/bin:/bin")
    return (folder / "muxsim/serve/ui/index.html").read_text(), (folder / "asked").read_text().split()


def test_the_dashboard_is_built_where_muxsim_serves_it_and_again_only_when_it_has_changed(small):
    assert build_in(small) == ("one", ["ci", "run"])
    assert build_in(small) == ("one", ["ci", "run"])
    (small / "dashboard" / "src" / "app.ts").write_text("two")
    assert build_in(small) == ("two", ["ci", "run", "run"])


@pytest.fixture(scope="module")
def hatchling(tmp_path_factory):
    """Where hatchling is installed, which builds this package."""
    folder = tmp_path_factory.mktemp("hatchling")
    install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(folder), "hatchling")
    subprocess.run([sys.executable, *install], check=True)
    return folder


@pytest.fixture
def copy(tmp_path):
    """A copy of what is committed here, where no dashboard has been built."""
    folder = tmp_path / "copy"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if not name.startswith(("tests/", "js_servers/", "examples/")) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def built(folder, hatchling, target):
    """The names in the wheel or sdist that is built of a folder on a machine without node."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, cwd=folder, PYTHONPATH=str(hatchling))
    (made,) = (folder / "dist").glob("*.whl" if target == "wheel" else "*.tar.gz")
    if target == "wheel":
        return set(zipfile.ZipFile(made).namelist())
    with tarfile.open(made) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.mark.network
def test_a_wheel_that_is_built_without_node_has_no_dashboard_and_all_the_rest(copy, hatchling):
    names = built(copy, hatchling, "wheel")
    assert "muxsim/serve/watch/page.py" in names
    assert not [name for name in names if name.startswith("muxsim/serve/ui/")]


@pytest.mark.network
def test_a_built_dashboard_is_in_the_wheel_and_in_the_sdist_of_which_a_wheel_has_it_too(copy, hatchling):
    page = copy / "muxsim" / "serve" / "ui"
    (page / "ui").mkdir(parents=True)
    (page / "index.html").write_text("<!doctype html>")
    (page / "ui" / "index-12345678.js").write_text("1")
    files = {"muxsim/serve/ui/index.html", "muxsim/serve/ui/ui/index-12345678.js"}
    assert files <= built(copy, hatchling, "wheel")
    names = built(copy, hatchling, "sdist")
    assert files | {"dashboard/package.json", "scripts/hatch_build.py"} <= names
    assert not [name for name in names if "node_modules" in Path(name).parts]
    (archive,) = (copy / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        sdist.extractall(copy.parent / "unpacked", filter="data")
    (unpacked,) = (copy.parent / "unpacked").iterdir()
    assert files <= built(unpacked, hatchling, "wheel")
