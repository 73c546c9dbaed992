"""Where a script's environments are: what ``make`` was given, read."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from muxsim.config import load
from muxsim.errors import UnknownEnvironment
from muxsim.rollouts.environments.environment import EnvironmentPool
from muxsim.rollouts.environments.pool import open_pool
from muxsim.rollouts.environments.remote import connect

_UNIX: Final = "unix:"
# The paths under which muxsim serves MCP: scripts have one of them.
_PATH: Final = re.compile(r"(?P<base>.*?)(?:/envs/(?P<env>[^/]+))?(?:/agent)?(?:/mcp)?/*")


@dataclass(frozen=True)
class Place:
    """``open`` gives the pool for the length of a block; ``env`` is "" where it has only one."""

    name: str
    env: str
    open: Callable[[], AbstractAsyncContextManager[EnvironmentPool]]


def place_of(spec: Any, token: str | None = None) -> Place:
    """Read what `make` was given: a URL of muxsim, ``CONFIG#ENVIRONMENT``, or a pool that is open.

    Raises ValueError: it is none of these. Whether it is there is known when it is opened.
    """
    if hasattr(spec, "open") and hasattr(spec, "environments"):
        return Place(repr(spec), "", lambda: nullcontext(spec))
    text = str(spec)
    if text.startswith(("http://", "https://")):
        return _served(text, token)
    where, _, env = text.partition("#")
    if text.startswith(_UNIX):
        return Place(text, env, lambda: connect(where, token=token))
    if not where or not Path(where).is_file():
        missing = f"; there is no file {where!r}" if where else ""
        raise ValueError(
            f"{text!r} is neither a URL (http://127.0.0.1:8000/envs/frozen_lake/mcp) nor a config with an environment "
            f"(examples/muxsim.toml#frozen_lake){missing}"
        )
    path = Path(where).absolute()  # as it is now, wherever the program goes before it plays
    return Place(text, env, lambda: _local(path, env))


def _served(url: str, token: str | None) -> Place:
    parts = urlsplit(url)
    match = _PATH.fullmatch(parts.path)
    assert match is not None  # it takes any path
    named = [unquote(match["env"] or ""), *parse_qs(parts.query).get("env", []), unquote(parts.fragment)]
    names = {name for name in named if name}
    if len(names) > 1:
        raise ValueError(f"{url!r} names several environments: {', '.join(sorted(names))}")
    base = parts._replace(path=match["base"], query="", fragment="").geturl()
    return Place(url, next(iter(names), ""), lambda: connect(base, token=token))


def _local(path: Path, env: str) -> AbstractAsyncContextManager[EnvironmentPool]:
    config = load(path)
    name = env or config.default
    if name is not None and name not in config.environments:
        raise UnknownEnvironment(f"{path} has no environment {name!r}; there are: {', '.join(config.environments)}")
    if name is not None:  # none of the others is kept ready then
        config = replace(config, environments={name: config.environments[name]}, default=name)
    return open_pool(config)
