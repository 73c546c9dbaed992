"""What ``muxsim logs`` shows: lines that a running muxsim has kept, and those that come."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from muxsim.cli.operator import Asked
from muxsim.errors import NotRunning
from muxsim.observe.log import for_people


def show_logs(all_running: Sequence[Asked], session: str | None, *, follow: bool, as_json: bool) -> None:
    """Print the lines of a session, or of all, from the first of these that knows it. Raises `NotRunning`."""
    muxsim, answer = _who_knows(all_running, session)
    colors = sys.stdout.isatty()
    try:
        for line in _lines(muxsim, answer, follow=follow):
            print(line if as_json else for_people(json.loads(line), colors=colors), flush=follow)
    except KeyboardInterrupt:
        pass  # the way to leave it


def _who_knows(all_running: Sequence[Asked], session: str | None) -> tuple[Asked, dict[str, Any]]:
    for muxsim in all_running:
        answer = muxsim.ask("logs", session=session)
        if "error" not in answer:
            return muxsim, answer
    raise NotRunning(answer["error"])


def _lines(muxsim: Asked, page: dict[str, Any], *, follow: bool) -> Iterator[str]:
    while True:
        yield from page["lines"]
        if page["over"] or not (follow or page["more"]):
            return
        page = muxsim.ask("logs", session=page["session"], after=page["after"], wait=follow)
