"""Lives one life of the plan, step by step, and notes what is wrong with it."""

from __future__ import annotations

import json
import os
import random
import signal as signals
from contextlib import AsyncExitStack, suppress
from functools import partial
from urllib.parse import urljoin

import h11
import trio
from harness import alive
from serve.wire import LATEST, Client, EventReader, ask, connect, initialize, tool_call

from .plan import KINDS, SHORT_LIVED
from .record import Gone, Violation, is_answer
from .ways import Modern, SSEPair, Streamable, streams

PATIENCE = 300
"""Seconds for one answer. Two hundred children share a few cores; a hang lasts for ever."""

JSON = ("Content-Type", "application/json")


class Player:
    """Lives one life of the plan, and notes what is wrong with it."""

    def __init__(self, life, muxsim, record, nursery):
        self.life = life
        self.muxsim = muxsim
        self.record = record
        self.nursery = nursery
        self.ids = iter(range(1, 10**9))
        self.doomed = False
        self.without_stderr = False
        self.is_wrong = False
        self.refusal = None
        self.connection = None
        self.session = None
        self.trouble = record.trouble

    @property
    def url(self):
        return self.muxsim.url

    def wrong(self, what):
        """Note it, once for a life: what follows is mostly its consequence."""
        if not self.is_wrong:
            self.is_wrong = True
            self.record.wrong(self.life, what)

    @property
    def troubled(self):
        """Whether muxsim itself was met in this life."""
        return self.trouble != self.record.trouble or self.trouble % 2 == 1

    @property
    def may_fail(self):
        """Whether something was done after which no result can be asked for."""
        return self.doomed or self.troubled or self.life.env in SHORT_LIVED

    def check_signature(self, message):
        """Whatever a backend signed must be signed by ours."""
        body = message.get("result") or message.get("params") or {}
        signed = body.get("_meta", {}).get("signed") if isinstance(body, dict) else None
        if signed is not None and signed != str(self.life.seed):
            self.wrong(f"a message of session {signed} came here: {str(message)[:300]}")

    # ---- asking

    async def request(self, tool, arguments=None, *, meta=None, id=None, expect=None):
        """Call a tool; its one final answer, checked. Raises `Gone` where the session has ended as it may."""
        id = next(self.ids) if id is None else id
        message = self.way.message(id, tool, arguments or {}, meta)
        status, messages = await self._in_time(f"{tool} as {id!r}", self.way.exchange, message)
        return self.judge(tool, id, status, messages, expect)

    async def _in_time(self, what, function, *arguments):
        try:
            with trio.move_on_after(PATIENCE):
                return await function(*arguments)
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            # Who leaves something of an ended session unread for two seconds is cut off, and busy machines take longer.
            if not self.may_fail:
                raise
            self.count("cut off")
            raise Gone from None
        raise Violation(f"no answer to {what} within {PATIENCE} s")

    def judge(self, tool, id, status, messages, expect=None):
        for message in messages:
            self.check_signature(message)
        finals = [message for message in messages if is_answer(message)]
        if isinstance(self.way, Modern) and status != 200 and len(finals) == 1 and finals[0]["id"] == id:
            return self._final(tool, finals[0], expect)  # this revision gives errors a status of their own
        if status in (400, 404, 410, 502, 503) and len(finals) == 1:
            self.count(f"HTTP {status}")
            return self._refused(f"{tool}: {status} {finals[0]}")
        if status == 0:
            self.count("stream over")
            return self._refused(f"{tool}: the stream ended with no answer")
        if (
            status != 200
            or len(finals) != 1
            or messages[-1] is not finals[0]
            or finals[0]["id"] != id
            or type(finals[0]["id"]) is not type(id)
        ):
            raise Violation(f"{tool} as {id!r}: status {status}, {str(messages[-3:])[:600]}")
        return self._final(tool, finals[0], expect)

    def _final(self, tool, final, expect):
        if "error" in final:
            self.count(f"error {final['error']['code']}")
            if final["error"]["code"] in (-32000, -32002):
                return self._refused(f"{tool}: {final['error']}")
            return final
        self.count("result")
        text = final["result"]["content"][0]["text"]
        if expect is not None and text != expect:
            raise Violation(f"{tool}: expected {expect!r}, got {text[:200]!r}")
        return final

    def _refused(self, why):
        # On a busy machine a client may not have come to ask anything for so long.
        was_idle = self.life.env == "idle" and "(idle_timeout)" in why
        if not self.may_fail and not was_idle:
            raise Violation(f"failed though nothing fatal had been done: {why[:600]}")
        raise Gone

    def count(self, what):
        self.record.answers[what] += 1

    async def allowed_to_fail(self, tool, arguments=None, **more):
        """Call a tool whose session may end in the middle of it."""
        with suppress(Gone):
            return await self.request(tool, arguments, **more)

    # ---- a life

    async def live(self):
        """From the session's making to its end."""
        self.record.lives[self.life.way] += 1
        try:
            with trio.fail_after(20 * PATIENCE):
                async with AsyncExitStack() as stack:
                    if await self._in_time("its opening", self._open, stack):
                        await self._play()
        except Exception as error:  # whatever it is, it is what went wrong with this life
            self.wrong(f"{type(error).__name__}: {error}")

    async def _play(self):
        with suppress(Gone):
            for step in self.life.steps:
                await trio.sleep(step.pause)
                self.record.steps[step.kind] += 1
                await STEPS[step.kind](self, **step.arguments)
        await self._farewell()

    async def _open(self, stack):
        opened = await getattr(self, f"_open_{self.life.way}")(stack)
        if not opened and self.life.env not in SHORT_LIVED and not self.troubled:
            self.wrong(f"its session could not be had: {self.refusal}")
        return opened

    async def _open_header(self, stack):
        path = f"/mcp?env={self.life.env}&seed={self.life.seed}"
        return await self._shake_hands(path)

    async def _shake_hands(self, path):
        answer = await ask(self.url, "POST", path, [("Accept", "application/json, text/event-stream")], initialize())
        final = [message for message in answer.messages if is_answer(message)] if answer.body else []
        ended = answer.status == 404 and self.may_fail
        if ended or answer.status == 503 or (answer.status == 200 and "error" in final[0]):
            return self.no_session(answer)
        assert answer.status == 200, answer
        client = Client(self.url, path.partition("?")[0], answer.headers["mcp-session-id"], LATEST)
        await client.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        self.session = self.session or client.id
        self.way = Streamable(self, client)
        return True

    def no_session(self, refusal):
        self.count("no session")
        self.refusal = refusal
        return False

    async def _make_session(self):
        wish = {"env": self.life.env, "seed": self.life.seed}
        answer = await ask(self.url, "POST", "/sessions", body=wish)
        if answer.status in (502, 503):
            return self.no_session(answer)
        assert answer.status == 201, answer
        self.session = answer.json()["id"]
        return True

    async def _open_url(self, stack):
        return await self._make_session() and await self._shake_hands(f"/s/{self.session}/mcp")

    async def _open_modern(self, stack):
        if not await self._make_session():
            return False
        self.way = Modern(self, Client(self.url, f"/s/{self.session}/mcp", "", "2026-07-28"))
        return True

    async def _open_sse(self, stack):
        connection = await stack.enter_async_context(connect(self.url))
        path = f"/sse?env={self.life.env}&seed={self.life.seed}"
        await connection.send("GET", path, [("Accept", "text/event-stream")])
        status, _ = await connection.head()
        if status in (502, 503):
            return self.no_session(status)
        assert status == 200, status
        events = EventReader(connection)
        endpoint = urljoin(path, (await events.next()).data)
        self.way = SSEPair(self, self.url, endpoint, events)
        self.connection = connection
        self.nursery.start_soon(self.way.listen)
        status, messages = await self.way.exchange(initialize(0, "2024-11-05"))
        if status != 200 or "error" in messages[0]:
            return self.no_session(messages)
        return True

    async def _farewell(self):
        kind = self.life.farewell
        if self.life.way == "sse":
            self.hang_up()
        elif kind == "vanish" and self.life.env == "idle":
            pass  # its idle_timeout ends it
        elif kind == "delete" and self.life.way == "header":
            assert (await self.way.client.delete()).status in (204, 404)
        else:
            statuses = []
            async with trio.open_nursery() as nursery:
                for _ in range(4 if kind == "deletes at once" else 1):
                    nursery.start_soon(self._delete, statuses)
            if statuses.count(204) > 1 or set(statuses) - {204, 404}:
                self.wrong(f"deletions were answered with {statuses}")

    def hang_up(self):
        """Cut the SSE stream, once."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.drop()

    async def _delete(self, statuses):
        statuses.append((await ask(self.url, "DELETE", f"/sessions/{self.session}")).status)

    async def pid(self):
        """The pid of its backend; 0 if that has gone."""
        final = await self.request("who")
        return json.loads(final["result"]["content"][0]["text"])["pid"] if "result" in final else 0

    # ---- steps

    async def say(self):
        mark = f"{self.life.seed}.{next(self.ids)}"
        id = mark if random.random() < 0.3 else None
        await self.request("say", {"text": mark}, id=id, expect=mark)

    async def harmless(self, tool):
        meta = {"progressToken": 1} if tool == "progress" else None
        await self.request(tool, {"steps": 3} if tool == "progress" else {}, meta=meta)

    async def burst(self, tools):
        async with trio.open_nursery() as nursery:
            for tool in tools:
                nursery.start_soon(self._quietly, partial(self.harmless, tool))
            nursery.start_soon(self._quietly, self.say)

    async def _quietly(self, function):
        """A part of a step in parallel: its session may end, and what is wrong is noted at once."""
        try:
            await function()
        except Gone:
            pass
        except Exception as error:  # as in `live`
            self.wrong(f"{type(error).__name__}: {error}")

    async def slow(self, seconds):
        await self.request("slow", {"seconds": seconds})

    async def sample(self):
        if self.life.way == "modern":
            await self.say()
            return
        final = await self.request("sample")
        if "result" in final:
            assert json.loads(final["result"]["content"][0]["text"])["result"] == {"mine": self.life.seed}

    async def big(self):
        await self.request("big", {"mib": 1}, expect="".join(f"{number:07d}\n" for number in range(2**17)))

    async def flood(self, count, size):
        await self.request("notification_flood", {"count": count, "size": size}, expect="flooded")

    async def close_stderr(self):
        if not self.without_stderr:
            self.without_stderr = True
            await self.request("close_stderr", expect="closed")

    async def stderr_flood(self):
        if not self.without_stderr:
            await self.request("stderr_flood", {"mib": 1}, expect="flooded")

    async def own_error(self):
        final = await self.request("own_error", {"code": -5})
        if final["error"]["code"] != -5 and not self.may_time_out:
            raise Violation(f"its own error became {final}")

    @property
    def may_time_out(self):
        return self.life.env == "brisk"

    async def bad_answer(self, tool):
        final = await self.request(tool)
        if final.get("error", {}).get("code") not in (-32700, -32001):
            raise Violation(f"a malformed answer became {final}")

    async def grandchild(self, grandchild):
        await self.request("spawn", {"kind": grandchild})

    async def cancel(self, tool, after):
        if self.life.way == "modern":
            await self.drop(tool, after)
            return
        id = next(self.ids)
        message = self.way.message(id, tool, {"seconds": 0.2})
        if self.life.way == "sse":
            self.way.given_up.add(id)
            await self.way.notify(message)
            await trio.sleep(after)
            await self.way.notify(rpc_cancelled(id))
            return
        outcome = []

        async def call():
            outcome.append(await self._in_time(f"the cancelled {id}", self.way.exchange, message))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._quietly, call)
            await trio.sleep(after)
            while not outcome and not self.is_wrong:  # it may overtake the call that it is about
                await self.way.notify(rpc_cancelled(id))
                await trio.sleep(0.2)
        for status, messages in outcome:
            finals = [one for one in messages if is_answer(one)]
            if len(finals) > 1 or status not in (200, 404):
                raise Violation(f"a cancelled call got {status} {messages}")

    async def drop(self, tool, after):
        """Send a call and cut the connection."""
        id = next(self.ids)
        message = self.way.message(id, tool, {"seconds": 0.1, "mib": 1})
        if self.life.way == "sse":
            self.way.given_up.add(id)
        async with connect(self.url) as connection:
            if self.life.way == "sse":
                await connection.send("POST", self.way.endpoint, [JSON], json.dumps(message).encode())
            else:
                await self.way.send(connection, message)
            await trio.sleep(after)
            connection.drop()

    async def resume(self):
        """Lose the connection in the middle of a stream, and ask for the rest of it."""
        if not isinstance(self.way, Streamable) or isinstance(self.way, Modern):
            return await self.say()
        id, client = next(self.ids), self.way.client
        async with connect(self.url) as connection:
            await self.way.send(connection, self.way.message(id, "log_then_wait", {"seconds": 0.2}))
            status, headers = await self._in_time("log_then_wait", connection.head)
            if not streams(headers):
                messages = await self.way.messages(connection, headers)
                return self.judge("log_then_wait", id, status, messages)
            last = await self._in_time("the first event of log_then_wait", EventReader(connection).next)
            connection.drop()
        async with connect(self.url) as connection:
            await connection.send("GET", client.path, [*client.headers, ("Last-Event-ID", last.id)])
            status, messages = await self._in_time("the resumed stream", self.way.read, connection)
        return self.judge("log_then_wait", id, status, messages)

    async def same_id_twice(self):
        if self.life.way == "sse":
            await self.say()
            return
        id = next(self.ids)
        answers = []

        async def call(tool, text):
            message = self.way.message(id, tool, {"seconds": 0.1, "text": text})
            answers.append(await self._in_time(f"{tool} as {id}", self.way.exchange, message))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._quietly, partial(call, "slow", ""))
            nursery.start_soon(self._quietly, partial(call, "say", "second"))
        for status, messages in answers:
            if status not in (200, 400, 404) or len([one for one in messages if is_answer(one)]) != 1:
                raise Violation(f"of two calls under {id} one got {status} {messages}")

    async def bad_body(self, body):
        body = body.encode("utf-8", "surrogatepass")
        if self.life.way == "sse":
            status = (await ask(self.url, "POST", self.way.endpoint, [JSON], body)).status
        else:
            headers = self.way.client.headers if self.life.way != "modern" else [JSON]
            status = (await ask(self.url, "POST", self.way.client.path, headers, body)).status
        if status not in (400, 404):
            raise Violation(f"a bad body got {status}")

    async def garbage(self, noise):
        with suppress(trio.BrokenResourceError):
            async with connect(self.url) as connection:
                await connection.stream.send_all(bytes.fromhex(noise) + b"\r\n\r\n")

    async def half_body(self, share):
        body = json.dumps(tool_call(next(self.ids), "say")).encode()
        path = self.way.endpoint if self.life.way == "sse" else self.way.client.path
        headers = [JSON] if self.life.way in ("sse", "modern") else self.way.client.headers
        async with connect(self.url) as connection:
            await connection.send("POST", path, [*headers, ("Content-Length", str(len(body)))])
            await connection.stream.send_all(body[: int(share * len(body))])
            connection.drop()

    async def listen(self):
        """Hold a standing stream open until the session ends."""
        if isinstance(self.way, Streamable) and not isinstance(self.way, Modern):
            self.nursery.start_soon(self._listen, self.way.client)

    async def _listen(self, client):
        with suppress(AssertionError, trio.BrokenResourceError, StopAsyncIteration):
            async with client.listening() as connection:
                async for event in connection.events():
                    if event.data:
                        self.check_signature(event.json())
                        if is_answer(event.json()):
                            self.wrong(f"an answer on the standing stream: {event.data[:300]}")

    async def slow_reader(self, count, pause):
        if self.life.way == "sse":
            await self.say()
            return
        id = next(self.ids)
        message = self.way.message(id, "progress_flood", {"count": count, "size": 10_000}, {"progressToken": "t"})
        async with connect(self.url, receive_buffer=4096) as connection:
            await self.way.send(connection, message)
            await trio.sleep(pause)
            status, messages = await self._in_time("progress_flood", self.way.read, connection)
        final = self.judge("progress_flood", id, status, messages, "flooded")
        numbers = [one["params"]["progress"] for one in messages[:-1] if one["method"] == "notifications/progress"]
        if "result" in final and numbers != list(range(count)):
            raise Violation(f"of {count} progress notifications {len(numbers)} came, or in another order")

    async def never_reads(self):
        if self.life.way == "sse":
            await self.say()
            return
        message = self.way.message(
            next(self.ids), "progress_flood", {"count": 800, "size": 10_000}, {"progressToken": 1}
        )
        async with connect(self.url, receive_buffer=4096) as connection:
            await self.way.send(connection, message)
            await trio.sleep(0.5)
            connection.drop()

    async def much_for_who_does_not_read(self):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._quietly, partial(self.request, "block", {"seconds": 0.5}))
            for _ in range(6):
                nursery.start_soon(self._quietly, partial(self.request, "measure", {"text": "x" * 400_000}))

    async def fatal(self, tool, waiting):
        """Calls wait, and one ends the backend; all get an answer."""
        self.doomed = True
        arguments = {"mib": 9} if tool == "too_long" else {}
        tool = "endless_line" if tool == "too_long" else tool
        async with trio.open_nursery() as nursery:
            for _ in range(waiting):
                nursery.start_soon(self._quietly, partial(self.request, "hang"))
            await trio.sleep(0.02)
            nursery.start_soon(self._quietly, partial(self.request, tool, arguments))
            if tool == "close_stdin":
                await trio.sleep(0.1)
                nursery.start_soon(self._quietly, self.say)
                nursery.start_soon(self._delete_later, 1.0)  # a message that found room in the pipe tells nobody

    async def _delete_later(self, seconds):
        await trio.sleep(seconds)
        if self.session:
            await ask(self.url, "DELETE", f"/sessions/{self.session}")
        elif self.life.way == "sse":
            self.hang_up()
            self.way.over.set()

    async def signal(self, signal):
        pid = await self.pid()
        self.doomed = True
        if pid and alive(pid):
            with suppress(ProcessLookupError):
                os.kill(pid, getattr(signals, signal))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._quietly, partial(self.allowed_to_fail, "say"))
            if signal == "SIGSTOP":
                nursery.start_soon(self._delete_later, 0.5)

    async def delete_in_the_middle(self, waiting):
        self.doomed = True
        async with trio.open_nursery() as nursery:
            for _ in range(waiting):
                nursery.start_soon(self._quietly, partial(self.request, "hang"))
            nursery.start_soon(self._delete_later, 0.05)


STEPS = {kind: getattr(Player, kind.replace(" ", "_")) for kind in KINDS}


def rpc_cancelled(id):
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}
