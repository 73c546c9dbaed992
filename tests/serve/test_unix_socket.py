"""A muxsim that listens on a unix socket: every transport over it, its file, who is who there, and its end."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
from functools import partial

import httpx2
import pytest
import trio
from harness import MUXSIM, SERVERS, serving

from .conftest import environment
from .wire import BOTH, ask, initialize, open_session, shake_hands, sse_client, tool_call

pytestmark = pytest.mark.children

SCORED = f'[environments.scored]\ncommand = "python3"\nargs = ["-I", "-S", "{SERVERS / "scored.py"}"]\n'


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where it is to listen; and where its operator's socket is."""
    monkeypatch.setenv("MUXSIM_RUNTIME_DIR", str(tmp_path / "operator"))
    return tmp_path / "muxsim.sock"


async def muxsim(*args, cwd):
    return await trio.run_process([*MUXSIM, *args], cwd=cwd, capture_stdout=True, capture_stderr=True, check=False)


async def test_every_transport_is_served_over_the_socket(tmp_path, path):
    async with serving(tmp_path, environment("naughty"), "--unix", str(path)) as running:
        assert running.url == f"unix:{path}"
        client = await shake_hands(running.url)
        assert await client.text("say", text="hello") == "hello"
        assert len(await client.text("big", mib=1)) >= 2**20
        async with client.listening():
            pass
        async with sse_client(running.url) as (_, post, events):
            await post(tool_call(1, "say", {"text": "over SSE"}))
            assert "over SSE" in (await events.next()).data
        made = await open_session(running.url, seed=7)
        assert made["urls"]["mcp"] == f"http://localhost/s/{made['id']}/mcp"
        status = await muxsim("ctl", "status", cwd=tmp_path)
        assert f"unix:{path}" in status.stdout.decode()


async def test_other_hosts_and_pages_of_other_sites_are_refused_as_on_a_port(tmp_path, path):
    """A proxy before the socket passes on what a browser sends."""
    async with serving(tmp_path, environment("naughty"), "--unix", str(path)) as running:
        asked = [("Accept", BOTH)]
        assert (await ask(running.url, "POST", "/mcp", [*asked, ("Host", "evil.example")], initialize())).status == 421
        page = [*asked, ("Origin", "https://evil.example")]
        assert (await ask(running.url, "POST", "/mcp", page, initialize())).status == 403
        assert (await ask(running.url, "GET", "/sessions")).json() == {"sessions": []}


@pytest.mark.parametrize("mode", ["0600", "0660"])
async def test_the_mode_of_the_file_says_who_may_connect(tmp_path, path, mode):
    config = f'[server]\nunix_mode = "{mode}"\n' + environment("naughty")
    async with serving(tmp_path, config, "--unix", str(path)) as running:
        assert f"{stat.S_IMODE(path.stat().st_mode):04o}" == mode
        assert (await ask(running.url, "GET", "/ready")).status == 200


async def test_the_socket_is_gone_at_the_end_unless_it_is_anothers_by_then(tmp_path, path):
    async with serving(tmp_path, environment("naughty"), "--unix", str(path)) as running:
        assert await trio.to_thread.run_sync(running.stop) == 0
        assert not path.exists()
    async with serving(tmp_path, environment("naughty"), "--unix", str(path)) as running:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as others:
            others.bind(str(path))
            assert await trio.to_thread.run_sync(running.stop) == 0
            assert path.is_socket()


async def test_a_socket_that_a_killed_muxsim_has_left_is_replaced(tmp_path, path):
    async with serving(tmp_path, environment("naughty"), "--unix", str(path)) as running:
        running.process.send_signal(signal.SIGKILL)
        await trio.to_thread.run_sync(running.process.wait)
        assert path.is_socket()
    async with serving(tmp_path, environment("naughty"), "--unix", str(path)) as running:
        assert (await ask(running.url, "GET", "/ready")).status == 200


async def test_a_socket_in_use_and_a_file_that_is_none_are_left_alone(tmp_path, path):
    async with serving(tmp_path, environment("naughty"), "--unix", str(path)) as running:
        second = await muxsim("serve", "--unix", str(path), "--", "python3", "x.py", cwd=tmp_path)
        assert (second.returncode, second.stdout) == (2, b"")
        assert second.stderr.decode() == f"muxsim: cannot listen on unix:{path}: somebody listens there already; " + (
            "name another path\n"
        )
        assert (await ask(running.url, "GET", "/ready")).status == 200
        # A check is made beside the muxsim that is to read the config again, and that has the socket by right.
        config = tmp_path / "config" / "muxsim.toml"
        checked = await muxsim("serve", str(config), "--unix", str(path), "--check", cwd=tmp_path)
        assert checked.returncode == 0, checked.stderr
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    refused = await muxsim("serve", "--unix", str(file), "--", "python3", "x.py", cwd=tmp_path)
    assert refused.returncode == 2
    assert "it is no socket, and is not replaced" in refused.stderr.decode()
    assert file.read_text() == "mine"


