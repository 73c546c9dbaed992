"""`muxsim doctor`: what it finds on this machine and in configs, what it says of it, and its exit status."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import socket
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from harness import MUXSIM

from muxsim.doctor.findings import lacking
from muxsim.inside import landlock

from .terminal import Finished, muxsim

pytestmark = pytest.mark.children

TOKEN = "t" * 32


@pytest.fixture
def bare(tmp_path):
    """Variables with which only Python is there."""
    return {"PATH": str(tmp_path / "nowhere"), "XDG_RUNTIME_DIR": str(tmp_path), "NO_COLOR": ""}


def examined(folder, config="", *, status, **env):
    """The findings by name, of which there may be several."""
    args = []
    if config:
        (folder / "muxsim.toml").write_text(config)
        args = ["muxsim.toml"]
    done = muxsim(folder, "doctor", *args, "--json", env=env)
    assert (done.status, done.stderr) == (status, "")
    told = json.loads(done.stdout)
    assert told["ok"] is (status == 0)
    found = {}
    for one in told["findings"]:
        found.setdefault(one["name"], []).append(one)
    return found


def environment(name, command="python", more=""):
    return f"[environments.{name}]\ncommand = '{command}'\nargs = ['-c', 'pass']\n{more}\n"


def test_without_a_config_it_looks_at_the_machine_and_what_is_missing_is_a_warning(tmp_path, bare):
    found = examined(tmp_path, status=0, **bare)
    wanted = {
        *("python", "node", "npm", "uv", "conda", "bubblewrap"),
        *("pidfd", "cgroup", "namespaces", "landlock"),
        *("files", "processes", "memory", "swap", "packages", "workspaces", "address"),
    }
    assert found.keys() == wanted
    (node,) = found["node"]
    assert (node["state"], node["found"]) == ("warning", "not on PATH")
    assert "no environment in JavaScript" in node["lost"]
    assert "install Node.js" in node["advice"]
    (python,) = found["python"]
    assert python["state"] == "ok"
    assert sys.executable in python["found"]
    (sandbox,) = found["landlock"]
    assert (sandbox["state"] == "ok") == (landlock.abi() >= landlock.SIGNALS_ABI)


def test_what_an_environment_of_the_config_needs_is_an_error_and_names_it(tmp_path, bare):
    config = environment("maze", "node") + environment("files", "npx") + environment("plain")
    found = examined(tmp_path, config, status=1, **bare)
    assert {name: found[name][0]["state"] for name in ("node", "npm", "uv", "bubblewrap")} == {
        **dict.fromkeys(("node", "npm"), "error"),
        "uv": found["uv"][0]["state"],
        "bubblewrap": "warning",
    }
    assert found["node"][0]["lost"].endswith("(for maze, files)")
    assert found["npm"][0]["lost"].endswith("(for files)")
    # A machine without it serves a config that has no use for it.
    assert examined(tmp_path, environment("plain"), status=0, **bare)["node"][0]["state"] == "warning"


def test_programs_are_asked_for_their_versions(tmp_path, bare):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, says in (("node", "v18.1.0"), ("npm", "10.2.3"), ("uv", "uv 0.8.0 (abc)")):
        (programs / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (programs / name).chmod(0o755)
    found = examined(tmp_path, environment("maze", "node"), status=1, **(bare | {"PATH": str(programs)}))
    assert (found["node"][0]["state"], found["node"][0]["found"]) == ("error", f"18.1.0 at {programs}/node")
    assert found["npm"][0]["found"] == f"10.2.3 at {programs}/npm"
    assert found["uv"][0]["found"] == f"0.8.0 at {programs}/uv"
    (programs / "npm").write_text("#!/bin/sh\nexit 3\n")
    found = examined(tmp_path, environment("files", "npx"), status=1, **(bare | {"PATH": str(programs)}))
    assert (found["npm"][0]["state"], found["npm"][0]["found"]) == ("error", f"{programs}/npm does not run")


def test_bounds_that_will_not_be_kept_are_an_error(tmp_path):
    config = '[server]\ncgroup = "off"\n' + environment("lake", more='max_memory = "1 GiB"') + environment("plain")
    found = examined(tmp_path, config, status=1)
    assert (found["cgroup"][0]["state"], found["cgroup"][0]["found"]) == ("error", 'cgroup = "off"')
    assert found["cgroup"][0]["lost"].endswith("are not kept (for lake)")


def test_a_machine_with_few_descriptors_says_how_many_sessions_they_carry(tmp_path):
    shell = ["bash", "-c", 'ulimit -n 100; exec "$@"', "bash"]
    done = subprocess.run(
        [*shell, *MUXSIM, "doctor", "--json"], cwd=tmp_path, capture_output=True, timeout=120, check=True
    )
    (files,) = [one for one in json.loads(done.stdout)["findings"] if one["name"] == "files"]
    assert (files["state"], files["found"]) == (
        "warning",
        "100 may be open at once, which carries 6 sessions with a client each",
    )


# ---- what it is served with


def test_a_sound_config_is_told_where_it_is_served_and_by_whose_tokens(tmp_path):
    (tmp_path / "tokens").write_text(f"lab trainer {TOKEN}\n")
    (tmp_path / "tokens").chmod(0o600)
    certificate(tmp_path, days=1)
    server = "[server]\nunix = 'muxsim.sock'\ntls_cert = 'cert.pem'\ntls_key = 'key.pem'\n"
    auth = "[server.auth]\ntokens_file = 'tokens'\n"
    found = examined(tmp_path, server + auth + environment("plain"), status=0)
    assert found["start"][0]["found"] == (
        f"1 environment, served on unix:{tmp_path}/muxsim.sock: nothing stands in the way"
    )
    assert found["tokens"][0]["found"] == f"of lab in {tmp_path}/tokens, closed to others"
    assert found["certificate"][0]["found"].startswith(f"{tmp_path}/cert.pem, good until ")
    assert TOKEN not in json.dumps(found)
    assert not (tmp_path / "muxsim.sock").exists()


def test_what_a_start_refuses_is_an_error_each(tmp_path):
    (tmp_path / "tokens").write_text(f"lab trainer {TOKEN}\n")
    (tmp_path / "tokens").chmod(0o644)
    certificate(tmp_path, days=-1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = f"[server]\nport = {taken.getsockname()[1]}\ntls_cert = 'cert.pem'\ntls_key = 'key.pem'\n"
        auth = "[server.auth]\ntokens_file = 'tokens'\n"
        found = examined(tmp_path, server + auth + environment("gone", "/no/such/program"), status=1)
    assert "has mode 0644" in found["tokens"][0]["found"]
    assert found["certificate"][0]["found"] == f"{tmp_path}/cert.pem: certificate has expired"
    assert len(found["start"]) == 2, found["start"]
    assert "/no/such/program" in found["start"][0]["found"]
    assert "cannot listen on" in found["start"][1]["found"]


def test_a_config_that_cannot_be_read_is_an_error_and_the_machine_is_looked_at_all_the_same(tmp_path, bare):
    found = examined(tmp_path, "[server]\nprot = 1\n", status=1, **bare)
    assert "did you mean port" in found["file"][0]["found"]
    assert found["node"][0]["state"] == "warning"


def certificate(folder, days):
    """One that is good until so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "muxsim")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=9))
    signed = builder.not_valid_after(now + datetime.timedelta(days=days)).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    kind, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, none))
    (folder / "key.pem").chmod(0o600)


