import dataclasses
import json
import math
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.config import Config, ServerSettings, find_config, load, load_command
from muxsim.config.table import NAME, Table
from muxsim.config.variables import OwnVariables
from muxsim.errors import ConfigError, UnknownEnvironment
from muxsim.spec import Confinement, EnvSpec, Limits, fill
from muxsim.values import ARGUMENT, CONFINEMENT_KEYS, ENVIRONMENT_KEYS, LIMIT_KEYS, SERVER_KEYS, ListOf

MIB = 2**20


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The config's folder; muxsim is started from another."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    configs = tmp_path / "configs"
    configs.mkdir()
    return configs


def toml(folder, text, **environ):
    path = folder / "muxsim.toml"
    path.write_text(text)
    return load(path, environ)


def desktop(folder, servers, muxsim=None, /, environ=None, **more):
    path = folder / "desktop.json"
    whole = {"mcpServers": servers, **({} if muxsim is None else {"muxsim": muxsim}), **more}
    path.write_text(json.dumps(whole))
    return load(path, environ or {})


def lake(folder, text, **environ):
    """The environment that a TOML table describes."""
    return toml(folder, f"[environments.lake]\n{text}", **environ).environments["lake"]


def fault(folder, text, **environ):
    """What is wrong with a TOML file, from after its name on."""
    with pytest.raises(ConfigError) as caught:
        toml(folder, text, **environ)
    assert "\n" not in str(caught.value)
    assert caught.value.file == str(folder / "muxsim.toml")
    return str(caught.value).removeprefix(f"{folder / 'muxsim.toml'}: ")


def desktop_fault(folder, servers, muxsim=None, **more):
    with pytest.raises(ConfigError) as caught:
        desktop(folder, servers, muxsim, **more)
    return str(caught.value).removeprefix(f"{folder / 'desktop.json'}: ")


# ---- both forms ----


def test_a_whole_toml_file_is_read(folder):
    loaded = toml(
        folder,
        """
        [server]
        default = "memory"
        host = "::1"
        port = 0
        allowed_hosts = ["lab.example.org:8000"]
        allowed_origins = ["https://lab.example.org", "http://localhost:3000"]
        max_sessions = 8
        max_pending = 0
        queue_timeout = 1.5
        max_body = "1 GiB"
        stream_silence = 2
        ping_interval = 30
        log_format = "json"
        log_level = "debug"
        idle_timeout = 60

        [environments.lake]
        command = "lake/server.py"
        args = ["--seed", "{seed}", ""]
        env = { LEVEL = "easy", WHERE = "{workspace}/here" }
        cwd = "lake"
        zygote = false
        preload = ["numpy", "gymnasium.envs"]
        ttl = 90
        call_timeout = 2
        max_line = 1_000

        [environments.memory]
        command = "mcp-memory"
        shared = true
        idle_timeout = "never"
        """,
    )
    assert loaded == Config(
        file=folder / "muxsim.toml",
        default="memory",
        server=ServerSettings(
            host="::1",
            port=0,
            allowed_hosts=("lab.example.org:8000",),
            allowed_origins=("https://lab.example.org", "http://localhost:3000"),
            max_sessions=8,
            max_pending=0,
            queue_timeout=1.5,
            max_body=1024 * MIB,
            stream_silence=2.0,
            ping_interval=30.0,
            log_format="json",
            log_level="debug",
        ),
        environments={
            "lake": EnvSpec(
                name="lake",
                command=sys.executable,
                args=(str(folder / "lake/server.py"), "--seed", "{seed}", ""),
                env={"LEVEL": "easy", "WHERE": "{workspace}/here"},
                cwd=str(folder / "lake"),
                zygote=False,
                preload=("numpy", "gymnasium.envs"),
                limits=Limits(idle_timeout=60.0, ttl=90.0, call_timeout=2.0, max_line=1000),
            ),
            "memory": EnvSpec(
                name="memory",
                command="mcp-memory",
                cwd=str(folder),
                shared=True,
                limits=Limits(idle_timeout=None),
            ),
        },
    )


