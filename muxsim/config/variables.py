"""``${VAR}`` in a config, which comes from muxsim's own environment."""

import re
from collections.abc import Mapping

from muxsim.spec import PLACEHOLDERS

_VARIABLE = re.compile(r"\$(\$\{)|\$\{([^{}]*)\}|(\$\{)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class VariableFault(Exception):
    """A text names a variable in a way that cannot be, or one that is not set; ``advice`` says what to do."""

    def __init__(self, advice: str) -> None:
        super().__init__(advice)
        self.advice = advice


def expand(text: str, environ: Mapping[str, str]) -> str:
    """``text`` with ``${VAR}`` and ``${VAR:-default}`` replaced, and ``$${`` as a literal ``${``.

    Raises `VariableFault`.
    """

    def replacement(match: re.Match[str]) -> str:
        if match[1]:
            return "${"
        variable = _NAME.fullmatch(match[2] or "")
        if variable is None:
            raise VariableFault("${ needs a variable's name and a }: write $${ for a literal ${")
        name, fallback = variable.groups()
        if fallback is not None:
            return environ.get(name) or fallback
        if name not in environ:
            raise VariableFault(f"the variable {name} is not set: {_instead(name)}")
        return environ[name]

    return _VARIABLE.sub(replacement, text)


def _instead(name: str) -> str:
    """What to write for a variable that is not set."""
    if name in PLACEHOLDERS:
        return f"write {{{name}}}, without the $, for the session's own"
    return f"set it, or write ${{{name}:-default}}"
