"""`muxsim stdio`: one session for a client that starts servers itself. Rows are those of the table of faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import trio
from harness import MUXSIM, alive
from serve.machine import GRACE, descendants, gone, processes_with

from .terminal import HANDSHAKE, NAUGHTY_COMMAND, call, lines, muxsim, play, request

pytestmark = pytest.mark.children

KINDS = ("group", "setsid", "double")


def test_requests_from_a_pipe_get_all_their_answers(tmp_path, gate):
    """As in `printf … | muxsim stdio`: stdin ends long before the last answer comes."""
    messages = [
        call(1, "say", text="one"),
        call(2, "slow", until=gate.path),
        call(3, "say", text="three"),
        request(4, "ping"),
    ]
    with stdio(tmp_path, "--", *NAUGHTY_COMMAND) as process:
        process.stdin.write(lines(*HANDSHAKE, *messages))
        process.stdin.close()
        early = {message["id"]: message for message in (json.loads(process.stdout.readline()) for _ in range(4))}
        gate.open()
        late = json.loads(process.stdout.readline())
        assert process.stdout.read() == ""
        assert process.wait(60) == 0
    assert sorted(early) == [0, 1, 3, 4]
    assert early[0]["result"]["serverInfo"]["name"] == "naughty"
    assert (late["id"], late["result"]["content"][0]["text"]) == (2, "at last")


def test_stdout_carries_messages_and_nothing_else(tmp_path):
    """Not with the wordiest log, a backend that prints what is no message, and one that dies."""
    messages = [call(1, "not_json"), call(2, "stderr_flood", mib=1), call(3, "log"), call(4, "exit")]
    finished = play(tmp_path, "--log-level", "debug", "--", *NAUGHTY_COMMAND, messages=messages)
    assert [message.get("id") for message in finished.messages] == [0, 1, 2, None, 3, 4]
    log = [json.loads(line) for line in finished.stderr.splitlines()]
    assert {"session.opening", "session.started", "backend.stderr", "backend.rejected"} <= {
        line["event"] for line in log
    }


@pytest.mark.fault("C30")
def test_numbers_and_big_payloads_pass_byte_for_byte(tmp_path):
    """C30: with files for stdin and stdout, which are always ready."""
    text = "x☃" * (5 * 2**20 // 4)
    payload = f'{{"name":"echo","arguments":{{"big":12345678901234567890,"float":1.0,"text":"{text}"}}}}'
    stdin = lines(*HANDSHAKE) + f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{payload}}}\n'
    (tmp_path / "in").write_text(stdin)
    with (tmp_path / "in").open() as input, (tmp_path / "out").open("w") as output:
        command = [*MUXSIM, "stdio", "--", *NAUGHTY_COMMAND]
        subprocess.run(command, stdin=input, stdout=output, stderr=subprocess.DEVNULL, check=True, timeout=60)
    last = (tmp_path / "out").read_text().splitlines()[-1]
    assert last == f'{{"jsonrpc":"2.0","id":1,"result":{{"content":[],"params":{payload}}}}}'


@pytest.mark.fault("L10", "L11")
def test_a_line_that_is_no_message_gets_an_error_and_the_session_goes_on(tmp_path):
    """L10, L11."""
    noise = 'not json\n\n[]\n{"jsonrpc":"2.0","id":7}\n'
    stdin = lines(*HANDSHAKE) + noise + lines(call(1, "say", text="still here"))
    finished = muxsim(tmp_path, "stdio", "--", *NAUGHTY_COMMAND, input=stdin)
    assert finished.status == 0
    errors = [(message["id"], message["error"]["code"]) for message in finished.messages if "error" in message]
    assert errors == [(None, -32700), (None, -32600), (7, -32600)]
    assert finished.answer(1)["result"]["content"][0]["text"] == "still here"


@pytest.mark.fault("C1", "C2")
def test_a_backend_that_dies_is_an_error_for_each_call_and_an_exit_status(tmp_path):
    """C1, C2."""
    finished = play(tmp_path, "--", *NAUGHTY_COMMAND, messages=[call(1, "hang"), call(2, "exit", code=3)])
    assert finished.status == 1
    for id in (1, 2):
        assert finished.answer(id)["error"]["data"]["exit_status"] == 3
        assert finished.answer(id)["error"]["data"]["stderr"][-1] == "I am leaving"


@pytest.mark.fault("C3")
def test_a_backend_that_exits_at_its_start_is_an_error_for_the_handshake_and_an_exit_status(tmp_path):
    """C3."""
    finished = play(tmp_path, "--", *NAUGHTY_COMMAND, "--exit", "7")
    assert finished.status == 1
    assert finished.answer(0)["error"]["data"]["exit_status"] == 7
    assert finished.answer(0)["error"]["message"].endswith("its last line on stderr: it cannot start today")


@pytest.mark.fault("C5")
def test_a_backend_that_never_answers_the_handshake_is_an_error_and_an_exit_status(tmp_path):
    """C5."""
    (tmp_path / "muxsim.toml").write_text(
        "[environments.mute]\n"
        f"command = 'python3'\nargs = {json.dumps([*NAUGHTY_COMMAND[1:], '--mute'])}\nstart_timeout = 0.5\n"
    )
    with stdio(tmp_path) as process:
        process.stdin.write(lines(*HANDSHAKE))
        process.stdin.flush()
        assert "start_timeout" in json.loads(process.stdout.readline())["error"]["message"]
        assert process.wait(60) == 1


@pytest.mark.fault("H3")
def test_a_command_that_cannot_be_run_is_one_line_and_an_exit_status(tmp_path):
    """H3."""
    finished = play(tmp_path, "--", "/no/such/program")
    assert (finished.status, finished.stdout) == (1, "")
    assert "there is no such file" in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


def test_a_client_that_stops_reading_ends_it_quietly(tmp_path):
    """As in `muxsim stdio | head -1`."""
    with stdio(tmp_path, "--", *NAUGHTY_COMMAND) as process:
        process.stdin.write(lines(*HANDSHAKE))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 0
        process.stdout.close()
        process.stdin.write(lines(call(1, "say", text="unheard")))
        process.stdin.close()
        assert process.wait(60) == 0
        assert "Traceback" not in process.stderr.read()


def test_requests_of_the_backend_and_their_answers_pass(tmp_path):
    with stdio(tmp_path, "--", *NAUGHTY_COMMAND) as process:
        process.stdin.write(lines(*HANDSHAKE, call(1, "sample")))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 0
        asked = json.loads(process.stdout.readline())
        assert asked["method"] == "sampling/createMessage"
        process.stdin.write(lines({"jsonrpc": "2.0", "id": asked["id"], "result": {"mine": 1}}))
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert '"mine": 1' in answer["result"]["content"][0]["text"]


# ---- its end


@contextmanager
def stdio(folder, *args):
    """A running `muxsim stdio`, ended after the block."""
    with subprocess.Popen(
        [*MUXSIM, "stdio", *args],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
            process.stdin.close()
            process.wait(60)
        finally:
            process.kill()


def grow_tree(process):
    """Give its session a grandchild of every kind; the pids of all, and the session's folder."""
    messages = [*HANDSHAKE, call(1, "who"), *(call(number, "spawn", kind=kind) for number, kind in enumerate(KINDS, 2))]
    process.stdin.write(lines(*messages))
    process.stdin.flush()
    answers = [json.loads(process.stdout.readline()) for _ in range(5)]
    values = [json.loads(answer["result"]["content"][0]["text"]) for answer in answers[1:]]
    return [value["pid"] for value in values], values[0]["env"]["MUXSIM_WORKSPACE"]


