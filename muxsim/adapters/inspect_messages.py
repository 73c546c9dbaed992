"""muxsim's rows, results and chats as Inspect has them: samples, contents and messages. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from inspect_ai.dataset import Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentText,
)
from inspect_ai.solver import TaskState
from inspect_ai.tool import ToolCall

from muxsim.rollouts.data.arguments import arguments_of
from muxsim.rollouts.data.prompts import first_messages
from muxsim.rollouts.data.rows import DEFAULT_TEMPLATE, SEED_ADVICE, SEED_LIMIT, DatasetError, Row, derived_seed, shown
from muxsim.rollouts.environments.environment import Opened, ToolResult
from muxsim.rollouts.policy.messages import image_url, tool_messages

_TEMPLATE: Final = "user_prompt_template"
_CONTEXT: Final = "environment_context"


def sample_of(row: Row) -> Sample:
    """A row as a sample: what `row_of` needs of it to play it is in its metadata."""
    metadata: dict[str, Any] = {"seed": row.seed}
    if row.env:
        metadata["env"] = row.env
    told = {_CONTEXT: dict(row.environment_context), "evaluation_criteria": row.evaluation_criteria, "info": row.info}
    metadata |= {key: value for key, value in told.items() if value not in (None, {})}
    if isinstance(row.prompt, list):
        asked = [message_of(message) for message in row.prompt]
    else:
        if row.prompt is None and row.template != DEFAULT_TEMPLATE:
            metadata[_TEMPLATE] = row.template
        asked = [ChatMessageUser(content=row.template if row.prompt is None else row.prompt)]
    if row.system_prompt:
        asked.insert(0, ChatMessageSystem(content=row.system_prompt))
    target = row.evaluation_criteria if isinstance(row.evaluation_criteria, str) else ""
    return Sample(input=asked, target=target, id=row.id, metadata=metadata)


def row_of(state: TaskState) -> Row:
    """What to play for a sample, whoever has made it. Raises `DatasetError`: its seed or its environment is none."""
    where, metadata = f"sample {state.sample_id}", state.metadata
    id, env, seed = str(state.sample_id), metadata.get("env"), metadata.get("seed")
    if seed is None:
        seed = derived_seed("row", 0, id)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < SEED_LIMIT:
        raise DatasetError(SEED_ADVICE, where=where, key="metadata.seed", value=shown(seed))
    if not isinstance(env, str | None):
        raise DatasetError("must be the name of an environment", where=where, key="metadata.env", value=shown(env))
    context = metadata.get(_CONTEXT)
    return Row(
        id=id, seed=seed, env=env or "", environment_context=context if isinstance(context, dict) else {}, where=where
    )


def show(state: TaskState, row: Row, opened: Opened) -> None:
    """Fill into a sample's messages what the environment shows first, and put its instructions before them.

    Raises `DatasetError`: a message asks for what is not there.
    """
    initial = opened.initial_state
    observation = initial.get("observation") if isinstance(initial, dict) else None
    instructions = "" if any(message.role == "system" for message in state.messages) else opened.instructions
    system = instructions
    for message in state.messages:
        if message.role == "user" and isinstance(message.content, str):
            asked = first_messages(
                _asking(row, message.content, state.metadata), observation, instructions=instructions
            )
            message.content = parts_of(asked[-1]["content"])
            if instructions and system == instructions:  # less what it ends with, if this message shows it
                system = asked[0]["content"] if len(asked) > 1 else ""
    if system:
        state.messages.insert(0, ChatMessageSystem(content=system))


def _asking(row: Row, text: str, metadata: Mapping[str, Any]) -> Row:
    if text == metadata.get(_TEMPLATE, DEFAULT_TEMPLATE):
        return replace(row, template=text)
    return replace(row, prompt=text)


def content_of(result: ToolResult) -> list[Content]:
    """A result as a model sees it: its texts and images in their order, or its structured content alone."""
    parts: list[Content] = []
    for block in result.content:
        url = image_url(block)
        if url is not None:
            parts.append(ContentImage(image=url))
        else:
            parts.append(ContentText(text=tool_messages("", [block])[0]["content"]))
    return parts or [ContentText(text=tool_messages("", [], result.structured)[0]["content"])]


def parts_of(content: Any) -> Any:
    """The content of a chat message: text, or parts of text and of images."""
    if not isinstance(content, list):
        return content or ""
    return [
        ContentImage(image=part["image_url"]["url"])
        if part.get("type") == "image_url"
        else ContentText(text=str(part.get("text", "")))
        for part in content
    ]


def message_of(message: Mapping[str, Any]) -> ChatMessage:
    """A message in OpenAI's chat format."""
    content = parts_of(message.get("content"))
    match message["role"]:
        case "system" | "developer":
            return ChatMessageSystem(content=content)
        case "assistant":
            return ChatMessageAssistant(
                content=content, tool_calls=[_call_of(one) for one in message.get("tool_calls") or []]
            )
        case "tool":
            return ChatMessageTool(content=content, tool_call_id=message.get("tool_call_id"))
    return ChatMessageUser(content=content)


def _call_of(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function") or {}
    return ToolCall(
        id=str(call.get("id", "")),
        function=str(function.get("name", "")),
        arguments=arguments_of(function.get("arguments"))[0],
    )