async def test_what_cannot_be_made_is_one_line(tmp_path):
    for path, why in (("none/muxsim.sock", "No such file or directory"), ("x" * 200, "AF_UNIX path too long")):
        refused = await muxsim("serve", "--unix", path, "--", "python3", "x.py", cwd=tmp_path)
        (line,) = refused.stderr.decode().splitlines()
        assert (refused.returncode, why in line) == (2, True), line


async def test_it_listens_in_one_place_and_the_command_line_says_where(tmp_path, path):
    both = await muxsim("serve", "--unix", str(path), "--port", "0", "--", "python3", "x.py", cwd=tmp_path)
    assert (both.returncode, b"listens in one place" in both.stderr) == (2, True)
    # The harness names a port.
    async with serving(tmp_path, f'[server]\nunix = "{path}"\n' + environment("naughty")) as running:
        assert running.url.startswith("http://127.0.0.1:")
        assert not path.exists()


async def test_a_relative_path_in_the_config_is_relative_to_it(tmp_path, path):
    (tmp_path / "config").mkdir()
    config = tmp_path / "config" / "muxsim.toml"
    config.write_text('[server]\nunix = "here.sock"\n' + environment("naughty"))
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, [*MUXSIM, "serve", str(config)], cwd="/", stdout=subprocess.PIPE)
        process = await nursery.start(start)
        said = await process.stdout.receive_some()
        assert said.decode().splitlines()[0].endswith(f"unix:{config.parent}/here.sock")
        process.terminate()


# ---- who is who


async def test_who_calls_over_the_socket_is_its_user_and_has_that_users_share(tmp_path, path):
    config = "[server]\nmax_sessions_per_client = 1\n" + environment("naughty")
    async with serving(tmp_path, config, "--unix", str(path)) as running:
        await open_session(running.url)
        refused = await ask(running.url, "POST", "/sessions", body={"env": "naughty"})
        assert (refused.status, "max_sessions_per_client" in refused.error["message"]) == (429, True)


async def test_a_trusted_proxy_is_believed_whom_it_calls_for_and_nobody_else_is(tmp_path, path):
    config = "[server]\nmax_sessions_per_client = 1\n{}" + environment("naughty")

    def client(address):
        return [("X-Forwarded-For", address), ("Accept", BOTH)]

    async with serving(tmp_path, config.format('trusted_proxies = ["unix"]\n'), "--unix", str(path)) as running:
        await shake_hands(running.url, headers=client("192.0.2.1"))
        await open_session(running.url, client("192.0.2.2"))
        for way in ({"path": "/sessions", "body": {"env": "naughty"}}, {"path": "/mcp", "body": initialize()}):
            for address in ("192.0.2.1", "198.51.100.9, 192.0.2.2"):
                refused = await ask(running.url, "POST", headers=client(address), **way)
                assert refused.status == 429, (way, address)
    async with serving(tmp_path, config.format("")) as running:
        await shake_hands(running.url, headers=client("192.0.2.1"))
        assert (await ask(running.url, "POST", "/mcp", client("192.0.2.2"), initialize())).status == 429


# ---- clients


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_rollouts_play_over_the_socket(tmp_path, path, transport):
    async with serving(tmp_path, SCORED, "--unix", str(path)) as running:
        options = ("--rollouts", "2", "--max-steps", "3", "--output", "run", "--transport", transport)
        played = await muxsim("rollout", "--url", running.url, *options, cwd=tmp_path)
        assert b"2 episodes, 2 valid" in played.stdout, played.stderr
    gone = await muxsim("rollout", "--url", running.url, *options, "--output", "other", cwd=tmp_path)
    assert f"no muxsim answers at unix:{path}" in gone.stderr.decode()


async def test_any_http_client_that_can_speak_over_a_socket_plays(tmp_path, path):
    over = httpx2.AsyncHTTPTransport(uds=str(path))
    async with (
        serving(tmp_path, environment("naughty"), "--unix", str(path)),
        httpx2.AsyncClient(transport=over) as http,
    ):
        assert (await http.get("http://localhost/envs")).json()["environments"][0]["name"] == "naughty"
