"""What tests with real environments share: which they play, how a folder's run is read, and what has to be the same."""

from __future__ import annotations

import json

import msgspec
from harness import ROOT, SERVERS

from muxsim.rollouts.data.run_folder import RunFolder

EXAMPLES = ROOT / "examples" / "muxsim.toml"


def config(folder, **environments):
    """A muxsim.toml of servers: paths by name."""
    file = folder / "muxsim.toml"
    tables = [
        f'[environments.{name}]\ncommand = {json.dumps(str(path))}\nargs = ["--seed", "{{seed}}"]\n'
        for name, path in environments.items()
    ]
    file.write_text("\n".join(tables))
    return file


def treasure(folder):
    return config(folder, treasure_grid=ROOT / "js_servers" / "treasure-grid")


def mixed(folder):
    """Python and JavaScript."""
    return config(
        folder,
        frozen_lake=ROOT / "examples" / "frozen_lake" / "server.py",
        treasure_grid=ROOT / "js_servers" / "treasure-grid",
    )


def dice(folder):
    return config(folder, hidden_dice=SERVERS / "hidden_dice.py")


def told(trajectory):
    """What has to be the same whenever and however an episode is played: everything but sessions and times."""
    steps = [
        {key: value for key, value in msgspec.to_builtins(step).items() if not key.endswith("_seconds")}
        for step in trajectory.steps
    ]
    return {
        "id": trajectory.id,
        "end": trajectory.end_reason.value,
        "reward": trajectory.total_reward,
        "messages": trajectory.messages,
        "tools": trajectory.tools,
        "steps": steps,
        "initial_state": trajectory.initial_state,
    }


def played(folder):
    """A run's episodes, by id."""
    return {trajectory.id: trajectory for trajectory in RunFolder(folder).trajectories()}
