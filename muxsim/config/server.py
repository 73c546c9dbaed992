"""The server's own table: how muxsim serves, to whom, and what environments start from."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from muxsim.access import AuthSettings, ClientBounds, OAuthSettings, fault_of_client
from muxsim.config.commands import absolute
from muxsim.config.environments import Defaults
from muxsim.config.model import ServerSettings
from muxsim.config.table import Table, advise, shown
from muxsim.spec import EnvSpec
from muxsim.values import (
    AUTH_KEYS,
    CLIENT_KEYS,
    CONFINEMENT_KEYS,
    LIMIT_KEYS,
    OAUTH_KEYS,
    SERVER_KEYS,
    TEXT,
    URL,
    AnyKind,
)


def read_server(table: Table) -> tuple[ServerSettings, Defaults, str | None]:
    """The server's settings, the limits that environments start from, and the default's name."""
    known: dict[str, AnyKind] = {**SERVER_KEYS, **LIMIT_KEYS, **CONFINEMENT_KEYS, "default": TEXT}
    table.know((*known, "auth", "clients"))
    values = _with_paths(table.read(known, others=True), table.folder, "tls_cert", "tls_key", "unix")
    settings = ServerSettings(**{key: value for key, value in values.items() if key in SERVER_KEYS})
    return settings, Defaults().changed(values, table.folder), values.get("default")


def read_clients(server: Table, auth: AuthSettings | None) -> dict[str, ClientBounds]:
    """What single clients may have, by a principal's name or an address; ``auth`` says whose tokens are taken."""
    table = server.table("clients")
    issuer = None if auth is None or auth.oauth is None else auth.oauth.issuer
    for name in table.values:
        if fault := fault_of_client(name, issuer):
            raise table.error(shown(name), fault)
    return {name: ClientBounds(**table.table(name).read(CLIENT_KEYS)) for name in table.values}


def read_auth(server: Table) -> AuthSettings | None:
    """Who may call; None where the table says nothing of it."""
    if server.values.get("auth") is None:
        return None
    table = server.table("auth")
    # Without values: who writes a token into this file, where none belongs, does not want it told in a message.
    replace(table, values=dict.fromkeys(table.values)).know((*AUTH_KEYS, "oauth"))
    values = _with_paths(table.read(AUTH_KEYS, others=True), table.folder, "tokens_file")
    settings = AuthSettings(**values, oauth=_read_oauth(table))
    if settings == AuthSettings():
        raise server.error("auth", "names no tokens: add tokens_file, tokens_env or oauth, or take the table out")
    return settings


def _read_oauth(auth: Table) -> OAuthSettings | None:
    """Who may call; None where the table says nothing of it."""
    if auth.values.get("oauth") is None:
        return None
    table = auth.table("oauth")
    replace(table, values=dict.fromkeys(table.values)).know(OAUTH_KEYS)
    values = table.read(OAUTH_KEYS)
    for key in ("issuer", "audience", "jwks"):
        if key not in values:
            raise table.error(key, "is missing: name the issuer, the audience and the jwks (a URL or a file)")
    if not URL.match(values["jwks"]):
        values = _with_paths(values, table.folder, "jwks")
    return OAuthSettings(**values)


def _with_paths(values: dict[str, Any], folder: Path, *keys: str) -> dict[str, Any]:
    """The values with the paths under these keys absolute."""
    return {key: absolute(value, folder) if key in keys else value for key, value in values.items()}


def read_default(server: Table, name: str | None, specs: Mapping[str, EnvSpec]) -> str | None:
    """The environment for clients that name none: the one that ``name`` is, or the only one."""
    if name is None:
        return next(iter(specs)) if len(specs) == 1 else None
    if name not in specs:
        raise server.error("default", f"is no environment of this file: {advise(name, specs)}")
    return name
