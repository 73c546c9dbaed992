"""What only processes can show: seeds across them, a clean stdout, a prompt exit."""

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import tty

import pytest
import trio
from PIL import Image

from .children import FROZEN_LAKE, SERVERS, call, on_pipes, played

pytestmark = pytest.mark.children

DICE = SERVERS / "dice.py"
NOISY = SERVERS / "noisy.py"
SCREEN = SERVERS / "screen.py"
MIRROR = SERVERS / "mirror.py"
ASK = {"muxsim/control": True}
KEY = "muxsim/control"

# Far more than a pipe holds.
LONG = "x" * 10 * 2**20

# A frozen heap makes the way out 30 ms: this is room for a busy machine.
PROMPTLY = 60


async def resource(client, name):
    [contents] = (await client.read_resource(f"control://{name}")).contents
    return json.loads(contents.text)


async def episode(script, *arguments, tool="step", actions=(), mode="auto", env=None):
    """All that a client can see of an episode."""
    async with played(script, *arguments, mode=mode, env=env) as client:
        seen = [await resource(client, "initial_state")]
        for action in actions:
            result = await client.call_tool(tool, {"action": action}, meta=ASK)
            seen.append([[block.text for block in result.content], result.is_error, result.meta[KEY]])
        seen += [await resource(client, name) for name in ("reward", "status", "info")]
        return seen


async def episodes(*plays):
    results = [None] * len(plays)

    async def run(index, play):
        results[index] = await play()

    async with trio.open_nursery() as nursery:
        for index, play in enumerate(plays):
            nursery.start_soon(run, index, play)
    return results


async def test_same_seed_and_actions_give_the_same_episode_in_three_processes():
    def play(seed, mode):
        return lambda: episode(DICE, "--seed", seed, actions=[1, 5, 3, 0], mode=mode)

    first, second, third, other = await episodes(
        play("7", "auto"), play("7", "legacy"), play("7", "2026-07-28"), play("8", "auto")
    )
    assert first == second == third
    assert first[0]["seed"] == 7
    assert other[0]["observation"] != first[0]["observation"]


async def test_a_slippery_lake_is_the_same_again_for_its_seed_and_another_for_another():
    def play(seed):
        moves = ["RIGHT", "DOWN", "LEFT", "UP"] * 5
        return lambda: episode(FROZEN_LAKE, "--slippery", "--seed", seed, tool="lake_move", actions=moves)

    first, second, other = await episodes(play("3"), play("3"), play("4"))
    assert first == second
    assert first != other


