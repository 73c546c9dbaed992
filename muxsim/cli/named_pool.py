"""The pool that a command line names: of a config, or of a muxsim that serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from muxsim.cli.notes import tell_notes
from muxsim.cli.options import Remote
from muxsim.config import load
from muxsim.errors import MuxsimError
from muxsim.observe.events import Listener
from muxsim.rollouts.environments.pool import LocalPool, open_pool
from muxsim.rollouts.environments.remote import RemotePool, connect
from muxsim.runtime.descriptors import raise_limit

NamedPool = LocalPool | RemotePool


@asynccontextmanager
async def named_pool(
    config: Path | None,
    remote: Remote,
    max_sessions: int,
    on_event: Listener | None = None,
    *,
    hidden: Iterable[Path] = (),
) -> AsyncIterator[NamedPool]:
    """The pool for the length of a block; ``on_event`` is told of sessions that run here.

    Under Landlock these read nothing that is ``hidden``.
    """
    token = remote.take_token()
    if remote.url:
        if remote.locked:
            raise MuxsimError("--locked is about what is installed here, and --url about a muxsim that serves already")
        async with connect(remote.url, wire=remote.transport, max_sessions=max_sessions, token=token) as served:
            yield served
        return
    assert config is not None
    loaded = load(config, locked=remote.locked)
    tell_notes(loaded)
    async with open_pool(loaded, max_sessions=max_sessions, on_event=on_event, hidden=hidden) as pool:
        raise_limit()
        yield pool
