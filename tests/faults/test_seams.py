"""Every seam of what is optional, with a bug at it, and with every kind of message from beyond it.

H15: no other session notices, the log has the traceback of what is ours, and the environment opens afresh. A new seam
has to be added to these tables: the last tests compare them with the code.
"""

from __future__ import annotations

import ast
import os
import shutil
import socket
import sys
import time
from contextlib import asynccontextmanager

import pytest
import trio
from harness import ROOT, SERVERS
from observe.test_spans import Playing
from serve.machine import eventually
from start.playing import Played, counted, own_cache, script, slots_counted, some_pool  # noqa: F401 - a fixture

from muxsim.inside import wire
from muxsim.observe import spans
from muxsim.observe.events import BackendStderr, Events, OpenWaited, SessionEnded, SessionOpening
from muxsim.observe.log import LibraryLog
from muxsim.observe.spans import Spans
from muxsim.processes import client as guardians
from muxsim.runtime.boundary import open_boundary
from muxsim.serve.watch.record import Record
from muxsim.serve.watch.records import Records
from muxsim.session import relief
from muxsim.session.control.own_client import OwnClient
from muxsim.session.registry import open_sessions
from muxsim.session.sampler import Sampler, open_sampler
from muxsim.spec import EnvSpec, Limits
from muxsim.start.fork import client, keeper, learning
from muxsim.start.fork.client import Zygote
from muxsim.start.fork.keeper import Keeper
from muxsim.start.fork.learning import Learning
from muxsim.start.fork.zygotes import Zygotes
from muxsim.start.slots import node as waiting_node
from muxsim.start.slots import shelf as warm
from muxsim.start.slots.shelf import Warm
from transports import messages

pytestmark = [pytest.mark.children, pytest.mark.fault("H15")]

LIMIT = 120
LIMITS = Limits(eof_timeout=1.0, term_timeout=0.3, start_timeout=30.0)
SEED = 'import os\nSEED = int(os.environ["MUXSIM_SEED"])\n'
TELL = """
process.stdin.resume();
const params = { SEED: Number(process.env.MUXSIM_SEED), PID: process.pid };
console.log(JSON.stringify({ jsonrpc: '2.0', method: 'told', params }));
"""
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no node")


def python_env(folder, name="python", *, modules=(), site="", **fields):
    """An environment with a zygote; ``site`` is the text of a module that is imported before its first line."""
    (folder / "site").mkdir(parents=True, exist_ok=True)
    for module, text in ({"hostile": site} if site else {}).items():
        (folder / "site" / f"{module}.py").write_text(text)
    imports = "import hostile\n" if site else ""
    made = script(folder, imports + SEED)
    env = {"PYTHONPATH": str(folder / "site")}
    return EnvSpec(name=name, command=made.command, args=made.args, env=env, limits=LIMITS, **fields)


