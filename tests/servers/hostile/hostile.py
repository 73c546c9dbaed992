"""Tries what no server should, and tells of each attempt what came of it: "done", or the name of an errno.

TARGETS has what to try it on, as JSON. Standard library only; afterwards it waits for the end of its stdin.
"""

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile

TARGETS = json.loads(os.environ["TARGETS"])
PID = TARGETS["pid"]
WORKSPACE = os.environ["MUXSIM_WORKSPACE"]
LIBC = ctypes.CDLL(None, use_errno=True)


def read(path):
    with open(path, "rb") as file:
        file.read(1)


def write(path):
    with open(path, "w") as file:
        file.write("x")


def connect(family, kind, address):
    with socket.socket(family, kind) as one:
        one.connect(address)


def send(family, address):
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", address)


def datagrams_of_a_pair():
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        one.connect(TARGETS["unix"])


def own_pair():
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"x")
        assert other.recv(1) == b"x"


def called(number, *arguments):
    if LIBC.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")


def memory_of(pid):
    local = (ctypes.c_size_t * 2)(ctypes.addressof(ctypes.create_string_buffer(8)), 8)
    if LIBC.process_vm_readv(pid, local, 1, local, 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "")


def traced(pid):
    if LIBC.ptrace(16, pid, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "")


def mounted():
    if LIBC.mount(b"none", WORKSPACE.encode(), b"tmpfs", 0, None) < 0:
        raise OSError(ctypes.get_errno(), "")


def shared_memory():
    if LIBC.shmget(1234, 4096, 0o1600) < 0:
        raise OSError(ctypes.get_errno(), "")


def temporary():
    with tempfile.TemporaryDirectory() as folder:
        write(os.path.join(folder, "a"))
        assert folder.startswith(f"{WORKSPACE}.private/")


def child(script):
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(int(done.stderr), "")


READ_FROM_CHILD = """
import sys
try:
    open({path!r})
except OSError as error:
    sys.exit(str(error.errno))
"""

unix, stream = socket.AF_UNIX, socket.SOCK_STREAM
ATTEMPTS = {
    "read ssh": lambda: read(TARGETS["ssh"]),
    "read ssh from a child": lambda: child(READ_FROM_CHILD.format(path=TARGETS["ssh"])),
    "list home": lambda: os.listdir(TARGETS["home"]),
    "read tokens": lambda: read(TARGETS["tokens"]),
    "read another workspace": lambda: os.listdir(TARGETS["workspace"]),
    "list workspaces": lambda: os.listdir(os.path.dirname(WORKSPACE)),
    "read shadow": lambda: read("/etc/shadow"),
    "tcp": lambda: connect(socket.AF_INET, stream, tuple(TARGETS["tcp"])),
    "bind": lambda: socket.create_server(("127.0.0.1", 0)).close(),
    "udp": lambda: send(socket.AF_INET, tuple(TARGETS["udp"])),
    "unix path": lambda: connect(unix, stream, TARGETS["unix"]),
    "unix abstract": lambda: connect(unix, stream, "\0" + TARGETS["abstract"]),
    "unix datagram": datagrams_of_a_pair,
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close(),
    "vsock": lambda: socket.socket(40, stream).close(),
    "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "kill": lambda: os.kill(PID, signal.SIGWINCH),
    "kill the parent": lambda: os.kill(os.getppid(), signal.SIGWINCH),
    "kill by descriptor": lambda: signal.pidfd_send_signal(os.pidfd_open(PID), signal.SIGWINCH),
    "ptrace": lambda: traced(PID),
    "read memory": lambda: memory_of(PID),
    "proc environ": lambda: read(f"/proc/{PID}/environ"),
    "proc cmdline": lambda: read(f"/proc/{PID}/cmdline"),
    "proc mem": lambda: read(f"/proc/{PID}/mem"),
    "proc root": lambda: os.listdir(f"/proc/{PID}/root/"),
    "proc fd": lambda: os.readlink(f"/proc/{PID}/fd/0"),
    "limits of another": lambda: resource.prlimit(PID, resource.RLIMIT_CPU, (1, 1)),
    "priority of another": lambda: os.setpriority(os.PRIO_PROCESS, PID, 19),
    "priority of a user": lambda: os.setpriority(os.PRIO_USER, 0, 19),
    "processors of another": lambda: os.sched_setaffinity(PID, {0}),
    "io_uring": lambda: called(425, 8, ctypes.create_string_buffer(256)),
    "shared memory": shared_memory,
    "named memory": lambda: write("/dev/shm/muxsim-hostile"),
    "keyring": lambda: called(250 if os.uname().machine == "x86_64" else 219, 0, -3, 0),
    "mount": mounted,
    "terminal": lambda: read("/dev/tty"),
    "write beside its code": lambda: write(os.path.join(os.path.dirname(os.path.abspath(__file__)), "left")),
    "write its code": lambda: open(os.path.abspath(__file__), "a").close(),
    "write to tmp": lambda: write("/tmp/muxsim-hostile"),
    "write home": lambda: write(os.path.join(TARGETS["home"], "left")),
    "attributes": lambda: os.setxattr(os.path.abspath(__file__), "user.a", b"1"),
    "link out": lambda: os.link(os.path.abspath(__file__), os.path.join(WORKSPACE, "link")),
    "read through a link": lambda: [
        os.symlink(TARGETS["ssh"], os.path.join(WORKSPACE, "way")),
        read(os.path.join(WORKSPACE, "way")),
    ],
    # What it may.
    "own workspace": lambda: write(os.path.join(WORKSPACE, "a")),
    "own folder": lambda: [
        os.makedirs(os.path.join(WORKSPACE, "b", "c")),
        os.rename(os.path.join(WORKSPACE, "a"), os.path.join(WORKSPACE, "b", "c", "a")),
    ],
    "own temporary": temporary,
    "own home": lambda: write(os.path.expanduser("~/.settings")),
    "own pair": own_pair,
    "own child": lambda: child(""),
    "own signal": lambda: os.kill(os.getpid(), 0),
    "own status": lambda: read("/proc/self/status"),
    "own limit": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    "own niceness": lambda: os.nice(1),
    "read code": lambda: read(os.path.abspath(__file__)),
    "read system": lambda: read("/etc/passwd"),
    "null": lambda: write("/dev/null"),
    "named readable": lambda: read(TARGETS["readable"]),
    "named writable": lambda: write(TARGETS["writable"]),
}


def came_of(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


told = {name: came_of(attempt) for name, attempt in ATTEMPTS.items()}
with open("/proc/self/status") as file:
    params = {"told": told, "status": file.read()}
print(json.dumps({"jsonrpc": "2.0", "method": "told", "params": params}), flush=True)
sys.stdin.read()
