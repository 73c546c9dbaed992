"""Run by test_trainers_read: rows as the `AgentLoopOutput` of verl's wheel, of which only that class is used."""

import ast
import json
import sys
import zipfile
from typing import Any, Optional

from pydantic import BaseModel

WANTED = ("AgentLoopMetrics", "AgentLoopOutput")

with zipfile.ZipFile(sys.argv[1]) as wheel:
    source = wheel.read("verl/experimental/agent_loop/agent_loop.py").decode()
found = {"BaseModel": BaseModel, "Any": Any, "Optional": Optional}
classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name in WANTED]
exec(compile(ast.Module(classes, []), "agent_loop.py", "exec"), found)
with open(sys.argv[2]) as rows:
    print(json.dumps([found["AgentLoopOutput"](**row).model_dump() for row in json.load(rows)]))
