"""Recording what a policy answers into one file, and playing it back without the policy.

The file and its variables are reward-kit's: ``EP_PLAYBACK_FILE`` (or ``REWARD_KIT_PLAYBACK_FILE``) names a JSONL file.
When it is not there, the run records into it; when it is, the run plays it back and no model is called. A line is
``{"env_index": int, "step": int, "messages": [...]}``: which episode of the run, how many replies it had before, and
its conversation up to and with the reply. Lines of muxsim's name the episode and the policy's seed too, and one whose
conversation was too long for the model has in ``token_limit`` what was said in place of a reply.

A tape has whole episodes: what was said in one that failed is not on it. A policy sees only a conversation, so the
runner tells by `current_episode` which episode it is for, and when that is over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.trajectory import Usage
from muxsim.rollouts.policy.protocol import Message, Policy, PolicyError, Reply, TokenLimit

PLAYBACK_VARIABLES: Final = ("EP_PLAYBACK_FILE", "REWARD_KIT_PLAYBACK_FILE")


@dataclass(eq=False)
class PlayedEpisode:
    """An episode that is being played: its place in the run, and its name there."""

    index: int
    id: str
    spent: Usage = field(default_factory=Usage)
    """What calls have cost of a message that nobody waited for any more."""
    _when_over: list[Callable[[bool], None]] = field(default_factory=list)

    def when_over(self, callback: Callable[[bool], None]) -> None:
        """Call ``callback`` when the episode is over, with whether it is valid. It may raise `PolicyError`."""
        self._when_over.append(callback)

    def over(self, valid: bool) -> None:
        """Say that the episode is over. Raises `PolicyError`: somebody could not keep what was said in it."""
        for callback in self._when_over:
            callback(valid)


# Set in the task that plays it.
current_episode: ContextVar[PlayedEpisode | None] = ContextVar("muxsim_current_episode", default=None)

# Characters of a prompt in an error.
_SHOWN: Final = 100
_IMAGE_PART: Final = {"type": "text", "text": "[an image]"}


class PlaybackError(MuxsimError):
    """A playback file is wrong. The message names file and line."""


class _Entry(msgspec.Struct, omit_defaults=True):
    env_index: int
    step: int
    messages: list[Message]
    finish_reason: str | None = None
    episode: str | None = None
    seed: int | None = None
    token_limit: str | None = None


@dataclass(frozen=True)
class _Recorded:
    """One episode on a tape. A seed that is None has not been written down."""

    prompt: list[Message]
    seed: int | None
    replies: list[Reply | TokenLimit]


class RecordingPolicy:
    """Asks another policy, and writes its replies down, those of an episode when that has ended as a valid one."""

    def __init__(self, policy: Policy, path: str | Path) -> None:
        self._policy = policy
        self._path = Path(path)
        self._lines: dict[PlayedEpisode, list[bytes]] = {}

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
        """The other policy's reply. Raises `PolicyError`, also when it could not be written."""
        episode = _episode()
        if episode not in self._lines:
            self._append(b"")  # what cannot be written is known before a model is paid for
            self._lines[episode] = []
            episode.when_over(lambda valid: self._over(episode, valid))
        try:
            reply = await self._policy.next_message(conversation, tools, seed)
        except TokenLimit as limit:
            self._keep(episode, conversation, seed, token_limit=str(limit))
            raise
        self._keep(episode, conversation, seed, reply.message, finish_reason=reply.finish_reason)
        return reply

    def _keep(
        self, episode: PlayedEpisode, conversation: Sequence[Message], seed: int, *reply: Message, **how: str | None
    ) -> None:
        messages = [_plain(message) for message in (*conversation, *reply)]
        entry = _Entry(
            episode.index,
            _replies_in(conversation),
            messages,
            episode=episode.id,
            seed=seed,
            **how,
        )
        self._lines[episode].append(msgspec.json.encode(entry) + b"\n")

    def _over(self, episode: PlayedEpisode, valid: bool) -> None:
        lines = self._lines.pop(episode)
        if valid:
            self._append(b"".join(lines))

    def _append(self, lines: bytes) -> None:
        try:
            # Blocks, but for the time of one write of text.
            with self._path.open("ab", buffering=0) as file:
                file.write(lines)
        except OSError as error:
            raise PolicyError(f"the replies could not be recorded in {self._path}: {error.strerror}") from None


