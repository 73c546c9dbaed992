"""What a config is served with: its tokens, certificate and address, and all that `muxsim serve --check` looks at."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from typing import Final

from muxsim.config import Config, ServerSettings
from muxsim.doctor.findings import Finding, there
from muxsim.errors import ConfigError
from muxsim.serve.auth.tokens import read_tokens_file
from muxsim.serve.operate.inspection import faults
from muxsim.serve.operate.listening import tls_context

_AREA: Final = "config"
# More than a handshake has messages.
_TURNS: Final = 10


async def examine_served(config: Config, environ: Mapping[str, str]) -> list[Finding]:
    """What is there, and a finding for each thing that a start would refuse."""
    found = [*_tokens(config), *_certificate(config.server)]
    told = {one.found for one in found}
    more = [unfit("start", problem) for problem in await faults(config, environ) if problem not in told]
    if all(one.state == "ok" for one in (*found, *more)):
        where = f"unix:{config.server.unix}" if config.server.unix else f"{config.server.host}:{config.server.port}"
        count = len(config.environments)
        environments = f"{count} environment{'' if count == 1 else 's'}"
        found.append(there(_AREA, "start", f"{environments}, served on {where}: nothing stands in the way"))
    return [*found, *more]


def unfit(name: str, problem: str) -> Finding:
    """Something in a config that keeps it from being served; the problem says what to do."""
    return Finding(area=_AREA, name=name, state="error", found=problem)


def _tokens(config: Config) -> Iterator[Finding]:
    if config.auth is None or not config.auth.tokens_file:
        return
    try:
        tokens = read_tokens_file(config.auth)
    except ConfigError as error:
        yield unfit("tokens", str(error))
    else:
        whose = ", ".join(dict.fromkeys(one.name for one in tokens))
        yield there(_AREA, "tokens", f"of {whose} in {config.auth.tokens_file}, closed to others")


def _certificate(settings: ServerSettings) -> Iterator[Finding]:
    try:
        context = tls_context(settings)
    except ConfigError as error:
        yield unfit("certificate", str(error))
        return
    if context is not None:
        try:
            yield there(_AREA, "certificate", f"{settings.tls_cert}, good until {_good_until(context, settings)}")
        except ssl.SSLCertVerificationError as error:
            lost, advice = "clients refuse it", "get a new one; a reload does not take it, a restart does"
            found = f"{settings.tls_cert}: {error.verify_message}"
            yield Finding(area=_AREA, name="certificate", state="error", found=found, lost=lost, advice=advice)


def _good_until(server: ssl.SSLContext, settings: ServerSettings) -> str:
    """What a client that trusts the certificate is told. Raises SSLCertVerificationError for one that is over."""
    client = ssl.create_default_context(cafile=settings.tls_cert)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    sides = (asking, server.wrap_bio(to_server, to_client, server_side=True))
    for turn in range(_TURNS):
        try:
            sides[turn % 2].do_handshake()
        except ssl.SSLWantReadError:
            continue
    return str((asking.getpeercert() or {}).get("notAfter", "nobody knows when"))
