"""An `mcpServers` JSON, the file of another program, with an optional `"muxsim"` block per server and at the top."""

from pathlib import Path

from muxsim.config.environments import read_environment
from muxsim.config.model import Config
from muxsim.config.server import read_auth, read_default, read_server
from muxsim.config.table import Table
from muxsim.config.values import DESKTOP_KEYS, ENVIRONMENT_KEYS

# What other programs write beside a server's command; it means nothing here.
_FOREIGN_KEYS = ("alwaysAllow", "autoApprove", "autoStart", "description", "disabled", "timeout", "type")
_DISABLE = 'take it out, or add "disabled": true'


def from_json(root: Table, path: Path) -> Config:
    """The config of a parsed `mcpServers` JSON."""
    # A desktop's file holds settings of its own beside these; only what is nearly one of ours is a slip.
    root.know(("mcpServers", "muxsim"), others=True)
    server = root.table("muxsim")
    settings, defaults, default = read_server(server)
    specs = {}
    for name, entry in root.table("mcpServers").tables():
        if entry.values.get("disabled") is True:
            continue
        if "url" in entry.values:
            raise entry.error("url", f"is a remote server's, and muxsim starts its own: {_DISABLE}")
        if entry.values.get("type", "stdio") != "stdio":
            raise entry.error("type", f"must be stdio, the only kind of server that muxsim starts: {_DISABLE}")
        entry.know((*DESKTOP_KEYS, "muxsim", *_FOREIGN_KEYS))
        values = {**entry.read(DESKTOP_KEYS, others=True), **entry.table("muxsim").read(ENVIRONMENT_KEYS)}
        specs[name] = read_environment(name, entry, values, defaults)
    if not specs:
        raise root.error("mcpServers", 'has no server to start: add {"NAME": {"command": "server.py"}}')
    return Config(
        environments=specs,
        server=settings,
        auth=read_auth(server),
        default=read_default(server, default, specs),
        file=path,
    )
