import asyncio
import gc
import json
import weakref

import pytest
from asyncio_tests import on_asyncio
from fake_asgi import Request, http_headers

from transports.asgi import Call, ClientGone, read_body, refuse, respond, wait_disconnect
from transports.http_rules import HTTPRefusal

LIMIT = 100


def body_call(*pieces, then=None, **headers):
    """A call whose body comes in these pieces; ``then`` is the event after them, and nothing is ever after that."""
    events = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    if then is None:
        events[-1]["more_body"] = False
    else:
        events.append(then)

    async def receive():
        if events:
            return events.pop(0)
        return await asyncio.get_running_loop().create_future()

    async def send(event):
        raise AssertionError("nothing is to be sent")

    call = Call({"type": "http", "method": "POST", "headers": http_headers(**headers)}, receive, send)
    return call, events


class Body(bytearray):
    """Bytes of which it can be told whether they are there."""


@on_asyncio
async def test_what_a_refused_request_had_sent_is_gone_with_its_answer():
    """Whoever never looks for cycles again has its memory back all the same."""
    bodies = []

    async def serve(call):
        body = Body(b"x" * LIMIT)
        bodies.append(weakref.ref(body))
        try:
            body.decode("ascii").index("y")
        except ValueError as error:
            raise HTTPRefusal(404, f"not there: {error}") from error

    request = Request(lambda call: answered(serve, call))
    gc.disable()
    try:
        assert (await request.done()).status == 404
        del request
        assert [body() for body in bodies] == [None]
    finally:
        gc.enable()


async def answered(serve, call):
    try:
        await serve(call)
    except HTTPRefusal as refusal:
        await refuse(call, refusal)


GONE = {"type": "http.disconnect"}
NEVER = {"type": "http.request", "body": b"", "more_body": True}


@pytest.mark.parametrize("pieces", [[b""], [b"{}"], [b"{", b"}"], [b"", b"x" * LIMIT, b""], [b"x" * LIMIT]])
@on_asyncio
async def test_a_body_is_the_pieces_that_came(pieces):
    call, _ = body_call(*pieces)
    assert await read_body(call, LIMIT, timeout=60) == b"".join(pieces)


@on_asyncio
async def test_a_body_that_is_declared_too_long_is_refused_before_it_is_read_L8():
    call, events = body_call(b"x" * LIMIT, b"x", content_length=str(LIMIT + 1))
    with pytest.raises(HTTPRefusal) as refused:
        await read_body(call, LIMIT, timeout=60)
    assert refused.value.status == 413
    assert refused.value.headers == [(b"connection", b"close")]
    assert "server.max_body" in refused.value.message
    assert len(events) == 2


@pytest.mark.parametrize("pieces", [[b"x" * (LIMIT + 1)], [b"x" * LIMIT, b"x", b"unread"], [b"x" * 60] * 5])
@on_asyncio
async def test_a_body_that_grows_too_long_is_refused_when_it_has_L8(pieces):
    call, _ = body_call(*pieces)
    with pytest.raises(HTTPRefusal) as refused:
        await read_body(call, LIMIT, timeout=60)
    assert refused.value.status == 413


@pytest.mark.parametrize("declared", ["", "x", "-1", "9" * 5000, "²"])
@on_asyncio
async def test_an_odd_content_length_is_no_error_of_ours(declared):
    call, _ = body_call(b"{}", content_length=declared.encode().decode("latin-1"))
    try:
        body = await read_body(call, LIMIT, timeout=60)
    except HTTPRefusal as refused:
        body = refused.status
    assert body in (b"{}", 413)


@on_asyncio
async def test_a_body_that_does_not_come_in_time_is_refused_with_408_L7():
    call, _ = body_call(b"{", then=NEVER)
    with pytest.raises(HTTPRefusal) as refused:
        await read_body(call, LIMIT, timeout=0.001)
    assert refused.value.status == 408
    assert refused.value.headers == [(b"connection", b"close")]


@on_asyncio
async def test_a_body_of_which_not_even_the_beginning_comes_is_refused_with_408_L7():
    call, events = body_call(b"")
    events.clear()
    with pytest.raises(HTTPRefusal) as refused:
        await read_body(call, LIMIT, timeout=0.001)
    assert refused.value.status == 408


@pytest.mark.parametrize("pieces", [[], [b"{"]])
@on_asyncio
async def test_a_client_that_goes_in_the_middle_of_its_body_is_not_answered(pieces):
    call, _ = body_call(*pieces, then=GONE)
    with pytest.raises(ClientGone):
        await read_body(call, LIMIT, timeout=60)


@on_asyncio
async def test_a_response_has_its_length_and_a_body_its_type():
    empty = await Request(lambda call: respond(call, 202)).done()
    assert (empty.status, empty.headers, empty.complete) == (202, {b"content-length": b"0"}, True)
    full = await Request(lambda call: respond(call, 200, b"{}", [(b"x", b"y")])).done()
    assert full.headers == {b"content-length": b"2", b"x": b"y", b"content-type": b"application/json"}
    assert full.body == b"{}"


@on_asyncio
async def test_a_refusal_is_answered_with_its_status_error_and_headers():
    refusal = HTTPRefusal(503, "later", code=-5, id=7, headers=[(b"retry-after", b"1")])
    answer = await Request(lambda call: refuse(call, refusal)).done()
    assert (answer.status, answer.headers[b"retry-after"]) == (503, b"1")
    assert json.loads(answer.body) == {"jsonrpc": "2.0", "id": 7, "error": {"code": -5, "message": "later"}}


@on_asyncio
async def test_waiting_for_the_end_of_a_connection_skips_what_is_left_of_the_body():
    call, _ = body_call(b"x", b"", then=GONE)
    await wait_disconnect(call)
