"""`GET /envs`: how each environment fares, for whoever may look inside."""

from __future__ import annotations

import time

import pytest
from harness import muxsim_serve

from .conftest import environment, write_tokens
from .machine import eventually, has_zygote
from .test_auth import ADA, HELPER, ROOT, bearer
from .wire import ask, initialize, shake_hands

pytestmark = pytest.mark.children

MONITOR = "m" * 40
CONFIG = "\n".join(
    [
        '[server]\ndefault = "naughty"\n[server.auth]\ntokens_file = "tokens"\n',
        environment("naughty"),
        environment("leaving", "--exit", "7", extra="max_failed_starts = 2\nfailed_start_window = 600"),
    ]
)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("list")
    write_tokens(folder, f"ada trainer {ADA}\nada agent {HELPER}\nada monitor {MONITOR}\nroot admin {ROOT}\n")
    with muxsim_serve(folder, CONFIG) as running:
        yield running


async def listed(running, token):
    answer = (await ask(running.url, "GET", "/envs", [bearer(token)])).json()
    assert answer["default"] == "naughty"
    return {one["name"]: one for one in answer["environments"]}


async def test_how_starts_went_is_told_by_way(running):
    before = (await listed(running, ADA))["naughty"]
    assert (before["state"], before["starts"], before["error"], before["opens"]) == ("ok", {}, None, 0)
    first = await shake_hands(running.url, headers=[bearer(ADA)])
    await eventually(lambda: has_zygote(running.process.pid), 60)
    others = [await shake_hands(running.url, headers=[bearer(ADA)]) for _ in range(3)]
    now = (await listed(running, ADA))["naughty"]
    assert (now["state"], now["live"], now["opens"], now["failures"], now["waiting"]) == ("ok", 4, 4, 0, 0)
    assert sum(way["count"] for way in now["starts"].values()) == 4
    assert now["starts"].keys() <= {"fresh", "fork", "slot"}
    assert all(0 < way["median"] <= way["p99"] for way in now["starts"].values())
    for client in (first, *others):
        assert (await client.delete()).status == 204


async def test_what_fails_is_told_in_full_with_its_time_and_its_breaker_and_stderr_to_the_admin_alone(running):
    began = time.time()
    for state in ("failed", "broken"):
        await ask(running.url, "POST", "/mcp?env=leaving", [bearer(ADA)], initialize())

        async def is_so(state=state):
            return (await listed(running, ADA))["leaving"]["state"] == state

        await eventually(is_so, 60)
    told = (await listed(running, ADA))["leaving"]
    assert told["failures"] == 2
    assert 0 < told["retry_after"] <= 600
    assert told["error"]["text"] == "the backend exited with status 7; its last line on stderr: it cannot start today"
    assert began - 1 < told["error"]["time"] < time.time() + 1
    assert "stderr" not in told["error"]
    assert (await listed(running, MONITOR))["leaving"]["error"] == told["error"]
    assert (await listed(running, ROOT))["leaving"]["error"]["stderr"] == ["naughty starts", "it cannot start today"]
    assert (await listed(running, ADA))["naughty"]["state"] == "ok"


async def test_an_agent_is_told_no_more_than_what_there_is(running):
    agents = await listed(running, HELPER)
    assert {frozenset(one) for one in agents.values()} == {frozenset({"name", "shared", "mcp", "urls"})}


async def test_each_url_that_makes_a_session_is_told_and_makes_one(running):
    urls = (await listed(running, HELPER))["naughty"]["urls"]
    here = f"{running.url}/envs/naughty"
    handle = urls.pop("handle")
    assert urls == {"mcp": f"{here}/mcp", "sse": f"{here}/sse", "openenv": f"{here}/openenv"}
    path = handle.removeprefix(running.url).format(id="told-1", seed=3)
    client = await shake_hands(running.url, path, headers=[bearer(ADA)])
    assert (await ask(running.url, "GET", "/sessions/told-1", [bearer(ADA)])).json()["seed"] == 3
    await client.delete()
    assert (await ask(running.url, "DELETE", "/sessions/told-1", [bearer(ADA)])).status == 204
