"""What clients are told of where muxsim is, with a proxy before it and without."""

from __future__ import annotations

import json
import ssl
from urllib.parse import urljoin

import httpx2
import pytest
import trio
from harness import serving

from muxsim.config import load
from muxsim.errors import ConfigError
from muxsim.rollouts.environments.remote import connect as connect_pool
from muxsim.serve.routes.public_url import PublicURL
from transports.http_rules import HostRules, HTTPRefusal

from .conftest import environment
from .proxy import proxied
from .test_tls import make_certificate
from .wire import BOTH, ask, initialize, live_sessions, rpc, shake_hands, tool_call

pytestmark = pytest.mark.children

PUBLIC = "https://lab.example.org/lab"
CONFIG = '[server]\ndefault = "naughty"\n{settings}\n' + environment("naughty") + environment("other")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("tls"))


def trusting(certificate, **options):
    return httpx2.AsyncClient(verify=ssl.create_default_context(cafile=certificate[0]), trust_env=False, **options)


async def played_over_sse(http, url, env="naughty"):
    """What a tool says to a client of 2024-11-05 that knows nothing but this URL, and where it was told to post."""
    async with http.stream("GET", url, headers={"Accept": "text/event-stream"}) as response:
        assert response.status_code == 200, response
        lines = response.aiter_lines()

        async def data():
            async for line in lines:
                if line.startswith("data:"):
                    return line.removeprefix("data:").strip()
            raise AssertionError("the stream ended")

        endpoint = urljoin(url, await data())
        assert (await http.post(endpoint, json=initialize(0, "2024-11-05"))).status_code == 202
        assert json.loads(await data())["id"] == 0
        assert (await http.post(endpoint, json=tool_call(1, "say", {"text": "hello"}))).status_code == 202
        return json.loads(await data())["result"]["content"][0]["text"], endpoint


# A proxy that leaves its prefix on needs public_url, for muxsim to know of it.
@pytest.mark.parametrize(("named", "strips"), [(True, True), (True, False), (False, True)])
async def test_a_client_of_sse_plays_behind_a_tls_proxy_with_a_prefix(named, strips, certificate, tmp_path):
    settings = f'public_url = "{PUBLIC}"' if named else ""
    async with (
        serving(tmp_path, CONFIG.format(settings=settings)) as running,
        proxied(running.url, *certificate, prefix="/lab", strips=strips) as front,
        trusting(certificate, timeout=40) as http,
    ):
        id = (await http.post(f"{front}/lab/sessions", json={"seed": 1})).json()["id"]
        for path in ("/sse?env=naughty", "/envs/naughty/sse", "/sse/", "/envs/naughty/sse/", f"/s/{id}/sse"):
            with trio.fail_after(60):
                said, endpoint = await played_over_sse(http, f"{front}/lab{path}")
            assert said == "hello"
            assert endpoint.startswith(f"{front}/lab/")


