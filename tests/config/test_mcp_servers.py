"""The files of other programs: each in the form in which its owner writes it."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.config import load
from muxsim.config.mcp_servers import _served_names
from muxsim.config.table import NAME
from muxsim.errors import ConfigError

GOOD = {"command": "server"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = tmp_path / "project"
    project.mkdir()
    return project


def read(folder, whole, environ=None, name="mcp.json"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(whole if isinstance(whole, str) else json.dumps(whole))
    return load(path, {"HOME": os.environ["HOME"], **(environ or {})})


def servers(folder, servers, environ=None, **more):
    return read(folder, {"mcpServers": servers, **more}, environ)


def one(folder, entry, environ=None, **more):
    return servers(folder, {"a": entry}, environ, **more).environments["a"]


def notes(config):
    return [note.partition("mcp.json: ")[2] for note in config.notes]


# ---- what is not known


@pytest.mark.parametrize(
    "key",
    [
        "trust",
        "includeTools",
        "tools",
        "icon",
        "disabledTools",
        "startup_timeout_sec",
        "_comment",
        "headers",
        "note",
        "x",
    ],
)
def test_what_is_not_known_is_passed_over_with_a_note_that_names_it(key, folder):
    config = servers(folder, {"a": {**GOOD, key: ["whatever"]}})
    assert config.environments["a"].command == "server"
    assert notes(config) == [f"[mcpServers.a] passed over: {key}"]


@given(
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()), max_size=8)
)
def test_no_key_of_others_refuses_a_file(tmp_path_factory, more):
    known = {"command", "args", "env", "cwd", "envFile", "muxsim", "type", "transport", "transportType"}
    more = {key: value for key, value in more.items() if key not in known}
    path = tmp_path_factory.getbasetemp() / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"a": GOOD, "b": {**more, **GOOD}}, **{f"x{key}": 1 for key in more}}))
    config = load(path, {})
    assert config.environments["a"].command == "server"
    assert len(config.notes) <= 2  # one for the server, one for the file
    assert all(note.isprintable() for note in config.notes)


def test_one_note_names_all_that_was_passed_over_and_what_may_be_a_slip(folder):
    config = servers(folder, {"a": {**GOOD, "arg": [], "trust": True, "icon": "x"}, "b": {**GOOD, "zip": 1}}, theme=1)
    assert notes(config) == [
        "passed over: theme",
        "[mcpServers.a] passed over: arg (did you mean args?), trust, icon",
        "[mcpServers.b] passed over: zip",
    ]


def test_no_value_of_a_key_stands_in_a_note(folder):
    config = servers(folder, {"a": {**GOOD, "headers": {"Authorization": "hunter2"}}}, token="hunter2")
    assert config.notes
    assert "hunter2" not in "".join(config.notes)


def test_what_means_nothing_to_a_server_needs_no_note(folder):
    keys = {"type": "stdio", "timeout": 60, "autoApprove": [], "alwaysAllow": [], "disabled": False, "enabled": True}
    assert servers(folder, {"a": {**GOOD, **keys, "isActive": True, "description": "x", "name": "A"}}).notes == ()


@pytest.mark.parametrize("block", [{"idle_timeot": 1}, {"ttl": "x"}, {"env": {"PORT": 80}}, {"args": ["{sed}"]}])
def test_muxsims_own_block_is_strict(block, folder):
    with pytest.raises(ConfigError):
        one(folder, {**GOOD, "muxsim": block})


# ---- which servers


@pytest.mark.parametrize("off", [{"disabled": True}, {"enabled": False}, {"isActive": False}, {"disabled": "True"}])
@pytest.mark.parametrize(
    "entry",
    [
        GOOD,
        {},
        {"command": 5, "args": "x", "env": ["y"]},
        {"url": "https://example.org/mcp"},
        {"command": "a b c", "muxsim": {"nonsense": 1}},
        {"command": "x", "args": ["${NOT_SET}"]},
    ],
)
def test_a_server_that_is_switched_off_is_left_out_whatever_is_in_it(off, entry, folder):
    config = servers(folder, {"a": GOOD, "github.com/acme/tools": {**entry, **off}})
    assert (list(config.environments), config.notes) == (["a"], ())


@pytest.mark.parametrize(
    "lists",
    [
        {"mcp": {"excluded": ["b"]}},
        {"mcp": {"allowed": ["a"]}},
        {"excludeMCPServers": ["b"]},
        {"allowMCPServers": ["a"]},
        {"disabledMcpServers": ["b"]},
        {"disabledMcpjsonServers": ["b", 5]},
    ],
)
def test_a_server_that_a_list_switches_off_is_left_out(lists, folder):
    config = servers(folder, {"a": GOOD, "b": {"command": 5}}, **lists)
    assert (list(config.environments), config.notes) == (["a"], ())


@pytest.mark.parametrize("lists", [{"mcp": {"allowed": [], "excluded": None}}, {"mcp": 5}, {"excludeMCPServers": "b"}])
def test_a_list_that_names_no_server_switches_none_off(lists, folder):
    assert list(servers(folder, {"a": GOOD, "b": GOOD}, **lists).environments) == ["a", "b"]


@pytest.mark.parametrize(
    "entry",
    [
        {"url": "https://example.org/mcp"},
        {"type": "http", "url": "https://example.org/mcp", "headers": {}},
        {"type": "sse", "url": "https://example.org/sse"},
        {"type": "streamable-http", "url": "https://example.org/mcp"},
        {"httpUrl": "https://example.org/mcp"},
        {"serverUrl": "https://example.org/mcp"},
        {"command": "server", "transport": "sse"},
        {"source": "extension", "enabled": True, "settings": {}},
    ],
)
def test_a_remote_server_is_left_out_with_a_note(entry, folder):
    config = servers(folder, {"a": GOOD, "far": entry})
    assert list(config.environments) == ["a"]
    (note,) = notes(config)
    assert note.startswith("[mcpServers.far] is left out: ")


def test_what_is_no_server_at_all_is_left_out_with_a_note(folder):
    config = servers(folder, {"_comment": "ours", "a": GOOD, "b": ["x"], "c": None})
    assert list(config.environments) == ["a"]
    assert [note.partition("]")[0] for note in notes(config)] == ["[mcpServers._comment", "[mcpServers.b"]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({}, "command: is missing: "),
        ({"command": 5}, "command: must be a string"),
        ({"command": "node server.js"}, "command: has arguments in it, which go into args: "),
        ({"command": "server", "args": "--all"}, "args: must be a list"),
        ({"command": "server", "env": {"KEY": ["hidden"]}}, "env.KEY: must be a string"),
        ({"command": "server", "args": ["${NOT_SET}"]}, "args[0]: the variable NOT_SET is not set: "),
        ({"command": "server", "cwd": 5}, "cwd: must be a string"),
        ({"command": "server", "envFile": "no.env"}, "envFile: cannot be read: "),
        ({"command": "npx", "args": []}, "args: npx needs a package"),
    ],
)
def test_a_server_with_a_fault_is_left_out_with_a_note_and_the_others_are_served(entry, why, folder):
    config = servers(folder, {"bad": entry, "a": GOOD})
    assert list(config.environments) == ["a"]
    (note,) = notes(config)
    assert note.startswith(f"[mcpServers.bad] is left out: {why}")
    assert "hidden" not in note
    with pytest.raises(ConfigError, match=re.escape(why.partition(":")[0])):
        one(folder, entry)
    with pytest.raises(ConfigError, match=r"\[mcpServers\.bad"):
        servers(folder, {"bad": {**entry, "muxsim": {}}, "a": GOOD})


def test_a_file_with_nothing_to_start_says_what_was_left_out(folder):
    with pytest.raises(ConfigError, match=r"has no server to start: .*\(left out: \[mcpServers.far\] is left out"):
        servers(folder, {"far": {"url": "https://example.org/mcp"}})


@pytest.mark.parametrize(
    ("whole", "name"),
    [
        ({"mcpServers": {"a": GOOD}}, "claude_desktop_config.json"),
        ({"servers": {"a": {"type": "stdio", **GOOD}}, "inputs": []}, ".vscode/mcp.json"),
        ({"mcp": {"servers": {"a": GOOD}}, "editor.fontSize": 12}, "settings.json"),
        ({"context_servers": {"a": {"source": "custom", **GOOD}}}, "settings.json"),
        ({"context_servers": {"a": {"command": {"path": "server", "args": [], "env": {}}}}}, "settings.json"),
        ({"mcpServers": {"a": {"command": ["server"]}}}, "list.json"),
        ({"mcpServers": {"a": GOOD}}, "mcp.jsonc"),
        ({"mcpServers": [{"name": "a", **GOOD}]}, "list.json"),
    ],
)
def test_servers_are_found_where_their_program_has_them(whole, name, folder):
    assert read(folder, whole, name=name).environments["a"].command == "server"


# ---- names


def test_a_name_that_does_not_fit_into_a_url_gets_one_that_does_and_is_told(folder):
    config = servers(folder, {"my lake": GOOD, "my-lake": GOOD, "github.com/acme": GOOD, "sëe": GOOD, "湖": GOOD})
    assert list(config.environments) == ["my-lake-2", "my-lake", "github.com-acme", "see", "server"]
    assert notes(config)[0] == "[mcpServers.my lake] served as my-lake-2, for its name becomes a part of URLs"


def test_the_default_may_be_named_as_its_owner_does(folder):
    assert servers(folder, {"b": GOOD, "my lake": GOOD}, muxsim={"default": "my lake"}).default == "my-lake"


@given(st.lists(st.text() | st.sampled_from(["a", "a-2", "a b", "a/b", "a-b", "a.", "A"]), unique=True))
def test_every_name_is_served_under_one_of_its_own(names):
    served = _served_names(names)
    assert len(set(served)) == len(names)
    assert all(NAME.fullmatch(name) for name in served)
    assert all(name == made for name, made in zip(names, served, strict=True) if NAME.fullmatch(name))


# ---- values


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("3000", "3000"),
        ("true", "true"),
        ("false", "false"),
        ("1.10", "1.10"),
        ("1e3", "1e3"),
        ('"x"', "x"),
        ('""', ""),
    ],
)
def test_a_number_or_boolean_is_its_text_as_it_is_written(written, text, folder):
    whole = f'{{"mcpServers": {{"a": {{"command": "server", "args": [{written}], "env": {{"X": {written}}}}}}}}}'
    spec = read(folder, whole).environments["a"]
    assert (spec.args, spec.env) == ((text,), {"X": text})


def test_a_path_of_nothing_is_not_set(folder):
    assert one(folder, {**GOOD, "cwd": "", "envFile": ""}) == one(folder, GOOD)


def test_a_variable_that_is_null_is_not_set(folder):
    assert one(folder, {**GOOD, "env": {"X": None, "Y": "1"}, "args": None, "cwd": None}).env == {"Y": "1"}


@pytest.mark.parametrize("form", ["{project}", ".", "${workspaceFolder}", "sub/.."])
def test_a_folder_is_the_files_own_or_one_from_there(form, folder):
    assert one(folder, {**GOOD, "cwd": form.replace("{project}", str(folder))}).cwd == str(folder)


@pytest.mark.parametrize(
    ("command", "args", "path"),
    [
        ("python3", ["server.py"], "server.py"),
        ("/usr/bin/python3", ["-u", "server.py"], "server.py"),
        ("server.py", [], "server.py"),
        ("node", ["server.js"], "server.js"),
        ("./server", [], "server"),
        ("npx", ["."], ""),
    ],
)
@pytest.mark.parametrize("beside_the_file", [False, True])
def test_paths_go_from_the_folder_that_a_server_runs_in(command, args, path, beside_the_file, folder):
    there = folder / "elsewhere"
    there.mkdir()
    for place in [there, folder] if beside_the_file else [there]:
        for name in ("server.py", "server.js", "server"):
            (place / name).touch()
    spec = one(folder, {"command": command, "args": args, "cwd": str(there)})
    named = [word for word in (spec.command, *spec.args) if word.startswith(str(folder))]
    assert (named or list(spec.args)) == [os.path.normpath(there / path)]
    own = one(folder, {"command": command, "args": args, "muxsim": {"cwd": str(there)}})
    assert not [word for word in (own.command, *own.args) if word.startswith(str(there))]


@pytest.mark.parametrize("name", [".vscode/mcp.json", ".cursor/mcp.json", ".kiro/settings/mcp.json"])
def test_a_file_in_an_editors_folder_speaks_of_the_project(name, folder):
    whole = {"mcpServers": {"a": {"command": "server.py", "cwd": "${workspaceFolder}/x", "envFile": ".env"}}}
    (folder / ".env").write_text("A=1")
    spec = read(folder, whole, name=name).environments["a"]
    assert (spec.args, spec.cwd, spec.env) == ((str(folder / "server.py"),), str(folder / "x"), {"A": "1"})


def test_a_file_of_variables_is_read_and_the_entrys_own_win(folder):
    lines = [
        "# a comment",
        "A=1",
        "export B = two words # not this",
        "C='3 # 4'",
        'D="5"',
        "E=",
        "nonsense",
        "F=f#f",
        "G={seed}",
    ]
    (folder / "dev.env").write_text("\n".join(lines))
    spec = one(folder, {**GOOD, "envFile": "${workspaceFolder}/dev.env", "env": {"A": "mine"}})
    launch = spec.launch(seed=7, session_id="s", workspace="/w", environ={})
    assert {name: launch.env[name] for name in "ABCDEFG"} == {
        "A": "mine",
        "B": "two words",
        "C": "3 # 4",
        "D": "5",
        "E": "",
        "F": "f#f",
        "G": "{seed}",
    }


def test_a_file_of_variables_that_is_not_there_is_a_fault(folder):
    with pytest.raises(ConfigError, match=r'envFile = "no.env": cannot be read: No such file'):
        one(folder, {**GOOD, "envFile": "no.env"})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${KEY}", "k"),
        ("${NONE:-d}", "d"),
        ("${env:KEY}", "k"),
        ("${env:NONE}", ""),
        ("${env:NONE:-d}", "d"),
        ("${workspaceFolder}/x", "{project}/x"),
        ("${workspaceFolder:project}/x", "{project}/x"),
        ("${workspaceFolderBasename}", "project"),
        ("${userHome}", "{home}"),
        ("a${/}b${pathSeparator}c", "a/b/c"),
        ("${input:api-key}", "from the variable"),
        ("${input:level}", "easy"),
        ("$${KEY}", "${KEY}"),
        ("$${seed}", "${seed}"),
        ("${config:x} ${KEY%x} ${", "${config:x} ${KEY%x} ${"),
        ("{seed}", "7"),
        ("{session}", "{session}"),
        ("${BRACES}", "{seed} {sed} ${KEY}"),
    ],
)
def test_references_mean_what_their_program_means_by_them(text, value, folder):
    environ = {"KEY": "k", "API_KEY": "from the variable", "BRACES": "{seed} {sed} ${KEY}"}
    inputs = [{"id": "api-key", "type": "promptString", "password": True}, {"id": "level", "default": "easy"}, 5]
    spec = one(folder, {**GOOD, "args": [text], "env": {"X": text}}, environ, inputs=inputs)
    launch = spec.launch(seed=7, session_id="s", workspace="/w", environ={})
    expected = value.replace("{project}", str(folder)).replace("{home}", os.environ["HOME"])
    assert (launch.argv[1], launch.env["X"]) == (expected, expected)


def test_an_input_that_nobody_gives_is_a_fault_that_names_a_variable(folder):
    with pytest.raises(ConfigError, match=r"muxsim has nobody to ask: set API_KEY$"):
        one(folder, {**GOOD, "env": {"X": "${input:api-key}"}}, inputs=[{"id": "api-key"}])


def test_a_variable_that_is_not_set_and_has_no_default_is_a_fault(folder):
    with pytest.raises(ConfigError, match=r"the variable KEY is not set: set it, or write \$\{KEY:-default\}"):
        one(folder, {**GOOD, "args": ["${KEY}"]})


@pytest.mark.parametrize("form", [lambda mcp: {"mcp": mcp}, lambda mcp: {f"mcp.{key}": mcp[key] for key in mcp}])
def test_the_inputs_of_settings_stand_beside_their_servers(form, folder):
    mcp = {"inputs": [{"id": "k", "default": "v"}], "servers": {"a": {**GOOD, "args": ["${input:k}"]}}}
    config = read(folder, form(mcp))
    assert (config.environments["a"].args, config.notes) == (("v",), ())


def test_what_is_left_as_it_is_is_told(folder):
    config = servers(folder, {"a": {**GOOD, "args": ["${command:pick}", "{session}"]}})
    assert notes(config) == [
        "[mcpServers.a] args[1] has {session}, which is left as it is: did you mean {session_id}?; "
        "${command:pick} means nothing here and is left as it is"
    ]


# ---- the file


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
def test_a_file_is_read_in_the_encodings_that_editors_write(encoding, folder):
    text = json.dumps({"mcpServers": {"a": {"command": "server", "args": ["é湖🙂"]}}}, ensure_ascii=False)
    mark = "\ufeff" if encoding.endswith("-bom") else ""
    (folder / "mcp.json").write_bytes((mark + text).encode(encoding.removesuffix("-bom")))
    assert load(folder / "mcp.json", {}).environments["a"].args == ("é湖🙂",)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le", "utf-16-be"])
def test_another_encoding_is_a_fault_that_says_what_to_do(encoding, folder):
    (folder / "mcp.json").write_bytes('{"mcpServers": {"é": {}}}'.encode(encoding))
    with pytest.raises(ConfigError, match=r"is not UTF-8, .*: save it as UTF-8$"):
        load(folder / "mcp.json", {})


def test_comments_and_last_commas_are_allowed_and_strings_are_left_alone(folder):
    text = r"""
    // of the project
    {
        "mcpServers": { /* one
           server */
            "a": {
                "command": "server", // the program
                "args": ["http://x//y", "/* no comment */", "\", // ]", ",]", ], // all of them
            },
        },
    }
    """
    assert read(folder, text).environments["a"].args == ("http://x//y", "/* no comment */", '", // ]', ",]")


def test_a_fault_behind_a_comment_is_told_with_its_line(folder):
    with pytest.raises(ConfigError, match="line 3 column 5"):
        read(folder, "{ // one\n /* two\n */ x\n}")


@pytest.mark.parametrize(
    "text", ['{"mcpServers": {"a": {"command": "\\ud83d"}}}', '{"a": NaN}', "[" * 100_000, '{"a": 1' + "0" * 5000 + "}"]
)
def test_json_that_no_server_could_be_given_is_a_fault(text, folder):
    with pytest.raises(ConfigError, match="is not valid JSON: "):
        read(folder, text)


# ---- commands


@pytest.mark.parametrize(
    ("command", "args", "advice"),
    [
        ("python server.py", [], 'command "python", args ["server.py"]'),
        ("python server.py --x", ["y"], 'command "python", args ["server.py", "--x", "y"]'),
        ("npx -y 'a b'", [], 'command "npx", args ["-y", "a b"]'),
        ("no-such-program --port 1", [], 'command "no-such-program", args ["--port", "1"]'),
        ("it's here", [], 'command "it\'s", args ["here"]'),
    ],
)
def test_a_command_line_in_one_string_is_shown_split(command, args, advice, folder):
    with pytest.raises(ConfigError, match=re.escape(f"has arguments in it, which go into args: {advice}") + "$"):
        one(folder, {"command": command, "args": args})
    with pytest.raises(ConfigError, match=re.escape(advice)):
        read(
            folder, f"[environments.a]\ncommand = {json.dumps(command)}\nargs = {json.dumps(args)}", name="muxsim.toml"
        )


def test_a_program_with_a_space_in_its_name_is_a_program(folder):
    (folder / "my server.py").write_text("")
    assert one(folder, {"command": "my server.py"}).args == (str(folder / "my server.py"),)
    assert one(folder, {"command": "/opt/my tools/server"}).command == "/opt/my tools/server"


@pytest.mark.parametrize("name", ["{seed}", "${HOME}", "a b", "{{seed}}", "{sed}", "{workspace}", "%s $x"])
def test_a_folder_is_a_folder_whatever_it_is_called(name, tmp_path, monkeypatch):
    here = tmp_path / name
    here.mkdir()
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setattr(sys, "executable", str(here / "python"))
    (here / "muxsim.toml").write_text(
        '[environments.a]\ncommand = "server.py"\nargs = ["{seed}"]\n'
        '[environments.b]\ncommand = "~/run"\ncwd = "{seed}"'
    )
    config = load(here / "muxsim.toml", {})
    one, other = (
        spec.launch(seed=7, session_id="s", workspace="/w", environ={}) for spec in config.environments.values()
    )
    assert one.argv == (str(here / "python"), str(here / "server.py"), "7")
    assert (one.cwd, other.argv, other.cwd) == (str(here), (str(here / "run"),), str(here / "7"))
    assert Path(one.cwd).is_dir()
