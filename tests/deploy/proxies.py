"""Debian's nginx and Caddy as processes of a test, with the configurations of deploy/ and only places changed."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
SOCKET = "/run/muxsim/muxsim.sock"
NAME = "lab.example.org"
PATIENCE = 4
"""Seconds that nginx waits here for a stream that says nothing; Caddy waits for ever."""
# Another program may take the port that was free a moment ago.
_TRIES = 5
# What each of them says when it serves.
_READY = ("start worker process ", "serving initial configuration")

_NGINX = """\
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    {temporary}
    include {folder}/muxsim.conf;
}}
"""
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def nginx(folder, upstream, port, certificate):
    """The command of an nginx before a muxsim at ``upstream``, which is ``unix:PATH`` or ``http://HOST:PORT``."""
    site = (DEPLOY / "nginx.conf").read_text()
    for shipped, here in (
        (f"unix:{SOCKET}", upstream.removeprefix("http://")),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("/etc/ssl/muxsim/cert.pem", str(certificate[0])),
        ("/etc/ssl/muxsim/key.pem", str(certificate[1])),
        # So that what keeps a stream open is what is said on it.
        ("proxy_read_timeout 1h", f"proxy_read_timeout {PATIENCE}s"),
    ):
        assert site.count(shipped) == 1, shipped
        site = site.replace(shipped, here)
    (folder / "muxsim.conf").write_text(site)
    temporary = "\n    ".join(f"{name}_temp_path {folder}/{name};" for name in _TEMPORARY)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, temporary=temporary, user=user))
    program = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    return [program or "nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", "stderr"]


def caddy(folder, upstream, port, certificate):
    """The same of a Caddy, which asks nobody for a certificate."""
    site = (DEPLOY / "Caddyfile").read_text()
    place = upstream.replace("unix:", "unix/") if upstream.startswith("unix:") else upstream.removeprefix("http://")
    for shipped, here in (
        (
            f"{NAME} {{",
            f"https://{NAME}:{port}, https://localhost:{port} {{\n\ttls {certificate[0]} {certificate[1]}\n",
        ),
        (f"unix/{SOCKET}", place),
    ):
        assert site.count(shipped) == 1, shipped
        site = site.replace(shipped, here)
    settings = "{\n\tadmin off\n\tauto_https off\n\tdefault_bind 127.0.0.1\n\tstorage file_system {\n"
    (folder / "Caddyfile").write_text(f"{settings}\t\troot {folder}/caddy\n\t}}\n}}\n{site}")
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@contextmanager
def running(proxy, folder, upstream, certificate):
    """A proxy for the length of a block; yields where it serves muxsim."""
    folder.mkdir()
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    environ |= {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    said = []
    for _ in range(_TRIES):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = proxy(folder, upstream, port, certificate)
        with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
            try:
                # What it says later is read too, or it would stand still.
                said = list(itertools.takewhile(lambda line: not any(mark in line for mark in _READY), process.stderr))
                if process.poll() is None:
                    reader = threading.Thread(target=process.stderr.read)
                    reader.start()
                    yield f"https://localhost:{port}"
                    return
            finally:
                process.terminate()
    raise AssertionError(f"{proxy.__name__} did not start: {''.join(said)}")
