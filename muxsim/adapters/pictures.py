"""Images of results as pixels: whole, or not at all. Needs Pillow."""

from __future__ import annotations

import base64
import io
from typing import Any, Final

from PIL import Image

# Of a picture with more bits than these to a channel, eight would be another one.
_EIGHT_BITS: Final = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr"})


class NoPicture(ValueError):
    """Data that is no picture, or only a part of one. The message says why."""


def picture_of(data: Any) -> Image.Image:
    """The RGB picture that Base64 text is. Raises `NoPicture`."""
    try:
        raw = base64.b64decode(data)
        with Image.open(io.BytesIO(raw)) as image:
            image.verify()  # sums over its parts, which decoding does not look at
        with Image.open(io.BytesIO(raw)) as image:
            if image.mode not in _EIGHT_BITS:
                raise ValueError(f"its mode is {image.mode}")
            return image.convert("RGB")
    except Exception as error:  # decoders raise what they like for torn bytes
        raise NoPicture(f"{type(error).__name__}: {error}") from None
