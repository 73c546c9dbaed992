"""The container's files, as far as they can be read: no image is built here, since none can be fetched."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from muxsim.cli.main import app

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"


def steps():
    """The Dockerfile's instructions, each with the stage that it is in."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    stage, found = "", []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, rest = line.partition(" ")
            if name == "FROM":
                stage = rest.split(" AS ")[-1]
            found.append((stage, name, rest.strip()))
    return found


def of(stage, name):
    return [rest for where, what, rest in steps() if (where, what) == (stage, name)]


def test_what_is_copied_is_there_and_is_let_into_the_build():
    let_in = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"]
    for _, name, rest in steps():
        words = shlex.split(rest)
        if name == "COPY" and not words[0].startswith("--from"):
            for source in words[:-1]:
                assert (ROOT / source).exists(), source
                assert Path(source).parts[0] in let_in, source


@pytest.mark.parametrize("stage", ["muxsim", "muxsim-node"])
def test_it_does_not_run_as_root(stage):
    assert of(stage, "USER")[-1] == "10001:10001"


def test_it_is_asked_how_it_is_and_stopped_as_muxsim_wants_to_be():
    (health,) = of("muxsim", "HEALTHCHECK")
    assert health.endswith('CMD ["muxsim", "ctl", "status"]')
    assert of("muxsim", "STOPSIGNAL") == ["SIGTERM"]
    (entry,) = of("muxsim", "ENTRYPOINT")
    assert entry == '["muxsim"]'


def test_what_it_runs_are_commands_and_options_of_muxsim():
    (command,) = of("muxsim", "CMD")
    name, *options = yaml.safe_load(command)
    assert name in {one.name or one.callback.__name__ for one in app.registered_commands}
    assert [word for word in options if word.startswith("--")] == ["--host", "--tokens-file"]


def test_extras_that_it_installs_are_muxsims():
    extras = re.search(r"EXTRAS=(\S+)", (DEPLOY / "Dockerfile").read_text())[1].split(",")
    offered = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert set(extras) <= set(offered)


def test_compose_builds_what_there_is_and_gives_it_no_more_than_it_needs():
    told = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    service = told["services"]["muxsim"]
    stages = {where for where, what, _ in steps() if what == "FROM"}
    assert service["build"]["target"] in stages
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).samefile(DEPLOY / "Dockerfile")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "a proxy with TLS stands before it"
    assert service["mem_limit"] == service["memswap_limit"], "what has no room is ended and does not become slow"
    assert set(service["secrets"]) == set(told["secrets"]) == {"tokens"}
    # Where it writes: the store is kept, the rest is not.
    places = [one.partition(":")[0] for one in service["tmpfs"]]
    assert places == ["/tmp"]
    assert "state:/var/lib/muxsim" in service["volumes"]
