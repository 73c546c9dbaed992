"""The dashboard's page and its files. They hold no secret: all that is shown the page asks for itself."""

from __future__ import annotations

import functools
import gzip
import hashlib
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from muxsim.access import network_of
from muxsim.serve.http.unread import Reader, read_by
from transports.asgi import Call
from transports.http_rules import HTTPRefusal, RawHeaders, header

BUILT: Final = Path(str(resources.files("muxsim"))) / "serve" / "ui"
"""Where the build of `dashboard/` is put: ``index.html``, and its files in ``ui/``."""

PATH: Final = "/ui/"
"""What the paths of the page's files begin with."""

# As the OWASP cheat sheets ask: nothing but what comes from here is loaded, run, framed or told where it came from.
SECURITY: Final[RawHeaders] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"),
)

_HTML: Final = b"text/html; charset=utf-8"
_TYPES: Final = {
    ".html": _HTML,
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".json": b"application/json",
    ".svg": b"image/svg+xml",
    ".png": b"image/png",
    ".ico": b"image/x-icon",
    ".woff2": b"font/woff2",
}
_PACKED: Final = frozenset({".png", ".woff2", ".ico"})
# A name with the hash of what is in it, as Vite makes them: under this name there will never be anything else.
_HASHED: Final = re.compile(r".+-[A-Za-z0-9_-]{8}\.[a-z0-9]+")
_FOREVER: Final = b"public, max-age=31536000, immutable"
# Ask each time whether it is still the same.
_ANEW: Final = b"no-cache"

_NOT_BUILT: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>muxsim</title>
<h1>muxsim is here, its dashboard is not</h1>
<p>This muxsim was built where there was no node. Everything else works: a program that asks this address for JSON gets
it, and <code>muxsim ps</code> and <code>muxsim top</code> show what goes on.</p>
<p>To have the dashboard install a wheel that was built with it, or build it in a copy of the source, with Node 20 or
newer:</p>
<pre>npm ci --prefix dashboard
npm run build --prefix dashboard
pip install .</pre>
</html>
"""


@dataclass(frozen=True)
class _File:
    """A file as it is sent."""

    body: bytes
    packed: bytes | None
    etag: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class Page:
    """Serves a build of the dashboard. Runs on asyncio."""

    def __init__(self, folder: Path = BUILT, prefix: str = "", *, tokens: bool = False) -> None:
        """``prefix`` is the path that a proxy serves muxsim under; with ``tokens`` the page asks for one at once."""
        self._folder = folder
        self._prefix = prefix
        self._tokens = tokens

    def __repr__(self) -> str:
        return f"<Page {'built' if self._index is not None else 'not built'}>"

    def takes(self, call: Call) -> bool:
        """Whether a request is for the page, or for a file of it: by its path, and at ``/`` by what it accepts."""
        path: str = call.scope["path"]
        if call.scope["method"] not in ("GET", "HEAD"):
            return False
        return path.startswith(PATH) or (path == "/" and _wants_html(call.headers))

    async def answer(self, call: Call) -> None:
        """Send what a request asks for."""
        read_by(call, Reader(network_of(call.peer)))
        if call.scope["path"] != "/":
            await _send(call, self._file(call.scope["path"].removeprefix(PATH)))
        elif self._prefix and call.scope.get("raw_path", b"").decode("latin-1") == self._prefix:
            # The page's own URLs are relative to its folder.
            await _respond(call, 308, b"", [(b"location", f"{self._prefix}/".encode())])
        else:
            await _send(call, self._index or _not_built())

    @functools.cached_property
    def _index(self) -> _File | None:
        file = self._folder / "index.html"
        if not file.is_file():
            return None
        body = file.read_bytes()
        return _made(body.replace(b"<html", b"<html data-tokens", 1) if self._tokens else body, file.name)

    @functools.cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(path.name for path in (self._folder / "ui").glob("*") if path.suffix in _TYPES)

    @functools.cached_property
    def _files(self) -> dict[str, _File]:
        return {}

    def _file(self, name: str) -> _File:
        if name not in self._names:  # which are few, and none leads out of the folder
            raise HTTPRefusal(404, f"the dashboard has no file {name!r}; reload its page")
        if name not in self._files:
            self._files[name] = _read(self._folder / "ui" / name)
        return self._files[name]


def _wants_html(headers: RawHeaders) -> bool:
    """Whether it is a browser that asks; programs ask for JSON, or take anything."""
    kinds = ",".join(value.decode("latin-1") for name, value in headers if name == b"accept")
    return any(kind.split(";", 1)[0].strip().lower() == "text/html" for kind in kinds.split(","))


@functools.cache
def _not_built() -> _File:
    return _made(_NOT_BUILT.encode(), "index.html")


def _read(path: Path) -> _File:
    return _made(path.read_bytes(), path.name)


def _made(body: bytes, name: str) -> _File:
    suffix = Path(name).suffix
    packed = None if suffix in _PACKED else gzip.compress(body, mtime=0)
    etag = b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()
    caching = _FOREVER if _HASHED.fullmatch(name) else _ANEW
    vary = b"accept, accept-encoding" if suffix == ".html" else b"accept-encoding"
    headers = ((b"content-type", _TYPES[suffix]), (b"cache-control", caching), (b"etag", etag), (b"vary", vary))
    return _File(body, packed if packed is not None and len(packed) < len(body) else None, etag, headers)


async def _send(call: Call, file: _File) -> None:
    if file.etag in (header(call.headers, b"if-none-match") or "").encode("latin-1"):
        await _respond(call, 304, b"", file.headers)
        return
    accepted = [part.split(";", 1)[0].strip() for part in (header(call.headers, b"accept-encoding") or "").split(",")]
    if file.packed is not None and "gzip" in accepted:
        await _respond(call, 200, file.packed, (*file.headers, (b"content-encoding", b"gzip")))
    else:
        await _respond(call, 200, file.body, file.headers)


async def _respond(call: Call, status: int, body: bytes, headers: RawHeaders) -> None:
    fields = [*SECURITY, *headers]
    if status != 304:
        fields.append((b"content-length", b"%d" % len(body)))
    call.answered = True
    await call.send({"type": "http.response.start", "status": status, "headers": fields})
    await call.send({"type": "http.response.body", "body": body})
