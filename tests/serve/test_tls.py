"""A muxsim that speaks TLS: the URL that it prints, calls, and certificates that are none."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import ssl
import subprocess
from urllib.parse import urlsplit

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from harness import MUXSIM, SERVERS, serving

from .conftest import environment
from .wire import BOTH, Connection, initialize, text_of, tool_call

pytestmark = pytest.mark.children

SCORED = f'[environments.scored]\ncommand = "python3"\nargs = ["-I", "-S", "{SERVERS / "scored.py"}"]\n'
CONFIG = '[server]\ndefault = "naughty"\n' + environment("naughty") + SCORED


def make_certificate(folder, password=None):
    """A certificate of its own for this machine, and its key: paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "muxsim")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    certificate = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(key, hashes.SHA256())
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    key_file.chmod(0o600)
    return cert_file, key_file


async def connect_tls(url, certificate):
    address = urlsplit(url)
    context = ssl.create_default_context(cafile=certificate)
    stream = await trio.open_ssl_over_tcp_stream(address.hostname, address.port, ssl_context=context)
    return Connection(stream, address.netloc)


async def test_everything_is_served_over_tls_and_calls_go_the_short_way(tmp_path):
    certificate, key = make_certificate(tmp_path)
    async with serving(tmp_path, CONFIG, "--tls-cert", str(certificate), "--tls-key", str(key)) as running:
        assert running.url.startswith("https://127.0.0.1:")
        connection = await connect_tls(running.url, certificate)
        headers = [("Content-Type", "application/json"), ("Accept", BOTH)]
        shaken = await connection.ask("POST", "/mcp", headers, json.dumps(initialize()).encode())
        assert shaken.status == 200
        headers += [("Mcp-Session-Id", shaken.headers["mcp-session-id"]), ("Mcp-Protocol-Version", "2025-11-25")]
        for number in range(1, 4):
            message = json.dumps(tool_call(number, "say", {"text": f"call {number}"})).encode()
            called = await connection.ask("POST", "/mcp", headers, message)
            assert text_of(called.json()) == f"call {number}"
            # As the short way writes it; the other one begins with the length.
            assert next(iter(called.headers)) == "content-type"
        big = await connection.ask("POST", "/mcp", headers, json.dumps(tool_call(9, "big", {"size": 2**20})).encode())
        assert big.status == 200
        made = await connection.ask("POST", "/sessions", headers[:1], b"{}")
        assert made.json()["urls"]["mcp"].startswith(running.url)
        await connection.stream.aclose()


async def test_a_client_without_tls_gets_nothing(tmp_path):
    certificate, key = make_certificate(tmp_path)
    async with serving(tmp_path, CONFIG, "--tls-cert", str(certificate), "--tls-key", str(key)) as running:
        address = urlsplit(running.url)
        stream = await trio.open_tcp_stream(address.hostname, address.port)
        async with stream:
            await stream.send_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with trio.fail_after(60):
                with contextlib.suppress(trio.BrokenResourceError):
                    assert b"HTTP/1.1" not in await stream.receive_some()


@pytest.mark.parametrize("options", [(), ("--transport", "sse")])
async def test_rollouts_play_over_tls(tmp_path, options):
    certificate, key = make_certificate(tmp_path)
    table = f'[server]\ntls_cert = "{certificate}"\ntls_key = "{key}"\n'
    async with serving(tmp_path, table + SCORED) as running:
        played = await trio.run_process(
            [
                *MUXSIM,
                "rollout",
                "--url",
                running.url,
                "--rollouts",
                "2",
                "--max-steps",
                "3",
                "--output",
                "run",
                *options,
            ],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "SSL_CERT_FILE": str(certificate)},
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
    assert b"2 episodes, 2 valid" in played.stdout, played.stdout


@pytest.mark.parametrize(
    ("scheme", "said"), [("http", b"it speaks TLS: write https://"), ("https", b"set SSL_CERT_FILE=FILE")]
)
async def test_a_rollout_that_cannot_speak_to_it_says_what_to_do(tmp_path, scheme, said):
    certificate, key = make_certificate(tmp_path)
    async with serving(tmp_path, f'[server]\ntls_cert = "{certificate}"\ntls_key = "{key}"\n' + SCORED) as running:
        url = running.url.replace("https", scheme)
        command = [*MUXSIM, "rollout", "--url", url, "--output", "run"]
        tried = await trio.run_process(command, cwd=tmp_path, capture_stderr=True, check=False)
    assert tried.returncode != 0
    assert said in tried.stderr, tried.stderr


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda cert, key: ("--tls-cert", "none.pem", "--tls-key", str(key)), "none.pem: is no certificate"),
        (lambda cert, key: ("--tls-cert", str(cert), "--tls-key", "none.pem"), "none.pem: cannot be read"),
        (lambda cert, key: ("--tls-cert", str(key), "--tls-key", str(cert)), "has mode"),
        (lambda cert, key: ("--tls-cert", str(cert)), "has mode"),
        (lambda cert, key: ("--tls-key", str(key)), "has no certificate beside it"),
        (lambda cert, key: key.chmod(0o644) or ("--tls-cert", str(cert), "--tls-key", str(key)), "has mode 0644"),
        (lambda cert, key: key.write_text("x") and ("--tls-cert", str(cert), "--tls-key", str(key)), "no certificate"),
        (lambda cert, key: other_key(key) and ("--tls-cert", str(cert), "--tls-key", str(key)), "key values mismatch"),
        (lambda cert, key: locked(key) and ("--tls-cert", str(cert), "--tls-key", str(key)), "has a password"),
    ],
)
async def test_a_certificate_that_is_none_is_one_line_and_starts_nothing(tmp_path, spoil, complaint):
    options = spoil(*make_certificate(tmp_path))
    finished = await trio.run_process(
        [*MUXSIM, "serve", "--port", "0", *options, "--", "python3", "nothing.py"],
        cwd=tmp_path,
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    (line,) = finished.stderr.decode().splitlines()
    assert (finished.returncode, finished.stdout) == (2, b"")
    assert complaint in line


def other_key(path):
    (path.parent / "other").mkdir()
    return path.write_bytes(make_certificate(path.parent / "other")[1].read_bytes())


def locked(path):
    (path.parent / "other").mkdir()
    return path.write_bytes(make_certificate(path.parent / "other", b"password")[1].read_bytes())
