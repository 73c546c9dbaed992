"""Runs any stdio MCP server as many isolated, seeded environments behind one endpoint."""

from importlib.metadata import version

__version__ = version("mcp-muxsim")
