"""A real Prometheus scrapes while sessions are opened, called, broken and ended; what it has then is what happened."""

import json
import re
from collections import Counter
from functools import partial

import pytest
import trio
from harness import ROOT, SERVERS, serving
from prometheus_client.parser import text_string_to_metric_families

from muxsim.serve.metrics.exposition import Exposition
from muxsim.serve.metrics.families import FAMILIES

from .machine import eventually
from .prometheus import expressions, program, scraping
from .wire import ask, shake_hands

pytestmark = [pytest.mark.children, pytest.mark.network]

LIMIT = 600
RULES, DASHBOARD = ROOT / "deploy" / "alerts.yml", ROOT / "deploy" / "grafana.json"
SESSIONS = 50
GREETING = b"naughty starts\n"  # what each says first
NOISE = 3  # lines of `not_json` with anything in them


def config():
    def environment(name, *options, extra=""):
        args = json.dumps(["-I", "-S", str(SERVERS / "naughty.py"), "--seed", "{seed}", *options])
        return f'[environments.{name}]\ncommand = "python3"\nargs = {args}\nwarm = 0\nzygote = false\n{extra}\n'

    return "\n".join(
        [
            f"[server]\nmax_sessions = {SESSIONS}\nmax_pending = 1\nqueue_timeout = 0.3\nstream_silence = 600\n"
            "max_starting = 64\nmax_failed_starts = 0\nopens_per_second = 0\n",
            environment("naughty"),
            environment("brisk", extra="call_timeout = 0.3"),
            environment("leaving", "--exit", "7"),
        ]
    )


class Played:
    """Sessions whose clients count what they do."""

    def __init__(self, url):
        self.url = url
        self.counted = Counter()
        self.clients = []

    def count(self, name, number=1, **labels):
        self.counted[name, *sorted(labels.items())] += number

    async def open(self, env):
        client = await shake_hands(self.url, f"/envs/{env}/mcp")
        self.clients.append(client)
        self.count("muxsim_sessions_opened_total", env=env)
        self.count("muxsim_call_seconds_count", env=env, method="initialize")
        self.count("muxsim_session_start_seconds_count", env=env, way="fresh")
        self.count("muxsim_backend_stderr_bytes_total", len(GREETING), env=env)
        return client

    async def ask(self, client, method, params=None, known=None):
        """A request that the backend answers; its bytes are counted with those of the answer."""
        message = {"jsonrpc": "2.0", "id": client.next_id(), "method": method, "params": params or {}}
        env, known = client.path.split("/")[2], known or method
        answer = await client.post(message)
        self.count("muxsim_call_seconds_count", env=env, method=known)
        self.count("muxsim_call_bytes_total", len(json.dumps(message)), env=env, method=known, of="requests")
        self.count("muxsim_call_bytes_total", len(answer.body), env=env, method=known, of="answers")
        if "error" in answer.messages[-1]:
            self.count("muxsim_call_errors_total", env=env, kind="backend")

    async def call(self, client, tool, **arguments):
        await self.ask(client, "tools/call", {"name": tool, "arguments": arguments})

    async def lose(self, client, tool, kind, **arguments):
        """A call that the backend does not answer."""
        assert "error" in await client.call(tool, **arguments)
        self.count("muxsim_call_errors_total", env=client.path.split("/")[2], kind=kind)

    async def die(self, client, tool, cause, **arguments):
        env = client.path.split("/")[2]
        await self.lose(client, tool, "backend_gone", **arguments)
        self.clients.remove(client)
        self.count("muxsim_backend_exits_total", env=env, cause=cause)
        self.count("muxsim_sessions_ended_total", env=env, cause="backend_exited")

    async def live(self, number):
        """One session's life; what is done to it depends on its number alone."""
        client = await self.open("brisk" if number % 5 == 4 else "naughty")
        env = client.path.split("/")[2]
        await self.ask(client, "tools/list")
        for _ in range(number % 3):
            await self.call(client, "say")
        await self.ask(client, "no/such/method", known="other")
        match number % 10:
            case 0:
                await self.call(client, "own_error", code=-32099)
            case 1 | 2:
                await self.call(client, "not_json")
                self.count("muxsim_lines_rejected_total", NOISE, env=env)
            case 3:
                await self.die(client, "exit", "status")
                self.count("muxsim_backend_stderr_bytes_total", len(b"I am leaving\n"), env=env)
            case 4 | 9:
                await self.lose(client, "hang", "call_timeout")
                self.count("muxsim_limits_met_total", limit="call_timeout")
            case 5:
                await self.die(client, "kill_itself", "SIGKILL")
                self.count("muxsim_backend_stderr_bytes_total", len(b"killing myself\n"), env=env)
            case 7:
                await self.die(client, "close_stdout", "pipe closed")
                self.count("muxsim_backend_stderr_bytes_total", len(b"closing stdout\n"), env=env)
            case 8:
                await self.die(client, "exit", "status 0", code=0, say=[])
            case 6:
                await self.call(client, "bad_utf8")
                self.count("muxsim_lines_rejected_total", env=env)

    async def crowd(self):
        """More sessions than there may be: one waits in vain for its turn."""
        assert (await self.try_open("naughty")).status == 503
        for name in ("muxsim_opens_refused_total", "muxsim_opens_queued_total"):
            limit = "queue_timeout" if "refused" in name else "max_sessions"
            self.count(name, env="naughty", limit=limit)
            self.count("muxsim_limits_met_total", limit=limit)
        self.count("muxsim_sessions_not_opened_total", env="naughty")
        self.count("muxsim_queue_wait_seconds_count", env="naughty")

    async def fail_to_start(self):
        answer = await ask(self.url, "POST", "/envs/leaving/mcp", BOTH_WAYS, INITIALIZE)
        assert "error" in answer.messages[-1]
        self.count("muxsim_sessions_opened_total", env="leaving")
        self.count("muxsim_backend_exits_total", env="leaving", cause="status")
        self.count("muxsim_sessions_ended_total", env="leaving", cause="backend_exited")
        self.count("muxsim_call_errors_total", env="leaving", kind="backend_gone")
        self.count("muxsim_backend_stderr_bytes_total", len(GREETING + b"it cannot start today\n"), env="leaving")

    async def try_open(self, env):
        return await ask(self.url, "POST", "/sessions", body={"env": env})

    async def end_all(self):
        for client in self.clients:
            assert (await client.delete()).status in (200, 204)
            self.count("muxsim_sessions_ended_total", env=client.path.split("/")[2], cause="client_gone")
        self.clients = []

    async def is_alone(self):
        """Whether there are no sessions but those of its clients, nor anything of others."""
        found = await told(self.url)
        leases = sum(value for (name, *_), value in found.items() if name == "muxsim_leases")
        return leases == len(self.clients)


