"""A stdio MCP server that does nothing, fast: what stands behind every proxy in the gateway benchmark.

No SDK, no event loop, no buffered streams: one `os.read` and one `os.write` per call. Tools: `echo` gives its `text`
back, `produce` answers with `mib` MiB of text, `accept` takes any `data` and answers with its length.
"""

import json
import os
import re
from typing import Any

STDIN = 0
STDOUT = 1
READ_SIZE = 1 << 16  # the capacity of a pipe: more never arrives in one read
LARGE = 1 << 16  # a longer line is not parsed as JSON: the time would be the parser's, not the relay's
ID = re.compile(rb'"id"\s*:\s*("[^"]*"|\d+)')
ID_REACH = 512  # a relay may put the id first or last; it is looked for this far from both ends

TOOLS = [
    {
        "name": name,
        "description": description,
        "inputSchema": {"type": "object", "properties": {argument: {"type": kind}}, "required": [argument]},
    }
    for name, description, argument, kind in (
        ("echo", "Give the text back.", "text", "string"),
        ("produce", "Give so many MiB of text.", "mib", "integer"),
        ("accept", "Take any text, give its length.", "data", "string"),
    )
]


def initialized(params: dict[str, Any]) -> dict[str, Any]:
    return {
        "protocolVersion": params.get("protocolVersion", "2025-06-18"),
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "nothing", "version": "1"},
    }


def text_result(text: bytes) -> bytes:
    return b'{"content":[{"type":"text","text":"' + text + b'"}]}'


def called(params: dict[str, Any]) -> bytes:
    arguments = params.get("arguments") or {}
    if params.get("name") == "echo":
        return b'{"content":[{"type":"text","text":%b}]}' % json.dumps(arguments["text"]).encode()
    if params.get("name") == "produce":
        return text_result(b"x" * (int(arguments["mib"]) << 20))
    return text_result(b"%d" % len(arguments["data"]))


def answer(message: dict[str, Any]) -> bytes:
    """The line that answers a message; empty for a notification."""
    if "id" not in message:
        return b""
    method = message.get("method")
    params = message.get("params") or {}
    if method == "tools/call":
        result = called(params)
    elif method == "initialize":
        result = json.dumps(initialized(params)).encode()
    elif method == "tools/list":
        result = json.dumps({"tools": TOOLS}).encode()
    else:
        result = b"{}"
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (json.dumps(message["id"]).encode(), result)


def answer_large(line: bytes) -> bytes:
    """Answers an `accept` too long to be worth parsing: its length is told by the length of the line."""
    found = ID.search(line[:ID_REACH]) or ID.search(line[-ID_REACH:])
    if found is None:
        return answer(json.loads(line))
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}\n' % (found[1], text_result(b"%d" % len(line)))


def answer_line(line: bytes) -> bytes:
    return answer_large(line) if len(line) > LARGE else answer(json.loads(line))


def write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(STDOUT, view) :]


def main() -> None:
    parts: list[bytes] = []
    while data := os.read(STDIN, READ_SIZE):
        parts.append(data)
        if b"\n" not in data:
            continue
        *lines, rest = b"".join(parts).split(b"\n")
        parts = [rest] if rest else []
        for line in lines:
            write_all(answer_line(line))


if __name__ == "__main__":
    main()
