"""What is told to a service manager, and what keeps it from being told that muxsim lives."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from asyncio_tests import on_asyncio

from muxsim.serve.operate.service_manager import ServiceManager


@on_asyncio
async def test_a_loop_that_stands_still_is_not_told_to_live(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000", "PATH": "/bin"}
        manager = ServiceManager.of(environ)
        assert environ == {"PATH": "/bin"}, "no child is to have these"
        stands_still = asyncio.Event()
        moves = True

        async def turn():
            if not moves:
                await stands_still.wait()

        telling = asyncio.ensure_future(manager.keep_telling(lambda: "well", turn))
        await asyncio.sleep(2.2)
        moves = False
        await asyncio.sleep(0.6)
        assert [heard.recv(4096) for _ in range(5)] == [b"STATUS=well\nWATCHDOG=1"] * 5
        await asyncio.sleep(100)
        with pytest.raises(BlockingIOError):
            heard.recv(4096)
        telling.cancel()
        manager.close()


@on_asyncio
async def test_an_abstract_socket_is_told_too_and_any_other_address_is_nobodys(tmp_path):
    name = f"muxsim-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        ServiceManager(f"@{name}").ready()
        assert heard.recv(100) == b"READY=1"
    for nobody in ("", "vsock:2:1234"):
        manager = ServiceManager(nobody)
        manager.ready()
        await manager.keep_telling(str, asyncio.Event().wait)
