"""Imports what a zygote is to hold, one module after the other, and finds those that no zygote can hold.

Standard library only.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import sys
import time
from typing import Any, NamedTuple

from muxsim.inside.proc import children_of

THREAD_EXIT = 0.2
"""Seconds for threads that a library ends before a fork to be gone."""


SHOWN = 1000
"""Characters of an error of others that are told."""


class Culprit(Exception):
    """A module that a zygote cannot hold."""

    def __init__(self, module: str, why: str) -> None:
        super().__init__(f"{module} {why}")
        self.module = module
        self.why = why


class Recipe(NamedTuple):
    """What a zygote is for."""

    tag: str
    """What its reports carry."""

    words: list[str]
    """The environment's command line after the interpreter's options: a script's path, or -m and a module.

    The -m may be at the end of options of the interpreter.
    """

    options: int
    """How many words of the whole command line are the interpreter's options."""

    own: list[str]
    """Packages that are the environment's own, wherever they lie."""

    modules: list[str]
    """What to import, in the order in which a run of the script looked for it."""

    preload: list[str]
    """What to import beside that, because the spec says so."""

    left_out: list[str]
    """What not to import, with everything below it."""

    variables: list[str]
    """Names of environment variables whose value depends on the session."""


class Watched(dict):  # type: ignore[type-arg] # os.environ's own, which maps bytes to bytes
    """The environment while modules are imported: tells which variables of a session they want to know."""

    def __init__(self, data: Any, names: list[str]) -> None:
        super().__init__(data)
        self._names = {os.fsencode(name) for name in names}
        self.wanted: set[str] = set()

    def __getitem__(self, key: bytes) -> Any:
        if key in self._names:
            self.wanted.add(os.fsdecode(key))
        return super().__getitem__(key)


class WatchedArguments(list):  # type: ignore[type-arg] # sys.argv's own
    """sys.argv while modules are imported, which has the script alone: tells whether they want to know what follows."""

    wanted = False

    def __getitem__(self, index: Any) -> Any:
        self.wanted = self.wanted or index != 0
        return super().__getitem__(index)

    def __iter__(self) -> Any:
        self.wanted = True
        return super().__iter__()

    def __len__(self) -> int:
        self.wanted = True
        return super().__len__()

    def __contains__(self, word: object) -> bool:
        self.wanted = True
        return super().__contains__(word)

    def copy(self) -> Any:
        self.wanted = True
        return super().copy()


class Importer:
    """Imports one module after the other and looks after each at what it has done to the process."""

    def __init__(self, recipe: Recipe, folder: str | None, tell: Any) -> None:
        self._recipe = recipe
        self._folder = folder
        self._tell = tell
        self._pid = os.getpid()
        self._descriptors = self._open_descriptors()
        self._own = frozenset(recipe.own)

    def run(self) -> None:
        environ: Any = os.environ
        self._environment = Watched(environ._data, self._recipe.variables)
        environ._data = self._environment
        self._arguments = sys.argv = WatchedArguments(sys.argv)
        try:
            for name in self._recipe.modules:
                self._import_learned(name)
            for name in self._recipe.preload:
                self._import_wanted(name)
            for name in rehearsals():
                self._import_wanted(name)
        finally:
            sys.argv = self._recipe.words[:1]
            environ._data = dict(self._environment)
            if hasattr(os, "environb"):
                os.environb._data = environ._data  # type: ignore[attr-defined] # the same dict in the original too

    def _import_learned(self, name: str) -> None:
        parent = name.rpartition(".")[0]
        if name in sys.modules or self._is_left_out(name) or (parent and parent not in sys.modules):
            return
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return
        if spec is not None and not self._is_own(name, spec.origin):
            self._import(name)

    def _import_wanted(self, name: str) -> None:
        if name not in sys.modules and not self._is_left_out(name):
            self._import(name)

    def _import(self, name: str) -> None:
        before = set(sys.modules)
        self._tell({"kind": "importing", "module": name})
        try:
            importlib.import_module(name)
            self._end_copies()
        except BaseException as error:  # what a module can raise is without end
            # One that the script has not found either is no fault, unless a half of it is here now: when it is tried
            # again, that would not be the same.
            half = any(new.startswith(name + ".") for new in set(sys.modules) - before)
            if half or name in self._recipe.preload or not isinstance(error, ImportError):
                why = f"{type(error).__name__}: {error}"[:SHOWN]
                raise Culprit(name, f"cannot be imported: {why}") from error
        self._check(name, before)

    def _end_copies(self) -> None:
        """Of a module that forks, and goes on in the copy: there is one zygote."""
        if os.getpid() != self._pid:
            os._exit(0)

    def _check(self, name: str, before: set[str]) -> None:
        if self._environment.wanted:
            wanted = ", ".join(sorted(self._environment.wanted))
            raise Culprit(name, f"reads {wanted} when it is imported, which differs from session to session")
        if self._arguments.wanted:
            raise Culprit(name, "reads the arguments when it is imported, which may differ from session to session")
        for new in set(sys.modules) - before:
            if sys.modules[new] is sys.modules["__main__"]:
                continue  # ours; multiprocessing calls it so too
            if self._is_own(new, getattr(sys.modules[new], "__file__", None)):
                raise Culprit(name, f"imports {new}, which is the environment's own")
        self._check_process(name)

    def _check_process(self, name: str) -> None:
        if not single_threaded():
            raise Culprit(name, "starts a thread when it is imported")
        if self._descriptors - self._open_descriptors():
            raise Culprit(name, "closes a descriptor that it has not opened when it is imported")
        if more := self._open_descriptors() - self._descriptors:
            gc.collect()  # it may only have been slow to close it
            if more := self._open_descriptors() - self._descriptors:
                shown = ", ".join(sorted(link for _, link in more))
                raise Culprit(name, f"leaves something open when it is imported: {shown}")
        if children_of(os.getpid()):
            raise Culprit(name, "starts a process when it is imported")

    def _is_left_out(self, name: str) -> bool:
        return any(name == out or name.startswith(out + ".") for out in self._recipe.left_out)

    def _is_own(self, name: str, origin: str | None) -> bool:
        """Whether it comes with the script: that is never held, for it may keep what belongs to one session."""
        if name.partition(".")[0] in self._own:
            return True
        if self._folder is None or not origin or not os.path.isabs(origin):
            return False
        # A virtual environment may be in the script's folder: the nearest entry of sys.path is where it comes from.
        entries = [entry for entry in sys.path if entry and origin.startswith(os.path.join(entry, ""))]
        return bool(entries) and max(entries, key=len) == self._folder

    @staticmethod
    def _open_descriptors() -> set[tuple[int, str]]:
        found = set()
        for name in os.listdir("/proc/self/fd"):
            try:
                found.add((int(name), os.readlink("/proc/self/fd/" + name)))
            except OSError:  # the one that lists them
                continue
        return found


def rehearsals() -> list[str]:
    """The modules that libraries name for this: their import does beforehand what is otherwise done by every fork."""
    named = [vars(module).get("__muxsim_rehearsal__") for module in list(sys.modules.values())]
    return [name for name in named if isinstance(name, str)]


def single_threaded() -> bool:
    """Whether this process has one thread when it forks.

    Libraries such as OpenBLAS start threads when they are loaded and end them before each fork, to start them again
    when they are needed; so the question is what is left after one.
    """
    if len(os.listdir("/proc/self/task")) == 1:
        return True
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    until = time.monotonic() + THREAD_EXIT
    while len(os.listdir("/proc/self/task")) > 1:
        if time.monotonic() > until:
            return False
        time.sleep(0.001)
    return True
