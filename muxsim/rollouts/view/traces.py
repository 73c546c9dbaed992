"""Episodes as verifiers saves rollouts: `traces.jsonl`, with its graph of messages and their tokens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import msgspec

from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.data.tokens import Link, links
from muxsim.rollouts.data.trajectory import EndReason, Trajectory, shown_to_agent
from muxsim.rollouts.view.selection import Selection
from muxsim.rollouts.view.token_rows import turns_of

TRACES: Final = "traces.jsonl"
_VERSION: Final = 1
_PARTS: Final = ("text", "image_url")
# What verifiers calls an end of its own; any other keeps our name.
_STOPS: Final = {EndReason.MAX_STEPS: "max_turns"}
_FINISHES: Final = {"stop": "stop", "length": "length", "max_tokens": "length", "tool_calls": "tool_calls"}
_SAMPLING: Final = ("temperature", "top_p", "max_tokens")

Json = dict[str, Any]


def trace_rows(run: RunFolder, *, inline_images: bool = False, **chosen: Any) -> Iterator[Json]:
    """Each episode as a line of verifiers' ``traces.jsonl``: an episode of theirs, with one trace.

    Tokens are at the reply that has sampled them, those of its prompt that are new before them and not in its mask.
    Where a prompt does not go on from what was read and sampled before, a branch of its own begins, at a root.
    """
    for trajectory in Selection(**chosen).of(run):
        messages = shown_to_agent(trajectory.messages)
        yield _episode(trajectory, run, run.with_images(messages) if inline_images else messages)


def _episode(trajectory: Trajectory, run: RunFolder, messages: list[Json]) -> Json:
    errors = [_error(trajectory)] if not trajectory.valid else []
    task = {"type": "muxsim", "key": trajectory.row, "data": _task(trajectory)}
    late = trajectory.end_reason is EndReason.EPISODE_TIMEOUT
    state = {"ok": trajectory.valid, "errors": errors, "is_timeout": late}
    trace = {
        "version": _VERSION,
        "id": trajectory.session or trajectory.id,
        "verifiers": {"version": f"mcp-muxsim {run.config.muxsim}"},
        "task": task,
        "agent": {"name": "agent", "config": _agent(run.config.policy)},
        "tools": [_tool(one) for one in trajectory.tools],
        **_graph(trajectory, messages),
        "rewards": {"reward": _reward(trajectory)},
        "metrics": trajectory.scores,
        "info": {"end_reason": trajectory.end_reason.value, "seconds": trajectory.seconds},
        "is_completed": True,
        "stop_condition": _STOPS.get(trajectory.end_reason, trajectory.end_reason.value),
        "timing": _timing(trajectory),
        **state,
    }
    return {
        "id": trajectory.id,
        "env": {"id": f"muxsim/{trajectory.env}"},
        "task": task,
        "group": {"id": trajectory.row} if run.config.rollouts_per_row > 1 else None,
        "run": {"type": "eval", "id": run.path.name or "muxsim"},
        "traces": [trace],
        **state,
    }


class _Graph:
    """The messages of an episode, each the child of the one before, with the tokens of replies."""

    def __init__(self, messages: list[Json], tools: list[Json]) -> None:
        self.nodes: list[Json] = []
        self.calls: list[Json] = []
        self._messages, self._tools = messages, tools
        self._tip: int | None = None
        self._read = 0

    def reply(self, place: int, link: Link | None, branch: bool, finish: str | None) -> None:
        """Take in a reply of the policy, the message at ``place``, and what stands before it."""
        if branch:
            self._tip, self._read = None, 0
        for message in self._messages[self._read : place]:
            self._add(message)
        tokens = _of_reply(link)
        self._add(self._messages[place], sampled=True, **tokens)
        self._read = place + 1
        usage = None
        if link is not None:
            read = len(link.tokens.prompt or ())
            usage = {"prompt_tokens": read, "completion_tokens": len(link.tokens.completion or ())}
        self.calls.append({"node": self._tip, "finish_reason": _FINISHES.get(finish or ""), "usage": usage})

    def end(self) -> None:
        """Take in what is left."""
        for message in self._messages[self._read :]:
            self._add(message)

    def _add(self, message: Json, **more: Any) -> None:
        root = {"tools": self._tools} if self._tip is None and self._tools else {}
        self.nodes.append({"parent": self._tip, "message": _message(message), **root, **more})
        self._tip = len(self.nodes) - 1


def _graph(trajectory: Trajectory, messages: list[Json]) -> Json:
    places = [place for place, message in enumerate(messages) if message.get("role") == "assistant"]
    # Those that a prompt starts with were not the policy's.
    places = places[len(places) - len(trajectory.tokens) :] if trajectory.tokens else []
    graph = _Graph(messages, [_tool(one) for one in trajectory.tools])
    had_tokens = False
    for number, (place, link) in enumerate(zip(places, links(turns_of(trajectory)), strict=True)):
        has_tokens = link is not None
        branch = number > 0 and (link.first if link is not None else had_tokens)
        reason = (trajectory.messages[place].get("metadata") or {}).get("finish_reason")
        graph.reply(place, link, branch, str(reason) if reason else None)
        had_tokens = has_tokens
    graph.end()
    return {"nodes": graph.nodes, "calls": graph.calls}


def _of_reply(link: Link | None) -> Json:
    if link is None:
        return {}
    sampled = link.tokens.completion or []
    return {
        "token_ids": [*link.new, *sampled],
        "mask": [False] * len(link.new) + [True] * len(sampled),
        "logprobs": link.tokens.logprobs or [],
    }


def _message(message: Json) -> Json:
    role, content = message.get("role"), message.get("content")
    if role == "assistant":
        calls = [_call(one) for one in message.get("tool_calls") or ()]
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        return {
            "role": "assistant",
            "content": _text(content),
            "reasoning_content": reasoning if isinstance(reasoning, str) else None,
            "tool_calls": calls or None,
        }
    if role == "tool":
        return {"role": "tool", "tool_call_id": str(message.get("tool_call_id", "")), "content": _content(content)}
    return {"role": "user" if role == "user" else "system", "content": _content(content)}


def _call(call: Json) -> Json:
    function = call.get("function") or {}
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    return {"id": str(call.get("id", "")), "name": str(function.get("name", "")), "arguments": text}


def _content(content: Any) -> str | list[Json]:
    if isinstance(content, list):
        return [part for part in content if isinstance(part, dict) and part.get("type") in _PARTS]
    return content if isinstance(content, str) else ""


def _text(content: Any) -> str | None:
    """A reply's own words: their assistants have only text."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else None


