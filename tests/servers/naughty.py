"""A small stdio MCP server that does what no server should; each tool is named after its misbehaviour.

Standard library only and nothing imported that is not needed: run it with -I -S, it starts in 20 ms. It reads on
while a call waits, so that several may be in flight. Options set what it does before any call:

    --exit N        say something on stderr and exit with that status, at once
    --slow S        answer nothing for S seconds
    --until GATE    answer initialize when that is open
    --mute          never answer initialize
    --modern        answer server/discover
    --stubborn      ignore SIGTERM, and the end of stdin
    --seed N        shown by the tool `who`
    --sign          put the seed into the _meta of answers and notifications, so that strays are told apart

A gate is a FIFO by its path, and open from when there is something in it (`harness.Gate`).
"""

import itertools
import json
import os
import select
import signal
import sys
import time

heard = []  # every line that came in, as it came
later = []  # (time, function) of what is to be done
gates = {}  # what is to be done when something can be read from a descriptor
asked = {}  # what to do with the answer to a request of ours
own_ids = itertools.count(1)  # of those
signature = {"_meta": {"signed": sys.argv[sys.argv.index("--seed") + 1]}} if "--sign" in sys.argv else {}


# ---- lines


def write(data):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def send(message):
    write(json.dumps(message, ensure_ascii=False).encode() + b"\n")


def answer(id, result):
    send({"jsonrpc": "2.0", "id": id, "result": result})


def text(id, value):
    shown = value if isinstance(value, str) else json.dumps(value)
    answer(id, {"content": [{"type": "text", "text": shown}], **signature})


def fail(id, code, message, data=None):
    send({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message, "data": data}})


def notify(method, params):
    send({"jsonrpc": "2.0", "method": method, "params": {**params, **signature}})


def complain(line):
    os.write(2, line.encode() + b"\n")


def raw_params(line):
    """The bytes of a request's params as they stand in its line."""
    decoded = line.decode()
    start = decoded.index('"params":') + len('"params":')
    while decoded[start].isspace():
        start += 1
    _, end = json.JSONDecoder().raw_decode(decoded, start)
    return decoded[start:end].encode()


# ---- well-behaved tools


def who(id, arguments, line):
    text(
        id,
        {"pid": os.getpid(), "ppid": os.getppid(), "cwd": os.getcwd(), "argv": sys.argv[1:], "env": dict(os.environ)},
    )


def say(id, arguments, line):
    text(id, arguments.get("text", ""))


def echo(id, arguments, line):
    write(b'{"jsonrpc":"2.0","id":%d,"result":{"content":[],"params":%b}}\n' % (id, raw_params(line)))


def measure(id, arguments, line):
    import hashlib  # noqa: PLC0415 - dear, and hardly ever needed

    raw = raw_params(line)
    text(id, {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()})


def heard_lines(id, arguments, line):
    text(id, [one.decode() for one in heard])


def slow(id, arguments, line):
    """Answer when the gate `until` is open; for who has no time to open one, after so many `seconds`."""
    wait_for(arguments, lambda: text(id, "at last"))


def wait_for(arguments, function):
    if "until" in arguments:
        gates[os.open(arguments["until"], os.O_RDONLY | os.O_NONBLOCK)] = function
    else:
        later.append((time.monotonic() + arguments["seconds"], function))


def fds(id, arguments, line):
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink("/proc/self/fd/" + fd)
        except OSError:  # the one that lists them
            continue
    text(id, found)


def scribble(id, arguments, line):
    with open(os.path.join(os.environ["MUXSIM_WORKSPACE"], "scribble"), "w") as file:
        file.write("mine")
    text(id, os.environ["MUXSIM_WORKSPACE"])


def progress(id, arguments, line):
    token = json.loads(line)["params"].get("_meta", {}).get("progressToken")
    for step in range(arguments.get("steps", 3)):
        notify("notifications/progress", {"progressToken": token, "progress": step})
    text(id, "done")