def end_by_eof(process):
    process.stdin.close()


def end_by(number):
    def end(process):
        process.send_signal(number)

    return end


@pytest.mark.fault("L29", "H7")
@pytest.mark.parametrize("options", [(), ("--stubborn",)], ids=["polite", "stubborn"])
@pytest.mark.parametrize(
    ("end", "status"),
    [
        (end_by_eof, 0),
        (end_by(signal.SIGTERM), 0),
        (end_by(signal.SIGINT), 0),
        (end_by(signal.SIGHUP), 0),
        (end_by(signal.SIGKILL), -signal.SIGKILL),
    ],
    ids=["end of stdin", "SIGTERM", "SIGINT", "SIGHUP", "SIGKILL"],
)
def test_however_it_ends_nothing_of_its_session_is_left(tmp_path, monkeypatch, options, end, status):
    """L29, H7: with a call in flight."""
    if status:  # nobody is left to remove the folder of one that was killed
        monkeypatch.setenv("TMPDIR", str(tmp_path))
    with stdio(tmp_path, "--", *NAUGHTY_COMMAND, *options) as process:
        pids, workspace = grow_tree(process)
        helpers = descendants(process.pid)
        end(process)
        trio.run(gone, *pids)
        assert process.wait(60) == status
        trio.run(gone, *helpers)
    assert processes_with(workspace) == []
    assert status or not os.path.exists(workspace)


CLIENT = """
import subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
sys.stdout.write(f"{process.pid}\\n")
sys.stdout.flush()
for line in sys.stdin.buffer:
    process.stdin.write(line)
    process.stdin.flush()
    if b'"id"' in line:
        sys.stdout.buffer.write(process.stdout.readline())
        sys.stdout.buffer.flush()
"""


@pytest.mark.fault("L29")
def test_a_client_that_is_killed_takes_everything_with_it(tmp_path):
    """L29: nobody says goodbye."""
    command = [sys.executable, "-c", CLIENT, *MUXSIM, "stdio", "--", *NAUGHTY_COMMAND, "--stubborn"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        muxsim_pid = int(client.stdout.readline())
        pids, workspace = grow_tree(client)
        assert alive(muxsim_pid)
        client.kill()
        trio.run(gone, muxsim_pid, *pids)
    assert processes_with(workspace) == []
    assert not os.path.exists(workspace)


@pytest.mark.fault("L29")
def test_a_client_that_leaves_does_not_wait_for_a_call_that_hangs(tmp_path):
    """L29."""
    with stdio(tmp_path, "--", *NAUGHTY_COMMAND) as process:
        pids, _ = grow_tree(process)
        process.stdin.write(lines(call(9, "hang")))
        process.stdin.close()
        trio.run(lambda: gone(*pids, within=2 * GRACE))
        assert process.wait(60) == 0


def test_the_environment_and_its_seed_can_be_chosen(tmp_path):
    table = "[environments.{}]\ncommand = 'python3'\nargs = {}\n"
    args = json.dumps([*NAUGHTY_COMMAND[1:], "--seed", "{seed}"])
    (tmp_path / "muxsim.toml").write_text(table.format("one", args) + table.format("two", args))
    finished = play(tmp_path, "--env", "two", "--seed", "0", messages=[call(1, "who")])
    assert finished.value(1)["argv"] == ["--seed", "0"]
    for args, words in (((), "one, two"), (("--env", "three"), '"three"'), (("--seed", "-1"), "--seed")):
        finished = play(tmp_path, *args)
        assert (finished.status, finished.stdout) == (2, "")
        assert words in finished.stderr
    drawn = {play(tmp_path, "--env", "one", messages=[call(1, "who")]).value(1)["argv"][1] for _ in range(2)}
    assert len(drawn) == 2
