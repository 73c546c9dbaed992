"""Writes files where its calls say, and one more when its stdin ends. Python's standard library only."""

import json
import os
import sys

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}, "text": {"type": "string"}}}


def write(path, text):
    path = os.path.join(os.environ["MUXSIM_WORKSPACE"], os.path.expandvars(path))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a") as file:
        file.write(text)


def answer(request):
    params = request.get("params", {})
    match request["method"]:
        case "initialize":
            return {
                "protocolVersion": params["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "scribbler", "version": "0"},
            }
        case "tools/list":
            names = ("look",) if "calm" in sys.argv else ("write", "look", "die", "hang")
            return {"tools": [{"name": name, "inputSchema": SCHEMA} for name in names]}
        case "tools/call":
            return {"content": [{"type": "text", "text": call(params["name"], params.get("arguments", {}))}]}
    return None


def call(name, arguments):
    match name:
        case "write":
            write(arguments["path"], arguments["text"])
        case "die":
            os._exit(3)
        case "hang":
            sys.stdin.read()
    return " ".join(sorted(os.listdir(os.environ["MUXSIM_WORKSPACE"])))


if "always" in sys.argv:  # whatever it is asked, beside its own code
    write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "memory.json"), "{}\n")
for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        result = answer(request)
        said = {"error": {"code": -32601, "message": "no such method"}} if result is None else {"result": result}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **said}), flush=True)
write("at_the_end.txt", "written when stdin had ended")
