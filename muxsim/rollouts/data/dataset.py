"""Datasets: JSONL files whose rows say what to play, read strictly and whole before anything starts.

A row has reward-kit's form (``id``, ``system_prompt``, ``user_prompt_template``, ``environment_context``,
``evaluation_criteria``) or the plain one (``prompt``, ``info``). Both may name their environment (``env``).

* A seed is ``environment_context.seed`` or ``seed``. A row without one gets a seed that follows from the base seed and
  the row's id. All samples of a row start from the row's seed: a group shares its start state, and its policies differ
  (`Episode.policy_seed`).
* In ``user_prompt_template``, ``{observation}`` and the keys of ``environment_context`` are filled in, with dots for
  what is inside (``{map.size}``); ``{{word}}`` gives a literal ``{word}``; other braces stay. In a ``prompt`` only
  ``{observation}`` is filled in.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec

from muxsim.errors import MuxsimError

Message = dict[str, Any]

# The same as the sessions': non-negative, 32 bits with the sign.
SEED_LIMIT: Final = 2**31
DEFAULT_TEMPLATE: Final = "{observation}"
# A model has to be asked something, also where the environment tells nothing before the first call.
_NOTHING_TO_SHOW: Final = "Begin."

_KEYS: Final = (
    "id",
    "env",
    "seed",
    "system_prompt",
    "user_prompt_template",
    "environment_context",
    "evaluation_criteria",
    "user_simulation",
    "prompt",
    "info",
)
_ROLES: Final = ("system", "developer", "user", "assistant", "tool")
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*"
# Doubled braces come first, so that `{{word}}` is seen whole.
_PLACEHOLDER: Final = re.compile(r"\{\{(" + _NAME + r")\}\}|\{(" + _NAME + r")\}")
_SHOWN_CHARACTERS: Final = 80
_SEED_ADVICE: Final = f"a seed is a whole number from 0 to {SEED_LIMIT - 1}"
_BOM: Final = b"\xef\xbb\xbf"


class DatasetError(MuxsimError):
    """A dataset is wrong. ``str()`` is one line: file, line, key, value, what to do.

    ``where`` is ``tasks.jsonl, line 3``, or ``row 3`` for rows that come from a program.
    """

    def __init__(self, advice: str, *, where: str = "", key: str = "", value: str = "") -> None:
        self.advice = advice
        self.where = where
        self.key = key
        self.value = value
        named = f"{key} = {value}" if value else key
        super().__init__(": ".join(part for part in (where, named, advice) if part))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What to play. A ``prompt`` goes before the ``template``.

    ``env`` is "" until `Dataset.with_environments` has settled it.
    """

    id: str
    seed: int
    env: str = ""
    system_prompt: str = ""
    template: str = DEFAULT_TEMPLATE
    prompt: str | list[Message] | None = None
    environment_context: Mapping[str, Any] = field(default_factory=dict)
    evaluation_criteria: Any = None
    info: Any = None
    where: str = ""


@dataclass(frozen=True, slots=True)
class Episode:
    """One sample of a row.

    ``index`` is its place in the run, ``id`` its name there: the row's, and in groups ``row#sample``.
    """

    index: int
    id: str
    row: Row
    sample: int = 0

    @property
    def policy_seed(self) -> int:
        """The seed for a policy: the environment's for the first sample, another for each further one of a group."""
        return self.row.seed if self.sample == 0 else _derived_seed("policy", self.row.seed, self.sample)