def test_private_folders_go_from_the_files_own_and_none_at_all_is_another_thing_than_nothing_said(folder, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    folders = ["data", "~/notes", "/srv/{seed}", "{workspace}/x"]
    meant = (str(folder / "data"), "/home/ada/notes", "/srv/{seed}", "{workspace}/x")
    settings = {"some": f"private = {folders}", "none": "private = []", "unsaid": ""}
    tables = [f"[environments.{name}]\ncommand = 'cat'\n{setting}\n" for name, setting in settings.items()]
    specs = toml(folder, "".join(tables)).environments
    assert [specs[name].private for name in ("some", "none", "unsaid")] == [meant, (), None]
    servers = {"some": {"command": "cat", "muxsim": {"private": folders}}}
    assert desktop(folder, servers).environments["some"].private == meant


def test_a_desktops_file_with_muxsim_blocks_reads_the_same_as_toml(folder):
    from_json = desktop(
        folder,
        {
            "lake": {
                "command": "lake/server.py",
                "args": ["--seed", "{seed}"],
                "env": {"LEVEL": "easy"},
                "muxsim": {"cwd": "lake", "shared": True, "idle_timeout": 60},
            }
        },
        {"port": 9000, "max_sessions": 8},
    )
    from_toml = toml(
        folder,
        """
        [server]
        port = 9000
        max_sessions = 8
        [environments.lake]
        command = "lake/server.py"
        args = ["--seed", "{seed}"]
        env = { LEVEL = "easy" }
        cwd = "lake"
        shared = true
        idle_timeout = 60
        """,
    )
    assert dataclasses.replace(from_json, file=from_toml.file) == from_toml


def test_a_plain_desktop_file_needs_no_muxsim_in_it(folder):
    loaded = desktop(
        folder,
        {
            "files": {
                "type": "stdio",
                "command": "npx",
                "args": ["-y", "files"],
                "description": "x",
                "autoApprove": [],
            },
            "old": {"command": "old", "disabled": True},
            "far": {"url": "https://example.org/mcp", "disabled": True},
            "bare": {"command": "bare", "args": None, "env": None},
        },
        theme="dark",
        context_servers={},
    )
    assert list(loaded.environments) == ["files", "bare"]
    assert loaded.environments["files"].args == ("-y", "files")
    assert loaded.server == ServerSettings()


def test_what_a_muxsim_block_says_goes_before_what_the_desktop_reads(folder):
    servers = {"lake": {"command": "python", "args": ["a.py"], "muxsim": {"args": ["a.py", "--seed", "{seed}"]}}}
    spec = desktop(folder, servers).environments["lake"]
    assert spec.args == (str(folder / "a.py"), "--seed", "{seed}")


def test_a_file_with_a_byte_order_mark_is_read(folder):
    (folder / "muxsim.toml").write_bytes(b"\xef\xbb\xbf[environments.a]\ncommand = 'a'\n")
    assert list(load(folder / "muxsim.toml").environments) == ["a"]


def test_what_is_said_of_a_sandbox_goes_from_the_file_and_is_never_passed_over(folder):
    loaded = toml(
        folder,
        """
        [server]
        sandbox = "landlock"
        network = [443, 53]
        [environments.a]
        command = "a"
        readable = ["data", "~/models", "{workspace}/x"]
        writable = ["/srv/out"]
        [environments.b]
        command = "b"
        cwd = "here"
        network = true
        [environments.c]
        command = "c"
        sandbox = "none"
        """,
    )
    a, b, c = (loaded.environments[name].confinement for name in "abc")
    assert a.network == (443, 53)
    assert a.readable == (str(folder / "data"), os.path.expanduser("~/models"), "{workspace}/x")
    assert a.writable == ("/srv/out",)
    assert (b.network, b.readable) == (True, (str(folder / "here"),))
    assert c.sandbox == "none"


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("network = true", "network = true: is for a sandbox"),
        ('readable = ["a"]', 'readable = ["a"]: is for a sandbox'),
        ('sandbox = "bubblewrap"\nnetwork = [443]', "network = [443]: names ports"),
        ('sandbox = "landlock"\nno_new_privs = false', "no_new_privs = false: cannot be false"),
        ('sandbox = "landlock"\nnetwork = [0]', "network = [0]: must be true, false, or a list of TCP ports"),
        ('sandbox = "landlock"\nnetwork = [true]', "must be true, false, or a list of TCP ports"),
        ('sandbox = "landlock"\nnetwork = 443', "must be true, false, or a list of TCP ports"),
        ('sandbox = "landlocked"', "must be one of none, bubblewrap, landlock"),
    ],
)
def test_what_contradicts_a_sandbox_is_an_error_that_says_what_to_do(folder, lines, fault):
    with pytest.raises(ConfigError) as caught:
        toml(folder, f"[environments.a]\ncommand = 'a'\n{lines}\n")
    assert fault in str(caught.value)


def test_every_setting_and_limit_has_a_key():
    assert list(SERVER_KEYS) == [field.name for field in dataclasses.fields(ServerSettings)]
    assert list(LIMIT_KEYS) == [field.name for field in dataclasses.fields(Limits)]
    assert list(CONFINEMENT_KEYS) == [field.name for field in dataclasses.fields(Confinement)]


def test_limits_of_the_server_are_where_environments_start_from(folder):
    loaded = toml(
        folder,
        """
        [server]
        start_timeout = 5
        ttl = 100
        [environments.a]
        command = "a"
        [environments.b]
        command = "b"
        ttl = "never"
        """,
    )
    assert loaded.environments["a"].limits == Limits(start_timeout=5.0, ttl=100.0)
    assert loaded.environments["b"].limits == Limits(start_timeout=5.0, ttl=None)


