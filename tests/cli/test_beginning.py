"""The commands that somebody begins with: `muxsim new`, `muxsim init`, `muxsim install-completion`."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from muxsim.cli.adopt import adopt, adopted, as_toml
from muxsim.cli.scaffold import write_environment
from muxsim.config import load
from muxsim.errors import MuxsimError

from .terminal import muxsim

LIMIT = 300


# ---- new


@pytest.mark.children
@pytest.mark.parametrize("option", [(), ("--python",)])
def test_a_new_environment_is_fit_and_its_test_passes(tmp_path, option):
    made = muxsim(tmp_path, "new", "walker", *option)
    assert (made.status, made.stderr) == (0, "")
    checked = muxsim(tmp_path / "walker", "check", "walker", "--json", limit=LIMIT)
    assert json.loads(checked.stdout)["fit"], checked.stdout
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    tested = subprocess.run(
        command, cwd=tmp_path / "walker", capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert "2 passed" in tested.stdout, tested.stdout


@pytest.mark.children
@pytest.mark.network
def test_a_new_environment_in_javascript_is_fit_and_its_test_passes(tmp_path):
    assert muxsim(tmp_path, "new", "js-walker", "--javascript").status == 0
    checked = muxsim(tmp_path / "js-walker", "check", "js-walker", "--json", limit=LIMIT)
    assert json.loads(checked.stdout)["fit"], checked.stdout + checked.stderr
    folder = tmp_path / "js-walker"
    tested = subprocess.run(["node", "--test"], cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert "pass 2" in tested.stdout, tested.stdout


@pytest.mark.parametrize("name", ["Walker", "1walker", "wal ker", "..", "wälker"])
def test_what_cannot_name_an_environment_is_refused_and_nothing_is_written(tmp_path, name):
    refused = muxsim(tmp_path, "new", name)
    assert (refused.status, "cannot name an environment" in refused.complaint) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "walker").mkdir()
    (tmp_path / "walker" / "server.py").write_text("mine")
    refused = muxsim(tmp_path, "new", "walker")
    assert (refused.status, "is there already" in refused.complaint) == (2, True)
    assert [one.read_text() for one in (tmp_path / "walker").iterdir()] == ["mine"]


# ---- init

SERVERS = {
    "files": {
        "command": "npx",
        "args": [
            "-y",
            "@modelcontextprotocol/server-filesystem@1",
            "${workspaceFolder}",
            'a "b" ${weird:x} {seed} \x7f',
        ],
        "env": {"API_KEY": "${env:API_KEY}", "A.B": "$x"},
    },
    "my server": {"command": "python", "args": ["server.py"]},
    "remote": {"url": "https://example.org/mcp"},
}


@pytest.mark.parametrize(
    ("place", "key"), [(".mcp.json", "mcpServers"), (".cursor/mcp.json", "mcpServers"), (".vscode/mcp.json", "servers")]
)
def test_what_is_made_of_a_file_is_what_the_file_has(tmp_path, place, key):
    project, home = tmp_path / "project", tmp_path / "home"
    file = project / place
    file.parent.mkdir(parents=True)
    home.mkdir()
    file.write_text(json.dumps({key: SERVERS}))
    done = muxsim(project, "init", env={"HOME": str(home), "API_KEY": "very-secret"})
    assert done.status == 0, done.stderr
    assert "remote" in done.stderr
    text = (project / "muxsim.toml").read_text()
    assert "very-secret" not in text
    for environ in ({"API_KEY": "very-secret"}, {}):
        made, original = (load(path, environ) for path in (project / "muxsim.toml", file))
        assert made.environments == original.environments
    again = muxsim(project, "init", env={"HOME": str(home)})
    assert (again.status, "is there already" in again.complaint) == (2, True)
    assert "move it away, or use it" in again.complaint


def test_what_is_made_is_read_by_nobody_who_could_not_read_the_file(tmp_path):
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"mine": {"command": "python", "env": {"API_KEY": "very-secret"}}}}))
    file.chmod(0o600)
    done = muxsim(tmp_path, "init", "mcp.json", env={"HOME": str(tmp_path)})
    assert done.status == 0, done.stderr
    assert (tmp_path / "muxsim.toml").stat().st_mode & 0o777 == 0o600


def test_the_nearest_file_with_servers_is_taken_and_one_without_is_passed_over(tmp_path):
    project, home = tmp_path / "project", tmp_path / "home"
    project.mkdir()
    home.mkdir()
    (project / ".mcp.json").write_text(json.dumps({"mcpServers": {"remote": SERVERS["remote"]}}))
    (home / ".claude.json").write_text(json.dumps({"mcpServers": {"mine": {"command": "python", "args": ["x.py"]}}}))
    done = muxsim(project, "init", env={"HOME": str(home)})
    assert (done.status, f"has mine, of {home}/.claude.json" in done.stdout) == (0, True), done
    assert list(load(project / "muxsim.toml").environments) == ["mine"]


def test_without_any_file_it_says_where_it_looked(tmp_path):
    done = muxsim(tmp_path, "init", env={"HOME": str(tmp_path)})
    assert (done.status, ".cursor/mcp.json" in done.complaint, "muxsim new" in done.complaint) == (2, True, True)


def test_values_that_look_like_variables_stay_as_they_are(tmp_path):
    file = tmp_path / "servers.json"
    file.write_text(json.dumps({"mcpServers": {"a": {"command": "a", "args": ["${weird:x}", "${", "$", "{x}"]}}}))
    (tmp_path / "muxsim.toml").write_text(as_toml(adopted(file), file))
    assert load(tmp_path / "muxsim.toml").environments["a"].args == load(file).environments["a"].args


ONE = {"mcpServers": {"a": {"command": "python", "args": ["x.py"]}}}


@pytest.mark.parametrize("name", ["new\nline", "esc\x1b[31m", 'quote"', "tab\t", "ü\u2028"])
def test_a_config_is_made_in_a_folder_of_any_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / ".mcp.json").write_text(json.dumps(ONE))
    adopt(folder, tmp_path, None)
    assert load(folder / "muxsim.toml").environments == load(folder / ".mcp.json").environments
    assert sorted(path.name for path in folder.iterdir()) == [".mcp.json", "muxsim.toml"]


def test_a_folder_whose_name_no_toml_can_hold_is_told(tmp_path):
    folder = tmp_path / os.fsdecode(b"a\xff")
    folder.mkdir()
    (folder / ".mcp.json").write_text(json.dumps(ONE))
    with pytest.raises(MuxsimError, match="is no UTF-8, which TOML is: rename the folder"):
        adopt(folder, tmp_path, None)
    assert [path.name for path in folder.iterdir()] == [".mcp.json"]


@pytest.mark.parametrize(
    "settings", [{"muxsim": {"port": 9000}}, {"mcpServers": {"a": {"command": "python", "muxsim": {"shared": True}}}}]
)
def test_settings_of_muxsims_own_are_not_lost(tmp_path, settings):
    (tmp_path / ".mcp.json").write_text(json.dumps(ONE | settings))
    with pytest.raises(MuxsimError, match=r"which would be lost in .*; it is a config as it is: muxsim serve .*\.json"):
        adopt(tmp_path, tmp_path, None)
    assert [path.name for path in tmp_path.iterdir()] == [".mcp.json"]


def test_a_folder_that_is_not_there_is_told_of(tmp_path):
    (tmp_path / ".mcp.json").write_text(json.dumps({"mcpServers": {"a": {"command": "python", "cwd": "/not/here"}}}))
    _, found = adopt(tmp_path, tmp_path, None)
    assert found.notes[-1].endswith('[a] cwd = "/not/here" is no folder here, and is left out')


def test_a_link_that_leads_nowhere_is_there_too(tmp_path):
    (tmp_path / ".mcp.json").write_text(json.dumps(ONE))
    (tmp_path / "muxsim.toml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MuxsimError, match="is there already"):
        adopt(tmp_path, tmp_path, None)
    assert not (tmp_path / "elsewhere").exists()


def test_a_config_and_an_environment_are_there_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / ".mcp.json").write_text(json.dumps(ONE))
    (tmp_path / "empty").mkdir()

    def full(path, text, **_):
        path.write_bytes(text.encode()[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_text", full)
    for begin in (
        lambda: adopt(tmp_path, tmp_path, None),
        lambda: write_environment(tmp_path / "walker", "python"),
        lambda: write_environment(tmp_path / "empty", "javascript"),
    ):
        with pytest.raises(MuxsimError, match="cannot be written: No space left on device"):
            begin()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [".mcp.json", "empty"]


# ---- completion


@pytest.mark.parametrize(
    ("shell", "file"), [("bash", ".bash_completions/muxsim.sh"), ("fish", ".config/fish/completions/muxsim.fish")]
)
def test_completion_is_installed_for_a_shell_and_completes(tmp_path, shell, file):
    done = muxsim(tmp_path, "install-completion", env={"HOME": str(tmp_path), "SHELL": f"/bin/{shell}"})
    assert (done.status, str(tmp_path / file) in done.stdout.replace("\n", "")) == (0, True), done
    assert "muxsim" in (tmp_path / file).read_text()
    asked = {"_MUXSIM_COMPLETE": "complete_bash", "COMP_WORDS": "muxsim doc", "COMP_CWORD": "1"}
    assert muxsim(tmp_path, env=asked).stdout.split() == ["doctor"]


def test_a_shell_that_is_not_known_is_one_line(tmp_path):
    done = muxsim(tmp_path, "install-completion", env={"HOME": str(tmp_path), "SHELL": "/bin/odd"})
    assert (done.status, "no completion for odd" in done.complaint) == (2, True)
    assert list(tmp_path.iterdir()) == []
