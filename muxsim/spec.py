"""`EnvSpec`: how to start an environment, and what exactly to execute for one session of it.

Pure: nothing here touches a file, the clock or the process's own environment.
"""

import difflib
import functools
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Literal

from muxsim.values import CONFINEMENT_KEYS, ENVIRONMENT_KEYS, LIMIT_KEYS, check_numbers

CgroupMode = Literal["auto", "required", "off"]
"""Whether cgroups bound what runs: where they can, always (else nothing runs), or never."""

Sandbox = Literal["none", "bubblewrap", "landlock"]
"""What a backend is run in."""

SANDBOX_KEYS = ("network", "readable", "writable")
"""What is said of a sandbox, and of nothing else."""


def temporary_folder(workspace: str) -> str:
    """Where a session under landlock has its temporary files: beside its workspace, with what else is only its own."""
    return f"{workspace}.private/tmp"


LOCK_NAME = "muxsim.lock"
"""The file beside a config that says what came of its environments' dependencies."""

HOW_TO_LOCK = "muxsim envs lock"
"""The command that writes it."""

PLACEHOLDERS = ("seed", "session_id", "workspace")

# Doubled braces come first, so that `{{seed}}` is seen whole.
_BRACED = re.compile(r"\{\{([A-Za-z][A-Za-z0-9_-]*)\}\}|\{([A-Za-z][A-Za-z0-9_-]*)\}")
_SINGLE = re.compile(r"\{([A-Za-z][A-Za-z0-9_-]*)\}")

# How alike two words must be for one to pass as a slip of the other: `sed`, `session` and `work_space` do.
_TYPO_LIKENESS = 0.85

# What programs need to find their files, speak the user's language and trust the same certificates.
# No proxies (their addresses may hold passwords), no PYTHONPATH or NODE_OPTIONS (an episode must not
# depend on the shell that muxsim was typed in), no tokens. Some interpreters do not start without
# LD_LIBRARY_PATH.
# fmt: off
PASSED_VARIABLES = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "TZ", "LANG", "LANGUAGE",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "LD_LIBRARY_PATH",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS",
})
# fmt: on
_PASSED_PREFIX = "LC_"

# Python draws a new hash seed per process, and with it a new order of every set of strings; the same
# seed has to give the same episode in each process.
_REPRODUCIBLE = {"PYTHONHASHSEED": "0"}


def meant_placeholder(word: str) -> str | None:
    """The placeholder that ``word`` is, or is a slip of (``Seed``, ``session``); None for any other word."""
    return word if word in PLACEHOLDERS else _resembled(word)


@functools.lru_cache(maxsize=1024)
def _resembled(word: str) -> str | None:
    letters = _letters(word)
    for name in PLACEHOLDERS:
        # A slip keeps the first letters: without this, `{speed}` would pass for `{seed}`.
        if letters[:2] == name[:2]:
            likeness = difflib.SequenceMatcher(a=letters, b=_letters(name)).ratio()
            if likeness >= _TYPO_LIKENESS:
                return name
    return None


def _letters(word: str) -> str:
    return word.lower().replace("_", "").replace("-", "")


def misspelt_placeholder(text: str) -> tuple[str, str] | None:
    """The first ``{word}`` of ``text`` that is a slip of a placeholder, and that one: ``("sed", "seed")``."""
    for match in _BRACED.finditer(text):
        word = match[2]
        if (
            word is not None
            and not text.endswith("$", 0, match.start())
            and word not in PLACEHOLDERS
            and (meant := meant_placeholder(word))
        ):
            return word, meant
    return None


def fill(text: str, values: Mapping[str, str]) -> str:
    """``text`` with each ``{seed}``, ``{session_id}`` and ``{workspace}`` replaced, once, by its value.

    ``{{seed}}`` gives a literal ``{seed}``, and so does a slip of one. Every other brace stays as it is, so JSON and
    templates survive.
    """

    def replacement(match: re.Match[str]) -> str:
        if match[1] is not None:
            return "{" + match[1] + "}" if meant_placeholder(match[1]) else match[0]
        return values.get(match[2], match[0])

    return _BRACED.sub(replacement, text)


def literal(text: str) -> str:
    """What `fill` makes ``text`` of, whatever is in it: for paths and values that nobody wrote as a template."""
    return _SINGLE.sub(lambda match: "{" + match[0] + "}" if meant_placeholder(match[1]) else match[0], text)


