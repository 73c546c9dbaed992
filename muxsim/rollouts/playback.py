"""Recording what a policy answers into one file, and playing it back without the policy.

The file and its variables are reward-kit's: ``EP_PLAYBACK_FILE`` (or ``REWARD_KIT_PLAYBACK_FILE``) names a JSONL file.
When it is not there, the run records into it; when it is, the run plays it back and no model is called. A line is
``{"env_index": int, "step": int, "messages": [...]}``: which episode of the run, how many replies it had before, and
its conversation up to and with the reply. ``finish_reason`` is ours.

A policy sees only a conversation, so the runner tells which episode it is for by `current_episode`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final

import msgspec

from muxsim.errors import MuxsimError
from muxsim.rollouts.policy.protocol import Message, Policy, PolicyError, Reply

PLAYBACK_VARIABLES: Final = ("EP_PLAYBACK_FILE", "REWARD_KIT_PLAYBACK_FILE")

# The place of the episode in its run, set in the task that plays it.
current_episode: ContextVar[int | None] = ContextVar("muxsim_current_episode", default=None)

_IMAGE_PART: Final = {"type": "text", "text": "[an image]"}


class PlaybackError(MuxsimError):
    """A playback file is wrong. The message names file and line."""


class _Entry(msgspec.Struct, omit_defaults=True):
    env_index: int
    step: int
    messages: list[Message]
    finish_reason: str | None = None


class RecordingPolicy:
    """Asks another policy and writes down each of its replies, in the order in which they come."""

    def __init__(self, policy: Policy, path: str | Path) -> None:
        self._policy = policy
        self._path = Path(path)

    def __repr__(self) -> str:
        return f"RecordingPolicy({self._policy!r}, {str(self._path)!r})"

    def statistics(self) -> Any:
        """Those of the other policy, None if it has none."""
        return getattr(self._policy, "statistics", lambda: None)()

    async def aclose(self) -> None:
        """Close the other policy, if it holds anything."""
        close = getattr(self._policy, "aclose", None)
        if close is not None:
            await close()

    async def next_message(self, conversation: Sequence[Message], tools: Sequence[Message], seed: int) -> Reply:
        """The other policy's reply. Raises `PolicyError`, also when the reply cannot be written."""
        reply = await self._policy.next_message(conversation, tools, seed)
        messages = [_without_images(message) for message in (*conversation, reply.message)]
        entry = _Entry(_episode(), _replies_in(conversation), messages, reply.finish_reason)
        try:
            # Blocks, but for the time of one write of text: a reply that is not on record may not be acted on.
            with self._path.open("ab", buffering=0) as file:
                file.write(msgspec.json.encode(entry) + b"\n")
        except OSError as error:
            raise PolicyError(f"the reply could not be recorded in {self._path}: {error.strerror}") from None
        return reply


class PlaybackPolicy:
    """Answers with the replies of a recording. An episode whose recorded replies are used up gets no further tool call.

    Raises `PlaybackError`: the file cannot be read or is no recording.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._replies = {
            index: _recorded_replies(entries) for index, entries in sorted(_read_entries(self._path).items())
        }

    def __repr__(self) -> str:
        replies = sum(len(recorded) for _, recorded in self._replies.values())
        return f"<PlaybackPolicy {self._path}: {replies} replies in {len(self._replies)} episodes>"

    async def next_message(self, conversation: Sequence[Message], tools: Sequence[Message], seed: int) -> Reply:
        """The recorded reply to a conversation of this length. Raises `PolicyError`: the episode is not on record."""
        index = _episode()
        if index not in self._replies:
            raise PolicyError(f"{self._path} has no episode {index}: remove the file to record it again")
        before, replies = self._replies[index]
        step = _replies_in(conversation) - before
        if step < len(replies):
            return replies[step]
        return Reply({"role": "assistant", "content": "The recording ends here."})


def playback_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The file that the environment variables name, if they name one. Raises `PlaybackError`: they name two."""
    named = {environ[name] for name in PLAYBACK_VARIABLES if environ.get(name)}
    if len(named) > 1:
        raise PlaybackError(f"{' and '.join(PLAYBACK_VARIABLES)} name different files; set one of them")
    return Path(named.pop()) if named else None


def with_playback(make_policy: Callable[[], Policy], path: Path | None) -> Policy:
    """The policy to run with: played back from ``path`` if that is there, else made, and recorded if there is a path.

    A policy that is played back is never made, so it needs no key. Raises `PlaybackError`.
    """
    if path is None:
        return make_policy()
    if path.exists() and path.stat().st_size > 0:
        return PlaybackPolicy(path)
    return RecordingPolicy(make_policy(), path)


def _episode() -> int:
    index = current_episode.get()
    if index is None:
        raise PolicyError("no episode is being played: set muxsim.rollouts.playback.current_episode to its index")
    return index


def _replies_in(conversation: Sequence[Message]) -> int:
    return sum(message.get("role") == "assistant" for message in conversation)


def _without_images(message: Message) -> Message:
    """Each line repeats the whole conversation: with the images in it a flight would fill a disk."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [_IMAGE_PART if _is_image(part) else part for part in content]}


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("image_url", "image")


def _read_entries(path: Path) -> dict[int, list[_Entry]]:
    """A recording's entries by episode, in the order of their steps."""
    episodes: dict[int, dict[int, _Entry]] = {}
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PlaybackError(f"{path}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            entry = _entry(line, path, number)
            entries = episodes.setdefault(entry.env_index, {})
            if entry.step in entries:  # the episode was played once more: what came after this step is void
                for void in [step for step in entries if step > entry.step]:
                    del entries[void]
            entries[entry.step] = entry
    return {index: [entries[step] for step in sorted(entries)] for index, entries in episodes.items()}


def _entry(line: bytes, path: Path, number: int) -> _Entry:
    try:
        return msgspec.json.decode(line, type=_Entry)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PlaybackError(f"{path}, line {number}: {error}; remove the file to record it again") from None


def _recorded_replies(entries: Sequence[_Entry]) -> tuple[int, list[Reply]]:
    """How many replies the conversation starts with (examples in a prompt), and those of the policy, in order."""
    replies: list[Reply] = []
    before = 0
    known: list[Message] = []
    for entry in entries:
        reply = next((message for message in reversed(entry.messages) if message.get("role") == "assistant"), None)
        if reply is not None and not _goes_on(known, entry.messages):
            before = before if replies else _replies_in(entry.messages) - 1
            replies.append(Reply(reply, finish_reason=entry.finish_reason))
        known = entry.messages
    return before, replies


def _goes_on(known: list[Message], messages: list[Message]) -> bool:
    """Whether only results have been added. reward-kit writes a line for each call of a reply, not for each reply."""
    added = messages[len(known) :]
    return bool(known and added) and messages[: len(known)] == known and all(one.get("role") == "tool" for one in added)
