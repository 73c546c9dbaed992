"""`GET /metrics`: in the format that is asked for, to whom it may be told, and no more when an environment has gone."""

import gzip
import json
import signal
from functools import partial

import pytest
from harness import serving
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from muxsim.serve.metrics.families import FAMILIES

from .conftest import environment
from .machine import eventually
from .wire import ask, shake_hands

pytestmark = pytest.mark.children


def names_in(families):
    return {family.name for family in families}


async def test_it_is_text_or_openmetrics_and_compressed_if_the_scraper_likes(muxsim):
    plain = await ask(muxsim.url, "GET", "/metrics")
    assert plain.headers["content-type"].startswith("text/plain")
    assert {one.name for one in FAMILIES} <= names_in(read_text(plain.body.decode()))
    headers = [("Accept", "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"), ("Accept-Encoding", "gzip")]
    other = await ask(muxsim.url, "GET", "/metrics", headers)
    assert other.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert other.headers["content-encoding"] == "gzip"
    assert {one.name for one in FAMILIES} <= names_in(read_openmetrics(gzip.decompress(other.body).decode()))
    assert (await ask(muxsim.url, "POST", "/metrics")).status == 405


async def test_memory_and_cpu_are_there_soon_after_the_first_look(muxsim):
    client = await shake_hands(muxsim.url)

    async def is_sampled():
        families = read_text((await ask(muxsim.url, "GET", "/metrics")).body.decode())
        memory = {one.labels["env"]: one.value for family in families for one in family.samples if is_memory(one)}
        return memory.get("naughty", 0) > 2**20

    await eventually(is_sampled)
    await client.delete()


async def test_starts_are_timed_by_the_way_in_which_the_process_was_had(tmp_path):
    warm = environment("naughty").replace("warm = 0", "warm = 1")
    async with serving(tmp_path, warm) as server:
        await (await shake_hands(server.url)).delete()
        await eventually(partial(has_one_ready, server))
        await (await shake_hands(server.url)).delete()
        families = read_text((await ask(server.url, "GET", "/metrics")).body.decode())
        starts = {one.labels["way"]: one.value for family in families for one in family.samples if is_start(one)}
        assert starts["slot"] >= 1
        assert sum(starts.values()) == 2


async def has_one_ready(server):
    return (await ask(server.url, "GET", "/health")).json()["warm"]["naughty"]["ready"] == 1


def is_start(sample):
    return sample.name == "muxsim_session_start_seconds_count"


def is_memory(sample):
    return sample.name == "muxsim_backend_memory_bytes"


async def test_switched_off_it_says_so_and_nothing_is_counted(tmp_path):
    async with serving(tmp_path, "[server]\nmetrics = false\n" + environment("naughty")) as server:
        answer = await ask(server.url, "GET", "/metrics")
        assert answer.status == 404
        assert "metrics = false" in answer.body.decode()
        await (await shake_hands(server.url)).delete()


async def test_an_environment_that_a_reload_removes_is_told_of_no_more_once_its_sessions_are_over(tmp_path):
    both = environment("naughty") + environment("other")
    async with serving(tmp_path, both) as server:
        client = await shake_hands(server.url, "/envs/other/mcp")
        (tmp_path / "config" / "muxsim.toml").write_text(environment("naughty"))
        server.process.send_signal(signal.SIGHUP)
        await eventually(partial(serves, server, {"naughty"}))
        assert 'env="other"' in (await ask(server.url, "GET", "/metrics")).body.decode()
        await client.delete()
        await eventually(partial(tells_nothing_of, server, "other"))


async def serves(server, names):
    answer = await ask(server.url, "GET", "/envs")
    return {one["name"] for one in json.loads(answer.body)["environments"]} == names


async def tells_nothing_of(server, env):
    return f'env="{env}"' not in (await ask(server.url, "GET", "/metrics")).body.decode()
