"""Policies and replies that other people have written, looked at before they are believed. Pure."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from muxsim.rollouts.data.trajectory import Usage
from muxsim.rollouts.policy.protocol import Policy, PolicyError, Reply

_WANTED = "next_message() has to return a Reply (muxsim.rollouts.policy.protocol)"


class WrongReply(PolicyError):
    """What a policy returned is no reply. The message says what is wanted."""


def checked_policy(policy: Any) -> Policy:
    """A policy that can be asked. Raises `PolicyError`, which says what is missing."""
    if isinstance(policy, type):
        raise PolicyError(f"{policy!r:.80} is a class: the policy is an instance of it")
    method = getattr(policy, "next_message", None)
    if not callable(method):
        raise PolicyError(f"{policy!r:.80} is no policy: it has no method next_message(conversation, tools, seed)")
    try:
        inspect.signature(method).bind([], [], 0)
    except TypeError as error:
        raise PolicyError(f"{policy!r:.80}: next_message has to take (conversation, tools, seed): {error}") from None
    except ValueError:  # some that are written in C have no signature
        pass
    checked: Policy = policy
    return checked


def checked_reply(reply: Any) -> Reply:
    """A reply as it has to be: a copy, for what a policy does to its own afterwards is not on record.

    Raises `WrongReply`, which says what is wanted.
    """
    if not isinstance(reply, Reply):
        raise WrongReply(f"{_WANTED}, not {type(reply).__name__} {reply!r:.80}")
    if not isinstance(reply.message, dict) or reply.message.get("role") != "assistant":
        raise WrongReply(f"{_WANTED} whose message is a dict with role 'assistant', not {reply.message!r:.80}")
    calls = reply.message.get("tool_calls") or []
    if not isinstance(calls, list) or not all(map(_is_call, calls)):
        form = '[{"id": …, "type": "function", "function": {"name": …, "arguments": …}}]'
        raise WrongReply(f"{_WANTED} whose message has tool_calls as {form}, not {calls!r:.80}")
    if not isinstance(reply.usage, Usage):
        raise WrongReply(f"{_WANTED} whose usage is a Usage (muxsim.rollouts.data.trajectory), not {reply.usage!r:.80}")
    if not isinstance(reply.throttled, int | float):
        raise WrongReply(f"{_WANTED} whose throttled is a number of seconds, not {reply.throttled!r:.80}")
    try:
        message, tokens = msgspec.json.decode(msgspec.json.encode((reply.message, reply.tokens)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WrongReply(f"{_WANTED} that is JSON: {error}") from None
    return Reply(message, msgspec.structs.replace(reply.usage), tokens, reply.finish_reason, reply.throttled)


def _is_call(call: Any) -> bool:
    return isinstance(call, dict) and isinstance(call.get("function"), dict)
