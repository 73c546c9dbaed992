"""What a table says of what its environment needs, and what its command can make use of."""

import json
import sys
from dataclasses import replace

import pytest

from muxsim.config import load
from muxsim.errors import ConfigError
from muxsim.spec import Dependencies


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "server.py").touch()
    (tmp_path / "inline.py").write_text("#!/usr/bin/env python\n# /// script\n# dependencies = ['mcp']\n# ///\n")
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "pyproject.toml").touch()
    return tmp_path


def read(folder, text):
    (folder / "muxsim.toml").write_text(f"[environments.a]\n{text}")
    return load(folder / "muxsim.toml").environments["a"]


@pytest.mark.parametrize(
    ("text", "command", "wanted"),
    [
        ("command = 'server.py'\nrequirements = ['mcp >=2, <3']", "python", {"requirements": ("mcp<3,>=2",)}),
        (
            "command = 'server.py'\nrequirements = 'requirements.txt'",
            "python",
            {"requirements_file": "requirements.txt"},
        ),
        ("command = 'python'\nargs = ['-m', 'a']\npyproject = 'project'", "python", {"pyproject": "project"}),
        ("command = 'demo'\npyproject = 'project/pyproject.toml'", "demo", {"pyproject": "project"}),
        ("command = 'server.py'\npython = '3.12'", "python", {"python": "3.12"}),
        ("command = 'uvx'\nargs = ['a']\npython = '3.12'", "uvx", {"python": "3.12"}),
        ("command = 'node'\nargs = ['a.mjs']\npackages = ['zod@3']", "node", {"packages": ("zod@3",)}),
        ("command = 'server.py'\nrequirements = ['mcp']\npython = './py'", "python", {"python": "py", "more": "mcp"}),
        ("command = 'inline.py'", "python", {"script": "inline.py"}),
        ("command = 'python'\nargs = ['-u', 'inline.py']", "python", {"script": "inline.py"}),
        ("command = 'inline.py'\npython = './py'", "py", {}),  # the user's own environment, as it is
        ("command = 'server.py'", sys.executable, {}),
    ],
)
def test_a_table_says_what_its_environment_needs(folder, text, command, wanted):
    paths = {"requirements_file", "pyproject", "script"}
    wanted = {key: str(folder / value) if key in paths else value for key, value in wanted.items()}
    if wanted.get("python") == "py":
        wanted = {"python": str(folder / "py"), "requirements": (wanted["more"],)}
    spec = read(folder, text)
    assert replace(spec.dependencies, contents="") == Dependencies(**wanted)
    assert spec.command == (str(folder / command) if command == "py" else command)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "command = 'npx'\nargs = ['x']\nrequirements = ['mcp']",
            'requirements = ["mcp"]: is for Python commands, and',
        ),
        ("command = 'node'\nargs = ['x']\npyproject = 'project'", 'pyproject = "project": is for Python commands, and'),
        (
            "command = 'server.py'\npackages = ['zod']",
            'packages = ["zod"]: are of npm, and "server.py" is run by Python',
        ),
        (
            "command = 'server.py'\nrequirements = ['mcp =< 2']",
            'requirements[0] = "mcp =< 2": must be a requirement as',
        ),
        ("command = 'server.py'\nrequirements = 'none.txt'", "names no file, for there is no"),
        ("command = 'server.py'\nrequirements = 3", "must be the path of a requirements.txt, or a list such as"),
        ("command = 'server.py'\npyproject = '.'", "has no pyproject.toml in"),
        ("command = 'server.py'\npython = 3.12", 'must be a version in quotes, such as "3.12", or the path of'),
        ("command = 'node'\nargs = ['x']\npackages = ['./x']", "must be an npm package, such as zod@3"),
        ("command = 'server.py'\nrequirements = ['a']\npython = '{seed}/py'", "differs from session to session"),
    ],
)
def test_what_a_command_has_no_use_for_is_told_with_its_key(folder, text, told):
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_block_for_muxsim_in_the_file_of_another_program_may_say_it_too(folder):
    path = folder / "mcp.json"
    server = {"command": "python", "args": ["server.py"], "requirements": ["x"], "muxsim": {"requirements": ["mcp"]}}
    path.write_text(json.dumps({"mcpServers": {"a": server}}))
    config = load(path)
    assert config.environments["a"].dependencies == Dependencies(requirements=("mcp",))
    assert "requirements" in config.notes[0]


