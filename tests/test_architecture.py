"""The layers of the design, checked over the real files."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import muxsim.rollouts

ROOT = Path(__file__).parent.parent

# Each row may import from itself and from the rows above it.
ROWS = [
    {
        *("muxsim", "muxsim.errors", "muxsim.limits", "muxsim.values", "muxsim.spec", "muxsim.provenance"),
        *("muxsim.access", "muxsim.inside"),
    },
    {"muxsim.runtime"},
    {"muxsim.observe"},
    {"muxsim.processes"},
    {"muxsim.provision"},
    {"muxsim.config"},
    {"muxsim.start"},
    {"muxsim.placement"},
    {"muxsim.admission"},
    {"muxsim.session"},
    {"muxsim.serve", "muxsim.serve.auth"},
    {"muxsim.serve.http"},
    {"muxsim.serve.watch", "muxsim.serve.metrics"},
    {"muxsim.serve.routes"},
    {"muxsim.serve.operate"},
    {"muxsim.doctor"},
    {"muxsim.rollouts.data"},
    {"muxsim.rollouts.view"},
    {"muxsim.rollouts.environments"},
    {"muxsim.rollouts.policy"},
    {"muxsim.rollouts.play"},
    {"muxsim.rollouts"},
    {"muxsim.mcpgym"},
    {"muxsim.adapters"},
    {"muxsim.compat"},
    {"muxsim.cli", "muxsim.__main__"},
]

# The hard parts are tested as plain functions: these take time and bytes as arguments.
PURE = {
    "transports.errors",
    "transports.framing",
    "transports.http_rules",
    "transports.mending",
    "transports.messages",
    "transports.mirrored",
    "transports.modern_rules",
    "transports.origin",
    "transports.revisions",
    "transports.sse_codec",
    "transports.unread",
    "muxsim.observe.counters",
    "muxsim.observe.distribution",
    "muxsim.observe.durations",
    "muxsim.observe.events",
    "muxsim.observe.traffic",
    "muxsim.access",
    "muxsim.doctor.findings",
    "muxsim.errors",
    "muxsim.limits",
    "muxsim.values",
    "muxsim.placement.last_words",
    "muxsim.rollouts.data.tokens",
    "muxsim.session.audience",
    "muxsim.session.correlation",
    "muxsim.session.exchange",
    "muxsim.session.handshake",
    "muxsim.session.codes",
    "muxsim.session.questions",
    "muxsim.session.router",
    "muxsim.session.standing",
    "muxsim.session.control.ledger",
    "muxsim.session.control.presence",
    "muxsim.session.control.turns",
    "muxsim.session.uris",
    "muxsim.admission.admission",
    "muxsim.admission.breaker",
    "muxsim.admission.rates",
    "muxsim.admission.wishes",
    "muxsim.serve.auth.addresses",
    "muxsim.serve.auth.callers",
    "muxsim.serve.auth.failures",
    "muxsim.serve.watch.feed",
    "muxsim.serve.watch.pictures",
    "muxsim.serve.watch.readers",
    "muxsim.serve.auth.proxies",
    "muxsim.start.fork.shebang",
    "muxsim.start.slots.policy",
}
IMPURE = {
    *("anyio", "asyncio", "trio", "select", "signal", "socket", "threading", "concurrent"),
    *("time", "datetime", "random", "secrets", "uuid"),
    *("os", "sys", "io", "pathlib", "shutil", "tempfile", "subprocess"),
    *("httpx", "sse_starlette", "starlette", "uvicorn"),
}

# Which event loop a transport runs on.
ON_TRIO = {"transports.pipe", "transports.stdio"}
ON_ASYNCIO = {"transports.asgi", "transports.event_stream", "transports.sse", "transports.streamable_http"}

# Of trio, anyio and asyncio, under whatever name these have been imported.
STARTING_CALLS = {"open_process", "run_process", "create_subprocess_exec", "create_subprocess_shell"}
STARTS_PROCESSES = {
    *("subprocess", "multiprocessing", "pty"),
    *("os.fork", "os.forkpty", "os.popen", "os.system", "os.posix_spawn", "os.posix_spawnp"),
    *(f"os.{verb}{form}" for verb in ("exec", "spawn") for form in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
}


# Tokens and headers of others name a date; the rest writes one down.
WALL_CLOCK = {
    *("muxsim.serve.auth.authenticator", "muxsim.rollouts.policy.endpoint"),
    *("muxsim.rollouts.data.run_config", "muxsim.rollouts.play.player"),
    # Spans begin and end by it, on every machine of a trace.
    "muxsim.observe.spans",
    # Ages in days of files on the disk; a day more or less removes nothing that is in use.
    *("muxsim.provision.inventory", "muxsim.cli.envs_screen"),
    # Each line says when it was written.
    # A token says itself when it is over.
    "muxsim.serve.routes.log_view",
    "muxsim.adapters.openenv_wire",
    # A browser is told when something was.
    *("muxsim.serve.watch.dashboard", "muxsim.serve.operate.front"),
}


def name_of(path):
    """The module's name: a package's is that of its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    name_of(path): ast.parse(path.read_text())
    for package in ("muxsim", "transports")
    for path in (ROOT / package).rglob("*.py")
}


