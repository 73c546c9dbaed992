"""What a session that behaves badly costs its neighbours, and how long one that will not end is there.

Needs the repository, whose tests' worst server it is that misbehaves.
"""

import argparse
import contextlib
import http.client
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from drivers import INITIALIZED, call, initialize
from processes import Server
from report import machine, table

NAUGHTY = Path(__file__).parent.parent / "tests" / "servers" / "naughty.py"
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def config() -> str:
    """A muxsim.toml of four environments that are one server."""
    options = {"game": [], "slow": ["--slow", "4"], "stubborn": ["--stubborn"]}
    return "".join(
        f'[environments.{name}]\ncommand = "python3"\nwarm = 0\n'
        f"args = {json.dumps(['-I', '-S', str(NAUGHTY), *more])}\n"
        for name, more in options.items()
    )


class Client:
    """One session on one connection."""

    def __init__(self, url: str, env: str) -> None:
        self.address = urlsplit(url).netloc
        self.connection = http.client.HTTPConnection(self.address)
        self.headers = dict(HEADERS)
        answer, _ = self.post(initialize(), f"/mcp?env={env}")
        self.headers["Mcp-Session-Id"] = answer.headers["mcp-session-id"]
        self.post(INITIALIZED)

    def post(self, body: bytes, path: str = "/mcp") -> tuple[http.client.HTTPResponse, bytes]:
        self.connection.request("POST", path, body, self.headers)
        answer = self.connection.getresponse()
        return answer, answer.read()

    def say(self) -> float:
        """Seconds for a call."""
        begun = time.perf_counter()
        answer, _ = self.post(call(1, "say", '{"text":"x"}'))
        assert answer.status == 200
        return time.perf_counter() - begun

    def pid(self) -> int:
        _, body = self.post(call(1, "who", "{}"))
        return int(json.loads(json.loads(body)["result"]["content"][0]["text"])["pid"])

    def end(self) -> None:
        self.connection.request("DELETE", "/mcp", headers=self.headers)
        self.connection.getresponse().read()


@contextlib.contextmanager
def serving(file: Path) -> Iterator[str]:
    """The URL of a muxsim with this config."""
    server = Server([sys.executable, "-m", "muxsim", "serve", str(file), "--port", "0"], 0)
    try:
        server.wait_ready()
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.end()


@contextlib.contextmanager
def nothing(url: str) -> Iterator[None]:
    """No neighbour."""
    yield


@contextlib.contextmanager
def slow_start(url: str) -> Iterator[None]:
    """A session whose server takes four seconds to start."""
    thread = threading.Thread(target=lambda: Client(url, "slow").end())
    thread.start()
    yield
    thread.join()


@contextlib.contextmanager
def unread_flood(url: str) -> Iterator[None]:
    """A session that sends 64 MiB to a client that reads none of it."""
    client = Client(url, "game")
    flood = call(1, "notification_flood", '{"count":6400,"size":10000}')
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, _, port = client.address.rpartition(":")
        deaf.connect((host, int(port)))
        lines = [f"{name}: {value}" for name, value in {**client.headers, "Content-Length": str(len(flood))}.items()]
        deaf.sendall("\r\n".join(["POST /mcp HTTP/1.1", f"Host: {client.address}", *lines, "", ""]).encode() + flood)
        yield
    client.end()


NEIGHBOURS: dict[str, Callable[[str], contextlib.AbstractContextManager[None]]] = {
    "nobody": nothing,
    "starts for 4 s": slow_start,
    "floods who does not read": unread_flood,
}


def pings(url: str, seconds: float, neighbour: Callable[[str], contextlib.AbstractContextManager[None]]) -> list[float]:
    """How long calls of another session took beside a neighbour."""
    client, taken = Client(url, "game"), list[float]()
    client.say()
    with neighbour(url):
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            taken.append(client.say())
    client.end()
    return taken


def stubborn_end(url: str) -> float:
    """Seconds from the DELETE of a session that ignores what can be ignored until its process is gone."""
    client = Client(url, "stubborn")
    pid = client.pid()
    begun = time.perf_counter()
    client.end()
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.001)
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="beside each neighbour")
    parser.add_argument("--ends", type=int, default=5, help="of stubborn sessions")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "muxsim.toml"
        file.write_text(config())
        with serving(file) as url:
            rows = []
            for name, neighbour in NEIGHBOURS.items():
                taken = sorted(pings(url, options.seconds, neighbour))
                cells = (statistics.median(taken), taken[int(len(taken) * 0.99)], taken[-1])
                rows.append([name, str(len(taken)), *(f"{cell * 1000:.2f}" for cell in cells)])
            print(table(["neighbour", "calls", "p50 ms", "p99 ms", "longest ms"], rows))
            ends = [stubborn_end(url) for _ in range(options.ends)]
            middle, most = statistics.median(ends), max(ends)
            print(f"\na stubborn session is gone {middle:.2f} s after its DELETE, {most:.2f} at most")


if __name__ == "__main__":
    main()
