"""What every test with real children is held to: whatever it starts or opens is gone when it ends."""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import hypothesis
import pytest
from conda_channel import standard_channel
from fault_register import ROWS, FaultRegister, is_whole
from harness import Gate

# Seconds. muxsim needs less than two; a machine may be busy with others.
GRACE = 60.0


def pytest_configure(config):
    # Workers, and later runs, need not compile the tests again.
    sys.dont_write_bytecode = False
    # A shell has what it starts in the background ignore the one, nohup the other; so would the children of tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)
    if "MUXSIM_CACHE" not in os.environ:  # workers have that of whoever started them
        # What earlier runs have installed and learned is not there for these tests, nor is theirs for later ones.
        os.environ["MUXSIM_CACHE"] = cache = tempfile.mkdtemp(prefix="muxsim-tests-")
        config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))
    config.pluginmanager.register(FaultRegister(ROWS, is_whole(config)))


# How long one example takes, or to think of some, says nothing on a machine that is busy with others.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
# On other versions of Python and of packages few examples are enough: those of one that is the same were tried already.
hypothesis.settings.register_profile("brief", hypothesis.settings.get_profile("patient"), max_examples=10)
hypothesis.settings.load_profile("patient")

# What takes minutes begins first, or the other workers would wait for it at the end.
LONG = ("conformance/", "test_churn.py", "faults/test_soak.py", "e2e/", "faults/test_seams.py", "fuzz/")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONG))


def children():
    """This process's children by pid, each with its name, and whether it is a zombie."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            head, _, tail = (folder / "stat").read_text(errors="replace").rpartition(")")
            state, parent = tail.split()[:2]
            if int(parent) == os.getpid():
                # Not the state itself: a muxsim that several tests share runs and sleeps as it likes.
                found[int(folder.name)] = head.partition("(")[2] + (" (zombie)" if state == "Z" else "")
    return found


def descriptors():
    """This process's open files: what each descriptor leads to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists them
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


@pytest.fixture
def gate(tmp_path):
    """What a child waits at until the test opens it."""
    found = Gate(tmp_path / "gate")
    yield found
    found.close()


@pytest.fixture(scope="session")
def conda_channel(tmp_path_factory):
    """A channel with `python` and `greeting`; what is only for one test, that adds to a channel of its own."""
    pytest.importorskip("rattler", reason="the extra conda is not installed")
    folder = tmp_path_factory.mktemp("conda") / "channel"
    yield standard_channel(folder)
    shutil.rmtree(folder)  # an interpreter is large, and pytest keeps folders of three runs


@pytest.fixture(autouse=True)
def _nothing_left_behind(request, monkeypatch, tmp_path_factory):
    if request.node.get_closest_marker("children") is None:
        yield
        return
    # A folder of its own, since other runs on this machine make temporary files too.
    temporary = tmp_path_factory.mktemp("tmp")
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    children_before, files_before = children(), descriptors()

    def left():
        # By pid alone: one that serves many tests sleeps before and runs after, or the other way round.
        more = [f"{pid}: {what}" for pid, what in children().items() if pid not in children_before]
        more += [f"{number}: {what}" for number, what in descriptors().items() - files_before.items()]
        return more + [path.name for path in temporary.glob("muxsim-*")]

    yield
    deadline = time.monotonic() + GRACE
    while left() and time.monotonic() < deadline:
        time.sleep(0.01)  # ended, but not gone yet; nothing tells us when
    assert left() == []
