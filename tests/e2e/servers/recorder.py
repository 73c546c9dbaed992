"""A stdio MCP server, of revisions with and without a handshake, that keeps a record of what it was sent.

Standard library only: run it with -I -S, it starts in 20 ms. Its tools:

    echo {text}    answers the text
    hold {name}    reports the name as progress, if asked to, and answers with it no sooner than `release`
    release {}     answers all that is held, the latest first
    seen {}        answers {"pid", "argv", "handshakes", "ids", "held", "cancelled"}; ids of `hold`, the others by name
"""

import json
import os
import sys

MODERN = "2026-07-28"

handshakes = []  # the params of every one
ids = []  # of every `hold`, as they came
held = {}  # id -> (name, progress token)
cancelled = []  # names of the calls that were cancelled; they are never answered


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(id, value):
    send({"id": id, "result": {"content": [{"type": "text", "text": value}], "resultType": "complete"}})


def echo(id, params):
    text(id, params["arguments"]["text"])


def hold(id, params):
    name, token = params["arguments"]["name"], params.get("_meta", {}).get("progressToken")
    ids.append(id)
    held[id] = name
    if token is not None:
        report = {"progressToken": token, "progress": 1, "message": name}
        send({"method": "notifications/progress", "params": report})


def release(id, params):
    for waiting, name in reversed(held.items()):
        text(waiting, name)
    held.clear()
    text(id, "released")


def seen(id, params):
    record = {
        "pid": os.getpid(),
        "argv": sys.argv[1:],
        "handshakes": len(handshakes),
        "ids": ids,
        "held": list(held.values()),
        "cancelled": cancelled,
    }
    text(id, json.dumps(record))


def cancel(params):
    if (name := held.pop(params["requestId"], None)) is not None:
        cancelled.append(name)


TOOLS = {tool.__name__: tool for tool in (echo, hold, release, seen)}
COMPLETE = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
CAPABILITIES = {"tools": {}}
INFO = {"name": "recorder", "version": "0"}


def answer(id, method, params):
    if method == "initialize":
        handshakes.append(params)
        version = params["protocolVersion"]
        send({"id": id, "result": {"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": INFO}})
    elif method == "server/discover":
        send({"id": id, "result": {"supportedVersions": [MODERN], "capabilities": CAPABILITIES, **COMPLETE}})
    elif method == "tools/list":
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
        send({"id": id, "result": {"tools": tools, **COMPLETE}})
    elif method == "tools/call" and params["name"] in TOOLS:
        TOOLS[params["name"]](id, params)
    elif method == "ping":
        send({"id": id, "result": {}})
    else:
        send({"id": id, "error": {"code": -32601, "message": f"no method {method}"}})


for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "notifications/cancelled":
        cancel(message["params"])
    elif "id" in message:
        answer(message["id"], message["method"], message.get("params", {}))