async def test_the_seed_comes_from_the_command_line_then_the_environment_then_chance():
    def play(*arguments, env=None):
        return lambda: episode(DICE, *arguments, env=env)

    by_option, by_variable, *by_chance = await episodes(
        play("--seed", "0", env={"MUXSIM_SEED": "5"}), play(env={"MUXSIM_SEED": "0"}), play(), play()
    )
    assert by_option == by_variable
    assert by_option[0]["seed"] == 0
    assert by_chance[0][0]["seed"] != by_chance[1][0]["seed"]


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_lake_is_played_to_its_goal_with_the_control_plane_only_for_who_asks(mode):
    async with played(FROZEN_LAKE, "--seed", "7", mode=mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["lake_move"]
        for move in ("DOWN", "DOWN", "RIGHT", "RIGHT", "RIGHT"):
            result = await client.call_tool("lake_move", {"action": move})
            assert KEY not in (result.meta or {})
        assert (await resource(client, "status"))["terminated"] is False
        goal = await client.call_tool("lake_move", {"action": "DOWN"}, meta=ASK)
        assert goal.meta[KEY]["reward"] == 1.0
        assert goal.meta[KEY]["terminated"] is True
        assert goal.meta[KEY]["step"] == 6
        after = await client.call_tool("lake_move", {"action": "UP"}, meta=ASK)
        assert after.is_error is True
        assert await resource(client, "status") == {
            "terminated": True,
            "truncated": False,
            "step": 6,
            "total_reward": 1.0,
        }


async def test_nothing_but_mcp_is_on_stdout_however_the_environment_prints():
    with tempfile.TemporaryFile() as log:
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        async with on_pipes(NOISY, "--seed", "1", stderr=log, env=buffered) as server:
            await server.shake_hands()
            await server.send(call(1, "step", action=1))
            answer = await server.receive()
            assert answer["id"] == 1
            # The wire is not on fd 0 either: environment code that reads stdin is at its end at once.
            assert answer["result"]["content"] == [{"type": "text", "text": '""'}]
            rest, status = await server.end()
        assert (rest, status) == (b"", 0)
        log.seek(0)
        noise = log.read().decode()
    assert "NOISE before the run" in noise
    for kind in ("print", "no newline", "dunder", "fd", "libc", "child"):
        for when in ("make", "reset", "step", "close", "exit"):
            assert f"NOISE {kind} {when}" in noise


async def test_calls_sent_without_waiting_are_taken_in_their_order():
    async with on_pipes(DICE, "--seed", "1") as server:
        await server.shake_hands()
        actions = [number % 6 for number in range(30)]
        await server.send(*(call(number, "step", action=action) for number, action in enumerate(actions, 1)))
        answers = [(await server.receive())["result"] for _ in actions]
        steps = [answer["_meta"][KEY]["step"] for answer in answers]
        end = next((number for number, answer in enumerate(answers) if answer.get("isError")), len(answers))
        assert end > 5
        assert steps[:end] == list(range(1, end + 1))
        drawn = [json.loads(answer["content"][0]["text"])[-1] for answer in answers[:end]]
        assert drawn == actions[:end]


async def test_a_long_line_is_read_and_answered_without_a_thread():
    async with on_pipes(MIRROR, "--seed", "1") as server:
        await server.shake_hands()
        await server.send(call(1, "say", text=LONG), call(2, "count_threads"))
        long, threads = [(await server.receive())["result"]["content"][0]["text"] for _ in range(2)]
    assert long == LONG
    assert threads == "1"


async def test_bytes_that_are_no_text_and_lines_that_are_no_messages_cost_only_themselves():
    async with on_pipes(MIRROR, "--seed", "1") as server:
        await server.shake_hands()
        await server.process.stdin.send_all(b"\xff\xfe\n\nnull\n{}\n")
        broken = json.dumps(call(1, "say", text="a-b")).encode().replace(b"a-b", b"a\xf0\x9fb")
        await server.process.stdin.send_all(broken + b"\r\n")
        assert (await server.receive())["result"]["content"][0]["text"] == "a\N{REPLACEMENT CHARACTER}b"


def requests(*calls):
    """All that a client says, in one piece: the last line without its newline."""
    shake_hands = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "file", "version": "0"}}
    messages = [
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": shake_hands},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        *calls,
    ]
    return "\n".join(map(json.dumps, messages)).encode()


def answers(output):
    return {message["id"]: message for message in map(json.loads, output.splitlines())}


def test_calls_that_came_before_the_end_of_stdin_are_answered():
    calls = [call(number, "say", text=str(number)) for number in range(1, 301)]
    command = [sys.executable, str(MIRROR), "--seed", "1"]
    ended = subprocess.run(command, input=requests(*calls), stdout=subprocess.PIPE, timeout=60, check=True)
    answered = answers(ended.stdout)
    assert [answered[number]["result"]["content"][0]["text"] for number in range(1, 301)] == [
        str(number) for number in range(1, 301)
    ]


def test_a_call_that_waits_is_not_waited_for_at_the_end_of_stdin():
    calls = [call(1, "wait"), call(2, "say", text="no turn")]
    command = [sys.executable, str(MIRROR), "--seed", "1"]
    ended = subprocess.run(command, input=requests(*calls), stdout=subprocess.PIPE, timeout=60, check=True)
    assert all("error" in answers(ended.stdout)[number] for number in (1, 2))


def test_a_server_reads_a_file_and_writes_one(tmp_path):
    (tmp_path / "in").write_bytes(requests(call(1, "say", text="from a file")))
    with open(tmp_path / "in", "rb") as stdin, open(tmp_path / "out", "wb") as stdout:
        command = [sys.executable, str(MIRROR), "--seed", "1"]
        subprocess.run(command, stdin=stdin, stdout=stdout, timeout=60, check=True)
    assert answers((tmp_path / "out").read_bytes())[0]["result"]["serverInfo"]["name"] == "mirror"


def test_a_server_talks_over_a_socket():
    ours, theirs = socket.socketpair()
    with ours, subprocess.Popen([sys.executable, str(MIRROR), "--seed", "1"], stdin=theirs, stdout=theirs) as server:
        theirs.close()
        ours.settimeout(60)
        with ours.makefile("rb") as lines:
            ours.sendall(requests(call(1, "say", text="over a socket")) + b"\n")
            [shaken, answer] = [json.loads(lines.readline()) for _ in range(2)]
            assert shaken["id"] == 0
            assert answer["result"]["content"][0]["text"] == "over a socket"
            ours.shutdown(socket.SHUT_WR)
        assert server.wait(60) == 0


