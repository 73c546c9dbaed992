"""A small environment with a control plane: each `step` earns one more. Python's standard library only.

With `--counting` it also says how many steps there were and what they have earned, ends with the third, and `look` is
none. With `--unbegun` it tells nothing of its start.
"""

import json
import sys

PARTS = ("reward", "status", "info", "initial_state")
UNBEGUN = "--unbegun" in sys.argv
game = {"steps": 0}
COUNTING = "--counting" in sys.argv


def resources():
    return [
        {"uri": "game://board", "name": "board"},
        *({"uri": f"control://{part}", "name": part} for part in PARTS[: -1 if UNBEGUN else None]),
    ]


def value_of(uri):
    part = uri.removeprefix("control://")
    steps = game["steps"]
    status = {"terminated": False, "truncated": False}
    if COUNTING:
        status = {"terminated": steps == 3, "truncated": False, "step": steps, "total_reward": sum(range(steps + 1))}
    return {"reward": {"reward": steps}, "status": status}.get(part, {"part": part})


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
            game["steps"] += not COUNTING or params["name"] == "step"
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
        said = {"result": answer(request)}
        if UNBEGUN and request.get("params", {}).get("uri") == "control://initial_state":
            said = {"error": {"code": -32002, "message": "there is none"}}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **said}), flush=True)
