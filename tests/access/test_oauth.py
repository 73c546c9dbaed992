"""Tokens of an authorization server: what is taken, and when its keys are asked for."""

from __future__ import annotations

import asyncio
import functools
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from muxsim.access import OAuthSettings
from muxsim.errors import ConfigError
from muxsim.serve.auth.callers import Caller, Scope
from muxsim.serve.auth.oauth import Keys, KeysUnavailable, OAuth, open_oauth, scopes_of
from muxsim.serve.routes.public_url import PublicURL
from transports.http_rules import HTTPRefusal

ISSUER, AUDIENCE = "https://login.example.org", "https://muxsim.example.org"


@functools.cache
def rsa_key(name):
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@functools.cache
def ec_key():
    return ec.generate_private_key(ec.SECP256R1())


def jwks(*names):
    """The public half of these RSA keys, and an elliptic one."""
    keys = [{**json.loads(RSAAlgorithm.to_jwk(rsa_key(name).public_key())), "kid": name} for name in names]
    keys.append({**json.loads(ECAlgorithm.to_jwk(ec_key().public_key())), "kid": "curve"})
    return json.dumps({"keys": keys}).encode()


def claims(**changed):
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": now + 60, "iat": now, "scope": "openid trainer"}
    return {name: value for name, value in {**usual, **changed}.items() if value is not None}


def signed(key="one", alg="RS256", kid="one", **changed):
    private = ec_key() if alg.startswith("ES") else rsa_key(key)
    return jwt.encode(claims(**changed), private, algorithm=alg, headers={} if kid is None else {"kid": kid})


def settings(**changed):
    return OAuthSettings(**{"issuer": ISSUER, "audience": AUDIENCE, "jwks": f"{ISSUER}/jwks", **changed})


def verified(token, **changed):
    async def verify():
        keys = Keys("a file", None)
        keys.read(jwks("one", "two"))
        return await OAuth(settings(**changed), keys).verify(token if isinstance(token, bytes) else token.encode())

    return asyncio.run(verify())


def test_a_token_of_the_issuer_for_this_server_tells_who_is_calling():
    caller = verified(signed())
    assert (caller.name, caller.scope) == (f"{ISSUER} ada", Scope.TRAINER)
    assert time.time() < caller.expires <= time.time() + 60


@pytest.mark.parametrize(
    ("token", "changed"),
    [
        (functools.partial(signed, "two", kid="two"), {}),
        (functools.partial(signed, alg="ES256", kid="curve"), {}),
        (functools.partial(signed, aud=["https://other.example.org", AUDIENCE]), {}),
        (functools.partial(signed, exp=int(time.time()) + 3600, nbf=int(time.time()) + 5), {}),
        (functools.partial(signed, sub=None, team="ada"), {"principal_claim": "team"}),
        (functools.partial(signed, scope="muxsim:trainer admin"), {"scope_prefix": "muxsim:"}),
        (functools.partial(signed, alg="PS256"), {"algorithms": ("PS256",)}),
    ],
)
def test_what_else_is_taken(token, changed):
    caller = verified(token(), **changed)
    assert (caller.name, caller.scope) == (f"{ISSUER} ada", Scope.TRAINER)


def forged(**header):
    """A token whose signature is that of another one."""
    head, _, signature = signed().split(".")
    body = jwt.utils.base64url_encode(json.dumps(claims(sub="root", scope="admin")).encode()).decode()
    if header:
        head = jwt.utils.base64url_encode(json.dumps(header).encode()).decode()
    return f"{head}.{body}.{signature}"


def by_shared_secret():
    """Signed with the public key as if it were a secret, which anybody could do."""
    public = RSAAlgorithm.to_jwk(rsa_key("one").public_key())
    head = jwt.utils.base64url_encode(json.dumps({"alg": "HS256", "kid": "one", "typ": "JWT"}).encode())
    body = jwt.utils.base64url_encode(json.dumps(claims()).encode())
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = jwt.utils.base64url_encode(algorithm.sign(head + b"." + body, public.encode()))
    return b".".join((head, body, signature))


@pytest.mark.parametrize(
    "token",
    [
        functools.partial(signed, iss="https://evil.example"),
        functools.partial(signed, iss=ISSUER + "/"),
        functools.partial(signed, iss=None),
        functools.partial(signed, aud="https://other.example.org"),
        functools.partial(signed, aud=None),
        functools.partial(signed, exp=int(time.time()) - 3600),
        functools.partial(signed, exp=None),
        functools.partial(signed, nbf=int(time.time()) + 3600),
        functools.partial(signed, sub=None),
        functools.partial(signed, sub=""),
        functools.partial(signed, "stranger"),
        functools.partial(signed, "stranger", kid="strange"),
        functools.partial(signed, kid=None),
        functools.partial(signed, "two"),
        functools.partial(signed, alg="RS512"),
        forged,
        functools.partial(forged, alg="none"),
        functools.partial(forged, alg="none", kid="one"),
        by_shared_secret,
        functools.partial(jwt.encode, claims(), "", "none"),
        lambda: "a.b.c",
        lambda: "x" * 40,
        lambda: b"\xff\xfe.\xff.\xff",
        lambda: "..",
    ],
)
def test_any_other_token_is_nobodys(token):
    """L21."""
    assert verified(token()) is None


def test_a_token_without_a_scope_of_ours_is_good_for_nothing():
    assert verified(signed(scope="openid email")).scope is Scope.NONE
    assert verified(signed(scope=None)).scope is Scope.NONE