def test_bounds_on_processes_come_from_the_server_too_and_can_be_lifted(folder):
    loaded = toml(
        folder,
        """
        [server]
        max_open_files = 100
        nice = 5
        [environments.a]
        command = "a"
        no_new_privs = false
        [environments.b]
        command = "b"
        max_open_files = "unlimited"
        max_file_size = "2 MiB"
        """,
    )
    assert loaded.environments["a"].confinement == Confinement(max_open_files=100, nice=5, no_new_privs=False)
    assert loaded.environments["b"].confinement == Confinement(nice=5, max_file_size=2 * MIB)


@pytest.mark.parametrize(
    ("text", "seconds"), [("inf", None), ('"never"', None), ("0.5", 0.5), ("1", 1.0), ("86_400", 86400.0)]
)
def test_a_time_is_seconds_or_never(text, seconds, folder):
    assert lake(folder, f'command = "a"\nidle_timeout = {text}').limits.idle_timeout == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("256", 256), ('"1 KiB"', 1024), ('"64MiB"', 64 * MIB), ('"2 GiB"', 2048 * MIB), ('"1 TiB"', 2**40)],
)
def test_a_size_is_bytes_or_has_a_unit(text, size, folder):
    assert lake(folder, f'command = "a"\nmax_line = {text}').limits.max_line == size


# ---- which environment ----


def test_the_only_environment_is_the_default(folder):
    assert toml(folder, '[environments.a]\ncommand = "a"').environment().name == "a"


TWO = '[environments.a]\ncommand = "a"\n[environments.b]\ncommand = "b"\n'


def test_an_environment_is_found_by_name_or_as_the_default(folder):
    loaded = toml(folder, '[server]\ndefault = "b"\n' + TWO)
    assert loaded.environment().name == "b"
    assert loaded.environment("a").name == "a"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "name an environment: there is no default, and these are served: a, b"),
        ("c", 'no environment is called "c": these are served: a, b'),
        ("", 'no environment is called "": these are served: a, b'),
        ("../a", 'no environment is called "../a": these are served: a, b'),
    ],
)
def test_an_unknown_environment_is_an_error_that_lists_the_names(name, message, folder):
    with pytest.raises(UnknownEnvironment) as caught:
        toml(folder, TWO).environment(name)
    assert str(caught.value) == message


# ---- commands and paths ----

PYTHON = sys.executable


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ('command = "server.py"', [PYTHON, "{here}/server.py"]),
        ('command = "./lake/server.py"', [PYTHON, "{here}/lake/server.py"]),
        ('command = "../server.py"', [PYTHON, "{above}/server.py"]),
        ('command = "/abs/server.py"\nargs = ["-m"]', [PYTHON, "/abs/server.py", "-m"]),
        ('command = "~/server.py"', [PYTHON, "{above}/home/server.py"]),
        ('command = "server.py"\npython = "venv/bin/python"', ["{here}/venv/bin/python", "{here}/server.py"]),
        ('command = "server.py"\npython = "python3.13"', ["python3.13", "{here}/server.py"]),
        ('command = "{workspace}/server.py"', [PYTHON, "{workspace}/server.py"]),
        ('command = "maps/{seed}.py"', [PYTHON, "{here}/maps/{seed}.py"]),
        ('command = "python"\nargs = ["server.py", "x.py"]', [PYTHON, "{here}/server.py", "x.py"]),
        ('command = "python3"\nargs = ["-u", "a/server.py"]', [PYTHON, "-u", "{here}/a/server.py"]),
        (
            'command = "python"\nargs = ["-X", "dev", "-Wmodule", "s.py"]',
            [PYTHON, "-X", "dev", "-Wmodule", "{here}/s.py"],
        ),
        ('command = "python"\nargs = ["-m", "pkg.server", "x.py"]', [PYTHON, "-m", "pkg.server", "x.py"]),
        ('command = "python"\nargs = ["-um", "pkg", "x.py"]', [PYTHON, "-um", "pkg", "x.py"]),
        ('command = "python"\nargs = ["-c", "import x", "x.py"]', [PYTHON, "-c", "import x", "x.py"]),
        ('command = "python"\nargs = ["-", "x.py"]', [PYTHON, "-", "x.py"]),
        ('command = "python"\nargs = ["-u"]', [PYTHON, "-u"]),
        ('command = "python"', [PYTHON]),
        ('command = "python"\nargs = ["s.py"]\npython = "v/python"', ["{here}/v/python", "{here}/s.py"]),
        ('command = "python3.12"\nargs = ["server.py"]', ["python3.12", "{here}/server.py"]),
        ('command = "venv/bin/python"\nargs = ["server.py"]', ["{here}/venv/bin/python", "{here}/server.py"]),
        ('command = "/usr/bin/python3"\nargs = ["-m", "pkg"]', ["/usr/bin/python3", "-m", "pkg"]),
        ('command = "uv"\nargs = ["run", "server.py"]', ["uv", "run", "server.py"]),
        ('command = "bin/server"\nargs = ["data/x"]', ["{here}/bin/server", "data/x"]),
        ('command = "server"', ["server"]),
        ('command = "empty"', ["empty"]),
        ('command = "grid"', ["{here}/grid"]),
        ('command = "./grid/"', ["{here}/grid"]),
        ('command = "../configs/grid"\nargs = ["{seed}"]', ["{here}/grid", "{seed}"]),
        ('command = "npx"\nargs = ["-y", "grid", "./x"]', ["npx", "-y", "grid", "./x"]),
        ('command = "npx"\nargs = ["-y", "./grid", "./x"]', ["{here}/grid", "./x"]),
        ('command = "npx"\nargs = ["file:../grid"]', ["{above}/grid"]),
        ('command = "npx"\nargs = ["-p", "grid", "play"]', ["npx", "-p", "grid", "play"]),
        (
            'command = "node"\nargs = ["--no-warnings", "grid/server.js"]',
            ["node", "--no-warnings", "{here}/grid/server.js"],
        ),
        ('command = "node"\nargs = ["missing.js"]', ["node", "missing.js"]),
        ('command = "node"\nargs = ["--version"]', ["node", "--version"]),
    ],
)
def test_a_command_is_found_from_the_configs_folder(text, argv, folder):
    (folder / "grid").mkdir()
    (folder / "grid" / "package.json").write_text("{}")
    (folder / "grid" / "server.js").write_text("")
    (folder / "empty").mkdir()
    spec = lake(folder, text)
    places = {"{here}": str(folder), "{above}": str(folder.parent)}
    for place, path in places.items():
        argv = [word.replace(place, path) for word in argv]
    assert [spec.command, *spec.args] == argv


