"""Nothing of a request reaches a command line but what the spec has a place for, checked. Rows: table of faults."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from harness import serving

from .conftest import environment
from .machine import log_lines
from .wire import BOTH, META, Client, ask, connect, initialize, open_session, shake_hands

pytestmark = pytest.mark.children

HOSTILE = [
    "../naughty",
    "..",
    ".",
    "/etc/passwd",
    "naughty/../../x",
    "-rf",
    "--flag",
    "--seed=1",
    "; touch x",
    "x;touch x",
    "$(touch x)",
    "`touch x`",
    "a|b",
    "a&b",
    "a b",
    "a\tb",
    "a\nb",
    "a\r\nX: y",
    "nul\0byte",
    "{workspace}",
    "{seed}",
    "${HOME}",
    "%s%n",
    "*",
    "~",
    "naügthy",
    "\u202e\u2066",
    "\U0001f600",
    "٣",
    "\uff4eaughty",
    "x" * 300,
]  # fmt: skip

JSON = ("Content-Type", "application/json")


@pytest.mark.fault("L26")
@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
async def test_a_hostile_word_is_refused_wherever_it_stands_and_starts_nothing(muxsim, value):
    """L26: as an environment, a seed, an id or a lifetime; in a body, a query and a path."""
    openings = len(log_lines(muxsim, event="session.opening"))
    word, handshake = quote(value, safe=""), json.dumps(initialize()).encode()
    wishes = [{"env": value}, *({"env": "naughty", key: value} for key in ("seed", "id", "ttl"))]
    asked = [
        *[("POST", "/sessions", [JSON], json.dumps(wish).encode()) for wish in wishes],
        *[("POST", f"/mcp?{query}", [JSON, ("Accept", BOTH)], handshake) for query in (f"env={word}", f"seed={word}")],
        *[("GET", f"/sse?{query}", [("Accept", "*/*")], b"") for query in (f"env={word}", f"seed={word}")],
        *[("POST", f"{path}/mcp", [JSON, ("Accept", BOTH)], handshake) for path in (f"/envs/{word}", f"/s/{word}")],
        ("GET", f"/envs/{word}/sse", [("Accept", "*/*")], b""),
        ("GET", f"/s/{word}/sse", [("Accept", "*/*")], b""),
        ("GET", f"/sessions/{word}", [], b""),
        ("DELETE", f"/sessions/{word}", [], b""),
        ("GET", f"/sessions/{word}/control", [], b""),
    ]
    async with connect(muxsim.url) as connection:
        for method, path, headers, body in asked:
            answer = await connection.ask(method, path, headers, body)
            assert 400 <= answer.status < 500, (method, path, answer)
    assert len(log_lines(muxsim, event="session.opening")) == openings


PLACED = ["--seed", "{seed}", "id={session_id}", "{session_id}"]


@pytest.mark.fault("L26")
async def test_what_a_client_chooses_stands_where_the_spec_has_it_and_nowhere_else(tmp_path):
    """L26: an id and a seed fill their places, each within one argument; headers and arguments of a handshake none."""
    places = 'env = { WHO = "{session_id}" }\nttl = 60\n'
    config = environment("naughty", *PLACED, extra=places)
    async with serving(tmp_path, config) as running:
        made = await open_session(running.url, seed=7, id="run-1.step_2")
        client = await shake_hands(
            running.url,
            f"/s/{made['id']}/mcp?seed=7&command=touch&args=--flag&cwd=/",
            headers=[("X-Command", "touch x"), ("X-Env-WHO", "mallory")],
        )
        other = await ask(running.url, "POST", f"/s/{made['id']}/mcp?seed=9", [("Accept", BOTH)], initialize())
        assert other.status == 409
        seen = await client.value("who")
        assert seen["argv"] == ["--seed", "7", "id=run-1.step_2", "run-1.step_2"]
        assert seen["env"]["WHO"] == "run-1.step_2"
        assert not [value for value in seen["env"].values() if "touch" in value or "mallory" in value]
        message = initialize()
        message["params"]["_meta"] = {META + "command": "touch x", "env": "mallory", "seed": 3}
        message["params"]["command"] = ["touch", "x"]
        answer = await ask(running.url, "POST", "/mcp?seed=8&args=x&id=chosen", [("Accept", BOTH)], message)
        argv = (await Client(running.url, "/mcp", answer.headers["mcp-session-id"]).value("who"))["argv"]
        assert argv[:2] == ["--seed", "8"]
        assert argv[3] == answer.headers["mcp-session-id"]


@pytest.mark.parametrize(("ttl", "status"), [(59.5, 201), (60, 201), (60.5, 400), (1e9, 400)])
async def test_a_client_may_shorten_a_sessions_life_and_not_prolong_it(tmp_path, ttl, status):
    """L26."""
    async with serving(tmp_path, environment("naughty", extra="ttl = 60")) as running:
        answer = await ask(running.url, "POST", "/sessions", body={"env": "naughty", "ttl": ttl})
        assert answer.status == status
        assert status == 201 or "ttl" in answer.error["message"]