@pytest.mark.parametrize(
    ("given", "prefix", "found"),
    [
        ({"scope": "agent trainer"}, "", ["agent", "trainer"]),
        ({"scp": ["agent", 7]}, "", ["agent"]),
        ({"scp": "agent"}, "", ["agent"]),
        ({"scope": "mux/agent admin"}, "mux/", ["agent"]),
        ({"scope": 7}, "", []),
        ({}, "", []),
    ],
)
def test_scopes_are_found_where_issuers_put_them(given, prefix, found):
    assert scopes_of(given, prefix) == found


# ---- keys


class Issuer:
    """Publishes keys, counts who asks, and may be down."""

    def __init__(self, *names):
        self.names = names
        self.asked = 0
        self.down = False
        self.now = 1000.0

    async def fetch(self, url):
        self.asked += 1
        if self.down:
            raise ValueError("it is down")
        return jwks(*self.names)

    def keys(self):
        return Keys("https://login.example.org/jwks", self.fetch, lambda: self.now)


def test_keys_are_fetched_once_and_again_when_they_are_old():
    async def scenario():
        issuer = Issuer("one")
        keys = issuer.keys()
        assert issuer.asked == 0
        found = await asyncio.gather(*(keys.find("one") for _ in range(10)))
        assert {key.key_id for key in found} == {"one"}
        assert issuer.asked == 1
        issuer.now += 3599
        await keys.find("one")
        assert issuer.asked == 1
        issuer.now += 1
        await keys.find("one")
        assert issuer.asked == 2

    asyncio.run(scenario())


def test_a_new_key_is_found_at_once_and_an_unknown_one_does_not_make_muxsim_ask_with_each_token():
    async def scenario():
        issuer = Issuer("one")
        keys = issuer.keys()
        await keys.find("one")
        issuer.now += 60
        issuer.names = ("one", "two")
        assert (await keys.find("two")).key_id == "two"
        assert issuer.asked == 2
        for number in range(100):
            assert await keys.find(f"unknown {number}") is None
        assert issuer.asked == 2

    asyncio.run(scenario())


def test_the_old_keys_hold_while_the_issuer_is_down():
    async def scenario():
        issuer = Issuer("one")
        keys = issuer.keys()
        await keys.find("one")
        issuer.down = True
        issuer.now += 4000
        assert (await keys.find("one")).key_id == "one"
        assert (await keys.find("one")).key_id == "one"
        assert issuer.asked == 2

    asyncio.run(scenario())


def test_without_any_keys_the_answer_is_503_and_not_that_the_token_is_wrong():
    async def scenario():
        issuer = Issuer("one")
        issuer.down = True
        oauth = OAuth(settings(), issuer.keys())
        for _ in range(2):
            with pytest.raises(HTTPRefusal) as raised:
                await oauth.verify(signed().encode())
            assert raised.value.status == 503
        assert issuer.asked == 1
        issuer.down = False
        issuer.now += 60
        assert isinstance(await oauth.verify(signed().encode()), Caller)

    asyncio.run(scenario())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": 7}', b'{"keys": [{"kty": "oct"}]}'])
def test_what_is_no_set_of_keys_is_refused(data):
    with pytest.raises(ValueError, match="no set of keys"):
        Keys("x", None).read(data)


def test_keys_that_cannot_be_had_are_named():
    async def scenario():
        issuer = Issuer()
        issuer.down = True
        await issuer.keys().find("one")

    with pytest.raises(KeysUnavailable, match=r"https://login\.example\.org/jwks: it is down"):
        asyncio.run(scenario())


# ---- settings


def test_keys_may_stand_in_a_file(tmp_path):
    file = tmp_path / "keys.json"
    file.write_bytes(jwks("one"))
    oauth = open_oauth(settings(jwks=str(file)))
    assert asyncio.run(oauth.verify(signed().encode())).name == f"{ISSUER} ada"


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"jwks": "http://login.example.org/jwks"}, "must be https"),
        ({"jwks": "/no/such/file"}, "cannot be read"),
        ({"jwks": __file__}, "no set of keys"),
        ({"audience": "muxsim"}, r"\[server.auth.oauth\] resource: is missing"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(changed, complaint):
    with pytest.raises(ConfigError, match=complaint):
        open_oauth(settings(**changed))


def test_clients_are_told_where_tokens_are_given_out():
    oauth = open_oauth(settings(resource="https://muxsim.example.org/base"))
    assert oauth.metadata_url == "https://muxsim.example.org/.well-known/oauth-protected-resource/base"
    assert [route.path for route in oauth.routes] == ["/.well-known/oauth-protected-resource/base"]


@pytest.mark.parametrize("audience", [AUDIENCE, "muxsim"])
def test_behind_a_proxy_clients_are_shown_what_the_proxy_passes_on(audience):
    public = "https://lab.example.org/lab"
    oauth = open_oauth(settings(audience=audience), public)
    # Under the prefix, for the host's own /.well-known need not lead here; which path that is the gateway knows.
    assert oauth.metadata_url == f"{public}/.well-known/oauth-protected-resource/lab"
    assert [route.path for route in oauth.routes] == ["/.well-known/oauth-protected-resource/lab"]
    assert PublicURL(public).route("/lab/.well-known/oauth-protected-resource/lab") == oauth.routes[0].path
    assert PublicURL(public).route(oauth.routes[0].path) == oauth.routes[0].path
    named = open_oauth(settings(resource="https://lab.example.org/lab/mcp"), public)
    assert named.metadata_url == f"{public}/.well-known/oauth-protected-resource/lab/mcp"
