"""MCP's results as OpenAI's chat messages, and a recorded conversation as an endpoint takes it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import countOf, methodcaller
from typing import Any, Final

import msgspec

from muxsim.rollouts.policy.json_text import is_json_object
from muxsim.rollouts.policy.protocol import Message

# A model that sees nothing at all after a call takes it for an error of its own, and many endpoints refuse "".
_EMPTY: Final = "(no output)"
_NOT_SHOWN: Final = "[image, not shown]"
_FORGOTTEN: Final = {"type": "text", "text": "(an earlier image, no longer shown)"}
_ROLE: Final = methodcaller("get", "role")
# What endpoints know of messages that are not their own; the strict ones refuse anything else.
_KEYS_SENT: Final = ("role", "content", "name", "tool_call_id")
# The trainer's.
_METADATA: Final = "metadata"


def tool_messages(
    call_id: str, content: Sequence[Mapping[str, Any]], structured: Any = None, *, images: bool = True
) -> tuple[Message, Message | None]:
    """The tool message for a result, MCP content blocks as JSON, and a user message with its images, if it has any.

    A result that has only structured content is shown as its JSON.

    Chat completions take only text in a tool message, so the images go to a message of the user's, as ``image_url``
    parts with data URLs, and the text says where they were. Where a reply has several tool calls, the user messages
    belong behind the tool messages of all of them: endpoints refuse anything between. Without ``images`` the text says
    that there is one which is not shown.
    """
    lines: list[str] = []
    urls: list[str] = []
    for block in content:
        url = image_url(block)
        if url is None:
            lines.append(_text(block))
        elif not images:
            lines.append(_NOT_SHOWN)
        else:
            urls.append(url)
            lines.append(f"[image {len(urls)}]")
    text = "\n".join(line for line in lines if line)
    if not text and structured is not None:
        text = msgspec.json.encode(structured).decode()
    message = {"role": "tool", "tool_call_id": call_id, "content": text or _EMPTY}
    return message, _shown(call_id, urls) if urls else None


def content_parts(content: Sequence[Mapping[str, Any]], structured: Any = None) -> list[dict[str, Any]]:
    """A result, MCP content blocks as JSON, as parts of a chat message in their order: ``text`` and ``image_url``.

    One that has nothing to show is its structured content as JSON, or says so.
    """
    parts: list[dict[str, Any]] = []
    for block in content:
        url = image_url(block)
        if url is not None:
            parts.append({"type": "image_url", "image_url": {"url": url}})
        elif text := _text(block):
            parts.append({"type": "text", "text": text})
    if parts:
        return parts
    return [{"type": "text", "text": _EMPTY if structured is None else msgspec.json.encode(structured).decode()}]


def request_messages(
    conversation: Iterable[Message], *, max_images: int | None = None, wire_name: Callable[[str], str] = str
) -> list[Message]:
    """A conversation as endpoints take it; the one given is left as it is.

    What a model has added to its own messages goes back as it came, since some endpoints insist; of others only the
    keys that all know. With the last ``max_images`` images only, since endpoints have a limit; with tools called by
    their ``wire_name``; and with a JSON object for the arguments of each earlier tool call: servers that render them
    with the model's own template fail for the whole conversation where the model once wrote something else.
    """
    messages = [_sendable(message, wire_name) for message in conversation]
    return messages if max_images is None else _with_last_images(messages, max_images)


def without_images(messages: Iterable[Message]) -> list[Message]:
    """Messages with a line of text in place of each image, and with text for their content where nothing else is left.

    Who takes no images may well take no lists of parts either.
    """
    return [_without_images(message) if any(map(_is_image, _parts(message))) else message for message in messages]


def _without_images(message: Message) -> Message:
    parts = [{"type": "text", "text": _NOT_SHOWN} if _is_image(part) else part for part in _parts(message)]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    whole = all(isinstance(text, str) for text in texts) and len(texts) == len(parts)
    return {**message, "content": "\n".join(map(str, texts)) if whole else parts}


def turn_of(conversation: Iterable[Message]) -> int:
    """How many assistant messages there have been."""
    return countOf(map(_ROLE, conversation), "assistant")  # without Python's own loop: it is asked on every turn


def assistant_calls(calls: Iterable[tuple[str, Any]], turn: int) -> Message:
    """An assistant message with tool calls, given as names and arguments; their ids follow from ``turn``."""
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": call_id(turn, index),
                "type": "function",
                "function": {"name": name, "arguments": msgspec.json.encode(arguments).decode()},
            }
            for index, (name, arguments) in enumerate(calls)
        ],
    }


def call_id(turn: int, index: int) -> str:
    """A tool call's id where no endpoint has given one: unlike any other of its conversation."""
    return f"call_{turn}_{index}"


