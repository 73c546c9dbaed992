"""What ``muxsim ctl`` and ``muxsim reap`` do and show."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from rich.table import Table
from rich.text import Text

from muxsim.cli.console import console_of
from muxsim.errors import MuxsimError, NotRunning
from muxsim.inside.proc import families
from muxsim.processes.strays import Stray
from muxsim.serve.operate.running import ANSWER_TIMEOUT, Running

# Beyond the drain_timeout that it may have been given, which is not known here.
_STOP_LIMIT = 600.0
_PIPED_WIDTH = 160
# Seconds: for a session's end, with all the patience that its processes may have been given; for files that are slow.
_PATIENCE = {"end": 600.0, "reload": 60.0}
# Seconds between two looks at whether the sessions have ended.
_LOOK_AGAIN = 0.2
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class Asked(Protocol):
    """A running muxsim that answers."""

    @property
    def name(self) -> int | str:
        """What to call it: its pid, or its URL."""

    def ask(self, command: str, *, timeout: float = ..., **arguments: Any) -> dict[str, Any]:
        """Its answer to a command; with an ``"error"`` if it refuses. Raises `NotRunning` if it does not answer."""


def do(muxsim: Asked, command: str, *, until_empty: bool = False, **arguments: Any) -> dict[str, Any]:
    """Have it do something, and wait until that is done. Raises `MuxsimError` if it refuses."""
    answer = muxsim.ask(command, timeout=_PATIENCE.get(command, ANSWER_TIMEOUT), **arguments)
    if "error" in answer:
        raise MuxsimError(answer["error"])
    if until_empty:
        answer = wait_until_empty(muxsim, answer)
    if command == "stop" and isinstance(muxsim, Running):
        wait_for_end(muxsim.pid)
        answer["state"] = "stopped"
    return answer


def memory_of_tree(pid: int) -> int:
    """The proportional set size of a process and all below it in bytes: what is shared counts by each one's share."""
    return sum(map(_memory_of, families([pid])))


def _memory_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def wait_for_end(pid: int) -> None:
    """Wait until a process has gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_STOP_LIMIT * 1000):
            raise NotRunning(f"muxsim {pid} has not stopped within {_STOP_LIMIT:g} s; ask again to stop it at once")
    finally:
        os.close(pidfd)


def wait_until_empty(muxsim: Asked, status: dict[str, Any]) -> dict[str, Any]:
    """Wait until a muxsim that is drained has no session but shared ones; its status then. Raises `NotRunning`."""
    while status["left"]:
        if status["state"] != "draining":
            raise NotRunning(f"muxsim {status['pid']} was told meanwhile to take sessions again (ctl resume)")
        time.sleep(_LOOK_AGAIN)
        status = muxsim.ask("status")
    return status


def show_answer(command: str, answer: dict[str, Any], *, as_json: bool) -> None:
    """Print what a muxsim said."""
    if as_json:
        print_json(answer)
    elif command == "reload":
        _show_changes(answer)
    elif command == "loglevel":
        print(", ".join([answer["level"], *(f"{env}: {level}" for env, level in answer["environments"].items())]))
    elif command == "stop":
        print(f"muxsim {answer['pid']} {'has stopped' if answer['state'] == 'stopped' else 'is stopping'}")
    elif command == "end":
        print(f"session {answer['id']} has ended")
    elif command == "inspect":
        _show_session(answer)
    else:
        _show_status(answer)


def _show_changes(changes: dict[str, Any]) -> None:
    told = {
        "added": "added",
        "changed": "changed, for new sessions",
        "removed": "removed, for new sessions",
        "applied": "settings in use now",
        "tokens": "tokens",
        "restart": "settings that need a restart",
    }
    for key, text in told.items():
        if changes[key]:
            print(f"{text}: {', '.join(changes[key])}")
    if not any(changes.values()):
        print("nothing has changed")


def _show_session(session: dict[str, Any]) -> None:
    """All that is known of one, and last what it has written on stderr."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in facts_of(session):
        table.add_row(name, Text(value, overflow="fold"))
    console_of(piped=_PIPED_WIDTH).print(table)
    for line in session.get("stderr", ()):
        print(f"  {printable(line)}")


def facts_of(session: dict[str, Any]) -> list[tuple[str, str]]:
    """What is known of a session, but for its stderr, in words that move nobody's cursor."""
    facts = [
        (key.replace("_", " "), printable(_shown(key, value)))
        for key, value in session.items()
        if key not in ("stderr", "clients") and value is not None and value is not False and value != ""
    ]
    for client in session.get("clients", ()):
        who = " ".join(filter(None, (client["principal"], client["peer"])))
        facts.append(("client", printable(f"{client['transport']} {who}, silent for {duration(client['silent'])}")))
    return facts


def _shown(key: str, value: Any) -> str:
    if key in ("age", "idle", "ended", "lease", "lease_left"):
        return f"{duration(value)} ago" if key == "ended" else duration(value)
    if key == "memory":
        return f"{value / 2**20:.1f} MiB"
    return "yes" if value is True else str(value)


def printable(text: str) -> str:
    """What a program has written, which may be anything, so that it moves nobody's cursor."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _show_status(status: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for key in ("pid", "version", "url", "config", "state", "sessions", "in_flight"):
        if status[key] is not None:
            table.add_row(key.replace("_", " "), printable(str(status[key])))
    if status["uptime"] is not None:
        table.add_row("up", duration(status["uptime"]))
    for name, count in status["limits"].items():
        table.add_row(f"past {name}", str(count))
    console_of(piped=_PIPED_WIDTH).print(table)


def show_reaped(
    strays: Sequence[Stray], folders: Sequence[Path], *, dry_run: bool, left: Sequence[object], as_json: bool
) -> None:
    """Print what a dead muxsim had left, and what has become of it."""
    rows = [*((one, _process_row(one)) for one in strays), *((one, _folder_row(one)) for one in folders)]
    done = "found" if dry_run else "gone"
    for one, row in rows:
        row["state"] = "left" if one in left else done
    if as_json:
        print_json([row for _, row in rows])
        return
    if not rows:
        print("nothing of a dead muxsim is left")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("state", "kind", "pid", "of muxsim", "age", "what"):
        # A long command goes on in the next line, rather than take the other columns' room.
        table.add_column(column, no_wrap=column != "what", overflow="fold")
    for _, row in rows:
        age = "-" if row["age"] is None else duration(row["age"])
        pid = "-" if row["pid"] is None else str(row["pid"])
        table.add_row(row["state"], row["kind"], pid, str(row["muxsim"]), age, row["what"])
    console_of(piped=_PIPED_WIDTH).print(table)


def _process_row(stray: Stray) -> dict[str, Any]:
    about = {"pid": stray.pid, "muxsim": stray.owner.pid, "age": round(stray.age, 1), "what": stray.command}
    return {"kind": "process", **about}


def _folder_row(folder: Path) -> dict[str, Any]:
    return {"kind": "folder", "pid": None, "muxsim": int(folder.name.split("-")[1]), "age": None, "what": str(folder)}


def duration(seconds: float) -> str:
    """A time for people: the two largest units of it."""
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{seconds:.1f} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")