@functools.cache
def imports(name):
    """What a module imports, wherever it does: under TYPE_CHECKING and inside functions too."""
    package = name if (ROOT / Path(*name.split("."))).is_dir() else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            # `from muxsim import spec` imports a module, `from muxsim import __version__` does not.
            found |= {
                f"{source}.{alias.name}" if f"{source}.{alias.name}" in MODULES else source for alias in node.names
            }
    return found


@functools.cache
def attributes(name):
    """Every dotted name that a module uses, such as ``trio.lowlevel.start_guest_run``, and every bare one."""
    found = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.Attribute | ast.Name):
            found.add(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def within(name, *packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def rows_of(name):
    """The rows in which the name, or the nearest package around it, is a member."""
    found = [
        (len(member), number)
        for number, row in enumerate(ROWS)
        for member in row
        if (name == member if member == "muxsim" else within(name, member))
    ]
    return [number for length, number in found if length == max(found)[0]]


def row_of(name):
    return rows_of(name)[0]


def starts_processes(name):
    used = attributes(name)
    return bool(used & STARTS_PROCESSES) or any(one.rpartition(".")[2] in STARTING_CALLS for one in used)


def test_the_check_sees_every_way_to_import(monkeypatch):
    source = """
import a.b as c
from d import e
from muxsim import errors, __version__
from . import admission, Answer
from .process import Process
from .. import spec
if TYPE_CHECKING:
    from f import g
def late():
    import h
"""
    monkeypatch.setitem(MODULES, "muxsim.admission.example", ast.parse(source))
    assert imports("muxsim.admission.example") == {
        *("a.b", "d", "f", "h"),
        *("muxsim", "muxsim.errors", "muxsim.spec"),
        *("muxsim.admission", "muxsim.admission.admission", "muxsim.admission.process"),
    }


def test_every_module_has_one_row():
    assert {name: rows_of(name) for name in MODULES if within(name, "muxsim") and len(rows_of(name)) != 1} == {}


def test_the_modules_named_here_are_there():
    assert PURE | ON_TRIO | ON_ASYNCIO | {"muxsim.session.session"} <= MODULES.keys()


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, "transports")])
def test_transports_know_nothing_of_muxsim(name):
    assert {imported for imported in imports(name) if within(imported, "muxsim")} == set()


# The package itself offers what programs start with, and is the one place that knows where it is.
@pytest.mark.parametrize("name", [name for name in MODULES if within(name, "muxsim") and name != "muxsim"])
def test_a_module_imports_only_from_its_own_row_and_the_rows_above(name):
    below = {imported for imported in imports(name) if within(imported, "muxsim") and row_of(imported) > row_of(name)}
    assert below == set()


def test_no_module_imports_itself_by_way_of_others():
    graph = {name: imports(name) & MODULES.keys() - {"muxsim"} for name in MODULES}

    def reached_from(name):
        found, ahead = set(), [name]
        while ahead:
            new = graph[ahead.pop()] - found
            found |= new
            ahead += new
        return found

    assert {name for name in MODULES if name in reached_from(name)} == set()


