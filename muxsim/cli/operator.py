"""What ``muxsim ctl`` and ``muxsim ps`` show, and what they find out themselves."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from muxsim.errors import NotRunning
from muxsim.inside.proc import families
from muxsim.processes.strays import Stray
from muxsim.serve.operate.running import Running

# Beyond the drain_timeout that it may have been given, which is not known here.
_STOP_LIMIT = 600.0
_PIPED_WIDTH = 160
# Seconds between two looks at whether the sessions have ended.
_LOOK_AGAIN = 0.2
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def sessions_of(muxsim: Running) -> list[dict[str, Any]]:
    """The sessions of a muxsim, with the memory of each one's processes in bytes; none if it has just gone."""
    try:
        sessions: list[dict[str, Any]] = muxsim.ask("sessions")["sessions"]
    except NotRunning:
        return []
    for session in sessions:
        session["muxsim"] = muxsim.pid
        session["memory"] = None if session["pid"] is None else sum(map(memory_of, families([session["pid"]])))
    return sessions


def memory_of(pid: int) -> int:
    """The proportional set size of a process in bytes: what it shares with others counts by its share of it."""
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


def wait_until_empty(muxsim: Running, status: dict[str, Any]) -> dict[str, Any]:
    """Wait until a muxsim that is drained has no session but shared ones; its status then. Raises `NotRunning`."""
    while status["left"]:
        if status["state"] != "draining":
            raise NotRunning(f"muxsim {muxsim.pid} was told meanwhile to take sessions again (ctl resume)")
        time.sleep(_LOOK_AGAIN)
        status = muxsim.ask("status")
    return status


def show_answer(command: str, answer: dict[str, Any], *, as_json: bool) -> None:
    """Print what a muxsim said."""
    if as_json:
        _print_json(answer)
    elif command == "reload":
        _show_changes(answer)
    elif command == "loglevel":
        print(", ".join([answer["level"], *(f"{env}: {level}" for env, level in answer["environments"].items())]))
    elif command == "stop":
        print(f"muxsim {answer['pid']} has stopped")
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


def _show_status(status: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for key in ("pid", "version", "url", "config", "state", "sessions", "in_flight"):
        table.add_row(key.replace("_", " "), str(status[key]))
    table.add_row("up", duration(status["uptime"]))
    for name, count in status["limits"].items():
        table.add_row(f"past {name}", str(count))
    _console().print(table)


def show_sessions(pids: list[int], sessions: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print sessions, those of all muxsims in one table."""
    if as_json:
        _print_json({"muxsims": pids, "sessions": sessions})
        return
    if not pids:
        print("no muxsim is serving as this user")
        return
    columns = ("session", "env", "seed", "state", "pid", "age", "memory", "clients", "calls")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in (*(["muxsim"] if len(pids) > 1 else []), *columns):
        table.add_column(column, justify="left" if column in ("session", "env", "state") else "right", no_wrap=True)
    for one in sessions:
        memory = "-" if one["memory"] is None else f"{one['memory'] / 2**20:.1f} MiB"
        pid = "-" if one["pid"] is None else str(one["pid"])
        cells = (one["id"], one["env"], str(one["seed"]), one["state"], pid, duration(one["age"]), memory)
        numbers = (str(one["attachments"]), str(one["in_flight"]))
        table.add_row(*([str(one["muxsim"])] if len(pids) > 1 else []), *cells, *numbers)
    _console().print(table)
    total = sum(one["memory"] or 0 for one in sessions)
    print(f"{len(sessions)} sessions, {total / 2**20:.1f} MiB")


def _console() -> Console:
    """As wide as the terminal; wide where there is none, so that nothing is cut from what is piped on."""
    console = Console()
    return console if console.is_terminal else Console(width=_PIPED_WIDTH)


def show_reaped(
    strays: Sequence[Stray], folders: Sequence[Path], *, dry_run: bool, left: Sequence[object], as_json: bool
) -> None:
    """Print what a dead muxsim had left, and what has become of it."""
    rows = [*((one, _process_row(one)) for one in strays), *((one, _folder_row(one)) for one in folders)]
    done = "found" if dry_run else "gone"
    for one, row in rows:
        row["state"] = "left" if one in left else done
    if as_json:
        _print_json([row for _, row in rows])
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
    _console().print(table)


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


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value)).decode() + "\n")