def _tool(tool: Json) -> Json:
    function = tool.get("function") or {}
    return {
        "name": str(function.get("name", "")),
        "description": str(function.get("description") or ""),
        "parameters": function.get("parameters") or {},
    }


def _task(trajectory: Trajectory) -> Json:
    return {
        "id": trajectory.row,
        "env": trajectory.env,
        "seed": trajectory.seed,
        "sample": trajectory.sample,
        "evaluation_criteria": trajectory.evaluation_criteria,
        "info": trajectory.info,
    }


def _agent(policy: Json) -> Json:
    sampling = {name: policy[name] for name in _SAMPLING if policy.get(name) is not None}
    model = policy.get("model")
    # Where the program ran that played: beside its environments, and in no cloud, which is what they take it for.
    return {
        "runtime": {"type": "subprocess"},
        "model": model if isinstance(model, str) else None,
        "sampling": sampling or None,
    }


def _reward(trajectory: Trajectory) -> Json | None:
    return None if trajectory.total_reward is None else {"score": trajectory.total_reward, "weight": 1.0}


def _error(trajectory: Trajectory) -> Json:
    message = trajectory.error or trajectory.end_reason.value
    return {"type": trajectory.end_reason.value, "message": message, "traceback": trajectory.traceback or None}


def _timing(trajectory: Trajectory) -> Json:
    start = datetime.fromisoformat(trajectory.started_at).timestamp() if trajectory.started_at else 0.0
    return {
        "start": start,
        "agent": {
            "start": start,
            "end": start + trajectory.seconds,
            "model": {"duration": trajectory.times.model},
            "harness": {"duration": max(0.0, trajectory.seconds - trajectory.times.model)},
        },
    }
