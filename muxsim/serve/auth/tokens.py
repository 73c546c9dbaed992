"""Where bearer tokens come from: a file of the user's own, a variable, and an issuer that is asked about them."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from pathlib import Path
from typing import Final

from muxsim.access import AuthSettings, OAuthSettings, is_address
from muxsim.errors import ConfigError
from muxsim.observe.events import Listener, unheard
from muxsim.serve.auth.authenticator import IN_BOTH, Authenticator, Verifier
from muxsim.serve.auth.callers import NamedToken, TokenFault, parse_tokens
from muxsim.serve.auth.failures import FailureLimit
from muxsim.serve.auth.own_environment import take_variable
from muxsim.serve.auth.private_files import open_private

_MOST_BYTES: Final = 2**20


def open_auth(
    settings: AuthSettings | None,
    limit: int,
    environ: MutableMapping[str, str],
    public_url: str = "",
    tell: Listener = unheard,
) -> Authenticator | None:
    """What checks tokens as the config wants it, for clients that find this server at ``public_url``, if it has one.

    None where it wants none.

    The variable of the tokens is taken out of ``environ``, so that no child can inherit it. Raises `ConfigError`.
    """
    if settings is None:
        return None
    verifier = None if settings.oauth is None else _verifier(settings.oauth, public_url, tell)
    file, variable = read_tokens_file(settings), _read_variable(settings, environ)
    if {one.token for one in file} & {one.token for one in variable}:
        raise ConfigError(IN_BOTH, table="server.auth")
    return Authenticator(file, FailureLimit(limit), verifier, variable=variable, tell=tell)


def strangers(names: Iterable[str], auth: Authenticator | None) -> list[str]:
    """Those of these names, of clients whose bounds a config has, that nobody who may call is called by."""
    known = is_address if auth is None else auth.knows
    return [name for name in names if not known(name)]


def _verifier(settings: OAuthSettings, public_url: str, tell: Listener) -> Verifier:
    try:
        from muxsim.serve.auth.oauth import open_oauth  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise ConfigError(
            f"needs what is not installed ({error.name}): pip install 'mcp-muxsim[oauth]'", table="server.auth.oauth"
        ) from None
    return open_oauth(settings, public_url, tell)


def read_tokens_file(settings: AuthSettings) -> list[NamedToken]:
    """The tokens of the config's file. Raises `ConfigError`, which never has a token's text."""
    if not settings.tokens_file:
        return []
    return _parse(_read(Path(settings.tokens_file)), settings.tokens_file)


def _read_variable(settings: AuthSettings, environ: MutableMapping[str, str]) -> list[NamedToken]:
    if not settings.tokens_env:
        return []
    text = take_variable(settings.tokens_env, environ)
    if text is None:
        raise ConfigError(
            f"the variable {settings.tokens_env} is not set: set it to lines of NAME SCOPE[,SCOPE] TOKEN",
            table="server.auth",
            key="tokens_env",
        )
    return _parse(text, f"the variable {settings.tokens_env}")


def _parse(text: str, place: str) -> list[NamedToken]:
    try:
        tokens = parse_tokens(text)
    except TokenFault as fault:
        raise ConfigError(str(fault), file=place) from None
    if not tokens:
        raise ConfigError("has no token: add a line of NAME SCOPE[,SCOPE] TOKEN", file=place)
    return tokens


def _read(path: Path) -> str:
    with open_private(path) as file:
        data = file.read(_MOST_BYTES)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8, see byte {error.start}", file=str(path)) from None
