"""What OpenEnv's clients read of an environment before they play it: schemas, metadata, and what is here. Pure."""

from __future__ import annotations

from typing import Any, Final

from muxsim import __version__

_OBJECT: Final = {"type": "object"}
_METADATA: Final = {
    **_OBJECT,
    "description": "What only a trainer sees: terminated, truncated, step, total_reward, seed, end_reason, info.",
}

# Clients that let a model write actions as JSON go by this title, and by what is required.
ACTION: Final[dict[str, Any]] = {
    "title": "CallToolAction",
    "description": 'Call a tool; {"type": "list_tools"} tells which there are.',
    "type": "object",
    "properties": {
        "type": {"const": "call_tool", "default": "call_tool"},
        "tool_name": {"type": "string", "description": "Name of the tool to call"},
        "arguments": {**_OBJECT, "description": "Arguments of the tool, by its schema", "default": {}},
        "metadata": {**_OBJECT, "description": "Passed over"},
    },
    "required": ["tool_name"],
    "additionalProperties": False,
}

OBSERVATION: Final[dict[str, Any]] = {
    "title": "CallToolObservation",
    "type": "object",
    "properties": {
        "tool_name": {"type": "string"},
        "result": {
            "description": "What the tool has said; null if there is none of this name",
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        "content": {"type": "array", "items": _OBJECT, "description": "Content blocks of MCP"},
                        "structured_content": {},
                        "is_error": {"type": "boolean"},
                        "data": {"description": "The structured content, else the text, else the content"},
                    },
                },
                {"type": "null"},
            ],
        },
        "error": {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {"error_type": {"type": "string"}, "message": {"type": "string"}},
                    "required": ["error_type", "message"],
                },
                {"type": "null"},
            ]
        },
    },
}

RESET_OBSERVATION: Final[dict[str, Any]] = {
    "title": "InitialObservation",
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "What an agent sees before its first move"},
        "content": {"type": "array", "items": _OBJECT, "description": "The same as content blocks, if it is that"},
        "value": {"description": "The same as JSON, if it is that"},
    },
    "required": ["text"],
}

STATE: Final[dict[str, Any]] = {
    "title": "State",
    "type": "object",
    "properties": {
        "episode_id": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "step_count": {"type": "integer", "minimum": 0},
        "metadata": _METADATA,
    },
}

SCHEMA: Final = {
    "action": ACTION,
    "observation": OBSERVATION,
    "state": STATE,
    "reset_observation": RESET_OBSERVATION,
}
HEALTH: Final = {"status": "healthy"}


def metadata_of(env: str) -> dict[str, Any]:
    """What there is to say of an environment of this name without starting it."""
    return {"name": env, "description": f"The environment {env!r} of a muxsim", "version": __version__}


def openapi_of(env: str) -> dict[str, Any]:
    """The HTTP side. Episodes are played on the WebSocket, so there is no path that would reset or step one."""
    posted = {"description": "A JSON-RPC response", "content": {"application/json": {"schema": _OBJECT}}}
    paths = {
        "/health": _get("That it is served"),
        "/metadata": _get("What it is called"),
        "/schema": _get("What actions, observations and states look like"),
        "/mcp": {
            "post": {
                "summary": "tools/list, tools/call, openenv/session/create, openenv/session/close",
                "requestBody": {"content": {"application/json": {"schema": _OBJECT}}},
                "responses": {"200": posted},
            }
        },
    }
    return {"openapi": "3.1.0", "info": {"title": env, "version": __version__}, "paths": paths}


def _get(summary: str) -> dict[str, Any]:
    content = {"application/json": {"schema": _OBJECT}}
    return {"get": {"summary": summary, "responses": {"200": {"description": summary, "content": content}}}}
