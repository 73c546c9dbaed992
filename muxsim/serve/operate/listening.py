"""The socket to listen on: where, for whom, and with which certificate; refused before anything starts."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from muxsim.config import ServerSettings
from muxsim.errors import ConfigError, InUse, ListenError
from muxsim.serve.auth.addresses import is_loopback
from muxsim.serve.auth.private_files import open_private
from muxsim.serve.operate.unix_socket import listening_at

_BACKLOG: Final = 2048
# Where sd_listen_fds(3) has the descriptors of socket activation begin.
_FIRST_GIVEN: Final = 3


class GivenSocket(socket.socket):
    """One that a service manager has opened, and whose address is not that of the settings."""


@contextmanager
def listening(
    settings: ServerSettings, *, authenticated: bool, environ: MutableMapping[str, str] | None = None
) -> Iterator[socket.socket]:
    """A socket that listens as the settings want it, or the one that ``environ`` says a service manager has opened.

    Raises `ListenError` if it cannot or must not be had.
    """
    if environ is not None and (given := _given(environ)) is not None:
        with given:
            if given.family != socket.AF_UNIX and not authenticated:
                address = str(given.getsockname()[0])
                refuse_open_door(address, address)
            yield given
    elif settings.unix:
        # The file's mode says who may connect: at the most whoever could call on a loopback address as well.
        with listening_at(settings.unix, int(settings.unix_mode, 8), _BACKLOG) as listener:
            yield listener
    else:
        with _listening_at_port(settings, authenticated=authenticated) as listener:
            yield listener


def _given(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The socket of socket activation (sd_listen_fds(3)); None if there is none. Its variables are no child's."""
    said = {name: environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if said["LISTEN_PID"] != str(os.getpid()):
        return None
    if said["LISTEN_FDS"] != "1":
        raise ListenError(f"muxsim serves one socket and was given {said['LISTEN_FDS']}: have one ListenStream= only")
    try:
        given = GivenSocket(fileno=_FIRST_GIVEN)
        listens = given.type == socket.SOCK_STREAM and given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ListenError(f"the socket that muxsim was given is none: {error.strerror}") from None
    if not listens:
        given.close()
        raise ListenError("the socket that muxsim was given does not listen: it must be a ListenStream= with Accept=no")
    given.set_inheritable(False)
    return given


@contextmanager
def _listening_at_port(settings: ServerSettings, *, authenticated: bool) -> Iterator[socket.socket]:
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
    """Where clients find the server: a URL, or ``unix:PATH``."""
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{address}"
    host = str(address[0]) if isinstance(listener, GivenSocket) else settings.host
    host = f"[{host}]" if ":" in host else host
    return f"{'https' if settings.tls_cert else 'http'}://{host}:{address[1]}"


def is_of_this_machine(listener: socket.socket) -> bool:
    """Whether nobody else can reach it."""
    return listener.family == socket.AF_UNIX or is_loopback(listener.getsockname()[0])


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
