"""Run by test_trainers_read: rows as verl's `AgentLoopOutput`, and as the tensors that it makes of one."""

import json
import sys

from verl.experimental.agent_loop.agent_loop import AgentLoopOutput

with open(sys.argv[1]) as rows:
    outputs = [AgentLoopOutput(**row) for row in json.load(rows)]
scores = [output.as_dict()["rm_scores"].tolist() for output in outputs]
print(json.dumps({"rows": [output.model_dump() for output in outputs], "scores": scores}))
