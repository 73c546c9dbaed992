"""What a lock says of Python packages, and what only the requirements say: options, paths. The real uv, no index."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name
from wheels import wheel

from muxsim.errors import PackageError
from muxsim.provision.packages import prepare, wanted_of
from muxsim.provision.requirements import as_arguments
from muxsim.provision.uv import _pinned_alone
from muxsim.spec import Dependencies, EnvSpec, Pins

pytestmark = pytest.mark.children

LIMIT = 300  # s, on a machine that is busy with others


def versions(spec):
    code = "import mine, other; print(mine.version, other.version)"
    return subprocess.check_output([spec.command, "-c", code], text=True).split()


def pins_of(spec):
    return json.loads((Path(spec.installed[0]).parent / "manifest.json").read_text())["pins"]["uv"]


@given(
    names=st.sets(st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,8}([._-]{1,2}[A-Za-z0-9]{1,4})?", fullmatch=True), min_size=1)
)
def test_every_installed_package_is_in_the_lock_however_it_writes_its_name_and_version(names):
    by_name = {canonicalize_name(name): name for name in names}
    pins = "".join(f"{name}==2026.09.1\n" for name in by_name.values())
    compiled = "".join(f"{name}==2026.9.1 \\\n    --hash=sha256:12\n" for name in by_name)
    elsewhere = "not-of-an-index @ file:///p/w.whl\n"
    assert _pinned_alone(elsewhere + compiled, pins) == compiled
    with pytest.raises(PackageError, match="9-lost-1==1"):
        _pinned_alone(compiled, pins + "9-lost-1==1\n")


async def test_a_lock_holds_versions_and_leaves_paths_and_options_to_the_requirements(tmp_path, monkeypatch):
    monkeypatch.setenv("MUXSIM_CACHE", str(tmp_path / "cache"))
    wheel(tmp_path, "mine", "1.0")
    wheel(tmp_path / "wheels", "other", "1.0")
    file = tmp_path / "requirements.txt"
    file.write_text("--no-index\n--find-links ./wheels\nother>=1\n./mine-1.0-py3-none-any.whl\n")
    spec = EnvSpec(name="lake", command="python", dependencies=Dependencies(requirements_file=str(file)))
    with trio.fail_after(LIMIT):
        first = await prepare(spec)
        pins = pins_of(first)
        assert pins == "other==1.0\n"
        # A newer one is there, and the lock does not want it; nor does what was asked for still want the lock.
        wheel(tmp_path / "wheels", "other", "2.0")
        ((part, _),) = (await wanted_of(spec)).parts
        terms = part.terms
        assert terms[:2] == ("other>=1", "./mine-1.0-py3-none-any.whl")
        dependencies = replace(spec.dependencies, pins=(Pins("uv", terms, pins),), locked=True)
        locked = replace(spec, dependencies=dependencies)
        assert versions(await prepare(locked)) == ["1.0", "1.0"]
        file.write_text(file.read_text().replace("other>=1", "other>=2"))
        with pytest.raises(PackageError, match="other"):
            await prepare(locked)
        assert versions(await prepare(spec)) == ["1.0", "2.0"]


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("numpy>=2 ; python_version > '3.8'", ("numpy>=2 ; python_version > '3.8'",)),
        ("mine @ git+https://h/mine", ("mine @ git+https://h/mine",)),
        ("./mine[gym]", ("/p/mine[gym]",)),
        ("/mine.whl", ("/mine.whl",)),
        ("./mine; python_version > '3.8'", ("/p/mine; python_version > '3.8'",)),
        ("mine @ ./mine; python_version > '3.8'", ("mine @ file:///p/mine ; python_version > '3.8'",)),
        ("mine @ ./mine ; python_version > '3.8'", ("mine @ file:///p/mine ; python_version > '3.8'",)),
        ("-e ../mine", ("-e", "/p/../mine")),
        ("-e ./my own ; python_version > '3.8'", ("-e", "/p/my own ; python_version > '3.8'")),
        ("--editable=./mine; python_version > '3.8'", ("--editable=/p/mine; python_version > '3.8'",)),
        ("-r https://h/more.txt", ("-r", "https://h/more.txt")),
        ("--requirement more.txt", ("--requirement", "/p/more.txt")),
        ("--find-links=wheels", ("--find-links=/p/wheels",)),
        ("--index-url 'https://h/simple'", ("--index-url", "https://h/simple")),
    ],
)
def test_a_line_of_requirements_is_as_arguments_what_it_is_in_its_folder(line, arguments):
    assert as_arguments(line, Path("/p")) == arguments
