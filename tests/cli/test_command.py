"""What `muxsim` says in a shell, and its exit status. Rows are those of the table of faults."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess

import pytest
import trio
from harness import MUXSIM
from serve.machine import descendants, gone
from serve.wire import ask, initialize, shake_hands

from muxsim import __version__

from .terminal import NAUGHTY, NAUGHTY_COMMAND, call, muxsim, play

pytestmark = pytest.mark.children

COMMANDS = [
    ("ctl",),
    ("envs",),
    ("ps",),
    ("reap",),
    (),
    ("serve",),
    ("stdio",),
    ("rollout",),
    ("replay",),
    ("view",),
    ("check",),
]
ENVIRONMENT = f"[environments.naughty]\ncommand = 'python3'\nargs = {json.dumps(NAUGHTY_COMMAND[1:])}\n"


def test_the_version_is_told(tmp_path):
    finished = muxsim(tmp_path, "--version")
    assert (finished.status, finished.stdout, finished.stderr) == (0, f"muxsim {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "muxsim")
def test_help_reads_well_at_eighty_columns(tmp_path, command):
    finished = muxsim(tmp_path, *command, "-h" if command == ("stdio",) else "--help", env={"COLUMNS": "80"})
    lines = finished.stdout.splitlines()
    assert finished.status == 0
    assert lines[0].startswith(f"Usage: muxsim {' '.join(command)}".rstrip())
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.endswith("...") and not line.startswith("Usage: ")]
    assert "Traceback" not in finished.stdout + finished.stderr


def test_without_a_command_the_help_is_shown(tmp_path):
    finished = muxsim(tmp_path)
    assert (finished.status, finished.stdout) == (2, "")
    assert "serve" in finished.stderr
    assert "stdio" in finished.stderr


def test_it_runs_as_a_script_too():
    script = os.path.join(os.path.dirname(MUXSIM[0]), "muxsim")
    version = subprocess.run([script, "--version"], capture_output=True, check=True, timeout=60, text=True).stdout
    assert version == f"muxsim {__version__}\n"


# ---- what is wrong is told in one line


FAULTS = {
    "nothing.toml": (None, "nothing.toml: does not exist"),
    "muxsim.yaml": ("x: 1", "muxsim.yaml: must be a .toml or a .json file"),
    "bad.toml": ("[environments", "bad.toml: is not valid TOML"),
    "bad.json": ("{", "bad.json: is not valid JSON"),
    "empty.toml": ("", "empty.toml: environments: has no environment"),
    "key.toml": (ENVIRONMENT + "sede = 1\n", "key.toml: [environments.naughty] sede = 1: is not a known key"),
    "table.toml": ("[enviroments.x]\ncommand = 'x'\n", "enviroments: is not a known key: did you mean environments?"),
    "value.toml": (ENVIRONMENT + "[server]\nport = 'high'\n", 'value.toml: [server] port = "high": must be'),
    "variable.toml": (ENVIRONMENT + "env = { A = '${NOBODY_SET_ME}' }\n", "the variable NOBODY_SET_ME is not set"),
    "placeholder.toml": ("[environments.x]\ncommand = 'x.py'\nargs = ['{sed}']\n", "write {seed}"),
    "default.toml": (ENVIRONMENT + "[server]\ndefault = 'other'\n", "default.toml: [server] default"),
    "name.toml": ("[environments.'a/b']\ncommand = 'x'\n", "cannot be an environment's name"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_bad_config_is_one_clear_line_and_status_2(tmp_path, name):
    text, complaint = FAULTS[name]
    if text is not None:
        (tmp_path / name).write_text(text)
    finished = muxsim(tmp_path, "serve", name)
    assert (finished.status, finished.stdout) == (2, "")
    assert finished.complaint.startswith("muxsim: ")
    assert complaint in finished.complaint


@pytest.mark.parametrize("command", ["serve", "stdio"])
@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        ((), "there is no muxsim.toml in"),
        (("--",), "a command is missing after --"),
        (("muxsim.toml", "--", "python3", "server.py"), "either a config or a command"),
        ((".",), "must be a .toml or a .json file"),
    ],
)
def test_a_bad_command_line_is_one_clear_line_and_status_2(tmp_path, command, args, complaint):
    finished = muxsim(tmp_path, command, *args)
    assert (finished.status, finished.stdout) == (2, "")
    assert complaint in finished.complaint


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("sevre",), "serve"),
        (("serve", "--prot", "1"), "--port"),
        (("serve", "--port", "70000"), "--port"),
        (("serve", "--port", "many"), "--port"),
        (("serve", "--log-format", "xml"), "json"),
        (("stdio", "--seed", "1.5"), "--seed"),
        (("serve", "one.toml", "two.toml"), "two.toml"),
    ],
)
def test_a_word_that_is_none_is_told_with_what_was_meant_and_status_2(tmp_path, args, word):
    finished = muxsim(tmp_path, *args)
    assert (finished.status, finished.stdout) == (2, "")
    assert word in finished.stderr
    assert "Traceback" not in finished.stderr


# ---- where it listens


@pytest.mark.fault("H13")
def test_a_port_in_use_is_one_line_and_starts_nothing(tmp_path):
    """H13."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        finished = muxsim(tmp_path, "serve", "--port", port, "--", *NAUGHTY_COMMAND)
    assert (finished.status, finished.stdout) == (2, "")
    assert f"cannot listen on 127.0.0.1:{port}" in finished.complaint
    assert "--port" in finished.complaint