def test_the_package_imports_what_it_offers_only_when_that_is_used():
    script = """
import sys, muxsim
assert not [name for name in sys.modules if name.startswith("muxsim.")]
import muxsim.rollouts
assert [name for name in sys.modules if name.startswith("muxsim.")] == ["muxsim.rollouts"]
for package in muxsim, muxsim.rollouts:
    for name in package.__all__:
        assert getattr(package, name) is not None, name
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# What takes long to import, and is needed only where somebody asks for it: screens, the SDK and what comes with it,
# extras, the doctor, rollouts.
NOT_TO_START = {
    *("cryptography", "gymnasium", "httpx2", "jwt", "mcp", "mcp_types", "numpy", "opentelemetry", "prometheus_client"),
    *("pydantic", "rattler", "textual", "typer.rich_utils", "yaml"),
    *("muxsim.adapters", "muxsim.compat", "muxsim.doctor", "muxsim.mcpgym", "muxsim.rollouts"),
}


@pytest.mark.parametrize(
    ("command", "not_needed"),
    [
        ("muxsim.cli.announce, muxsim.serve.operate.host, muxsim.observe.log", NOT_TO_START),
        (
            "muxsim.serve.operate.stdio_front, muxsim.observe.log",
            NOT_TO_START | {"starlette", "uvicorn", "muxsim.serve.routes"},
        ),
    ],
)
def test_a_command_that_serves_imports_only_what_it_needs_to_start(command, not_needed):
    """It is started more often than anything else, and somebody waits: by every client, of `muxsim stdio`."""
    script = f"import sys, muxsim.cli, {command}; print(*sys.modules)"
    imported = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert {name for name in imported.stdout.split() if within(name, *not_needed)} == set()


def test_what_rollouts_offers_is_what_a_type_checker_is_told_it_does():
    offered = MODULES["muxsim.rollouts"]
    told = {
        (node.module.removeprefix("muxsim.rollouts."), alias.name)
        for node in ast.walk(offered)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("muxsim.")
        for alias in node.names
    }
    assert told == {(home, name) for home, names in muxsim.rollouts._HOMES.items() for name in names}
    assert sorted(name for _, name in told) == muxsim.rollouts.__all__


def test_environments_and_policies_know_nothing_of_each_other():
    for one, other in (("environments", "policy"), ("policy", "environments")):
        knowing = [name for name in MODULES if within(name, f"muxsim.rollouts.{one}")]
        ours = {imported for name in knowing for imported in imports(name)}
        assert {name for name in ours if within(name, f"muxsim.rollouts.{other}")} == set()


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_module_touches_neither_loops_nor_the_clock_nor_the_system(name):
    assert {imported for imported in imports(name) if imported.partition(".")[0] in IMPURE} == set()


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_module_imports_only_pure_ones_of_ours(name):
    ours = {imported for imported in imports(name) if within(imported, "muxsim", "transports")}
    assert ours - PURE - {"transports", "muxsim"} == set()


@pytest.mark.parametrize(
    ("name", "other"), [(name, "asyncio") for name in sorted(ON_TRIO)] + [(name, "trio") for name in sorted(ON_ASYNCIO)]
)
def test_a_transport_runs_on_one_loop(name, other):
    assert {imported for imported in imports(name) if within(imported, other)} == set()


def test_the_author_kit_needs_nothing_of_muxsim_but_itself():
    # It runs in every child, which should start fast and stay small.
    kit = [name for name in MODULES if within(name, "muxsim.mcpgym")]
    ours = {imported for name in kit for imported in imports(name) if within(imported, "muxsim", "transports")}
    assert {name for name in ours if not within(name, "muxsim.mcpgym")} == set()


def test_what_sessions_ask_of_a_transport_is_in_its_interface():
    """Neither is it asked what it may not have, nor which one it is."""
    transports = {"transports.memory", *ON_TRIO, *ON_ASYNCIO} - {"transports.asgi", "transports.event_stream"}
    assert {name for name in MODULES if within(name, "muxsim.session") and imports(name) & transports} == set()
    guessing = {
        f"{name}: {ast.unparse(node)}"
        for name in MODULES
        if within(name, "muxsim.session", "muxsim.serve.routes", "muxsim.serve.watch")
        for node in ast.walk(MODULES[name])
        if (isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and "transport" in ast.unparse(node))
        or (isinstance(node, ast.Compare) and ast.unparse(node.left).endswith("attachment.kind"))
        or (isinstance(node, ast.Compare) and ast.unparse(node.left) == "self.kind")
    }
    assert guessing == set()


SEAM = "muxsim.session.seam"


def uses_of(member, *, of=""):
    """Which modules use a member, whoever's it is, or of objects that are called so, each as it is written there."""
    return {
        (name, used)
        for name in MODULES
        for used in attributes(name)
        if used.rpartition(".")[2] == member and used.rpartition(".")[0].rpartition(".")[2].strip("_").endswith(of)
    }


