"""Measuring memory, from files as the kernel writes them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio

from muxsim.admission.memory import MemoryMeter
from muxsim.processes.footprint import Footprint

MIB = 2**20


def nothing():
    """Of what is only read where a cgroup does not tell."""
    raise AssertionError("nobody asks for it here")


def machine(root, *, total=1000, available=400, cgroup="0::/", groups=()):
    """The files of a machine; ``groups`` are (folder, current, inactive, max, high)."""
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    meminfo = f"MemTotal: {total * 1024} kB\nMemFree: 1 kB\nMemAvailable: {available * 1024} kB\nBuffers: 1 kB\n"
    (root / "proc/meminfo").write_text(meminfo)
    (root / "proc/self/cgroup").write_text(f"12:cpu:/elsewhere\n{cgroup}\n")
    for folder, current, inactive, most, high in groups:
        path = root / "sys/fs/cgroup" / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / "memory.current").write_text(f"{current * MIB}\n")
        (path / "memory.stat").write_text(f"anon 1\ninactive_file {inactive * MIB}\n")
        (path / "memory.max").write_text(f"{most if most == 'max' else most * MIB}\n")
        (path / "memory.high").write_text(f"{high if high == 'max' else high * MIB}\n")
    return root


@pytest.mark.parametrize(
    ("limit", "files", "used", "most", "what"),
    [
        ("80%", {}, 600, 800, "on this machine"),
        ("80%", {"groups": [("", 900, 100, 1000, "max")]}, 800, 800, "in this cgroup"),
        ("50%", {"groups": [("a/b", 90, 0, 100, "max")], "cgroup": "0::/a/b"}, 90, 50, "in this cgroup"),
        ("50%", {"groups": [("a", 90, 0, 100, "max")], "cgroup": "0::/a/b"}, 90, 50, "in this cgroup"),
        ("50%", {"groups": [("a", 90, 0, "max", 100)], "cgroup": "0::/a"}, 90, 50, "in this cgroup"),
        ("50%", {"groups": [("a", 90, 0, "max", "max")], "cgroup": "0::/a"}, 600, 500, "on this machine"),
        ("100%", {"groups": [("a", 1, 0, 100, "max")], "cgroup": "0::/a"}, 600, 1000, "on this machine"),
        (70 * MIB, {"groups": [("a", 90, 30, 100, "max")], "cgroup": "0::/a"}, 60, 70, "in this cgroup"),
        ("80%", {"cgroup": "4:memory:/only/version/one"}, 600, 800, "on this machine"),
    ],
)
async def test_a_limit_is_measured_where_least_is_left(tmp_path, limit, files, used, most, what):
    reading = await MemoryMeter(limit, nothing, machine(tmp_path, **files)).read()
    assert (reading.used // MIB, reading.limit // MIB, reading.what) == (used, most, what)
    assert reading.over == (used >= most)


async def test_a_reading_is_kept_for_a_moment_and_one_that_fails_keeps_the_last(tmp_path, autojump_clock):
    meter = MemoryMeter("80%", nothing, machine(tmp_path))
    first = await meter.read()
    machine(tmp_path, available=100)
    assert await meter.read() is first
    await trio.sleep(5)
    second = await meter.read()
    assert second.over
    (tmp_path / "proc/meminfo").unlink()
    await trio.sleep(5)
    assert await meter.read() is second


async def test_where_there_is_nothing_to_read_there_is_no_reading(tmp_path):
    assert await MemoryMeter("80%", nothing, tmp_path).read() is None


@pytest.mark.children
async def test_bytes_without_a_cgroup_are_what_this_process_and_all_below_it_have(tmp_path):
    async def used():  # by a meter that has no reading to keep
        return (await MemoryMeter(10**12, footprint.read, tmp_path).read()).used

    footprint = Footprint()
    before = await used()
    script = "x = b'x' * 2**26; print(flush=True); input()"
    nested = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {script!r}])"]
    with subprocess.Popen(nested, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # noqa: ASYNC220 - short
        child.stdout.readline()
        after = await used()
        child.stdin.write(b"\n")
        child.stdin.close()
    assert 64 * MIB < after - before < 150 * MIB
