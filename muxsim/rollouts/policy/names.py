"""Policies by the names that a command line gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Final

from muxsim.errors import ConfigError
from muxsim.rollouts.policy.checked import checked_policy
from muxsim.rollouts.policy.fireworks import FireworksPolicy
from muxsim.rollouts.policy.imported import made
from muxsim.rollouts.policy.openai import OpenAIPolicy
from muxsim.rollouts.policy.protocol import Policy
from muxsim.rollouts.policy.random import RandomPolicy
from muxsim.rollouts.policy.scripted import ScriptedPolicy

# By name: what stands behind the colon, "" for nothing; what makes the policy of it; and the options that takes, None
# where only that itself knows.
_Kind = tuple[str, Callable[..., Policy], frozenset[str] | None]


def _options_of(policy: type[OpenAIPolicy]) -> frozenset[str]:
    return frozenset(field.name for field in fields(policy) if field.kw_only)


def _python(spec: str, **options: Any) -> Policy:
    return checked_policy(made(spec, options, "policy"))


_KINDS: Final[Mapping[str, _Kind]] = {
    "random": ("", RandomPolicy, frozenset({"seed"})),
    "scripted": ("FILE", ScriptedPolicy.from_file, frozenset()),
    "openai": ("MODEL", OpenAIPolicy, _options_of(OpenAIPolicy)),
    "fireworks": ("MODEL", FireworksPolicy, _options_of(FireworksPolicy)),
    "python": ("MODULE:CLASS", _python, None),
}
FORMS: Final = tuple(f"{name}:{behind}" if behind else name for name, (behind, *_) in _KINDS.items())


def policy_from_spec(spec: str, options: Mapping[str, Any] | None = None) -> Policy:
    """The policy that ``spec`` names, in one of `FORMS`.

    ``options`` are keyword arguments of the policy; those that are None count as not given. Raises `ConfigError` for a
    name or an option that there is not, and `PolicyError` where the policy itself cannot be made.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    name, _, rest = spec.partition(":")
    if name not in _KINDS:
        raise _wrong(spec, f"there is no such policy; choose from {', '.join(FORMS)}")
    behind, make, known = _KINDS[name]
    if bool(behind) != bool(rest):
        raise _wrong(spec, f"write {name}:{behind}" if behind else f"write {name}, with nothing behind it")
    unknown = next((option for option in given if option not in known), None) if known is not None else None
    if known is not None and unknown is not None:
        raise _wrong(spec, f"{name} takes no {unknown!r}{_meant(unknown, known)}")
    return make(*([rest] if behind else []), **given)


def _meant(option: str, known: frozenset[str]) -> str:
    close = get_close_matches(option, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _wrong(spec: str, advice: str) -> ConfigError:
    return ConfigError(advice, file="the command line", key="policy", value=spec)