def test_every_message_passes_the_seam_in_both_directions():
    """What a backend is sent and what it says: a journal that stands there misses nothing."""
    assert {(name, used) for name, used in uses_of("send", of="backend") if name != SEAM} == set()
    # Nor is there another name for it by which a session sends.
    assert {one for one in uses_of("send") if within(one[0], "muxsim.session") and one[0] != SEAM} == {
        ("muxsim.session.attachment", "self.transport.send"),  # to the client
        ("muxsim.session.control.control", "questions.send"),  # a generator's
        ("muxsim.session.rehearsal", "send"),  # what the seam gives it
    }
    assert {
        one for one in uses_of("to_backend") if one[0] not in {"muxsim.session.exchange", "muxsim.session.router"}
    } == {
        (SEAM, "self.to_backend"),
        (SEAM, "witness.to_backend"),
        ("muxsim.session.conversation", "self.seam.to_backend"),
        ("muxsim.session.conversation", "routed.to_backend"),
    }
    assert uses_of("from_backend") == {
        ("muxsim.placement.child", "self._listener.from_backend"),
        (SEAM, "self.from_backend"),
        (SEAM, "witness.from_backend"),
        (SEAM, "ear.from_backend"),
        (SEAM, "self._ear.from_backend"),
        ("muxsim.session.conversation", "self.router.from_backend"),
    }
    started = {name for name in MODULES if any("Seam" in used.split(".") for used in attributes(name))}
    assert {name for name in started if not within(name, "muxsim.session")} == set()
    makes_listeners = {name for name in MODULES if any(used.endswith(".clients_ready") for used in attributes(name))}
    assert {name for name in makes_listeners if within(name, "muxsim.session")} == {SEAM, "muxsim.session.flow"}


def test_a_backend_is_started_with_the_seam_for_its_listener():
    started_with = {
        ast.unparse(value)
        for name in MODULES
        if within(name, "muxsim.session")
        for node in ast.walk(MODULES[name])
        if isinstance(node, ast.Call) and name_called(node) in {"start", "start_now"}
        for value in [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "listener")]
        if "session" in ast.unparse(value) or "seam" in ast.unparse(value)
    }
    assert started_with == {"session.seam", "self._conversation.seam"}


def test_one_module_knows_that_trio_may_be_a_guest():
    assert [name for name in MODULES if any("start_guest_run" in used for used in attributes(name))] == [
        "muxsim.runtime.guest"
    ]


def test_nobody_goes_by_the_wall_clock_H10():
    """H10: it may jump by a day, and then nothing of ours may be over, or last longer."""
    wall = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now", "datetime.utcnow", "time.localtime"}
    going = {name for name in MODULES if attributes(name) & wall}
    assert going == WALL_CLOCK


# What others print where it would not be seen, and the output of a program that is read.
WRITE_THEMSELVES = {"muxsim.adapters.trackers", "muxsim.provision.with_rattler"}


def test_only_the_command_line_prints():
    of_others = ("muxsim.cli", "muxsim.inside", "muxsim.mcpgym", "muxsim.observe")
    writing = {name for name in MODULES if within(name, "muxsim") and attributes(name) & {"sys.stdout", "sys.stderr"}}
    assert {name for name in writing if not within(name, *of_others)} == WRITE_THEMSELVES
    printing = {name for name in MODULES if "print" in attributes(name)}
    assert {name for name in printing if not within(name, "muxsim.cli")} == set()


