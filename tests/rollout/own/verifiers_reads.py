"""Run by test_trainers_read with verifiers installed: what it finds in a folder of traces."""

import json
import sys
from pathlib import Path

from verifiers.v1.trace import WireTrace
from verifiers.v1.utils.trace_store import read_episodes


def told(episode):
    (trace,) = episode.traces
    return {
        "ok": episode.ok and trace.ok,
        "group": episode.group and episode.group.id,
        "rewards": [one and one.value for one in trace.rewards.values()],
        "metrics": trace.metrics,
        "turns": trace.num_turns,
        "branches": [[one.token_ids, one.sampled_mask, one.logprobs] for one in trace.branches],
        "stop": trace.stop_condition,
        "error": trace.last_error and trace.last_error.type,
    }


print(json.dumps([told(one) for one in read_episodes(Path(sys.argv[1]), WireTrace)]))
