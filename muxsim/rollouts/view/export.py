"""A run for other programs: ATIF, Harbor's trajectory format, what verifiers reads, and moving pictures for people.

Rows of chat and of tokens are in `rollouts.view.tables`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from muxsim.rollouts.data.arguments import arguments_of
from muxsim.rollouts.data.images import is_reference, media_type, url_of
from muxsim.rollouts.data.run_folder import RunFolder, keep_runs
from muxsim.rollouts.data.tokens import turn_tokens
from muxsim.rollouts.data.trajectory import CONTROL_METADATA_KEY, Trajectory
from muxsim.rollouts.view.animation import frames_of, write_gif
from muxsim.rollouts.view.selection import Selection
from muxsim.rollouts.view.tables import ExportError, export_rows
from muxsim.rollouts.view.traces import TRACES, trace_rows
from muxsim.rollouts.view.writing import make_folder, whole

ATIF_VERSION: Final = "ATIF-v1.8"

# The images that ATIF knows; any other is told of in words.
_ATIF_IMAGES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
_LONGEST_FILE_NAME: Final = 200

Json = dict[str, Any]


def export_chat(
    run: RunFolder, file: str | Path, *, inline_images: bool = False, bare: bool = False, **chosen: Any
) -> int:
    """Write `chat_rows` as JSONL; returns how many. Raises `ExportError`."""
    return export_rows(run, file, inline_images=inline_images, bare=bare, **chosen)


def export_traces(run: RunFolder, folder: str | Path, *, inline_images: bool = False, **chosen: Any) -> int:
    """Write `trace_rows` into a folder as verifiers reads it, ``traces.jsonl``; returns how many.

    Raises `ExportError`.
    """
    file = Path(folder) / TRACES
    count = 0
    try:
        with whole(file) as unfinished, unfinished.open("wb") as out:
            for row in trace_rows(run, inline_images=inline_images, **chosen):
                out.write(msgspec.json.encode(row) + b"\n")
                count += 1
    except OSError as error:
        raise ExportError(f"{file} could not be written: {error.strerror or error}") from None
    return count


def export_gif(run: RunFolder, folder: str | Path, *, frames_per_second: float = 4.0, **chosen: Any) -> list[Path]:
    """Write a GIF for each episode that shows images, ``<id>.gif``. Raises `ExportError` and `AnimationError`."""
    folder = Path(folder)
    written = []
    names = _Names(folder, "gif")
    try:
        for trajectory in Selection(**chosen).of(run):
            frames = frames_of(trajectory)
            if frames:
                make_folder(folder)
                written.append(names.of(trajectory.id))
                write_gif(frames, run.path, written[-1], frames_per_second=frames_per_second)
    except OSError as error:
        raise ExportError(f"{folder} could not be written: {error.strerror or error}") from None
    if not written:
        raise ExportError(f"{run.path}: none of these episodes has shown an image")
    return written


def export_atif(run: RunFolder, folder: str | Path, **chosen: Any) -> list[Path]:
    """Write an ATIF document for each episode, ``<id>.json``, and the images that they show beside them.

    Episodes without a single message, whose environment never started, have no such document. Raises `ExportError`.
    """
    folder = Path(folder)
    written = []
    names = _Names(folder, "json")
    try:
        make_folder(folder)
        for trajectory in Selection(**chosen).of(run):
            if trajectory.messages:
                document = atif(trajectory, run)
                _copy_images(document, run.path, folder)
                written.append(names.of(trajectory.id))
                written[-1].write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    except OSError as error:
        raise ExportError(f"{folder} could not be written: {error.strerror or error}") from None
    return written


def atif(trajectory: Trajectory, run: RunFolder) -> Json:
    """An episode as an ATIF document.

    Each message is a step, and tool results are the observations of the step that called. The control plane, which
    ATIF has no place for, is in the ``extra`` of each observation, and what became of the episode in that of the root.
    """
    policy = run.config.policy
    steps = _Steps(trajectory).steps
    return _without_none(
        schema_version=ATIF_VERSION,
        trajectory_id=trajectory.id,
        session_id=trajectory.session or None,
        agent=_without_none(
            name="muxsim",
            version=run.config.muxsim,
            model_name=policy.get("model"),
            tool_definitions=trajectory.tools or None,
            extra={"policy": policy},
        ),
        steps=steps,
        final_metrics=_final_metrics(trajectory, len(steps)),
        extra=_without_none(
            env=trajectory.env,
            seed=trajectory.seed,
            row=trajectory.row,
            sample=trajectory.sample,
            end_reason=trajectory.end_reason.value,
            valid=trajectory.valid,
            total_reward=trajectory.total_reward,
            error=trajectory.error,
            initial_state=trajectory.initial_state,
            evaluation_criteria=trajectory.evaluation_criteria,
            info=trajectory.info,
            files=msgspec.to_builtins(trajectory.files) or None,
        ),
    )


class _Steps:
    """Turns messages into ATIF's steps, one after the other."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.steps: list[Json] = []
        self._called: Json = {}
        self._tokens = iter(_tokens_of_replies(trajectory))
        for message in trajectory.messages:
            self._add(message)
        if trajectory.started_at:
            self.steps[0]["timestamp"] = trajectory.started_at

    def _add(self, message: Json) -> None:
        role = message.get("role")
        if role == "assistant":
            self._append("agent", message, **self._of_reply(message))
            self._called = self.steps[-1]
        elif role == "tool" and self._called:
            self._observe(self._called, message)
        else:  # developer messages are the system's; a result that nobody has asked for is nobody's else
            self._append("user" if role == "user" else "system", message)

    def _append(self, source: str, message: Json, **more: Any) -> None:
        step = {"step_id": len(self.steps) + 1, "source": source, "message": _content(message.get("content"))}
        self.steps.append(step | more)

    def _of_reply(self, message: Json) -> Json:
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        return _without_none(
            reasoning_content=reasoning if isinstance(reasoning, str) else None,
            tool_calls=[_tool_call(call) for call in message.get("tool_calls") or ()] or None,
            metrics=_metrics(next(self._tokens, None)),
        )

    def _observe(self, step: Json, message: Json) -> None:
        calls = {call["tool_call_id"] for call in step.get("tool_calls", ())}
        called = message.get("tool_call_id")
        control = (message.get("metadata") or {}).get(CONTROL_METADATA_KEY)
        result = _without_none(
            source_call_id=called if called in calls else None,
            content=_content(message.get("content")),
            extra={CONTROL_METADATA_KEY: control} if control is not None else None,
        )
        step.setdefault("observation", {"results": []})["results"].append(result)


