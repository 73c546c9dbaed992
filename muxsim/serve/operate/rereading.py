"""The config and its tokens, read again while everything else goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import trio

from muxsim.config import Config
from muxsim.config.table import shown
from muxsim.errors import ConfigError
from muxsim.observe.events import ConfigNote, Events
from muxsim.serve.auth.authenticator import Authenticator
from muxsim.serve.auth.callers import NamedToken
from muxsim.serve.auth.tokens import read_tokens_file, strangers
from muxsim.serve.operate.inspection import refuse_reload
from muxsim.serve.operate.operations import same_sources

# Seconds. Hundreds of environments take one or two on a busy machine; a pipe, or a lost share, takes for ever.
LIMIT: Final = 30.0
# Threads that still wait for a file that was given up; by then there is another in its place.
_MOST_HANGING: Final = 8


class Rereading:
    """Reads what ``reread`` returns, in a thread; it may be used if a muxsim that began with ``begun_with`` may."""

    def __init__(
        self, reread: Callable[[], Config], begun_with: Config, auth: Authenticator | None, events: Events
    ) -> None:
        self._reread = reread
        self._begun_with = begun_with
        self._auth = auth
        self._events = events
        self._readers = trio.CapacityLimiter(_MOST_HANGING)

    async def read(self, now: Config) -> Config:
        """The config as it stands in its file, and the tokens in theirs, in place of what is in use ``now``.

        Raises `ConfigError` as a start does.
        """
        with trio.move_on_after(LIMIT):
            config, tokens = await trio.to_thread.run_sync(
                self._read, now, abandon_on_cancel=True, limiter=self._readers
            )
            for note in config.notes:
                self._events.emit(ConfigNote(note))
            if self._auth is not None and tokens is not None:
                self._auth.stage(tokens)
            tell_strangers(config, self._auth, self._events)
            return config
        raise ConfigError(f"could not be read within {LIMIT:g} s, nor the files that it names", file=str(now.file))

    def _read(self, now: Config) -> tuple[Config, list[NamedToken] | None]:
        config = self._reread()
        refuse_reload(config, self._begun_with, now, os.environ)
        # Other sources of tokens need a restart, but for another file.
        if config.auth is None or not same_sources(config.auth, self._begun_with.auth):
            return config, None
        return config, read_tokens_file(config.auth)


def tell_strangers(config: Config, auth: Authenticator | None, events: Events) -> None:
    """No fault, for a token that is taken back must not keep muxsim from starting."""
    for name in strangers(config.clients, auth):
        calls = "from an address that is so written" if auth is None else "with a token of that name"
        events.emit(ConfigNote(f"[server.clients.{shown(name)}] bounds nobody: nobody calls {calls}"))
