"""A program that claims its standard streams, echoes requests on them, and makes all the noise a server may make."""

import os
import sys

import trio

from transports import messages
from transports.errors import TransportError
from transports.memory import MemoryReceiver
from transports.stdio import claim_stdio
from transports.unread import request_id


class Echo(MemoryReceiver):
    def __init__(self):
        super().__init__()
        self.ended = trio.Event()

    def disconnected(self):
        self.ended.set()

    def receive(self, message):
        noise()
        self.transport.send(messages.result(message.id, message.params))

    def rejected(self, line, error):
        self.transport.send(messages.error(request_id(line), error.code, error.message))


def noise():
    print("noise of print")
    os.write(1, b"noise of a C library\n")
    os.waitpid(
        os.posix_spawn("/bin/sh", ["sh", "-c", "echo noise of a child; ls /proc/self/fd | xargs"], os.environ), 0
    )
    print(f"stdin has {os.read(0, 100)!r}")


async def main():
    print("before")
    echo = Echo()
    with claim_stdio(echo) as echo.transport:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo.transport.run)
            await echo.ended.wait()
            echo.transport.close()
        if "fail" in sys.argv:
            raise TransportError("on purpose")


try:
    trio.run(main)
finally:
    print("after")
    assert os.read(0, 100) == b""