def test_one_module_starts_what_muxsim_runs_and_one_what_installs_packages():
    """The guardian, which forks all backends, and npm or uv, which run to their end; others fork inside of these."""
    starting = {name for name in MODULES if starts_processes(name)}
    assert {name for name in starting if not within(name, "muxsim.inside")} == {
        "muxsim.processes.client",
        "muxsim.provision.installer",
        "muxsim.provision.with_rattler",  # an installer itself, which that runs
    }


def test_code_that_others_run_imports_the_standard_library_and_its_own_folder_only():
    """Their interpreter need not have muxsim, or anything else."""
    foreign = {
        f"{name}: {imported}"
        for name in MODULES
        if within(name, "muxsim.inside")
        for imported in imports(name)
        if imported.partition(".")[0] not in sys.stdlib_module_names and not within(imported, "muxsim.inside")
    }
    assert foreign == set()


def test_code_that_others_run_is_whole_without_muxsim_and_installed_packages():
    """Each module, in an interpreter that knows this folder only, as guardian.py and begin.py make it."""
    names = sorted(name for name in MODULES if within(name, "muxsim.inside") and name != "muxsim.inside")
    script = f"""
import importlib, sys
for name, folder in (("muxsim", []), ("muxsim.inside", [{str(ROOT / "muxsim" / "inside")!r}])):
    sys.modules[name] = type(sys)(name)
    sys.modules[name].__path__ = folder
for name in {names}:
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True, timeout=60)


# These tell their own frames, or files of ours, from those of others; they hand no path to anybody.
KNOWS_WHERE_IT_LIES = {"muxsim.rollouts.play.scoring", "muxsim.rollouts.policy.imported"}


def test_code_that_others_run_lies_in_one_folder():
    """Nothing else knows where a file of muxsim's code is, and so cannot have it run by its path."""
    knowing = {name for name in MODULES if within(name, "muxsim") and "__file__" in attributes(name)}
    assert {name for name in knowing if not within(name, "muxsim.inside")} == KNOWS_WHERE_IT_LIES
    assert not {name for name in KNOWS_WHERE_IT_LIES if starts_processes(name)}
    scripts = {path for suffix in ("js", "cjs", "mjs", "sh") for path in (ROOT / "muxsim").rglob(f"*.{suffix}")}
    pages = ROOT / "muxsim" / "serve" / "ui"  # built, for browsers
    assert {path for path in scripts if path.parent.name != "inside" and not path.is_relative_to(pages)} == set()


# Each reaps what it signals itself, and only afterwards: until then the number is nobody else's.
REAPS_WHAT_IT_SIGNALS = {"muxsim.inside.guardian", "muxsim.inside.tree"}


# Whose words are for another log: a server's own, in its process, and that of the program whose watcher has failed.
LOGS_ELSEWHERE = {
    *("muxsim.mcpgym.protocol", "muxsim.mcpgym.streams", "muxsim.rollouts.play.watching"),
    "muxsim.adapters.trackers",
    *(f"muxsim.mcpgym.reward_kit.{module}" for module in ("context", "fastmcp", "gym")),
    "muxsim.adapters.running",  # what could not be closed, when there is nobody left to tell
    "muxsim.adapters.trl_environment",  # why an episode was left out, to whoever reads a trainer's log
}


def test_nobody_logs_what_happens_but_the_log():
    """Whoever has something to say tells it as an event (muxsim.observe.events), which the log listens to."""
    logging = {name for name in MODULES if any(within(one, "logging", "structlog") for one in imports(name))}
    assert {name for name in logging if not within(name, "muxsim.observe")} == LOGS_ELSEWHERE


def test_nobody_counts_bounds_but_the_counters():
    """The table of bounds has no numbers in it."""
    assert not [one for one in MODULES["muxsim.limits"].body if isinstance(one, ast.ClassDef | ast.FunctionDef)]
    telling = {name for name in MODULES if "muxsim.observe.counters" in imports(name)}
    assert {name for name in telling if not within(name, "muxsim.serve", "muxsim.observe")} == set()


