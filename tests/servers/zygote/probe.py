"""Tells on stdout what a script can see of itself, and then does what its first argument says."""

import atexit
import gc
import inspect
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import uuid

import neighbour

NAMES = list(globals())


def double(number):
    return 2 * number


def stream(one):
    return [one.name, one.mode, one.encoding, one.errors, one.line_buffering, one.write_through, one.fileno()]


def signals():
    with open("/proc/self/status") as file:
        return [line for line in file.read().splitlines() if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]


def descriptors():
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1]


def seen():
    """All that has to be the same in a fresh process and in a fork, for the same session."""
    umask = os.umask(0)
    os.umask(umask)
    return {
        "argv": sys.argv,
        "orig_argv": getattr(sys, "orig_argv", None),
        "path": sys.path,
        "names": [name for name in NAMES if name.startswith("__")],
        "main": [
            __name__,
            __file__,
            __package__,
            __spec__ and [__spec__.name, __spec__.origin],
            __cached__,
            __doc__,
            type(__loader__).__name__,
        ],
        "annotations": globals().get("__annotations__"),
        "is_main": sys.modules["__main__"].__dict__ is globals(),
        "builtins": type(__builtins__).__name__,
        "flags": list(sys.flags),
        "environ": {name: value for name, value in os.environ.items() if name != "MUXSIM_PROCESS"},
        "cwd": os.getcwd(),
        "streams": [stream(one) for one in (sys.stdin, sys.stdout, sys.stderr)],
        "signals": signals(),
        "handlers": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
        "descriptors": descriptors(),
        "leads": [os.getpid() == os.getsid(0), os.getpid() == os.getpgid(0)],
        "hash": hash("a text"),
        "collects": gc.isenabled(),
        "threads": [thread.name for thread in threading.enumerate()],
        "main_thread": threading.current_thread() is threading.main_thread(),
        "umask": umask,
        "nice": os.nice(0),
        "executable": [sys.executable, sys.prefix],
        "neighbour": neighbour.IMPORTED,
        "temporary": tempfile.gettempdir(),
        "warnings": sys.warnoptions,
        "excepthook": sys.excepthook is sys.__excepthook__,
    }


def drawn():
    """All that has to differ from process to process."""
    generator = random.SystemRandom()
    key = bytes(multiprocessing.current_process().authkey).hex()
    return [random.random(), generator.random(), str(uuid.uuid1()), str(uuid.uuid4()), key, tempfile.mktemp()]


def tell(params):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "method": "told", "params": params}) + "\n")
    sys.stdout.flush()


def main():
    tell({"seen": seen(), "drawn": drawn(), "pid": os.getpid(), "frames": len(inspect.stack())})
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what == "spawn":
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            tell(pool.map(double, [1, 2]))
    elif what == "fork":
        with multiprocessing.get_context("fork").Pool(1) as pool:
            tell(pool.map(double, [1, 2]))
    elif what == "raise":
        atexit.register(print, "at exit", file=sys.stderr)
        raise ValueError("wrong")
    elif what == "exit":
        atexit.register(print, "at exit", file=sys.stderr)
        sys.exit(3)
    elif what == "complain":
        sys.exit("a complaint")
    elif what == "interrupt":
        raise KeyboardInterrupt
    sys.stdin.read()


if __name__ == "__main__":
    main()