@pytest.mark.parametrize(
    ("cwd", "path"),
    [
        (".", "{here}"),
        ("runs", "{here}/runs"),
        ("..", "{above}"),
        ("/tmp", "/tmp"),
        ("~", "{above}/home"),
        ("{workspace}", "{workspace}"),
        ("{workspace}/x", "{workspace}/x"),
        ("runs/{session_id}", "{here}/runs/{session_id}"),
    ],
)
def test_a_working_folder_is_relative_to_the_configs_folder(cwd, path, folder):
    spec = lake(folder, f'command = "a"\ncwd = "{cwd}"')
    assert spec.cwd == path.replace("{here}", str(folder)).replace("{above}", str(folder.parent))


def test_a_config_given_by_a_relative_path_gives_absolute_ones(folder):
    (folder / "muxsim.toml").write_text('[environments.a]\ncommand = "server.py"')
    spec = load(os.path.relpath(folder / "muxsim.toml")).environments["a"]
    assert (os.path.realpath(spec.cwd), os.path.realpath(spec.args[0])) == (
        os.path.realpath(folder),
        os.path.realpath(folder / "server.py"),
    )
    assert os.path.isabs(spec.args[0])


# ---- ${VAR} ----


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "1"),
        ("${A}${A}-${A}", "11-1"),
        ("<${EMPTY}>", "<>"),
        ("${NONE:-x y}", "x y"),
        ("${EMPTY:-x}", "x"),
        ("<${NONE:-}>", "<>"),
        ("${A:-x}", "1"),
        ("${BRACES}", '{"a": ${A}}'),
        ("$A", "$A"),
        ("$", "$"),
        ("$$", "$$"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$(A)", "$(A)"),
        ("{A}", "{A}"),
    ],
)
def test_a_variable_comes_from_muxsims_environment(text, value, folder):
    spec = lake(
        folder,
        f"command = 'a'\nargs = ['x', '{text}']\nenv = {{ X = '{text}' }}",
        A="1",
        EMPTY="",
        BRACES='{"a": ${A}}',
    )
    assert spec.args[1] == spec.env["X"] == value


def test_variables_are_replaced_in_every_string_of_the_file(folder):
    loaded = toml(
        folder,
        """
        [server]
        host = "${HOST}"
        allowed_hosts = ["${NAME}:80"]
        [environments.lake]
        command = "${DIR}/server.py"
        cwd = "${DIR}"
        python = "${PY}"
        """,
        HOST="::1",
        NAME="lab",
        DIR="/opt/lake",
        PY="/opt/bin/python",
    )
    spec = loaded.environments["lake"]
    assert (loaded.server.host, loaded.server.allowed_hosts) == ("::1", ("lab:80",))
    assert (spec.command, spec.args, spec.cwd) == ("/opt/bin/python", ("/opt/lake/server.py",), "/opt/lake")


