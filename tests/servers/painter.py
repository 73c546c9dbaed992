"""An environment that shows nothing but images, and fails in the way that its tool is asked for.

Python's standard library only, so that every byte is this file's.
"""

import base64
import json
import os
import struct
import sys
import zlib

SIZE, LARGER = (4, 6), (5, 6)
WAYS = ["same", "larger", "torn", "none", "words", "die", "refuse", "unknown", "wait", "end"]
game = {"steps": 0}


def png(height, width):
    """A picture that is nowhere black."""
    rows = b"".join(b"\0" + bytes((200, 100 + row, 50)) * width for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def image(data):
    return [{"type": "image", "data": base64.b64encode(data).decode(), "mimeType": "image/png"}]


def control(reward, ended):
    return {"reward": reward, "terminated": ended, "truncated": False, "step": game["steps"], "info": {}}


def drawn(way):
    if way == "die":
        print("the brush broke", file=sys.stderr, flush=True)
        os._exit(3)
    if way == "refuse":
        return {"content": [{"type": "text", "text": "not that way"}], "isError": True}
    if way == "wait":
        sys.stdin.read()  # until the session ends
    game["steps"] += 1
    whole = png(*SIZE)
    content = {"larger": image(png(*LARGER)), "torn": image(whole[:-30]), "none": []}.get(way, image(whole))
    words = [{"type": "text", "text": "a picture"}] if way == "words" else []
    told = control(None if way == "unknown" else 0.5, way == "end")
    return {"content": [*words, *content], "_meta": {"muxsim/control": told}}


def answer(request):
    params = request.get("params", {})
    match request["method"]:
        case "initialize":
            server = {"name": "painter", "version": "0"}
            capabilities = {"tools": {}, "resources": {}}
            return {"protocolVersion": params["protocolVersion"], "capabilities": capabilities, "serverInfo": server}
        case "tools/list":
            schema = {"type": "object", "properties": {"way": {"enum": WAYS}}, "required": ["way"]}
            return {"tools": [{"name": "draw", "inputSchema": schema}]}
        case "tools/call":
            return drawn(params["arguments"]["way"])
        case "resources/read":
            state = {"observation": image(png(*SIZE)), "info": {}, "seed": 0}
            status = {"terminated": False, "truncated": False, "step": game["steps"], "total_reward": 0.5}
            value = {"control://initial_state": state, "control://status": status}.get(params["uri"])
            contents = [{"uri": params["uri"], "mimeType": "application/json", "text": json.dumps(value)}]
            return {"contents": contents} if value else None
    return {}


def main():
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "id" in request:
            result = answer(request)
            said = {"result": result} if result else {"error": {"code": -32002, "message": "Resource not found"}}
            print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **said}), flush=True)


if __name__ == "__main__":
    main()
