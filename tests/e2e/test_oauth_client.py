"""The official client finds its way to a token by itself, as MCP's authorization has it."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import jwt
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import rsa
from harness import SERVERS, serving
from jwt.algorithms import RSAAlgorithm
from mcp import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

pytestmark = pytest.mark.children

LIMIT = 120
ENVIRONMENT = f'[environments.scored]\ncommand = "python3"\nargs = ["-I", "-S", "{SERVERS / "scored.py"}"]\n'
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Issuer(BaseHTTPRequestHandler):
    """An authorization server that knows one client and signs what it is asked for."""

    audience = ""

    def do_GET(self):
        base = f"http://{self.headers['host']}"
        self._answer(
            {
                "/.well-known/oauth-authorization-server": {
                    "issuer": base,
                    "authorization_endpoint": f"{base}/authorize",
                    "token_endpoint": f"{base}/token",
                    "response_types_supported": ["code"],
                    "grant_types_supported": ["client_credentials"],
                    "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                },
                "/jwks": {"keys": [{**json.loads(RSAAlgorithm.to_jwk(KEY.public_key())), "kid": "k"}]},
            }.get(self.path)
        )

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        now = time.time()
        claims = {"iss": f"http://{self.headers['host']}", "aud": self.server.audience, "sub": "trainer-1"}
        claims |= {"exp": now + 60, "iat": now, "scope": "muxsim:trainer"}
        token = jwt.encode(claims, KEY, algorithm="RS256", headers={"kid": "k"})
        self._answer({"access_token": token, "token_type": "Bearer", "expires_in": 60, "scope": "muxsim:trainer"})

    def _answer(self, value):
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(404 if value is None else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nothing."""


@contextmanager
def issuer(audience):
    with ThreadingHTTPServer(("127.0.0.1", 0), Issuer) as server:
        server.audience = audience
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Storage:
    """Keeps a client's tokens for the length of a test."""

    def __init__(self):
        self.tokens = self.client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


async def test_the_official_client_gets_a_token_where_muxsim_says_and_plays(tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with issuer(url) as where:
        config = (
            f'[server.auth.oauth]\nissuer = "{where}"\naudience = "{url}"\njwks = "{where}/jwks"\n'
            f'scope_prefix = "muxsim:"\n{ENVIRONMENT}'
        )
        async with serving(tmp_path, config, "--port", str(port)) as running:
            assert running.url == url
            storage = Storage()
            auth = ClientCredentialsOAuthProvider(f"{url}/mcp", storage, "trainer-1", "secret", issuer=where)
            with trio.fail_after(LIMIT):
                async with (
                    httpx2.AsyncClient(auth=auth, timeout=LIMIT) as http,
                    Client(streamable_http_client(f"{url}/mcp?env=scored", http_client=http)) as client,
                ):
                    result = await client.call_tool("step", {}, meta={"muxsim/control": True})
                    assert result.content[0].text == "stepped"
                    assert result.meta["muxsim/control"]["reward"] == 1
            assert storage.tokens is not None
            assert storage.tokens.access_token not in running.log.read_text()


async def test_the_official_client_without_a_token_is_refused(tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"lab trainer {'t' * 40}\n")
    tokens.chmod(0o600)
    async with serving(tmp_path, ENVIRONMENT, "--tokens-file", str(tokens)) as running:
        with trio.fail_after(LIMIT):
            with pytest.RaisesGroup(MCPError, allow_unwrapped=True, flatten_subgroups=True):
                async with Client(f"{running.url}/mcp") as client:
                    await client.list_tools()
