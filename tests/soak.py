"""Many sessions at once, each met by faults in an order drawn by lot, against a real `muxsim serve`.

    python tests/soak.py --minutes 5 --sessions 200 --seed 7

What has to hold: every request gets one final answer, within its time, from its own session; a session to which
nothing fatal was done answers with results; and in the end nothing is left of any of them. The seed is printed; with it
the same faults are drawn again (`--only SLOT` plays one slot alone), though not the same timing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import trio
from harness import SERVERS, serving
from serve.machine import (
    ZYGOTE_DESCRIPTORS,
    command_line,
    descendants,
    descriptors,
    eventually,
    memory,
    processes_with,
    zygotes,
)
from serve.wire import ask, shake_hands
from soaking.plan import draw_life, draw_weather
from soaking.player import PATIENCE, Player
from soaking.record import Record

SETTLING = PATIENCE
"""Seconds for the lives under way to end when time is up."""

MIB = 2**20


def config(warm):
    """Environments of `naughty` in its moods, with limits short enough to be met, and so many processes ready."""

    def table(name, *options, extra=""):
        args = ["-I", "-S", str(SERVERS / "naughty.py"), "--seed", "{seed}", "--sign", *options]
        return f'[environments.{name}]\ncommand = "python3"\nargs = {json.dumps(args)}\nwarm = {warm}\n{extra}\n'

    return "\n".join(
        [
            "[server]\nmax_sessions = 160\nmax_pending = 2000\nqueue_timeout = 40\nstream_silence = 0.5\n"
            'ping_interval = 0.5\nstall_timeout = 600\nmax_line = "8 MiB"\nstart_timeout = 120\nidle_timeout = 600\n'
            "max_failures = 1_000_000\nmax_failed_starts = 0\nopens_per_second = 0\nmax_starting = 16\n",
            table("naughty"),
            table("brisk", extra="call_timeout = 0.5\neof_timeout = 0.1\nterm_timeout = 0.1"),
            table("stubborn", "--stubborn", extra="eof_timeout = 0.1\nterm_timeout = 0.1"),
            table("idle", extra="idle_timeout = 20"),
            table("brief", extra="ttl = 1.5"),
            table("slow", "--slow", "0.5"),
            table("leaving", "--exit", "7"),
            table("mute", "--mute", extra="start_timeout = 1\neof_timeout = 0.1\nterm_timeout = 0.1"),
            '[environments.missing]\ncommand = "/no/such/program"\n',
        ]
    )


async def soak(folder, seed, sessions, seconds, only=None):
    """Run it; the record of what happened, with everything that is wrong in it."""
    record = Record()
    temporary = folder / "tmp"
    temporary.mkdir()
    async with serving(folder, config(warm=0), env={"TMPDIR": str(temporary)}) as muxsim:
        client = await shake_hands(muxsim.url, "/mcp?env=naughty&seed=99999999")
        assert await client.text("say", text="hello") == "hello"
        assert (await client.delete()).status == 204
        await eventually(lambda: not _processes_of_sessions(muxsim.process.pid), within=PATIENCE)
        before = _own_descriptors(muxsim.process.pid)
        _reload(muxsim, folder, config(warm=2))
        slots = range(sessions) if only is None else [only]
        await _live_all(muxsim, record, seed, slots, seconds)
        _reload(muxsim, folder, config(warm=0))
        await _check_nothing_left(muxsim, record, temporary, before)
        status = await trio.to_thread.run_sync(muxsim.stop)
        if status != 0:
            record.wrongs.append(f"muxsim ended with status {status}")
    _check_log(muxsim.log, record)
    return record


def _reload(muxsim, folder, text):
    (folder / "config" / "muxsim.toml").write_text(text)
    os.kill(muxsim.process.pid, signal.SIGHUP)


async def _live_all(muxsim, record, seed, slots, seconds):
    until = trio.current_time() + seconds

    async def fill(slot):
        number = 0
        while trio.current_time() < until:
            async with trio.open_nursery() as nursery:
                player = Player(draw_life(seed, slot, number), muxsim, record, nursery)
                await player.live()
                # What still listens ends with the session; one that idles away takes a while.
                nursery.cancel_scope.deadline = trio.current_time() + 5
            number += 1

    async def make_weather():
        begun = trio.current_time()
        for gust in draw_weather(seed, seconds):
            await trio.sleep_until(begun + gust.at)
            await WEATHER[gust.kind](muxsim.process.pid, record)

    async def watch_memory():
        while True:
            record.memory.append(memory(muxsim.process.pid) // MIB)
            await trio.sleep(5)

    with trio.move_on_after(seconds + SETTLING) as scope:
        async with trio.open_nursery() as watching:
            watching.start_soon(watch_memory)
            watching.start_soon(make_weather)
            async with trio.open_nursery() as nursery:
                for slot in slots:
                    nursery.start_soon(fill, slot)
            watching.cancel_scope.cancel()
    if scope.cancelled_caught:
        record.wrongs.append(f"lives went on {SETTLING} s after the time was up")


def _guardian(pid):
    return next(below for below in descendants(pid) if b"/guardian.py" in command_line(below))


def _processes_of_sessions(pid):
    lasting = {*zygotes(pid), _guardian(pid)}
    return [below for below in descendants(pid) if below not in lasting]


def _own_descriptors(pid):
    """How many it has open, but for those of its zygotes, which come and go; one that does just now counts."""
    return len(descriptors(pid)) - ZYGOTE_DESCRIPTORS * len(zygotes(pid))


async def _pause(pid, record):
    record.steps["muxsim stopped"] += 1
    os.kill(pid, signal.SIGSTOP)
    await trio.sleep(0.7)
    os.kill(pid, signal.SIGCONT)


async def _kill_guardian(pid, record):
    record.steps["guardian killed"] += 1
    record.trouble += 1  # odd while it lasts
    os.kill(_guardian(pid), signal.SIGKILL)
    await trio.sleep(1)
    record.trouble += 1


async def _kill_zygotes(pid, record):
    """No session depends on them, so nobody is excused."""
    record.steps["zygotes killed"] += 1
    for zygote in zygotes(pid):
        os.kill(zygote, signal.SIGKILL)


WEATHER = {"pause": _pause, "guardian": _kill_guardian, "zygotes": _kill_zygotes}


async def _check_nothing_left(muxsim, record, temporary, before):
    for session in (await ask(muxsim.url, "GET", "/sessions")).json()["sessions"]:
        await ask(muxsim.url, "DELETE", f"/sessions/{session['id']}")

    def left():
        pid = muxsim.process.pid
        processes = _processes_of_sessions(pid)
        marked = [one for one in processes_with(str(temporary)) if one != pid and one not in descendants(pid)]
        folders = [path.name for root in temporary.glob("muxsim-*") for path in root.iterdir()]
        more = _own_descriptors(pid) - before - ZYGOTE_DESCRIPTORS
        return [*processes, *marked, *folders, *([f"{more} descriptors"] if more > 0 else [])]

    try:
        await eventually(lambda: not left(), within=PATIENCE)
    except trio.TooSlowError:
        record.wrongs.append(f"left behind: {left()} {descriptors(muxsim.process.pid)}")
    client = await shake_hands(muxsim.url, "/mcp?env=naughty")
    if await client.text("say", text="still here") != "still here":
        record.wrongs.append("no session can be had afterwards")
    health = (await ask(muxsim.url, "GET", "/health")).json()
    if (health["sessions"], health["waiting"]) != (1, 0):
        record.wrongs.append(f"afterwards {health}")
    record.memory.append(memory(muxsim.process.pid) // MIB)


def _check_log(log, record):
    for line in log.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            record.wrongs.append(f"not JSON in the log: {line[:300]}")
            continue
        if entry["event"] == "process.guardian_died":  # which is one of the steps
            continue
        if entry["level"] in ("error", "critical") or "Traceback" in line:
            record.wrongs.append(f"in the log: {line[:2000]}")


def report(record, seed, seconds):
    """What a person wants to read."""
    yield f"seed {seed}: {sum(record.lives.values())} lives in {seconds:.0f} s: {dict(record.lives)}"
    yield f"answers: {sum(record.answers.values())}: {dict(record.answers.most_common())}"
    yield f"steps: {sum(record.steps.values())}: {dict(record.steps.most_common())}"
    yield f"MiB of muxsim: {record.memory}"
    yield f"wrong: {len(record.wrongs)}"
    yield from record.wrongs[:40]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", type=int, default=None, metavar="SLOT")
    options = parser.parse_args()
    seed = random.randrange(2**31) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        record = trio.run(soak, Path(folder), seed, options.sessions, options.minutes * 60, options.only)
    for line in report(record, seed, time.monotonic() - begun):
        print(line)
    sys.exit(1 if record.wrongs else 0)


if __name__ == "__main__":
    main()
