"""One muxsim for many tests, which each has to leave as it was."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from harness import SERVERS, Collector, Gate, Running, muxsim_serve

from .machine import descendants, descriptors, eventually, has_zygote, own_descriptors, zygotes
from .wire import ask, shake_hands

LIMIT = 600
"""Seconds for anything that a test waits for; what has to be faster says so itself."""

NAUGHTY = SERVERS / "naughty.py"


def write_tokens(folder, text):
    """The `tokens_file = "tokens"` of a config that `muxsim_serve` writes into this folder, for its owner alone."""
    tokens = folder / "config" / "tokens"
    tokens.parent.mkdir(exist_ok=True)
    tokens.write_text(text)
    tokens.chmod(0o600)


def environment(name, *options, extra=""):
    """A table of the config for `naughty` with these options. No process waits: whatever is left over is a fault."""
    args = ", ".join(f'"{option}"' for option in ("-I", "-S", str(NAUGHTY), *options))
    return f'[environments.{name}]\ncommand = "python3"\nargs = [{args}]\nwarm = 0\n{extra}\n'


CONFIG = "\n".join(
    [
        '[server]\nmax_body = "12 MiB"\nstream_silence = 600\nping_interval = 0.2\nlog_level = "debug"\n'
        'max_failures = 100000\nmax_line = "24 MiB"\nmax_failed_starts = 0\n'
        'allowed_origins = ["https://app.example"]\ndefault = "naughty"\n',
        environment("naughty", "--seed", "{seed}"),
        environment("brisk", extra="call_timeout = 0.4\neof_timeout = 0.1\nterm_timeout = 0.1"),
        environment("stubborn", "--stubborn", extra="eof_timeout = 0.1\nterm_timeout = 0.1"),
        environment("leaving", "--exit", "7"),
        environment("mute", "--mute", extra="start_timeout = 0.5\neof_timeout = 0.1\nterm_timeout = 0.1"),
        environment("slow", "--until", "GATE"),
        environment("idle", extra="idle_timeout = 1.5"),
        environment("common", extra="shared = true"),
        '[environments.missing]\ncommand = "/no/such/program"\n',
        '[environments.not_executable]\ncommand = "./muxsim.toml"\n',
        '[environments.nowhere]\ncommand = "python3"\nargs = ["-c", "1"]\ncwd = "no/such/folder"\n',
    ]
)


@dataclass
class Shared:
    """The muxsim of many tests, and what it has open when it has nothing to do."""

    running: Running
    temporary: Path
    guardian: int
    descriptors: int
    collector: Collector | None = None
    gate: Gate | None = None
    """Where handshakes of the environment `slow` wait, if there is one."""

    def __getattr__(self, name):
        return getattr(self.running, name)

    @property
    def pid(self):
        return self.running.process.pid

    def leftovers(self):
        """What it has beyond what it always has."""
        held = zygotes(self.pid)
        processes = [pid for pid in descendants(self.pid) if pid != self.guardian and pid not in held]
        folders = [path for root in self.temporary.glob("muxsim-*") for path in root.iterdir()]
        more = own_descriptors(self.pid) - self.descriptors
        return [*processes, *folders, *(["descriptors", descriptors(self.pid)] if more > 0 else [])]


@pytest.fixture(autouse=True)
async def _in_time():
    """No test waits forever, whatever muxsim does. A cancel scope would not reach the test, which is another task."""

    async def expire():
        await trio.sleep(LIMIT)
        pytest.fail(f"not finished after {LIMIT} s")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expire)
        yield
        nursery.cancel_scope.cancel()


@contextmanager
def serve_many(folder, config, **env):
    """A muxsim for many tests, which has played a session of `naughty` and has a zygote for more."""
    temporary = folder / "tmp"
    temporary.mkdir()
    with muxsim_serve(folder, config, env={"TMPDIR": str(temporary), **env}) as running:
        pid = running.process.pid
        guardian, *_ = descendants(pid)
        trio.run(_play_a_session, running.url)
        trio.run(eventually, lambda: has_zygote(pid), LIMIT)
        yield Shared(running, temporary, guardian, own_descriptors(pid))


@pytest.fixture(scope="package")
def shared_muxsim(tmp_path_factory):
    """A running muxsim with all the environments of `CONFIG`."""
    folder = tmp_path_factory.mktemp("serve")
    gate = Gate(folder / "gate")
    with serve_many(folder, CONFIG.replace("GATE", gate.path), MUXSIM_TEST_SECRET="very-secret") as shared:
        shared.gate = gate
        yield shared
    gate.close()


@pytest.fixture(scope="package")
def shared_talkative(tmp_path_factory):
    """A running muxsim that begins an event stream as soon as a call takes any time, which the other one never does."""
    config = (
        "[server]\nstream_silence = 0.05\nping_interval = 0.2\nmax_failed_starts = 0\n"
        f'allowed_origins = ["https://app.example"]\n{environment("naughty", "--seed", "{seed}")}'
    )
    with serve_many(tmp_path_factory.mktemp("talkative"), config) as shared:
        yield shared


async def _play_a_session(url):
    with trio.fail_after(LIMIT):
        client = await shake_hands(url)
        assert await client.text("say", text="hello") == "hello"
        assert (await client.delete()).status == 204


@asynccontextmanager
async def _leaving_nothing(shared):
    """Afterwards it still works and holds nothing more than it did."""
    yield shared
    with trio.fail_after(LIMIT):
        for session in (await ask(shared.url, "GET", "/sessions")).json()["sessions"]:
            await ask(shared.url, "DELETE", f"/sessions/{session['id']}")
        await _play_a_session(shared.url)
    try:
        await eventually(lambda: not shared.leftovers())
    except trio.TooSlowError:
        raise AssertionError(f"left behind: {shared.leftovers()}") from None


@pytest.fixture
async def muxsim(shared_muxsim):
    """The muxsim that a test shares with others."""
    async with _leaving_nothing(shared_muxsim) as shared:
        yield shared


@pytest.fixture
async def talkative(shared_talkative):
    """The muxsim that begins an event stream for any call that does not answer at once."""
    async with _leaving_nothing(shared_talkative) as shared:
        yield shared


@pytest.fixture
async def client(muxsim):
    """A client with a session of its own."""
    with trio.fail_after(LIMIT):
        return await shake_hands(muxsim.url)
