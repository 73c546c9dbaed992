"""What whoever plays against a URL is told when no muxsim answers there, and what to do about it."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from contextlib import asynccontextmanager

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import muxsim
from muxsim.errors import StartError

LIMIT = 300  # s, on a machine that is busy with others
DAY = datetime.timedelta(days=1)
HERE = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


def certificate(folder, names=HERE, begins=-DAY, ends=DAY, signed_by=None):
    """A certificate, with its key in one file; signed by its own key, or by that of another authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "muxsim")])
    issuer = name if signed_by is None else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now + begins).not_valid_after(now + ends)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(key if signed_by is None else signed_by, hashes.SHA256())
    file = folder / "both.pem"
    file.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return file


@asynccontextmanager
async def serving(answer, file=None):
    """A port where something answers whatever comes, with TLS if there is a certificate in a file for it."""

    async def serve(stream):
        async with stream:
            try:
                await stream.receive_some(4096)
                await stream.send_all(answer)
            except trio.BrokenResourceError:
                return

    async with trio.open_nursery() as nursery:
        if file is None:
            listeners = await nursery.start(trio.serve_tcp, serve, 0)
        else:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(file)
            secured = await nursery.start(trio.serve_ssl_over_tcp, serve, 0, context)
            listeners = [listener.transport_listener for listener in secured]
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def said_of(url):
    with trio.fail_after(LIMIT), pytest.raises(StartError) as caught:
        async with muxsim.connect(url, token="s" * 40):
            pass
    assert "sss" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("made", "trusted", "said"),
    [
        ({}, False, "is signed by itself, and not trusted here: set SSL_CERT_FILE=FILE"),
        ({"signed_by": ec.generate_private_key(ec.SECP256R1())}, False, "signed by somebody who is not trusted here"),
        ({"names": [x509.DNSName("other.example")]}, True, "is not for '127.0.0.1': use a name or address that"),
        ({"begins": -2 * DAY, "ends": -DAY}, True, "has expired"),
        ({"begins": DAY, "ends": 2 * DAY}, True, "is not valid yet: is the clock"),
    ],
    ids=["signed by itself", "signed by a stranger", "another name", "expired", "not yet valid"],
)
async def test_a_certificate_that_is_not_accepted_is_said_to_be_what_it_is(tmp_path, monkeypatch, made, trusted, said):
    file = certificate(tmp_path, **made)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    async with serving(b"", file) as port:
        assert said in await said_of(f"https://127.0.0.1:{port}")


@pytest.mark.parametrize("path", ["/envs/lake/mcp", "/envs/lake", "/mcp", "/sse", "/s/1f/mcp", "/envs/lake/openenv/ws"])
@pytest.mark.parametrize("under", ["", "/lab"])
async def test_the_url_of_an_endpoint_is_told_from_that_of_the_muxsim_that_has_it(path, under):
    body = b'{"error": "no such path"}'
    head = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with serving(head + body) as port:
        assert f"; give the URL of the whole, http://127.0.0.1:{port}{under}, and" in await said_of(
            f"http://127.0.0.1:{port}{under}{path}"
        )
        assert "endpoint" not in await said_of(f"http://127.0.0.1:{port}/lab")


async def test_http_where_tls_is_spoken_names_the_url_that_would_do(tmp_path):
    async with serving(b"", certificate(tmp_path)) as port:
        told = await said_of(f"http://127.0.0.1:{port}")
    assert told == f"no muxsim answers at http://127.0.0.1:{port}: it speaks TLS: write https://127.0.0.1:{port}"


async def test_tls_where_http_is_spoken_names_the_url_that_would_do():
    async with serving(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        told = await said_of(f"https://127.0.0.1:{port}")
    assert told.endswith(f": it speaks plain HTTP, without TLS: write http://127.0.0.1:{port}")


async def test_tls_where_something_else_is_spoken_is_said_to_have_failed():
    async with serving(b"SSH-2.0-OpenSSH_9.6\r\n") as port:
        assert ": TLS failed: " in await said_of(f"https://127.0.0.1:{port}")


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_where_nobody_listens_nothing_is_said_of_tls(scheme):
    async with serving(b"") as port:
        pass
    told = await said_of(f"{scheme}://127.0.0.1:{port}")
    assert told.startswith(f"no muxsim answers at {scheme}://127.0.0.1:{port}: ")
    assert "TLS" not in told


async def test_what_hangs_up_without_a_word_is_told_of_as_before():
    async with serving(b"") as port:
        told = await said_of(f"http://127.0.0.1:{port}")
    assert "TLS" not in told
