"""What a script learns of its session when it asks, though it began before there was one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from muxsim.supervise import late

# Begins without two variables and all arguments, as a fork that runs ahead does, with what it lacks on a descriptor.
BEGIN = f"""
import os, sys
sys.path.insert(0, {str(Path(late.__file__).parent)!r})
import late
fd = int(sys.argv[1])
sys.argv[1:] = []
late.Late(fd, ["MUXSIM_SEED", "OTHER"]).install(known=2)
begun = os.readlink(f"/proc/self/fd/{{fd}}")

def asked():
    try:
        return os.readlink(f"/proc/self/fd/{{fd}}") != begun
    except FileNotFoundError:
        return True

def tell(value):
    import json
    os.write(1, json.dumps(value).encode())

"""
ORDER = {"argv": ["python", "script.py", "--seed", "7"], "env": {"MUXSIM_SEED": "7", "OTHER": "x"}}
SHOW = "import os; os.write(1, os.environ['MUXSIM_SEED'].encode())"


def framed(order):
    text = json.dumps(order).encode()
    return len(text).to_bytes(4, "big") + text


def run(script, *, order=ORDER):
    """What a script says that begins before it is known for whom."""
    theirs, ours = os.pipe()
    if order is not None:
        os.write(ours, framed(order))
    os.close(ours)
    command = [sys.executable, "-ISc", BEGIN + script, str(theirs)]
    env = {"PATH": "/usr/bin:/bin", "KNOWN": "yes"}
    with os.fdopen(theirs):
        return subprocess.run(command, pass_fds=[theirs], env=env, capture_output=True, timeout=30, check=False)


def told(script, **options):
    ended = run(script, **options)
    assert ended.returncode == 0, ended.stderr.decode()
    return json.loads(ended.stdout)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("os.environ['MUXSIM_SEED']", "7"),
        ("os.environ.get('MUXSIM_SEED', 'none')", "7"),
        ("os.getenv('OTHER')", "x"),
        ("os.environb[b'MUXSIM_SEED'].decode()", "7"),
        ("'MUXSIM_SEED' in os.environ", True),
        ("os.environ.copy()['MUXSIM_SEED']", "7"),
        ("dict(os.environ)['OTHER']", "x"),
        ("{**os.environ}['OTHER']", "x"),
        ("(os.environ | {})['OTHER']", "x"),
        ("sorted(os.environ)[-1]", "PATH"),
        ("[*os.environ.items()][-1][1]", "x"),
        ("'x' in os.environ.values()", True),
        ("len(os.environ)", 5),
        ("'MUXSIM_SEED' in repr(os.environ)", True),
        ("os.environ.setdefault('MUXSIM_SEED', '9')", "7"),
        ("os.environ.pop('MUXSIM_SEED')", "7"),
        ("sys.argv[1:]", ["--seed", "7"]),
        ("sys.argv[-1]", "7"),
        ("[*sys.argv]", ["-c", "--seed", "7"]),
        ("list(sys.argv)", ["-c", "--seed", "7"]),
        ("sorted(sys.argv)", ["--seed", "-c", "7"]),
        ("len(sys.argv)", 3),
        ("sys.argv == ['-c', '--seed', '7']", True),
        ("['a'] + sys.argv", ["a", "-c", "--seed", "7"]),
        ("sys.argv + ['a']", ["-c", "--seed", "7", "a"]),
        ("'7' in sys.argv", True),
        ("sys.argv.index('7')", 2),
        ("bool(sys.argv)", True),
        ("' '.join(sys.argv)", "-c --seed 7"),
        ("__import__('copy').deepcopy(sys.argv)", ["-c", "--seed", "7"]),
        ("__import__('pickle').loads(__import__('pickle').dumps(sys.argv))", ["-c", "--seed", "7"]),
        ("__import__('argparse').ArgumentParser().parse_known_args()[1]", ["--seed", "7"]),
    ],
)
def test_whoever_looks_gets_what_a_fresh_process_would_see(expression, value):
    assert told(f"assert not asked()\nvalue = {expression}\nassert asked()\ntell(value)") == value


@pytest.mark.parametrize(
    "statement",
    [
        "os.environ['KNOWN']",
        "os.environ.get('MISSING')",
        "os.environ['MINE'] = 'set'",
        "del os.environ['KNOWN']",
        "sys.argv[0]",
        "sys.argv[0] = 'renamed'",
        "import json, random, asyncio, tempfile, threading, logging",
        "open('/dev/null').close()",
    ],
)
def test_what_depends_on_no_session_does_not_wait(statement):
    assert told(f"{statement}\ntell(asked())") is False


def test_what_the_script_set_before_it_asked_stays():
    script = "os.environ['MINE'] = 'set'\nos.environ.pop('KNOWN')\nsys.argv[0] = 'renamed'\nos.environ['MUXSIM_SEED']\n"
    values = told(script + "tell([os.environ['MINE'], 'KNOWN' in os.environ, sys.argv, type(sys.argv).__name__])")
    assert values == ["set", False, ["renamed", "--seed", "7"], "list"]


@pytest.mark.parametrize(
    ("statement", "value"), [("os.environ['MUXSIM_SEED'] = '9'", "9"), ("del os.environ['OTHER']", "7")]
)
def test_a_variable_of_the_session_that_the_script_sets_or_deletes_is_the_scripts(statement, value):
    ended = run(f"{statement}\nos.write(1, os.environ['MUXSIM_SEED'].encode())\nos.system('printf $MUXSIM_SEED$OTHER')")
    assert ended.stdout.decode() == (value + value + ("x" if value == "9" else ""))


@pytest.mark.parametrize(
    "start",
    [
        f"import subprocess; subprocess.run([sys.executable, '-ISc', {SHOW!r}], check=True)",
        f"if os.fork() == 0: {SHOW}\nelse: os.wait()",
        f"os.posix_spawn(sys.executable, ['python', '-ISc', {SHOW!r}], os.environ); os.wait()",
        "os.system('printf $MUXSIM_SEED')",
        f"os.execv(sys.executable, ['python', '-ISc', {SHOW!r}])",
        f"""import multiprocessing.util as util
pid = util.spawnv_passfds(sys.executable.encode(), [b'python', b'-ISc', {SHOW!r}.encode()], [])
os.waitpid(pid, 0)""",
    ],
)
def test_a_process_that_it_starts_has_all_variables(start):
    assert run(start).stdout == b"7"


def test_sixteen_threads_that_ask_at_once_get_one_answer():
    script = """
import threading
sys.setswitchinterval(1e-6)
got = []
threads = [threading.Thread(target=lambda: got.append(os.environ["MUXSIM_SEED"])) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
tell(got)
"""
    assert told(script) == ["7"] * 16


def test_the_handler_of_a_signal_may_ask_while_the_script_waits():
    script = """
import signal, threading
got = []
signal.signal(signal.SIGUSR1, lambda *_: got.append(os.environ["OTHER"]))
late_fd, ours = os.pipe()
os.dup2(late_fd, fd)
def send():
    os.write(ours, ORDER[:3])
    os.kill(os.getpid(), signal.SIGUSR1)
    os.write(ours, ORDER[3:])
    os.close(ours)
timer = threading.Timer(0.1, send)
timer.start()
got.append(os.environ["MUXSIM_SEED"])
timer.join()
tell(sorted(got))
"""
    assert told(f"ORDER = {framed(ORDER)!r}\n{script}", order=None) == ["7", "x"]


def test_one_that_nobody_will_ever_tell_exits_quietly():
    ended = run("os.environ['MUXSIM_SEED']\nprint('never')", order=None)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
