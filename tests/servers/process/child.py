"""A child that does what its arguments say, one after the other. Standard library only; run it with -I -S.

    describe          print what it was given, as one line of JSON
    stubborn          ignore SIGTERM, SIGINT and SIGHUP from here on
    stop              stop itself as if by SIGSTOP, after saying so
    start KIND        start a grandchild, print its pid; kinds below
    leave CODE        exit at once
    echo              write every line of stdin back, until its end
    ready             say so
    again             become itself once more
    forever           stay, whatever happens to stdin

Kinds of grandchild, each ignoring what can be ignored. With `+stdout` it keeps the child's stdout open.

    group             in the child's process group
    setsid            in a session of its own
    double            orphaned and in a session of its own, as daemons do
    bare              in a session of its own, with an empty environment
    bare-double       orphaned, in a session of its own, with an empty environment
    exec-double       orphaned, in a session of its own, becoming another program again and again
    fork-double       orphaned, in sessions of its own, becoming another process again and again
"""

import json
import os
import resource
import signal
import sys

IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


PAUSE = "import signal; signal.pause()"
LIVES = {
    "exec": f"import sys; os.execv(sys.executable, [sys.executable, '-I', '-S', {__file__!r}, 'again'])",
    "fork": "while not os.fork(): os.setsid()",
}


def describe():
    print(
        json.dumps(
            {
                "argv": sys.argv[1:],
                "cwd": os.getcwd(),
                "env": dict(os.environ),
                "fds": sorted(fd for fd in map(int, os.listdir("/proc/self/fd")) if is_open(fd)),
                "group": os.getpgid(0),
                "pid": os.getpid(),
                "session": os.getsid(0),
                "umask": os.umask(0),
                "files": resource.getrlimit(resource.RLIMIT_NOFILE),
                "nice": os.getpriority(os.PRIO_PROCESS, 0),
                "privileges": status_of("NoNewPrivs"),
            }
        ),
        flush=True,
    )


def status_of(name):
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(name + ":"))


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:  # the one that listed them
        return False
    return True


def stubborn():
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)


def start(kind):
    kind, _, keep = kind.partition("+")
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told)
        become_grandchild(kind, keep, tell)
    os.close(tell)
    if kind.endswith("double"):
        os.waitpid(pid, 0)
    with open(told) as pipe:
        print(pipe.readline().strip(), flush=True)


def become_grandchild(kind, keep, tell):
    stubborn()
    if kind != "group":
        os.setsid()
    if kind.endswith("double") and os.fork():
        os._exit(0)
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 2) if keep else (0, 1, 2):
        os.dup2(null, fd)
    os.set_inheritable(tell, True)
    life = LIVES.get(kind.partition("-")[0], PAUSE)
    code = f"import os; os.write({tell}, b'%d\\n' % os.getpid()); os.close({tell})\n{life}"
    env = {} if kind.startswith("bare") else dict(os.environ)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)  # stays so through exec
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", code], env)


def stop():
    print("stopping", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)


def echo():
    for line in sys.stdin:
        print(line, end="", flush=True)


def ready():
    print("ready", flush=True)


def again():
    os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, "again"])


def forever():
    while True:
        signal.pause()


def main(words):
    plain = {f.__name__: f for f in (describe, stubborn, stop, echo, ready, again, forever)}
    words = iter(words)
    for word in words:
        if word == "start":
            start(next(words))
        elif word == "leave":
            sys.stdout.flush()
            os._exit(int(next(words)))
        elif word in plain:
            plain[word]()


main(sys.argv[1:])
