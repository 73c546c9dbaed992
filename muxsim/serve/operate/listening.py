"""The socket to listen on: where, for whom, and with which certificate; refused before anything starts."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from muxsim.config import ServerSettings
from muxsim.errors import ConfigError, ListenError
from muxsim.serve.auth.addresses import is_loopback
from muxsim.serve.auth.private_files import open_private

_BACKLOG: Final = 2048


class InUse(ListenError):
    """Somebody listens there already."""


@contextmanager
def listening(settings: ServerSettings, *, authenticated: bool) -> Iterator[socket.socket]:
    """A socket that listens as the settings want it. Raises `ListenError` if it cannot or must not be had."""
    where = f"{settings.host}:{settings.port}"
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        if not authenticated:
            refuse_open_door(settings.host, str(address[0]))
        listener = socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        kind = InUse if error.errno == errno.EADDRINUSE else ListenError
        raise kind(
            f"cannot listen on {where}: {error.strerror or error}; choose another --port, or 0 for a free one"
        ) from None
    with listener:
        yield listener


def refuse_open_door(host: str, address: str) -> None:
    """Raise `ListenError` for an address that others than this machine can reach."""
    if not is_loopback(address):
        raise ListenError(
            f"refusing to listen on {host} without authentication: others could start processes here; "
            "give --tokens-file FILE or [server.auth] in the config, or listen on 127.0.0.1"
        )


def server_url(listener: socket.socket, settings: ServerSettings) -> str:
    """Where clients find the server."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{'https' if settings.tls_cert else 'http'}://{host}:{listener.getsockname()[1]}"


def tls_context(settings: ServerSettings) -> ssl.SSLContext | None:
    """What speaks TLS with the certificate of the settings; None where they name none. Raises `ConfigError`."""
    if not settings.tls_cert:
        if settings.tls_key:
            raise ConfigError("has no certificate beside it: name it too (--tls-cert)", table="server", key="tls_key")
        return None
    key = settings.tls_key or settings.tls_cert
    with open_private(Path(key)):
        pass  # only its mode is asked for
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, key, _no_password)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"is no certificate (PEM) that goes with the key {key}: {_reason(error)}",
            file=settings.tls_cert,
        ) from None
    return context


def _no_password() -> str:
    # Without this OpenSSL asks the terminal, and a server stands still.
    raise ConfigError("the TLS key has a password, and muxsim has nobody to ask: take it off (openssl pkey)")


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    return str(reason).lower().replace("_", " ")
