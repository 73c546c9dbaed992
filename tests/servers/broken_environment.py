"""A game that breaks in one way, named on the command line. Each step earns 0.5; the fourth ends it.

What has been earned it counts itself, in a file of the workspace with which the record is compared.
Python's standard library only, so that every byte is this file's.
"""

import json
import os
import sys
from pathlib import Path

LAST = 4
AT = 2  # the call with which it breaks
PARTS = ("reward", "status", "info", "initial_state")

how = sys.argv[1]
game = {"steps": 0, "total": 0.0, "calls": 0}


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def raw(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def status():
    return {
        "terminated": game["steps"] >= LAST,
        "truncated": False,
        "step": game["steps"],
        "total_reward": game["total"],
    }


def value_of(part):
    broken = game["calls"] >= AT
    if (broken and how == "control-gone") or (game["calls"] and how == "control-gone-at-once"):
        return None
    if broken and how == "reward-unreadable" and part == "reward":
        return "not a number"
    if broken and how == "reward-lies" and part == "reward":
        return {"reward": 100.0, "step": game["steps"]}
    if broken and how == "status-malformed" and part == "status":
        return {**status(), "terminated": "no"}
    if broken and how == "says-failed" and part == "status":
        return {**status(), "failed": "step 2: the simulator is gone"}
    return {
        "reward": {"reward": 0.5 if game["steps"] else 0.0, "step": game["steps"]},
        "status": status(),
        "info": {},
        "initial_state": {"observation": "a door", "info": {}, "seed": 0},
    }[part]


def step(message):
    game["calls"] += 1
    now = game["calls"] == AT
    if now and how == "crash":
        print("Segmentation fault, as it were", file=sys.stderr, flush=True)
        os._exit(3)
    if now and how == "hang":
        return
    if now and how == "refuse":
        send({"id": message["id"], "error": {"code": -32602, "message": "not that way"}})
        return
    if now and how == "is-error":
        send({"id": message["id"], "result": {"content": [{"type": "text", "text": "no such door"}], "isError": True}})
        return
    game["steps"] += 1
    game["total"] += 0.5
    Path(os.environ["MUXSIM_WORKSPACE"], "earned").write_text(str(game["total"]))
    if now and how == "malformed-result":
        send({"id": message["id"], "result": {"content": "a door"}})
    elif now and how == "no-content":
        send({"id": message["id"], "result": {}})
    elif now and how == "nan":
        meta = '{"muxsim/control": {"reward": NaN, "terminated": false}}'
        raw(f'{{"jsonrpc": "2.0", "id": {message["id"]}, "result": {{"content": [], "_meta": {meta}}}}}')
    elif how.startswith("own-"):
        reward = {"own-lies": 10.0, "own-silent": None}.get(how, 0.5) if now else 0.5
        control = {"reward": reward, "terminated": game["steps"] >= LAST, "truncated": False, "step": game["steps"]}
        result = {"content": [{"type": "text", "text": "a door"}], "isError": reward is None}
        send({"id": message["id"], "result": {**result, "_meta": {"muxsim/control": {**control, "info": {}}}}})
        if how == "own-then-exits" and game["steps"] >= LAST:
            os._exit(0)
    elif now and how == "torn":
        raw(f'{{"jsonrpc": "2.0", "id": {message["id"]}, "result": {{"content": [')
    elif now and how == "meta-malformed":
        meta = {"muxsim/control": {"reward": "much"}}
        send({"id": message["id"], "result": {"content": [{"type": "text", "text": "a door"}], "_meta": meta}})
    else:
        send({"id": message["id"], "result": {"content": [{"type": "text", "text": f"door {game['steps']}"}]}})


def listed(message):
    tools = [{"name": "open", "inputSchema": {"type": "object"}}]
    if how == "tools-null":
        return {"tools": None}
    if how == "tools-nameless":
        return {"tools": [{"inputSchema": {}}]}
    if how == "tools-endless":
        return {"tools": tools, "nextCursor": "again"}
    return {"tools": tools}


def answer(message):
    method = message["method"]
    if method == "initialize":
        capabilities = {"tools": {}, "resources": {}}
        version = message["params"]["protocolVersion"]
        return {"protocolVersion": version, "capabilities": capabilities, "serverInfo": {"name": how, "version": "1"}}
    if method == "tools/list":
        return listed(message)
    if method == "resources/list" and how == "foreign":
        return {"resources": [{"uri": "memo://insights", "name": "insights"}]}
    if method == "resources/list":
        return {"resources": [{"uri": f"control://{part}", "name": part} for part in PARTS]}
    return {}


def main():
    if how == "no-start":
        print("no world today", file=sys.stderr)
        sys.exit(1)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        if message["method"] == "tools/call":
            step(message)
        elif message["method"] == "resources/read":
            uri = message["params"]["uri"]
            if how == "foreign":
                text = f"Unsupported URI scheme: {uri.partition(':')[0]}"
                send({"id": message["id"], "error": {"code": 0, "message": text}})
                continue
            value = value_of(uri.removeprefix("control://"))
            if value is None:
                send({"id": message["id"], "error": {"code": -32603, "message": "the disk is on fire"}})
            else:
                send({"id": message["id"], "result": {"contents": [{"uri": uri, "text": json.dumps(value)}]}})
        else:
            send({"id": message["id"], "result": answer(message)})


main()
