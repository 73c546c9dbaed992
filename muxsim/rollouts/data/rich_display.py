"""An episode as a notebook shows it: what it came to, its frames, its steps. Pure.

All that an episode says is text here, whatever it is, and there is an end to how much of it there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

import msgspec

# A `Trajectory` and a `Step`, which know this module.
Trajectory = Any
Step = Any

_MOST_FRAMES: Final = 12
_MOST_STEPS: Final = 50
_LONGEST_TEXT: Final = 400
# Characters of base64 in all: a notebook keeps what it shows, and is loaded whole.
_MOST_IMAGES: Final = 2 * 2**20
_PICTURES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_BOX: Final = "border:1px solid #8886;border-radius:8px;padding:10px 12px;max-width:960px;font-family:sans-serif"
_CELL: Final = "text-align:left;vertical-align:top;padding:2px 10px 2px 0"
_TEXT: Final = "margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font-size:12px"


def html_of(trajectory: Trajectory) -> str:
    """The episode as HTML that loads and runs nothing."""
    parts = [_head(trajectory), _error(trajectory), _frames(trajectory), _steps(trajectory.steps)]
    return f'<div style="{_BOX}">{"".join(parts)}</div>'


def _head(one: Trajectory) -> str:
    reward = "no reward" if one.total_reward is None else f"reward {one.total_reward:g}"
    end = one.end_reason.value.replace("_", " ") + ("" if one.valid else ", not valid")
    steps = f"{len(one.steps)} step{'' if len(one.steps) == 1 else 's'}"
    told = f"{_short(one.env)}, seed {one.seed}: {steps}, {end}, {one.seconds:.2f} s"
    return f"<div><b>{_short(one.id)}</b> · <b>{reward}</b> · {told}</div>"


def _error(one: Trajectory) -> str:
    return "" if one.error is None else f'<pre style="{_TEXT};color:#c33">{_short(one.error)}</pre>'


def _frames(one: Trajectory) -> str:
    frames = list(_all_frames(one))
    if not frames:
        return ""
    figures, left = [], _MOST_IMAGES
    for name, earned, (media, data) in _spread(frames):
        if len(data) > left:
            figures.append("<span>… larger ones are left out</span>")
            break
        left -= len(data)
        picture = f'<img alt="" src="data:{media};base64,{data}" style="display:block;height:110px">'
        caption = f'<figcaption style="font-size:11px">{name}{earned}</figcaption>'
        figures.append(f'<figure style="margin:0">{picture}{caption}</figure>')
    strip = "display:flex;flex-wrap:wrap;gap:6px;margin:8px 0"
    return f'<div style="{strip}">{"".join(figures)}</div>'


def _all_frames(one: Trajectory) -> Iterator[tuple[str, str, tuple[str, str]]]:
    """Of each place its last picture, with what had been earned by then."""
    observation = one.initial_state.get("observation") if isinstance(one.initial_state, Mapping) else None
    first = _pictures(observation if isinstance(observation, list) else [])
    yield from (("start", "", picture) for picture in first[-1:])
    total: float | None = None
    for step in one.steps:
        if step.control is not None and step.control.reward is not None:
            total = (total or 0.0) + step.control.reward
        earned = "" if total is None else f" · Σ {total:g}"
        yield from ((f"step {step.index}", earned, picture) for picture in _pictures(step.content)[-1:])


def _pictures(content: Sequence[Any]) -> list[tuple[str, str]]:
    """The media types and data of pictures that any browser shows, and that are here."""
    found = []
    for block in content:
        if isinstance(block, Mapping) and block.get("type") == "image" and block.get("mimeType") in _PICTURES:
            data = block.get("data")
            if isinstance(data, str) and _BASE64.fullmatch(data):
                found.append((str(block["mimeType"]), data))
    return found


def _spread(frames: Sequence[tuple[str, str, tuple[str, str]]]) -> Iterator[tuple[str, str, tuple[str, str]]]:
    """The first, the last, and some between."""
    last = len(frames) - 1
    places = (
        range(last + 1) if last < _MOST_FRAMES else [round(n * last / (_MOST_FRAMES - 1)) for n in range(_MOST_FRAMES)]
    )
    return (frames[place] for place in places)


def _steps(steps: Sequence[Step]) -> str:
    if not steps:
        return ""
    rows = "".join(map(_row, steps[:_MOST_STEPS]))
    more = f"<div>and {len(steps) - _MOST_STEPS} more</div>" if len(steps) > _MOST_STEPS else ""
    heads = "".join(f'<th style="{_CELL}">{name}</th>' for name in ("", "call", "result", "reward"))
    return f"<details><summary>steps</summary><table><tr>{heads}</tr>{rows}</table>{more}</details>"


def _row(step: Step) -> str:
    arguments = ", ".join(f"{name}={msgspec.json.encode(value).decode()}" for name, value in step.arguments.items())
    told = "\n".join(_text_of(block) for block in step.content)
    if not step.content and step.structured is not None:
        told = msgspec.json.encode(step.structured).decode()
    reward = "none" if step.control is None or step.control.reward is None else f"{step.control.reward:g}"
    cells = [str(step.index), f"<code>{_short(f'{step.tool}({arguments})')}</code>", _pre(told), reward]
    return f"<tr>{''.join(map(_cell, cells))}</tr>"


def _cell(content: str) -> str:
    return f'<td style="{_CELL}">{content}</td>'


def _pre(text: str) -> str:
    return f'<pre style="{_TEXT}">{_short(text)}</pre>'


def _text_of(block: Mapping[str, Any]) -> str:
    return str(block.get("text")) if block.get("type") == "text" else f"[{block.get('type')}]"


def _short(text: str) -> str:
    """A text that has an end, as HTML."""
    return escape(text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} …")
