"""Debian's Prometheus: fetched once, unpacked and not installed, and run on a port of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import trio
from harness import ROOT

from .machine import eventually
from .wire import ask

_UNPACKED = ROOT / ".venv" / "debian"
_CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: muxsim
    static_configs: [{{targets: ["{target}"]}}]
"""


def program(name):
    """The path of ``prometheus`` or ``promtool``."""
    if (there := shutil.which(name)) is not None:
        return there
    path = _UNPACKED / "usr" / "bin" / name
    if not path.exists():
        _unpack()
    return str(path)


def _unpack():
    _UNPACKED.mkdir(parents=True, exist_ok=True)
    # Not installed: that would make it a service of this machine.
    fetch = ["apt-get", "download", "-qq", "prometheus"]
    if subprocess.run(fetch, cwd=_UNPACKED, check=False, timeout=600).returncode:
        subprocess.run(["apt-get", "update", "-qq"], check=True, timeout=600)
        subprocess.run(fetch, cwd=_UNPACKED, check=True, timeout=600)
    (package,) = _UNPACKED.glob("prometheus_*.deb")
    subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=_UNPACKED, check=True, timeout=600)
    package.unlink()


class Prometheus:
    """A running one."""

    def __init__(self, url):
        self.url = url

    async def get(self, path, **asked):
        """What its API answers."""
        answer = await ask(self.url, "GET", f"/api/v1/{path}?{urlencode(asked)}")
        found = answer.json()
        assert found["status"] == "success", (asked, found)
        return found["data"]

    async def query(self, expression):
        """The value of each series, by its labels without those of where it was scraped."""
        found = {}
        for one in (await self.get("query", query=expression))["result"]:
            labels = {name: value for name, value in one["metric"].items() if name not in ("instance", "job")}
            found[labels.pop("__name__", ""), *sorted(labels.items())] = float(one["value"][1])
        return found


@asynccontextmanager
async def scraping(folder: Path, url: str, rules: Path):
    """A Prometheus that scrapes ``url`` every second and evaluates ``rules``; ended at the block's end."""
    config = folder / "prometheus.yml"
    config.write_text(_CONFIG.format(rules=rules, target=url.removeprefix("http://")))
    address = f"127.0.0.1:{_free_port()}"
    command = [
        *(await trio.to_thread.run_sync(program, "prometheus"), f"--config.file={config}"),
        *(f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}", "--log.level=warn"),
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env={**os.environ, "no_proxy": "*"}
        )
        try:
            one = Prometheus(f"http://{address}")
            await eventually(lambda: _is_ready(one))
            yield one
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


async def _is_ready(one):
    try:
        return (await ask(one.url, "GET", "/-/ready")).status == 200
    except OSError:
        return False


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def expressions(dashboard: Path):
    """Every query of a Grafana dashboard, with its variables filled in as Grafana does."""
    panels = json.loads(dashboard.read_text())["panels"]
    for panel in panels:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", "1m")
            yield text.replace("$instance", ".*").replace("$env", ".*")
