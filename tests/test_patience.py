"""Tests wait for events, and compare no real time: what comes soon on an idle machine comes later on a busy one.

Where nothing tells of an event a test looks again, in one of the few functions that are named here; a limit on waiting
(`fail_after`) is generous, and only there so that nothing waits for ever.
"""

import ast
import functools
import re
from pathlib import Path

TESTS = Path(__file__).parent
CLOCKS = {"time.monotonic", "time.perf_counter", "time.monotonic_ns", "trio.current_time", "anyio.current_time"}
SLEEPS = {"move_on_after", "time.sleep", "trio.sleep", "asyncio.sleep", "anyio.sleep", "trio.sleep_until"}
# Programs that are made to be busy, or to take their time: what they do is what is tested.
PROGRAMS = {"churn.py", "soak.py", "soaking"}
# What has one of these runs under a clock that jumps ahead to what is waited for: as an argument, or as a decorator.
JUMPING = {"autojump_clock", "mock_clock", "on_asyncio"}
LEAST_LIMIT = 60

# Each function that sleeps or looks at a clock all the same, under the reason why.
REASONS = {
    "is called by tests whose clock jumps ahead, or makes a clock": """
        placement/test_child.py:wait rollout/test_runner.py:open runtime/test_clock.py:test_trio_runs_by_it
        runtime/test_soon.py:get session/test_session.py:ends session/test_sessions.py:start
    """,
    "looks again at what tells nobody when it changes": """
        conformance/test_conformance.py:gone conftest.py:_nothing_left_behind e2e/conftest.py:wait_empty
        e2e/test_attachments.py:record_when e2e/test_attachments.py:gone faults/test_recordings.py:wait_for_rows
        e2e/test_registry_servers.py:test_a_workspace_is_gone_with_its_session
        e2e/test_shared.py:test_clients_of_both_eras_share_one_backend_and_each_gets_its_own_answers
        rollout/test_http_connection.py:test_a_connection_that_was_closed_while_idle_is_replaced_unseen
        serve/machine.py:eventually
        provision/test_npm.py:until provision/test_npm.py:keep_releasing
    """,
    "ends a test that would wait for ever": """
        serve/conftest.py:_in_time start/playing.py:in_time conformance/test_conformance.py:listening
        e2e/python_clients.py:posted_session
    """,
    "keeps a process stopped for longer than it would wait for anybody, of whom none may be ended": """
        serve/test_log.py:stands_still_in
    """,
    "is slow on purpose; naughty, for the soak only": """
        servers/naughty.py:due servers/naughty.py:wait_for
    """,
    "comes at any moment, and holds at each": """
        processes/test_launcher.py:test_a_cancelled_start_leaves_no_child_however_far_it_got
        serve/test_sessions_api.py:test_deleting_a_session_answers_its_handshake_with_an_error
        faults/test_recordings.py:test_h5_a_run_killed_again_and_again_keeps_every_row_that_was_complete_and_is_finished_in_the_end
    """,
    "waits for at least so much, never for at most": """
        processes/test_enclosure.py:test_in_a_cgroup_a_backend_has_only_so_much_of_the_cpu
    """,
}
EXCEPTIONS = {name for names in REASONS.values() for name in names.split()}


def function_calls(file):
    """The calls in a file by the outermost function that they stand in, those left out whose clock jumps."""
    for outer in ast.parse(file.read_text()).body:
        methods = outer.body if isinstance(outer, ast.ClassDef) else [outer]
        for method in methods:
            name = getattr(method, "name", "")
            for node in [] if jumps(method) else ast.walk(method):
                if isinstance(node, ast.Call):
                    yield name, node


def jumps(function):
    """Whether time passes in a function as soon as nothing else can."""
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    named = {argument.arg for argument in function.args.args}
    return bool(JUMPING & (named | {ast.unparse(decorator) for decorator in function.decorator_list}))


def python_files():
    """All that are ours."""
    return sorted(file for file in TESTS.rglob("*.py") if "node_modules" not in file.parts)


