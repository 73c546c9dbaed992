"""One session as a rollout sees it, wherever it runs: in this process's own pool or behind a URL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.kept_files import Collect
from muxsim.rollouts.data.trajectory import Control


@dataclass(frozen=True)
class Tool:
    """A tool of the environment: JSON Schema for its arguments."""

    name: str
    description: str
    input_schema: dict[str, Any]

    def for_chat(self) -> dict[str, Any]:
        """The tool in OpenAI's chat format."""
        function = {"name": self.name, "description": self.description, "parameters": self.input_schema}
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class ToolResult:
    """What a tool call gave: MCP content blocks as JSON, and the control plane (None if the server has none).

    ``tools`` are those that there are from now on, where the environment has said that they have changed.
    """

    content: list[dict[str, Any]]
    is_error: bool
    control: Control | None
    structured: Any = None
    seconds: float = 0.0
    control_seconds: float = 0.0
    tools: tuple[Tool, ...] | None = None

    def __repr__(self) -> str:
        kinds = [
            str(block.get("text") if block.get("type") == "text" else f"[{block.get('type')}]")
            for block in self.content
        ]
        reward = "none" if self.control is None or self.control.reward is None else f"{self.control.reward:g}"
        return f"<ToolResult{' error' * self.is_error}: {' '.join(kinds)!r:.120}, reward {reward}>"


class EnvironmentGone(MuxsimError):
    """The session has ended by itself: its backend died. ``stderr`` has its last words."""

    def __init__(self, message: str, *, stderr: Sequence[str] = ()) -> None:
        self.stderr = tuple(stderr)
        super().__init__(message)


class EnvironmentFailed(MuxsimError):
    """The environment runs, and has failed: its step raised, its answer makes no sense, or its control plane is gone.

    ``stderr`` has its last words. No call of its session has an answer any more.
    """

    def __init__(self, message: str, *, stderr: Sequence[str] = ()) -> None:
        self.stderr = tuple(stderr)
        super().__init__(message)


class MachineryFailed(MuxsimError):
    """What stands between a policy and its environment has failed: muxsim, a proxy, the network. Nobody's move."""


class CallTimeout(MuxsimError):
    """A tool call had no answer in time."""


@dataclass(frozen=True)
class Opened:
    """How an environment presents itself after its handshake; times in seconds.

    ``workspace`` is the session's folder, which is there until `Environment.close`; None where it is not on this
    machine. ``collect`` says which files of it a run keeps, if any. In a ``shared`` session others play too.
    """

    instructions: str = ""
    tools: tuple[Tool, ...] = ()
    start_seconds: float = 0.0
    handshake_seconds: float = 0.0
    initial_state: Any = None
    published: bool = False
    workspace: Path | None = None
    collect: Collect | None = None
    shared: bool = False


class Environment(Protocol):
    """A live session. `close` ends it, and must be called."""

    id: str
    env: str
    seed: int
    opened: Opened

    async def call(self, tool: str, arguments: dict[str, Any], *, timeout: float | None = None) -> ToolResult:
        """Call a tool; a tool's own error is a result.

        Raises `EnvironmentGone`, `EnvironmentFailed`, `MachineryFailed` or `CallTimeout`.
        """

    async def earned(self, *, timeout: float | None = None, over: bool = False) -> float | None:
        """What the episode has earned so far; None without a control plane. Raises as `call` does.

        Of one that is ``over`` what its calls have said is held against the environment's own count.
        """

    async def finish(self) -> None:
        """End the session's processes: what is in its workspace is final then, and stays there until `close`.

        Calling it again is harmless.
        """

    async def close(self) -> None:
        """End the session. Calling it again is harmless."""


class EnvironmentPool(Protocol):
    """Where environments come from."""

    @property
    def environments(self) -> tuple[str, ...]:
        """The names that can be opened."""

    async def open(self, env: str, seed: int, *, start_timeout: float | None = None) -> Environment:
        """Start a session and shake hands.

        Raises `UnknownEnvironment`, `StartError`, or `Busy` with the seconds after which to try again.
        """