class PlaybackPolicy:
    """Answers with the replies of a recording, where that is of the very episode: its prompt and seed are compared.

    Raises `PlaybackError`: the file cannot be read or is no recording.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._episodes = {key: _recorded(entries) for key, entries in _read_entries(self._path).items()}

    def __repr__(self) -> str:
        replies = sum(len(recorded.replies) for recorded in self._episodes.values())
        return f"<PlaybackPolicy {self._path}: {replies} replies in {len(self._episodes)} episodes>"

    async def next_message(self, conversation: Sequence[Message], tools: Sequence[Message], seed: int) -> Reply:
        """The recorded reply. Raises `PolicyError`: it is not on the tape, or was given in another episode.

        Raises `TokenLimit` where the one that was recorded did.
        """
        episode = _episode()
        # A tape of somebody else's names none: there the place in the run is all that there is.
        recorded = self._episodes.get(episode.id) or self._episodes.get(episode.index)
        if recorded is None:
            raise self._fault(f"does not have episode {episode.id}")
        if recorded.seed not in (None, seed):
            raise self._fault(f"has episode {episode.id} with the seed {recorded.seed}, and it is played with {seed}")
        prompt = [_plain(message) for message in conversation[: len(recorded.prompt)]]
        if prompt != recorded.prompt:
            raise self._fault(f"has episode {episode.id} with another prompt, {_difference(recorded.prompt, prompt)}")
        step = _replies_in(conversation) - _replies_in(recorded.prompt)
        if step >= len(recorded.replies):
            raise self._fault(f"has no more than {len(recorded.replies)} replies of episode {episode.id}")
        reply = recorded.replies[step]
        if isinstance(reply, TokenLimit):
            raise TokenLimit(str(reply))
        return reply

    def _fault(self, text: str) -> PolicyError:
        return PolicyError(f"{self._path} {text}: remove the file to record it again")


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


def _episode() -> PlayedEpisode:
    episode = current_episode.get()
    if episode is None:
        raise PolicyError(
            "no episode is being played: set muxsim.rollouts.policy.playback.current_episode to a PlayedEpisode"
        )
    return episode


def _replies_in(conversation: Sequence[Message]) -> int:
    return sum(message.get("role") == "assistant" for message in conversation)


def _plain(message: Message) -> Message:
    """A message as a tape has it: each line repeats all before it, and with the images a flight would fill a disk."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [_IMAGE_PART if _is_image(part) else part for part in content]}


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in ("image_url", "image")


def _read_entries(path: Path) -> dict[str | int, list[_Entry]]:
    """A recording's entries by episode, its name where that is written down, in the order of their steps."""
    episodes: dict[str | int, dict[int, _Entry]] = {}
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PlaybackError(f"{path}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            entry = _entry(line, path, number)
            entries = episodes.setdefault(entry.env_index if entry.episode is None else entry.episode, {})
            if entry.step in entries:  # the episode was played once more: what came after this step is void
                for void in [step for step in entries if step > entry.step]:
                    del entries[void]
            entries[entry.step] = entry
    return {key: [entries[step] for step in sorted(entries)] for key, entries in episodes.items()}


def _entry(line: bytes, path: Path, number: int) -> _Entry:
    try:
        return msgspec.json.decode(line, type=_Entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PlaybackError(f"{path}, line {number}: {error}; remove the file to record it again") from None


def _recorded(entries: Sequence[_Entry]) -> _Recorded:
    """What the conversation starts with, examples in a prompt included, and the policy's replies, in order."""
    replies: list[Reply | TokenLimit] = []
    prompt: list[Message] = []
    known: list[Message] = []
    for entry in entries:
        said = [at for at, message in enumerate(entry.messages) if message.get("role") == "assistant"]
        if entry.token_limit is None and said and not _goes_on(known, entry.messages):
            prompt = prompt if replies else [_plain(message) for message in entry.messages[: said[-1]]]
            replies.append(Reply(entry.messages[said[-1]], finish_reason=entry.finish_reason))
        elif entry.token_limit is not None:
            prompt = prompt if replies else [_plain(message) for message in entry.messages]
            replies.append(TokenLimit(entry.token_limit))
        known = entry.messages
    return _Recorded(prompt, entries[0].seed, replies)


def _difference(recorded: list[Message], given: list[Message]) -> str:
    for place, (one, other) in enumerate(zip(recorded, given, strict=False)):
        if one != other:
            return f"message {place} was {_short(one)} and is {_short(other)}"
    return f"of {len(recorded)} messages, and it is played with {len(given)}"


def _short(message: Message) -> str:
    text = msgspec.json.encode(message.get("content")).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _goes_on(known: list[Message], messages: list[Message]) -> bool:
    """Whether only results have been added. reward-kit writes a line for each call of a reply, not for each reply."""
    added = messages[len(known) :]
    return bool(known and added) and messages[: len(known)] == known and all(one.get("role") == "tool" for one in added)
