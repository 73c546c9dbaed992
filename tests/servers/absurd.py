#!/usr/bin/env python3
"""A server whose tools have schemas that nobody would write, and one that says what it was sent, byte by byte."""

import json
import re
import sys

ENDLESS = {"type": "object", "properties": {"again": {"$ref": "#"}}, "required": ["again"]}
NONSENSE = {"type": "object", "properties": 5, "required": "x", "allOf": [3], "$ref": "#/nowhere", "pattern": "(a+)+$"}
WIDE = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(3000)}}
NUMBER = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
OUTPUT = {"type": "object", "properties": {"x": {"pattern": "(a+)+$", "$ref": "#/nowhere"}}}
TOOLS = [
    {"name": "echo", "inputSchema": NUMBER, "outputSchema": OUTPUT},
    {"name": "endless", "inputSchema": ENDLESS},
    {"name": "nonsense", "inputSchema": NONSENSE, "title": 'x"><b>'},
    {"name": "wide", "inputSchema": WIDE},
    {
        "name": "<img src=x onerror=window.owned=1>",
        "description": "<script>window.owned=1</script>",
        "inputSchema": {"type": "object"},
    },
]


def answer(line):
    request = json.loads(line)
    method = request.get("method")
    if method == "initialize":
        version = request["params"]["protocolVersion"]
        return {
            "protocolVersion": version,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "absurd", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        said = re.search(r'"number"\s*:\s*(-?\d+)', line)
        return {"content": [{"type": "text", "text": f'{{"number": {said[1] if said else None}}}'}]}
    return {}


for line in sys.stdin:
    if "id" in json.loads(line):
        request = json.loads(line)
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answer(line)}), flush=True)
