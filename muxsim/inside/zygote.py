"""The zygote: imports what an environment imports, once, and forks a backend for each session.

    python [options] zygote.py

with the environment's own interpreter, which need not have muxsim, and its options; standard library only.
`muxsim.start.fork.zygotes` starts it. Its descriptor `descriptors.CHANNEL` is a SOCK_SEQPACKET socket, with the packets
of wire.py. The first that comes is its recipe, see `Recipe`. All that it says carries the tag of that, which nothing
that it imports can guess:

    from the zygote                          to it, and its answer
    importing {module}                       fork {ref, mark, confinement, early} + 3 fds
    culprit {module, why}, and it exits          forked {ref, pid}, from the fork itself
    refused {why}, and it exits                  failed {ref, stage, errno}
    ready {modules}                              stale {ref, why}, and it exits
                                             study {pid}, a fork that has played a little; no answer

A fork is orphaned at once, so that the guardian, the nearest subreaper, becomes its parent. It then waits on its stdin
for its order (start/prepared.py), and runs the script as `__main__`. One that is `early`, before there is a
session, has time to fetch the pages that it will use (pages.py).
"""

from __future__ import annotations

import sys

MAIN_NAMES = [name for name in globals() if name.startswith("__")]
STARTUP_MODULES = frozenset(sys.modules)

import ctypes  # noqa: E402 - what was there before our first line belongs to the interpreter
import errno  # noqa: E402
import gc  # noqa: E402
import importlib  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import random  # noqa: E402
import secrets  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import sysconfig  # noqa: E402
import time  # noqa: E402
import types  # noqa: E402
from typing import Any, NamedTuple  # noqa: E402

if __name__ == "__main__":  # by its path, in an interpreter that need not have muxsim: there is this folder of it alone
    for name, folder in (("muxsim", []), ("muxsim.inside", [os.path.dirname(os.path.abspath(__file__))])):
        sys.modules[name] = type(sys)(name)
        sys.modules[name].__path__ = folder

from muxsim.inside import as_main, confine, descriptors, held, libc, pages, proc, wire  # noqa: E402

if __name__ == "__main__":
    as_main.withdraw()

BEGUN = 8
"""The status of a fork made on trial that has got as far as its script; none that has met its end on the way."""

THREAD_EXIT = 0.2
"""Seconds for threads that a library ends before a fork to be gone."""


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
    """The environment's command line after the interpreter's options: a script's path, or -m and a module."""

    options: int
    """How many words of the whole command line are the interpreter's options."""

    modules: list[str]
    """What to import, in the order in which a run of the script looked for it."""

    preload: list[str]
    """What to import beside that, because the spec says so."""

    left_out: list[str]
    """What not to import, with everything below it."""

    variables: list[str]
    """Names of environment variables whose value depends on the session."""


# --- importing ---


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


class Importer:
    """Imports one module after the other and looks after each at what it has done to the process."""

    def __init__(self, recipe: Recipe, folder: str | None, tell: Any) -> None:
        self._recipe = recipe
        self._folder = folder
        self._tell = tell
        self._pid = os.getpid()
        self._descriptors = self._open_descriptors()
        self._own_package = recipe.words[1].partition(".")[0] if recipe.words[0] == "-m" else None

    def run(self) -> None:
        environ: Any = os.environ
        self._environment = Watched(environ._data, self._recipe.variables)
        environ._data = self._environment
        try:
            for name in self._recipe.modules:
                self._import_learned(name)
            for name in self._recipe.preload:
                self._import_wanted(name)
            for name in rehearsals():
                self._import_wanted(name)
        finally:
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
                raise Culprit(name, f"cannot be imported: {type(error).__name__}: {error}") from error
        self._check(name, before)

    def _end_copies(self) -> None:
        """Of a module that forks, and goes on in the copy: there is one zygote."""
        if os.getpid() != self._pid:
            os._exit(0)

    def _check(self, name: str, before: set[str]) -> None:
        if self._environment.wanted:
            wanted = ", ".join(sorted(self._environment.wanted))
            raise Culprit(name, f"reads {wanted} when it is imported, which differs from session to session")
        for new in set(sys.modules) - before:
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
        if proc.children_of(os.getpid()):
            raise Culprit(name, "starts a process when it is imported")

    def _is_left_out(self, name: str) -> bool:
        return any(name == out or name.startswith(out + ".") for out in self._recipe.left_out)

    def _is_own(self, name: str, origin: str | None) -> bool:
        """Whether it comes with the script: that is never held, for it may keep what belongs to one session."""
        if self._own_package is not None and name.partition(".")[0] == self._own_package:
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


