"""A server in which every text is HTML and script, on stdout, on stderr and in its errors."""

import json
import sys

HOSTILE = '</script><script>window.owned = 1</script><img src="x" onerror="window.owned = 1">'


def answer(message):
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}, "logging": {}},
            "serverInfo": {"name": HOSTILE, "version": HOSTILE},
        }
    if method == "tools/list":
        return {"tools": [{"name": HOSTILE, "description": HOSTILE, "inputSchema": {"type": "object"}}]}
    say({"method": "notifications/message", "params": {"level": "info", "logger": HOSTILE, "data": HOSTILE}})
    say({"method": HOSTILE})
    return {"content": [{"type": "text", "text": HOSTILE}], "structuredContent": {HOSTILE: HOSTILE}, "isError": True}


def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


for line in sys.stdin:
    received = json.loads(line)
    if received.get("method") == "tools/call" and received["params"]["name"] == "die":
        sys.exit(HOSTILE)
    if "id" in received and "method" in received:
        print(HOSTILE, file=sys.stderr, flush=True)
        say({"id": received["id"], "result": answer(received)})