@given(st.text(st.characters(exclude_characters="\0\"'\\", exclude_categories=["Cc", "Cs"])))
def test_what_a_variable_holds_is_not_read_again(value):
    table = Table("f", "t", {"k": ["<${A}>"]}, Path("/"), OwnVariables({"A": value}))
    (read,) = table.read({"k": ListOf("", ARGUMENT)})["k"]
    assert fill(read, {"seed": "7"}) == f"<{value}>"


# ---- faults ----

PLACE = "[environments.lake]"
SECONDS = "must be a number of seconds from 0.001 to 31536000, such as 60"
NEVER = f'{SECONDS}, or "never"'
SIZE = 'must be a number of bytes, or a size such as "64 MiB", from 256 to "1 TiB"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"{PLACE} command: is missing: name a script, a program, npx or an npm package's folder"),
        ('command = ""', f'{PLACE} command = "": must be a string that is not empty'),
        ("command = 5", f"{PLACE} command = 5: must be a string that is not empty"),
        ("command = ['a', 'b']", f'{PLACE} command = ["a", "b"]: must be a string that is not empty'),
        ('command = "a\\u0000"', f'{PLACE} command = "a\\u0000": must be a string that is not empty'),
        (
            "args = '--seed 1'",
            f'{PLACE} args = "--seed 1": must be a list of strings, such as ["--seed", "{{seed}}"]',
        ),
        ("args = ['--seed', 1]", f"{PLACE} args[1] = 1: must be a string, in quotes"),
        ("env = ['A=b']", f'{PLACE} env = ["A=b"]: must be a table of strings, such as {{ LEVEL = "easy" }}'),
        ("env = { TOKEN = 'secret', PORT = 80 }", f"{PLACE} env.PORT = 80: must be a string, in quotes"),
        (
            "env = { 'A=B' = 'c' }",
            f'{PLACE} env."A=B": is not the name of a variable: it needs letters, and no =',
        ),
        ("shared = 'yes'", f'{PLACE} shared = "yes": must be true or false'),
        ("shared = 1", f"{PLACE} shared = 1: must be true or false"),
        ("zygote = 'no'", f'{PLACE} zygote = "no": must be true or false'),
        ("preload = 'numpy'", f'{PLACE} preload = "numpy": must be a list of modules, such as ["numpy"]'),
        ("private = 'data'", f'{PLACE} private = "data": must be a list of folders, such as ["data"]'),
        (
            "private = ['{sed}']",
            PLACE + ' private[0] = "{sed}": {sed} is not known: write {seed}, or {{sed}} for a literal {sed}',
        ),
        ("preload = ['a-b']", f'{PLACE} preload[0] = "a-b": must be a module\'s name, such as numpy.linalg'),
        ("idle_timeout = 'soon'", f'{PLACE} idle_timeout = "soon": {NEVER}'),
        ("idle_timeout = 0", f"{PLACE} idle_timeout = 0: {NEVER}"),
        ("idle_timeout = -1.5", f"{PLACE} idle_timeout = -1.5: {NEVER}"),
        ("idle_timeout = nan", f"{PLACE} idle_timeout = NaN: {NEVER}"),
        ("idle_timeout = true", f"{PLACE} idle_timeout = true: {NEVER}"),
        (f"ttl = 1{'0' * 400}", f"{PLACE} ttl = 1{'0' * 78}…: {NEVER}"),
        ("ttl = 2026-01-01", f'{PLACE} ttl = "2026-01-01": {NEVER}'),
        (
            "start_timeout = 'never'",
            f'{PLACE} start_timeout = "never": {SECONDS}',
        ),
        ("start_timeout = inf", f"{PLACE} start_timeout = Infinity: {SECONDS}"),
        (
            "max_line = '64 megs'",
            f'{PLACE} max_line = "64 megs": {SIZE}',
        ),
        (
            "max_line = 1.5",
            f"{PLACE} max_line = 1.5: {SIZE}",
        ),
        ("stderr_lines = -1", f"{PLACE} stderr_lines = -1: must be a whole number from 0 to 1000000"),
        ("idle_timout = 600", f"{PLACE} idle_timout = 600: is not a known key: did you mean idle_timeout?"),
        ("Command = 'a'", f'{PLACE} Command = "a": is not a known key: did you mean command?'),
        (
            "sort = { A = 'b' }",
            f"{PLACE} sort: is not a known key: use one of {', '.join(ENVIRONMENT_KEYS)}",
        ),
        ("port = 80", f"{PLACE} port = 80: is not a known key: use one of {', '.join(ENVIRONMENT_KEYS)}"),
        (
            "command = 'node'\npython = 'python3'",
            f'{PLACE} python = "python3": is for Python commands only, and "node" is none: take it out',
        ),
        (
            "command = 'npx'\nargs = ['-y']",
            f'{PLACE} args = ["-y"]: npx needs a package to run: '
            "use npx [-y] [-p PACKAGE] [--OPTION=VALUE] PACKAGE[@VERSION] ARGS…",
        ),
        (
            "command = 'a'\nargs = ['--seed', '{sed}']",
            f'{PLACE} args[1] = "{{sed}}": {{sed}} is not known: write {{seed}}, or {{{{sed}}}} for a literal {{sed}}',
        ),
        (
            "command = 'a'\nenv = { ID = '{Session_Id}' }",
            f'{PLACE} env.ID = "{{Session_Id}}": {{Session_Id}} is not known: '
            "write {session_id}, or {{Session_Id}} for a literal {Session_Id}",
        ),
        (
            "command = 'a'\ncwd = '{work_space}'",
            f'{PLACE} cwd = "{{work_space}}": {{work_space}} is not known: '
            "write {workspace}, or {{work_space}} for a literal {work_space}",
        ),
        (
            "command = 'a'\nenv = { KEY = 'x${NONE}' }",
            f'{PLACE} env.KEY = "x${{NONE}}": the variable NONE is not set: set it, or write ${{NONE:-default}}',
        ),
        (
            "command = 'a'\nargs = ['${seed}']",
            f'{PLACE} args[0] = "${{seed}}": the variable seed is not set: '
            "write {seed}, without the $, for the session's own",
        ),
        (
            "command = 'a'\nargs = ['${env:HOME}']",
            f'{PLACE} args[0] = "${{env:HOME}}": ${{ needs a variable\'s name and a }}: write $${{ for a literal ${{',
        ),
        (
            "command = 'a'\nargs = ['${A']",
            f'{PLACE} args[0] = "${{A": ${{ needs a variable\'s name and a }}: write $${{ for a literal ${{',
        ),
    ],
)
def test_a_fault_in_an_environment_is_told_with_its_place_and_a_way_out(text, message, folder):
    assert fault(folder, f"[environments.lake]\n{text}") == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\nprot = 80", "[server] prot = 80: is not a known key: did you mean port?"),
        ("[server]\nport = '80'", '[server] port = "80": must be a port from 0 to 65535, where 0 takes a free one'),
        ("[server]\nport = 65536", "[server] port = 65536: must be a port from 0 to 65535, where 0 takes a free one"),
        ("[server]\nport = true", "[server] port = true: must be a port from 0 to 65535, where 0 takes a free one"),
        ("[server]\nhost = ''", '[server] host = "": must be a string that is not empty'),
        ("[server]\nmax_sessions = 0", "[server] max_sessions = 0: must be a whole number from 1 to 1000000"),
        ("[server]\nmax_pending = -1", "[server] max_pending = -1: must be a whole number from 0 to 1000000"),
        ("[server]\nlog_format = 'xml'", '[server] log_format = "xml": must be one of auto, console, json'),
        ("[server]\nlog_format = 1", "[server] log_format = 1: must be one of auto, console, json"),
        (
            "[server]\nallowed_origins = 'https://a'",
            '[server] allowed_origins = "https://a": must be a list of origins, such as ["https://lab.example.org"]',
        ),
        (
            "[server]\nallowed_origins = ['https://a', '*']",
            '[server] allowed_origins[1] = "*": '
            "must be one origin without path or wildcard, such as https://lab.example.org",
        ),
        (
            "[server]\nallowed_origins = ['https://a/']",
            '[server] allowed_origins[0] = "https://a/": '
            "must be one origin without path or wildcard, such as https://lab.example.org",
        ),
        (
            "[server]\nallowed_hosts = ['http://a']",
            '[server] allowed_hosts[0] = "http://a": '
            "must be a host without scheme or path, such as lab.example.org or lab.example.org:8000",
        ),
        (
            f"[server]\ndefault = 'z'\n{TWO}",
            '[server] default = "z": is no environment of this file: use one of a, b',
        ),
        (
            "[server]\ndefault = 'lak'\n[environments.lake]\ncommand = 'a'",
            '[server] default = "lak": is no environment of this file: did you mean lake?',
        ),
        ("server = 5", "server = 5: must be a table of keys and values"),
        ("[environment.a]\ncommand = 'a'", "environment: is not a known key: did you mean environments?"),
        ("[environments]\nlake = 'a'", '[environments] lake = "a": must be a table of keys and values'),
        ("", 'environments: has no environment: add [environments.NAME] with command = "server.py"'),
        ("[environments]", 'environments: has no environment: add [environments.NAME] with command = "server.py"'),
        ("a b", "is not valid TOML: Expected '=' after a key in a key/value pair (at line 1, column 3)"),
    ],
)
def test_a_fault_in_the_file_is_told_with_its_place_and_a_way_out(text, message, folder):
    assert fault(folder, text) == message


