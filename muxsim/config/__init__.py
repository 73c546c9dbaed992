"""The config, `muxsim.toml` or a Claude-desktop `mcpServers` JSON, read strictly into `EnvSpec`s.

Every fault is a `ConfigError`: one line with file, table, key, value and what to do. What a ``${VAR}`` held is
never part of it.
"""

from muxsim.config.files import find_config, load, load_command
from muxsim.config.model import Config, ServerSettings

__all__ = ["Config", "ServerSettings", "find_config", "load", "load_command"]
