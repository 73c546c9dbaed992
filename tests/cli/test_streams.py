"""Commands whose stdout or stderr is closed, breaks off, or takes only some characters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest
from harness import MUXSIM, SERVERS, muxsim_serve

pytestmark = pytest.mark.children

LIMIT = 300  # s, on a machine that is busy with others
LAKE = (
    '[environments.lake]\ncommand = "python3"\n'
    f'args = ["-I", "-S", "{SERVERS / "scored.py"}"]\nzygote = false\nwarm = 0\n'
)
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
}
NARROW = [
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]
CLOSINGS = [(1,), (2,), (1, 2), (0, 1, 2)]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "muxsim.toml"
    path.write_text(LAKE)
    return path


def closing(fds):
    """A command line that runs the rest of it without these descriptors."""
    close = "".join(f"os.close({fd});" for fd in fds)
    return (sys.executable, "-c", f"import os, sys;{close}os.execv(sys.argv[1], sys.argv[1:])")


def run(*argv, env=None, **options):
    return subprocess.run(argv, env={**os.environ, **(env or {})}, timeout=LIMIT, check=False, **options)


def answers(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=LIMIT) as response:
        return json.load(response)["status"] == "ok"


def when_serving(config, argv, env=None, **options):
    """Run a `muxsim serve` until it answers, and end it: its exit status."""
    with open(config.parent / "port", "wb+") as found:
        script = (
            "from muxsim.cli.streams import settle_standard_streams; settle_standard_streams()\n"
            "from muxsim.serve.operate import host; from muxsim.cli import main\n"
            f"said = open({str(config.parent / 'port')!r}, 'w')\n"
            "inner = host._Host._serve\n"
            "async def serve(self, *rest):\n"
            "    print(self._listener.getsockname()[1], file=said, flush=True); await inner(self, *rest)\n"
            "host._Host._serve = serve; main()"
        )
        command = [*argv, sys.executable, "-c", script, "serve", str(config), "--port", "0"]
        process = subprocess.Popen(command, env={**os.environ, **(env or {})}, **options)
        try:
            while not (port := found.read().strip()):
                assert process.poll() is None, process.returncode
                found.seek(0)
            assert answers(int(port))
            process.send_signal(signal.SIGTERM)
            return process.wait(LIMIT)
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("fds", CLOSINGS)
def test_it_serves_with_closed_streams(fds, config):
    assert when_serving(config, closing(fds)) == 0


def test_no_socket_takes_the_place_of_a_closed_stream(config):
    # What is printed, by a library too, would go to a client.
    script = (
        "from muxsim.cli.streams import settle_standard_streams; settle_standard_streams()\n"
        "import os, socket, sys\n"
        "held = socket.socket(); assert held.fileno() > 2\n"
        "print('x'); print('x', file=sys.stderr); sys.stdout.flush()\n"
        "sys.exit(0 if sys.stdin.read() == '' else 1)"
    )
    assert run(*closing((0, 1, 2)), sys.executable, "-c", script).returncode == 0


@pytest.mark.parametrize("env", NARROW[2:], ids=str)
def test_it_serves_where_not_every_character_can_be_written(env, config):
    assert when_serving(config, (), env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) == 0


def test_it_serves_when_nobody_reads_what_it_says(config):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert when_serving(config, (), stdout=writing, stderr=writing) == 0
    finally:
        os.close(writing)
    with open("/dev/full", "wb") as full:
        assert when_serving(config, (), stdout=full, stderr=full) == 0


@pytest.mark.parametrize("command", [("new", "walker"), ("--help",)])
def test_output_that_does_not_fit_is_one_line_and_a_status(command, tmp_path):
    with open("/dev/full", "wb") as full:
        done = run(*MUXSIM, *command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE)
    told = b"muxsim: not all of the output could be written to stdout: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, told)


@pytest.mark.parametrize("fds", [(2,)])
def test_a_session_on_stdio_needs_no_stderr(fds, config):
    argv = [*closing(fds), *MUXSIM, "stdio", str(config)]
    done = run(*argv, input=json.dumps(INITIALIZE).encode() + b"\n", stdout=subprocess.PIPE)
    assert json.loads(done.stdout)["id"] == 0
    assert done.returncode == 0


@pytest.mark.parametrize("fds", [(1,), (0,), (0, 1, 2)])
def test_a_session_on_stdio_that_nobody_can_talk_to_ends(fds, config):
    argv = [*closing(fds), *MUXSIM, "stdio", str(config)]
    stdin = subprocess.DEVNULL if 0 not in fds else None
    assert run(*argv, stdin=stdin).returncode == 0


@pytest.mark.parametrize("env", NARROW[1:], ids=str)
def test_a_session_on_stdio_carries_every_character_all_the_same(env, config):
    message = {**INITIALIZE, "params": {**INITIALIZE["params"], "clientInfo": {"name": "湖é", "version": "1"}}}
    line = json.dumps(message, ensure_ascii=False).encode() + b"\n"
    done = run(*MUXSIM, "stdio", str(config), env=env, input=line, capture_output=True)
    assert json.loads(done.stdout)["id"] == 0


@pytest.mark.parametrize("fds", [(1, 2), (0, 1, 2)])
def test_episodes_are_played_and_looked_at_with_closed_streams(fds, config):
    out = config.parent / "run"
    rollout = ["rollout", str(config), "--rollouts", "2", "--max-steps", "2", "--output", str(out)]
    assert run(*closing(fds), *MUXSIM, *rollout).returncode == 0
    assert len((out / "rollouts.jsonl").read_text().splitlines()) == 2
    assert run(*closing(fds), *MUXSIM, "check", "lake", "--config", str(config)).returncode in (0, 1)
    assert run(*closing(fds), *MUXSIM, "ps").returncode == 0
    assert run(*closing(fds), *MUXSIM, "serve", "--check", str(config)).returncode == 0


@pytest.mark.parametrize("env", NARROW[2:], ids=str)
def test_what_is_printed_loses_only_the_characters_that_cannot_be_written(env, config, tmp_path):
    out = tmp_path / "run"
    rollout = ["rollout", str(config), "--rollouts", "2", "--max-steps", "2", "--output", str(out)]
    assert run(*MUXSIM, *rollout, env=env, capture_output=True).returncode == 0
    checked = run(*MUXSIM, "check", "lake", "--config", str(config), env=env, capture_output=True)
    assert b"lake" in checked.stdout
    assert b"Traceback" not in checked.stderr
    with muxsim_serve(tmp_path, config) as running:
        listed = run(*MUXSIM, "ps", "--pid", str(running.process.pid), env=env, capture_output=True)
        assert b"0 sessions" in listed.stdout


def test_a_reader_that_goes_away_is_no_failure(config, tmp_path):
    with muxsim_serve(tmp_path, config) as running:
        for command in (["ps"], ["ctl", "status"], ["ps", "--json"]):
            reading, writing = os.pipe()
            os.close(reading)
            argv = [*MUXSIM, *command, "--pid", str(running.process.pid)]
            done = run(*argv, stdout=writing, stderr=subprocess.PIPE)
            os.close(writing)
            assert (done.returncode, done.stderr) == (0, b"")
