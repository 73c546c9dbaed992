"""One HTML file that shows a run, or several compared: open it, mail it, keep it. It needs nothing else.

The page's own style and script are the only ones it runs, by their hashes; what episodes say is data, which the script
puts on the page as text. The index of all episodes comes first, and the page is drawn from it before the rest is read;
the episodes themselves lie behind it in compressed packs, each of which is unpacked when someone looks into it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.comparison import Comparison
from muxsim.rollouts.data.images import is_reference, media_type, taken_out
from muxsim.rollouts.data.run_folder import RunFolder
from muxsim.rollouts.view.assets import SCRIPT, STYLE, asset
from muxsim.rollouts.view.shown import Json, details, shortened, summary
from muxsim.rollouts.view.writing import whole

REPORT_NAME: Final = "report.html"
# Past this a page gets slow to open. Episodes whose images go over it are shown without them, and say so.
DEFAULT_IMAGE_BYTES: Final = 64 * 2**20

# Bytes of JSON in a pack before it is compressed: enough for episodes to share what they have in common, and unpacked
# in an instant. An episode that is larger has a pack of its own.
_PACK: Final = 2**20

_HEAD: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<noscript>This report draws itself with JavaScript, which is switched off here.</noscript>
<div id="app"></div>
"""


class ReportError(MuxsimError):
    """A report could not be written. The message names the file."""


def write_report(run: RunFolder, file: str | Path | None = None, *, image_bytes: int = DEFAULT_IMAGE_BYTES) -> Path:
    """Write the report, into the run's folder unless ``file`` is given; returns where. Raises `ReportError`."""
    path = run.path / REPORT_NAME if file is None else Path(file)
    return _written(path, _parts(run, image_bytes, _place(run, path)))


def write_comparison(
    compared: Comparison, runs: Sequence[RunFolder], file: str | Path, *, image_bytes: int = DEFAULT_IMAGE_BYTES
) -> Path:
    """Write a page of runs and of how they compare; returns where. ``image_bytes`` bounds the images of all of them.

    Raises `ReportError`: there are other runs in the comparison, or the file cannot be written.
    """
    path = Path(file)
    if [side.path for side in compared.runs] != [str(run.path) for run in runs]:
        raise ReportError(f"{path}: the page of a comparison is made of the folders that were compared, all in order")
    return _written(path, _comparison_parts(compared, runs, image_bytes, path))


def _written(path: Path, parts: Iterator[str]) -> Path:
    try:
        with whole(path) as unfinished, unfinished.open("w", encoding="utf-8") as out:
            out.writelines(parts)
    except OSError as error:
        raise ReportError(f"{path} could not be written: {error.strerror or error}") from None
    return path


def _place(run: RunFolder, page: Path) -> str:
    """Where the run's files are, seen from its page."""
    return os.path.relpath(run.path.resolve(), page.resolve().parent)


def _parts(run: RunFolder, image_bytes: int, place: str) -> Iterator[str]:
    yield _head(f"{run.path.resolve().name} · muxsim run")
    images = _Images(image_bytes)
    # The index is complete only after the last episode, and stands before the first: the packs wait in a file.
    with tempfile.TemporaryFile("w+", encoding="ascii") as packed:
        packs = _Packs(packed)
        index = _indexed(run, packs, images)
        packs.close()
        yield _data("run", index | {"place": place})
        yield from _behind(packed, images)


def _comparison_parts(compared: Comparison, runs: Sequence[RunFolder], image_bytes: int, page: Path) -> Iterator[str]:
    yield _head(f"{', '.join(side.name for side in compared.runs)} · muxsim runs")
    images = _Images(image_bytes)
    with tempfile.TemporaryFile("w+", encoding="ascii") as packed:
        packs = _Packs(packed)
        indices = [
            _indexed(run, packs, images) | {"name": side.name, "place": _place(run, page)}
            for run, side in zip(runs, compared.runs, strict=True)
        ]
        packs.close()
        yield _data("runs", {"runs": indices, "comparison": msgspec.to_builtins(compared)})
        yield from _behind(packed, images)


