"""muxsim behind Debian's nginx and Caddy, as deploy/ has them: TLS, a path, streams, large bodies, who is who."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from harness import MUXSIM, SERVERS, Gate, Running, muxsim_serve
from serve.conftest import environment
from serve.machine import eventually
from serve.test_tls import make_certificate
from serve.web_socket import web_socket
from serve.wire import BOTH, EventReader, ask, connect, initialize, open_session, shake_hands, sse_client, tool_call

from .proxies import NAME, PATIENCE, caddy, nginx, running

pytestmark = pytest.mark.children

LIMIT = 300
PUBLIC = f"https://{NAME}/muxsim"
CONFIG = f"""
[server]
public_url = "{PUBLIC}"
trusted_proxies = ["127.0.0.1/32", "unix"]
default = "naughty"
ping_interval = 0.25
stream_silence = 0.2
max_sessions_per_client = 6
max_line = "24 MiB"
{environment("naughty")}
[environments.scored]
command = "python3"
args = ["-I", "-S", "{SERVERS / "scored.py"}"]
"""
LARGE = 8 * 2**20


@dataclass
class Behind:
    """A muxsim, and where its proxy serves it."""

    muxsim: Running
    url: str
    patience: int
    """So many pings take longer than the proxy waits for one."""

    async def sessions(self):
        return (await ask(self.muxsim.url, "GET", "/sessions")).json()["sessions"]


@pytest.fixture(scope="module", params=["nginx over unix", "nginx over tcp", "caddy over unix", "caddy over tcp"])
def _behind(request, tmp_path_factory):
    """Each proxy, over each kind of connection to muxsim."""
    proxy, upstream = request.param.split(" over ")
    folder = tmp_path_factory.mktemp("proxy")
    certificate = make_certificate(folder)
    options = ("--unix", str(folder / "muxsim.sock")) if upstream == "unix" else ()
    with (
        muxsim_serve(folder, CONFIG, *options) as muxsim,
        running({"nginx": nginx, "caddy": caddy}[proxy], folder / "proxy", muxsim.url, certificate) as url,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("SSL_CERT_FILE", str(certificate[0]))
        yield Behind(muxsim, url, patience=1 + 4 * PATIENCE if proxy == "nginx" else 2)


@pytest.fixture
async def behind(_behind):
    """A proxy before a muxsim that has no session yet; and none when a test is over."""
    yield _behind
    for session in await _behind.sessions():
        await ask(_behind.muxsim.url, "DELETE", f"/sessions/{session['id']}")


async def test_every_transport_plays_under_the_path(behind, tmp_path):
    with trio.fail_after(LIMIT):
        for path in ("/muxsim/mcp", "/muxsim/envs/naughty/mcp"):
            client = await shake_hands(behind.url, path)
            assert await client.text("say", text="hello") == "hello"
            assert (await client.delete()).status == 204
        async with sse_client(behind.url, "/muxsim/sse") as (_, post, events):
            assert events.endpoint.startswith("/muxsim/")
            await post(tool_call(1, "say", {"text": "over SSE"}))
            assert "over SSE" in (await events.next()).data
        made = await ask(behind.url, "POST", "/muxsim/sessions", body={"seed": 7})
        assert made.json()["urls"]["mcp"] == f"{PUBLIC}/s/{made.json()['id']}/mcp"
        for wire in ("http", "sse"):
            command = [*MUXSIM, "rollout", "--url", f"{behind.url}/muxsim", "--env", "scored", "--transport", wire]
            options = ["--rollouts", "2", "--max-steps", "3", "--output", f"run-{wire}"]
            played = await trio.run_process(
                [*command, *options], cwd=tmp_path, capture_stdout=True, capture_stderr=True, check=False
            )
            assert b"2 episodes, 2 valid" in played.stdout, played.stderr


async def test_what_happens_in_a_call_is_seen_before_it_is_over_and_a_quiet_stream_stays(behind, tmp_path):
    gate = Gate(tmp_path / "gate")
    with trio.fail_after(LIMIT):
        client = await shake_hands(behind.url, "/muxsim/mcp")
        async with client.posting(tool_call(7, "log_then_wait", {"until": gate.path})) as answer:
            status, _ = await answer.head()
            events = EventReader(answer)
            first = await events.until(lambda message: message.get("method") == "notifications/message")
            assert (status, first.json()["params"]["data"]) == (200, "first")
            await events.pings(2)
            gate.open()
            assert (await events.until(lambda message: message.get("id") == 7)).json()["result"]
        async with client.listening() as stream:
            await EventReader(stream).pings(behind.patience)
    gate.close()


async def test_large_bodies_go_through_whole_in_both_directions(behind):
    with trio.fail_after(LIMIT):
        client = await shake_hands(behind.url, "/muxsim/mcp")
        measured = await client.value("measure", text="x" * LARGE)
        assert measured["bytes"] > LARGE
        lines = (await client.text("big", mib=LARGE // 2**20)).splitlines()
        assert lines == [f"{number:07d}" for number in range(LARGE // 8)]


async def test_a_client_that_goes_is_noticed_behind_the_proxy(behind):
    with trio.fail_after(LIMIT):
        async with sse_client(behind.url, "/muxsim/sse"):
            assert len(await behind.sessions()) == 1
        await eventually(lambda: none_of(behind.sessions()), LIMIT)


async def test_a_web_socket_plays_through_the_proxy_and_its_end_is_noticed(behind):
    with trio.fail_after(LIMIT):
        async with web_socket(behind.url, "/muxsim/envs/scored/openenv/ws") as socket:
            assert (await socket.ask("reset", {"seed": 3}))["data"]["metadata"]["seed"] == 3
            step = await socket.ask("step", {"tool_name": "env_step"})
            assert step["data"]["reward"] == 1
            assert len(await behind.sessions()) == 1
        await eventually(lambda: none_of(behind.sessions()), LIMIT)


async def none_of(found):
    return not await found


async def test_bounds_go_by_the_client_that_the_proxy_has_seen_and_not_by_what_it_claims(behind):
    @asynccontextmanager
    async def asked(source, claimed):
        headers = [("Accept", BOTH), ("Content-Type", "application/json"), ("X-Forwarded-For", claimed)]
        async with connect(behind.url, source=source) as connection:
            yield await connection.ask("POST", "/muxsim/mcp", headers, json.dumps(initialize()).encode())

    with trio.fail_after(LIMIT):
        for number in range(6):
            async with asked("127.0.0.2", f"192.0.2.{number}") as answer:
                assert answer.status == 200
        async with asked("127.0.0.2", "192.0.2.9") as answer:
            assert answer.status == 429
        async with asked("127.0.0.3", "127.0.0.2") as answer:
            assert answer.status == 200


async def test_a_page_of_the_public_address_may_call_and_any_other_may_not(behind):
    with trio.fail_after(LIMIT):
        page = [("Accept", BOTH), ("Host", NAME), ("Origin", f"https://{NAME}")]
        assert (await ask(behind.url, "POST", "/muxsim/mcp", page, initialize())).status == 200
        for evil in ([("Host", "evil.example")], [("Host", NAME), ("Origin", "https://evil.example")]):
            refused = await ask(behind.url, "POST", "/muxsim/mcp", [("Accept", BOTH), *evil], initialize())
            # Caddy itself serves no other host, with an empty 200.
            assert refused.status in (403, 421) or not refused.body
        assert len(await behind.sessions()) == 1
        assert (await open_session(behind.muxsim.url, seed=1))["seed"] == 1