# What is counted beside the counters, for something is decided by it, or named by the next number.
DECIDED_BY = {
    "muxsim.adapters.openenv_play": {"steps"},  # where an episode is whose environment counts none
    "muxsim.placement.child": {"_silenced"},  # what a pause of the stderr has swallowed, told with its end
    "muxsim.processes.client": {"_nonsense"},  # whether one more answer is told
    "muxsim.processes.footprint": {"_sample"},  # which processes were not there this time
    "muxsim.serve.auth.failures": {"failures"},  # whether a peer may go on
    "muxsim.serve.http.connection": {"total_requests"},  # uvicorn's own, which may stop it
    "muxsim.serve.operate.host": {"_stop_signals"},  # how hastily it stops
    "muxsim.session.control.tool_news": {"_changes"},  # whether a list is that of now
    # Whether one more line is told; and what a list tells of a session: an event with each call would cost too much.
    "muxsim.session.conversation": {"_lines_reported", "calls_made"},
    "muxsim.session.router": {"answered", "late_calls"},  # whether the backend has, and a call may have made steps
    "muxsim.start.fork.client": {"forks", "studies"},  # whether a zygote is sound, and may be studied
    "muxsim.start.fork.keeper": {"_cold", "_failures"},  # how long to wait
    "muxsim.start.slots.policy": {"deaths_in_a_row", "new_misses"},  # when the next is filled, and how many
}
NUMBERS = {
    "muxsim.admission.admission": {"_last"},
    "muxsim.serve.watch.board": {"_looks"},
    "muxsim.serve.watch.history": {"taken"},
    "muxsim.serve.watch.record": {"_last_image", "_said", "end"},
    "muxsim.serve.watch.readers": {"era"},
    "muxsim.session.control.control": {"_backend"},
    "muxsim.session.questions": {"_renamed", "_backend"},
    "muxsim.session.registry": {"_last_number"},
    "muxsim.session.router": {"_last_id"},
    "muxsim.start.fork.client": {"_next_ref"},
    "muxsim.start.fork.fleet": {"_files"},
    "muxsim.start.slots.policy": {"_last_number"},
}
# These are no part of a muxsim that serves: they run in processes of others, or count what a run has come to.
COUNT_ELSEWHERE = (
    *("muxsim.inside", "muxsim.mcpgym", "muxsim.rollouts", "muxsim.compat", "muxsim.cli"),
    *("muxsim.adapters.dialogue", "muxsim.adapters.skyrl_text_env", "muxsim.adapters.trl_environment"),
    *("muxsim.adapters.verl_loop", "muxsim.adapters.trackers"),
)


def counts_one(value):
    """Whether this is added once for each thing that happens: 1, or 1 if something is so."""
    return isinstance(value, ast.Compare) or ast.unparse(value) == "1" or ast.unparse(value).startswith("not ")


def totals(tree):
    """The attributes, or those whose items, that grow by one and never shrink: who shrinks tells how many there are."""
    changed = {ast.Add: set(), ast.Sub: set()}
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign):
            how, value, targets = type(node.op), node.value, [node.target]
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp):
            how, value, targets = type(node.value.op), node.value.right, node.targets
        else:
            continue
        owners = [target.value if isinstance(target, ast.Subscript) else target for target in targets]
        if how in changed and counts_one(value):
            changed[how] |= {owner.attr for owner in owners if isinstance(owner, ast.Attribute)}
    return changed[ast.Add] - changed[ast.Sub]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("self.hits += 1", {"hits"}),
        ("shelf.stale += number in aged", {"stale"}),
        ("self._counts.unswept += not swept", {"unswept"}),
        ("self._by_name[name] += 1", {"_by_name"}),
        ("self._by_name[name] = self._by_name.get(name, 0) + 1", {"_by_name"}),
        ("self.open += 1; self.open -= 1", set()),
        ("self._size += len(data); at += 1", set()),
    ],
)
def test_the_check_tells_a_total_from_what_there_is_now(source, found):
    assert totals(ast.parse(source)) == found


def test_nobody_counts_what_happens_but_the_counters():
    """Whoever has something to count tells it as an event, and keeps no more than what there is now."""
    counting = {name: totals(MODULES[name]) for name in MODULES if within(name, "muxsim")}
    counting = {name: found for name, found in counting.items() if found and not within(name, "muxsim.observe")}
    allowed = {name: DECIDED_BY.get(name, set()) | NUMBERS.get(name, set()) for name in DECIDED_BY | NUMBERS}
    assert {name: found for name, found in counting.items() if not within(name, *COUNT_ELSEWHERE)} == allowed


