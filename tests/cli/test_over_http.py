"""Whatever speaks JSON at a URL and is no muxsim is told from one, in words."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from muxsim.cli.over_http import OverHTTP
from muxsim.errors import NotRunning


@pytest.fixture
def stranger():
    """A server that answers all with the status and the bytes that it is set to, and its URL."""

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self):
            body = server.body
            self.send_response(server.status if self.command == "POST" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answering)
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [200, 403, 502])
@pytest.mark.parametrize("body", [b'{"ok": true}', b"[]", b'{"sessions": []}', b"<html>", b"null"])
@pytest.mark.parametrize("command", ["status", "sessions", "environments", "inspect", "reload", "logs", "loglevel"])
def test_what_is_no_muxsim_is_told_as_that(stranger, command, status, body):
    stranger.status, stranger.body = status, body
    with pytest.raises(NotRunning, match="does not answer as a muxsim"):
        OverHTTP(stranger.url, None).ask(command)


def test_why_nothing_answers_is_said_with_what_to_do(stranger):
    stranger.status, stranger.body = 200, b"{}"
    for url, words in (
        (stranger.url.replace("http:", "https:"), f"it speaks plain HTTP, without TLS: write {stranger.url}"),
        ("unix:/no/such/socket", "No such file or directory"),
        ("127.0.0.1:1", "missing an 'http://'"),
    ):
        with pytest.raises(NotRunning, match=f"{url} does not answer as a muxsim: .*{words}"):
            OverHTTP(url, None).ask("status")