BAD_NAME = (
    "cannot be an environment's name, which is part of URLs: use letters, digits, _, - and ., "
    "beginning with a letter, a digit or _"
)


@pytest.mark.parametrize("name", ["my lake", "", ".", "..", ".hidden", "-x", "a/b", "a?b", "sëe", "a\n"])
def test_a_name_that_does_not_fit_into_a_url_is_refused_in_muxsims_own_file(name, folder):
    shown = json.dumps(name, ensure_ascii=False)
    assert fault(folder, f"[environments.{json.dumps(name)}]\ncommand = 'a'") == f"[environments] {shown}: {BAD_NAME}"


@pytest.mark.parametrize("name", ["lake", "Lake_2", "frozen-lake.v1", "0", "_x"])
def test_a_name_that_fits_into_a_url_is_taken(name, folder):
    assert list(desktop(folder, {name: {"command": "a"}}).environments) == [name]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"command": "a", "args": [[]]}, "[mcpServers.lake] args[0] = []: must be a string, in quotes"),
        ({"command": "a", "env": {"A": {}}}, "[mcpServers.lake] env.A: must be a string, in quotes"),
        ({}, "[mcpServers.lake] command: is missing: name a script, a program, npx or an npm package's folder"),
        (
            {"command": "a", "muxsim": {"idle_timeot": 1}},
            "[mcpServers.lake.muxsim] idle_timeot = 1: is not a known key: did you mean idle_timeout?",
        ),
        ({"command": "a", "muxsim": {"ttl": "x"}}, f'[mcpServers.lake.muxsim] ttl = "x": {NEVER}'),
        ({"command": "a", "muxsim": True}, "[mcpServers.lake] muxsim = true: must be a table of keys and values"),
    ],
)
def test_a_fault_in_a_desktops_server_is_told_with_its_place_and_a_way_out(entry, message, folder):
    assert desktop_fault(folder, {"lake": entry}) == message


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        ("[]", 'must hold an object: {"mcpServers": {"NAME": {"command": "server.py"}}}'),
        ("{", "is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("{}", 'mcpServers: has no server to start: add {"NAME": {"command": "server.py"}}'),
        (
            '{"mcpServers": {"a": {"command": "a", "disabled": true}}}',
            'mcpServers: has no server to start: add {"NAME": {"command": "server.py"}}',
        ),
        ('{"mcp_servers": {}}', "mcp_servers: is not a known key: did you mean mcpServers?"),
        ('{"muxsim": {"port": -1}}', "[muxsim] port = -1: must be a port from 0 to 65535, where 0 takes a free one"),
    ],
)
def test_a_fault_in_a_desktops_file_is_told_with_its_place_and_a_way_out(whole, message, folder):
    path = folder / "desktop.json"
    path.write_text(whole)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.toml", "does not exist: name another file, or make this one"),
        ("folder.toml", "cannot be read: Is a directory"),
        ("latin.toml", "is not UTF-8, see byte 2: save it as UTF-8"),
        ("config.yaml", "must be a .toml or a .json file"),
        ("digits.toml", None),
    ],
)
def test_a_file_that_cannot_be_read_is_a_fault(name, message, folder):
    (folder / "folder.toml").mkdir()
    (folder / "latin.toml").write_bytes(b"# \xe9")
    (folder / "digits.toml").write_text("[server]\nport = " + "1" * 5000)
    with pytest.raises(ConfigError) as caught:
        load(folder / name)
    if message is None:
        assert str(caught.value).startswith(f"{folder / name}: is not valid TOML: Exceeds the limit")
    else:
        assert str(caught.value) == f"{folder / name}: {message}"