@pytest.mark.fault("H13")
@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "not a host"])
def test_an_address_that_is_not_this_machines_is_one_line(tmp_path, host):
    """H13."""
    tokens = tmp_path / "tokens"
    tokens.write_text("lab trainer " + "t" * 32)
    tokens.chmod(0o600)
    options = ("--port", "0", "--host", host, "--tokens-file", "tokens")
    finished = muxsim(tmp_path, "serve", *options, "--", *NAUGHTY_COMMAND)
    assert (finished.status, finished.stdout) == (2, "")
    assert f"cannot listen on {host}:0" in finished.complaint


@pytest.mark.fault("H13")
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_address_for_others_without_authentication_is_one_line_and_starts_nothing(tmp_path, host):
    """H13."""
    started = tmp_path / "started"
    finished = muxsim(tmp_path, "serve", "--port", "0", "--host", host, "--", "touch", str(started))
    assert (finished.status, finished.stdout) == (2, "")
    assert f"refusing to listen on {host} without authentication" in finished.complaint
    assert "--tokens-file" in finished.complaint
    assert "127.0.0.1" in finished.complaint
    assert not started.exists()


async def test_the_first_line_is_the_url_and_the_rest_says_what_is_served(tmp_path):
    """`--port 0` takes a free port; the environment is named after the command."""
    shutil.copy(NAUGHTY, tmp_path)
    process = start(tmp_path, "serve", "--port", "0", "--", "python3", "-I", "-S", "naughty.py")
    try:
        with trio.fail_after(60):
            first = await trio.to_thread.run_sync(process.stdout.readline)
            url = first.split()[-1]
            assert first == f"muxsim {__version__} is ready on {url}\n"
            rest = [await trio.to_thread.run_sync(process.stdout.readline) for _ in range(8)]
            assert f"    naughty  {url}/envs/naughty/mcp\n" in rest
            client = await shake_hands(url, "/mcp")
            assert (await client.value("who"))["cwd"] == str(tmp_path)
            helpers = descendants(process.pid)
        process.terminate()
        await gone(*helpers)
        assert await trio.to_thread.run_sync(process.wait) == 0
    finally:
        process.kill()
        process.communicate()


async def test_options_go_before_the_config(tmp_path):
    """Another host is served under its own name only if it is named."""
    (tmp_path / "muxsim.toml").write_text(ENVIRONMENT + "[server]\nport = 1\nhost = '192.0.2.1'\nlog_level = 'error'\n")
    options = ("--host", "127.0.0.2", "--port", "0", "--log-level", "info", "--log-format", "json")
    process = start(tmp_path, "serve", *options)
    try:
        with trio.fail_after(60):
            url = (await trio.to_thread.run_sync(process.stdout.readline)).split()[-1]
            assert url.startswith("http://127.0.0.2:")
            answer = await ask(url, "POST", "/mcp", [("Host", "localhost")], initialize())
            assert answer.status == 200
            assert json.loads(await trio.to_thread.run_sync(process.stderr.readline))["event"] == "session.opening"
    finally:
        process.terminate()
        process.communicate()