def fixed(template: str) -> str:
    """The text that a template without placeholders stands for."""
    return fill(template, {})


def has_placeholder(text: str) -> bool:
    """Whether `fill` would put a value into ``text``."""
    return any(match[2] in PLACEHOLDERS for match in _BRACED.finditer(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The times (seconds) and sizes (bytes) that bound a session and its backend; None means without end."""

    install_timeout: float = 600.0
    """For installing the environment's npm package, once, before its first start."""

    start_timeout: float = 60.0
    """From the start of a backend to its answer to the first request (`initialize`)."""

    handshake_timeout: float | None = 600.0
    """How long a new session waits for the first request of a client."""

    call_timeout: float | None = None
    """From a request to its answer. A call past it gets an error and the backend a cancellation."""

    idle_timeout: float | None = 3600.0
    """How long a session lives with no request in flight, no message and no open stream of a client."""

    quiet_timeout: float | None = None
    """The same, even while a client has a stream open, or an endless request in flight (`subscriptions/listen`)."""

    ttl: float | None = None
    """How long a session lives at most, from its making."""

    # Both ends, and the server's drain_timeout before them, leave a busy machine some of the two seconds in which a
    # session's processes have to be gone: with 1.7 s in all, they were not always under load.
    eof_timeout: float = 0.6
    """From closing a backend's stdin to SIGTERM."""

    term_timeout: float = 0.4
    """From SIGTERM to SIGKILL."""

    max_line: int = 64 * 2**20
    """The longest message a backend may write; a longer one ends its session."""

    max_in_flight: int = 256
    """How many requests of a session's clients may be in flight, and how many of its backend; one more is refused."""

    max_attachments: int = 1024
    """How many clients may be attached to a session. On a shared one, those silent for `idle_timeout` make way."""

    max_waiting: int = 64
    """How many messages of clients may wait for a backend that does not read; one more gets an error."""

    stderr_lines: int = 20
    """How many of the last stderr lines are kept, for the errors of a session whose backend died."""

    max_failed_starts: int = 5
    """After how many failed starts within `failed_start_window` the environment is left alone for as long again; then
    one start is tried. 0 never leaves it alone."""

    failed_start_window: float = 30.0
    """The time within which failed starts count together, and for which nothing starts after too many."""

    def __post_init__(self) -> None:
        check_numbers(self, LIMIT_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a backend may use of the machine, and do to it; None means as much as muxsim itself may."""

    max_memory: int | None = None
    """Memory of all processes of a session together (cgroup v2); past it they are killed."""

    max_cpus: float | None = None
    """CPUs that they may keep busy, 0.5 being half of one (cgroup v2); past it they have to wait."""

    max_processes: int | None = None
    """Processes and threads they may be (cgroup v2); elsewhere all of muxsim's user's, unless that is root."""

    max_cpu_seconds: int | None = None
    """CPU time of each process of a session, in whole seconds (RLIMIT_CPU); it is killed past it."""

    max_address_space: int | None = None
    """Addresses each process may map (RLIMIT_AS); not for Node, which reserves far more than it uses."""

    max_open_files: int | None = None
    """Files each process may have open (RLIMIT_NOFILE)."""

    max_file_size: int | None = None
    """How large a file may become by its writing (RLIMIT_FSIZE)."""

    nice: int = 0
    """What is added to muxsim's own niceness, up to 19: the higher, the later its turn on a busy machine."""

    no_new_privs: bool = True
    """No setuid program or file capability gives a session more rights (sudo, ping and rootless podman need that)."""

    sandbox: Sandbox = "none"
    """`landlock`: what the environment needs to read, its workspace to write, and nothing else; no network. An opening
    takes about a tenth longer. `bubblewrap`: no network, a `/tmp` of its own, and nothing to write to but that and the
    workspace."""

    network: bool | tuple[int, ...] = False
    """Whether a sandbox lets a session use the network; under `landlock` also a list of TCP ports to connect to."""

    readable: tuple[str, ...] = ()
    """Files and folders that it may read in a sandbox beside what it needs; placeholders are filled in."""

    writable: tuple[str, ...] = ()
    """Files and folders that it may read and write in a sandbox beside its workspace; placeholders are filled in."""

    def __post_init__(self) -> None:
        check_numbers(self, CONFINEMENT_KEYS)


def confinement_fault(confinement: Confinement) -> tuple[str, str] | None:
    """The key that contradicts the sandbox, and what is wrong with it; None if none does."""
    sandbox = confinement.sandbox
    if sandbox == "none":
        for key in SANDBOX_KEYS:
            if getattr(confinement, key):
                return key, 'is for a sandbox: add sandbox = "landlock" or "bubblewrap", or take it out'
    elif sandbox == "bubblewrap" and not isinstance(confinement.network, bool):
        return "network", 'names ports, which bubblewrap does not tell apart: true, or sandbox = "landlock"'
    elif sandbox == "landlock" and not confinement.no_new_privs:
        return "no_new_privs", "cannot be false under landlock, which needs it: take it out"
    return None


@dataclass(frozen=True, slots=True)
class Pins:
    """What a lock says of one kind of packages; see `provision.provider.Part`."""

    kind: str
    """Its provider's name: uv, npm or conda."""

    terms: tuple[str, ...]
    """For what that was found, and holds: what was asked for, for which interpreter."""

    pins: str
    """What makes the same again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What has to be installed before an environment can start; paths are absolute."""

    requirements: tuple[str, ...] = ()
    """Python requirements as PEP 508 writes them (``mcp<2``, ``numpy``), or as lines of a requirements.txt."""

    folder: str = ""
    """From where the paths in these go; ``""`` where there are none."""

    requirements_file: str = ""
    """The path of a requirements.txt."""

    pyproject: str = ""
    """A folder with a pyproject.toml."""

    script: str = ""
    """The path of a Python script that says itself what it needs (PEP 723)."""

    python: str = ""
    """The interpreter: a version such as ``3.12``, or the path of one; ``""`` is muxsim's own, where it will do."""

    conda: tuple[str, ...] = ()
    """Conda specs: ``python=3.12``, ``box2d-py``."""

    conda_file: str = ""
    """The path of an environment.yml."""

    channels: tuple[str, ...] = ()
    """Where conda packages come from, first choice first."""

    packages: tuple[str, ...] = ()
    """Npm packages that a script imports: ``zod@3``."""

    contents: str = ""
    """A digest of what the files had in them that these name, when the config was read: another is another spec."""

    pins: tuple[Pins, ...] = ()
    """What the lock beside the config says, a kind of packages each."""

    locked: bool = False
    """Whether nothing is installed but what the lock says."""

    @property
    def has_conda(self) -> bool:
        """Whether conda makes the environment."""
        return bool(self.conda or self.conda_file)

    @property
    def has_python(self) -> bool:
        """Whether the environment has a Python of its own."""
        own = self.requirements or self.requirements_file or self.pyproject or self.script or self.python
        return bool(own) or self.has_conda

    def pinned(self, kind: str) -> str:
        """What a lock says of a kind of packages; ``""`` where it says nothing."""
        return next((one.pins for one in self.pins if one.kind == kind), "")


@dataclass(frozen=True, slots=True)
class Launch:
    """What to execute for one session: ``argv[0]`` is a path, or a name to be found on ``env["PATH"]``."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    private: tuple[str, ...] = ()
    """Folders of which it has its own view, see `EnvSpec.private`."""
    readable: tuple[str, ...] = ()
    """Beside what it needs, in a sandbox."""
    writable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvSpec:
    """How to start one environment. `muxsim.config` makes these; `muxsim.provision` resolves packages.

    The placeholders ``{seed}``, ``{session_id}`` and ``{workspace}`` may stand in ``command``, ``args``, the
    values of ``env``, ``cwd`` and ``private``; `launch` fills them in.
    """

    name: str
    """The name in the config and in URLs: letters, digits, ``_``, ``.`` and ``-``."""

    command: str
    """An absolute path or a name on PATH; ``npx`` or an npm package's folder until the spec is prepared."""

    args: tuple[str, ...] = ()
    """The arguments after the command."""

    env: Mapping[str, str] = field(default_factory=dict)
    """Variables for the backend, beside the ones muxsim passes on (`PASSED_VARIABLES`); these win."""

    cwd: str = "."
    """The folder the backend starts in; absolute when it comes from a config."""

    workspace_from: str = ""
    """A folder that each session's workspace begins as, absolute; "" begins with nothing. May have ``{seed}`` and
    ``{session_id}`` in it."""

    collect: tuple[str, ...] = ()
    """Patterns of the files of a workspace that a rollout keeps in its run folder when an episode ends."""

    max_collected: int = 64 * 2**20
    """Bytes of these that are kept of an episode."""

    max_collected_files: int = 1000
    """And how many of them."""

    shared: bool = False
    """One backend and one lasting session for all clients, for a server without state of its own."""

    control: bool = False
    """Whether every tool result carries the control plane in ``_meta``, not only for calls that ask for it."""

    seeded: bool = True
    """Whether sessions differ by seed. A server that takes none is not given ``MUXSIM_SEED`` either."""

    warm: int | None = None
    """How many processes are kept ready before anybody asks; None is one fork of a zygote, or some more
    while sessions come fast, where there is a zygote."""

    zygote: bool = True
    """Whether a Python environment's sessions are forked from a process that has imported its modules."""

    preload: tuple[str, ...] = ()
    """Modules that this process imports beside the ones it has seen the environment import."""

    limits: Limits = Limits()
    """The bounds of each session."""

    confinement: Confinement = Confinement()
    """What its processes may use of the machine."""

    private: tuple[str, ...] | None = None
    """Folders of which each session has its own view: what it writes there only it sees, and it goes with it. So it is
    with ``installed`` too, unless this is empty."""

    dependencies: Dependencies = Dependencies()
    """What has to be installed for it, beside what the command itself names (npx, uvx)."""

    package: str = ""
    """``name@version`` of the package behind the command, once the spec is prepared; else ``""``."""

    installed: tuple[str, ...] = ()
    """The folders of muxsim's own into which the environment was installed, once the spec is prepared."""

    def __post_init__(self) -> None:
        check_numbers(self, ENVIRONMENT_KEYS)

    @property
    def template_folder(self) -> str:
        """The folder that all of these are, or are in; "" for none."""
        names = takewhile(lambda name: not has_placeholder(name), self.workspace_from.split("/"))
        return fixed("/".join(names)) or "/" if self.workspace_from else ""

    def template(self, *, seed: int, session_id: str) -> str:
        """The folder that a session's workspace begins as, "" for none."""
        return fill(self.workspace_from, {"seed": str(seed), "session_id": session_id})

    def launch(self, *, seed: int, session_id: str, workspace: str, environ: Mapping[str, str]) -> Launch:
        """What to execute for a session. ``environ`` is muxsim's own environment; most of it stays behind."""
        values = {"seed": str(seed), "session_id": session_id, "workspace": workspace}
        own = self.confinement
        return Launch(
            argv=(fill(self.command, values), *(fill(arg, values) for arg in self.args)),
            env={
                **self._passed(environ),
                **_REPRODUCIBLE,
                # No session id here: it opens the session's URLs, and many servers have a tool that shows
                # their variables to the agent. A spec that needs it can still ask for {session_id}.
                **({"MUXSIM_SEED": values["seed"]} if self.seeded else {}),
                "MUXSIM_WORKSPACE": workspace,
                **(self._at_home(workspace, environ) if own.sandbox == "landlock" else {}),
                **{name: fill(value, values) for name, value in self.env.items()},
            },
            cwd=fill(self.cwd, values),
            private=tuple(fill(folder, values) for folder in self.private or ()),
            readable=tuple(fill(path, values) for path in own.readable),
            writable=tuple(fill(path, values) for path in own.writable),
        )

    def _passed(self, environ: Mapping[str, str]) -> dict[str, str]:
        passed = passed_variables(environ)
        if self.confinement.sandbox != "landlock":
            return passed
        # They would lead to folders of the user's; without them they are in HOME.
        return {name: value for name, value in passed.items() if not name.startswith("XDG_")}

    def _at_home(self, workspace: str, environ: Mapping[str, str]) -> dict[str, str]:
        """Variables for who has nothing but its workspace to write to."""
        base = environ.get("PYTHONUSERBASE") or posixpath.join(environ.get("HOME", "/"), ".local")
        ports = self.confinement.network
        return {
            "HOME": workspace,
            "TMPDIR": temporary_folder(workspace),
            # Packages that the user has installed are where they were.
            "PYTHONUSERBASE": base,
            # Names are looked up over UDP otherwise, which a list of TCP ports leaves out.
            **({} if isinstance(ports, bool) else {"RES_OPTIONS": "use-vc"}),
        }


def passed_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of ``environ`` that every backend may see."""
    return {
        name: value for name, value in environ.items() if name in PASSED_VARIABLES or name.startswith(_PASSED_PREFIX)
    }