def test_what_a_variable_held_is_never_in_a_message(folder):
    message = fault(folder, "[environments.a]\ncommand = 'a'\nidle_timeout = '${SECRET}'", SECRET="hunter2")
    assert message == f'[environments.a] idle_timeout = "${{SECRET}}": {NEVER}'


def test_an_error_can_be_taken_apart(folder):
    with pytest.raises(ConfigError) as caught:
        lake(folder, "command = 'a'\nttl = 'x'")
    error = caught.value
    assert (error.table, error.key, error.value, error.advice) == ("environments.lake", "ttl", '"x"', NEVER)


# ---- without a config ----


def test_the_config_of_a_folder_is_found(folder):
    (folder / "muxsim.toml").write_text("")
    assert find_config(folder) == folder / "muxsim.toml"


def test_a_folder_without_a_config_is_a_fault_that_says_what_to_type(folder):
    with pytest.raises(ConfigError) as caught:
        find_config(folder)
    assert str(caught.value) == (
        f"there is no muxsim.toml in {folder}: name a config file, or a server's command after --, "
        "as in muxsim serve -- python server.py"
    )


@pytest.mark.parametrize(
    ("line", "name", "argv"),
    [
        ("server.py --seed {seed}", "server", [PYTHON, "{here}/server.py", "--seed", "{seed}"]),
        ("python lake/server.py", "server", [PYTHON, "{here}/lake/server.py"]),
        ("python -m pkg.server", "pkg.server", [PYTHON, "-m", "pkg.server"]),
        ("./my server.py", "my", ["{here}/my", "server.py"]),
        ("python", "python", [PYTHON]),
        ("npx -y @scope/server-everything@1.2 stdio", "server-everything", None),
        ("npx -y files", "files", None),
        ("npx ./grid", "grid", ["{here}/grid"]),
        ("grid", "grid", ["{here}/grid"]),
        ("./grid", "grid", ["{here}/grid"]),
        ("uvx mcp-server-git --x", "mcp-server-git", None),
        ("node dist/tool.mjs", "tool", None),
        ("/opt/bin/serve.v2 {seed}", "serve.v2", None),
        ("+++", "environment", None),
        ("sh -c ${HOME}", "sh", None),
    ],
)
def test_a_command_line_makes_an_environment_named_after_it(line, name, argv, folder):
    (folder / "grid").mkdir()
    (folder / "grid" / "package.json").write_text("{}")
    loaded = load_command(line.split(), folder)
    spec = loaded.environment()
    assert (spec.name, loaded.default, loaded.file, spec.cwd) == (name, name, None, str(folder))
    argv = line.split() if argv is None else [word.replace("{here}", str(folder)) for word in argv]
    assert [spec.command, *spec.args] == argv


