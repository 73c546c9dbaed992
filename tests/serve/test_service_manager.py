"""What muxsim tells a service manager, and the socket that one gives it. Real datagrams, and no systemd."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import asynccontextmanager, closing
from functools import partial
from tempfile import TemporaryFile

import pytest
import trio
from harness import MUXSIM, serving

from muxsim.serve.operate.service_manager import ServiceManager

from .conftest import environment
from .wire import ask, open_session

pytestmark = pytest.mark.children

LIMIT = 120


class Manager:
    """The socket that muxsim tells."""

    def __init__(self, path):
        self.path = str(path)
        self._socket = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    async def __aenter__(self):
        await self._socket.bind(self.path)
        return self

    async def __aexit__(self, *_):
        self._socket.close()

    async def hears(self, beginning):
        """The first line from now on that begins so."""
        with trio.fail_after(LIMIT):
            while True:
                told = (await self._socket.recv(4096)).decode().split("\n")
                for line in told:
                    if line.startswith(beginning):
                        return line


@asynccontextmanager
async def managed(tmp_path, config, **env):
    async with Manager(tmp_path / "notify") as manager:
        variables = {"NOTIFY_SOCKET": manager.path, **env}
        async with serving(tmp_path, config, env=variables) as running:
            yield manager, running


async def test_it_is_told_when_muxsim_serves_how_it_stands_and_that_it_stops(tmp_path):
    async with managed(tmp_path, environment("naughty"), WATCHDOG_USEC="200000") as (manager, running):
        assert await manager.hears("READY=") == "READY=1"
        assert (await ask(running.url, "GET", "/ready")).status == 200
        for _ in range(3):
            assert await manager.hears("WATCHDOG=") == "WATCHDOG=1"
        await open_session(running.url)
        while "1 sessions" not in (status := await manager.hears("STATUS=")):
            pass
        assert status == f"STATUS=serving on {running.url}: 1 sessions, 0 requests in flight"
        running.process.send_signal(signal.SIGTERM)
        assert await manager.hears("STOPPING=") == "STOPPING=1"
        assert await trio.to_thread.run_sync(running.process.wait) == 0


async def test_a_reload_is_told_of_with_its_end_whether_or_not_it_is_taken(tmp_path):
    async with managed(tmp_path, environment("naughty")) as (manager, running):
        await manager.hears("READY=1")
        for config in (environment("naughty") + environment("other"), "nonsense"):
            (tmp_path / "config" / "muxsim.toml").write_text(config)
            running.process.send_signal(signal.SIGHUP)
            assert await manager.hears("RELOADING=") == "RELOADING=1"
            assert await manager.hears("READY=") == "READY=1"
        assert (await ask(running.url, "GET", "/envs/other")).status == 200


async def test_without_a_watchdog_nothing_is_said_to_one(tmp_path):
    async with managed(tmp_path, environment("naughty"), WATCHDOG_USEC="200000", WATCHDOG_PID="1") as (
        manager,
        running,
    ):
        await manager.hears("STATUS=")
        running.process.send_signal(signal.SIGTERM)
        with trio.fail_after(LIMIT):
            while "STOPPING=1" not in (told := (await manager._socket.recv(4096)).decode()):
                assert "WATCHDOG" not in told


async def test_a_manager_that_has_gone_harms_nobody(tmp_path):
    async with managed(tmp_path, environment("naughty"), WATCHDOG_USEC="200000") as (manager, running):
        await manager.hears("WATCHDOG=1")
        manager._socket.close()
        os.unlink(manager.path)
        running.process.send_signal(signal.SIGHUP)
        assert (await ask(running.url, "GET", "/ready")).status == 200
        assert await trio.to_thread.run_sync(running.stop) == 0


# ---- socket activation

# What a service manager does: the socket is descriptor 3, and the variables name the process that is to have it.
ACTIVATE = 'exec 3<&{fd}; LISTEN_PID=$$ LISTEN_FDS={count} exec "$@"'


async def activated(listener, *options, count=1, cwd):
    shell = ["bash", "-c", ACTIVATE.format(fd=listener.fileno(), count=count), "bash"]
    command = [*shell, *MUXSIM, "serve", *options, "--", "python3", "x.py"]
    return await trio.run_process(
        command, cwd=cwd, pass_fds=[listener.fileno()], capture_stdout=True, capture_stderr=True, check=False
    )


@pytest.mark.parametrize("kind", ["tcp", "unix"])
async def test_a_socket_that_is_given_is_served_whatever_the_config_names(tmp_path, kind):
    path = tmp_path / "given.sock"
    with socket.create_server(("127.0.0.1", 0)) if kind == "tcp" else socket.socket(socket.AF_UNIX) as listener:
        if kind == "unix":
            listener.bind(str(path))
            listener.listen()
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}" if kind == "tcp" else f"unix:{path}"
        shell = ["bash", "-c", ACTIVATE.format(fd=listener.fileno(), count=1), "bash"]
        command = [*shell, *MUXSIM, "serve", "--port", "1", "--", "python3", "x.py"]
        async with trio.open_nursery() as nursery:
            given = [listener.fileno()]
            start = partial(trio.run_process, command, cwd=tmp_path, pass_fds=given, stdout=subprocess.PIPE)
            process = await nursery.start(start)
            said = await process.stdout.receive_some()
            assert said.decode().splitlines()[0].endswith(f"is ready on {url}")
            assert (await ask(url, "GET", "/ready")).status == 200
            process.terminate()
    if kind == "unix":
        assert path.exists(), "it is the service manager's"


def others_can_reach():
    """On loopback all the same, but by an address that is not known for that."""
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::ffff:127.0.0.1", 0))
    listener.listen()
    return listener


@pytest.mark.parametrize(
    ("make", "count", "complaint"),
    [
        (lambda: socket.create_server(("127.0.0.1", 0)), 2, "serves one socket and was given 2"),
        (socket.socket, 1, "does not listen"),
        (lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), 1, "does not listen"),
        (TemporaryFile, 1, "is none"),
        (others_can_reach, 1, "without authentication"),
    ],
)
async def test_a_socket_that_cannot_be_served_is_one_line(tmp_path, make, count, complaint):
    with make() as listener:
        done = await activated(listener, count=count, cwd=tmp_path)
    (line,) = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout, complaint in line) == (2, b"", True), line


@pytest.mark.parametrize(
    ("microseconds", "interval"),
    [
        ("200000", 0.1),
        ("20000000", 10.0),
        ("30000000000000", 10.0),
        ("1", 0.05),
        ("0", 10.0),
        ("-1", 10.0),
        ("1e6", 10.0),
        ("nan", 10.0),
        ("\u00b2", 10.0),
        ("9" * 400, 10.0),
        ("9" * 5000, 10.0),
        ("", 10.0),
    ],
)
async def test_whatever_a_watchdog_is_said_to_want_muxsim_starts_and_tells_at_a_bounded_rate(microseconds, interval):
    with closing(ServiceManager.of({"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": microseconds})) as manager:
        assert manager.interval == interval
        manager.stopping(86_400.0)