# ---- for people


def test_it_reads_well_at_eighty_columns_without_colour(tmp_path, bare):
    (tmp_path / "muxsim.toml").write_text(environment("maze", "node"))
    done = muxsim(tmp_path, "doctor", env=bare)
    lines = done.stdout.splitlines()
    assert done.status == 1
    # A path or a command is not cut, so that it can be copied.
    assert [line for line in lines if len(line) > 80 and "/" not in line] == []
    assert [line for line in lines if line != line.rstrip()] == []
    assert "\x1b" not in done.stdout
    at = lines.index("  error    node        not on PATH")
    assert lines[at + 1] == " " * 23 + "no environment in JavaScript can be run (for maze)"
    assert lines[at + 2] == " " * 23 + "→ install Node.js 20 or newer, with npm"
    assert [line for line in lines if line and not line.startswith(" ")][:-1] == [
        *("programs", "isolation", "room", "config"),
    ]
    assert lines[-1].endswith("not all will work")


def test_a_terminal_gets_colours_and_its_own_width(tmp_path, bare):
    shown = in_terminal(tmp_path, bare, columns=60).stdout
    assert "\x1b[32mok" in shown
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert "  ok       pidfd       Linux" in "\n".join(lines)
    assert [line for line in lines if len(line) > 60 and "/" not in line] == []


def in_terminal(folder, env, columns):
    script = f"stty cols {columns}; {' '.join(MUXSIM)} doctor"
    env = {**os.environ, **env, "PATH": env["PATH"] + ":/usr/bin:/bin", "TERM": "xterm-256color"}
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        env.pop(name, None)
    done = subprocess.run(
        [shutil.which("script"), "-qec", script, os.devnull],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def test_many_environments_are_counted_and_not_all_named():
    found = lacking("programs", "uv", "none", lost="nothing", advice="get it", users=list("abcdef"))
    assert found.lost == "nothing (for a, b, c, d and 2 more)"
