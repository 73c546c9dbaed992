"""A muxsim gives way to the next one as docs/deploy.md says: no session is lost, and nobody is refused a connection."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from harness import MUXSIM, alive
from serve.conftest import environment
from serve.machine import eventually
from serve.wire import ask, open_session, shake_hands

pytestmark = pytest.mark.children

LIMIT = 300
# As systemd does for muxsim.socket: the socket stays while one muxsim after the other serves it.
SERVE = 'exec 3<&{fd}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'


@asynccontextmanager
async def served(listener, config):
    command = ["bash", "-c", SERVE.format(fd=listener.fileno()), "bash", *MUXSIM, "serve", str(config)]
    given = [listener.fileno()]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, pass_fds=given, stdout=subprocess.PIPE))
        assert b"is ready on" in await process.stdout.receive_some()
        yield process
        process.send_signal(signal.SIGTERM)


async def refuses(url):
    return (await ask(url, "GET", "/ready")).status == 503


async def test_who_has_a_session_ends_it_and_who_comes_meanwhile_is_served_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("MUXSIM_RUNTIME_DIR", str(tmp_path / "operator"))
    config = tmp_path / "muxsim.toml"
    config.write_text(environment("naughty"))
    heard = {}

    async def drain():
        done = await trio.run_process([*MUXSIM, "ctl", "drain", "--wait", "--json"], capture_stdout=True)
        heard["drained"] = json.loads(done.stdout)

    async def ask_meanwhile(url):
        heard["later"] = await open_session(url, seed=7)

    with socket.create_server(("127.0.0.1", 0)) as listener, trio.fail_after(LIMIT):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with trio.open_nursery() as nursery:
            async with served(listener, config) as old:
                client = await shake_hands(url)
                async with trio.open_nursery() as draining:
                    draining.start_soon(drain)
                    await eventually(partial(refuses, url), LIMIT)
                    refused = await ask(url, "POST", "/sessions", body={"env": "naughty"})
                    assert (refused.status, "retry-after" in refused.headers) == (503, True)
                    assert "drained" not in heard
                    assert await client.text("say", text="still here") == "still here"
                    assert (await client.delete()).status == 204
                assert heard["drained"]["left"] == 0
            assert old.returncode == 0
            # Nobody serves now: a connection waits in the socket.
            nursery.start_soon(ask_meanwhile, url)
            await trio.testing.wait_all_tasks_blocked()
            async with served(listener, config) as new:
                await eventually(lambda: "later" in heard, LIMIT)
                assert new.pid != old.pid
                assert alive(heard["later"]["pid"])