async def test_every_url_that_muxsim_tells_is_the_public_one(certificate, tmp_path):
    async with serving(tmp_path, CONFIG.format(settings=f'public_url = "{PUBLIC}/"')) as running:
        headers = [("Host", "lab.example.org")]
        made = await ask(running.url, "POST", "/sessions", headers, {"seed": 1})
        described = made.json()
        assert made.headers["location"] == f"{PUBLIC}/sessions/{described['id']}"
        assert {url[: len(PUBLIC)] for url in described["urls"].values()} == {PUBLIC}
        envs = (await ask(running.url, "GET", "/envs", headers)).json()["environments"]
        assert [env["mcp"] for env in envs] == [f"{PUBLIC}/envs/{name}/mcp" for name in ("naughty", "other")]
        index = (await ask(running.url, "GET", "/lab", headers)).json()
        assert {url[: len(PUBLIC) + 1] for url in index["urls"].values()} == {f"{PUBLIC}/"}
        assert index["urls"].keys() >= {"mcp", "sse", "sessions", "episode", "leases"}
        # Nobody is believed who says that there is another proxy.
        forged = [*headers, ("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "ftp"), ("Forwarded", "host=e")]
        assert (await ask(running.url, "GET", "/", forged)).json() == index
        for evil in ([("Host", "e.example")], [("Host", "lab.example.org"), ("Origin", "https://evil.example")]):
            assert (await ask(running.url, "GET", "/", evil)).status in (403, 421)
        own_page = [("Host", "127.0.0.1"), ("Origin", "https://lab.example.org")]
        assert (await ask(running.url, "GET", "/", own_page)).status == 200


@pytest.mark.parametrize("url", ["https://Lab.example.org:443/a", "https://lab.example.org", "http://[::1]:80/x"])
async def test_a_public_url_admits_its_host_and_its_own_pages(url):
    public = PublicURL(url)
    rules = HostRules(public.hosts, public.origins)
    host = "[::1]" if "::1" in url else "lab.example.org"
    for port in ("", ":443", ":8443"):
        rules.check([(b"host", f"{host}{port}".encode())])
    page = f"{url.partition(':')[0]}://{host}"
    rules.check([(b"host", b"127.0.0.1"), (b"origin", page.encode())])
    with pytest.raises(HTTPRefusal):
        rules.check([(b"host", b"127.0.0.1"), (b"origin", page.replace("lab", "evil").replace("::1", "::2").encode())])


async def test_forwarded_headers_say_nothing_where_no_public_url_is_set(tmp_path):
    async with serving(tmp_path, CONFIG.format(settings="")) as running:
        forged = [("X-Forwarded-Prefix", "/lab"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "e.example")]
        assert (await ask(running.url, "GET", "/", forged)).json()["urls"]["mcp"] == f"{running.url}/mcp"


@pytest.mark.parametrize("wire", ["http", "sse"])
@pytest.mark.parametrize("strips", [True, False])
async def test_rollouts_play_behind_a_prefix(wire, strips, certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with (
        serving(tmp_path, CONFIG.format(settings=f'public_url = "{PUBLIC}"')) as running,
        proxied(running.url, *certificate, prefix="/lab", strips=strips, keeps_host=False) as front,
    ):
        with trio.fail_after(60):
            async with connect_pool(f"{front}/lab", wire=wire) as pool:
                env = await pool.open("naughty", 7)
                assert (await env.call("say", {"text": "hello"})).content[0]["text"] == "hello"
                await env.close()


# ---- paths and parameters


async def test_a_slash_at_the_end_of_a_path_changes_nothing_for_mcp(tmp_path):
    async with serving(tmp_path, CONFIG.format(settings="")) as running:
        id = (await ask(running.url, "POST", "/sessions/", body={"seed": 1})).json()["id"]
        for path in ("/mcp", "/envs/naughty/mcp", f"/s/{id}/mcp", f"/s/{id}/agent/mcp"):
            client = await shake_hands(running.url, path + "/")
            assert await client.text("say", text="hello") == "hello"
            client.path = path
            assert await client.text("say", text="again") == "again"
            assert (await client.delete()).status == 204


async def test_a_slash_at_the_end_of_a_path_changes_nothing_elsewhere(tmp_path):
    async with serving(tmp_path, CONFIG.format(settings="")) as running:
        id = (await ask(running.url, "POST", "/sessions", body={"seed": 1})).json()["id"]
        await shake_hands(running.url, f"/s/{id}/mcp")
        for path in ("/envs", "/health", "/ready", "/sessions", f"/sessions/{id}", f"/sessions/{id}/control"):
            plain, slashed = [await ask(running.url, "GET", path + end) for end in ("", "/")]
            assert plain.status == slashed.status == 200, path
            assert plain.json().keys() == slashed.json().keys()


async def test_a_slash_opens_no_path_to_who_may_not_walk_it(tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("bob agent " + "b" * 32 + "\n")
    tokens.chmod(0o600)
    async with serving(tmp_path, CONFIG.format(settings=""), "--tokens-file", str(tokens)) as running:
        token = [("Authorization", "Bearer " + "b" * 32)]
        for path in ("/sessions", "/sessions/x", "/sessions/x/control", "/control/reward"):
            for end in ("", "/", "//"):
                assert (await ask(running.url, "GET", path + end, token)).status == 403, path + end


TWICE = [
    ("POST", "/mcp?env=naughty&seed=1&seed=2"),
    ("POST", "/mcp?seed=1&seed=1"),
    ("POST", "/mcp?env=naughty&env=other"),
    ("POST", "/envs/naughty/mcp?seed=1&seed=2"),
    ("POST", "/envs/naughty/mcp?env=other"),
    ("GET", "/sse?env=naughty&seed=1&seed="),
    ("POST", "/messages?sessionId=a&sessionId=b"),
]


async def test_a_parameter_that_says_two_things_is_an_error_and_starts_nothing(tmp_path):
    async with serving(tmp_path, CONFIG.format(settings="")) as running:
        for method, path in TWICE:
            body = initialize() if method == "POST" else b""
            answer = await ask(running.url, method, path, [("Accept", BOTH)], body)
            assert answer.status == 400, path
            assert "twice" in answer.error["message"] or "names the environment" in answer.error["message"]
        assert (await ask(running.url, "GET", "/sessions")).json() == {"sessions": []}


# ---- handshakes


@pytest.mark.parametrize("path", ["/mcp?env=naughty", "/envs/naughty/mcp"])
async def test_a_handshake_with_the_id_of_a_session_that_is_over_makes_a_new_one(path, tmp_path):
    async with serving(tmp_path, CONFIG.format(settings="")) as running:
        client = await shake_hands(running.url, path)
        assert (await client.delete()).status == 204
        again = await shake_hands(running.url, path, headers=[("Mcp-Session-Id", client.id)])
        assert again.id != client.id
        again.extra = ()
        assert await again.text("say", text="hello") == "hello"
        # Everything else is told that it is over, and a session that lives is not left for another.
        assert (await client.post(tool_call(7, "say"))).status == 404
        twice = await again.post(initialize(9))
        assert twice.headers.get("mcp-session-id", again.id) == again.id
        assert len(await live_sessions(running)) == 1


async def test_a_revision_that_both_sides_agreed_on_is_taken_though_it_is_not_known_here(tmp_path):
    async with serving(tmp_path, CONFIG.format(settings="")) as running:
        client = await shake_hands(running.url, "/mcp", version="2031-01-01")
        assert await client.text("say", text="hello") == "hello"
        async with client.listening():
            pass
        client.version = "2031-01-02"
        assert (await client.post(tool_call(7, "say"))).status == 400
        client.version = "2031-01-01"
        await client.delete()
        # Clients name the revision of before when they greet again.
        headers = [("Mcp-Session-Id", client.id), ("Mcp-Protocol-Version", "2031-01-01"), ("Accept", BOTH)]
        again = await ask(running.url, "POST", "/mcp", headers, initialize(0, "2031-01-01"))
        assert "result" in again.messages[-1]


async def test_a_revision_without_a_handshake_has_no_initialize_on_a_shared_url(tmp_path):
    meta = "io.modelcontextprotocol/"
    envelope = {f"{meta}protocolVersion": "2026-07-28", f"{meta}clientCapabilities": {}}
    envelope[f"{meta}clientInfo"] = {"name": "wire", "version": "0"}
    headers = [("Mcp-Protocol-Version", "2026-07-28"), ("Mcp-Method", "initialize"), ("Accept", BOTH)]
    config = CONFIG.format(settings="") + environment("common", extra="shared = true")
    async with serving(tmp_path, config) as running:
        asked = rpc(5, "initialize", {"_meta": envelope})
        answer = await ask(running.url, "POST", "/envs/common/mcp", headers, asked)
        assert (answer.status, answer.json()["id"], answer.error["code"]) == (404, 5, -32601)


@pytest.mark.parametrize(
    "wrong", ["lab.example.org", "ftp://lab", "https://", "https://lab/x?y", "https://me:pw@lab", "https://lab:99999"]
)
async def test_what_no_client_could_use_is_no_public_url(wrong, tmp_path):
    path = tmp_path / "muxsim.toml"
    path.write_text(f"[server]\npublic_url = '{wrong}'\n[environments.a]\ncommand = 'a'\n")
    with pytest.raises(ConfigError, match=r"public_url = .*: must be a URL without query"):
        load(path)
