"""What is being installed just now, as the events tell it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from muxsim.observe.events import Event, InstallFailed, InstallFinished, InstallStarted


@dataclass(frozen=True, slots=True)
class Install:
    """One that runs: what was asked for, and when it began, as `time.monotonic` has it."""

    what: str
    began: float


class Installs:
    """Follows events; ``running`` has the installs by environment, in the order in which they began."""

    def __init__(self) -> None:
        self.running: dict[str, Install] = {}

    def follow(self, event: Event) -> bool:
        """Take an event in; whether that has changed what is running."""
        match event:
            case InstallStarted(env=env, what=what):
                self.running[env] = Install(" ".join(what) or "an environment without packages", time.monotonic())
                return True
            case InstallFinished(env=env) | InstallFailed(env=env):
                return self.running.pop(env, None) is not None
        return False

    def line(self) -> str:
        """All of it in a line for people; empty where nothing is being installed."""
        names = ", ".join(f"{env} ({one.what})" for env, one in self.running.items())
        return f"installing {names}" if names else ""
