"""Runs in a browser: ``muxsim view --serve``, and ``muxsim rollout --watch``."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from muxsim.cli.options import Watch
from muxsim.errors import MuxsimError
from muxsim.rollouts.view.following import FollowedRun
from muxsim.rollouts.view.playing import Playing

if TYPE_CHECKING:  # a rollout that nobody watches needs no HTTP server
    from muxsim.rollouts.view.serving import RunsServer


def serve_runs(paths: Sequence[Path], port: int) -> None:
    """Show runs, each as it is and becomes, until a signal comes. Raises `MuxsimError`."""
    from muxsim.rollouts.view.serving import RunsServer  # noqa: PLC0415

    runs = [FollowedRun(str(number), path) for number, path in enumerate(paths, 1)]
    server = RunsServer(port)
    for run in runs:
        server.show(run)
    _tell(server)
    server.run()


class Shown:
    """The run of this process in a browser, or not; `watching` makes it."""

    def __init__(self, server: RunsServer | None) -> None:
        self._server = server
        self._playing = Playing()

    @property
    def watchers(self) -> list[Playing]:
        """Who has to be told how the episodes go on."""
        return [self._playing] if self._server else []

    def begin(self, path: Path) -> None:
        """The run has its folder. Raises `MuxsimError`."""
        if self._server is not None:
            self._server.show(FollowedRun("1", path, self._playing))
            _tell(self._server)


@contextmanager
def watching(watch: Watch) -> Iterator[Shown]:
    """Show the run of a block, if that is asked for; behind it until Ctrl-C if that is too. Raises `MuxsimError`."""
    if not watch.watch:
        if watch.stay or watch.watch_port:
            raise MuxsimError("--stay and --watch-port go with --watch")
        yield Shown(None)
        return
    from muxsim.rollouts.view.serving import RunsServer  # noqa: PLC0415

    server = RunsServer(watch.watch_port)
    with server.beside():
        yield Shown(server)
        if watch.stay:
            print(f"muxsim: the run is over; its page is there until Ctrl-C: {server.url}", file=sys.stderr)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()


def _tell(server: RunsServer) -> None:
    """Say where the page is, and open it for who sits before this screen."""
    print(f"muxsim: look at {server.url}", file=sys.stderr, flush=True)
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if screen and sys.stdin.isatty():
        webbrowser.open(server.url)