def _without_none(**members: Any) -> Json:
    return {name: value for name, value in members.items() if value is not None}


def _tokens_of_replies(trajectory: Trajectory) -> list[Json | None]:
    """One entry for each assistant message: those that a prompt starts with were not the policy's."""
    replies = sum(message.get("role") == "assistant" for message in trajectory.messages)
    return [None] * (replies - len(trajectory.tokens)) + trajectory.tokens


def _tool_call(call: Json) -> Json:
    function = call.get("function") or {}
    raw = function.get("arguments")
    arguments, problem = arguments_of(raw)
    return _without_none(
        tool_call_id=str(call.get("id", "")),
        function_name=str(function.get("name", "")),
        arguments=arguments,
        extra={"raw_arguments": raw} if problem or raw in (None, "") else None,
    )


def _metrics(tokens: Json | None) -> Json | None:
    if not tokens:
        return None
    told = turn_tokens(tokens)
    logprobs = tokens.get("logprobs")
    numbers = told.logprobs if told.completion is not None else _numbers(logprobs)
    return (
        _without_none(
            prompt_token_ids=told.prompt,
            completion_token_ids=told.completion,
            logprobs=numbers,
            extra=_without_none(
                logprobs=logprobs if logprobs and numbers is None else None,
                problem=tokens.get("problem"),
            )
            or None,
        )
        or None
    )


def _numbers(logprobs: Any) -> list[float] | None:
    """Those of an endpoint that tells no ids beside them."""
    entries = logprobs.get("content") if isinstance(logprobs, dict) else logprobs
    if not isinstance(entries, list):
        return None
    found = [entry.get("logprob") if isinstance(entry, dict) else entry for entry in entries]
    numbers = [float(number) for number in found if isinstance(number, int | float)]
    return numbers if len(numbers) == len(entries) else None


def _final_metrics(trajectory: Trajectory, steps: int) -> Json:
    usage = trajectory.usage
    counted = usage.prompt_tokens or usage.completion_tokens
    return _without_none(
        total_prompt_tokens=usage.prompt_tokens if counted else None,
        total_completion_tokens=usage.completion_tokens if counted else None,
        total_steps=steps,
        extra={
            "seconds": trajectory.seconds,
            "environment_steps": len(trajectory.steps),
            "times": msgspec.to_builtins(trajectory.times),
        },
    )


def _content(content: Any) -> str | list[Json]:
    """A message's content as ATIF's: text, or parts where it shows an image."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = [_part(part) for part in content] if isinstance(content, list) else [_words(content)]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(part: Any) -> Json:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    url = url_of(part) if isinstance(part, dict) else ""
    if is_reference(url) and media_type(url) in _ATIF_IMAGES:
        return {"type": "image", "source": {"media_type": media_type(url), "path": url}}
    return _words({"type": "image_url", "url": url[:_LONGEST_FILE_NAME]} if url else part)


def _words(value: Any) -> Json:
    return {"type": "text", "text": msgspec.json.encode(value).decode()}


class _Names:
    """A file of a folder for each episode, which no other has, and none that a run consists of."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self._folder, self._suffix = folder, suffix
        self._given: Counter[str] = Counter()

    def of(self, id: str) -> Path:
        """Raises `RunError`: the folder is a run's own."""
        name = quote(id, safe=" #").lstrip(".")
        if len(name) > _LONGEST_FILE_NAME or not name or name != quote(id, safe=" #"):
            name = f"{name[:_LONGEST_FILE_NAME]}-{hashlib.sha256(id.encode()).hexdigest()[:16]}"
        self._given[id] += 1  # twice in a file that somebody has put together of two runs
        again = f".{self._given[id]}" if self._given[id] > 1 else ""
        path = self._folder / f"{name}{again}.{self._suffix}"
        keep_runs(path)
        return path


def _copy_images(document: Json, run: Path, folder: Path) -> None:
    for path in sorted(_paths(document["steps"])):
        if not (folder / path).exists() and (run / path).exists():
            (folder / path).parent.mkdir(exist_ok=True)
            shutil.copyfile(run / path, folder / path)


def _paths(value: Any) -> set[str]:
    """The images that steps show: only those that this module has put there."""
    contents = [step["message"] for step in value]
    contents += [result["content"] for step in value for result in step.get("observation", {}).get("results", ())]
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return {part["source"]["path"] for part in parts if part["type"] == "image"}