# --- what has to be as on the day the zygote was made ---


class Freshness:
    """Tells when what was imported is no longer what an import would give.

    A package that is installed or removed changes its folder of packages. The files of the interpreter itself are
    trusted; those of modules elsewhere, as of a package under development, are looked at one by one.
    """

    def __init__(self, folder: str | None) -> None:
        paths = sysconfig.get_paths()
        packages = {paths["purelib"], paths["platlib"]}
        standard = (paths["stdlib"], paths["platstdlib"])
        self._folder = folder
        self._marks = {path: self._mark(path) for path in packages}
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and not file.startswith((*packages, *standard)) and file != __file__:
                self._marks[file] = self._mark(file)
        self._names = {name.partition(".")[0] for name in sys.modules if name not in STARTUP_MODULES}
        self._folder_mark: tuple[int, int] | None = None

    def fault(self) -> str | None:
        """What has changed, or cannot have been right from the beginning."""
        for path, mark in self._marks.items():
            if self._mark(path) != mark:
                return f"{path} has changed"
        if self._folder is not None and self._mark(self._folder) != self._folder_mark:
            self._folder_mark = self._mark(self._folder)
            return self._shadow()
        return None

    def _shadow(self) -> str | None:
        """A file beside the script that an import would find in the place of a module that is here."""
        try:
            beside = os.listdir(self._folder)
        except OSError:
            return None
        for entry in beside:
            name, dot, suffix = entry.partition(".")
            package = not dot and os.path.exists(os.path.join(self._folder or "", entry, "__init__.py"))
            if name in self._names and (package or suffix == "py" or suffix.endswith(".so")):
                return f"{entry} beside the script stands before the module {name}"
        return None

    @staticmethod
    def _mark(path: str) -> tuple[int, int] | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size


# --- forking ---


class Randomness:
    """Remembers which generators took their state from the system, so that each fork can draw its own.

    One that was given a seed has the same state in every fresh process, and so in every fork.
    """

    def __init__(self) -> None:
        self._unseeded: list[Any] = []
        self._entropies: set[int] = set()
        self._numpys: list[Any] = []
        self._seed = random.Random.seed
        self._randbits = secrets.randbits

    def watch(self) -> None:
        """See generators come while modules are imported."""

        def seed(generator: Any, a: Any = None, version: int = 2) -> None:
            if a is None:
                self._unseeded.append(generator)
            self._seed(generator, a, version)

        def randbits(k: int) -> int:  # from which numpy takes the seed of a generator that is given none
            self._entropies.add(bits := self._randbits(k))
            return bits

        random.Random.seed = seed  # type: ignore[method-assign, assignment] # until `unwatch`
        secrets.randbits = randbits

    def unwatch(self) -> None:
        """Leave all as it was, and keep what has to be renewed."""
        random.Random.seed = self._seed  # type: ignore[method-assign]
        secrets.randbits = self._randbits
        numpys: Any = sys.modules.get("numpy.random.bit_generator")
        if numpys is None or not hasattr(numpys, "randbits"):
            return
        numpys.randbits = self._randbits
        self._numpys = [
            one
            for one in gc.get_objects()
            if isinstance(one, numpys.BitGenerator) and getattr(one.seed_seq, "entropy", None) in self._entropies
        ]

    def renew(self) -> None:
        """In a fork: draw again what a fresh process would have drawn."""
        random.seed()
        for generator in self._unseeded:
            generator.seed()
        for generator in self._numpys:
            generator.state = type(generator)().state
        modules = sys.modules
        if "numpy.random" in modules:
            modules["numpy.random"].seed()
        if "uuid" in modules:
            # Neither the node nor the last time may be shared, or two sessions could draw the same uuid1.
            for name in ("_node", "_last_timestamp"):
                if hasattr(modules["uuid"], name):
                    setattr(modules["uuid"], name, None)
        if "multiprocessing.process" in modules:
            modules["multiprocessing.process"].current_process().authkey = os.urandom(32)


