"""`muxsim.toml`: muxsim's own file, in which every key is one of its own."""

from pathlib import Path

from muxsim.config.environments import read_environment
from muxsim.config.model import Config
from muxsim.config.server import read_auth, read_clients, read_default, read_server
from muxsim.config.table import Table
from muxsim.values import ENVIRONMENT_KEYS


def from_toml(root: Table, path: Path) -> Config:
    """The config of a parsed `muxsim.toml`."""
    root.know(("server", "environments"))
    server = root.table("server")
    settings, defaults, default = read_server(server)
    specs = {}
    for name, table in root.table("environments").tables():
        specs[name] = read_environment(name, table, table.read(ENVIRONMENT_KEYS), defaults)
    if not specs:
        raise root.error("environments", 'has no environment: add [environments.NAME] with command = "server.py"')
    auth = read_auth(server)
    return Config(
        environments=specs,
        server=settings,
        auth=auth,
        clients=read_clients(server, auth),
        default=read_default(server, default, specs),
        file=path,
    )
