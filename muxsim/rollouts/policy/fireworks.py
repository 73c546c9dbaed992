"""A policy that asks a model of Fireworks."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Final

from muxsim.rollouts.policy.openai import OpenAIPolicy

_URL: Final = "https://api.fireworks.ai/inference/v1"
# Fireworks refuses requests with more images.
_MOST_IMAGES: Final = 30
_SERVERLESS: Final = "accounts/fireworks/models/"


@dataclass(eq=False)
class FireworksPolicy(OpenAIPolicy):
    """An `OpenAIPolicy` for Fireworks; the key is ``FIREWORKS_API_KEY``.

    ``model`` is a path (``accounts/…``), or the bare name of one of Fireworks' own.
    """

    _: KW_ONLY
    base_url: str | None = _URL
    max_images: int | None = _MOST_IMAGES

    KEY_VARIABLE: ClassVar = "FIREWORKS_API_KEY"
    KEYED_URL: ClassVar = _URL

    def __post_init__(self) -> None:
        if "/" not in self.model:
            self.model = _SERVERLESS + self.model
        super().__post_init__()
