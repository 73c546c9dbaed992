"""What was run: the content of a run's ``config.json``, and how another run differs from it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import msgspec


class RunConfig(msgspec.Struct, kw_only=True, frozen=True):
    """What was run: the content of ``config.json``.

    ``parts`` are what each environment consists of, and a policy and a reward of the user's own (`provenance`),
    ``options`` the settings that shape episodes (``max_steps``, timeouts), ``policy`` describes the policy (``kind``,
    ``model``, ``temperature``). What does not change an episode belongs into ``notes``, which may differ when a run is
    resumed, as may the times, the version, and the paths of files whose content is the same.
    """

    environments: tuple[str, ...]
    policy: dict[str, Any]
    dataset: str = ""
    dataset_sha256: str = ""
    rollouts_per_row: int = 1
    config: str = ""
    config_sha256: str = ""
    url: str = ""
    parts: dict[str, dict[str, str]] = {}
    options: dict[str, Any] = {}
    notes: dict[str, Any] = {}
    muxsim: str = msgspec.field(default_factory=partial(version, "mcp-muxsim"))
    started_at: str = msgspec.field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def success_reward(self) -> float | None:
        """The least reward that counts as a success, of the notes; None where anything above 0 does."""
        value = self.notes.get("success_reward")
        return float(value) if isinstance(value, int | float) else None

    @property
    def planned(self) -> int | None:
        """How many episodes there are to be, of the notes; None where that is not noted."""
        rows = self.notes.get("rollouts")
        return rows * self.rollouts_per_row if isinstance(rows, int) else None

    def going_on_as(self, other: RunConfig) -> RunConfig:
        """The config of a run that is resumed as another: with its notes, and what was noted that it does not tell."""
        told = {name: value for name, value in other.notes.items() if value is not None}
        return msgspec.structs.replace(self, notes={**other.notes, **self.notes, **told})

    def differences(self, other: RunConfig) -> list[str]:
        """Where another run differs in what its episodes are, a line for each: ``options.max_steps was 50, is 100``."""
        ours, theirs = _comparable(self), _comparable(other)
        names = sorted(ours.keys() | theirs.keys())
        changed = [
            f"{name} was {_shown(ours.get(name))}, is {_shown(theirs.get(name))}"
            for name in names
            if ours.get(name) != theirs.get(name)
        ]
        known = sorted(self.parts.keys() & other.parts.keys())
        return changed + [change for name in known for change in _moved(name, self.parts[name], other.parts[name])]

    def not_compared(self, other: RunConfig) -> list[str]:
        """The environments of which nobody can tell here whether they are the same: what they consist of is not known.

        A serving muxsim does not tell it, and one of an older version has not written it down.
        """
        return [name for name in self.environments if name not in self.parts or name not in other.parts]


# Of `parts` only what both know is compared, see `RunConfig.not_compared`.
_MAY_DIFFER: Final = frozenset({"notes", "muxsim", "started_at", "dataset", "config", "parts"})


def _comparable(config: RunConfig) -> dict[str, Any]:
    """A config as JSON, flat by one level: ``policy.model``, ``options.max_steps``."""
    flat: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(config).items():
        if isinstance(value, dict):
            of_today = {f"{name}.{key}": _of_today(item) for key, item in _of_today(value).items()}
            flat.update(of_today if name not in _MAY_DIFFER else {})
        elif name not in _MAY_DIFFER:
            flat[name] = value
    return flat


def _of_today(value: Any) -> Any:
    """A value without the hash of a policy's or a reward's own module, which older versions had there."""
    return {key: item for key, item in value.items() if key != "source_sha256"} if isinstance(value, dict) else value


def _moved(name: str, before: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    """What is another than it was of an environment, a policy or a reward."""
    for part in sorted(before.keys() | now.keys()):
        if before.get(part) == now.get(part):
            continue
        if part not in now:
            yield f"{name}: {part} is not there any more"
        elif part.startswith("package "):
            yield f"{name}: {part} was {before.get(part, 'not there')}, is {now[part]}"
        else:
            yield f"{name}: {part} {'has changed' if part in before else 'is new'}"


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()
