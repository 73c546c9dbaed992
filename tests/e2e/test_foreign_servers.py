"""Servers of others, with resources of their own and no control plane, are played as they are."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from cli.terminal import muxsim

pytestmark = [pytest.mark.children, pytest.mark.network]

SERVERS = {
    # Answers for what it does not have as for any other failure: with the code 0, and with the words of an exception.
    "sqlite": ("uvx", "--with", "mcp<2", "mcp-server-sqlite==2025.4.25", "--db-path", "{workspace}/x.db"),
    "memory": ("npx", "-y", "@modelcontextprotocol/server-memory@2026.8.31"),
}


@pytest.mark.parametrize("name", SERVERS)
def test_an_episode_of_a_server_without_a_control_plane_is_valid_and_unscored(tmp_path, monkeypatch, name):
    # The tests' own uv lies beside their interpreter.
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    command, *args = SERVERS[name]
    (tmp_path / "muxsim.toml").write_text(
        f"[environments.{name}]\ncommand = {json.dumps(command)}\nargs = {json.dumps(args)}\nseeded = false\n"
    )
    muxsim(tmp_path, "rollout", "muxsim.toml", "--policy", "random", "--max-steps", "3", "--output", "run")
    [row] = [json.loads(line) for line in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()]
    assert (row["end_reason"], row["valid"], row["total_reward"], len(row["steps"])) == ("max_steps", True, None, 3)
