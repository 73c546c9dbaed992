"""Servers from the npm registry, unmodified: named by npx in the config, run by node alone."""

import json
from pathlib import Path

import pytest
import trio
from harness import serving

from .conftest import SERVERS, Gateway
from .python_clients import DEADLINE, connected
from .ts_clients import gathered

pytestmark = [pytest.mark.children, pytest.mark.network]

# Nothing listens on that port.
UNREACHABLE = {"npm_config_registry": "http://127.0.0.1:9", "npm_config_fetch_retries": "0"}
# npm downloads three packages, on a machine that may be busy with other tests.
INSTALL_LIMIT = 150


async def use_everything(client):
    sum_of = await client.call_tool("get-sum", {"a": 2, "b": 40})
    image = await client.call_tool("get-tiny-image")
    prompts = await client.list_prompts()
    return {
        "server": client.server_info.name,
        "sum": sum_of.content[0].text,
        "image": [block.type for block in image.content],
        "prompts": len(prompts.prompts),
    }


async def use_filesystem(client):
    (workspace,) = (await _text(client, "list_allowed_directories")).splitlines()[1:]
    await _text(client, "write_file", path=f"{workspace}/deep.txt", content="snow ☃")
    outside = await client.call_tool("read_text_file", {"path": "/etc/hostname"})
    return {
        "server": client.server_info.name,
        "read": await _text(client, "read_text_file", path=f"{workspace}/deep.txt"),
        "listed": await _text(client, "list_directory", path=workspace),
        "outside": outside.is_error,
        "is the session's own": Path(workspace).name.startswith("filesystem-"),
    }


async def use_memory(client):
    ada = {"name": "Ada", "entityType": "person", "observations": ["wrote the first program"]}
    await _text(client, "create_entities", entities=[ada])
    return {"server": client.server_info.name, "graph": json.loads(await _text(client, "read_graph"))}


async def _text(client, tool, **arguments):
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    return result.content[0].text


USES = {"everything": use_everything, "filesystem": use_filesystem, "memory": use_memory}
WANTED = {
    "everything": {
        "server": "mcp-servers/everything",
        "sum": "The sum of 2 and 40 is 42.",
        "image": ["text", "image", "text"],
        "prompts": 4,
    },
    "filesystem": {
        "server": "secure-filesystem-server",
        "read": "snow ☃",
        "listed": "[FILE] deep.txt",
        "outside": True,
        "is the session's own": True,
    },
    "memory": {
        "server": "memory-server",
        "graph": {
            "entities": [{"name": "Ada", "entityType": "person", "observations": ["wrote the first program"]}],
            "relations": [],
        },
    },
}


def command_lines(pid):
    """The command line of every process below one."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
    family = {pid}
    while new := {child for child, parent in parents.items() if parent in family} - family:
        family |= new
    lines = [(Path(f"/proc/{child}/cmdline")) for child in family - {pid}]
    return [line.read_bytes().decode().rstrip("\0").split("\0") for line in lines if line.exists()]


async def use_all(gateway, limit=DEADLINE):
    """Use each server, all at once, and look at the processes while they run."""
    processes = {}

    async def use(env):
        with trio.fail_after(limit):
            async with connected(gateway, "/mcp", env, mode="legacy") as client:
                used = await USES[env](client)
                processes[env] = command_lines(gateway.pid)
                return used

    return await gathered({env: lambda env=env: use(env) for env in USES}), processes


@pytest.mark.fault("H20")
async def test_servers_from_the_registry_work_with_no_npx_in_the_process_tree(servers):
    used, processes = await use_all(servers, INSTALL_LIMIT)
    assert used == WANTED
    for env, commands in processes.items():
        programs = [Path(word).name for command in commands for word in command[:2]]
        assert not {"npx", "npm", "npx-cli.js", "npm-cli.js", "sh"} & set(programs), commands
        package = f"/node_modules/@modelcontextprotocol/server-{env}/"
        assert len([command for command in commands if Path(command[0]).name == "node" and package in command[1]]) == 1


async def test_a_workspace_is_gone_with_its_session(servers):
    async with connected(servers, "/mcp", "filesystem", mode="legacy") as client:
        (workspace,) = (await _text(client, "list_allowed_directories")).splitlines()[1:]
        assert await trio.Path(workspace).is_dir()
    with trio.fail_after(DEADLINE):
        while await trio.Path(workspace).exists():  # noqa: ASYNC110 - a file system calls nobody
            await trio.sleep(0.02)


async def test_two_sessions_of_a_server_do_not_share_what_they_remember(servers):
    async with (
        connected(servers, "/mcp", "memory", mode="legacy") as first,
        connected(servers, "/sse", "memory", mode="legacy") as second,
    ):
        remembered = await use_memory(first)
        assert len(remembered["graph"]["entities"]) == 1
        assert json.loads(await _text(second, "read_graph")) == {"entities": [], "relations": []}


@pytest.mark.fault("H20")
async def test_what_was_installed_once_starts_again_without_the_registry(servers, npm_cache, tmp_path):
    used, _ = await use_all(servers, INSTALL_LIMIT)
    offline = {**UNREACHABLE, "MUXSIM_CACHE": str(npm_cache)}
    async with serving(tmp_path, SERVERS, env=offline) as running:
        assert (await use_all(Gateway(SERVERS, running)))[0] == used == WANTED


async def test_an_empty_cache_does_need_the_registry(tmp_path):
    nothing = {**UNREACHABLE, "MUXSIM_CACHE": str(tmp_path / "cache"), "npm_config_cache": str(tmp_path / "npm")}
    async with serving(tmp_path, SERVERS, env=nothing) as running:
        with pytest.RaisesGroup(
            pytest.RaisesExc(Exception, match="npm could not install"), allow_unwrapped=True, flatten_subgroups=True
        ):
            async with connected(Gateway(SERVERS, running), "/mcp", "memory", mode="legacy"):
                pass
