"""A filter of system calls (seccomp(2)) for what Landlock lets pass: sockets, and reaching for others without a signal.

It refuses, with an errno: sockets but those that are allowed, so that UDP, raw, netlink and vsock sockets are none, and
sockets of others, which a path or a name would lead to, cannot be connected to; io_uring, which would make calls that
no filter sees; keyrings, System V's and POSIX's queues, semaphores and shared memory, which have names for all of a
user's processes; limits and priorities of other processes; attributes of files that lie beside their content; what only
looks into the kernel. Everything else passes.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBERS = {
    # x86_64, aarch64
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "listen": (50, 201),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "shmget": (29, 194),
    "shmctl": (31, 195),
    "shmat": (30, 196),
    "semget": (64, 190),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "semop": (65, 193),
    "msgget": (68, 186),
    "msgctl": (71, 187),
    "msgrcv": (70, 188),
    "msgsnd": (69, 189),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "fanotify_init": (300, 262),
    "perf_event_open": (298, 241),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "open_by_handle_at": (304, 265),
}
_REFUSED = {
    **dict.fromkeys(("io_uring_setup", "io_uring_enter", "io_uring_register"), errno.ENOSYS),
    **dict.fromkeys((name for name in _NUMBERS if "xattr" in name), errno.EOPNOTSUPP),
    **dict.fromkeys(("add_key", "request_key", "keyctl", "mq_open", "mq_unlink"), errno.EACCES),
    **dict.fromkeys((name for name in _NUMBERS if name.startswith(("shm", "sem", "msg"))), errno.EACCES),
    **dict.fromkeys(("fanotify_init", "perf_event_open", "bpf", "userfaultfd", "open_by_handle_at"), errno.EPERM),
}

_X32 = 0x40000000  # set in the number of a call of this other ABI of x86_64
_SOCKET_TYPE = 0xF  # the rest are flags
_MSG_FASTOPEN = 0x20000000  # connects by sending, past Landlock
_NETLINK_ROUTE = 0
_IOPRIO_PROCESS = 1
_ALL_BITS = 0xFFFFFFFF

# Classic BPF: how an instruction loads, compares and ends.
_LOAD, _AND, _JUMP_IF_EQUAL, _JUMP_IF_ABOVE, _JUMP_IF_BITS, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in what a filter sees of a call


class Instruction(NamedTuple):
    """One of a filter's: with what to compare, and how many to skip if it is so, and if not."""

    code: int
    value: int
    so: int = 0
    otherwise: int = 0


class Is(NamedTuple):
    """That an argument of a call, of which these bits count, is one of these numbers."""

    argument: int
    among: tuple[int, ...]
    bits: int = _ALL_BITS
    upper: bool = False
    """Of an argument of 64 bits, whether the upper half is meant and not the lower one."""

    def instructions(self, rest: int) -> list[Instruction]:
        """Go on if it is so, else past the ``rest``."""
        loads = [Instruction(_LOAD, _ARGUMENTS + 8 * self.argument + (4 if self.upper else 0))]
        if self.bits != _ALL_BITS:
            loads.append(Instruction(_AND, self.bits))
        *others, last = self.among
        tries = [Instruction(_JUMP_IF_EQUAL, value, so=len(others) - at) for at, value in enumerate(others)]
        return [*loads, *tries, Instruction(_JUMP_IF_EQUAL, last, otherwise=rest)]


class Lacks(NamedTuple):
    """That an argument of a call has none of these bits."""

    argument: int
    bits: int

    def instructions(self, rest: int) -> list[Instruction]:
        """As above."""
        return [
            Instruction(_LOAD, _ARGUMENTS + 8 * self.argument),
            Instruction(_JUMP_IF_BITS, self.bits, so=rest),
        ]


