"""What is wanted of a start, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from muxsim.processes.enclosure import Enclosure
from muxsim.processes.process import Process
from muxsim.spec import EnvSpec, Launch


@dataclass(frozen=True, slots=True)
class Order:
    """A process for one session of an environment, whose ``spec`` is prepared and says how it is confined."""

    spec: EnvSpec
    seed: int
    session: str
    workspace: Path | None = None
    """The session's folder, where it has one from a process before; else one is made."""

    @property
    def template(self) -> str:
        """The folder that its own begins as, "" for none."""
        return self.spec.template(seed=self.seed, session_id=self.session)

    def launch(self, workspace: str, environ: Mapping[str, str]) -> Launch:
        """What to execute in this folder; ``environ`` is muxsim's own environment."""
        return self.spec.launch(seed=self.seed, session_id=self.session, workspace=workspace, environ=environ)


@dataclass(frozen=True, slots=True)
class Started:
    """A process that is what was ordered, what encloses it, and its folder."""

    process: Process
    enclosure: Enclosure
    workspace: Path
    on_message: Callable[[], bool] | None = None
    """What is to be called with each thing that it says, until that returns False."""
