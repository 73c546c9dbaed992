"""What ``muxsim serve`` prints when it is ready."""

from __future__ import annotations

import os
import secrets
import shlex
import sys

from muxsim import __version__
from muxsim.serve.operate.host import Serving


def announce(serving: Serving) -> None:
    """Print the URLs and the environments, the address it listens on in the first line, for scripts to read."""
    config = serving.config
    socket = serving.url.removeprefix("unix:") if serving.url.startswith("unix:") else ""
    local = f"{'https' if config.server.tls_cert else 'http'}://localhost"
    url = config.server.public_url or (local if socket else serving.url)
    width = max(len(name) for name in config.environments)
    lines = [
        f"muxsim {__version__} is ready on {serving.url}",
        "",
        "  environments",
        *(
            f"    {spec.name:{width}}  {url}/envs/{spec.name}/mcp{'  (shared)' if spec.shared else ''}"
            for spec in config.environments.values()
        ),
        "",
        f"  streamable HTTP  {url}/mcp?env=<name>&seed=<n>",
        f"  SSE              {url}/sse?env=<name>&seed=<n>",
        f"  one episode      {url}/s/{secrets.token_hex(16)}/mcp?env=<name>&seed=<n>",
        f"  dashboard        {url}/ in a browser",
        f'  sessions         POST {url}/sessions  {{"env": …, "seed": …}}',
        *([f"  over the socket  curl --unix-socket {shlex.quote(socket)} {local}/envs"] if socket else []),
        *(["  with a token     Authorization: Bearer <token>"] if config.auth else []),
        "",
        "  Ctrl-C stops.",
    ]
    try:
        print("\n".join(lines), flush=True)
    except OSError:
        # A full disk, say: it serves all the same, and does not try again at its end.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
