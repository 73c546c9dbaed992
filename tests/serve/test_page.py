"""The dashboard's page: what a browser gets at ``/``, and what everybody else does."""

import gzip

import pytest

from muxsim.serve.watch.page import Page
from transports.asgi import Call
from transports.http_rules import HTTPRefusal

from .wire import ask

BROWSER = ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
SCRIPT = b"console.log('here')\n" * 100


@pytest.fixture
def page(tmp_path):
    """A build of two files, as Vite makes them."""
    (tmp_path / "index.html").write_text('<!doctype html><script type="module" src="./ui/index-BxUq3_a1.js"></script>')
    (tmp_path / "ui").mkdir()
    (tmp_path / "ui" / "index-BxUq3_a1.js").write_bytes(SCRIPT)
    (tmp_path / "ui" / "notes.txt").write_text("not for anybody")
    (tmp_path / "secret.js").write_text("outside")
    return Page(tmp_path, prefix="/muxsim")


async def get(page, path, *headers, raw_path=None, method="GET"):
    """The status, headers and body of what the page sends."""
    sent = []

    async def send(event):
        sent.append(event)

    lines = [(name.lower().encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "headers": lines, "client": ("127.0.0.1", 1)}
    scope["raw_path"] = (path if raw_path is None else raw_path).encode()
    call = Call(scope, None, send)
    assert page.takes(call)
    await page.answer(call)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


async def test_a_browser_gets_the_page_and_asks_again_whether_it_is_still_the_same(page):
    status, headers, body = await get(page, "/", BROWSER)
    assert (status, headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
    assert b"./ui/index-BxUq3_a1.js" in body
    assert headers[b"cache-control"] == b"no-cache"
    again = await get(page, "/", BROWSER, ("If-None-Match", headers[b"etag"].decode()))
    assert (again[0], again[2]) == (304, b"")


@pytest.mark.parametrize("tokens", [False, True])
async def test_the_page_knows_before_it_asks_for_anything_whether_a_token_is_wanted(tmp_path, tokens):
    (tmp_path / "index.html").write_text('<!doctype html><html lang="en"></html>')
    _, headers, body = await get(Page(tmp_path, tokens=tokens), "/", BROWSER)
    assert (b"<html data-tokens lang" in body) is tokens
    assert headers[b"content-length"] == b"%d" % len(body)


async def test_a_file_with_a_hash_in_its_name_is_kept_for_good_and_comes_packed_to_who_can_unpack_it(page):
    status, headers, body = await get(page, "/ui/index-BxUq3_a1.js", ("Accept-Encoding", "gzip, br"))
    assert (status, headers[b"content-type"]) == (200, b"text/javascript; charset=utf-8")
    assert b"immutable" in headers[b"cache-control"]
    assert gzip.decompress(body) == SCRIPT
    assert (await get(page, "/ui/index-BxUq3_a1.js"))[2] == SCRIPT


@pytest.mark.parametrize(
    "name", ["", "nothing-12345678.js", "../secret.js", "..%2fsecret.js", "notes.txt", "../index.html"]
)
async def test_nothing_but_the_files_of_the_build_is_served(page, name):
    with pytest.raises(HTTPRefusal) as refused:
        await get(page, f"/ui/{name}")
    assert refused.value.status == 404


async def test_the_page_without_a_slash_behind_a_proxys_path_is_found_with_one(page):
    status, headers, _ = await get(page, "/", BROWSER, raw_path="/muxsim")
    assert (status, headers[b"location"]) == (308, b"/muxsim/")
    assert (await get(page, "/", BROWSER, raw_path="/muxsim/"))[0] == 200


async def test_a_muxsim_that_was_built_without_its_page_says_how_to_get_it(tmp_path):
    status, headers, body = await get(Page(tmp_path), "/", BROWSER)
    assert (status, headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
    assert b"npm run build" in body


@pytest.mark.children
async def test_whoever_does_not_ask_for_html_gets_json_at_the_same_place(muxsim):
    for accept in ([], [("Accept", "*/*")], [("Accept", "application/json")]):
        assert (await ask(muxsim.url, "GET", "/", accept)).json()["name"] == "muxsim"
    answer = await ask(muxsim.url, "GET", "/", [BROWSER])
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.children
async def test_a_link_on_another_site_leads_to_the_page_but_no_frame_and_no_script_does(muxsim):
    link = [BROWSER, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]
    assert (await ask(muxsim.url, "GET", "/", link)).status == 200
    assert (await ask(muxsim.url, "GET", "/sessions", link)).status == 403
    for changed in (("Sec-Fetch-Dest", "iframe"), ("Sec-Fetch-Mode", "no-cors")):
        other = [pair for pair in link if pair[0] != changed[0]] + [changed]
        assert (await ask(muxsim.url, "GET", "/", other)).status == 403
    assert (await ask(muxsim.url, "GET", "/", [*link, ("Host", "evil.example")])).status == 421


@pytest.mark.children
async def test_the_page_can_act_where_no_token_is_needed_and_a_page_from_elsewhere_cannot(muxsim):
    own = [("Origin", muxsim.url), ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "cors")]
    foreign = [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "cors")]
    wish = {"env": "naughty", "id": "by-a-page"}
    assert (await ask(muxsim.url, "POST", "/sessions", foreign, wish)).status == 403
    assert (await ask(muxsim.url, "POST", "/sessions", own, wish)).status == 201
    for path in ("/watch", "/watch/sessions/by-a-page"):
        assert (await ask(muxsim.url, "GET", path, [*foreign, ("Accept", "text/event-stream")])).status == 403
    assert (await ask(muxsim.url, "DELETE", "/sessions/by-a-page", foreign)).status == 403
    assert (await ask(muxsim.url, "DELETE", "/sessions/by-a-page", own)).status == 204
