"""Whole servers of reward-kit's users as child processes: as they are, and with their imports changed."""

import json
import os
import shutil
import sys

import pytest
from cli.terminal import muxsim

from mcpgym.children import SERVERS, on_pipes, played
from muxsim.mcpgym.reward_kit.__main__ import main

pytestmark = pytest.mark.children

OLD_LAKE = SERVERS / "old_lake"
ASK = {"muxsim/control": True}


def as_it_is(server, *, seed):
    return ["-m", "muxsim.mcpgym.reward_kit", str(server), "--seed", seed]


def test_a_server_as_it_is_is_fit_for_rollouts(tmp_path):
    file = tmp_path / "muxsim.toml"
    arguments = json.dumps(as_it_is(OLD_LAKE / "server.py", seed="{seed}"))
    file.write_text(f"[environments.lake]\ncommand = {json.dumps(sys.executable)}\nargs = {arguments}\n")
    finished = muxsim(tmp_path, "check", "lake", "--config", str(file), "--json", "--steps", "3")
    report = json.loads(finished.stdout)
    assert [one for one in report["findings"] if one.get("ok") is False] == []
    assert report["fit"]


async def test_control_resources_of_a_servers_own_reach_the_trainer():
    async with played(*as_it_is(SERVERS / "resource_lake.py", seed="42")) as client:
        result = await client.call_tool("lake_move", {"action": "DOWN"}, meta=ASK)
        assert json.loads(result.content[0].text)["position"] == 4
        [status] = (await client.read_resource("control://status")).contents
        assert json.loads(status.text)["step"] == 1


async def test_with_its_imports_changed_a_server_runs_by_itself_over_stdio(tmp_path):
    shutil.copytree(OLD_LAKE, tmp_path / "lake")
    for file in (tmp_path / "lake").glob("*.py"):
        text = file.read_text()
        for old in ("mcp.server.fastmcp", "reward_kit.mcp.adapter", "reward_kit.mcp.mcpgym", "reward_kit.mcp"):
            text = text.replace(f"from {old} import", "from muxsim.mcpgym.reward_kit import")
        file.write_text(text)
    async with played(tmp_path / "lake" / "server.py", "--seed", "42") as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["lake_move"]
        result = await client.call_tool("lake_move", {"action": "down"}, meta=ASK)
        assert json.loads(result.content[0].text)["position"] == 4
        assert result.meta["muxsim/control"]["reward"] == 0.0


async def test_what_a_server_prints_while_it_plays_is_not_on_its_wire():
    async with on_pipes(
        *as_it_is(OLD_LAKE / "server.py", seed="42"), env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as server:
        await server.shake_hands()
        params = {"name": "lake_move", "arguments": {"action": "DOWN"}}
        await server.send({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        assert (await server.receive())["id"] == 1
        assert await server.end() == (b"", 0)
        assert [json.loads(line)["id"] for line in server.lines] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "says"), [([], "usage: "), (["nowhere.py"], "there is no file nowhere.py"), (["-x"], "usage: ")]
)
def test_a_script_that_is_not_there_is_named(arguments, says):
    with pytest.raises(SystemExit, match=says):
        main(arguments)
