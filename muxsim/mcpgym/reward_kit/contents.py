"""What a tool of reward-kit's returns, as an agent is to see it."""

import dataclasses
import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent
from pydantic import BaseModel

from muxsim.mcpgym.jsonable import to_json
from muxsim.mcpgym.observation import Content, to_content

_PICTURE = re.compile(r"data:(image/[\w.+-]+);base64,([A-Za-z0-9+/=\s]*)")


def for_agent(value: Any, hidden: Collection[str]) -> CallToolResult:
    """The result of a call: an object as JSON, without the members that are `hidden`, and its pictures as images.

    An object is also a model of pydantic's, a dataclass, a text that is its JSON, and one of several in a list.

    Pictures are members that are a data URL, or have one as their `url`, as chat messages have it: an agent that reads
    them as text would read a hundred thousand characters.

    Raises: TypeError: the value has no JSON form.
    """
    if isinstance(value, CallToolResult):
        return value
    shown = _shown(value, hidden)
    if not isinstance(shown, dict):
        return CallToolResult(content=to_content(shown))
    words, pictures = apart(shown)
    return CallToolResult(content=[*to_content(words), *pictures])


def first_observation(value: Any) -> Any:
    """An observation as `control://initial_state` has it: JSON, or content blocks as JSON where there is a picture."""
    if not isinstance(value, dict):
        return to_json(value, lenient=True)
    if [*value] == ["observation"]:  # it is that
        return to_json(value["observation"], lenient=True)
    words, pictures = apart(value)
    if not pictures:
        return to_json(words, lenient=True)
    blocks: Content = [*to_content(words), *pictures]
    return [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in blocks]


def apart(value: dict[str, Any]) -> tuple[dict[str, Any], list[ImageContent]]:
    """An object without its pictures, and these."""
    found = {name: picture for name, one in value.items() if (picture := _picture(one)) is not None}
    return {name: one for name, one in value.items() if name not in found}, list(found.values())


def _shown(value: Any, hidden: Collection[str]) -> Any:
    """The same without the members of objects that are `hidden`; models as the objects that they are."""
    if isinstance(value, ContentBlock):
        return value
    if isinstance(value, str):
        return _shown_text(value, hidden)
    if isinstance(value, list | tuple):
        return [_shown(item, hidden) for item in value]
    value = _plain(value)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items() if name not in hidden}
    return value


def _shown_text(text: str, hidden: Collection[str]) -> str:
    try:
        value = json.loads(text) if text.lstrip().startswith(("{", "[")) else None
    except (ValueError, RecursionError):
        return text
    shown = _shown(value, hidden)
    return text if shown == value else json.dumps(shown, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Models of pydantic's as objects, wherever they are: the SDK of mcp 1 has written them so."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _picture(value: Any) -> ImageContent | None:
    url = value.get("url") if isinstance(value, dict) else value
    match = _PICTURE.fullmatch(url) if isinstance(url, str) else None
    return match and ImageContent(type="image", mime_type=match[1], data="".join(match[2].split()))
