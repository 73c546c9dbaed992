"""The images of a run: each is stored once, as a file named by its hash, and rows refer to it.

A row refers to an image by ``images/<sha256>.<suffix>``, relative to the run's folder. Only that exact form is ever
read back: what an environment or a model writes into a row cannot lead to another file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

FOLDER: Final = "images"
_SUFFIXES: Final = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/svg+xml": "svg",
}
_TYPES: Final = {suffix: type for type, suffix in _SUFFIXES.items()}
_REFERENCE: Final = re.compile(r"images/[0-9a-f]{64}\.(" + "|".join(_TYPES) + ")")
_DATA_URL: Final = re.compile(r"data:(image/[a-z+]+);base64,(.*)", re.DOTALL)

# From (media type, base64 data) to what stands for the image in a row; None leaves it as it is.
Put = Callable[[str, str], str | None]


def with_references(value: Any, put: Put) -> Any:
    """JSON with each image in it replaced: the data of a content block and the URL of an ``image_url`` part."""
    if isinstance(value, list):
        return [with_references(item, put) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "image" and isinstance(value.get("data"), str):
        return _block_with_reference(value, put)
    if value.get("type") == "image_url":
        return _part_with_reference(value, put)
    return {key: with_references(item, put) for key, item in value.items()}


def taken_out(value: Any) -> tuple[Any, dict[str, str]]:
    """JSON with references in place of its images, and the base64 data of each by its reference; nothing is stored."""
    images: dict[str, str] = {}

    def put(type: str, data: str) -> str | None:
        name = reference(type, data)
        if name is not None:
            images[name] = data
        return name

    return with_references(value, put), images


def with_data(value: Any, get: Callable[[str], str | None]) -> Any:
    """The reverse: ``get`` turns a reference into base64 data; where it gives None, the reference stays."""
    if isinstance(value, list):
        return [with_data(item, get) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "image" and is_reference(value.get("path")):
        data = get(value["path"])
        without_path = {key: item for key, item in value.items() if key != "path"}
        return value if data is None else {**without_path, "data": data}
    if value.get("type") == "image_url" and is_reference(url_of(value)):
        url = url_of(value)
        data = get(url)
        return value if data is None else _with_url(value, f"data:{media_type(url)};base64,{data}")
    return {key: with_data(item, get) for key, item in value.items()}


def is_reference(value: Any) -> bool:
    """Whether this is the name of an image of a run."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def media_type(reference: str) -> str:
    """The media type of an image by its reference."""
    return _TYPES[reference.rpartition(".")[2]]


def reference(type: str, data: str) -> str | None:
    """What stands for an image in a row, without storing it; None for what is no image that can be stored."""
    named = _named(type, data)
    return named and named[0]


def split_data_url(url: str) -> tuple[str, str] | None:
    """The media type and the base64 data of an image's ``data:`` URL; None for any other."""
    match = _DATA_URL.fullmatch(url)
    return (match[1], match[2]) if match else None


def url_of(part: dict[str, Any]) -> str:
    """The URL of an ``image_url`` part, "" if it has none."""
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    return url if isinstance(url, str) else ""


class ImageFolder:
    """The ``images`` folder of a run."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._known: set[str] = set()

    def put(self, type: str, data: str) -> str | None:
        """Store an image unless it is there. Raises OSError."""
        named = _named(type, data)
        if named is None:
            return None
        name, content = named
        if name not in self._known:
            path = self._run / name
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                write_whole(path, content)
            self._known.add(name)
        return name

    def get(self, reference: str) -> str | None:
        """An image's base64 data, None if its file cannot be read."""
        try:
            return base64.b64encode((self._run / reference).read_bytes()).decode("ascii")
        except OSError:
            return None

    def size(self, reference: str) -> int | None:
        """Bytes of an image's file, None if it is not there."""
        try:
            return (self._run / reference).stat().st_size
        except OSError:
            return None


def _named(type: str, data: str) -> tuple[str, bytes] | None:
    suffix = _SUFFIXES.get(type)
    if suffix is None:
        return None
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return None
    return f"{FOLDER}/{hashlib.sha256(content).hexdigest()}.{suffix}", content


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: under its name stands what the name promises."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _block_with_reference(block: dict[str, Any], put: Put) -> dict[str, Any]:
    name = put(str(block.get("mimeType", "")), block["data"])
    if name is None:
        return block
    return {**{key: value for key, value in block.items() if key != "data"}, "path": name}


def _part_with_reference(part: dict[str, Any], put: Put) -> dict[str, Any]:
    split = split_data_url(url_of(part))
    name = put(*split) if split else None
    return part if name is None else _with_url(part, name)


def _with_url(part: dict[str, Any], url: str) -> dict[str, Any]:
    image = part["image_url"]
    return {**part, "image_url": {**image, "url": url} if isinstance(image, dict) else url}
