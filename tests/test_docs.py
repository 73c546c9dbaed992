"""What the documents name is there, and what is there CONTRIBUTING names."""

import os
import re
import subprocess
import tomllib
from typing import get_args

import pytest
from harness import MUXSIM
from test_architecture import ROOT

from muxsim.cli.options import Form
from muxsim.limits import CONNECTIONS
from muxsim.serve.routes.fast_lane import LONGEST_BODY
from muxsim.serve.routes.verdicts import JUDGED
from muxsim.values import AUTH_KEYS, CLIENT_KEYS, ENVIRONMENT_KEYS, OAUTH_KEYS, SERVER_KEYS

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/README.md")])
# The tops of the layout: a word with one of these before its slash is a path.
TOPS = {"transports", "muxsim", "tests", "scripts", "docs", "examples", "benchmarks", "js_servers", "dashboard", ".ci"}
PARTS = {path.name for path in (ROOT / "muxsim").iterdir() if path.is_dir() and not path.name.startswith("_")}
# A key of messages, not a path.
KEYS = {"muxsim/control"}
SUFFIXES = ("", ".py", ".cjs", ".js", ".mjs", ".md", ".toml")


FENCED = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def code_in(text):
    """Each line of a text's code blocks, and what stands between backticks elsewhere."""
    lines = [line for block in FENCED.findall(text) for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


def words_in_code(text):
    return [word for piece in code_in(text) for word in re.split(r"[\s\"'\[\](),;|]+|\\n", piece) if word]


def paths_named(text):
    """Paths of this project that a text names: from its top, or from muxsim/."""
    found = set()
    for piece in words_in_code(text):
        word = piece.partition("::")[0].strip(".:")
        top, slash, rest = word.partition("/")
        if slash and rest and re.fullmatch(r"[\w./-]+", word) and (top in TOPS | PARTS) and word not in KEYS:
            found.add(word.rstrip("/"))
    return found


def is_there(path):
    """Whether there is such a file or folder; a module may be named without its suffix."""
    return any((root / f"{path}{suffix}").exists() for root in (ROOT, ROOT / "muxsim") for suffix in SUFFIXES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_document_names_is_there(page):
    assert {path for path in paths_named(page.read_text()) if not is_there(path)} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert {one for one in targets if "://" not in one and not (page.parent / one).exists()} == set()


def test_the_checks_see_what_they_look_for():
    picture = '```mermaid\nlane["serve/routes/fast_lane\\nor serve/nowhere"]\n```'
    text = f"`muxsim/nothing.py`\n{picture}\n`a/b` `tests/harness.py`"
    assert paths_named(text) == {"muxsim/nothing.py", "serve/routes/fast_lane", "serve/nowhere", "tests/harness.py"}
    assert [
        is_there(path) for path in ("muxsim/nothing.py", "serve/nowhere", "serve/operate/host", "tests/harness.py")
    ] == [*(False, False, True, True)]


def test_every_marker_is_explained_and_no_other_is():
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    markers = {re.split(r"\W", line)[0] for line in options["markers"]}
    tests = CONTRIBUTING[CONTRIBUTING.index("\n## Tests") :]
    assert {marker for marker in markers if f"`{marker}" not in tests} == set()


# ---- the gateway


def test_the_life_of_a_message_names_every_file_of_the_gateway_that_one_may_meet():
    text = (ROOT / "docs" / "life-of-a-message.md").read_text()
    for folder in ("http", "routes"):
        table = text[text.index(f"| in `serve/{folder}/` |") :].partition("\n\n")[0]
        named = set(re.findall(r"`(\w+)`", table))
        there = {path.stem for path in (ROOT / "muxsim" / "serve" / folder).glob("[!_]*.py")}
        assert named == there


def test_the_size_that_documents_name_for_the_short_way_is_its():
    size = f"up to {LONGEST_BODY // 1024} KiB"
    assert [
        page for page in ("SECURITY.md", "docs/life-of-a-message.md") if size not in (ROOT / page).read_text()
    ] == []


def test_security_names_every_bound_of_connections_and_what_the_short_way_goes_by():
    text = (ROOT / "SECURITY.md").read_text()
    section = text[text.index("\n## Connections") : text.index("\n## Limits that we know")]
    named = set(re.findall(r"`([\w-]+)`", section)) - {"POST"}
    assert named == CONNECTIONS.keys() | {header.decode() for header in JUDGED}


def first_cells(page):
    """What the tables of a page have in backquotes in their first column."""
    rows = re.findall(r"^\| (`[^|]+) \|", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`(\w+)`", row)}


def test_every_key_of_a_config_has_a_row():
    keys = {*SERVER_KEYS, *CLIENT_KEYS, *AUTH_KEYS, *OAUTH_KEYS, *ENVIRONMENT_KEYS}
    assert keys - first_cells("configuration.md") == set()


def test_every_form_of_an_export_has_a_row():
    assert {*get_args(Form)} - first_cells("rollouts.md") == set()


# ---- the command line


# Commands that have commands of their own.
GROUPS = ("ctl", "envs")


def commands_named(text):
    """The commands in a text's code, each as its words: ``muxsim serve --port 0`` and the like."""
    found = []
    for line in [line for piece in code_in(text) for line in re.findall(r"(?:^|\$ )muxsim ([a-z].*)", piece)]:
        words = re.split(r"#|\|", line)[0].split()
        deep = words[0] in GROUPS and len(words) > 1 and words[1].isalpha() and words[1].islower()
        found.append(
            (
                " ".join(words[: 2 if deep else 1]),
                {
                    word.partition("=")[0].rstrip(".,")
                    for word in words
                    if word[2:3].isalpha() and word.startswith("--")
                },
            )
        )
    return found


def help_of(*command):
    done = subprocess.run(
        [*MUXSIM, *command, "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    return done.stdout


def test_every_command_and_option_that_a_document_names_is_there():
    named = {}
    for page in PAGES:
        for command, options in commands_named(page.read_text()):
            named.setdefault(command, set()).update(options)
    assert {"serve", "stdio", "rollout", "check"} <= named.keys()
    helps = {command: help_of(*command.split()) for command in named}
    assert {
        f"{command} {option}"
        for command, options in named.items()
        for option in options
        if option not in helps[command]
    } == set()
