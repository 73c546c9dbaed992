"""What would keep muxsim from starting, or from serving as its config has it, found without starting anything."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from muxsim.access import AuthSettings
from muxsim.config import Config, ServerSettings
from muxsim.errors import ConfigError, InUse, ListenError, NotRunning
from muxsim.observe.tracing import check_tracing
from muxsim.provision.preflight import problems, refused_views, try_enclosures
from muxsim.serve.auth.tokens import open_auth, read_tokens_file
from muxsim.serve.operate import running
from muxsim.serve.operate.listening import listening, tls_context
from muxsim.serve.operate.operator_socket import refuse_unreachable


async def faults(config: Config, environ: Mapping[str, str]) -> list[str]:
    """A sentence for each thing that a start refuses, and that would fail every session; [] if nothing would."""
    settings, specs = config.server, config.environments.values()
    found = [*problems(specs, environ), *await refused_views(specs)]
    for step in (
        # With a copy: the variable of the tokens is taken out of it.
        lambda: open_auth(config.auth, settings.max_failures, dict(environ), settings.public_url),
        lambda: tls_context(settings),
        lambda: check_tracing(settings.tracing),
        lambda: _try_listening(settings, authenticated=config.auth is not None),
        lambda: try_enclosures(specs, settings.cgroup),
        lambda: refuse_unreachable() if settings.operator_socket == "required" else None,
    ):
        try:
            step()
        except (ConfigError, ListenError) as error:
            found.append(str(error))
    return found


def refuse_reload(config: Config, begun_with: Config, now: Config, environ: Mapping[str, str]) -> None:
    """Raise `ConfigError` for a config that a serving muxsim must not take: a restart, or each session, would fail.

    An environment is looked at if it is not as it is ``now``: one that has failed all along must not keep a token from
    being taken back. Where tokens come from a variable, that of ``begun_with`` has been read, and is there no more.
    """
    before = begun_with.auth
    changed = [spec for name, spec in config.environments.items() if now.environments.get(name) != spec]
    if found := problems(changed, environ):
        raise ConfigError("; ".join(found))
    tls_context(config.server)
    check_tracing(config.server.tracing)
    if config.auth is not None:
        read_tokens_file(config.auth)
        if before is None or config.auth.oauth != before.oauth:
            open_auth(_without_variable(config.auth), 1, {}, config.server.public_url)


def _without_variable(auth: AuthSettings) -> AuthSettings:
    return AuthSettings(tokens_file=auth.tokens_file, oauth=auth.oauth)


def _try_listening(settings: ServerSettings, *, authenticated: bool) -> None:
    try:
        with listening(settings, authenticated=authenticated):
            pass
    except InUse:
        # A check is made beside the muxsim that is to read the config again, too: that one has the port by right.
        if not _is_served(settings):
            raise


def _is_served(settings: ServerSettings) -> bool:
    """Whether a muxsim of this user's has the port, or the socket."""
    urls = []
    for one in running.find_running():
        with contextlib.suppress(OSError, NotRunning):
            urls.append(one.ask("status").get("url", ""))
    if settings.unix:
        return f"unix:{settings.unix}" in urls
    return any(url.rpartition(":")[2] == str(settings.port) for url in urls)
