"""A reverse proxy as people put one before muxsim: it ends TLS, and serves muxsim under a path."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import urlsplit

import trio


@asynccontextmanager
async def proxied(url, certificate, key, *, prefix, strips=True, keeps_host=True):
    """Serve the muxsim at ``url`` over TLS under ``prefix``; yields the address, ``https://localhost:PORT``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    target = urlsplit(url)

    async def serve(plain):
        stream = trio.SSLStream(plain, context, server_side=True, https_compatible=True)
        async with stream, await trio.open_tcp_stream(target.hostname, target.port) as upstream:
            try:
                await upstream.send_all(await _head(stream))
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_copy, upstream, stream, nursery.cancel_scope)
                    nursery.start_soon(_copy, stream, upstream, nursery.cancel_scope)
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # one side has gone

    async def _head(stream):
        data = b""
        while b"\r\n\r\n" not in data:
            piece = await stream.receive_some()
            if not piece:
                raise OSError("no request")
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        method, path, version = first.split(" ")
        assert path.startswith(f"{prefix}/"), path
        # It speaks of itself too, as proxies do, and one request a connection.
        lines = [line for line in lines if not line.lower().startswith(("connection:", "x-forwarded", "host:"))]
        host = f"localhost:{port}" if keeps_host else target.netloc
        lines += [f"Host: {host}", "Connection: close", "X-Forwarded-Proto: https", f"X-Forwarded-Prefix: {prefix}"]
        path = path.removeprefix(prefix) if strips else path
        return "\r\n".join([f"{method} {path} {version}", *lines, "", ""]).encode() + body

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        yield f"https://localhost:{port}"
        nursery.cancel_scope.cancel()


async def _copy(source, sink, scope):
    try:
        async for piece in source:
            await sink.send_all(piece)
    finally:
        scope.cancel()