def progress_flood(id, arguments, line):
    token = json.loads(line)["params"]["_meta"]["progressToken"]
    padding = "x" * arguments["size"]
    for step in range(arguments["count"]):
        notify("notifications/progress", {"progressToken": token, "progress": step, "message": padding})
    text(id, "flooded")


def log(id, arguments, line):
    notify("notifications/message", {"level": "info", "data": arguments.get("data", "hello")})
    text(id, "logged")


def log_then_wait(id, arguments, line):
    notify("notifications/message", {"level": "info", "data": "first"})
    slow(id, arguments, line)


def sample(id, arguments, line):
    """Ask the client for a completion; the answer is what it answered."""
    ask("sampling/createMessage", {"messages": [], "maxTokens": 1}, lambda message: text(id, message))


def ask(method, params, then):
    own_id = next(own_ids)
    asked[own_id] = then
    send({"jsonrpc": "2.0", "id": own_id, "method": method, "params": params})


def ask_later(id, arguments, line):
    """Ask the client something when no call of its is under way; the answer shows in `heard`."""
    wait_for(arguments, lambda: ask("roots/list", {}, lambda _: None))
    text(id, "later")


def list_changed(id, arguments, line):
    notify("notifications/tools/list_changed", {})
    text(id, "changed")


def own_error(id, arguments, line):
    fail(id, arguments["code"], "my own error", {"mine": [1.0, None]})


# ---- ways to die


def exit_now(id, arguments, line):
    for one in arguments.get("say", ["I am leaving"]):
        complain(one)
    os._exit(arguments.get("code", 3))


def kill_itself(id, arguments, line):
    complain("killing myself")
    os.kill(os.getpid(), signal.SIGKILL)


def stop_itself(id, arguments, line):
    os.kill(os.getpid(), signal.SIGSTOP)


def close_stdout(id, arguments, line):
    complain("closing stdout")
    nowhere = os.open(os.devnull, os.O_WRONLY)  # for what was to be answered later
    os.dup2(nowhere, 1)
    os.close(nowhere)


def close_stdin(id, arguments, line):
    complain("closing stdin")
    os.close(0)
    while True:
        signal.pause()


def half_a_line(id, arguments, line):
    write(b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"te' % id)
    os._exit(4)


def spawn(id, arguments, line):
    """Start a grandchild that ignores what can be ignored; kinds: group, setsid, double. Answers its pid."""
    text(id, {"pid": fork_grandchild(arguments["kind"], keep_stdout=False)})


def leave_stdout_behind(id, arguments, line):
    """Exit while a grandchild holds our stdout."""
    complain(f"grandchild {fork_grandchild('setsid', keep_stdout=True)}")
    os._exit(5)


def fork_grandchild(kind, keep_stdout):
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        stubborn()
        if kind != "group":
            os.setsid()
        if kind == "double" and os.fork():
            os._exit(0)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 2) if keep_stdout else (0, 1, 2):
            os.dup2(null, fd)
        os.write(tell, b"%d" % os.getpid())
        os.close(tell)
        while True:
            signal.pause()
    os.close(tell)
    if kind == "double":
        os.waitpid(pid, 0)
    number = int(os.read(told, 20))
    os.close(told)
    return number


# ---- ways to disturb


def hang(id, arguments, line):
    """No answer, ever; everything else goes on."""


def block(id, arguments, line):
    """Read nothing until a gate is open, or for so many seconds."""
    if "until" in arguments:
        gate = os.open(arguments["until"], os.O_RDONLY | os.O_NONBLOCK)
        select.select([gate], [], [])
        os.close(gate)
    else:
        time.sleep(arguments["seconds"])
    text(id, "awake")


def not_json(id, arguments, line):
    write(b"Listening on stdio\n\n   \n{ not json\nINFO: \xe2\x98\x83\n")
    text(id, "after noise")


def not_messages(id, arguments, line):
    write(b'[1]\nnull\n3\n"text"\n[]\n[{"jsonrpc":"2.0","method":"x"}]\n{}\n')
    text(id, "after no messages")