def start(folder, *args):
    """A running `muxsim`, its output to be read."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*MUXSIM, *args], cwd=folder, text=True, **pipes)


# ---- the config as a user meets it


@pytest.fixture
def project(tmp_path):
    """A folder with a config and a server, to be used from another folder."""
    folder = tmp_path / "my project"
    (folder / "servers").mkdir(parents=True)
    shutil.copy(NAUGHTY, folder / "servers")
    script = f'#!/bin/sh\nexec {MUXSIM[0]} -I -S "$(dirname "$0")/naughty.py" "$@"\n'
    (folder / "servers" / "tool.sh").write_text(script)
    (folder / "servers" / "tool.sh").chmod(0o755)
    (tmp_path / "elsewhere").mkdir()
    return folder


def who(project, config, *args, file="muxsim.toml", env=None):
    """What the server of a config tells of itself, with muxsim started from another folder."""
    (project / file).write_text(config)
    finished = play(project.parent / "elsewhere", f"../my project/{file}", *args, env=env, messages=[call(1, "who")])
    assert finished.status == 0, finished.stderr
    return finished.value(1)


@pytest.mark.parametrize(
    "command",
    [
        'command = "servers/naughty.py"',
        'command = "python3"\nargs = ["servers/naughty.py"]',
        'command = "python"\nargs = ["-I", "-S", "./servers/naughty.py"]',
        'command = "servers/tool.sh"',
        'command = "./servers/naughty.py"\npython = "' + MUXSIM[0] + '"',
        'command = "python3"\nargs = ["-m", "naughty"]\ncwd = "servers"',
    ],
)
def test_paths_are_relative_to_the_config_wherever_muxsim_is_started(project, command):
    told = who(project, f"[environments.x]\n{command}\n")
    assert told["cwd"] in (str(project), str(project / "servers"))


@pytest.mark.fault("C28")
def test_variables_of_muxsims_own_reach_a_backend_only_by_name(project):
    """C28."""
    config = (
        '[environments.x]\ncommand = "servers/naughty.py"\nargs = ["${LEVEL}", "${NO_SUCH:-fallback}", "$${LEVEL}"]\n'
        'env = { GIVEN = "${SECRET}", PLAIN = "text" }\n'
    )
    environ = {"SECRET": "s3cret", "LEVEL": "easy", "PYTHONPATH": "/nowhere", "HTTPS_PROXY": "http://user:pw@proxy"}
    told = who(project, config, env={**environ, "LC_ALL": "C.UTF-8"})
    assert told["argv"] == ["easy", "fallback", "${LEVEL}"]
    assert (told["env"]["GIVEN"], told["env"]["PLAIN"], told["env"]["LC_ALL"]) == ("s3cret", "text", "C.UTF-8")
    assert not {"SECRET", "LEVEL", "PYTHONPATH", "HTTPS_PROXY"} & told["env"].keys()


def test_placeholders_are_filled_in_everywhere(project):
    config = (
        '[environments.x]\ncommand = "servers/naughty.py"\nargs = ["--seed", "{seed}", "{workspace}/log", "{{seed}}"]\n'
        'env = { SEED = "<{seed}>", SESSION = "{session_id}" }\ncwd = "{workspace}"\n'
    )
    told = who(project, config, "--seed", "0")
    workspace = told["env"]["MUXSIM_WORKSPACE"]
    assert told["argv"] == ["--seed", "0", f"{workspace}/log", "{seed}"]
    assert (told["env"]["SEED"], told["env"]["MUXSIM_SEED"]) == ("<0>", "0")
    assert len(bytes.fromhex(told["env"]["SESSION"])) == 16
    assert told["cwd"] == os.path.realpath(workspace) or told["cwd"] == workspace
    assert not os.path.exists(workspace)


def test_each_session_has_a_workspace_of_its_own(project):
    config = '[environments.x]\ncommand = "servers/naughty.py"\n'
    first, second = who(project, config), who(project, config)
    assert first["env"]["MUXSIM_WORKSPACE"] != second["env"]["MUXSIM_WORKSPACE"]


def test_a_desktops_file_works_as_it_is_and_with_muxsims_own_block(project):
    servers = {
        "off": {"command": "no/such/thing", "disabled": True},
        "game": {"command": "python3", "args": ["servers/naughty.py", "--seed", "{seed}"], "env": {"A": "${B}"}},
    }
    config = {"theme": "dark", "mcpServers": servers, "muxsim": {"log_level": "error"}}
    servers["game"]["muxsim"] = {"cwd": "servers", "idle_timeout": 60}
    told = who(project, json.dumps(config), "--seed", "5", file="desktop.json", env={"B": "b"})
    assert told["argv"] == ["--seed", "5"]
    assert told["env"]["A"] == "b"
    assert told["cwd"] == str(project / "servers")


CHECKED = {
    "no such program": ('command = "/no/such/program"', "there is no such file"),
    "not on PATH": ('command = "no-such-program-anywhere"', "there is none on its PATH"),
    "not executable": ('command = "./plain.txt"', "chmod"),
    "a folder": ('command = "./src"', "make it executable"),
    "no such cwd": ('command = "cat"\ncwd = "no/such"', "cwd must be a folder"),
    "cwd is a file": ('command = "cat"\ncwd = "plain.txt"', "cwd must be a folder"),
    "no such script": ('command = "python3"\nargs = ["gone.py"]', "gone.py"),
    "no private folder": ('command = "cat"\nprivate = ["gone"]', "gone is not there: make it"),
    "a private file": ('command = "cat"\nprivate = ["plain.txt"]', "plain.txt is a file: name its folder"),
    "no npm": ('command = "npx"\nargs = ["-y", "package@1.0.0"]\nenv = { PATH = "/nowhere" }', "install Node.js"),
}


@pytest.mark.fault("H3")
@pytest.mark.parametrize("name", CHECKED)
def test_a_check_tells_what_would_fail_every_start_and_starts_nothing_H3(tmp_path, name):
    table, words = CHECKED[name]
    (tmp_path / "plain.txt").write_text("")
    (tmp_path / "src").mkdir()
    (tmp_path / "muxsim.toml").write_text(f"[environments.good]\ncommand = 'cat'\n[environments.bad]\n{table}\n")
    finished = muxsim(tmp_path, "serve", "--check")
    assert (finished.status, finished.stdout) == (2, "")
    (line,) = finished.stderr.splitlines()
    assert line.startswith("muxsim: environment 'bad': ")
    assert words in line


def wrong_starts(folder):
    """Settings with which muxsim does not start, and what a check says of each."""
    (folder / "open").write_text(f"ada trainer {'a' * 32}\n")
    (folder / "open").chmod(0o644)
    (folder / "unknown").write_text(f"ada king {'a' * 32}\n")
    (folder / "unknown").chmod(0o600)
    return {
        "[server.auth]\ntokens_file = 'open'": "chmod 600",
        "[server.auth]\ntokens_file = 'unknown'": "line 1",
        "[server.auth]\ntokens_file = 'gone'": "cannot be read",
        "[server.auth]\ntokens_env = 'NO_SUCH_VARIABLE'": "is not set",
        "[server]\ntls_cert = 'gone.pem'": "gone.pem",
        "[server]\nhost = '0.0.0.0'": "without authentication",
        "[server]\nhost = '203.0.113.7'\n[server.auth]\ntokens_env = 'TOKENS'": "cannot listen on 203.0.113.7",
    }


def test_a_check_finds_what_a_start_refuses(tmp_path, monkeypatch):
    """Also a port that another program has."""
    monkeypatch.setenv("TOKENS", f"ada trainer {'a' * 32}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wrong = {**wrong_starts(tmp_path), f"[server]\nport = {taken.getsockname()[1]}": "Address already in use"}
        for settings, words in wrong.items():
            port = "" if "port" in settings else "port = 0\n"
            text = settings.replace("[server]\n", f"[server]\n{port}")
            (tmp_path / "muxsim.toml").write_text(f"{text}\n[environments.good]\ncommand = 'cat'\n")
            finished = muxsim(tmp_path, "serve", "--check")
            assert (finished.status, finished.stdout) == (2, ""), settings
            (line,) = finished.stderr.splitlines()
            assert words in line, settings
        assert muxsim(tmp_path, "serve").stderr == finished.stderr, "a start says the same"


def test_a_check_that_finds_nothing_ends_with_status_0(tmp_path):
    """What a session's own values complete is left to the session."""
    (tmp_path / "server.py").write_text("")
    tables = (
        "[environments.one]\ncommand = 'server.py'\n"
        "[environments.two]\ncommand = '{workspace}/x'\ncwd = '{workspace}/y'\n"
        "[environments.three]\ncommand = 'python3'\nargs = ['-m', 'nothing', '{seed}']\n"
    )
    (tmp_path / "muxsim.toml").write_text(tables)
    finished = muxsim(tmp_path, "serve", "--check")
    assert (finished.status, finished.stderr) == (0, "")
    assert finished.stdout.startswith("3 environments")
    assert (
        "sandbox landlock" in finished.stdout.splitlines()[1]
    )  # that there is one, of which ABI, or why there is none
