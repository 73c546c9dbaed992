"""A server whose tool gives its client a new one, and asks it something on the way. Python's standard library only."""

import json
import sys

tools = ["look"]


def send(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def ask(method):
    send({"id": "mine", "method": method, "params": {}})
    return json.loads(sys.stdin.readline())


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message or "method" not in message:
        continue
    method, result = message["method"], None
    if method == "initialize":
        version = message["params"]["protocolVersion"]
        server = {"name": "growing", "version": "1"}
        result = {"protocolVersion": version, "capabilities": {"tools": {"listChanged": True}}, "serverInfo": server}
    elif method == "tools/list":
        result = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in tools]}
    elif method == "tools/call":
        said = [ask(question).get("result", "no") for question in ("ping", "roots/list", "sampling/createMessage")]
        if len(tools) == 1:
            tools.append("fly")
            send({"method": "notifications/tools/list_changed"})
        result = {"content": [{"type": "text", "text": json.dumps(said)}]}
    if result is None:
        send({"id": message["id"], "error": {"code": -32601, "message": "no such method"}})
    else:
        send({"id": message["id"], "result": result})
