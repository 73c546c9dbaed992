"""What people have written into their desktop's config file works as it stands, in both directions."""

import json
import os
import sys
from pathlib import Path

import httpx2
import pytest
import trio
from harness import serving
from mcp import Client, StdioServerParameters

from .conftest import HERE
from .games import CONTROL, EXAMPLES, GRID, LAKE, play
from .python_clients import DEADLINE
from .ts_clients import by_command, install_clients, run_client

pytestmark = pytest.mark.children

# What the README tells people to write, but for the path.
DESKTOP_CONFIG = """
{
  "mcpServers": {
    "lake": {
      "command": "muxsim",
      "args": ["stdio", "%s", "--env", "frozen_lake", "--seed", "7"]
    }
  }
}
"""


@pytest.fixture
def entry(tmp_path, monkeypatch):
    """The entry, as a desktop reads it; muxsim is on its PATH."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    file = tmp_path / "claude_desktop_config.json"
    file.write_text(DESKTOP_CONFIG % EXAMPLES)
    return json.loads(file.read_text())["mcpServers"]["lake"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_desktop_plays_by_its_entry(entry, references, mode):
    with trio.fail_after(DEADLINE):
        async with Client(StdioServerParameters(**entry, cwd="/"), mode=mode) as client:
            assert await play(client, LAKE) == references[LAKE.env]


@pytest.mark.network
async def test_a_desktop_written_in_typescript_plays_by_its_entry(entry, references):
    install_clients()
    asking = ["--tool", LAKE.tool, "--arguments", json.dumps(LAKE.calls), "--meta", json.dumps({CONTROL: True})]
    where = by_command([entry["command"], *entry["args"]])
    report = await run_client("play", ("v1", "legacy"), where, *asking)
    assert report["ok"], report
    assert report["result"] == references[LAKE.env]


def served_config():
    """A desktop's file with two servers, one that it has switched off, and a little for muxsim."""
    return {
        "globalShortcut": "Ctrl+Space",
        "mcpServers": {
            "grid": {
                "command": GRID.server[0],
                "args": [GRID.server[1], "--seed", "{seed}"],
                "muxsim": {"idle_timeout": 600},
            },
            "recorder": {
                "command": "python3",
                "args": ["-I", "-S", str(HERE / "servers" / "recorder.py")],
                "env": {"LANG": "C.UTF-8"},
                "muxsim": {"shared": True},
            },
            "remote": {"url": "https://mcp.example.org/mcp", "disabled": True},
        },
        "muxsim": {"default": "grid", "max_sessions": 1, "max_pending": 1, "queue_timeout": 1.0},
    }


async def test_a_desktops_file_can_be_served_as_it_is(tmp_path, references):
    file = tmp_path / "claude_desktop_config.json"
    file.write_text(json.dumps(served_config()))
    with trio.fail_after(DEADLINE):
        async with serving(tmp_path, file) as running, httpx2.AsyncClient() as http:
            listed = (await http.get(f"{running.url}/envs")).json()
            assert listed["default"] == "grid"
            assert {env["name"]: env["shared"] for env in listed["environments"]} == {"grid": False, "recorder": True}
            async with Client(f"{running.url}/mcp?seed={GRID.seed}", mode="legacy") as client:
                assert await play(client, GRID) == references[GRID.env]
                refused = await http.post(f"{running.url}/sessions", json={"env": "grid"})
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) >= 1
            async with Client(f"{running.url}/envs/recorder/mcp") as client:
                assert (await client.call_tool("echo", {"text": "next"})).content[0].text == "next"