BOTH_WAYS = [("Accept", "application/json, text/event-stream")]
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}},
}


async def told(url):
    """Every sample of a scrape that is not 0, but the buckets of histograms."""
    answer = await ask(url, "GET", "/metrics")
    assert answer.status == 200
    samples = (one for family in text_string_to_metric_families(answer.body.decode()) for one in family.samples)
    return {(one.name, *sorted(one.labels.items())): one.value for one in samples if one.value}


def of_names(samples, names):
    return {key: value for key, value in samples.items() if key[0] in names and value}


async def test_after_fifty_sessions_and_their_faults_every_counter_is_what_clients_have_counted(tmp_path):
    with trio.fail_after(LIMIT):
        async with serving(tmp_path, config()) as server, scraping(tmp_path, server.url, RULES) as prometheus:
            played = Played(server.url)
            await played.fail_to_start()
            await eventually(played.is_alone)
            async with trio.open_nursery() as nursery:
                for number in range(SESSIONS):
                    nursery.start_soon(played.live, number)
            await eventually(played.is_alone)
            while len(played.clients) < SESSIONS:  # in the places of those that have died
                await played.open("naughty")
            await played.crowd()
            await played.end_all()
            expected, names = dict(played.counted), {name for name, *_ in played.counted}
            # The handshakes' bytes are those of `shake_hands`.
            handshakes = ("method", "initialize")

            async def counts():
                found = of_names(await told(server.url), names)
                return {k: v for k, v in found.items() if not ("bytes" in k[0] and handshakes in k)}

            await eventually(played.is_alone)
            assert await counts() == expected
            # What is scraped is the same.
            await eventually(partial(has, prometheus, expected))
            await check_queries(prometheus)
            await check_rules(prometheus)


async def has(prometheus, expected):
    found = {}
    for name in {name for name, *_ in expected}:
        found |= await prometheus.query(name)
    return all(found.get(key) == value for key, value in expected.items())


async def check_queries(prometheus):
    for expression in expressions(DASHBOARD):
        await prometheus.get("query", query=expression)
    await eventually(partial(knows_calls, prometheus))


async def knows_calls(prometheus):
    rates = await prometheus.query('sum by (method) (rate(muxsim_call_seconds_count{env=~".*"}[1m]))')
    return ("", ("method", "tools/call")) in rates


async def check_rules(prometheus):
    (group,) = (await prometheus.get("rules"))["groups"]
    await eventually(partial(all_evaluated, prometheus))
    assert len(group["rules"]) == RULES.read_text().count("- alert:")


async def all_evaluated(prometheus):
    (group,) = (await prometheus.get("rules"))["groups"]
    return all(one["health"] == "ok" for one in group["rules"])


async def test_the_rules_for_alerts_load():
    promtool = await trio.to_thread.run_sync(program, "promtool")
    with trio.fail_after(LIMIT):
        checked = await trio.run_process([promtool, "check", "rules", RULES], capture_stdout=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("file", [RULES, DASHBOARD], ids=["alerts", "dashboard"])
async def test_rules_and_dashboard_ask_for_nothing_but_what_there_is(file):
    known = {"up"}
    for name, kind in [(one.name, one.kind) for one in FAMILIES] + [
        (one.name, one.type) for one in Exposition().registry.collect()
    ]:
        known |= {f"{name}{suffix}" for suffix in SUFFIXES[kind]}
    asked = set(re.findall(r"\b(?:muxsim|process|python)_[a-z_]+", file.read_text())) | {"up"}
    assert len(asked) > 10
    assert asked - known == set()


SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "info": ("_info",),
    "unknown": ("",),
    "histogram": ("_bucket", "_count", "_sum"),
}
