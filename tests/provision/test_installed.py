"""What `muxsim/inside/installed` says of the files of packages, in whatever Python it is run."""

import base64
import hashlib
import importlib.metadata

import pytest

from muxsim.inside import installed

FILES = {"mine/a.py": "a = 1\n", 'mine/odd, "name".py': "", "mine/b.py": "b = 1\n"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with one package in it, as uv installs it, and nothing else that is looked at."""
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (tmp_path / "mine").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "INSTALLER").write_text("uv")
    rows = []
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        quoted = '"' + name.replace('"', '""') + '"'
        rows.append(f"{quoted},sha256={digest},{len(text)}")
    rows += ["mine-1.0.dist-info/METADATA,,", "mine/__pycache__/a.cpython-311.pyc,,", "mine-1.0.dist-info/RECORD,,"]
    (info / "RECORD").write_text("\n".join(rows) + "\n")
    one = importlib.metadata.PathDistribution(info)
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [one])
    return tmp_path


def test_a_package_that_is_as_its_record_says_is_told_of_nothing(place):
    assert installed._unlike() == {}


@pytest.mark.parametrize("name", FILES)
def test_what_is_missing_is_found_also_where_python_tells_of_no_file_that_is_missing(place, monkeypatch, name):
    """From Python 3.12 on `Distribution.files` has only files that are there."""
    there = property(lambda self: [importlib.metadata.PackagePath(one) for one in FILES if (place / one).exists()])
    monkeypatch.setattr(importlib.metadata.Distribution, "files", there)
    (place / name).unlink()
    assert installed._unlike() == {"mine": [name]}


def test_another_content_of_the_same_size_is_found(place):
    (place / "mine/b.py").write_text("b = 2\n")
    assert installed._unlike() == {"mine": ["mine/b.py"]}


def test_a_record_that_is_torn_is_found(place):
    record = place / "mine-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text().splitlines()[0])
    assert installed._unlike() == {"mine": ["RECORD"]}
    record.unlink()
    assert installed._unlike() == {"mine": ["RECORD"]}
