"""Which packages are an environment's own, though they do not lie beside its script: no zygote holds them."""

from __future__ import annotations

import ast
import os
import sys
from typing import Final

from muxsim.start.fork.forkable import Forkable
from muxsim.start.fork.reading import first_bytes

# What installers write has a few hundred.
_LARGEST: Final = 8192


def own_packages(program: Forkable) -> list[str]:
    """The package that is run with -m, or that a console script calls, which may keep what belongs to one session."""
    if program.script is None:
        return [program.words[1].partition(".")[0]]
    if program.is_runner:
        return []
    return entered(first_bytes(os.path.join(program.cwd, program.script), _LARGEST + 1))


def entered(script: bytes) -> list[str]:
    """What a script imports that does nothing but call it, as those do which installers write; else nothing."""
    try:
        body = ast.parse(script[:_LARGEST]).body if len(script) <= _LARGEST else []
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    if not body or not isinstance(body[-1], ast.If) or not all(map(_is_import, body[:-1])):
        return []
    names = (
        name.partition(".")[0]
        for node in body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    )
    return sorted({name for name in names if name and name not in sys.stdlib_module_names})


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)