def test_only_who_reaps_a_process_itself_signals_it_by_number_H19():
    by_number = {name for name in MODULES if attributes(name) & {"os.kill", "os.killpg", "signal.pthread_kill"}}
    assert by_number == REAPS_WHAT_IT_SIGNALS


def makes_a_nursery_by_hand(tree):
    """Whether a nursery or task group is opened other than as `async with`, or anything entered or left by its name."""
    in_blocks = {
        id(item.context_expr)
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if isinstance(item.context_expr, ast.Call)
    }
    opened = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) not in in_blocks)
    renamed = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    return bool(renamed & NURSERIES) or any(name_called(node) in NURSERIES | BY_HAND for node in opened)


def name_called(node):
    return ast.unparse(node.func).rpartition(".")[2]


NURSERIES = {"open_nursery", "create_task_group", "TaskGroup"}
BY_HAND = {"__aenter__", "__aexit__"}


@pytest.mark.parametrize(
    ("source", "by_hand"),
    [
        ("async with open() as a, trio.open_nursery() as b: pass", False),
        ("async with anyio.create_task_group(): pass", False),
        ("async def __aexit__(self, *_): await self.close()", False),
        ("nursery = trio.open_nursery()", True),
        ("await stack.enter_async_context(trio.open_nursery(strict_exception_groups=True))", True),
        ("group = asyncio.TaskGroup()", True),
        ("await service.__aexit__(None, None, None)", True),
        ("from trio import open_nursery as opened", True),  # whatever it is called from then on
    ],
)
def test_the_check_tells_a_nursery_of_a_block_from_one_made_by_hand(source, by_hand):
    indented = "".join(f"    {line}\n" for line in source.splitlines())
    assert makes_a_nursery_by_hand(ast.parse(f"async def f():\n{indented}")) == by_hand


def test_only_the_boundary_makes_a_nursery_by_hand():
    """What serves a block is a `background`, and what may fail alone a part of a boundary."""
    assert {name for name, tree in MODULES.items() if makes_a_nursery_by_hand(tree)} == {"muxsim.runtime.boundary"}


def test_only_the_boundary_switches_off_what_fails():
    """A broad except around what is optional is a `Part`: nobody else makes one, or takes its failure for himself."""
    making = {name for name, tree in MODULES.items() if any(made in calls(tree) for made in ("Part", "Boundary"))}
    assert making == {"muxsim.runtime.boundary"}