def test_a_server_talks_over_a_terminal():
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    with subprocess.Popen([sys.executable, str(MIRROR), "--seed", "1"], stdin=theirs, stdout=theirs) as server:
        os.close(theirs)
        with os.fdopen(ours, "r+b", buffering=0) as terminal:
            terminal.write(requests() + b"\n")
            assert json.loads(terminal.readline())["id"] == 0
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == -signal.SIGINT


def test_pipes_are_left_blocking_for_whoever_uses_them_next():
    stdin, requests_end = os.pipe()
    os.write(requests_end, requests())
    os.close(requests_end)
    answers_end, stdout = os.pipe()
    command = [sys.executable, str(MIRROR), "--seed", "1"]
    try:
        subprocess.run(command, stdin=stdin, stdout=stdout, timeout=60, check=True)
        assert (os.get_blocking(stdin), os.get_blocking(stdout)) == (True, True)
    finally:
        for end in (stdin, stdout, answers_end):
            os.close(end)


def test_no_print_gets_between_the_messages_though_stderr_is_closed():
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, str(NOISY), "--seed", "1"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    calls = requests(call(1, "step", action=1))
    ended = subprocess.run(command, input=calls, stdout=subprocess.PIPE, env=buffered, timeout=60, check=True)
    assert set(answers(ended.stdout)) == {0, 1}


@pytest.mark.parametrize("used", [True, False], ids=["after a call", "before any message"])
async def test_the_server_exits_promptly_when_its_stdin_ends(used):
    async with on_pipes(FROZEN_LAKE, "--seed", "1") as server:
        if used:
            await server.shake_hands()
            await server.send(call(1, "lake_move", action="DOWN"))
            await server.receive()
            with trio.fail_after(PROMPTLY):
                assert await server.end() == (b"", 0)
        else:
            assert await server.end() == (b"", 0)


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_server_at_once(which):
    async with on_pipes(FROZEN_LAKE, "--seed", "1") as server:
        await server.shake_hands()
        server.process.send_signal(which)
        with trio.fail_after(PROMPTLY):
            assert await server.process.wait() == -which


async def test_frames_are_drawn_without_a_display():
    without = {"SDL_VIDEODRIVER": "x11", "SDL_AUDIODRIVER": "alsa", "DISPLAY": ""}
    async with played(SCREEN, "--seed", "1", "--frame-size", "192x64", env=without) as client:
        [block] = (await client.call_tool("step", {"action": 0})).content
        assert Image.open(io.BytesIO(base64.b64decode(block.data))).size == (192, 64)


@pytest.mark.parametrize(
    ("size", "complaint"),
    [
        ("300", "argument --frame-size: a frame size is like 300x200, not '300'"),
        ("300x-1", "argument --frame-size: a frame size is like 300x200, not '300x-1'"),
        ("300x0", "argument --frame-size: the sides of a frame are from 1 to 4096 pixels, not 300x0"),
        ("5000x2", "argument --frame-size: the sides of a frame are from 1 to 4096 pixels, not 5000x2"),
    ],
)
def test_a_bad_frame_size_is_refused_with_status_2(size, complaint):
    command = [sys.executable, str(SCREEN), "--frame-size", size]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].endswith(complaint)


@pytest.mark.parametrize(
    ("arguments", "env", "complaint"),
    [
        (["--seed", "-1"], {}, "argument --seed: a seed is a whole number from 0 on, not '-1'"),
        (["--seed", "x"], {}, "argument --seed: a seed is a whole number from 0 on, not 'x'"),
        (["--sed", "1"], {}, "unrecognized arguments: --sed 1"),
        ([], {"MUXSIM_SEED": "1.5"}, "environment variable MUXSIM_SEED: a seed is a whole number from 0 on, not '1.5'"),
    ],
)
async def test_a_bad_seed_or_option_is_refused_with_status_2(arguments, env, complaint):
    with trio.fail_after(60):
        ended = await trio.run_process(
            [sys.executable, str(DICE), *arguments],
            env={**os.environ, **env},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert ended.stderr.decode().splitlines()[-1].endswith(complaint)


async def test_an_environment_that_cannot_be_made_ends_the_process_with_its_reason():
    with trio.fail_after(60):
        ended = await trio.run_process(
            [sys.executable, str(SERVERS / "broken.py"), "--seed", "3"],
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert ended.stderr.decode().splitlines()[-1] == "RuntimeError: no world for seed 3"
