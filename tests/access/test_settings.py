"""Who may call, as the config says it, and where nobody may listen without. Rows: table of faults."""

from __future__ import annotations

import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.access import AuthSettings, OAuthSettings, fault_of_client, is_address, network_of
from muxsim.admission.pool import capacity_of
from muxsim.config import ServerSettings, load
from muxsim.errors import ConfigError, ListenError
from muxsim.serve.auth.addresses import is_loopback
from muxsim.serve.auth.callers import NamedToken, Scope
from muxsim.serve.auth.tokens import open_auth, strangers
from muxsim.serve.operate.listening import listening, refuse_open_door, server_url, tls_context
from muxsim.values import ALGORITHMS

ENVIRONMENT = '[environments.x]\ncommand = "x.py"\n'
TOKEN = "t" * 40
OAUTH = 'issuer = "https://login.example.org"\naudience = "https://lab.example.org"\njwks = "https://l/jwks"\n'


@pytest.fixture
def read(tmp_path):
    def read(text, environ=None, name="muxsim.toml"):
        file = tmp_path / name
        file.write_text(text)
        return load(file, environ or {})

    return read


def test_without_the_table_everybody_may_call(read):
    assert read(ENVIRONMENT).auth is None


def test_paths_are_the_configs_and_a_url_is_left_alone(read, tmp_path):
    config = read(
        '[server]\ntls_cert = "cert.pem"\ntls_key = "/keys/key.pem"\n'
        f'[server.auth]\ntokens_file = "tokens"\ntokens_env = "TOKENS"\n[server.auth.oauth]\n{OAUTH}{ENVIRONMENT}'
    )
    assert config.server.tls_cert == str(tmp_path / "cert.pem")
    assert config.server.tls_key == "/keys/key.pem"
    assert config.auth == AuthSettings(
        tokens_file=str(tmp_path / "tokens"),
        tokens_env="TOKENS",
        oauth=OAuthSettings(
            issuer="https://login.example.org", audience="https://lab.example.org", jwks="https://l/jwks"
        ),
    )


def test_keys_may_be_a_file_beside_the_config(read, tmp_path):
    config = read(f"[server.auth.oauth]\n{OAUTH.replace('https://l/jwks', 'keys.json')}{ENVIRONMENT}")
    assert config.auth.oauth.jwks == str(tmp_path / "keys.json")


def test_a_desktops_file_has_the_same_table(read, tmp_path):
    text = '{"mcpServers": {"x": {"command": "x.py"}}, "muxsim": {"auth": {"tokens_file": "tokens"}}}'
    assert read(text, name="claude.json").auth == AuthSettings(tokens_file=str(tmp_path / "tokens"))


def test_bounds_may_differ_by_name(read):
    config = read(
        f"[server]\nopens_burst = 9\nmax_sessions_per_client = 2\n{ENVIRONMENT}"
        '[server.clients.lab]\nmax_sessions_per_client = 0\nopens_per_second = 500\nmax_unread = "1 MiB"\n'
        '[server.clients."https://login.example.org 1234"]\nopens_burst = 1\n'
        f"[server.auth.oauth]\n{OAUTH}"
    )
    capacity = capacity_of(config.server, config.clients)
    lab, other = capacity.clients["lab"], capacity.clients["https://login.example.org 1234"]
    assert (lab.max_sessions_per_client, lab.opens_per_second, lab.opens_burst) == (0, 500, 9)
    assert (other.max_sessions_per_client, other.opens_per_second, other.opens_burst) == (2, 200, 1)
    assert config.clients["lab"].max_unread == 2**20
    with pytest.raises(ConfigError, match=r"\[server.clients.lab\] open_burst = 1: is not a known key"):
        read(f"{ENVIRONMENT}[server.clients.lab]\nopen_burst = 1\n")


@pytest.mark.parametrize("name", ["lab", "10.0.0.1", "2001:db8::/64", "::/64", "fe80::/64", "uid 0", "uid 1000", "a@b"])
def test_the_bounds_of_a_client_are_of_a_token_an_address_or_a_user(read, name):
    assert list(read(f"{ENVIRONMENT}[server.clients.{json.dumps(name)}]\n").clients) == [name]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("2001:db8::1", 'for addresses of IPv6 count by networks of 64 bits: write "2001:db8::/64"'),
        ("2001:db8::1%eth0", 'write "2001:db8::/64"'),
        ("2001:DB8::/64", 'write "2001:db8::/64"'),
        ("2001:db8::/48", 'write "2001:db8::/64"'),
        ("2001:db8:0:0:1::/64", 'write "2001:db8::/64"'),
        ("10.0.0.0/8", "for addresses of IPv4 count one by one: write one, such as 10.0.0.0"),
        ("uid 01", "write the name of a token"),
        ("uid root", "write the name of a token"),
        ("", "write the name of a token"),
        ("two\nlines", "write the name of a token"),
        ("x" * 65, "write the name of a token"),
        ("https://login.example.org 1234", 'an issuer and a subject ("ISSUER SUBJECT")'),
    ],
)
@pytest.mark.parametrize("format", ["toml", "json"])
def test_a_client_that_nobody_can_be_is_an_error_that_says_who_can(read, name, advice, format):
    text = f"{ENVIRONMENT}[server.clients.{json.dumps(name)}]\nopens_burst = 1\n"
    if format == "json":
        text = json.dumps({"mcpServers": {"x": {"command": "x.py"}}, "muxsim": {"clients": {name: {"opens_burst": 1}}}})
    with pytest.raises(ConfigError) as raised:
        read(text, name=f"muxsim.{format}")
    assert "clients] " in str(raised.value)
    assert "can be nobody" in str(raised.value)
    assert advice in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_subject_of_another_issuer_than_the_one_whose_tokens_are_taken_can_be_nobody(read):
    with pytest.raises(ConfigError, match=r'write the name of a token, "https://login.example.org SUBJECT"'):
        read(f'{ENVIRONMENT}[server.auth.oauth]\n{OAUTH}[server.clients."https://other.example.org 1"]\n')