def old_reply(id, arguments, line):
    write(b'{"jsonrpc":"1.0","id":%d,"result":{}}\n' % id)


def bad_utf8(id, arguments, line):
    write(b"\xff\xfe\xfd\n")
    text(id, "after bad bytes")


def bad_utf8_reply(id, arguments, line):
    write(b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"\xff\xfe"}]}}\n' % id)


def pieces(id, arguments, line):
    """The answer in pieces of seven bytes, which cut characters in two."""
    message = {"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "snow☃man🏔 " * 40}]}}
    data = json.dumps(message, ensure_ascii=False).encode() + b"\n"
    for start in range(0, len(data), 7):
        write(data[start : start + 7])
        time.sleep(0.0002)


def twice(id, arguments, line):
    text(id, "first")
    text(id, "second")


def unknown_ids(id, arguments, line):
    """Answers to nobody's question: another number, no id, another text and a fraction; then to ours, as a text."""
    for wrong in (id + 1000, None, str(id + 1000), f"{id}x", id + 0.5):
        text(wrong, "wrong")
    text(str(id), "right")


def stderr_flood(id, arguments, line):
    block = b"".join(b"%07d this goes to stderr, and there is much of it\n" % number for number in range(2000))
    for _ in range(arguments["mib"] * 2**20 // len(block) + 1):
        written = 0
        while written < len(block):
            written += os.write(2, block[written:])
    complain("the last line")
    text(id, "flooded")


def close_stderr(id, arguments, line):
    os.close(2)
    text(id, "closed")


def notification_flood(id, arguments, line):
    padding = "x" * arguments.get("size", 1000)
    for number in range(arguments["count"]):
        notify("notifications/message", {"level": "info", "data": {"number": number, "padding": padding}})
    text(id, "flooded")


def big(id, arguments, line):
    """Numbered lines, which show a lost or doubled piece, of that many MiB."""
    text(id, "".join(f"{number:07d}\n" for number in range(arguments["mib"] * 2**17)))


def endless_line(id, arguments, line):
    block = b"x" * 2**20
    for _ in range(arguments["mib"]):
        write(block)


# ---- ways to want too much


def burn_cpu(id, arguments, line):
    """Compute for ever; with `ignore` through SIGXCPU too."""
    if arguments.get("ignore"):
        signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    while True:
        pass


def grow_file(id, arguments, line):
    """Write a file of that many MiB; with `die` as a program that does not, like Python, ignore SIGXFSZ."""
    if arguments.get("die"):
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    attempt(id, lambda: write_file(arguments["mib"]))


def write_file(mib):
    with open(os.path.join(os.environ["MUXSIM_WORKSPACE"], "large"), "wb", buffering=0) as file:
        for _ in range(mib):
            file.write(b"x" * 2**20)


def take_memory(id, arguments, line):
    attempt(id, lambda: kept.append(b"x" * (arguments["mib"] * 2**20)))


def open_files(id, arguments, line):
    attempt(id, lambda: kept.extend(open(os.devnull) for _ in range(arguments["count"])))  # noqa: SIM115


def start_processes(id, arguments, line):
    """Fork that many who stay; `user` is who does it."""
    if "user" in arguments:
        os.setuid(arguments["user"])
    attempt(id, lambda: [fork_grandchild("group", keep_stdout=False) for _ in range(arguments["count"])])


def read_file(id, arguments, line):
    def read():
        with open(arguments["path"]) as file:
            return file.read()

    attempt(id, read)


def keep_text(id, arguments, line):
    def keep():
        with open(arguments["path"], "w") as file:
            file.write(arguments["text"])

    attempt(id, keep)


def remove(id, arguments, line):
    attempt(id, lambda: os.remove(arguments["path"]))


def run_program(id, arguments, line):
    import subprocess  # noqa: PLC0415 - dear, and hardly ever needed

    attempt(id, lambda: subprocess.run(arguments["argv"], check=False, capture_output=True, text=True).stdout)


def touch(id, arguments, line):
    attempt(id, lambda: open(arguments["path"], "w").close())


def connect(id, arguments, line):
    import socket  # noqa: PLC0415 - dear, and hardly ever needed

    attempt(id, lambda: socket.create_connection(tuple(arguments["address"]), 2).close())


def listing(id, arguments, line):
    attempt(id, lambda: os.listdir(arguments["path"]))


kept = []  # what was taken


def attempt(id, action):
    """Answer what came of it, or the name of the error."""
    try:
        result = action()
    except (OSError, MemoryError) as error:
        text(id, {"error": type(error).__name__, "errno": getattr(error, "errno", None)})
    else:
        text(id, {"result": result if isinstance(result, str | list) else None})


def stubborn(*_):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


# fmt: off
TOOLS = {function.__name__: function for function in (
    who, say, echo, measure, slow, fds, scribble, progress, log, log_then_wait, sample, ask_later, list_changed,
    own_error, kill_itself, stop_itself, close_stdout, close_stdin, half_a_line, spawn, leave_stdout_behind,
    hang, block, not_json, not_messages, old_reply, bad_utf8, bad_utf8_reply, pieces, twice, unknown_ids,
    stderr_flood, close_stderr, notification_flood, progress_flood, big, endless_line,
    burn_cpu, grow_file, take_memory, open_files, start_processes, read_file, touch, connect, listing,
    keep_text, remove, run_program,
)} | {"exit": exit_now, "heard": heard_lines}
# fmt: on


# ---- the server


def listed(id):
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
    answer(id, {"tools": tools, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"})


def greet(id, params):
    answer(
        id,
        {
            "protocolVersion": params.get("protocolVersion"),
            "capabilities": {"tools": {"listChanged": True}, "logging": {}},
            "serverInfo": {"name": "naughty", "version": "0"},
        },
    )


def receive(line):
    heard.append(line if len(line) < 10_000 else line[:10_000])
    message = json.loads(line)
    id, method, params = message.get("id"), message.get("method"), message.get("params") or {}
    if method is None:
        then = asked.pop(id, None)
        if then is not None:
            then(message)
    elif id is None:
        pass
    elif method == "initialize":
        if "--until" in sys.argv:
            wait_for({"until": option("--until")}, lambda: greet(id, params))
        elif "--mute" not in sys.argv:
            greet(id, params)
    elif method == "server/discover" and "--modern" in sys.argv:
        spoken = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        answer(id, {**spoken, "resultType": "complete", "ttlMs": 0, "cacheScope": "private"})
    elif method == "ping":
        answer(id, {})
    elif method == "tools/list":
        listed(id)
    elif method == "tools/call" and params.get("name") in TOOLS:
        TOOLS[params["name"]](id, params.get("arguments") or {}, line)
    else:
        fail(id, -32601, f"naughty knows no {method}", {"method": method})


def option(name):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None


def start():
    complain("naughty starts")
    if (code := option("--exit")) is not None:
        complain("it cannot start today")
        os._exit(int(code))
    if "--stubborn" in sys.argv:
        stubborn()
    time.sleep(float(option("--slow") or 0))


def due():
    """Do what is due; the seconds until the next, None if there is nothing."""
    now = time.monotonic()
    for at, function in sorted(later, key=lambda item: item[0]):
        if at <= now:
            later.remove((at, function))
            function()
    return max(0.0, min(at for at, _ in later) - time.monotonic()) if later else None


def serve():
    pieces_of_line = []
    while True:
        ready, _, _ = select.select([0, *gates], [], [], due())
        for gate in [fd for fd in ready if fd in gates]:
            os.close(gate)
            gates.pop(gate)()
        if 0 not in ready:
            continue
        data = os.read(0, 2**20)
        if not data:
            break
        *complete, rest = data.split(b"\n")
        for line in complete:
            receive(b"".join([*pieces_of_line, line]))
            pieces_of_line.clear()
        pieces_of_line.append(rest)
    while "--stubborn" in sys.argv:
        signal.pause()


start()
serve()
