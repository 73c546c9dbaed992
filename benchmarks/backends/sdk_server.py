"""The do-nothing tools served over streamable HTTP by the official SDK itself: what a proxy is an alternative to.

Usage: sdk_server.py PORT [json]. With `json` the answers are JSON, without it event streams, the SDK's default.
"""

import sys
from typing import Any

from mcp.server import MCPServer
from mcp_types import CallToolResult, TextContent

server: MCPServer[Any] = MCPServer("nothing", log_level="WARNING")


def text_result(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)])


@server.tool()
def echo(text: str) -> CallToolResult:
    """Give the text back."""
    return text_result(text)


@server.tool()
def produce(mib: int) -> CallToolResult:
    """Give so many MiB of text."""
    return text_result("x" * (mib << 20))


@server.tool()
def accept(data: str) -> CallToolResult:
    """Take any text, give its length."""
    return text_result(str(len(data)))


if __name__ == "__main__":
    server.run("streamable-http", port=int(sys.argv[1]), json_response="json" in sys.argv[2:])