class Zygote:
    """One thread, blocked in poll but while it forks."""

    def __init__(self, recipe: Recipe, channel: socket.socket) -> None:
        self._recipe = recipe
        self._guardian_pid = os.getppid()
        self._mark_address = self._find_mark()
        self._channel = channel
        self._randomness = Randomness()
        self._script = None if recipe.words[0] == "-m" else recipe.words[0]
        self._code: types.CodeType | None = None
        self._compiled: object = None
        self._pages = pages.Pages()
        self._held = held.Held()

    def run(self) -> as_main.Program:
        """Serve until the launcher goes; returns in each fork, with what it is to run."""
        folder = self._prepare_path()
        self._randomness.watch()
        try:
            Importer(self._recipe, folder, self._tell).run()
        except Culprit as culprit:
            self._tell({"kind": "culprit", "module": culprit.module, "why": culprit.why})
            os._exit(0)
        finally:
            self._randomness.unwatch()
        if folder is not None:
            sys.path.remove(folder)
        self._environment = changes_of(os.environ)
        self._freshness = Freshness(folder)
        if fault := self._freshness.fault():
            self._tell({"kind": "refused", "why": fault})
            os._exit(0)
        self._compile()
        self._settle()
        self._try()
        self._tell({"kind": "ready", "modules": len(sys.modules)})
        return self._serve()

    def _prepare_path(self) -> str | None:
        """Import from where the script will; returns the folder that the path begins with for it, if one does."""
        sys.argv[:] = self._recipe.words[:1]
        if as_main.safe_path():
            return None
        sys.path.insert(0, as_main.script_folder(self._script) if self._script else os.getcwd())
        return sys.path[0]

    def _settle(self) -> None:
        sys.stdout.flush()  # what imports have printed is not for every fork to say again
        sys.stderr.flush()
        self._held.hold({*STARTUP_MODULES, "__main__"})
        gc.collect()
        gc.disable()
        gc.freeze()
        if trim := getattr(libc.LIBC, "malloc_trim", None):
            trim(0)

    def _try(self) -> None:
        """Have one fork begin, and exit with it if it cannot: imports may have broken what every fork needs."""
        streams, orders = [os.dup(1), os.dup(2)], []
        for order in self._trial():
            reading, writing = os.pipe()
            text = json.dumps(order).encode()
            os.write(writing, len(text).to_bytes(4, "big") + text)
            os.close(writing)
            orders.append(reading)
        fds = [orders[0], *streams, orders[1]]
        if (pid := os.fork()) == 0:
            try:
                self._become(fds, early=False)
                len(sys.argv)  # which comes late
                os._exit(BEGUN)
            except BaseException as error:  # as in `_import`
                os.write(2, f"a fork of it cannot begin: {type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(1)
        for fd in fds:
            os.close(fd)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != BEGUN:
            os._exit(1)

    def _trial(self) -> list[dict[str, Any]]:
        """An order, and what comes late of it, for a fork that runs nothing of the script."""
        argv = [sys.executable, *[""] * self._recipe.options, *self._recipe.words]
        unknown = {"env": self._recipe.variables, "argv": True}
        return [{"argv": argv, "env": {}, "cwd": "/", "umask": None, "late": unknown}, {"argv": [*argv, ""], "env": {}}]

    def _serve(self) -> as_main.Program:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while True:
            poll.poll()
            try:
                received = wire.receive(self._channel)
            except BlockingIOError:
                continue
            if received.message is None:
                os._exit(0)
            if received.message["kind"] == "study":
                self._pages.study(received.message["pid"])
                continue
            program = self._answer(received.message, received.fds, received.complete)
            if program is not None:
                return program
            for fd in received.fds:
                os.close(fd)

    def _answer(self, order: Any, fds: list[int], complete: bool) -> as_main.Program | None:
        if fault := self._freshness.fault():
            self._tell({"kind": "stale", "ref": order["ref"], "why": fault})
            os._exit(0)
        if not complete or len(fds) < descriptors.STREAMS:
            self._fail(order, "descriptors", errno.EMFILE)
            return None
        self._compile()
        try:
            middle = os.fork()
        except OSError as error:
            self._fail(order, "fork", error.errno)
            return None
        if middle == 0:
            return self._orphan(order, fds)
        if os.waitpid(middle, 0)[1] != 0:
            self._fail(order, "fork", errno.ECHILD)
        return None

    def _orphan(self, order: Any, fds: list[int]) -> as_main.Program:
        """In the process between: fork the backend, and exit, so that the guardian becomes its parent."""
        middle = os.getpid()
        try:
            self._write_mark(order["mark"])
            pid = os.fork()
        except OSError as error:
            self._fail(order, "fork", error.errno)
            os._exit(0)
        if pid:
            os._exit(0)
        try:
            os.setsid()
            confine.confine(order["confinement"])
            self._wait_adoption(middle)
            self._tell({"kind": "forked", "ref": order["ref"], "pid": os.getpid()})
        except confine.Unconfined as error:
            self._fail(order, error.key, error.number)
            os._exit(1)
        except OSError as error:
            self._fail(order, "prepare", error.errno)
            os._exit(1)
        return self._become(fds, early=order["early"])

    def _wait_adoption(self, middle: int) -> None:
        """Be tied to the guardian: whatever becomes of it becomes of us."""
        if os.getppid() == middle:
            try:
                pidfd = os.pidfd_open(middle)
            except ProcessLookupError:
                pass
            else:
                select.select([pidfd], [], [])
                os.close(pidfd)
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._guardian_pid:
            os._exit(1)

    def _become(self, fds: list[int], *, early: bool) -> as_main.Program:
        self._channel.close()
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
        for fd in fds:
            os.close(fd)
        if early:
            self._pages.fetch()
        order = take_order()
        if order["umask"] is not None:
            os.umask(order["umask"])
        try:
            os.chdir(order["cwd"])
        except OSError as error:
            os.write(2, f"cannot start in {order['cwd']!r}: {error.strerror}\n".encode())
            os._exit(126)
        self._set_environment(order["env"])
        self._randomness.renew()
        gc.enable()
        return as_main.become(order["argv"], self._recipe.options, MAIN_NAMES, self._code)

    def _set_environment(self, variables: dict[str, str]) -> None:
        added, removed = self._environment
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update({**variables, **added})
        for name in removed:
            os.environ.pop(name, None)
        if os.environ.get("TZ") != before.get("TZ"):
            time.tzset()
        if any(os.environ.get(name) != before.get(name) for name in ("TMPDIR", "TEMP", "TMP")):
            # It keeps what it found, which was for another session.
            vars(sys.modules.get("tempfile", types.ModuleType("none")))["tempdir"] = None

    def _compile(self) -> None:
        """Have the script's code ready, as it stands in the file now."""
        if self._script is None:
            return
        try:
            found = os.stat(self._script)
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp != self._compiled:
                self._code, self._compiled = as_main.compile_script(self._script), stamp
        except (OSError, SyntaxError, ValueError):
            self._code = self._compiled = None  # the backend will say it

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            wire.send(self._channel, wire.pack({**message, "tag": self._recipe.tag}))
        except OSError:
            os._exit(0)  # the launcher is gone

    def _fail(self, order: Any, stage: str, number: int | None) -> None:
        self._tell({"kind": "failed", "ref": order["ref"], "stage": stage, "errno": number})

    # the mark by which the guardian tells whose a process is

    def _find_mark(self) -> int:
        """Where in our memory the kernel, and so /proc/<pid>/environ, has the value of the mark."""
        entry = f"{proc.MARK}=".encode()
        assert libc.LIBC is not None
        environ = ctypes.POINTER(ctypes.c_void_p).in_dll(libc.LIBC, "environ")
        at = 0
        while environ[at] is not None:
            if ctypes.string_at(environ[at], len(entry)) == entry:
                return int(environ[at]) + len(entry)
            at += 1
        raise LookupError(f"{proc.MARK} is not in the environment")

    def _write_mark(self, mark: str) -> None:
        value = mark.encode()
        if len(value) != len(ctypes.string_at(self._mark_address)):
            raise OSError(errno.EINVAL, "marks are of one length")
        ctypes.memmove(self._mark_address, value, len(value))


def changes_of(environ: Any) -> tuple[dict[str, str], list[str]]:
    """What the interpreter (LC_CTYPE, in the C locale) and imports have set in the environment, and what removed."""
    with open("/proc/self/environ", "rb") as file:
        entries = [os.fsdecode(entry).partition("=") for entry in file.read().split(b"\0") if entry]
    given = {name: value for name, _, value in entries}
    added = {name: value for name, value in environ.items() if given.get(name) != value}
    return added, [name for name in given if name not in environ]


def take_order() -> dict[str, Any]:
    """The order on stdin, and not a byte more; exits if there is none."""
    length = int.from_bytes(read_exactly(4), "big")
    order: dict[str, Any] = json.loads(read_exactly(length))
    return order


def read_exactly(count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def main() -> as_main.Program:
    channel = socket.socket(fileno=descriptors.CHANNEL)
    channel.set_inheritable(False)
    select.select([channel], [], [])
    recipe = wire.receive(channel).message
    if recipe is None:
        os._exit(0)
    return Zygote(Recipe(**{name: recipe[name] for name in Recipe._fields}), channel).run()


if __name__ == "__main__":
    program = main()
    try:
        # Here and not in a function, to have one frame below the script's own and not several.
        if program.code is not None:
            exec(program.code, vars(program.main))
        else:
            as_main.run_module(program.module)
    except SystemExit:
        raise
    except BaseException as error:
        as_main.hide(__file__, error)
        raise
