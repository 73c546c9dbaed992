"""The tokens of an episode, as far as its endpoint told them: of each reply, and in a row where replies follow. Pure.

Nothing is made up. A reply without ids has none; where the prompt of a reply does not begin with all that was read and
sampled before it, since a chat template has left something out or a text became other tokens, a new segment begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final

# Ids are counted in 32 bits with the sign, here and in the tables that they go to.
_ID_LIMIT: Final = 2**31
# How vLLM writes a token in logprobs with `return_tokens_as_token_ids`.
_AS_ID: Final = re.compile(r"token_id:(\d+)")
_NOT_TOLD: Final = "the endpoint told no token ids"


@dataclass(frozen=True, slots=True)
class TurnTokens:
    """The tokens of one reply: what the model read, and what it sampled.

    ``logprobs`` has a number for each of ``completion``, or is None. ``problem`` says why the two cannot be used
    together, "" if they can.
    """

    prompt: list[int] | None = None
    completion: list[int] | None = None
    logprobs: list[float] | None = None
    problem: str = _NOT_TOLD


@dataclass(frozen=True, slots=True)
class Link:
    """A reply in a row of such: ``new`` are the tokens of its prompt that were not there before.

    ``begins`` says why it begins a segment, "" for one that goes on with it and for an episode's first.
    """

    turn: int
    new: list[int]
    tokens: TurnTokens
    first: bool
    begins: str = ""


@dataclass(slots=True)
class Segment:
    """Tokens in a row as the model has seen them: a prompt, and all that came behind.

    ``mask`` is 1 for each token of ``completion`` that the policy sampled, 0 for what environment and chat template
    have put between. ``logprobs`` are as long, None where nothing was sampled or no number was told. ``turn`` is the
    first of ``turns`` replies, counted from 0.
    """

    turn: int
    prompt: list[int]
    begins: str = ""
    completion: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float | None] = field(default_factory=list)
    turns: int = 0

    def scored(self, unsampled: float = 0.0) -> list[float] | None:
        """The log probabilities as trainers take them, a number for each; None if one of a sampled token is unknown."""
        if any(one is None for one, sampled in zip(self.logprobs, self.mask, strict=True) if sampled):
            return None
        return [unsampled if one is None else one for one in self.logprobs]


def turn_tokens(recorded: Mapping[str, Any] | None) -> TurnTokens:
    """What a record of one reply comes to (`Trajectory.tokens`), whatever an endpoint has sent."""
    if not isinstance(recorded, Mapping):
        return TurnTokens()
    prompt, completion = _ids(recorded.get("prompt_token_ids")), _ids(recorded.get("token_ids"))
    named, logprobs = _told(recorded.get("logprobs"))
    problem = recorded.get("problem")
    if completion is None:
        completion = named
    elif named is not None and named != completion:
        problem = problem or "token_ids and logprobs name other tokens"
    if problem is None:
        missing = [name for name, ids in (("prompt_token_ids", prompt), ("token_ids", completion)) if ids is None]
        problem = f"the endpoint told no {' and no '.join(missing)}" if missing else ""
    fits = completion is not None and logprobs is not None and len(logprobs) == len(completion)
    return TurnTokens(prompt, completion, logprobs if fits else None, str(problem))


def links(turns: Iterable[TurnTokens]) -> Iterator[Link | None]:
    """Each reply with what it adds; None for one whose tokens are not known, behind which a segment begins."""
    known: list[int] | None = None
    begins = ""
    for index, turn in enumerate(turns):
        if turn.problem or turn.prompt is None or turn.completion is None:
            known, begins = None, f"reply {index}: {turn.problem}"
            yield None
            continue
        if known is not None and turn.prompt[: len(known)] == known:
            yield Link(index, turn.prompt[len(known) :], turn, first=False)
        else:
            if known is not None:
                begins = _difference(index, known, turn.prompt)
            yield Link(index, turn.prompt, turn, first=True, begins=begins)
        known = [*turn.prompt, *turn.completion]


def segments(turns: Iterable[TurnTokens]) -> list[Segment]:
    """The replies of an episode in as few rows of tokens as they make."""
    found: list[Segment] = []
    for link in links(turns):
        if link is None:
            continue
        if link.first:
            found.append(Segment(link.turn, link.new, link.begins))
        segment, between = found[-1], 0 if link.first else len(link.new)
        sampled = link.tokens.completion or []
        segment.completion += [*(link.new if between else ()), *sampled]
        segment.mask += [0] * between + [1] * len(sampled)
        segment.logprobs += [None] * between
        segment.logprobs += link.tokens.logprobs or [None] * len(sampled)
        segment.turns += 1
    return found


def _difference(index: int, known: Sequence[int], prompt: Sequence[int]) -> str:
    where = next((place for place, (one, two) in enumerate(zip(known, prompt, strict=False)) if one != two), None)
    found = (
        f"it has {len(prompt)} tokens, there were {len(known)}"
        if where is None
        else f"token {where} is {prompt[where]}, it was {known[where]}"
    )
    return f"the prompt of reply {index} does not begin with what was read and sampled before: {found}"


def _ids(value: object) -> list[int] | None:
    if not isinstance(value, list) or not all(_is_id(one) for one in value):
        return None
    return value


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _ID_LIMIT


def _told(logprobs: object) -> tuple[list[int] | None, list[float] | None]:
    """The ids and the numbers in log probabilities: a list with an entry for each token, or a list for each of both."""
    if isinstance(logprobs, Mapping):
        if "content" not in logprobs:  # as completions had them before there was chat, and Fireworks has them
            return _ids(logprobs.get("token_ids")), _numbers(logprobs.get("token_logprobs"))
        logprobs = logprobs["content"]
    if not isinstance(logprobs, list):
        return None, None
    entries = [one if isinstance(one, Mapping) else {"logprob": one} for one in logprobs]
    ids = [_id_of(entry) for entry in entries]
    return (ids if entries and None not in ids else None), _numbers([entry.get("logprob") for entry in entries])  # type: ignore[return-value]


def _id_of(entry: Mapping[str, Any]) -> int | None:
    given, text = entry.get("token_id"), entry.get("token")
    if _is_id(given):
        return int(given)  # type: ignore[arg-type]
    match = _AS_ID.fullmatch(text) if isinstance(text, str) else None
    return int(match[1]) if match and len(match[1]) <= len(str(_ID_LIMIT)) and int(match[1]) < _ID_LIMIT else None


def _numbers(values: object) -> list[float] | None:
    if not isinstance(values, list):
        return None
    numbers = [float(one) for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
    return numbers if len(numbers) == len(values) and all(map(isfinite, numbers)) else None