def image_url(block: Mapping[str, Any]) -> str | None:
    """The data URL of an image block, or of an embedded resource that is one."""
    if block.get("type") == "image":
        return _data_url(block.get("mimeType"), block.get("data"))
    resource = block.get("resource")
    if block.get("type") == "resource" and isinstance(resource, Mapping) and "blob" in resource:
        media = resource.get("mimeType")
        return _data_url(media, resource["blob"]) if str(media).startswith("image/") else None
    return None


def _data_url(media: Any, data: Any) -> str:
    return f"data:{media or 'image/png'};base64,{data or ''}"


def _text(block: Mapping[str, Any]) -> str:
    """What a block that is no image says to a model that reads."""
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "audio"}:
            return f"[audio, {block.get('mimeType', 'of an unknown kind')}, not shown]"
        case {"type": "resource_link"}:
            return " ".join(str(block[key]) for key in ("title", "name", "uri", "description") if block.get(key))
        case {"type": "resource", "resource": {"text": str(text)}}:
            return text
        case {"type": "resource", "resource": {"uri": uri}}:
            return f"[resource {uri}, not shown]"
    return msgspec.json.encode(block).decode()


def _shown(call_id: str, urls: Sequence[str]) -> Message:
    parts: list[dict[str, Any]] = []
    for number, url in enumerate(urls, start=1):
        parts.append({"type": "text", "text": f"[image {number}] of the result of {call_id}:"})
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return {"role": "user", "content": parts}


def _sendable(message: Message, wire_name: Callable[[str], str]) -> Message:
    if message.get("role") != "assistant":
        return {key: message[key] for key in _KEYS_SENT if key in message}
    sent = {key: value for key, value in message.items() if key != _METADATA}
    if sent.get("tool_calls"):
        sent["tool_calls"] = [_sendable_call(call, wire_name) for call in sent["tool_calls"]]
    return sent


def _sendable_call(call: dict[str, Any], wire_name: Callable[[str], str]) -> dict[str, Any]:
    function = call.get("function") or {}
    name, arguments = function.get("name"), function.get("arguments")
    if not is_json_object(arguments):
        if not isinstance(arguments, dict):
            arguments = {"not_json": arguments} if arguments else {}
        arguments = msgspec.json.encode(arguments).decode()
    sent = {"arguments": arguments, **({"name": wire_name(name)} if isinstance(name, str) else {})}
    return {**call, "function": {**function, **sent}}


def _with_last_images(messages: list[Message], limit: int) -> list[Message]:
    """Replaces all but the last images by a line of text."""
    spare = sum(_is_image(part) for message in messages for part in _parts(message)) - limit
    kept: list[Message] = []
    for message in messages:
        parts = _parts(message)
        if spare > 0 and any(map(_is_image, parts)):
            content = []
            for part in parts:
                content.append(_FORGOTTEN if _is_image(part) and spare > 0 else part)
                spare -= _is_image(part)
            kept.append({**message, "content": content})
        else:
            kept.append(message)
    return kept


def _parts(message: Message) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image_url"
