"""FastMCP's proxy over streamable HTTP with a child for each session.

Usage: fastmcp_proxy.py PORT COMMAND ARGS…
"""

import sys
from collections.abc import Callable
from typing import Any

from fastmcp.client.transports import StdioTransport
from fastmcp.server.dependencies import get_context
from fastmcp.server.providers.proxy import FastMCPProxy, StatefulProxyClient


def client_per_session(command: list[str]) -> Callable[[], Any]:
    """A factory that keeps one client, and so one child, for each connection.

    `StatefulProxyClient.new_stateful` alone copies a client with its transport: every copy would share one child.
    """
    clients: dict[Any, StatefulProxyClient[StdioTransport]] = {}

    def client() -> Any:
        connection = get_context().session._connection
        if connection not in clients:
            clients[connection] = StatefulProxyClient(StdioTransport(command[0], command[1:]))
        return clients[connection].new_stateful()

    return client


if __name__ == "__main__":
    proxy: FastMCPProxy = FastMCPProxy(client_factory=client_per_session(sys.argv[2:]), name="nothing")
    proxy.run(transport="http", port=int(sys.argv[1]), show_banner=False, log_level="warning")
