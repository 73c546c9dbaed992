"""A `muxsim` that puts another backend under each of its sessions at SIGUSR1, for which there is no command."""

import signal

import trio

from muxsim.cli import main
from muxsim.session import registry


class Replacing(registry.Sessions):
    """Sessions whose backends are all replaced at the signal."""

    def __init__(self, pool, specs, events, nursery):
        super().__init__(pool, specs, events, nursery)
        token = trio.lowlevel.current_trio_token()
        signal.signal(signal.SIGUSR1, lambda *_: token.run_sync_soon(self._replace))

    def _replace(self):
        for session in self.all():
            self._nursery.start_soon(session.replace_backend)


registry.Sessions = Replacing

if __name__ == "__main__":
    main()
