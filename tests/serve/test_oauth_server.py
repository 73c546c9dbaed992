"""A muxsim that takes tokens of an authorization server. Rows are those of the table of faults."""

from __future__ import annotations

import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from harness import serving
from jwt.algorithms import RSAAlgorithm

from .conftest import environment
from .machine import eventually, log_lines
from .wire import BOTH, Client, ask, connect, initialize, shake_hands, tool_call

pytestmark = pytest.mark.children

ISSUER, AUDIENCE = "https://login.example.org", "https://muxsim.example.org/"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
TOKEN = "t" * 40
CONFIG = (
    f'[server]\nlog_level = "debug"\n[server.auth]\ntokens_file = "tokens"\n[server.auth.oauth]\nissuer = "{ISSUER}"\n'
    f'audience = "{AUDIENCE}"\njwks = "keys.json"\nscope_prefix = "muxsim:"\n'
    + environment("naughty")
    + environment("waiting").replace("warm = 0", "warm = 1")
)


def bearer(sub, scope="muxsim:trainer", seconds=60.0):
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": sub, "exp": time.time() + seconds, "scope": scope}
    return ("Authorization", "Bearer " + jwt.encode(claims, KEY, algorithm="RS256", headers={"kid": "k"}))


@pytest.fixture
async def running(tmp_path):
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "keys.json").write_text(
        json.dumps({"keys": [{**json.loads(RSAAlgorithm.to_jwk(KEY.public_key())), "kid": "k"}]})
    )
    (folder / "tokens").write_text(f"ada trainer {TOKEN}\n")
    (folder / "tokens").chmod(0o600)
    async with serving(tmp_path, CONFIG) as running:
        yield running


@pytest.mark.fault("L16", "L21")
async def test_a_signed_token_is_as_good_as_one_of_the_file_and_its_sessions_are_its_subjects(running):
    """L16, L21."""
    ada = await shake_hands(running.url, headers=[bearer("ada")])
    for _ in range(3):
        assert await ada.text("say", text="hello") == "hello"
    again = Client(running.url, ada.path, ada.id, extra=(bearer("ada"),))
    assert await again.text("say", text="another token") == "another token"
    for other in (bearer("bob"), ("Authorization", f"Bearer {TOKEN}")):
        stranger = Client(running.url, ada.path, ada.id, extra=(other,))
        assert (await stranger.post(tool_call(1, "say"))).status == 404
    refused = await ask(running.url, "GET", "/sessions", [bearer("ada", "muxsim:agent")])
    assert refused.status == 403
    assert 'scope="muxsim:trainer"' in refused.headers["www-authenticate"]
    assert (await ask(running.url, "GET", "/sessions", [bearer("ada", "trainer")])).status == 403
    assert (await ask(running.url, "GET", "/sessions", [bearer("ada", seconds=-60)])).status == 401
    text = running.log.read_text()
    assert log_lines(running, event="auth.unverified", reason="ExpiredSignatureError")
    assert ada.extra[0][1].rpartition(".")[2] not in text


async def test_a_token_that_expires_is_refused_on_the_connection_that_it_has_used(running):
    """L21: what was true of a head is not remembered longer than its token lives."""
    client = await shake_hands(running.url, headers=[bearer("ada", seconds=3)])
    call = json.dumps(tool_call(1, "say", {"text": "x"})).encode()
    async with connect(running.url) as connection:
        assert (await connection.ask("POST", client.path, client.headers, call)).status == 200

        async def refused():
            return (await connection.ask("POST", client.path, client.headers, call)).status == 401

        await eventually(refused, within=60)


async def test_who_has_no_token_is_told_where_they_are_given_out(running):
    """RFC 9728, as MCP's authorization wants it."""
    refused = await ask(running.url, "POST", "/mcp", body={})
    where = "https://muxsim.example.org/.well-known/oauth-protected-resource"
    assert refused.status == 401
    assert f'resource_metadata="{where}"' in refused.headers["www-authenticate"]
    told = await ask(running.url, "GET", "/.well-known/oauth-protected-resource")
    assert told.status == 200
    assert told.json()["resource"] == AUDIENCE
    assert told.json()["authorization_servers"] == [ISSUER]
    assert told.json()["scopes_supported"] == ["muxsim:agent", "muxsim:trainer", "muxsim:monitor", "muxsim:admin"]
    assert (await ask(running.url, "GET", "/.well-known/openid-configuration")).status == 404


async def test_a_token_that_is_good_for_nothing_here_makes_no_session_of_a_process_that_waits(running):
    """Nor does it once it is known."""
    root = bearer("root", "muxsim:admin")

    async def waits():
        return (await ask(running.url, "GET", "/health", [root])).json()["warm"]["waiting"]["ready"]

    assert (await ask(running.url, "GET", "/sessions", [root])).status == 200  # which verifies it for /health
    await eventually(waits, within=60)
    stranger = bearer("eve", "email")
    for _ in range(2):
        refused = await ask(running.url, "POST", "/mcp?env=waiting", [("Accept", BOTH), stranger], initialize())
        assert refused.status == 403
    assert await waits()
    assert (await ask(running.url, "GET", "/sessions", [root])).json() == {"sessions": []}