def impatience(files):
    """Where tests sleep or look at a clock that does not jump, by file and function."""
    found = {}
    for file in files:
        path = file.relative_to(TESTS)
        if path.parts[0] in PROGRAMS:
            continue
        for name, call in function_calls(file):
            used = ast.unparse(call.func)
            yields = used in SLEEPS and ast.unparse(call.args[0]) == "0"
            if used.endswith("move_on_after"):  # which sleeps for as long, unless something else comes first
                used, yields = "move_on_after", ast.unparse(call.args[0]) == "0"
            # Servers may take their time, but not measure that of others.
            if used in (CLOCKS if "servers" in path.parts else SLEEPS | CLOCKS) and not yields:
                found.setdefault(f"{path}:{name}", set()).add(used)
    return found


def test_no_test_sleeps_or_compares_real_time_but_where_it_is_said_why():
    found = impatience(python_files())
    assert [name for name in found if name not in EXCEPTIONS] == []
    gone = [name for name in EXCEPTIONS if name not in found]
    assert gone == [], "an exception that nobody needs leaves the list"


def test_no_limit_on_waiting_is_so_tight_that_a_busy_machine_passes_it():
    tight = [
        f"{file.relative_to(TESTS)}:{call.lineno}"
        for file in python_files()
        for _, call in function_calls(file)
        if any(is_tight(limit, constants_of(file)) for limit in limits_on_waiting(call))
    ]
    assert tight == []


def limits_on_waiting(call):
    """The arguments by which a call waits no longer: of ours, of sockets, and of programs that a test runs."""
    called = ast.unparse(call.func)
    yield from call.args[:1] if called.endswith(("fail_after", "settimeout")) else ()
    runs = called.startswith(("subprocess.", "urllib.", "httpx2."))
    yield from (word.value for word in call.keywords if word.arg == "within" or (runs and word.arg == "timeout"))


# Which of naughty's tools take a time, for those who cannot open a gate: what is made to be busy.
TIMED = re.compile(r"""["'](?:slow|block|log_then_wait|ask_later)["'],\s*(?:\{["'])?seconds""")


def test_only_programs_that_are_made_to_be_busy_have_a_child_wait_for_a_time():
    files = [file for file in python_files() if file.name.startswith("test_") and file != Path(__file__)]
    assert [file.name for file in files if TIMED.search(file.read_text())] == []
    assert TIMED.search('client.text("slow", seconds=1)')
    assert TIMED.search('tool_call(7, "block", {"seconds": 1})')


def is_tight(limit, constants):
    """Whether a number, or a module's own constant, is too little."""
    value = limit.value if isinstance(limit, ast.Constant) else constants.get(ast.unparse(limit), LEAST_LIMIT)
    return value < LEAST_LIMIT


@functools.cache
def constants_of(file):
    """The numbers that a module gives a name."""
    found = {}
    for line in ast.parse(file.read_text()).body:
        value = line.value if isinstance(line, ast.Assign) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, int | float):
            found |= {ast.unparse(target): value.value for target in line.targets}
    return found


def test_the_check_sees_sleeps_and_clocks_and_lets_others_run(tmp_path, monkeypatch):
    monkeypatch.setattr("test_patience.TESTS", tmp_path)
    file = tmp_path / "test_some.py"
    file.write_text("async def f():\n    await trio.sleep(0)\nclass A:\n    def g(self):\n        time.sleep(1)\n")
    assert impatience([file]) == {"test_some.py:g": {"time.sleep"}}
    file.write_text("async def f(autojump_clock):\n    await trio.sleep(1)\nasync def g():\n    await trio.sleep(1)\n")
    assert impatience([file]) == {"test_some.py:g": {"trio.sleep"}}
    server = tmp_path / "servers" / "some.py"
    server.parent.mkdir()
    server.write_text("def f():\n    time.sleep(1)\n    return time.monotonic()\n")
    assert impatience([server]) == {"servers/some.py:f": {"time.monotonic"}}
    five, name = (ast.parse(text).body[0].value for text in ("5", "LIMIT"))
    assert is_tight(five, {})
    assert is_tight(name, {"LIMIT": 5})
    assert not is_tight(name, {"LIMIT": LEAST_LIMIT})
