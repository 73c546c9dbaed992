"""For whom a proxy says that it calls, and who is believed."""

from __future__ import annotations

import pytest

from muxsim.config import load
from muxsim.errors import ConfigError
from muxsim.serve.auth.proxies import TrustedProxies, unix_peer

PROXIES = TrustedProxies(["10.0.0.0/8", "::1"])


def forwarded(*values):
    return [(b"host", b"x"), *((b"x-forwarded-for", value.encode()) for value in values)]


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        # What a client has made up stands before what the proxy has seen.
        ("10.0.0.1", ["198.51.100.1, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["198.51.100.1", "192.0.2.7"], "192.0.2.7"),
        # A chain of trusted ones is gone through, and who stands before the first is the client.
        ("10.0.0.1", ["198.51.100.1, 192.0.2.7, 10.0.0.2"], "192.0.2.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("::1", ["2001:db8::7"], "2001:db8::7"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.1", ["192.0.2.7:4711"], "192.0.2.7"),
        # Nobody is believed who is not trusted, and no word that is no address.
        ("192.0.2.9", ["192.0.2.7"], "192.0.2.9"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7, <script>"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("uid 0", ["192.0.2.7"], "uid 0"),
        ("", ["192.0.2.7"], ""),
    ],
)
def test_the_client_is_the_last_that_no_trusted_proxy_is(peer, said, client):
    assert PROXIES.client_of(peer, forwarded(*said)) == client


def test_whoever_calls_over_a_unix_socket_is_trusted_by_that_word():
    assert TrustedProxies(["unix"]).client_of(unix_peer(33), forwarded("192.0.2.7")) == "192.0.2.7"
    assert TrustedProxies(["unix"]).client_of("10.0.0.1", forwarded("192.0.2.7")) == "10.0.0.1"


def test_nobody_is_trusted_unless_named():
    assert not TrustedProxies()
    assert PROXIES
    assert TrustedProxies(["unix"])


@pytest.mark.parametrize("wrong", ["proxy.example.org", "10.0.0.1/8", "10.0.0.0/33", ""])
def test_what_is_no_address_or_network_is_no_trusted_proxy(wrong, tmp_path):
    path = tmp_path / "muxsim.toml"
    path.write_text(f"[server]\ntrusted_proxies = ['{wrong}']\n[environments.a]\ncommand = 'a'\n")
    with pytest.raises(ConfigError, match="trusted_proxies"):
        load(path)
