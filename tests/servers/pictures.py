"""A server whose one tool answers with an image of any type that is asked for. Python's standard library only."""

import json
import sys

# One pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def answer(request):
    params = request.get("params", {})
    match request["method"]:
        case "initialize":
            server = {"name": "pictures", "version": "0"}
            version = params["protocolVersion"]
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": server}
        case "tools/list":
            return {"tools": [{"name": "draw", "inputSchema": {"type": "object"}}]}
        case "tools/call":
            mime = params["arguments"]["mime"]
            return {"content": [{"type": "image", "data": PNG, "mimeType": mime}, {"type": "text", "text": "drawn"}]}
    return {}


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answer(request)}), flush=True)
