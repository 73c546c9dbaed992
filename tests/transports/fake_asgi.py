"""An ASGI server and its client in one, with neither sockets nor HTTP between them."""

import asyncio

from event_source import EventSource

from transports.asgi import Call


class Request:
    """One HTTP request to ``handle(call)``, which starts at once. Close it with `hang_up`, or wait until it is `done`.

    ``reads`` False plays a client that takes nothing from its socket, ``breaks_at`` a connection that is found broken
    by the so-manieth event sent (uvicorn itself drops what is sent after the client has gone).
    """

    def __init__(self, handle, *, method="POST", headers=(), reads=True, breaks_at=None):
        self.status = None
        self.headers = {}
        self.body = b""
        self.complete = False
        self._source = EventSource()
        self._changed = asyncio.Condition()
        self._gone = asyncio.Event()
        self._reads = asyncio.Event()
        if reads:
            self._reads.set()
        self._breaks_at = breaks_at
        self._sends = 0
        self._returned = False
        scope = {"type": "http", "method": method, "headers": list(headers)}
        self._task = asyncio.create_task(self._run(handle, Call(scope, self._receive, self._send)))

    async def _run(self, handle, call):
        try:
            await handle(call)
        finally:
            self._returned = True
            await self._notify()

    async def _notify(self):
        async with self._changed:
            self._changed.notify_all()

    async def _receive(self):
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event):
        self._sends += 1
        if self._sends == self._breaks_at:
            raise OSError("the connection is broken")
        await self._reads.wait()
        if self._gone.is_set():
            return
        if event["type"] == "http.response.start":
            assert self.status is None, "a second response"
            self.status = event["status"]
            self.headers = dict(event["headers"])
        else:
            assert not self.complete, "something after the end of the response"
            self.body += event["body"]
            self.complete = not event.get("more_body", False)
            if self.streams:
                self._source.receive_data(event["body"])
        await self._notify()

    @property
    def streams(self):
        """Whether the answer is an event stream."""
        return self.headers.get(b"content-type", b"").startswith(b"text/event-stream")

    @property
    def events(self):
        return self._source.events

    @property
    def comments(self):
        return self._source.comments

    @property
    def retry(self):
        return self._source.retry

    def read(self):
        """Begin to take what is sent."""
        self._reads.set()

    async def wait(self, condition):
        """Wait until ``condition()`` holds, which is looked at whenever something has been sent."""
        async with self._changed:
            await self._changed.wait_for(lambda: condition() or self._returned)
        if not condition():
            await self._task
            raise AssertionError("the response ended before that")

    async def has(self, count):
        """Wait for so many events and return them."""
        await self.wait(lambda: len(self.events) >= count)
        return self.events

    async def done(self):
        """Wait until the handler has returned; raises what it raises."""
        await self._task
        return self

    async def hang_up(self):
        """Close the connection and wait until the handler has noticed."""
        self._gone.set()
        self._reads.set()
        await asyncio.wait([self._task])
        return self

    @property
    def open(self):
        """Whether the handler is still busy with this request."""
        return not self._task.done()


def http_headers(**named):
    """Headers as ASGI has them, ``_`` for ``-``; those that are None are left out."""
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items() if value is not None]
