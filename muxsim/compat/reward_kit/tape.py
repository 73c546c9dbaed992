"""Recordings of what a policy has answered, in reward-kit's files.

A line is ``{"env_index": int, "step": int, "messages": [...]}``: which environment, which of its turns, and all that
was said up to then, with the results of that turn. A playback uses only each turn's own reply.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from muxsim.compat.reward_kit.renamed import renamed
from muxsim.rollouts.policy.playback import PLAYBACK_VARIABLES, PlaybackError, playback_file

Messages: TypeAlias = list[dict[str, Any]]
Turns: TypeAlias = dict[str, list[dict[str, Any]]]
"""By environment, each turn as ``{"step": int, "messages": [...]}``, with steps from 0 on."""

_NEW, _OLD = PLAYBACK_VARIABLES
_IMAGE: Final = {"type": "text", "text": "[an image]"}


class _Line(msgspec.Struct):
    env_index: int
    step: int
    messages: Messages


def named_file() -> Path | None:
    """The file that the environment variables name, if they name one. Raises `PlaybackError`: they name two."""
    file = playback_file()
    if file is not None and not _is_set(_NEW):
        renamed(_OLD, f"the variable is {_NEW} now")
    return file


def is_recorded(file: Path) -> bool:
    """Whether there is anything on it."""
    return file.exists() and file.stat().st_size > 0


def load(file: Path) -> Turns:
    """What is on a tape. Raises `PlaybackError`, which names the line that is none."""
    turns: dict[int, dict[int, Messages]] = {}
    try:
        content = file.read_bytes()
    except OSError as error:
        raise PlaybackError(f"{file}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            try:
                read = msgspec.json.decode(line, type=_Line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise PlaybackError(f"{file}, line {number}: {error}; remove the file to record it again") from None
            turns.setdefault(read.env_index, {})[read.step] = read.messages
    return {str(env): list(_numbered(steps)) for env, steps in turns.items()}


def _numbered(steps: Mapping[int, Messages]) -> Iterator[dict[str, Any]]:
    """Turns in their order: eval-protocol writes a line for each call of a reply, which is one turn all the same."""
    before: Messages = []
    count = 0
    for _, messages in sorted(steps.items()):
        goes_on = bool(before) and messages[: len(before)] == before
        if not (goes_on and _replies(messages) == _replies(before)):
            yield {"step": count, "messages": messages}
            count += 1
        before = messages


def save(file: Path, env_index: int, conversation: Sequence[Mapping[str, Any]]) -> None:
    """Add an episode that is over, a line for each of its turns. Images are left out of it."""
    ends = [at for at, message in enumerate(conversation) if message.get("role") == "assistant"][1:]
    lines = []
    for step, end in enumerate([*ends, len(conversation)]):
        messages = [_without_images(message) for message in conversation[:end]]
        if _replies(messages):
            lines.append(json.dumps({"env_index": env_index, "step": step, "messages": messages}) + "\n")
    with file.open("a", encoding="utf-8") as tape:
        tape.write("".join(lines))


def reply_in(messages: Messages) -> dict[str, Any] | None:
    """The turn's own reply: the last message of the assistant's with calls, else its last; None if there is none."""
    said = [message for message in messages if message.get("role") == "assistant"]
    return next((message for message in reversed(said) if message.get("tool_calls")), said[-1] if said else None)


def _replies(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(message.get("role") == "assistant" for message in messages)


def _without_images(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    is_image = [isinstance(part, dict) and part.get("type") == "image_url" for part in content]
    return {**message, "content": [_IMAGE if image else part for part, image in zip(content, is_image, strict=True)]}


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable))