def test_a_folder_given_as_a_dot_gives_its_name(folder):
    (folder / "package.json").write_text("{}")
    spec = load_command(["."], folder).environment()
    assert (spec.name, spec.command) == ("configs", str(folder))


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_any_command_line_gives_a_name_that_fits_into_a_url_or_a_fault(argv):
    try:
        said = load_command(argv, Path("/nowhere")).environment().name
    except ConfigError as error:
        said = str(error)
    assert NAME.fullmatch(said) or said.startswith("the command line: ")


@pytest.mark.parametrize("line", ["python server.py --x 'a b'", "npx -y files"])
def test_a_command_line_in_quotes_is_shown_without_them(line, folder):
    with pytest.raises(ConfigError) as caught:
        load_command([line, "more"], folder)
    assert str(caught.value).endswith(f"is one word to the shell: take its quotes away: {line} more")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "a command is missing after --: muxsim serve -- python server.py"),
        ("server.py {sed}", 'args[0] = "{sed}": {sed} is not known: write {seed}, or {{sed}} for a literal {sed}'),
        (
            "npx -y",
            'args = ["-y"]: npx needs a package to run: '
            "use npx [-y] [-p PACKAGE] [--OPTION=VALUE] PACKAGE[@VERSION] ARGS…",
        ),
    ],
)
def test_a_fault_in_a_command_line_is_told(line, message, folder):
    with pytest.raises(ConfigError) as caught:
        load_command(line.split(), folder)
    assert str(caught.value) == f"the command line: {message}"


def test_the_defaults_let_ten_mebibytes_pass():
    assert min(ServerSettings().max_body, Limits().max_line) > 10 * MIB
    assert ServerSettings().queue_timeout < math.inf


def test_a_workspace_begins_as_a_folder_beside_the_config(folder):
    assert lake(folder, 'command = "x"').workspace_from == ""
    assert lake(folder, 'command = "x"\nworkspace_from = "tasks/{seed}"').workspace_from == str(folder / "tasks/{seed}")
    assert lake(folder, 'command = "x"\nworkspace_from = "~/tasks"').workspace_from == f"{os.environ['HOME']}/tasks"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('workspace_from = "{workspace}/a"', "is what {workspace} begins as: name another folder"),
        ('workspace_from = ""', "must be a string that is not empty"),
        ('workspace_from = "tasks/{sed}"', "{sed} is not known: write {seed}"),
        ('workspace_from = "tasks/{seed}"\nseeded = false', "contradicts {seed}"),
    ],
)
def test_a_folder_that_no_workspace_can_begin_as_is_refused(folder, text, says):
    assert says in fault(folder, f'[environments.lake]\ncommand = "x"\n{text}')


def test_files_to_be_kept_are_patterns_within_the_workspace(folder):
    spec = lake(
        folder, 'command = "x"\ncollect = ["*.png", "out/**"]\nmax_collected = "2 MiB"\nmax_collected_files = 3'
    )
    assert (spec.collect, spec.max_collected, spec.max_collected_files) == (("*.png", "out/**"), 2 * MIB, 3)
    for pattern in ("/etc/*", "../*", "a/../../b", "", ".", "./"):
        text = f'[environments.lake]\ncommand = "x"\ncollect = [{json.dumps(pattern)}]'
        assert "collect[0]" in fault(folder, text)
