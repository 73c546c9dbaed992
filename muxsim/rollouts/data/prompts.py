"""What an episode's conversation starts with: a row's templates, filled in.

In ``user_prompt_template``, ``{observation}`` and the keys of ``environment_context`` are filled in, with dots for what
is inside (``{map.size}``); ``{{word}}`` gives a literal ``{word}``; other braces stay. In a ``prompt`` only
``{observation}`` is filled in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from muxsim.rollouts.data.rows import DEFAULT_TEMPLATE, DatasetError, Message, Row

# A model has to be asked something, also where the environment tells nothing before the first call.
_NOTHING_TO_SHOW: Final = "Begin."
# A shorter end of some instructions may be the same as an observation by chance.
_LEAST_TOLD: Final = 8
_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*"
# Doubled braces come first, so that `{{word}}` is seen whole.
_PLACEHOLDER: Final = re.compile(r"\{\{(" + _NAME + r")\}\}|\{(" + _NAME + r")\}")


def first_messages(row: Row, observation: Any = None, *, instructions: str = "") -> list[Message]:
    """The conversation that an episode starts with, in OpenAI's chat format.

    ``observation`` is the one of ``control://initial_state`` (text, JSON, or MCP content blocks, whose images become
    ``image_url`` parts), None if the environment has none. ``instructions`` are the environment's own, for a row
    without a system prompt; where they end with the observation that the prompt shows too, it is left to that.
    Raises `DatasetError`: the prompt asks for what is not there.
    """
    prompt = (
        row.prompt if isinstance(row.prompt, list) else [{"role": "user", "content": _user_content(row, observation)}]
    )
    if isinstance(row.prompt, list):
        prompt = [_filled_message(message, row, observation) for message in row.prompt]
    if any(message["role"] in ("system", "developer") for message in prompt):
        return prompt
    system = row.system_prompt or _told_once(instructions, observation, prompt)
    return [{"role": "system", "content": system}, *prompt] if system else prompt


def _told_once(instructions: str, observation: Any, prompt: list[Message]) -> str:
    """Instructions without the observation that they end with, as the author kit has it, if the prompt shows it."""
    words, _ = _words_and_images(observation)
    asked = "\n".join(_words_of(message) for message in prompt)
    kept = instructions.rstrip()
    for told in (_text(words).strip(), json.dumps(words, ensure_ascii=False)):
        if len(told) >= _LEAST_TOLD and kept.endswith(told) and _text(words).strip() in asked:
            return kept.removesuffix(told).rstrip()
    return instructions


def _words_of(message: Message) -> str:
    content = message.get("content")
    if not isinstance(content, list):
        return str(content or "")
    return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))


def fill_template(template: str, values: Mapping[str, Any], *, where: str = "", key: str = "") -> str:
    """``template`` with its placeholders replaced: text as it is, anything else as JSON. Raises `DatasetError`."""

    def replacement(match: re.Match[str]) -> str:
        if match[1] is not None:
            return "{" + match[1] + "}"
        return _text(_lookup(match[2], values, where, key))

    return _PLACEHOLDER.sub(replacement, template)


def check_placeholders(row: Row) -> None:
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
