"""A stdio server that answers every request, whatever it says, and tells of it first if it is about logs."""

import json
import sys

RESULT = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "sturdy", "version": "0"},
    "content": [],
    "tools": [],
    "resultType": "complete",
}

for line in sys.stdin.buffer:
    message = json.loads(line)
    if "method" in message and "id" in message:
        if '"log"' in json.dumps(message.get("params")):
            print('{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":1}}')
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": RESULT}), flush=True)
