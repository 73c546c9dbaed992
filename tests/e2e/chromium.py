"""A headless Chromium, driven over the pipe of its DevTools protocol: no driver program, no port. It runs on trio."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import asynccontextmanager, suppress
from functools import partial

import trio

FLAGS = (
    "--headless",
    "--no-sandbox",  # it does not start as root otherwise, and opens nothing but our own pages
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-crash-reporter",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--window-size=1240,900",
    "--remote-debugging-pipe",  # descriptor 3 is what it reads, 4 what it writes
)
# A shell puts the pipe's ends where Chromium looks for them, which pass_fds alone cannot; sh has no numbers above 9.
_AT_3_AND_4 = 'exec "$@" 3<&{reads} 4>&{writes}'

# Seconds.
CLOSE_LIMIT = 60
_READ = 2**16


class Browser:
    """A running Chromium; make it with `chromium`."""

    def __init__(self, to_browser, from_browser):
        self._to_browser = to_browser
        self._from_browser = from_browser
        self._last_id = 0
        self._answers = {}

    async def run(self):
        """Read answers until the browser closes its end."""
        rest = b""
        while data := await self._from_browser.receive_some(_READ):
            *complete, rest = (rest + data).split(b"\0")
            for message in map(json.loads, complete):
                if "id" in message:
                    await self._answers.pop(message["id"]).send(message)
        for waiting in self._answers.values():
            waiting.close()

    async def ask(self, method, params=None, page=None):
        """Send a command; its result."""
        self._last_id += 1
        sender, receiver = trio.open_memory_channel(1)
        self._answers[self._last_id] = sender
        message = {"id": self._last_id, "method": method, "params": params or {}}
        if page is not None:
            message["sessionId"] = page
        await self._to_browser.send_all(json.dumps(message).encode() + b"\0")
        answer = await receiver.receive()
        assert "result" in answer, f"{method}: {answer['error']}"
        return answer["result"]

    async def open(self, url):
        """A new tab that shows ``url``."""
        target = await self.ask("Target.createTarget", {"url": "about:blank"})
        attached = await self.ask("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        page = Page(self, attached["sessionId"])
        came = await page.ask("Page.navigate", {"url": url})
        assert "errorText" not in came, came
        return page


class Page:
    """A tab."""

    def __init__(self, browser, id):
        self._browser = browser
        self._id = id

    async def ask(self, method, params=None):
        """Send a command that is about this tab; its result."""
        return await self._browser.ask(method, params, self._id)

    async def evaluate(self, expression):
        """The value of a JavaScript expression, or of the promise that it is, in JSON."""
        wish = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        answer = await self.ask("Runtime.evaluate", wish)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")


@asynccontextmanager
async def chromium(profile, log):
    """A browser with an empty profile in the folder ``profile``; ended, whatever is left of it, at the block's end.

    ``log`` is an open file for what it has to say.
    """
    reads, to_browser = os.pipe()
    from_browser, writes = os.pipe()
    shell = ["bash", "-c", _AT_3_AND_4.format(reads=reads, writes=writes), "bash"]
    command = [*shell, "chromium", *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process,
            command,
            check=False,
            pass_fds=(reads, writes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
        process = await nursery.start(start)
        os.close(reads)
        os.close(writes)
        sends, receives = trio.lowlevel.FdStream(to_browser), trio.lowlevel.FdStream(from_browser)
        browser = Browser(sends, receives)
        nursery.start_soon(browser.run)
        try:
            yield browser
            with trio.fail_after(CLOSE_LIMIT):
                await browser.ask("Browser.close")
                await process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            # A cancellation here would take the place of the failure on its way out.
            for stream in (sends, receives):
                await _close_now(stream)
        nursery.cancel_scope.cancel()


async def _close_now(stream):
    with trio.CancelScope(shield=True):
        await stream.aclose()
