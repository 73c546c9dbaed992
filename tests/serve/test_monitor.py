"""A monitor's token: it looks at health, metrics and lists, and at nothing else."""

from __future__ import annotations

import pytest
from harness import SERVERS, serving

from .conftest import write_tokens
from .test_auth import ADA, ROOT, bearer
from .wire import ask, initialize, open_session, rpc, shake_hands, tool_call

pytestmark = pytest.mark.children

MONITOR = "m" * 40
CONFIG = f"""
[server.auth]
tokens_file = "tokens"
[environments.scored]
command = "python3"
args = ["-I", "-S", "{SERVERS / "scored.py"}"]
[environments.common]
command = "python3"
args = ["-I", "-S", "{SERVERS / "scored.py"}"]
shared = true
"""


@pytest.fixture
async def url(tmp_path):
    # Of the same name as the sessions' owner: not even those does it open.
    write_tokens(tmp_path, f"ada trainer {ADA}\nada monitor {MONITOR}\nroot admin {ROOT}\n")
    async with serving(tmp_path, CONFIG) as running:
        yield running.url


async def test_a_monitor_sees_that_sessions_are_there_and_nothing_with_which_to_open_or_end_them(url):
    made = await open_session(url, [bearer(ADA)], env="scored", seed=7)
    chosen = await open_session(url, [bearer(ADA)], env="scored", id="mine")
    await shake_hands(url, "/envs/common/mcp", headers=[bearer(ADA)])
    client = await shake_hands(url, f"/s/{made['id']}/mcp", headers=[bearer(ADA)])
    listed = await ask(url, "GET", "/sessions", [bearer(MONITOR)])
    rows = listed.json()["sessions"]
    assert [row["env"] for row in rows] == ["scored", "scored", "common"]
    assert (rows[0]["seed"], rows[0]["state"], rows[0]["attachments"]) == (7, "ready", 1)
    assert not [row for row in rows if "urls" in row]
    assert made["id"].encode() not in listed.body
    assert chosen["id"] != rows[1]["id"]
    for id in (made["id"], rows[0]["id"], chosen["id"]):
        for method, path, body in (
            ("POST", f"/s/{id}/mcp", initialize()),
            ("POST", f"/s/{id}/agent/mcp", initialize()),
            ("GET", f"/s/{id}/sse", b""),
            ("GET", f"/sessions/{id}", b""),
            ("GET", f"/sessions/{id}/control", b""),
            ("DELETE", f"/sessions/{id}", b""),
            ("POST", "/operate/stop", b""),
            ("POST", "/sessions", {"env": "scored"}),
            ("POST", "/mcp?env=scored", initialize()),
            ("GET", "/envs/scored", b""),
        ):
            answer = await ask(url, method, path, [bearer(MONITOR), ("Accept", "*/*")], body)
            assert answer.status == 403, (method, path)
    # Nor may it go on as a client that the trainer's token has made, whose name it has, or see what a call has brought.
    for method, body in (("POST", tool_call(1, "step")), ("POST", rpc(2, "ping")), ("GET", b""), ("DELETE", b"")):
        headers = [bearer(MONITOR), ("Mcp-Session-Id", client.id), ("Accept", "application/json, text/event-stream")]
        assert (await ask(url, method, f"/s/{made['id']}/mcp", headers, body)).status == 403
        assert (await ask(url, "GET", "/control/reward", headers)).status == 403
    assert len((await ask(url, "GET", "/sessions", [bearer(ROOT)])).json()["sessions"]) == 3


async def test_a_monitor_reads_health_and_environments(url):
    assert {"version", "sessions", "limits"} <= (await ask(url, "GET", "/health", [bearer(MONITOR)])).json().keys()
    environments = (await ask(url, "GET", "/envs", [bearer(MONITOR)])).json()["environments"]
    assert [one["name"] for one in environments] == ["scored", "common"]
    assert (await ask(url, "GET", "/ready", [bearer(MONITOR)])).json()["ready"]


async def test_metrics_are_for_monitors_and_admins(url):
    for token, status in ((MONITOR, 200), (ROOT, 200), (ADA, 403)):
        assert (await ask(url, "GET", "/metrics", [bearer(token)])).status == status
    assert (await ask(url, "GET", "/metrics")).status == 401
    refused = (await ask(url, "GET", "/metrics", [bearer(ADA)])).error["message"]
    assert refused == "this needs a token with the scope monitor or admin"
    refused = (await ask(url, "POST", "/sessions", [bearer(MONITOR)], {})).error["message"]
    assert refused == "this needs a token with the scope trainer or admin"