@dataclass(frozen=True)
class Dataset:
    """The rows to play; ``source`` is the file as it was given, "" for generated rows and those of a program."""

    rows: tuple[Row, ...]
    source: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def sha256(self) -> str:
        """The hash of what the rows say, with derived seeds and environments, and whatever the file's layout."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(msgspec.json.encode(replace(row, where=""), order="deterministic") + b"\n")
        return digest.hexdigest()

    def episodes(self, rollouts_per_row: int = 1) -> list[Episode]:
        """All episodes, the samples of a row side by side."""
        if rollouts_per_row < 1:
            raise DatasetError("a row has at least one rollout", key="rollouts_per_row", value=str(rollouts_per_row))
        pairs = [(row, sample) for row in self.rows for sample in range(rollouts_per_row)]
        grouped = rollouts_per_row > 1
        return [
            Episode(index, f"{row.id}#{sample}" if grouped else row.id, row, sample)
            for index, (row, sample) in enumerate(pairs)
        ]

    def with_environments(self, names: Sequence[str], default: str | None = None) -> Dataset:
        """The rows with their environments settled: their own, else ``default``, else the only one of ``names``.

        Raises `DatasetError` for a row without one, or with one that is not in ``names``.
        """
        only = names[0] if len(names) == 1 else ""
        rows = tuple(replace(row, env=_known_env(row, row.env or default or only, names)) for row in self.rows)
        return Dataset(rows, self.source)


def load_dataset(path: str | Path, *, base_seed: int = 0) -> Dataset:
    """The rows of a JSONL file; ``base_seed`` is for those without a seed.

    Raises `DatasetError`: it cannot be read, has no rows, or a row is wrong.
    """
    file = str(path)
    try:
        content = Path(path).read_bytes().removeprefix(_BOM)
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror}", where=file) from None
    if content.lstrip().startswith(b"["):
        raise DatasetError(
            "is one JSON array; a dataset has one object on each line: `jq -c '.[]'` makes it", where=file
        )
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    read = [(f"line-{number}", f"{file}, line {number}", _decoded(line, file, number)) for number, line in lines]
    if not read:
        raise DatasetError("has no rows", where=file)
    return Dataset(_rows(read, base_seed), file)


def dataset_from_rows(rows: Iterable[Mapping[str, Any]], *, base_seed: int = 0) -> Dataset:
    """The same for rows that a program has made. Raises `DatasetError`."""
    read = [(f"row-{index}", f"row {index}", _as_json(row, index)) for index, row in enumerate(rows)]
    return Dataset(_rows(read, base_seed))


def generate_dataset(rollouts: int, *, envs: Sequence[str] = (), first_seed: int = 0) -> Dataset:
    """``rollouts`` rows without prompts, dealt to ``envs`` in turn; the seeds of each count up from ``first_seed``."""
    if rollouts < 1:
        raise DatasetError("at least one is needed", key="rollouts", value=str(rollouts))
    names = list(envs) or [""]
    last_seed = first_seed + (rollouts - 1) // len(names)
    if first_seed < 0 or last_seed >= SEED_LIMIT:
        raise DatasetError(_SEED_ADVICE, key="seed", value=str(first_seed if first_seed < 0 else last_seed))
    made = [(names[index % len(names)], first_seed + index // len(names)) for index in range(rollouts)]
    return Dataset(tuple(Row(id=f"{env or 'seed'}-{seed}", seed=seed, env=env) for env, seed in made))


def first_messages(row: Row, observation: Any = None, *, instructions: str = "") -> list[Message]:
    """The conversation that an episode starts with, in OpenAI's chat format.

    ``observation`` is the one of ``control://initial_state`` (text, JSON, or MCP content blocks, whose images become
    ``image_url`` parts), None if the environment has none. ``instructions`` are the environment's own, for a row
    without a system prompt. Raises `DatasetError`: the prompt asks for what is not there.
    """
    prompt = (
        row.prompt if isinstance(row.prompt, list) else [{"role": "user", "content": _user_content(row, observation)}]
    )
    if isinstance(row.prompt, list):
        prompt = [_filled_message(message, row, observation) for message in row.prompt]
    if any(message["role"] in ("system", "developer") for message in prompt):
        return prompt
    system = row.system_prompt or instructions
    return [{"role": "system", "content": system}, *prompt] if system else prompt


def fill_template(template: str, values: Mapping[str, Any], *, where: str = "", key: str = "") -> str:
    """``template`` with its placeholders replaced: text as it is, anything else as JSON. Raises `DatasetError`."""

    def replacement(match: re.Match[str]) -> str:
        if match[1] is not None:
            return "{" + match[1] + "}"
        return _text(_lookup(match[2], values, where, key))

    return _PLACEHOLDER.sub(replacement, template)


# Rows as they are written.


def _decoded(line: bytes, file: str, number: int) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"is not JSON: {error}", where=f"{file}, line {number}") from None


def _as_json(row: Mapping[str, Any], index: int) -> Any:
    try:
        return msgspec.json.decode(msgspec.json.encode(row))
    except (TypeError, ValueError) as error:
        raise DatasetError(f"has no JSON form: {error}", where=f"row {index}") from None


def _rows(read: Iterable[tuple[str, str, Any]], base_seed: int) -> tuple[Row, ...]:
    """Rows from (id for those without, place, JSON)."""
    seen: dict[str, str] = {}
    rows = []
    for default_id, where, value in read:
        row = _Reader(where, value).row(default_id, base_seed)
        if row.id in seen:
            raise DatasetError(
                f"{seen[row.id]} has this id; each row needs its own", where=where, key="id", value=_shown(row.id)
            )
        seen[row.id] = where
        rows.append(row)
    return tuple(rows)


class _Reader:
    """Reads one row, and knows where it stands."""

    def __init__(self, where: str, value: Any) -> None:
        self._where = where
        if not isinstance(value, dict):
            raise DatasetError(f"is {_shown(value)}; a row is a JSON object", where=where)
        # Tables write null for what a row does not have.
        self._value = {key: one for key, one in value.items() if one is not None or key not in _KEYS}

    def row(self, default_id: str, base_seed: int) -> Row:
        self._check_keys()
        id = self._id(default_id)
        context = self._context()
        row = Row(
            id=id,
            seed=self._seed(context, base_seed, id),
            env=self._string("env"),
            system_prompt=self._string("system_prompt"),
            template=self._string("user_prompt_template") or DEFAULT_TEMPLATE,
            prompt=self._prompt(),
            environment_context=context,
            evaluation_criteria=self._value.get("evaluation_criteria"),
            info=self._value.get("info"),
            where=self._where,
        )
        _check_placeholders(row)
        return row

    def _fault(self, advice: str, key: str) -> DatasetError:
        value: Any = self._value
        for part in key.split("."):
            value = value.get(part, msgspec.UNSET) if isinstance(value, dict) else msgspec.UNSET
        return DatasetError(advice, where=self._where, key=key, value="" if value is msgspec.UNSET else _shown(value))

    def _check_keys(self) -> None:
        for key in self._value:
            if key not in _KEYS:
                near = difflib.get_close_matches(key, _KEYS, 1)
                advice = (
                    f"did you mean {near[0]}?"
                    if near
                    else f"put what your rewards need under info ({', '.join(_KEYS)})"
                )
                raise self._fault(f"no such key; {advice}", key)
        simulation = self._value.get("user_simulation")
        if isinstance(simulation, dict) and simulation.get("enabled"):
            raise self._fault(
                "users are not simulated here; take it out, and the prompt is all the agent is told", "user_simulation"
            )
        if "prompt" in self._value and "user_prompt_template" in self._value:
            raise self._fault("stands beside user_prompt_template; keep one of the two", "prompt")

    def _string(self, key: str) -> str:
        value = self._value.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._fault("must be text", key)
        return value

    def _id(self, default: str) -> str:
        value = self._value.get("id", default)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value:
            raise self._fault("must be text or a whole number", "id")
        return value

    def _context(self) -> dict[str, Any]:
        context = self._value.get("environment_context")
        if context is None:
            return {}
        if not isinstance(context, dict):
            raise self._fault("must be an object", "environment_context")
        return {key: one for key, one in context.items() if one is not None or key != "seed"}

    def _seed(self, context: Mapping[str, Any], base_seed: int, id: str) -> int:
        given = {
            key: seed
            for key, seed in (("environment_context.seed", context.get("seed")), ("seed", self._value.get("seed")))
            if seed is not None
        }
        for key, seed in given.items():
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEED_LIMIT:
                raise self._fault(_SEED_ADVICE, key)
        if len(set(given.values())) > 1:
            raise self._fault("differs from environment_context.seed; keep one of the two", "seed")
        return next(iter(given.values())) if given else _derived_seed("row", base_seed, id)

    def _prompt(self) -> str | list[Message] | None:
        prompt = self._value.get("prompt")
        if not isinstance(prompt, list):
            return self._string("prompt") or None
        if not prompt or not all(_is_message(message) for message in prompt):
            raise self._fault("must be text, or a list of chat messages with role and content", "prompt")
        prompt = [_without_nulls(message) for message in prompt]
        if "system_prompt" in self._value and any(message["role"] in ("system", "developer") for message in prompt):
            raise self._fault("stands beside a prompt that has a system message; keep one of the two", "system_prompt")
        return prompt


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict) and value.get("role") in _ROLES and isinstance(value.get("content"), str | list | None)
    )


def _without_nulls(message: Message) -> Message:
    """A message as endpoints take it: only its content may be null."""
    return {key: value for key, value in message.items() if value is not None or key == "content"}


def _known_env(row: Row, env: str, names: Sequence[str]) -> str:
    choice = ", ".join(names)
    if not env:
        raise DatasetError(f"names no environment; add env to the row, or name one for all ({choice})", where=row.where)
    if env not in names:
        near = difflib.get_close_matches(env, names, 1)
        advice = f"did you mean {near[0]}?" if near else f"there are: {choice}"
        raise DatasetError(f"no such environment; {advice}", where=row.where, key="env", value=_shown(env))
    return env


def _derived_seed(purpose: str, seed: int, of: str | int) -> int:
    digest = hashlib.sha256(f"{purpose}:{seed}:{of}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % SEED_LIMIT


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


# Prompts.


def _check_placeholders(row: Row) -> None:
    """Find a key that is missing before anything starts; what an observation holds is known only then."""
    if row.prompt is None:
        for name in _names(row.template):
            if not _is_observed(name):
                _lookup(name, _values(row, None), row.where, "user_prompt_template")


def _names(template: str) -> list[str]:
    return [match[2] for match in _PLACEHOLDER.finditer(template) if match[2] is not None]


def _is_observed(name: str) -> bool:
    return name.partition(".")[0] == "observation"


def _values(row: Row, observation: Any) -> dict[str, Any]:
    return {"seed": row.seed, **row.environment_context, "observation": observation}


def _lookup(name: str, values: Mapping[str, Any], where: str, key: str) -> Any:
    value: Any = values
    for part in name.split("."):
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, TypeError, ValueError):
            advice = (
                f"nothing to fill in for {{{name}}} (there are: {', '.join(values)}); {{{{{name}}}}} keeps the braces"
            )
            raise DatasetError(advice, where=where, key=key) from None
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _user_content(row: Row, observation: Any) -> str | list[dict[str, Any]]:
    if isinstance(row.prompt, str):
        return _plain(row.prompt, row, observation)
    if observation is None and row.template == DEFAULT_TEMPLATE:
        return _NOTHING_TO_SHOW
    asked = [name for name in _names(row.template) if _is_observed(name)]
    if asked and observation is None:
        raise _unobserved(row, "user_prompt_template")
    words, images = _words_and_images(observation)
    text = fill_template(row.template, _values(row, words), where=row.where, key="user_prompt_template")
    return _content(text, images if asked else [])


def _plain(prompt: str, row: Row, observation: Any) -> str | list[dict[str, Any]]:
    """A prompt with the observation filled in, and no other braces looked at."""
    if "observation" not in _names(prompt):
        return prompt
    if observation is None:
        raise _unobserved(row, "prompt")
    words, images = _words_and_images(observation)
    filled = _PLACEHOLDER.sub(lambda match: _text(words) if match[2] == "observation" else match[0], prompt)
    return _content(filled, images)


def _filled_message(message: Message, row: Row, observation: Any) -> Message:
    if message["role"] != "user" or not isinstance(message["content"], str):
        return message
    return {**message, "content": _plain(message["content"], row, observation)}


def _unobserved(row: Row, key: str) -> DatasetError:
    advice = "asks for {observation}, but the environment gives none before the first call (control://initial_state)"
    return DatasetError(advice, where=row.where, key=key)


def _content(text: str, images: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    return [{"type": "text", "text": text}, *images] if images else text


def _words_and_images(observation: Any) -> tuple[Any, list[dict[str, Any]]]:
    """An observation of MCP content blocks as its text and its images in chat format; any other is all words."""
    if not (isinstance(observation, list) and observation and all(_is_block(block) for block in observation)):
        return observation, []
    words = "\n".join(block["text"] for block in observation if block["type"] == "text")
    images = [
        {"type": "image_url", "image_url": {"url": f"data:{block['mimeType']};base64,{block['data']}"}}
        for block in observation
        if block["type"] == "image"
    ]
    return words, images


def _is_block(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if value.get("type") == "text":
        return isinstance(value.get("text"), str)
    return (
        value.get("type") == "image" and isinstance(value.get("data"), str) and isinstance(value.get("mimeType"), str)
    )
