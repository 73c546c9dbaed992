"""Trajectories as a runner leaves them, small enough to read."""

import base64
import json
import struct
import zlib

import msgspec

from muxsim.rollouts.data.run_config import RunConfig
from muxsim.rollouts.data.trajectory import Control, EndReason, StageTimes, Step, Trajectory, Usage

TOOL = {
    "type": "function",
    "function": {
        "name": "lake_move",
        "description": "Move one tile.",
        "parameters": {"type": "object", "properties": {"action": {"type": "string"}}},
    },
}
STARTED = "2026-11-21T12:00:00+00:00"


def png(*colour, size=8):
    """A square PNG of one colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(colour) * size) * size
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def image_block(content):
    return {"type": "image", "data": base64.b64encode(content).decode(), "mimeType": "image/png"}


def image_part(content):
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def text_block(text):
    return {"type": "text", "text": text}


def config(**changes):
    given = {
        "environments": ("frozen_lake",),
        "policy": {"kind": "random"},
        "dataset_sha256": "d" * 64,
        "options": {"max_steps": 50},
    }
    return RunConfig(**{**given, **changes})


def step(index, *content, action="RIGHT", reward=0.0, is_error=False, control=True, **ends):
    seen = Control(reward=reward, step=index + 1, info={"prob": 1.0}, **ends)
    return Step(
        index=index,
        tool="lake_move",
        arguments={"action": action},
        call_id=f"call_{index}",
        content=list(content) or [text_block(f"you are at {index + 1}")],
        is_error=is_error,
        control=seen if control else None,
        model_seconds=0.25,
        tool_seconds=0.01,
        control_seconds=0.001,
    )


def conversation(steps):
    """The messages that belong to steps, one call in each reply."""
    messages = [
        {"role": "system", "content": "You are on a frozen lake."},
        {"role": "user", "content": "Cross it."},
    ]
    for one in steps:
        function = {"name": one.tool, "arguments": json.dumps(one.arguments)}
        call = {"id": one.call_id, "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        text = "\n".join(block["text"] for block in one.content if block["type"] == "text")
        message = {"role": "tool", "tool_call_id": one.call_id, "content": text}
        if one.control is not None:
            message["metadata"] = {"control_plane": msgspec.to_builtins(one.control)}
        messages.append(message)
    return messages


def trajectory(id="lake-0", steps=None, **changes):
    steps = [step(0), step(1, reward=1.0, terminated=True)] if steps is None else steps
    given = {
        "id": id,
        "row": id.partition("#")[0],
        "sample": 0,
        "env": "frozen_lake",
        "seed": 0,
        "session": f"session-{id}",
        "end_reason": EndReason.TERMINATED,
        "valid": True,
        "total_reward": sum((one.control.reward or 0.0) for one in steps if one.control),
        "messages": conversation(steps),
        "tools": [TOOL],
        "steps": steps,
        "initial_state": {"observation": "you are at 0", "info": {}, "seed": 0},
        "usage": Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15),
        "tokens": [None] * len(steps),
        "times": StageTimes(queue=0.5, start=0.1, model=0.5, tool=0.02),
        "started_at": STARTED,
        "seconds": 2.0,
    }
    return Trajectory(**{**given, **changes})


def failure(id="lake-9", **changes):
    given = {
        "steps": [step(0)],
        "end_reason": EndReason.ENV_CRASHED,
        "valid": False,
        "total_reward": None,
        "error": "the backend ended with exit status 1",
        "stderr": ["Traceback (most recent call last):", "ZeroDivisionError: division by zero"],
    }
    return trajectory(id, **{**given, **changes})