FILES = {
    "requirements.txt": "requirements = 'requirements.txt'\ncommand = 'server.py'",
    "more.txt": "requirements = 'requirements.txt'\ncommand = 'server.py'",
    "project/pyproject.toml": "pyproject = 'project'\ncommand = 'server.py'",
    "project/uv.lock": "pyproject = 'project'\ncommand = 'server.py'",
    "inline.py": "command = 'inline.py'",
    "environment.yml": "conda = 'environment.yml'\ncommand = 'python'",
}


@pytest.mark.parametrize("file", FILES)
def test_a_config_that_is_read_again_has_another_spec_if_a_file_asks_for_something_else(tmp_path, file):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "pyproject.toml").write_text("[project]\nname = 'mine'\nversion = '1'\n")
    (tmp_path / "project" / "uv.lock").write_text("")
    (tmp_path / "requirements.txt").write_text("-r more.txt\n")
    (tmp_path / "more.txt").write_text("numpy\n")
    (tmp_path / "environment.yml").write_text("channels: [conda-forge]\ndependencies: [python]\n")
    (tmp_path / "inline.py").write_text("# /// script\n# dependencies = ['numpy']\n# ///\nprint(1)\n")
    before = read(tmp_path, FILES[file])
    assert read(tmp_path, FILES[file]) == before
    path = tmp_path / file
    path.write_text(path.read_text().replace("numpy", "scipy") + "\n# more\n")
    again = read(tmp_path, FILES[file])
    assert again != before
    assert replace(again.dependencies, contents="") == replace(before.dependencies, contents="")


@pytest.mark.parametrize(
    "line",
    [
        "./project",
        "../up.whl",
        "-r more.txt",
        "-c more.txt",
        "-e ./project",
        "it @ ./project",
        "wheels/it.whl",
        "it.whl",
    ],
)
def test_a_list_of_requirements_may_name_what_is_on_this_machine(tmp_path, line):
    folder = tmp_path / "here"
    (folder / "project").mkdir(parents=True)
    (folder / "wheels").mkdir()
    (folder / "project" / "pyproject.toml").write_text("[project]\nname = 'it'\nversion = '1'\n")
    for name in ("../up.whl", "more.txt", "wheels/it.whl", "it.whl"):
        (folder / name).touch()
    found = read(folder, f"command = 'python'\nrequirements = ['numpy', '{line}']").dependencies
    assert (found.requirements, found.folder) == (("numpy", line), str(folder))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "./nothing",
            "names nothing, for there is no {folder}/nothing: name a wheel, or a folder with a pyproject.toml",
        ),
        ("it @ ./empty", "names no project, for {folder}/empty has no pyproject.toml and no setup.py"),
        ("-e ./none.whl", "names nothing, for there is no {folder}/none.whl"),
        ("-r none.txt", "names no file, for there is no {folder}/none.txt: make it, or take it out"),
        ("--index-url https://h", "must be a requirement as PEP 508 writes it, such as mcp>=2,<3, a path such as"),
        ("mcp <> 2", "must be a requirement as PEP 508 writes it"),
    ],
)
def test_what_a_requirement_names_and_is_not_there_is_told_with_its_key(tmp_path, line, told):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, f"command = 'python'\nrequirements = ['{line}']")
    assert f'requirements[0] = "{line}": {told.format(folder=tmp_path)}' in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "command = 'python'\nrequirements = ['./it.whl']",
        "command = 'server.py'\nrequirements = 'requirements.txt'",
        "command = 'server.py'\npyproject = 'project'",
        "command = 'inline.py'",
        "command = 'python'\nconda = 'environment.yml'",
    ],
)
def test_a_config_that_is_read_again_has_another_spec_if_a_path_names_other_content(tmp_path, text):
    sources = "[tool.uv.sources]\nit = {path = '../it.whl'}\n"
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "pyproject.toml").write_text(f"[project]\nname = 'a'\ndependencies = ['it']\n{sources}")
    (tmp_path / "inline.py").write_text("# /// script\n# dependencies = ['it @ ./it.whl']\n# ///\n")
    (tmp_path / "environment.yml").write_text(
        "channels: [conda-forge]\ndependencies: [python, pip, {pip: [./it.whl]}]\n"
    )
    (tmp_path / "requirements.txt").write_text("./it.whl\n")
    (tmp_path / "it.whl").write_text("1")
    before = read(tmp_path, text)
    assert read(tmp_path, text) == before
    (tmp_path / "it.whl").write_text("2")
    assert read(tmp_path, text) != before
