"""Runs in a browser while they are played: one page, on loopback, that asks again and again what is new.

Whoever can reach loopback on this machine is not yet its user: every URL begins with a secret, which stands in the
address that is printed. What episodes say is data, images and files of theirs run nothing.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from muxsim.errors import MuxsimError
from muxsim.rollouts.data.comparison import Comparison, ComparisonError, compare
from muxsim.rollouts.data.images import media_type
from muxsim.rollouts.data.row_file import RunError
from muxsim.rollouts.data.run_folder import FILES
from muxsim.rollouts.view.assets import SCRIPT, STYLE, asset
from muxsim.rollouts.view.following import FollowedRun
from muxsim.serve.watch.page import SECURITY

HOST: Final = "127.0.0.1"

_PAGE: Final = f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>muxsim runs</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{STYLE}">
<script src="{SCRIPT}" defer></script>
</head>
<body>
<noscript>This page draws itself with JavaScript, which is switched off here.</noscript>
<div id="app"></div>
</body>
</html>
"""
# Whatever it is, it can neither run a script nor ask for anything, also when it is opened by itself.
_OTHERS: Final = {"content-security-policy": "default-src 'none'; sandbox"}
# What may be looked at of the files that were kept, and as what; the rest can be found in the run's folder.
_SHOWN: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".pdf": "application/pdf",
    **dict.fromkeys((".txt", ".log", ".csv", ".json", ".jsonl", ".md"), "text/plain; charset=utf-8"),
}
# Seconds. Pages that are open ask every second; those in the background after ten.
_LAST_LOOK: Final = 3.0
_CLOSE: Final = 5.0


class ServeError(MuxsimError):
    """The page cannot be served. The message says why."""


class RunsServer:
    """Serves runs to browsers on this machine; ``url`` is where. Raises `ServeError`, and `NotBuilt`."""

    def __init__(self, port: int = 0) -> None:
        asset(SCRIPT)
        self._runs: dict[str, FollowedRun] = {}
        self._told_end = threading.Event()
        self._asked = False
        self._comparing = threading.Lock()
        self._compared: tuple[object, Comparison | None] = (), None
        self._socket = _bound(port)
        secret = secrets.token_urlsafe(16)
        self.url = f"http://{HOST}:{self._socket.getsockname()[1]}/{secret}/"
        config = uvicorn.Config(self._app(secret), log_config=None, access_log=False, lifespan="off", ws="none")
        config.timeout_graceful_shutdown = 1
        self._server = uvicorn.Server(config)

    def __repr__(self) -> str:
        return f"<RunsServer of {len(self._runs)} runs>"

    def show(self, run: FollowedRun) -> None:
        """Show this one too, behind the others."""
        self._runs[run.key] = run

    def run(self) -> None:
        """Serve until a signal comes."""
        try:
            self._server.run(sockets=[self._socket])
        except KeyboardInterrupt:
            return
        finally:
            self._socket.close()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Serve in a thread for the length of a block; pages that are open then have seen how it ended."""
        thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, name="runs", daemon=True)
        thread.start()
        try:
            yield
        finally:
            if self._asked:
                self._told_end.clear()
                self._told_end.wait(_LAST_LOOK)
            self._server.should_exit = True
            thread.join(_CLOSE)
            self._socket.close()

    def _app(self, secret: str) -> ASGIApp:
        routes = [
            Route("/", self._page),
            Route(f"/{SCRIPT}", self._script),
            Route(f"/{STYLE}", self._style),
            Route("/news", self._news),
            Route("/comparison", self._comparison),
            Route("/runs/{run}/episode", self._episode),
            Route("/runs/{run}/images/{name}", self._image),
            Route("/runs/{run}/files/{path:path}", self._file),
        ]
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"], www_redirect=False)
        app = Starlette(routes=[Mount(f"/{secret}", routes=routes)], middleware=[hosts, Middleware(_Guarded)])
        app.add_exception_handler(404, _nothing)
        return app

    # Plain functions, which Starlette has run in threads: they read files.

    def _page(self, request: Request) -> Response:
        return Response(_PAGE, media_type="text/html")

    def _script(self, request: Request) -> Response:
        return Response(asset(SCRIPT), media_type="text/javascript")

    def _style(self, request: Request) -> Response:
        return Response(asset(STYLE), media_type="text/css")

    def _news(self, request: Request) -> Response:
        news = [run.news(request.query_params.get(run.key, "")) for run in list(self._runs.values())]
        self._asked = True
        if not any(one.state == "running" or one.more for one in news):
            self._told_end.set()
        return _json(news)

    def _comparison(self, request: Request) -> Response:
        """How each run differs from the first, by what has been read of them; null where they cannot be compared."""
        runs = list(self._runs.values())
        with self._comparing:
            read = tuple(run.read_so_far for run in runs)
            if read != self._compared[0]:
                self._compared = read, _compared(runs)
            return _json(self._compared[1])

    def _episode(self, request: Request) -> Response:
        run = self._runs.get(request.path_params["run"])
        whole = run and run.episode(request.query_params.get("id", ""))
        return _nothing(request) if whole is None else _json(whole)

    def _image(self, request: Request) -> Response:
        run, name = self._runs.get(request.path_params["run"]), f"images/{request.path_params['name']}"
        content = run and run.image(name)
        if content is None:
            return _nothing(request)
        headers = {**_OTHERS, "cache-control": "private, max-age=31536000, immutable"}
        return Response(content, media_type=media_type(name), headers=headers)

    def _file(self, request: Request) -> Response:
        run = self._runs.get(request.path_params["run"])
        path = None if run is None else _kept(run.folder.path / FILES, request.path_params["path"])
        if path is None:
            return _nothing(request)
        return FileResponse(path, media_type=_SHOWN[path.suffix.lower()], headers=_OTHERS)


def _compared(runs: Sequence[FollowedRun]) -> Comparison | None:
    try:
        return compare(*(run.folder for run in runs))
    except (ComparisonError, RunError):  # there is one run, they have nothing in common, or one has no episode yet
        return None


class _Guarded:
    """Adds what has a browser keep the page to itself to each answer that does not say it more strictly."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                said = {name.lower() for name, _ in headers}
                more = [*SECURITY, (b"cache-control", b"no-store")]
                message = {**message, "headers": [*headers, *(one for one in more if one[0] not in said)]}
            await send(message)

        await self._app(scope, receive, guarded)


def _bound(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ServeError(f"port {port} cannot be had: {error.strerror or error}; choose another (--port)") from None


def _kept(folder: Path, path: str) -> Path | None:
    """A file that was kept and may be looked at; None for any other, wherever a path or a link in it leads."""
    root, file = folder.resolve(), (folder / path).resolve()
    return file if file.is_relative_to(root) and file.suffix.lower() in _SHOWN and file.is_file() else None


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _nothing(request: Request, _: Exception | None = None) -> Response:
    return PlainTextResponse("Nothing is here. Open the address that muxsim has printed, whole.", 404)
