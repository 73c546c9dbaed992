"""A pool behind a URL, whose muxsim answers as each test says."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

import muxsim
from muxsim.errors import Busy, StartError, UnknownEnvironment
from muxsim.rollouts.environments.environment import CallTimeout, EnvironmentGone, MachineryFailed
from muxsim.rollouts.environments.remote import Address

from .scripted_http import answer, scripted_http

LIMIT = 300  # s, on a machine that is busy with others
ENVS = answer(200, {"environments": [{"name": "lake"}]})
CALLED = {"content": [{"type": "text", "text": "you move"}], "_meta": {"muxsim/control": {"reward": 1.0}}}


def made(request):
    """A session, with URLs of the server that was asked."""
    base = f"http://{request.headers['host']}"
    urls = {"mcp": f"{base}/s/one/mcp", "sse": f"{base}/s/one/sse", "session": f"{base}/sessions/one"}
    return answer(201, {"id": "one", "seed": 4, "urls": urls})


def message(request, result):
    id = json.loads(request.body).get("id")
    return {"jsonrpc": "2.0", "id": id, "result": result}


def muxsim_says(**answers):
    """Answers as a muxsim does; ``answers`` are functions of the request by path or method that know better."""
    by_method = {
        "initialize": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "serverInfo": {"name": "x", "version": "1"},
        },
        "tools/list": {"tools": [{"name": "move", "inputSchema": {"type": "object"}}]},
        "resources/read": {"contents": [{"uri": "control://initial_state", "text": "7"}]},
        "tools/call": CALLED,
    }

    def say(request):
        if request.line == "GET /envs":
            return ENVS
        if request.method == "DELETE":
            return answer(204)
        if request.path == "/sessions":
            return answers.get("made", made)(request)
        if request.method == "GET":
            return answers.get("GET", lambda request: answer(405))(request)
        said = json.loads(request.body)
        if "method" not in said:
            return answers.get("answered", lambda request: answer(202))(request)
        method = said["method"]
        if method in answers:
            return answers[method](request)
        if method not in by_method:
            return answer(202)
        return answer(200, message(request, by_method[method]), content_type="application/json", mcp_session_id="sid")

    return say


@asynccontextmanager
async def pool_of(say, wire="http"):
    async with scripted_http(say) as server, muxsim.connect(server.url, wire=wire) as pool:
        with trio.fail_after(LIMIT):
            yield pool, server


async def refusal(say, wire="http"):
    """What opening raises, and the requests that were made."""
    async with pool_of(say, wire) as (pool, server):
        with pytest.raises((Busy, StartError, UnknownEnvironment)) as caught:
            await pool.open("lake", 4)
        return caught.value, server.lines


def refuses(status, text, **headers):
    return muxsim_says(made=lambda request: answer(status, {"error": {"message": text}}, **headers))


async def test_a_full_muxsim_says_when_to_come_again():
    fault, _ = await refusal(refuses(503, "all sessions are taken", retry_after="7"))
    assert (type(fault), str(fault), fault.retry_after) == (Busy, "all sessions are taken", 7.0)


async def test_an_environment_that_is_not_served_is_named():
    fault, _ = await refusal(refuses(404, "no environment is called lake"))
    assert (type(fault), str(fault)) == (UnknownEnvironment, "no environment is called lake")


TOLD = {
    "as it is": (answer(200, {"name": "lake", "parts": {"lake.py": "0a", "package gymnasium": "1.2"}}), 2),
    "one that does not tell": (answer(404, {"error": {"message": "there is nothing at /envs/lake"}}), 0),
    "a token that is not good for it": (answer(403, {"error": {"message": "this needs a token"}}), 0),
    "no parts": (answer(200, {"name": "lake"}), 0),
    "something else": (answer(200, {"parts": {"lake.py": ["0a"]}}), 0),
    "no JSON": (answer(200, b"<html>", content_type="text/html"), 0),
}


@pytest.mark.parametrize("kind", TOLD)
async def test_what_an_environment_consists_of_is_known_where_its_server_tells_it(kind):
    said, count = TOLD[kind]
    async with pool_of(muxsim_says(GET=lambda request: said)) as (pool, server):
        assert len(await pool.parts("lake")) == count
        assert server.lines[-1] == "GET /envs/lake"


async def test_a_start_that_failed_there_has_its_reason():
    fault, _ = await refusal(refuses(502, "server.py does not exist"))
    assert (type(fault), str(fault)) == (StartError, "server.py does not exist")


async def test_a_muxsim_that_cannot_be_reached_is_a_failed_start():
    async with pool_of(muxsim_says()) as (pool, _):
        async with scripted_http(muxsim_says()) as gone:
            pass
        pool.url, pool._address = gone.url, Address(gone.url, gone.url)
        with pytest.raises(StartError) as caught:
            await pool.open("lake", 4)
    assert str(caught.value).startswith(f"{gone.url} cannot be reached: ")


@pytest.mark.parametrize("wire", ["http", "sse"])
async def test_a_session_that_cannot_be_spoken_to_is_not_left_behind(wire):
    def say(request):
        return answer(404) if request.path.startswith("/s/") else muxsim_says()(request)

    fault, requests = await refusal(say, wire)
    assert isinstance(fault, StartError)
    assert requests[-1] == "DELETE /sessions/one"
    assert requests.count("DELETE /sessions/one") == 1


async def test_messages_of_a_session_take_one_connection_and_say_whose_they_are():
    async with pool_of(muxsim_says()) as (pool, server):
        environment = await pool.open("lake", 4)
        for _ in range(3):
            result = await environment.call("move", {})
            assert (result.content, result.control.reward) == (CALLED["content"], 1.0)
        await environment.close()
    messages = [request for request in server.requests if request.line == "POST /s/one/mcp"]
    assert len({request.connection for request in messages}) == 1
    assert "mcp-session-id" not in messages[0].headers
    assert {request.headers["mcp-session-id"] for request in messages[1:]} == {"sid"}
    assert {request.headers["mcp-protocol-version"] for request in messages[1:]} == {"2025-11-25"}


def events(request):
    """An answer as an event stream, which the server leaves open."""
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}
    data = "".join(f"data: {json.dumps(each)}\n\n" for each in (progress, message(request, CALLED))).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n" % (len(data), data)


def refused(status, code=-32003, cause="max_waiting", **headers):
    """As muxsim refuses a message that has gone nowhere."""
    error = {"code": code, "message": "as many wait as may", "data": {"cause": cause}}
    return lambda request: answer(status, {"jsonrpc": "2.0", "id": None, "error": error}, **headers)


def result_for(id):
    return lambda request: answer(200, {"jsonrpc": "2.0", "id": id, "result": CALLED})


FAULTS = [
    (lambda request: None, MachineryFailed, "the connection was closed before the answer"),
    (lambda request: answer(404), MachineryFailed, "the session is not there any more"),
    (lambda request: answer(502, b"Bad Gateway"), MachineryFailed, "HTTP status 502"),
    (lambda request: answer(500, message(request, CALLED)), MachineryFailed, "HTTP status 500"),
    (lambda request: answer(503, b"", retry_after="0"), MachineryFailed, "HTTP status 503"),
    (refused(503), MachineryFailed, "HTTP status 503: as many wait as may"),
    (refused(429, retry_after="soon"), MachineryFailed, "HTTP status 429"),
    (refused(503, retry_after="0"), MachineryFailed, "took none of 10 tries"),
    (lambda request: answer(400, {"jsonrpc": "2.0", "id": None, "error": {}}), MachineryFailed, "HTTP status 400"),
    (lambda request: answer(200, b"<html>"), MachineryFailed, "HTTP status 200"),
    (lambda request: answer(202), MachineryFailed, "HTTP status 202, and no answer"),
    (result_for(77), MachineryFailed, "no answer to the message"),
    (result_for("1"), MachineryFailed, "no answer to the message"),
    (lambda request: [], CallTimeout, "move: no answer within 0.1 s"),
]


@pytest.mark.parametrize(("say", "fault", "text"), FAULTS)
async def test_a_call_without_an_answer_says_why(say, fault, text):
    async with pool_of(muxsim_says(**{"tools/call": say})) as (pool, _):
        environment = await pool.open("lake", 4)
        with pytest.raises(fault, match=text):
            await environment.call("move", {}, timeout=0.1 if fault is CallTimeout else None)
        await environment.close()


def ended(cause, code=-32000, **data):
    """What a muxsim says of a session that is there no more."""
    error = {"code": code, "message": f"it ended: {cause}", "data": {"cause": cause, **data}}
    return answer(404, {"jsonrpc": "2.0", "id": None, "error": error})


@pytest.mark.parametrize(
    ("said", "fault", "text", "last_words"),
    [
        (ended("backend_exited", stderr=["a word"]), EnvironmentGone, "it ended: backend_exited", ["a word"]),
        (ended("start_timeout", -32002), EnvironmentGone, "it ended: start_timeout", []),
        (ended("internal_error", -32002), MachineryFailed, "it ended: internal_error", []),
        (answer(404, {"error": "no such session"}), MachineryFailed, "the session is not there any more", []),
        (answer(200, {"id": "one"}), MachineryFailed, "the session is not there any more", []),
        (None, MachineryFailed, "the session is not there any more", []),
    ],
    ids=["exited", "not started", "a bug", "unknown", "another one now", "no answer"],
)
async def test_a_call_that_comes_too_late_for_its_session_says_how_that_has_ended(said, fault, text, last_words):
    says = {"tools/call": lambda request: answer(404), "GET": lambda request: said}
    async with pool_of(muxsim_says(**says)) as (pool, server):
        environment = await pool.open("lake", 4)
        with pytest.raises(fault, match=text) as caught:
            await environment.call("move", {})
        assert list(getattr(caught.value, "stderr", [])) == last_words
        await environment.close()
    assert "GET /sessions/one" in server.lines


@pytest.mark.parametrize("status", [429, 503])
async def test_a_call_that_muxsim_did_not_take_is_made_again(status):
    answers = [refused(status, retry_after="0"), refused(status, retry_after="0")]

    def say(request):
        if answers:
            return answers.pop(0)(request)
        return answer(200, message(request, CALLED))

    async with pool_of(muxsim_says(**{"tools/call": say})) as (pool, _):
        environment = await pool.open("lake", 4)
        assert (await environment.call("move", {})).content == CALLED["content"]
        assert answers == []
        await environment.close()


async def test_a_call_that_may_have_been_carried_out_is_never_made_twice():
    calls = []

    def say(request):
        calls.append(request)
        return answer(503, b"upstream", retry_after="0")

    async with pool_of(muxsim_says(**{"tools/call": say})) as (pool, _):
        environment = await pool.open("lake", 4)
        with pytest.raises(MachineryFailed):
            await environment.call("move", {})
        await environment.close()
    assert len(calls) == 1


ASKED = [
    ("ping", {"result": {}}),
    ("roots/list", {"result": {"roots": []}}),
    ("elicitation/create", {"result": {"action": "decline"}}),
    ("sampling/createMessage", {"error": {"code": -1, "message": "User rejected sampling request"}}),
    ("tasks/list", {"error": {"code": -32601, "message": "this client has no tasks/list"}}),
]


@pytest.mark.parametrize("where", ["tools/call", "GET"])
@pytest.mark.parametrize(("method", "said"), ASKED)
async def test_what_a_server_asks_is_answered_wherever_it_comes(where, method, said):
    answered = trio.Event()

    def asks(request):
        question = {"jsonrpc": "2.0", "id": "q", "method": method}
        last = [message(request, CALLED)] if where == "tools/call" else []
        data = "".join(f"data: {json.dumps(each)}\n\n" for each in (question, *last)).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        return head + b"%x\r\n%b\r\n" % (len(data), data)

    def take(request):
        assert json.loads(request.body) == {"jsonrpc": "2.0", "id": "q", **said}
        answered.set()
        return answer(202)

    async with pool_of(muxsim_says(**{where: asks, "answered": take})) as (pool, _):
        environment = await pool.open("lake", 4)
        assert (await environment.call("move", {})).content == CALLED["content"]
        await answered.wait()
        await environment.close()


async def test_a_session_that_is_there_for_all_is_not_ended_by_one_who_used_it():
    envs = answer(200, {"environments": [{"name": "lake", "shared": True}]})

    def say(request):
        return envs if request.line == "GET /envs" else muxsim_says()(request)

    async with pool_of(say) as (pool, server):
        environment = await pool.open("lake", 9)
        assert environment.seed == 4, "the one that the session was started with"
        await environment.close()
    deleted = [request for request in server.requests if request.method == "DELETE"]
    assert [(one.path, one.headers.get("mcp-session-id")) for one in deleted] == [("/s/one/mcp", "sid")]


async def test_an_answer_may_come_as_an_event_stream():
    async with pool_of(muxsim_says(**{"tools/call": events})) as (pool, _):
        environment = await pool.open("lake", 4)
        assert (await environment.call("move", {})).content == CALLED["content"]
        assert (await environment.call("move", {})).content == CALLED["content"]
        await environment.close()


async def test_a_proxy_between_is_used_for_the_messages_too(monkeypatch):
    def forward(request):
        return muxsim_says()(replace(request, path=request.path.removeprefix("http://muxsim.test")))

    async with scripted_http(forward) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        async with muxsim.connect("http://muxsim.test") as pool:
            with trio.fail_after(LIMIT):
                environment = await pool.open("lake", 4)
                assert (await environment.call("move", {})).content == CALLED["content"]
                await environment.close()
    posted = "POST http://muxsim.test/s/one/mcp"
    assert proxy.lines.count(posted) == 5


# ---- tokens

TOKEN = "t" * 40


@pytest.mark.parametrize("wire", ["http", "sse"])
async def test_a_token_goes_with_every_request(wire):
    """L21."""

    def say(request):
        return answer(404) if request.path == "/s/one/sse" else muxsim_says()(request)

    async with scripted_http(say) as server, muxsim.connect(server.url, wire=wire, token=TOKEN) as pool:
        with trio.fail_after(LIMIT):
            if wire == "http":
                environment = await pool.open("lake", 4)
                await environment.call("move", {})
                await environment.close()
            else:
                with pytest.raises(StartError):
                    await pool.open("lake", 4)
    assert len(server.requests) > 3
    assert {request.headers.get("authorization") for request in server.requests} == {f"bearer {TOKEN}"}
    assert TOKEN not in repr(pool)


async def test_a_token_goes_to_no_other_server_whatever_the_answer_names():
    """L21: a muxsim behind a proxy names itself as the proxy calls it; one that is not to be trusted, anybody."""
    async with scripted_http(muxsim_says()) as evil:

        def elsewhere(request):
            urls = {name: f"{evil.url}/s/one/{name}" for name in ("mcp", "sse", "session")}
            return answer(201, {"id": "one", "seed": 4, "urls": urls})

        async with (
            scripted_http(muxsim_says(made=elsewhere)) as server,
            muxsim.connect(server.url, token=TOKEN) as pool,
        ):
            with trio.fail_after(LIMIT):
                await (await pool.open("lake", 4)).close()
        assert evil.lines == []
        assert server.lines[-1] == "DELETE /s/one/session"


async def test_an_event_stream_that_names_another_server_to_post_to_is_not_followed():
    """L21."""
    async with scripted_http(muxsim_says()) as evil:

        def say(request):
            if request.path != "/s/one/sse":
                return muxsim_says()(request)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
            return [head + f"event: endpoint\ndata: {evil.url}/messages\n\n".encode(), None]

        fault, _ = await refusal(say, "sse")
        assert "another server" in "".join(str(one) for one in getattr(fault, "exceptions", [fault]))
        assert evil.lines == []


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_that_is_not_good_is_told_at_once(status):
    say = scripted_http(lambda request: answer(status, {"error": {"message": "the token is not valid here"}}))
    async with say as server:
        with pytest.raises(StartError, match="wants another token: the token is not valid here") as caught:
            async with muxsim.connect(server.url, token=TOKEN):
                pass
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_that_is_not_good_any_more_ends_the_episode_and_is_no_result(status):
    async with pool_of(
        muxsim_says(**{"tools/call": lambda request: answer(status, {"jsonrpc": "2.0", "id": None, "error": {}})})
    ) as (pool, _):
        environment = await pool.open("lake", 4)
        with pytest.raises(MachineryFailed, match=f"refuses the token: HTTP status {status}"):
            await environment.call("move", {})


@pytest.mark.parametrize("token", ["two words" + TOKEN, TOKEN + "\n", TOKEN + "\r\nX: y", "", "tökën" * 8])
async def test_what_cannot_be_a_token_is_never_sent_nor_shown(token):
    """L21."""
    async with scripted_http(muxsim_says()) as server:
        with pytest.raises(StartError, match="the token has characters") as caught:
            async with muxsim.connect(server.url, token=token):
                pass
    assert TOKEN not in str(caught.value)
    assert server.lines == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "is not the URL of a muxsim"),
        ("lab", "is not the URL of a muxsim"),
        ("http://", "is not the URL of a muxsim"),
        ("ftp://127.0.0.1", "is not the URL of a muxsim"),
        ("file:///etc/passwd", "is not the URL of a muxsim"),
        ("http://[::1", "is no URL"),
        ("http://127.0.0.1:1\n2", "is no URL"),
        ("http://127.0.0.1:99999", "is no URL|cannot|no muxsim answers"),
        ("http://somebody:secret@127.0.0.1:1", "a token, which is given apart"),
        ("http://127.0.0.1:1?env=lake", "something behind its path"),
        ("http://127.0.0.1:1#lake", "something behind its path"),
    ],
)
async def test_whatever_is_given_as_a_url_is_one_error_that_says_what_to_give(url, said):
    with trio.fail_after(LIMIT), pytest.raises(StartError, match=said) as caught:
        async with muxsim.connect(url):
            pass
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        answer(200, {"environments": [{"nom": "lake"}]}),
        answer(200, {"environments": 3}),
        answer(200, ["lake"]),
        answer(404, {"error": "no"}),
        answer(200, None),
    ],
)
async def test_what_is_no_muxsim_is_said_to_be_none(said):
    async with scripted_http(lambda request: said) as server:
        with trio.fail_after(LIMIT), pytest.raises(StartError, match=r"no muxsim answers at .* gave HTTP status"):
            async with muxsim.connect(server.url):
                pass


async def test_why_tls_failed_is_said():
    async def speaks_no_tls(stream):
        async with stream:
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, speaks_no_tls, [listener])
        port = listener.socket.getsockname()[1]
        with trio.fail_after(LIMIT), pytest.raises(StartError, match=r"(?i)ssl|tls"):
            async with muxsim.connect(f"https://127.0.0.1:{port}"):
                pass
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wire", ["http", "sse"])
async def test_an_exception_of_the_block_comes_out_as_itself(wire):
    async with scripted_http(muxsim_says()) as server:
        with trio.fail_after(LIMIT), pytest.raises(ZeroDivisionError):
            async with muxsim.connect(server.url, wire=wire):
                raise ZeroDivisionError
