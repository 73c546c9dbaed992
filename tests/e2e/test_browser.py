"""A page in a browser, of another origin than muxsim's, plays a session where its origin is allowed, and only there."""

import functools
import http.server
import json
import threading
from urllib.parse import urlencode

import pytest
import trio
from harness import muxsim_serve

from .chromium import chromium
from .conftest import HERE, Gateway
from .games import GAMES, GRID, LAKE
from .python_clients import DEADLINE, LATEST_HANDSHAKE, posted_session

pytestmark = [pytest.mark.children, pytest.mark.browser]

CONFIG = """
[server]
allowed_origins = ["{origin}"]

[environments.frozen_lake]
command = "{lake[1]}"
args = ["--seed", "{{seed}}"]

[environments.treasure_grid]
command = "node"
args = ["{grid[1]}", "--seed", "{{seed}}"]
"""

# Resolves with the title when the page has come to its end.
TITLE_AT_THE_END = """new Promise((resolve) => {
  const look = () => (/^(done|failed)/.test(document.title) ? resolve(document.title) : setTimeout(look, 20));
  look();
})"""

WHAT_IS_SHOWN = """({
  record: JSON.parse(document.querySelector('#record').textContent),
  state: document.querySelector('#state').textContent,
  steps: [...document.querySelectorAll('#steps li')].map((item) => item.innerText),
  now: document.querySelector('#now').innerText,
  facts: Object.fromEntries([...document.querySelectorAll('dt')].map((name) =>
    [name.textContent, name.nextElementSibling.textContent])),
})"""

# Streamable HTTP by fetch, as a page of any origin has to do it: with headers that need a preflight.
FETCHED = """(async (revision, url, calls) => {
  const post = async (message, more = {}) => {
    const headers = {
      'Content-Type': 'application/json', Accept: 'application/json, text/event-stream',
      'MCP-Protocol-Version': revision, ...more,
    };
    return fetch(url, { method: 'POST', headers, body: JSON.stringify({ jsonrpc: '2.0', ...message }) });
  };
  try {
    const clientInfo = { name: 'page', version: '0' };
    const params = { protocolVersion: revision, capabilities: {}, clientInfo };
    const hello = await post({ id: 0, method: 'initialize', params });
    const session = { 'Mcp-Session-Id': hello.headers.get('Mcp-Session-Id') };
    await post({ method: 'notifications/initialized' }, session);
    const answers = [];
    for (const [index, params] of calls.entries()) {
      answers.push(await (await post({ id: index + 1, method: 'tools/call', params }, session)).json());
    }
    const ended = await fetch(url, { method: 'DELETE', headers: session });
    return { texts: answers.map(({ result }) => result.content[0].text), ended: ended.status };
  } catch (error) {
    return { error: `${error.name}: ${error.message}` };
  }
})"""


@pytest.fixture(scope="module")
def page_port():
    """Where the folder of the page is served, by a server that is not muxsim."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Nothing: pytest shows enough."""

    handler = functools.partial(Quiet, directory=HERE / "page")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def _gateway(tmp_path_factory, page_port):
    folder = tmp_path_factory.mktemp("browser")
    config = CONFIG.format(origin=f"http://127.0.0.1:{page_port}", lake=LAKE.server, grid=GRID.server)
    with muxsim_serve(folder, config) as running:
        yield Gateway(folder / "config" / "muxsim.toml", running)


@pytest.fixture
def gateway(_gateway):
    """A muxsim that allows the page on 127.0.0.1. To a browser the same page on localhost is of another origin."""
    yield _gateway
    _gateway.wait_empty()


@pytest.fixture
async def browser(tmp_path):
    with (tmp_path / "chromium.log").open("wb") as log, trio.fail_after(DEADLINE):
        async with chromium(tmp_path / "profile", log) as running:
            yield running


def page_url(port, sse, game, host="127.0.0.1"):
    """The page, playing a game over SSE."""
    query = {"url": sse, "tool": game.tool, "moves": json.dumps(game.calls), "pace": 0}
    return f"http://{host}:{port}/play.html?{urlencode(query)}"


def fetched(url, calls):
    """JavaScript that plays these ``tools/call`` params over streamable HTTP."""
    return f"{FETCHED}({json.dumps(LATEST_HANDSHAKE)}, {json.dumps(url)}, {json.dumps(calls)})"


def assert_played(shown, reference, game):
    """The page has seen the whole game, and shows it."""
    record, steps = shown["record"], reference["steps"]
    assert record["tools"] == reference["tools"]
    assert [(step["text"], step["isError"]) for step in record["steps"]] == [
        (step["text"], step["is_error"]) for step in steps
    ]
    assert record["control"] == reference["after"]
    assert shown["state"] == f"{len(steps)} moves played"
    assert len(shown["steps"]) == len(steps)
    assert shown["now"].strip() == steps[-2]["text"].strip()  # the move after the end has changed nothing
    assert shown["facts"] == {
        "Tools": ", ".join(reference["tools"]),
        "Steps": str(len(game.moves)),
        "Return": "1",
        "Ended": "terminated",
        "Seed": str(game.seed),
    }


@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.env)
async def test_a_page_of_an_allowed_origin_plays_a_session_over_sse(gateway, page_port, browser, references, game):
    sse = f"{gateway.url}/sse?env={game.env}&seed={game.seed}"
    page = await browser.open(page_url(page_port, sse, game))
    assert await page.evaluate(TITLE_AT_THE_END) == "done"
    assert_played(await page.evaluate(WHAT_IS_SHOWN), references[game.env], game)


async def test_a_page_plays_a_session_that_was_made_for_it(gateway, page_port, browser, references):
    async with posted_session(gateway, GRID.env, GRID.seed) as session:
        page = await browser.open(page_url(page_port, session["urls"]["sse"], GRID))
        assert await page.evaluate(TITLE_AT_THE_END) == "done"
        assert_played(await page.evaluate(WHAT_IS_SHOWN), references[GRID.env], GRID)


async def test_a_page_of_an_allowed_origin_plays_a_session_over_streamable_http(
    gateway, page_port, browser, references
):
    page = await browser.open(f"http://127.0.0.1:{page_port}/play.html")
    url = f"{gateway.url}/mcp?env={GRID.env}&seed={GRID.seed}"
    calls = [{"name": GRID.tool, "arguments": arguments} for arguments in GRID.calls]
    played = await page.evaluate(fetched(url, calls))
    assert played == {"texts": [step["text"] for step in references[GRID.env]["steps"]], "ended": 204}


async def test_a_page_of_another_origin_is_refused_before_anything_is_started(gateway, page_port, browser):
    before = gateway.sessions_started()
    sse = f"{gateway.url}/sse?env={GRID.env}&seed={GRID.seed}"
    page = await browser.open(page_url(page_port, sse, GRID, host="localhost"))
    assert await page.evaluate(TITLE_AT_THE_END) == "failed: the stream has broken off, or was refused"
    assert f"http://localhost:{page_port}?" in await page.evaluate("document.querySelector('#hint').innerText")
    played = await page.evaluate(fetched(f"{gateway.url}/mcp?env={GRID.env}", []))
    assert played == {"error": "TypeError: Failed to fetch"}
    assert gateway.sessions_started() == before
