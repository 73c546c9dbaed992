"""An `mcpServers` JSON, the file of another program, with an optional `"muxsim"` block per server and at the top.

Desktops, editors and agents share this form, and each has keys of its own. So what is not known here is passed over,
with one note for each server; what is known is taken as the file's owner means it. Only `"muxsim"` blocks are strict.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from muxsim.config.environments import Defaults, read_environment
from muxsim.config.jsonc import Written
from muxsim.config.model import Config
from muxsim.config.server import read_auth, read_clients, read_default, read_server
from muxsim.config.table import NAME, Table, closest, in_one_line
from muxsim.config.variables import ClientVariables, OwnVariables, defaults_of
from muxsim.errors import ConfigError
from muxsim.spec import EnvSpec, literal
from muxsim.values import DESKTOP_KEYS, ENVIRONMENT_KEYS

# Where the servers stand: in the files of most programs, of VS Code, of Zed, and in VS Code's settings.
_PLACES = ("mcpServers", "servers", "context_servers", "mcp.servers")
# Where the names of servers stand that are switched off, and of those which alone are not.
_SWITCHED_OFF = ("mcp.excluded", "excludeMCPServers", "disabledMcpServers", "disabledMcpjsonServers")
_ALONE_ON = ("mcp.allowed", "allowMCPServers")
_INPUTS = ("inputs", "mcp.inputs")
# What stands beside these and is used, or means nothing to a server.
_TOP_KEYS = ("muxsim", "$schema", "mcp", *_PLACES, *_SWITCHED_OFF, *_ALONE_ON, *_INPUTS)

# A project's file lies in a folder of the program that reads it, and means paths from the project's own.
_CLIENT_FOLDERS = frozenset(
    {".vscode", ".cursor", ".roo", ".gemini", ".qwen", ".windsurf", ".zed", ".trae", ".amazonq", ".kiro"}
)

_TYPES = ("type", "transport", "transportType")
_STARTED_TYPES = ("stdio", "local", "command")
_URLS = ("url", "httpUrl", "serverUrl", "uri")
_SWITCHES = {"disabled": True, "enabled": False, "isActive": False, "active": False}

# What other programs write beside a server's command, and what means nothing here.
_FOREIGN_KEYS = ("alwaysAllow", "autoApprove", "autoStart", "description", "timeout", "name", "source", "env_file")
_SLIP_LIKENESS = 0.75  # arg and args, enviroment and env have it; icon and any of ours do not
_PATHS = ("cwd", "envFile")
_KEYS = (*DESKTOP_KEYS, "cwd", "envFile", "muxsim", *_TYPES, *_URLS, *_SWITCHES, *_FOREIGN_KEYS)
_MOST_KEYS_NAMED = 20
_LONGEST_MADE_NAME = 64

_ENV_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.-]*)\s*=\s*(.*?)\s*")
_QUOTED = re.compile(r"""(["'])(.*)\1(?:\s+#.*)?""")


def from_json(root: Table, path: Path) -> Config:
    """The config of a parsed `mcpServers` JSON."""
    server = root.table("muxsim")
    settings, defaults, default = read_server(server)
    notes = [*_notes_of_top(root)]
    entries = [*_started(_entries(root), notes)]
    names = _served_names([entry.name for entry in entries])
    specs = _specs(zip(entries, names, strict=True), defaults, notes)
    if not specs:
        raise root.error("mcpServers", _nothing_to_start(notes))
    served = dict(zip((entry.name for entry in entries), names, strict=True))
    auth = read_auth(server)
    return Config(
        environments=specs,
        server=settings,
        auth=auth,
        clients=read_clients(server, auth),
        default=read_default(server, default if default is None else served.get(default, default), specs),
        file=path,
        notes=tuple(f"{root.file}: {note}" for note in notes),
    )


def _specs(entries: Iterable[tuple[_Entry, str]], defaults: Defaults, notes: list[str]) -> dict[str, EnvSpec]:
    """What to start of these servers, by the names they are served under.

    One with a fault goes to the notes, as its own program goes on without it; the fault is raised where nothing else is
    left, or where the server has a block for muxsim.
    """
    specs: dict[str, EnvSpec] = {}
    faults: list[ConfigError] = []
    for entry, name in entries:
        try:
            specs[name] = entry.spec(name, defaults, notes)
        except ConfigError as fault:
            if entry.is_ours:
                raise
            faults.append(fault)
            notes.append(f"[{entry.place}] is left out: {fault.key}: {fault.advice}")
    if faults and not specs:
        raise faults[0]
    return specs


def _nothing_to_start(notes: list[str]) -> str:
    left_out = f" (left out: {'; '.join(notes)})" if notes else ""
    return f'has no server to start: add {{"NAME": {{"command": "server.py"}}}}{left_out}'


def _notes_of_top(root: Table) -> Iterator[str]:
    """What is passed over at the top; raises the fault of a file whose servers' key is misspelt."""
    if not any(True for _ in _tables(root)):
        root.know(("mcpServers", "muxsim"), others=True)
    if unknown := [key for key in root.values if key not in _TOP_KEYS]:
        yield f"passed over: {_listed(unknown, _PLACES)}"


def _tables(root: Table) -> Iterator[Table]:
    """The tables that hold servers."""
    for place in _PLACES:
        table, key = _holder(root, place)
        if isinstance(listed := table.values.get(key), list):
            yield replace(table, name=table.name_of(key), values=_by_name(listed))
        elif listed is not None:
            yield table.table(key)


def _holder(root: Table, place: str) -> tuple[Table, str]:
    """The table that a place is in, and its key there; ``mcp.servers`` may be written as one key or as two."""
    outer, dot, inner = place.partition(".")
    if dot and isinstance(root.values.get(outer), dict):
        return root.table(outer), inner
    return root, place


def _listed_at(root: Table, places: Iterable[str]) -> list[Any]:
    """What the lists at these places hold."""
    found = [table.values.get(key) for table, key in (_holder(root, place) for place in places)]
    return [item for one in found if isinstance(one, list) for item in one]


def _by_name(listed: list[Any]) -> dict[str, Any]:
    """The servers of a list, as Continue writes them: each has its name in it."""
    named = [(one.get("name") if isinstance(one, dict) else None, one) for one in listed]
    return {name if isinstance(name, str) else f"server-{at}": one for at, (name, one) in enumerate(named, 1)}


def _entries(root: Table) -> Iterator[_Entry]:
    """The servers of the file, but for those that a list switches off."""
    own = root.variables
    assert isinstance(own, OwnVariables)
    project = _project_of(root.folder)
    inputs = defaults_of(_listed_at(root, _INPUTS))
    off, alone_on = _listed_at(root, _SWITCHED_OFF), _listed_at(root, _ALONE_ON)
    for table in _tables(root):
        for name, values in table.values.items():
            if name in off or (alone_on and name not in alone_on):
                continue
            variables = ClientVariables(own, project, inputs)
            yield _Entry(name, replace(table, folder=project, variables=variables, slips=[]), values, variables)


def _project_of(folder: Path) -> Path:
    for inner in (folder, folder.parent):  # Kiro has one more folder between
        if inner.name in _CLIENT_FOLDERS:
            return inner.parent
    return folder


def _started(entries: Iterable[_Entry], notes: list[str]) -> Iterator[_Entry]:
    """The servers that are to be served; why any other is not goes to the notes, but for those that are disabled."""
    for entry in entries:
        if entry.disabled:
            continue
        if why := entry.foreign:
            notes.append(f"[{entry.place}] is left out: {why}")
            continue
        yield entry


@dataclass(frozen=True, slots=True)
class _Entry:
    """A server of the file."""

    name: str
    outer: Table
    values: Any
    variables: ClientVariables

    @property
    def place(self) -> str:
        """Where it stands."""
        return self.outer.name_of(self.name)

    @property
    def disabled(self) -> bool:
        """Whether its owner has switched it off, in whichever program's words."""
        values = self.values if isinstance(self.values, dict) else {}
        return self.values is None or any(_says(values.get(key), off) for key, off in _SWITCHES.items())

    @property
    def is_ours(self) -> bool:
        """Whether it was written for muxsim too."""
        return "muxsim" in self.values

    @property
    def foreign(self) -> str:
        """Why it cannot be started, being somewhere else, or no server at all; "" if it can."""
        if not isinstance(self.values, dict):
            return "it is no object with keys and values"
        values = self.values
        kind = next((values[key] for key in _TYPES if values.get(key)), None)
        if kind is not None and str(kind).lower() not in _STARTED_TYPES:
            return "muxsim starts servers that speak over stdin and stdout, and no others"
        if values.get("source") == "extension" and not values.get("command"):
            return "it is started by an extension of its editor"
        if kind is None and not values.get("command") and any(values.get(key) for key in _URLS):
            return "it is a remote server, and muxsim starts its own"
        return ""

    def spec(self, name: str, defaults: Defaults, notes: list[str]) -> EnvSpec:
        """What to start; what was passed over or changed is told in one note."""
        given = self.outer.table(self.name)
        block = replace(given.table("muxsim"), variables=self.variables.own, slips=None)
        told = []
        if unknown := [key for key in given.values if key not in _KEYS]:
            told.append(f"passed over: {_listed(unknown, (*DESKTOP_KEYS, 'cwd', 'muxsim'))}")
        if name != self.name:
            told.append(f"served as {name}, for its name becomes a part of URLs")
        entry = replace(given, values=_in_our_words(given))
        keys = {**DESKTOP_KEYS, "cwd": ENVIRONMENT_KEYS["cwd"]}
        values = {**self._file_of_variables(entry), **entry.read(keys, others=True)}
        values["env"] = {**values.pop("envFile", {}), **values.get("env", {})}
        own = block.read(ENVIRONMENT_KEYS)
        # The others start a server in its folder, and so its paths go from there.
        from_cwd = "cwd" in values and "cwd" not in own
        spec = read_environment(name, entry, {**values, **own}, defaults, from_cwd=from_cwd)
        assert entry.slips is not None
        told += entry.slips
        told += [f"{reference} means nothing here and is left as it is" for reference in self.variables.left]
        if told:
            notes.append(f"[{self.place}] {'; '.join(told)}")
        return spec

    def _file_of_variables(self, given: Table) -> dict[str, Any]:
        """What VS Code's and Cursor's ``envFile`` names, under that key."""
        values = given.read({"envFile": DESKTOP_KEYS["command"]}, others=True)
        if not values:
            return {}
        path = given.folder / os.path.expanduser(values["envFile"])
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise given.error("envFile", f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise given.error("envFile", "is not UTF-8: save it as UTF-8") from None
        # Nobody wrote these as templates.
        return {"envFile": {name: literal(value) for name, value in _variables_of(text)}}


# ---- what others write, in our words


def _in_our_words(given: Table) -> dict[str, Any]:
    """The values of the keys that are known, in the one form that muxsim has for each."""
    values = {key: value for key, value in given.values.items() if not _is_unset(key, value)}
    if isinstance(values.get("command"), dict):  # as Zed once had it
        values = {**values, **values["command"], "command": values["command"].get("path")}
    if isinstance(values.get("command"), list):
        command, *first = map(_as_text, values["command"] or [None])
        rest = values.get("args", [])
        values = {**values, "command": command, "args": [*first, *rest] if isinstance(rest, list) else rest}
    if isinstance(values.get("args"), list):
        values["args"] = [_as_text(arg) for arg in values["args"]]
    if isinstance(values.get("env"), dict):
        values["env"] = {name: _as_text(value) for name, value in values["env"].items() if value is not None}
    return values


def _is_unset(key: str, value: Any) -> bool:
    """Whether a key stands there as if it did not: some clients write all that they know, with nothing in it."""
    return value is None or (value == "" and key in _PATHS)


def _says(value: Any, switch: bool) -> bool:
    """Whether a value is this boolean, in any of its forms."""
    return value == switch or (isinstance(value, str) and value.strip().lower() == str(switch).lower())


def _as_text(value: Any) -> Any:
    """A number or a boolean as it is written; anything else as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Written):
        return value.text
    return str(value) if isinstance(value, int) else value


def _variables_of(text: str) -> Iterator[tuple[str, str]]:
    """The lines ``NAME=value`` of a file of variables; what follows a # after a space is a comment."""
    for line in text.splitlines():
        if (match := _ENV_LINE.fullmatch(line)) is None:
            continue
        name, value = match.groups()
        quoted = _QUOTED.fullmatch(value)
        yield name, (quoted[2] if quoted else re.split(r"(?:^|\s)#", value)[0].rstrip()).replace("\0", "")


def _listed(keys: list[str], known: Iterable[str]) -> str:
    """The names of the keys, with what they may be slips of."""
    known = [*known]
    named = []
    for key in keys[:_MOST_KEYS_NAMED]:
        close = closest(key, known, _SLIP_LIKENESS)
        named.append(in_one_line(key) + (f" (did you mean {close[0]}?)" if close else ""))
    more = len(keys) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _served_names(names: list[str]) -> list[str]:
    """A name that fits into a URL for each: its own if it does, else one that is made of it and nobody else's."""
    taken = {name for name in names if NAME.fullmatch(name)}
    served: list[str] = []
    for name in names:
        made = name
        if not NAME.fullmatch(name) or name in served:
            made = _free(_url_safe(name), {*taken, *served})
        served.append(made)
    return served


def _url_safe(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", letters).strip(".-")[:_LONGEST_MADE_NAME] or "server"


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
