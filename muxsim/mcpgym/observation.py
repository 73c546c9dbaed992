"""Observations as the agent sees them: MCP content."""

import base64
import io
import json
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import gymnasium
import numpy as np
from mcp_types import ContentBlock, ImageContent, TextContent

from muxsim.mcpgym.jsonable import to_json, to_text

Env: TypeAlias = gymnasium.Env[Any, Any]

Content: TypeAlias = list[ContentBlock]
"""What `GymServer.step` returns and a tool may return."""

Describe: TypeAlias = Callable[[Any, Env], str]
"""`describe(observation, env)`: the observation in words. The reward has no place in it."""

Form: TypeAlias = Literal["text", "image", "text+image"]

FrameSize: TypeAlias = tuple[int, int]
"""Width and height, in pixels."""

_FORMS = get_args(Form)
_COLOURS = 3


class Observer:
    """Turns observations into content, in one form for the whole episode.

    `frame_size` is that of the images, which are scaled to it; without it they are as large as they are rendered.
    """

    def __init__(
        self, form: Form = "text", describe: Describe | None = None, *, frame_size: FrameSize | None = None
    ) -> None:
        if form not in _FORMS:
            raise ValueError(f"the form of observations is one of {', '.join(_FORMS)}, not {form!r}")
        self._form = form
        self._describe = describe
        self._frame_size = frame_size

    @property
    def shows_images(self) -> bool:
        return "image" in self._form

    def resized(self, frame_size: FrameSize | None) -> "Observer":
        """The same with images of another size."""
        return Observer(self._form, self._describe, frame_size=frame_size)

    def require_fit(self, env: Env) -> None:
        """Raises: ValueError: the environment does not render what this form shows."""
        if self.shows_images and env.render_mode != "rgb_array":
            raise ValueError(
                f"observations as images need an environment made with render_mode='rgb_array', "
                f"but its render_mode is {env.render_mode!r}"
            )

    def plain(self, observation: Any, env: Env) -> Any:
        """The observation as JSON that holds what the agent sees: the words of `describe`, or the value
        itself, or, with an image in it, a list of content blocks."""
        if self.shows_images:
            return [
                block.model_dump(mode="json", by_alias=True, exclude_none=True)
                for block in self.content(observation, env)
            ]
        return self._words(observation, env) if self._describe else to_json(observation)

    def content(self, observation: Any, env: Env) -> Content:
        content: Content = []
        if "text" in self._form:
            content.append(TextContent(type="text", text=self.text(observation, env)))
        if self.shows_images:
            content.append(_image(env, self._frame_size))
        return content

    def text(self, observation: Any, env: Env) -> str:
        """Raises: TypeError: there is no `describe` and the observation has no JSON form, or it gave no text."""
        if self._describe:
            return self._words(observation, env)
        return json.dumps(to_json(observation), ensure_ascii=False)

    def _words(self, observation: Any, env: Env) -> str:
        assert self._describe is not None
        words: Any = self._describe(observation, env)
        if not isinstance(words, str):
            raise TypeError(f"describe returned {words!r:.60}, which is no text")
        return to_text(words)


def to_content(value: Any) -> Content:
    """What a tool returned, as content: text and content blocks as they are, a list of them flat, the rest
    as JSON.

    Raises:
        TypeError: the value has no JSON form.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [TextContent(type="text", text=to_text(value))]
    if isinstance(value, ContentBlock):
        return [value]
    if isinstance(value, list | tuple) and all(isinstance(item, str | ContentBlock) for item in value):
        return [block for item in value for block in to_content(item)]
    return to_content(json.dumps(to_json(value), ensure_ascii=False))


def _image(env: Env, size: FrameSize | None) -> ImageContent:
    data = base64.b64encode(png(env.render(), size)).decode("ascii")
    return ImageContent(type="image", data=data, mime_type="image/png")


def png(frame: Any, size: FrameSize | None = None) -> bytes:
    """A frame of `render_mode="rgb_array"`, height x width x 3 of uint8, as PNG, scaled to `size` if there is one.

    Raises:
        ImportError: Pillow is missing.
        TypeError: it is not such a frame.
    """
    try:
        from PIL import Image  # noqa: PLC0415  # most environments show no image, and need not wait for it
    except ModuleNotFoundError as error:
        raise ImportError("observations as images need Pillow: pip install 'mcp-muxsim[gym]'") from error
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.shape[2:] != (_COLOURS,):
        shape = f"{frame.dtype} of shape {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__qualname__
        raise TypeError(f"a frame is uint8 of shape (height, width, 3), but render() returned {shape}")
    encoded = io.BytesIO()
    image = Image.fromarray(frame)
    if size is not None:
        # Each pixel is the average of those it stands for. The sharper filters cost five times as much, and their
        # ringing doubles the PNG.
        image = image.resize(size, Image.Resampling.BOX)
    image.save(encoded, "PNG")
    return encoded.getvalue()