def _head(title: str) -> str:
    style = asset(STYLE)
    return _HEAD.format(title=escape(title), policy=escape(_policy(style, asset(SCRIPT))), style=style)


def _indexed(run: RunFolder, packs: _Packs, images: _Images) -> Json:
    """What is known of a run before any of its episodes is looked into; these go into the packs."""
    tools = _Shared()
    episodes = []
    for trajectory in run.trajectories():
        whole = details(trajectory)
        whole["tools"] = tools.index(trajectory.tools)
        shown, left_out = images.referred(run, whole)
        episodes.append(summary(trajectory, left_out) | {"pack": packs.add(shortened(shown))})
    return _run(run, episodes, tools.values)


def _behind(packed: IO[str], images: _Images) -> Iterator[str]:
    """What the page has behind its index."""
    yield f"<script>{asset(SCRIPT)}</script>\n"
    packed.seek(0)
    yield from packed
    for name, content in images.embedded():
        yield f'<script type="text/plain" id="{name}">{content}</script>\n'
    yield "</body>\n</html>\n"


def _policy(style: str, script: str) -> str:
    """The page may run and show what is in it, and load nothing."""
    return f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(id: str, value: Any) -> str:
    """JSON in a script element: nothing in it can end the element or start another."""
    text = msgspec.json.encode(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{id}">{text}</script>\n'


def _run(run: RunFolder, episodes: list[Json], tools: list[Any]) -> Json:
    return {
        "name": run.path.resolve().name,
        "config": msgspec.to_builtins(run.config),
        "metrics": msgspec.to_builtins(run.metrics()),
        "tools": tools,
        "episodes": episodes,
    }


class _Packs:
    """Writes episodes as elements of the page, many in each: a JSON list, compressed by zlib, in base64."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._number = 0
        self._size = 0
        self._held: list[bytes] = []

    def add(self, details: Json) -> tuple[int, int]:
        """Take one episode; the number of its pack, and its place in there."""
        encoded = msgspec.json.encode(details)
        if self._held and self._size + len(encoded) > _PACK:
            self.close()
        self._held.append(encoded)
        self._size += len(encoded)
        return self._number, len(self._held) - 1

    def close(self) -> None:
        """Write the pack that is under way."""
        packed = base64.b64encode(zlib.compress(b"[" + b",".join(self._held) + b"]")).decode()
        self._out.write(f'<script type="text/plain" id="pack-{self._number}">{packed}</script>\n')
        self._number, self._size, self._held = self._number + 1, 0, []


class _Shared:
    """Values that many episodes have in common, each once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._known: dict[bytes, int] = {}

    def index(self, value: Any) -> int:
        key = msgspec.json.encode(value)
        if key not in self._known:
            self._known[key] = len(self.values)
            self.values.append(value)
        return self._known[key]


class _Images:
    """The images of the episodes that fit into the page; each is in it once."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._inline: dict[str, str] = {}
        self._embedded: dict[str, RunFolder] = {}

    def referred(self, run: RunFolder, details: Json) -> tuple[Json, int]:
        """An episode's details with all images as references, and how many of them the page has no room for."""
        details, inline = taken_out(details)
        sizes = {name: len(data) * 3 // 4 for name, data in inline.items()}
        for name in _references(details):
            if name not in sizes and name not in self._embedded:
                sizes[name] = run.images.size(name) or 0
        wanted = {name: size for name, size in sizes.items() if name not in self._embedded}
        if sum(wanted.values()) > self._left:
            return details, len(wanted)
        self._left -= sum(wanted.values())
        self._embedded.update(dict.fromkeys(wanted, run))
        self._inline.update({name: data for name, data in inline.items() if name in wanted})
        return details, 0

    def embedded(self) -> Iterator[tuple[str, str]]:
        """(reference, data URL) of each image in the page."""
        for name, run in self._embedded.items():
            data = self._inline.get(name) or run.images.get(name)
            if data is not None:
                yield name, f"data:{media_type(name)};base64,{data}"


def _references(value: Any) -> Iterator[str]:
    if is_reference(value):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _references(item)
