"""A small environment with a control plane: each `step` earns 1. Python's standard library only."""

import json
import sys

PARTS = ("reward", "status", "info", "initial_state")
game = {"steps": 0}


def resources():
    return [
        {"uri": "game://board", "name": "board"},
        *({"uri": f"control://{part}", "name": part} for part in PARTS),
    ]


def value_of(uri):
    part = uri.removeprefix("control://")
    return {"reward": {"reward": game["steps"]}, "status": {"terminated": False, "truncated": False}}.get(
        part, {"part": part}
    )


def answer(request):
    params = request.get("params", {})
    match request["method"]:
        case "initialize":
            return {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}, "resources": {}},
                "serverInfo": {"name": "scored", "version": "0"},
            }
        case "tools/list":
            return {"tools": [{"name": "step", "inputSchema": {"type": "object"}}]}
        case "tools/call":
            game["steps"] += 1
            return {"content": [{"type": "text", "text": "stepped"}]}
        case "resources/list":
            return {"resources": resources()}
        case "resources/read":
            uri = params["uri"]
            return {"contents": [{"uri": uri, "mimeType": "application/json", "text": json.dumps(value_of(uri))}]}
    return {}


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answer(request)}), flush=True)
