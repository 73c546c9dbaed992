"""The frames of an episode as a moving picture."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.images import is_reference, url_of
from muxsim.rollouts.data.trajectory import Trajectory

if TYPE_CHECKING:
    from PIL.Image import Image

# The last frame stays, so that its end is seen before it begins again.
_LAST_FRAME: Final = 1.5
_NEEDED: Final = "pictures that move need Pillow: pip install 'mcp-muxsim[gym]'"
# Which Pillow does not read.
_DRAWN: Final = ".svg"


class AnimationError(MuxsimError):
    """A moving picture could not be made. The message names the file."""


def frames_of(trajectory: Trajectory) -> list[str]:
    """The images of an episode in the order in which they were shown, as references into the run's folder."""
    begun = next((n for n, one in enumerate(trajectory.messages) if one.get("role") == "assistant"), None)
    contents = [message.get("content") for message in trajectory.messages[:begun]]
    first = [url_of(part) for content in contents if isinstance(content, list) for part in content if _is_image(part)]
    steps = [block.get("path") for step in trajectory.steps for block in step.content if block.get("type") == "image"]
    return [name for name in (*first, *steps) if isinstance(name, str) and is_reference(name)]


def write_gif(frames: list[str], run: Path, file: Path, *, frames_per_second: float) -> None:
    """Write images of a run as a GIF that goes round. Raises `AnimationError`, and OSError for ``file``."""
    if find_spec("PIL") is None:
        raise AnimationError(_NEEDED)
    drawn = next((name for name in frames if name.endswith(_DRAWN)), None)
    if drawn is not None:
        raise AnimationError(f"{run / drawn}: an SVG cannot be a frame of a GIF")
    size = _largest(frames, run)
    durations = [round(1000 / frames_per_second)] * (len(frames) - 1) + [round(1000 * _LAST_FRAME)]
    first, *rest = frames
    more: Iterator[Image] = (_frame(run / name, size) for name in rest)  # one at a time: a flight has hundreds
    _frame(run / first, size).save(file, "GIF", save_all=True, append_images=more, duration=durations, loop=0)


def _is_image(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "image_url"


def _largest(frames: list[str], run: Path) -> tuple[int, int]:
    sizes = [_opened(run / name).size for name in dict.fromkeys(frames)]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _frame(path: Path, size: tuple[int, int]) -> Image:
    """An image on a ground of the common size."""
    from PIL import Image  # noqa: PLC0415 - of an extra

    image = _opened(path)
    try:
        frame = image.convert("RGB")
    except Exception as error:  # Pillow raises what it likes for what is broken
        raise AnimationError(f"{path} cannot be read: {error}") from None
    if frame.size == size:
        return frame
    ground = Image.new("RGB", size)
    ground.paste(frame, (0, 0))
    return ground


def _opened(path: Path) -> Image:
    from PIL import Image  # noqa: PLC0415 - of an extra

    try:
        return Image.open(path)
    except Exception as error:  # as above
        raise AnimationError(f"{path} cannot be read: {error}") from None
