"""Policies and reward functions of the user's own, named on a command line as ``module:name``."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from muxsim.errors import ConfigError


def made(spec: str, options: Mapping[str, Any], key: str) -> Any:
    """What ``module:name`` is: of a class or another factory, what that makes of ``options``; else the object itself.

    Modules are also looked for in the current folder. ``key`` is the option that the errors name. Raises `ConfigError`.
    """
    found = _found(spec, key)
    if not isinstance(found, type) and not _makes_a_policy(found, key):
        return _as_it_is(found, spec, options, key)
    try:
        return found(**options)
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise _wrong(spec, f"it cannot be made: {_where(error)}", key) from error


def function(spec: str, options: Mapping[str, Any]) -> Any:
    """The reward function that ``module:name`` is, with ``options`` as keyword arguments. Raises `ConfigError`."""
    found = _found(spec, "reward")
    if isinstance(found, type):
        found, options = made(spec, options, "reward"), {}
    if not callable(found):
        raise _wrong(spec, f"a reward is a function of the trajectory, not {found!r:.80}", "reward")
    if not _takes(found, 1, options) and not _takes(found, 2, options):
        more = f", and {', '.join(options)}" if options else ""
        raise _wrong(spec, f"it has to take (trajectory) or (trajectory, workspace){more}", "reward")
    return functools.partial(found, **options) if options else found


def _takes(found: Any, number: int, options: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(found).bind(*[None] * number, **options)
    except TypeError:
        return False
    except ValueError:  # some that are written in C have no signature
        pass
    return True


def _as_it_is(found: Any, spec: str, options: Mapping[str, Any], key: str) -> Any:
    if options:
        raise _wrong(spec, f"it is made already and takes no {', '.join(options)}", key)
    return found


def _makes_a_policy(found: Any, key: str) -> bool:
    return key == "policy" and callable(found) and not hasattr(found, "next_message")


def _found(spec: str, key: str) -> Any:
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        raise _wrong(spec, "write MODULE:NAME", key)
    found: Any = _module(module_name, spec, key)
    for part in name.split("."):
        if not hasattr(found, part):
            close = get_close_matches(part, [known for known in vars(found) if not known.startswith("_")], n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise _wrong(spec, f"{module_name} has no {part!r}{meant}", key)
        found = getattr(found, part)
    return found


def _module(name: str, spec: str, key: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:  # at its end: a random.py of the user's must not stand in for Python's
        sys.path.append(here)
    try:
        if find_spec(name) is None:
            raise _wrong(spec, f"there is no module {name!r}, neither installed nor in {here}", key)
        return import_module(name)
    except ConfigError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and name.startswith(error.name):
            raise _wrong(spec, f"there is no module {error.name!r}, neither installed nor in {here}", key) from None
        raise _wrong(spec, f"{name} cannot be imported: {_where(error)}", key) from error
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise _wrong(spec, f"{name} cannot be imported: {_where(error)}", key) from error


def _where(error: BaseException) -> str:
    """An exception of the user's code in one line, with the line of it that raised."""
    text = f"{type(error).__name__}: {error}"
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    last = next((frame for frame in reversed(frames) if not frame.filename.startswith(("<", str(_HERE)))), None)
    return text if last is None else f"{text} ({last.filename}, line {last.lineno})"


_HERE = Path(__file__).parent


def _wrong(spec: str, advice: str, key: str) -> ConfigError:
    return ConfigError(" ".join(advice.split()), file="the command line", key=key, value=spec)
