"""A chat completions API on loopback, which plays the answers it is given and keeps the requests it got.

    with chat_server() as server:
        server.play(calls("move", {"direction": "left"}), refused(retry_after="1"), says("I give up."))
        ...  # ask server.url
        assert server.requests[0].body["model"] == "tiny"

Without an answer to play it says `server.otherwise`, which may also be a function of the request. It answers in one
piece or as a stream, as the request wants it. Threads of this process, so that tests see and steer everything.
"""

import base64
import itertools
import json
import socket
import threading
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PATH = "/v1/chat/completions"
# Characters of text or arguments in a piece of a stream: small, so that every text has several.
PIECE = 5
# Nothing here waits longer than a test may take.
LONGEST = 60
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


@dataclass(frozen=True)
class Answer:
    """What the server does with a request.

    A `message` is sent as a completion, with `choice` and `rest` added to it. `status` and `body` are sent as they are
    where `body` is set. The answer comes when the gate `wait` is open (of a stream all but
    the first piece), and with `hold` never. With `linger` a stream stays
    open behind its last event. `cut_after` breaks off
    after so many pieces of a stream, or bytes of a body; `error_after` says after as many pieces that all is lost.
    """

    message: dict | None = None
    finish_reason: str = "stop"
    choice: dict = field(default_factory=dict)
    rest: dict = field(default_factory=lambda: {"usage": USAGE})
    status: int = 200
    body: bytes | None = None
    headers: dict = field(default_factory=dict)
    wait: threading.Event | None = None
    hold: bool = False
    linger: bool = False
    cut_after: int | None = None
    error_after: int | None = None

    def but(self, **changes):
        """The same answer with other fields."""
        return replace(self, **changes)


def says(text, **fields):
    """A message without a tool call."""
    return Answer({"role": "assistant", "content": text}, **fields)


def calls(name, arguments, *more, **fields):
    """A message with tool calls: a name and arguments, and again; arguments that are text are sent as they are."""
    pairs = [(name, arguments), *zip(more[::2], more[1::2], strict=True)]
    made = [
        {
            "id": f"call_{next(_numbers)}",
            "type": "function",
            "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
        }
        for name, given in pairs
    ]
    return Answer({"role": "assistant", "content": None, "tool_calls": made}, finish_reason="tool_calls", **fields)


_numbers = itertools.count(1)


def fails(status, message="something broke", *, headers=None, **error):
    """An error in OpenAI's form."""
    body = {"error": {"message": message, "type": "error", "code": None, **error}}
    return Answer(status=status, body=json.dumps(body).encode(), headers=headers or {})


def refused(*, retry_after=None, retry_after_ms=None, **error):
    """The rate limit, with the headers that are given."""
    asked = {"retry-after": retry_after, "retry-after-ms": retry_after_ms}
    headers = {name: str(value) for name, value in asked.items() if value is not None}
    return fails(429, "slow down", headers=headers, **error)


def hangs():
    """No answer at all, for as long as the client waits."""
    return Answer(hold=True)