def swallows_anything(handler):
    """Whether it takes every exception, and lets none go on."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    broad = any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in kinds)
    return broad and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))


def test_who_takes_every_exception_says_why_where_it_stands():
    silent = {
        f"{name}:{node.lineno}"
        for name in MODULES
        for node in ast.walk(MODULES[name])
        if isinstance(node, ast.ExceptHandler) and swallows_anything(node) and "  # " not in line_of(name, node)
    }
    assert silent == set()


def line_of(name, node):
    path = ROOT / Path(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path.read_text().splitlines()[node.lineno - 1]


LONGEST_FILE = 500  # lines: past them a file has several subjects
LONGER = {"muxsim/observe/events.py"}  # a type for each thing that happens, which are found in one file


def test_no_file_of_ours_is_too_long_to_have_one_subject():
    ours = [
        path for folder in ("muxsim", "transports", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py")
    ]
    ours = [path for path in ours if ".cache" not in path.parts]  # what benchmarks have installed
    ours += [path for kind in ("ts", "tsx", "css") for path in (ROOT / "dashboard" / "src").rglob(f"*.{kind}")]
    lengths = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in ours}
    assert {name for name, lines in lengths.items() if lines > LONGEST_FILE} == LONGER


def calls(tree):
    return {name_called(node) for node in ast.walk(tree) if isinstance(node, ast.Call)}


# What a start is asked for, and what it tells; the rest is how it is done.
STARTS_INTERFACE = {"muxsim.start.order", "muxsim.start.starter"}
# Where the local place keeps folders, and what it says when the machine has no more.
OF_THE_LOCAL_PLACE = {"muxsim.start.folders", "muxsim.start.shortage"}
# Each looks, on this machine, for processes that no session has any more: the operator's command for those of a muxsim
# that was killed, and the check of an environment for those that its sessions have left behind.
LOOK_FOR_WHAT_IS_LEFT = {"muxsim.cli.operate", "muxsim.cli.operator", "muxsim.rollouts.play.check"}


def above(package):
    """The modules that may import this package and are no part of its row, nor of those before it."""
    return {name for name in MODULES if within(name, "muxsim") and row_of(name) > row_of(package)}


def test_outside_start_nobody_knows_zygotes_slots_or_another_way_to_a_process():
    for name in MODULES.keys() - {name for name in MODULES if within(name, "muxsim.start")}:
        allowed = STARTS_INTERFACE | (OF_THE_LOCAL_PLACE if name == "muxsim.placement.local" else set())
        known = {imported for imported in imports(name) if within(imported, "muxsim.start")}
        assert known - allowed == set(), name


def test_a_starter_is_asked_only_by_a_place():
    asking = {name for name in MODULES if "muxsim.start.starter" in imports(name)}
    assert {name for name in asking if not within(name, "muxsim.placement")} == set()


def test_above_placement_nobody_knows_processes_but_who_looks_at_the_machine_itself():
    knowing = {
        name
        for name in above("muxsim.placement")
        if not within(name, "muxsim.doctor")
        and any(within(imported, "muxsim.processes", "muxsim.inside") for imported in imports(name))
    }
    assert knowing == LOOK_FOR_WHAT_IS_LEFT


def test_only_the_pool_has_a_place():
    """Whatever is another place, on another machine say, is found by whoever opens a pool, and nowhere else."""
    having = {name for name in above("muxsim.placement") if "muxsim.placement.local" in imports(name)}
    assert having == {"muxsim.admission.pool"}
    assert {name for name in MODULES if "muxsim.placement.child" in imports(name)} == {"muxsim.placement.local"}


def test_no_function_is_the_hasty_twin_of_another():
    """What may be there at once is begun (`muxsim.runtime.soon`); it has no second function that does not wait."""
    rooms = [f"muxsim.{room}" for room in ("start", "placement", "admission", "session", "serve.routes")]
    defined = {
        node.name
        for name in MODULES
        if within(name, *rooms)
        for node in ast.walk(MODULES[name])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name for name in defined if name.endswith("_now") and name.removesuffix("_now") in defined} == set()


def test_the_starter_calls_what_is_optional_only_where_it_may_fail_alone():
    """But for what only counts, and the block in which a session is opened, which is no part's."""
    optional_methods = {
        f"{owner.name}.{method.name}"
        for name in ("muxsim.start.slots.shelf", "muxsim.start.fork.zygotes")
        for owner in MODULES[name].body
        if isinstance(owner, ast.ClassDef)
        for method in owner.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(ast.unparse(decorator).startswith("optional(") for decorator in method.decorator_list)
    }
    called = {used for used in attributes("muxsim.start.starter") if used.startswith(("self.warm.", "self.zygotes."))}
    called = {used.replace("self.warm.", "Warm.").replace("self.zygotes.", "Zygotes.") for used in called}
    assert called - optional_methods == {"Warm.statistics", "Zygotes.statistics", "Warm.opening"}


def folders_in_layout():
    """The folders that CONTRIBUTING's layout names, each under the one that it is indented below."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named, above = set(), []
    for line in text[text.index("\n## Layout") : text.index("\n## Words")].splitlines():
        if head := re.match(r"( *)(\w+)/( |$)", line):
            above[len(head[1]) // 2 :] = [head[2]]
            named.add("/".join(above))
    return named


def test_contributings_layout_names_every_folder_of_ours_and_no_other():
    there = {
        str(path.parent.relative_to(ROOT)) for top in ("muxsim", "transports") for path in (ROOT / top).rglob("*.py")
    }
    named = {one for one in folders_in_layout() if one.partition("/")[0] in ("muxsim", "transports")}
    assert named == there