def node_env(folder, *, module="", name="node"):
    """An environment with a waiting node; ``module`` is the text of what it loads early."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hostile.cjs").write_text(module)
    (folder / "tell.cjs").write_text("require('./hostile.cjs');\n" + TELL)
    return EnvSpec(name=name, command="node", args=(str(folder / "tell.cjs"),), cwd=str(folder), limits=LIMITS, warm=1)


@asynccontextmanager
async def beside_another(folder, *specs):
    """A pool with a session that must notice nothing; it keeps what these want."""
    with trio.fail_after(LIMIT):
        async with some_pool(max_starting=8) as pool:
            plain = python_env(folder / "bystander", "bystander", zygote=False)
            async with Played(pool, plain, 99) as bystander:
                pool.keep_warm(specs)
                yield pool
                assert bystander.exit is None
                assert bystander.told["SEED"] == 99
                assert not bystander.listener.lines


async def plays(pool, spec, *seeds):
    """Sessions of it open, and are what they should be."""
    for seed in seeds:
        async with Played(pool, spec, seed) as played:
            assert played.exit is None
            assert played.told["SEED"] == seed


async def settles(pool, spec):
    """Wait until there is what makes it fast, or no more hope of that."""

    def settled():
        shelf = pool.statistics().placement.warm.get(spec.name)
        warm, zygotes = pool.placement.starter.warm, pool.placement.starter.zygotes
        keeper = zygotes._keepers.get(spec.name)
        slots_off = warm.part.is_off or spec.name not in warm._parts or warm._parts[spec.name].is_off
        ready = shelf is not None and (shelf.ready > 0 or slots_counted(pool, spec, "died") > 0)
        zygote_off = zygotes.part.is_off or (
            keeper is not None and (keeper.part.is_off or keeper._failures > 0 or keeper._unfit is not None)
        )
        return ready or slots_off or zygote_off or (shelf is not None and not shelf.wanted)

    await eventually(settled, within=LIMIT)


# ---- bugs of ours


def boom(self=None, *args, **named):
    raise ZeroDivisionError("a bug of ours")


async def boom_later(self=None, *args, **named):
    raise ZeroDivisionError("a bug of ours")


# How the rest of muxsim calls into what is optional; each with the environment that comes there.
CALLS = {
    "Warm.keep": (Warm, "python"),
    "Warm._opened": (Warm, "python"),
    "Warm.take": (Warm, "python"),
    "Warm.give_up": (Warm, None),
    "Warm._resume": (Warm, "python"),
    "Zygotes.fork": (Zygotes, "python"),
    "Zygotes.prepare": (Zygotes, "python"),
    "Zygotes.rehearse": (Zygotes, "python"),
    "Zygotes.next_try": (Zygotes, None),
    "Zygotes.hook_of": (Zygotes, "python"),
    "Record.begin": (Record, None),
    "Record.to_backend": (Record, None),
    "Record.from_backend": (Record, None),
    "Record.scored": (Record, None),
    "Record.stderr": (Record, None),
    "Keeper.spawn": (Keeper, "python"),
    "Keeper.prepare": (Keeper, "python"),
}
# What runs behind the boundary, and what is called there of plain functions.
TASKS = {
    "Keeper._make": (Keeper, "_make", "python"),
    "Keeper._follow": (Keeper, "_follow", "python"),
    "Learning._follow_learner": (Learning, "_follow_learner", "python"),
    "Zygote.retire": (Zygote, "retire", None),
    "Warm._run": (Warm, "_run", "python"),
    "Warm._hold": (Warm, "_hold", "python"),
    "_dispose": (warm, "_dispose", None),
    "relieve": (relief, "relieve", None),
    "Sampler.sample": (Sampler, "sample", None),
    "_study": (keeper, "_study", "python"),
    "Learning._learner_answered": (Learning, "_learner_answered", "python"),
}
# Deeper, where what other processes say is read.
INSIDE = {
    "Zygote._read": (Zygote, "_read", "python"),
    "Zygote._hear": (Zygote, "_hear", "python"),
    "Zygote._bury": (Zygote, "_bury", "python"),
    "Learning._take": (Learning, "_take", "python"),
    "Keeper._failed": (Keeper, "_failed", None),
    "_begins": (learning, "_begins", "python"),
    "read_names": (learning, "read_names", "python"),
    "_read_report": (waiting_node, "_read_report", "node"),
    "fingerprint": (warm, "fingerprint", "node"),
    "warm_start": (warm, "warm_start", "python"),
}


def inject(monkeypatch, owner, name):
    function = vars(owner)[name]
    failing = boom_later if is_async(function) else boom
    if hasattr(function, "__wrapped__"):  # the boundary stays around it
        monkeypatch.setattr(function.__wrapped__, "__code__", failing.__code__)
    else:
        monkeypatch.setattr(owner, name, failing)


def is_async(function):
    return bool(getattr(function, "__wrapped__", function).__code__.co_flags & 0x80)


@pytest.mark.parametrize("seam", [seam for seam, (*_, env) in (CALLS | TASKS | INSIDE).items() if env == "python"])
async def test_a_bug_at_a_seam_of_a_python_environment_costs_speed_and_nothing_else(
    seam, monkeypatch, tmp_path, caplog
):
    owner = (CALLS | TASKS | INSIDE)[seam][0]
    inject(monkeypatch, owner, seam.rpartition(".")[2])
    # Without a word on it nothing is rehearsed.
    spec = python_env(tmp_path / "env", warm=1 if seam == "Zygotes.rehearse" else None)
    async with beside_another(tmp_path, spec) as pool:
        await plays(pool, spec, 1)
        await settles(pool, spec)
        await plays(pool, spec, 2, 3)
        await settles(pool, spec)
        await plays(pool, spec, 4)
    assert "a bug of ours" in "".join(record.exc_text or "" for record in caplog.records)


@needs_node
@pytest.mark.parametrize("seam", ["_read_report", "fingerprint", "Warm.take", "Warm._hold", "Warm.keep"])
async def test_a_bug_at_a_seam_of_a_waiting_node_costs_speed_and_nothing_else(seam, monkeypatch, tmp_path, caplog):
    inject(monkeypatch, (CALLS | TASKS | INSIDE)[seam][0], seam.rpartition(".")[2])
    spec = node_env(tmp_path / "env")
    async with beside_another(tmp_path, spec) as pool:
        await settles(pool, spec)
        await plays(pool, spec, 1, 2)
    assert "a bug of ours" in "".join(record.exc_text or "" for record in caplog.records)


@pytest.mark.parametrize("seam", [seam for seam, (owner, _) in CALLS.items() if owner in (Warm, Zygotes)])
async def test_a_bug_in_any_call_into_what_is_optional_gives_what_is_had_without_it(seam, monkeypatch, caplog):
    owner, name = CALLS[seam][0], seam.rpartition(".")[2]
    inject(monkeypatch, owner, name)
    with trio.fail_after(LIMIT):
        async with some_pool() as pool:
            one = pool.placement.starter.warm if owner is Warm else pool.placement.starter.zygotes
            answer = getattr(one, name)()
            if is_async(vars(owner)[name]):
                answer = await answer
            assert answer in (None, False, 0, float("inf"))
            assert one.part.is_off
    assert "a bug of ours" in caplog.text


async def test_a_bug_in_a_listener_is_logged_once_and_no_session_notices(tmp_path, caplog):
    """What the log, the counters or a program's own listener do wrong is nobody else's."""
    told = []

    def fail(event):
        told.append(event)
        raise ZeroDivisionError("a bug of ours")

    spec = python_env(tmp_path / "env")
    async with beside_another(tmp_path, spec) as pool:
        pool.events.subscribe(fail)
        await plays(pool, spec, 1)
        await settles(pool, spec)
        await plays(pool, spec, 2)
        assert fail not in pool.events.listeners
    assert len(told) == 1
    assert caplog.text.count("ZeroDivisionError: a bug of ours") == 1


async def test_a_bug_in_the_relief_of_memory_is_logged_and_no_session_ends(monkeypatch, caplog):
    inject(monkeypatch, relief, "relieve")
    with trio.fail_after(LIMIT):
        async with relief.relieving(None, None, 1.0, Events(LibraryLog())):
            await eventually(lambda: "a bug of ours" in caplog.text, within=60)


# What makes spans of sessions and calls, by way of the stream of events and of each call.
SPANS = {
    "Spans._begin_opening": Spans,
    "Spans._close": Spans,
    "_of_call": spans,
    "_with_context": spans,
    "_fail": spans,
}


@pytest.mark.parametrize("seam", SPANS)
async def test_a_bug_in_what_traces_is_told_of_once_and_its_client_notices_nothing(seam, monkeypatch):
    inject(monkeypatch, SPANS[seam], seam.rpartition(".")[2])
    playing = Playing(tools_call=lambda request: messages.error(request.id, -32000, "no"))
    who = (playing.session.id, "fake", 7)
    for event in (
        SessionOpening(*who, None),
        OpenWaited(*who, 1.0),
        SessionEnded(*who, None, "ttl", "x", 0, None, 1.0),
    ):
        playing.stream.emit(event)
        playing.ask(event.name, "tools/call", name="move")
    assert [message.id for message, _ in playing.client.transport.sent] == [
        *("session.opening", "pool.waited", "session.ended")
    ]
    assert [event.part for event in playing.failures] == ["tracing"]
    assert playing.stream.tracer is None


def test_whatever_spans_are_called_for_is_behind_their_own_boundary():
    (owner,) = [
        one
        for one in ast.walk(ast.parse((ROOT / "muxsim/observe/spans.py").read_text()))
        if isinstance(one, ast.ClassDef) and one.name == "Spans"
    ]
    called = {one.name: one for one in owner.body if isinstance(one, ast.FunctionDef)}
    for name in ("__call__", "call_began", "call_ended"):
        first = next(one for one in called[name].body if not isinstance(one, ast.Expr))
        assert isinstance(first, ast.With)
        assert ast.unparse(first.items[0]) == "self._alone()"


@pytest.mark.parametrize("seam", [seam for seam in CALLS if seam.startswith("Record.")])
async def test_a_bug_in_what_overhears_a_session_is_logged_once_and_its_client_notices_nothing(
    seam, monkeypatch, tmp_path, caplog
):
    inject(monkeypatch, Record, seam.rpartition(".")[2])
    command, args = sys.executable, ("-I", "-S", str(SERVERS / "scored.py"))
    spec = EnvSpec(name="scored", command=command, args=args, limits=LIMITS, control=True)
    events = Events(LibraryLog())
    with trio.fail_after(LIMIT):
        async with (
            some_pool() as pool,
            open_sessions(pool, {"scored": spec}, events) as sessions,
            open_boundary(events.part_failed) as boundary,
        ):
            # Without a history a session is overheard from when somebody begins to look.
            records = Records(sessions, 0 if seam == "Record.begin" else 10, time.time)
            part = boundary.part("dashboard", records.let_all_go)
            records.use(part)
            events.subscribe(records)
            session = await sessions.open("scored")
            records.watch(session)
            events.emit(BackendStderr(session.id, "scored", 1, None, "a line"))
            client = OwnClient(session)
            await client.ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}})
            for _ in range(2):
                answer = await client.ask("tools/call", {"name": "step", "arguments": {}})
                assert b"stepped" in answer.encode()
            assert part.is_off
            assert records.of(session.id) is None
            assert session.seam.witness is None
    assert len([record for record in caplog.records if "a bug of ours" in (record.exc_text or "")]) == 1


async def test_a_bug_in_the_sampler_is_logged_and_who_looks_is_told_nothing(monkeypatch, caplog):
    inject(monkeypatch, Sampler, "sample")
    with trio.fail_after(LIMIT):
        async with open_sampler(None, None, Events(LibraryLog())) as sampler:
            await eventually(lambda: "a bug of ours" in caplog.text, within=60)
            sampler.look()
            assert sampler.of(1) is None


async def test_a_bug_as_a_zygote_is_retired_or_has_failed_is_its_own(monkeypatch, tmp_path, caplog):
    spec = python_env(tmp_path / "env")
    inject(monkeypatch, Zygote, "retire")
    inject(monkeypatch, Keeper, "_failed")
    async with beside_another(tmp_path, spec) as pool:
        zygotes = pool.placement.starter.zygotes
        await plays(pool, spec, 1)
        await eventually(lambda: any(one.ready.is_set() for one in zygotes.fleet.alive), within=60)
        (zygote,) = zygotes.fleet.alive
        zygotes._keepers[spec.name].part.start_soon(zygote.retire)
        await eventually(lambda: "a bug of ours" in caplog.text, within=60)
        await plays(pool, spec, 2)


async def test_a_bug_as_a_slot_is_disposed_of_leaves_the_pool_as_it_was(monkeypatch, tmp_path, caplog):
    spec = python_env(tmp_path / "env")
    async with beside_another(tmp_path, spec) as pool:
        await plays(pool, spec, 1)
        await settles(pool, spec)
        with monkeypatch.context() as patched:
            inject(patched, warm, "_dispose")
            pool.placement.starter.warm._outdated(spec.name)
            await eventually(lambda: "a bug of ours" in caplog.text, within=60)
        await plays(pool, spec, 2)


# ---- what others say

IN_ZYGOTE = "import sys, os\nif 'zygote' in sys.orig_argv:\n"
SAY = "    import socket\n    channel = socket.socket(fileno=os.dup(3))\n"
HUGE = 100_000
# What a module does while the zygote imports it, and whether the log has a traceback of it.
FROM_ZYGOTES = {
    "writes to descriptor 0": ("    try: os.write(0, b'junk')\n    except OSError: pass\n", False),
    "reads descriptor 0": ("    os.read(0, 100)\n", False),
    "prints reports": ('    print(\'{"kind": "ready", "modules": 1}\', flush=True)\n', False),
    "prints without end": ("    for _ in range(100000): print('x' * 100)\n", False),
    "replaces its streams": ("    sys.stdin = sys.stdout = sys.stderr = None\n", False),
    "registers what to do at exit": ("    import atexit\n    atexit.register(os.abort)\n", False),
    "starts a thread": (
        "    import threading, time\n    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n",
        False,
    ),
    "goes on in a copy": ("    os.fork()\n", False),
    "goes on in a copy only": ("    if os.fork(): os._exit(0)\n", False),
    "leaves a copy that writes for ever": (
        # It waits for the first word of its copy: what is left open is noticed too, and might be first.
        SAY + "    begun, told = os.pipe()\n    if not os.fork():\n"
        "        channel.send(b'junk'), os.write(told, b'.')\n"
        "        while True: channel.send(b'junk')\n"
        "    os.read(begun, 1)\n",
        True,
    ),
    "exits": ("    os._exit(0)\n", False),
    "is killed": ("    os.kill(os.getpid(), 9)\n", False),
    "raises": ("    raise KeyboardInterrupt\n", False),
    "closes its streams": ("    os.closerange(0, 3)\n", False),
    "closes its channel": ("    os.close(3)\n", False),
    "closes everything": ("    os.closerange(0, 100)\n", False),
    "has the channel closed from our side": (SAY + "    channel.shutdown(socket.SHUT_RDWR)\n", False),
    "says junk": (SAY + "    channel.send(b'junk')\n", True),
    "says something torn": (SAY + '    channel.send(b\'{"kind": "ready", "mod\')\n', True),
    "says bytes": (SAY + "    channel.send(b'\\xff\\x00')\n", True),
    "says a list": (SAY + "    channel.send(b'[]')\n", True),
    "says something deep": (SAY + "    channel.send(b'[' * 30000)\n", True),
    "says too much": (SAY + f"    channel.send(b'x' * {HUGE})\n", True),
    "says that it is ready": (SAY + '    channel.send(b\'{"kind": "ready", "modules": 1}\')\n', True),
    "guesses a tag": (SAY + '    channel.send(b\'{"kind": "ready", "modules": 1, "tag": "0"}\')\n', True),
    "says that it has forked": (SAY + '    channel.send(b\'{"kind": "forked", "ref": 1, "pid": 1}\')\n', True),
    "names a memfd that is not there": (SAY + '    channel.send(b\'{"kind": "memfd"}\')\n', True),
    "sends a file without end": (
        SAY + "    socket.send_fds(channel, [b'{\"kind\": \"memfd\"}'], [os.open('/dev/zero', 0)])\n",
        True,
    ),
    "sends a pipe that nobody writes to": (
        SAY + '    socket.send_fds(channel, [b\'{"kind": "memfd"}\'], [os.pipe()[0]])\n',
        True,
    ),
    "sends descriptors": (
        SAY + '    socket.send_fds(channel, [b\'{"kind": "ready"}\'], [1, 1, 1, 1, 1, 1, 1])\n',
        True,
    ),
    "is stopped when it forks": (
        "    os.register_at_fork(before=lambda: os.kill(os.getpid(), 19) if 'wsgiref.util' in sys.modules else None)\n"
        "    import wsgiref.util\n",
        False,
    ),
    "breaks reading": ("    def read(*_): raise RuntimeError('no')\n    os.read = read\n", False),
    "reads nothing": ("    os.read = lambda *_: b''\n", False),
    "breaks the generators": ("    import random\n    random.seed = None\n", False),
    "puts something else in the place of a library": (
        "    import types\n    sys.modules['numpy.random'] = types.ModuleType('numpy.random')\n",
        False,
    ),
    "breaks what reads orders": ("    import json\n    json.loads = lambda *_: {'kind': 'fork', 'ref': 1}\n", False),
    "lets no fork go anywhere": ("    os.chdir = None\n", False),
    "lets no fork ask": ("    import builtins\n    builtins.map = None\n", False),
    "exits in its forks": ("    os.register_at_fork(after_in_child=lambda: os._exit(0))\n", False),
}


@pytest.mark.parametrize("doing", FROM_ZYGOTES)
async def test_nothing_that_a_module_does_while_a_zygote_imports_it_is_noticed_by_a_session(
    doing, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(client, "FORK_SILENCE", 1.0)
    text, has_traceback = FROM_ZYGOTES[doing]
    spec = python_env(tmp_path / "env", site=IN_ZYGOTE + text)
    async with beside_another(tmp_path, spec) as pool:
        await plays(pool, spec, 1)
        if doing != "is stopped when it forks":  # which has all the time of a start
            await settles(pool, spec)
        await plays(pool, spec, 2, 3)
        if has_traceback:
            await eventually(lambda: any(record.exc_text for record in caplog.records), within=60)
            assert pool.placement.starter.zygotes._keepers[spec.name].part.is_off
            assert not pool.placement.starter.zygotes.part.is_off
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert bool(tracebacks) == has_traceback, [record.exc_text for record in tracebacks]


IN_LEARNER = "import sys, os\nif 'learner' in sys.orig_argv:\n"
# What is done in a learner, before the script begins, and by the script itself to what the learner notes.
FROM_LEARNERS = {
    "prints": "    print('muxsim: learning')\n    print('{\"ready\": true}')\n",
    "prints half a line": "    print('muxsim: lear', end='', flush=True)\n",
    "prints without end": "    while True: os.write(1, b'muxsim: learning 0\\n')\n",
    "says nothing": "    import time\n    time.sleep(1000)\n",
    "exits": "    os._exit(0)\n",
    "closes its stdout": "    os.close(1)\n",
    "takes the tag": "    os.read(0, 100)\n",
}
FILES = {
    "a pipe that nobody writes to": "os.mkfifo(file)",
    "a folder": "os.mkdir(file)",
    "a link to what has no end": "os.symlink('/dev/zero', file)",
    "no text": "open(file, 'wb').write(bytes(range(256)) * 1000)",
    "names that nothing can have": "open(file, 'w').write('..\\n\\0\\n.x\\na..b\\n\\u0394' * 100 + '\\n')",
    "nothing": "None",
}


@pytest.mark.parametrize("doing", FROM_LEARNERS)
async def test_nothing_that_is_done_in_a_learner_before_its_script_is_noticed_by_a_session(
    doing, tmp_path, monkeypatch
):
    monkeypatch.setattr(learning, "LEARNER_LIMIT", 2.0)
    spec = python_env(tmp_path / "env")
    (tmp_path / "env" / "site" / "sitecustomize.py").write_text(IN_LEARNER + FROM_LEARNERS[doing])
    async with beside_another(tmp_path, spec) as pool:
        await plays(pool, spec, 1, 2)
        await settles(pool, spec)
        await plays(pool, spec, 3)


@pytest.mark.parametrize("content", FILES)
async def test_nothing_that_is_put_in_the_place_of_what_was_learned_is_noticed_by_a_session(content, tmp_path):
    spec = python_env(
        tmp_path / "env",
        site="import sys, os\n"
        "for word in open('/proc/self/cmdline').read().split(chr(0)):\n"
        "    if 'learned-' in word:\n"
        "        file = word\n"
        "        os.unlink(file)\n"
        f"        {FILES[content]}\n"
        "        sys.meta_path[:] = [one for one in sys.meta_path if type(one).__name__ != 'Recorder']\n",
    )
    async with beside_another(tmp_path, spec) as pool:
        await plays(pool, spec, 1)
        await plays(pool, spec, 2, 3)


WHILE_IT_WAITS = "const fs = require('node:fs');\nif (fs.readFileSync('/proc/self/cmdline').includes('warm_node')) {\n"
FROM_NODES = {
    "a report of before": """console.log('{"level":"info","ready":true}');""",
    "a report without a tag": """console.log('{"ready":true,"files":[],"skip":"x","refused":"y"}');""",
    "a guess": """console.log('{"tag":"0","files":[]}');""",
    "wrong types": """console.log('{"tag":1,"files":{}}'); console.log('[]'); console.log('null'); console.log('1');""",
    "something torn": """fs.writeSync(1, '{"tag": "');""",
    "something deep": """console.log('['.repeat(100000));""",
    "bytes": """fs.writeSync(1, Buffer.from([0xff, 0x00, 0x0a]));""",
    "a line without end": """for (;;) fs.writeSync(1, 'x'.repeat(4096));""",
    "lines without end": """for (;;) fs.writeSync(1, '{"ready":true}\\n');""",
    "nothing, ever": """for (;;);""",
    "its end": """process.exit(0);""",
    "a signal": """process.kill(process.pid, 'SIGKILL');""",
    "no more": """fs.closeSync(1);""",
    "an alarm for later": """setTimeout(() => {}, 1e6);""",
}


@needs_node
@pytest.mark.parametrize("said", FROM_NODES)
async def test_nothing_that_a_module_says_while_a_node_waits_is_noticed_by_a_session(said, tmp_path):
    spec = node_env(tmp_path / "env", module=WHILE_IT_WAITS + FROM_NODES[said] + "\n}\n")
    async with beside_another(tmp_path, spec) as pool:
        if said not in ("nothing, ever", "a line without end", "lines without end"):
            await settles(pool, spec)
        await plays(pool, spec, 1, 2)
        assert not pool.placement.starter.warm.part.is_off


# ---- what the guardian replies

REPLIES = {
    "no kind of it": {"kind": "nonsense"},
    "no process": {"kind": "spawned", "ref": 10**6, "pid": 1},
    "no number": {"kind": "exited", "pid": [1], "status": None},
    "nothing in it": {"kind": "failed"},
    "what is not there": {"kind": "swept", "pid": -1},
    "what cannot be read": wire.Unreadable("torn"),
}


@pytest.mark.parametrize("reply", REPLIES)
async def test_a_reply_of_the_guardian_that_makes_no_sense_is_logged_and_passed_over(
    reply, tmp_path, caplog, monkeypatch
):
    real, waiting = wire.receive, []

    def receive(channel):
        if waiting and channel is guardian._channel:
            said = waiting.pop()
            if isinstance(said, Exception):
                raise said
            return wire.Received(said, [os.open("/dev/null", os.O_RDONLY)], complete=True)
        return real(channel)

    spec = python_env(tmp_path / "env", zygote=False)
    async with beside_another(tmp_path, spec) as pool:
        guardian = pool.placement.launcher._guardians[-1]
        monkeypatch.setattr(wire, "receive", receive)
        waiting += [REPLIES[reply]] * 20
        await plays(pool, spec, 1, 2)
        assert waiting == []
        assert counted(pool).total("guardians_started") == 1
    silent = {"no number": False, "what is not there": False}  # of a process that we do not know
    shown = [record for record in caplog.records if record.exc_info]
    if silent.get(reply, True):
        assert 0 < len(shown) <= guardians.MOST_COMPLAINTS


async def test_a_reply_of_the_guardian_that_is_lost_fails_that_start_alone(tmp_path, monkeypatch):
    real = guardians.Client._on_spawned
    lost = []

    def lose_one(self, message, fds):
        if not lost:
            lost.append(message["pid"])
            raise ZeroDivisionError("a bug of ours")
        real(self, message, fds)

    spec = python_env(tmp_path / "env", zygote=False)
    short = EnvSpec(name="short", command=spec.command, args=spec.args, env=spec.env, limits=Limits(start_timeout=1.0))
    async with beside_another(tmp_path, spec) as pool:
        guardian = pool.placement.launcher._guardians[-1]
        guardian._answers["spawned"] = lambda message, fds: lose_one(guardian, message, fds)
        with pytest.raises(Exception, match="start_timeout"):
            async with Played(pool, short, 1):
                pytest.fail("its start was never told of")
        await plays(pool, spec, 2)


@pytest.mark.parametrize(
    "packet",
    [b"junk", b"[]", b"{}", b'{"kind": 1}', b'{"kind"', b"\xff", b"[" * 30_000, b"x" * 70_000, b'{"kind": "memfd"}'],
)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_is_no_message_is_told_from_one_and_its_descriptors_are_closed(packet, count):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        pipe = os.pipe()
        before = set(os.listdir("/proc/self/fd"))
        socket.send_fds(theirs, [packet], [pipe[0]] * count)
        with pytest.raises(wire.Unreadable):
            wire.receive(ours)
        assert set(os.listdir("/proc/self/fd")) == before
        wire.send(theirs, wire.pack({"kind": "next"}))
        assert wire.receive(ours).message == {"kind": "next"}
        for fd in pipe:
            os.close(fd)


# ---- the tables are whole

# Where bytes of another process are read, and which of the above is about that.
READERS = {
    "start/fork/client._read": FROM_ZYGOTES,
    "start/fork/client._hear_the_rest": FROM_ZYGOTES,
    "start/fork/client._read_on": FROM_ZYGOTES,
    "start/fork/learning._begins": FROM_LEARNERS,
    "start/fork/learned.read_names": FILES,
    "start/fork/learning._why": "only shown, within bounds: tests/start/test_every_python.py",
    "start/fork/reading.first_bytes": "of scripts, whatever they are: tests/start/test_shebang.py",
    "start/slots/node._read_report": FROM_NODES,
    "start/slots/node.last_words": FROM_NODES,
    "processes/client._read_one": REPLIES,
    "provision/installer._collect": "an installer's words, kept within a bound: tests/provision/test_packages.py",
    "placement/child._drain_stderr": "essential: fuzzed in tests/fuzz",
    "inside/proc.stat_fields": "the kernel's",
    "admission/memory._machine": "the kernel's",
    **dict.fromkeys(
        (
            "inside/guardian._answer",
            "inside/guardian._finish_start",
            "inside/guardian.drain",
            "inside/zygote._serve",
            "inside/zygote.main",
        ),
        "of our own process, in another one",
    ),
    **dict.fromkeys(("inside/fork.read_exactly", "inside/learner.main"), "of our own process, in another one"),
}


def sources():
    return {
        str(path.relative_to(ROOT / "muxsim").with_suffix("")): ast.parse(path.read_text())
        for folder in ("inside", "processes", "provision", "start", "placement", "admission")
        for path in (ROOT / "muxsim" / folder).rglob("*.py")
    }


def test_whoever_reads_what_another_process_says_is_in_a_table():
    reading = set()
    for module, tree in sources().items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                called = {
                    ast.unparse(node) for node in ast.walk(function) if isinstance(node, ast.Attribute | ast.Name)
                }
                if called & {"os.read", "wire.receive", "receive"}:
                    reading.add(f"{module}.{function.name}")
    assert reading == READERS.keys()


def test_whatever_is_behind_the_boundary_is_in_a_table():
    optional, tasks = set(), set()
    for folder in ("processes", "provision", "start", "placement", "admission", "session", "serve"):
        for path in (ROOT / "muxsim" / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            for owner in ast.walk(tree):
                if isinstance(owner, ast.ClassDef):
                    optional |= {
                        f"{owner.name}.{one.name}"
                        for one in owner.body
                        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
                        and any(ast.unparse(decorator).startswith("optional(") for decorator in one.decorator_list)
                    }
            tasks |= set(started_on_parts(tree))
    assert optional == CALLS.keys()
    named = {task.rpartition(".")[2] for task in TASKS}
    assert {task.rpartition(".")[2] for task in tasks} <= named
    assert named - {task.rpartition(".")[2] for task in tasks} == {"_study", "_learner_answered"}  # by `Part.attempt`


def started_on_parts(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "start_soon":
            owner = ast.unparse(node.func.value)
            if "part" in owner:
                yield ast.unparse(node.args[0])
