"""Why nothing of muxsim answers at a URL, in words that say what to do; of TLS above all. Runs on trio and asyncio."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Final

import anyio
import anyio.abc
import httpx2

from muxsim.rollouts.environments.wires import CONNECT_TIMEOUT, why

# What OpenSSL calls faults of a certificate (X509_V_ERR_…), which Python has no names for.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_SIGNED_BY_ITSELF: Final = frozenset({18, 19})
_SIGNED_BY_A_STRANGER: Final = frozenset({2, 20, 21})
_OTHER_NAME: Final = frozenset({62, 64})

_TRUST: Final = "set SSL_CERT_FILE=FILE to the certificate, or that of whoever signed it (PEM), if you trust it"
_PROBE: Final = b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def why_unreachable(url: str, error: httpx2.HTTPError) -> str:
    """Why a request to ``url`` got no answer. Looks whether the other side speaks the other one of HTTP and HTTPS."""
    parsed = httpx2.URL(url)
    fault = next((one for one in _chain(error) if isinstance(one, ssl.SSLError)), None)
    if isinstance(fault, ssl.SSLCertVerificationError):
        return _of_certificate(fault, parsed.host)
    if parsed.scheme == "https" and not isinstance(error, httpx2.TimeoutException) and await _speaks_http(parsed):
        return f"it speaks plain HTTP, without TLS: write {_with_scheme(parsed, 'http')}"
    if parsed.scheme == "http" and not isinstance(error, httpx2.ConnectError) and await _speaks_tls(parsed):
        return f"it speaks TLS: write {_with_scheme(parsed, 'https')}"
    if fault is not None:
        return f"TLS failed: {_in_words(fault)}"
    return why(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, and what it came of."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


def _of_certificate(fault: ssl.SSLCertVerificationError, host: str) -> str:
    code = fault.verify_code
    if code in _OTHER_NAME:
        return f"its certificate is not for {host!r}: use a name or address that it is made for"
    if code == _EXPIRED:
        return "its certificate has expired: whoever runs it needs a new one"
    if code == _NOT_YET_VALID:
        return "its certificate is not valid yet: is the clock of this machine right?"
    if code in _SIGNED_BY_ITSELF:
        return f"its certificate is signed by itself, and not trusted here: {_TRUST}"
    if code in _SIGNED_BY_A_STRANGER:
        return f"its certificate is signed by somebody who is not trusted here: {_TRUST}"
    return f"its certificate is not accepted: {fault.verify_message}"


def _in_words(fault: ssl.SSLError) -> str:
    return fault.reason.replace("_", " ").lower() if fault.reason else str(fault)


def _with_scheme(url: httpx2.URL, scheme: str) -> str:
    return str(url.copy_with(scheme=scheme, port=_port(url), raw_path=b"/")).rstrip("/")


def _port(url: httpx2.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


async def _speaks_http(url: httpx2.URL) -> bool:
    """Whether what listens there answers in plain HTTP; no token goes there for that."""
    with anyio.move_on_after(CONNECT_TIMEOUT):
        try:
            async with await anyio.connect_tcp(url.host, _port(url)) as stream:
                await stream.send(_PROBE)
                return (await stream.receive(16)).startswith(b"HTTP/")
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
            return False
    return False


async def _speaks_tls(url: httpx2.URL) -> bool:
    """Whether what listens there shakes hands for TLS, with whatever certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with anyio.move_on_after(CONNECT_TIMEOUT):
        try:
            stream = await anyio.connect_tcp(
                url.host, _port(url), ssl_context=context, tls_hostname=url.host, tls_standard_compatible=False
            )
        except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
            return False
        await anyio.aclose_forcefully(stream)
        return True
    return False