def with_tokens(answer, prompt, tokens, logprobs=None):
    """The answer with token ids where vLLM has them, and OpenAI's log probabilities."""
    choice = {"token_ids": tokens}
    if logprobs is not None:
        entries = [{"token": str(token), "logprob": value, "top_logprobs": []} for token, value in logprobs]
        choice["logprobs"] = {"content": entries}
    return answer.but(choice=choice, rest={**answer.rest, "prompt_token_ids": prompt})


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    path: str
    headers: dict
    body: dict

    @property
    def images(self):
        """The images that the model would see, in order: media type and bytes."""
        contents = [message.get("content") for message in self.body["messages"]]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        return [_image(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"]


def _image(url):
    media, _, data = url.removeprefix("data:").partition(";base64,")
    return media, base64.b64decode(data, validate=True)


class ChatServer:
    """The server's remote control."""

    def __init__(self, http):
        self._http = http
        self._answers = deque()
        self._changed = threading.Condition()
        self._in_flight = 0
        self.otherwise = says("I have nothing more to say.")
        self.requests = []
        self.most_in_flight = 0
        self._gates = []

    @property
    def url(self):
        """The base URL for a client."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def play(self, *answers):
        """Give these answers next, in this order."""
        self._answers.extend(answers)

    @property
    def left(self):
        """How many answers have not been given."""
        return len(self._answers)

    def gate(self):
        """An event for an answer to wait for; set at the latest when the server ends."""
        self._gates.append(threading.Event())
        return self._gates[-1]

    def open_gates(self):
        """Let all answers go that wait."""
        for gate in self._gates:
            gate.set()

    def answer_to(self, request):
        """Take the request down, and say what to do with it."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
            if self._answers:
                return self._answers.popleft()
        return self.otherwise(request) if callable(self.otherwise) else self.otherwise

    @contextmanager
    def counted(self):
        """Counts a request as being in flight."""
        with self._changed:
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= 1

    def wait_for_requests(self, number):
        """Return when so many requests have come. Blocks: a loop asks in a thread."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= number, LONGEST):
                raise TimeoutError(f"{len(self.requests)} requests came, not {number}")


@contextmanager
def chat_server():
    """A `ChatServer` on a free port, which ends at the block's end whatever it is doing."""
    http = _HttpServer(("127.0.0.1", 0), _Handler)
    server = http.chat = ChatServer(http)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.open_gates()
        http.shutdown()
        http.drop_connections()
        http.server_close()
        thread.join()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = False
    # Many clients at once are the point of some tests.
    request_queue_size = 256

    def __init__(self, *arguments):
        self._connections = set()
        super().__init__(*arguments)

    def process_request(self, request, client_address):
        self._connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request):
        self._connections.discard(request)
        super().close_request(request)

    def drop_connections(self):
        """End those that wait for a client's next request; their threads end with them."""
        for connection in list(self._connections):
            with suppress(OSError):  # ended meanwhile
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        """Clients that go are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Say nothing."""

    def do_POST(self):
        chat = self.server.chat
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        request = Request(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        with chat.counted():
            if self.path != PATH:
                self._send(fails(404, f"there is nothing at {self.path}"))
                return
            answer = chat.answer_to(request)
            if answer.hold:
                self._hold()
            elif answer.body is None and body.get("stream"):
                self._stream(answer, request)
            else:
                self._wait_for(answer.wait)
                self._send(answer if answer.body is not None else answer.but(body=_body(answer, body["model"])))

    def _wait_for(self, gate):
        if gate is not None:
            gate.wait(LONGEST)

    def _hold(self):
        # Readable means gone: whoever waits for an answer sends nothing more.
        self.connection.settimeout(LONGEST)
        with suppress(OSError):
            self.connection.recv(1)
        self.close_connection = True

    def _send(self, answer):
        self.send_response(answer.status)
        for name, value in {"content-type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body if answer.cut_after is None else answer.body[: answer.cut_after])
        self.close_connection |= answer.cut_after is not None

    def _stream(self, answer, request):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        wants_usage = (request.body.get("stream_options") or {}).get("include_usage")
        for number, event in enumerate(_events(answer, request.body["model"], wants_usage)):
            if number == answer.error_after:
                self._send_piece({"error": {"message": "the engine died", "type": "error", "code": 500}})
                break
            if number == answer.cut_after:
                self.close_connection = True
                return
            self._send_piece(event)
            self._wait_for(answer.wait)
        else:
            self._send_piece("[DONE]")
            if answer.linger:
                self._hold()
                return
        self.wfile.write(b"0\r\n\r\n")

    def _send_piece(self, event):
        text = event if isinstance(event, str) else json.dumps(event)
        data = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()


def _body(answer, model):
    choice = {"index": 0, "message": answer.message, "finish_reason": answer.finish_reason, **answer.choice}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model}
    return json.dumps({**head, "choices": [choice], **answer.rest}).encode()


def _events(answer, model, wants_usage):
    """The chunks of a stream: the role with what is said of the prompt, the pieces, the end, and the usage."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    of_prompt = {key: value for key, value in answer.rest.items() if key != "usage"}
    yield {**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}], **of_prompt}
    for delta in _deltas(answer.message):
        yield {**head, "choices": [{"index": 0, "delta": delta}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": answer.finish_reason, **answer.choice}]}
    if wants_usage and "usage" in answer.rest:
        yield {**head, "choices": [], "usage": answer.rest["usage"]}


def _deltas(message):
    for key in ("reasoning_content", "content"):
        for piece in _pieces(message.get(key)):
            yield {key: piece}
    for index, call in enumerate(message.get("tool_calls", ())):
        begun = {"name": call["function"]["name"], "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": begun}]}
        for piece in _pieces(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _pieces(text):
    return [text[start : start + PIECE] for start in range(0, len(text or ""), PIECE)]