@given(st.ip_addresses())
def test_what_whoever_calls_counts_as_can_be_written(address):
    assert is_address(network_of(str(address)))
    assert fault_of_client(network_of(str(address)), None) == ""


def test_bounds_of_whom_no_token_is_are_noted_and_keep_nothing_from_starting(tmp_path):
    (tokens := tmp_path / "tokens").write_text(f"ada trainer {TOKEN}\n")
    tokens.chmod(0o600)
    auth = open_auth(AuthSettings(tokens_file=str(tokens)), 1, {})
    names = ["ada", "bob", "10.0.0.1"]
    assert strangers(names, auth) == ["bob", "10.0.0.1"]
    assert strangers(names, None) == ["ada", "bob"]
    auth.stage([NamedToken("bob", Scope.TRAINER, TOKEN)])
    assert strangers(["bob"], auth) == []


def test_a_path_may_come_from_a_variable(read):
    config = read(f'[server.auth]\ntokens_file = "${{WHERE}}/tokens"\n{ENVIRONMENT}', {"WHERE": "/run/secrets"})
    assert config.auth.tokens_file == "/run/secrets/tokens"


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("[server.auth]\n", "[server] auth: names no tokens"),
        ("[server]\nauth = 7\n", "[server] auth = 7: must be a table"),
        ('[server.auth]\ntoken = "abc"\n', "[server.auth] token: is not a known key: did you mean tokens_"),
        ('[server.auth]\ntokens = ["abc"]\n', "is not a known key"),
        ("[server.auth]\ntokens_file = 7\n", "tokens_file = 7: must be a string"),
        ('[server.auth]\ntokens_file = ""\n', "must be a string that is not empty"),
        ('[server.auth]\ntokens_env = "$TOKENS"\n', "must be the name of a variable"),
        ("[server.auth.oauth]\n", "[server.auth.oauth] issuer: is missing"),
        (f"[server.auth.oauth]\n{OAUTH}algorithms = ['HS256']\n", 'algorithms[0] = "HS256": must be one of RS256'),
        (f"[server.auth.oauth]\n{OAUTH}algorithms = ['none']\n", "must be one of RS256"),
        (f"[server.auth.oauth]\n{OAUTH.replace('https://login', 'login')}", "issuer = "),
        (f"[server.auth.oauth]\n{OAUTH}secret = 'x'\n", "is not a known key"),
    ],
)
def test_a_fault_is_told_with_its_place(read, table, complaint):
    with pytest.raises(ConfigError) as raised:
        read(table + ENVIRONMENT)
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    "table",
    [
        f'[server.auth]\ntoken = "{TOKEN}"\n',
        f'[server.auth]\ntokens = ["lab trainer {TOKEN}"]\n',
        f'[server.auth.oauth]\n{OAUTH}client_secret = "{TOKEN}"\n',
    ],
)
def test_a_token_where_none_belongs_is_not_told(read, table):
    """L21."""
    with pytest.raises(ConfigError) as raised:
        read(table + ENVIRONMENT)
    assert TOKEN not in str(raised.value)


def test_no_algorithm_has_a_shared_secret():
    assert not [name for name in ALGORITHMS if name.startswith("HS") or name == "none"]


# ---- where to listen


@pytest.mark.fault("H13")
@pytest.mark.parametrize(
    ("address", "ours"),
    [
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("192.168.1.5", False),
        ("::ffff:127.0.0.1", False),
        ("fe80::1%eth0", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_what_others_can_reach_is_refused_without_authentication(address, ours):
    """H13: by the address that is bound, whatever name it was given under."""
    assert is_loopback(address) is ours
    if ours:
        refuse_open_door("here", address)
    else:
        with pytest.raises(ListenError, match="refusing to listen on here without authentication") as raised:
            refuse_open_door("here", address)
        assert "\n" not in str(raised.value)


@pytest.mark.fault("H13")
def test_a_name_is_refused_for_where_it_leads(monkeypatch):
    """H13: also if it says localhost."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with (
        pytest.raises(ListenError, match="refusing to listen on localhost"),
        listening(ServerSettings(host="localhost", port=0), authenticated=False),
    ):
        pass


@pytest.mark.parametrize(
    ("host", "cert", "url"), [("127.0.0.1", "", "http://127.0.0.1"), ("::1", "c.pem", "https://[::1]")]
)
def test_the_url_says_whether_it_is_tls(host, cert, url):
    settings = ServerSettings(host=host, port=0, tls_cert=cert)
    with listening(settings, authenticated=False) as listener:
        assert server_url(listener, settings) == f"{url}:{listener.getsockname()[1]}"


def test_without_a_certificate_there_is_no_tls():
    assert tls_context(ServerSettings()) is None