class Rule(NamedTuple):
    """A call that is refused with this errno but where all conditions of one of these ways hold."""

    call: str
    errno: int
    ways: tuple[tuple[Is | Lacks, ...], ...] = ()

    def instructions(self, number: int) -> list[Instruction]:
        """What decides it, if the call is of this number; else go on behind that."""
        body = [one for way in self.ways for one in _passing(way)]
        body.append(Instruction(_RETURN, _ERRNO | self.errno))
        return [Instruction(_JUMP_IF_EQUAL, number, otherwise=len(body)), *body]


def _passing(way: tuple[Is | Lacks, ...]) -> list[Instruction]:
    code = [Instruction(_RETURN, _ALLOW)]
    for condition in reversed(way):
        code = [*condition.instructions(len(code)), *code]
    return code


def machine() -> str:
    """This machine's architecture."""
    return os.uname().machine


def is_known(architecture: str) -> bool:
    """Whether there are filters for it."""
    return architecture in _AUDIT_ARCH


def program(network: bool | list[int], architecture: str) -> list[Instruction]:
    """The filter for it."""
    column = list(_AUDIT_ARCH).index(architecture)
    refused = [Rule(name, number) for name, number in _REFUSED.items()]
    rules = [
        one
        for rule in (*refused, *_sockets(network), *_OTHERS)
        for one in rule.instructions(_NUMBERS[rule.call][column])
    ]
    head = [
        Instruction(_LOAD, _ARCH),
        Instruction(_JUMP_IF_EQUAL, _AUDIT_ARCH[architecture], so=1),
        Instruction(_RETURN, _KILL),  # numbers mean something else there
        Instruction(_LOAD, _NUMBER),
        Instruction(_JUMP_IF_ABOVE, _X32, otherwise=1),
        Instruction(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    return [*head, *rules, Instruction(_RETURN, _ALLOW)]


def pack(instructions: list[Instruction]) -> bytes:
    """As the kernel takes them."""
    return b"".join(struct.pack("=HBBI", one.code, one.so, one.otherwise, one.value) for one in instructions)


_ONESELF = Is(0, (0,))
_OTHERS = (
    # To read a limit names no new one.
    Rule("prlimit64", errno.EPERM, ((_ONESELF,), (Is(2, (0,)), Is(2, (0,), upper=True)))),
    Rule("setpriority", errno.EPERM, ((Is(0, (os.PRIO_PROCESS,)), Is(1, (0,))),)),
    Rule("ioprio_set", errno.EPERM, ((Is(0, (_IOPRIO_PROCESS,)), Is(1, (0,))),)),
    *(
        Rule(call, errno.EPERM, ((_ONESELF,),))
        for call in ("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr")
    ),
)

_INTERNET = Is(0, (socket.AF_INET, socket.AF_INET6))
# By which the C library learns whether there are addresses of IPv6.
_ADDRESSES = (Is(0, (socket.AF_NETLINK,)), Is(2, (_NETLINK_ROUTE,)))
# Pairs of datagram sockets could be connected anew.
_PAIRS = (Is(0, (socket.AF_UNIX,)), Is(1, (socket.SOCK_STREAM, socket.SOCK_SEQPACKET), _SOCKET_TYPE))
_TCP = (_INTERNET, Is(1, (socket.SOCK_STREAM,), _SOCKET_TYPE), Is(2, (0, socket.IPPROTO_TCP)))


def _sockets(network: bool | list[int]) -> Iterator[Rule]:
    yield Rule("socketpair", errno.EACCES, (_PAIRS,))
    if network is True:
        yield Rule("socket", errno.EACCES, ((_INTERNET,), _ADDRESSES))
    elif network is False:
        yield Rule("socket", errno.EACCES)
        yield Rule("connect", errno.EACCES)
    else:
        yield Rule("socket", errno.EACCES, (_TCP, _ADDRESSES))
        yield Rule("listen", errno.EACCES)
        for call, flags in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
            yield Rule(call, errno.EACCES, ((Lacks(flags, _MSG_FASTOPEN),),))
