"""``${…}`` in a config: what it stands for to muxsim, and to the programs whose files these are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from muxsim.spec import PLACEHOLDERS

_REFERENCE = re.compile(r"\$\$\{([^{}]*)\}|\$(\$\{)|\$\{([^{}]*)\}|(\$\{)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class VariableFault(Exception):
    """A text names a variable in a way that cannot be, or one that is not set; ``advice`` says what to do."""

    def __init__(self, advice: str) -> None:
        super().__init__(advice)
        self.advice = advice


class Variables(Protocol):
    """What references stand for in one kind of file."""

    def value(self, reference: str | None) -> str | None:
        """What to write in place of ``${reference}``, None being one without an end; None leaves it as it is.

        Raises `VariableFault`.
        """


def expand(text: str, variables: Variables, quoted: Callable[[str], str] = str) -> str:
    """``text`` with each ``${…}`` replaced, and ``$${`` as a literal ``${``.

    What takes their place goes through ``quoted``. Raises `VariableFault`.
    """

    def replacement(match: re.Match[str]) -> str:
        if match[1] is not None:
            return quoted("${" + match[1] + "}")
        if match[2]:
            return "${"
        value = variables.value(match[3])
        return match[0] if value is None else quoted(value)

    return _REFERENCE.sub(replacement, text)


@dataclass(frozen=True, slots=True)
class OwnVariables:
    """``${VAR}`` and ``${VAR:-default}``, from muxsim's own environment."""

    environ: Mapping[str, str]

    def value(self, reference: str | None) -> str | None:
        """The variable's value."""
        variable = _NAME.fullmatch(reference or "")
        if variable is None:
            raise VariableFault("${ needs a variable's name and a }: write $${ for a literal ${")
        name, fallback = variable.groups()
        if fallback is not None:
            return self.environ.get(name) or str(fallback)
        if name not in self.environ:
            raise VariableFault(f"the variable {name} is not set: {_instead(name)}")
        return self.environ[name]


@dataclass(frozen=True, slots=True)
class ClientVariables:
    """What those who own an `mcpServers` file write as well: ``${env:VAR}``, ``${workspaceFolder}`` and more."""

    own: OwnVariables
    folder: Path
    """The project's."""

    inputs: Mapping[str, Any]
    """What VS Code would ask for, by id."""

    left: list[str] = field(default_factory=list)
    """References that mean nothing here, and were left as they are."""

    def value(self, reference: str | None) -> str | None:
        """What the file's own program would put there, as far as that can be known."""
        word = reference or ""
        kind, colon, rest = word.partition(":")
        if _NAME.fullmatch(rest) and kind == "env":
            # Where that is written, a variable that is not set is no mistake.
            return self.own.value(rest if ":-" in rest else f"{rest}:-")
        if kind == "input" and colon:
            return self._input(rest)
        if (place := self._places().get(kind if kind == "workspaceFolder" else word)) is not None:
            return place
        if _NAME.fullmatch(word):
            return self.own.value(word)
        self.left.append("${" + word + ("}" if reference is not None else ""))
        return None

    def _places(self) -> dict[str, str]:
        return {
            "workspaceFolder": str(self.folder),
            "workspaceRoot": str(self.folder),
            "workspaceFolderBasename": self.folder.name,
            "userHome": self.own.environ.get("HOME") or str(Path.home()),
            "pathSeparator": "/",
            "/": "/",
        }

    def _input(self, id: str) -> str:
        name = re.sub(r"\W", "_", id, flags=re.ASCII).upper()
        default = self.inputs.get(id)
        if (value := self.own.environ.get(name)) is not None:
            return value
        if isinstance(default, str):
            return default
        raise VariableFault(f"${{input:{id}}} is asked of somebody there, and muxsim has nobody to ask: set {name}")


def defaults_of(inputs: Sequence[Any]) -> dict[str, Any]:
    """The default of each of VS Code's ``inputs``, by id."""
    return {one["id"]: one.get("default") for one in inputs if isinstance(one, dict) and isinstance(one.get("id"), str)}


def _instead(name: str) -> str:
    """What to write for a variable that is not set."""
    if name in PLACEHOLDERS:
        return f"write {{{name}}}, without the $, for the session's own"
    return f"set it, or write ${{{name}:-default}}"
