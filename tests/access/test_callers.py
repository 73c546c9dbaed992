"""Who may do what, as tables. Rows are those of the table of faults."""

from __future__ import annotations

import pytest

from muxsim.serve.auth.callers import (
    ANYONE,
    NOBODY,
    SCOPES,
    Caller,
    NamedToken,
    Scope,
    TokenFault,
    bearer_token,
    forbidden,
    needed_scopes,
    parse_tokens,
    scope_of,
    unauthorized,
)
from transports.http_rules import HTTPRefusal

ADA = Caller("ada", Scope.TRAINER)
HELPER = Caller("ada", Scope.AGENT)
BOB = Caller("bob", Scope.TRAINER)
ROOT = Caller("root", Scope.ADMIN)
TOKEN = "t" * 32


@pytest.mark.parametrize(
    ("caller", "owner", "shared", "seen"),
    [
        (ADA, "ada", False, True),
        (HELPER, "ada", False, True),
        (BOB, "ada", False, False),
        (BOB, "Ada", False, False),
        (ROOT, "ada", False, True),
        (ROOT, None, False, True),
        (ANYONE, None, False, True),
        (ANYONE, "ada", False, True),
        (BOB, None, True, True),
        (BOB, None, False, False),
        (NOBODY, None, False, False),
        (NOBODY, "ada", False, False),
    ],
)
def test_a_session_is_there_for_its_owner_and_the_admin_and_a_shared_one_for_all(caller, owner, shared, seen):
    """L16."""
    assert caller.sees(owner, shared=shared) is seen


@pytest.mark.parametrize(
    ("caller", "owner", "may"),
    [(ADA, "ada", True), (BOB, "ada", False), (BOB, None, False), (ROOT, None, True), (ANYONE, None, True)],
)
def test_a_session_is_its_owners_to_end_and_a_shared_one_the_admins(caller, owner, may):
    assert caller.may_end(owner) is may


@pytest.mark.parametrize(
    ("caller", "controls"), [(NOBODY, False), (HELPER, False), (ADA, True), (ROOT, True), (ANYONE, True)]
)
def test_the_control_plane_is_for_trainers(caller, controls):
    assert caller.controls is controls


@pytest.mark.parametrize(
    ("scope", "paths"),
    [
        (Scope.NONE, ["/health", "/ready", "/.well-known/oauth-protected-resource"]),
        (Scope.AGENT, ["/", "/mcp", "/sse", "/messages", "/envs", "/envs/x/mcp", "/envs/x/sse"]),
        (Scope.AGENT, ["/s/x/mcp", "/s/x/agent/mcp", "/s/x/sse", "/s/x/messages"]),
        (Scope.TRAINER, ["/sessions", "/sessions/x", "/sessions/x/control", "/sessions/x/fork", "/control/reward"]),
        (Scope.TRAINER, ["/envs/x", "/leases", "/s/x/control", "/s/x/control/status"]),
        (Scope.TRAINER, ["/envs/x/control/reward", "/envs/x/control/reset_session", "/control/reset_session"]),
        (Scope.ADMIN, ["/metrics", "/dashboard", "/no/such/thing", "/s/x/agent/control", "/s/x", "/envs/x/control"]),
        (
            Scope.ADMIN,
            ["//sessions", "/health/", "/health\n", "/sessions\n", "/mcp\n", "/Sessions", "/control/a/b"],
        ),
    ],
)
def test_what_a_path_needs_and_an_unknown_one_needs_most(scope, paths):
    assert {path: needed_scopes("POST", path) for path in paths} == dict.fromkeys(paths, (scope,))
    assert {path: needed_scopes("GET", path)[0] for path in paths if path != "/metrics"} == dict.fromkeys(
        [path for path in paths if path != "/metrics"], scope
    )


def test_a_monitor_reads_lists_and_metrics_and_nothing_else():
    def open_to_monitors(method, *paths):
        return [path for path in paths if any(scope in Scope.MONITOR for scope in needed_scopes(method, path))]

    lists = ["/", "/envs", "/sessions", "/watch", "/metrics", "/health", "/ready"]
    assert open_to_monitors("GET", *lists) == open_to_monitors("HEAD", *lists) == lists
    assert open_to_monitors("POST", *lists[:-2]) == open_to_monitors("DELETE", *lists[:-2]) == []
    others = ["/mcp", "/sse", "/messages", "/s/x/mcp", "/s/x/agent/mcp", "/s/x/sse", "/envs/x/mcp", "/envs/x"]
    others += ["/sessions/x", "/sessions/x/control", "/control/reward", "/operate/drain", "/sessions/", "/metrics/"]
    for method in ("GET", "HEAD", "POST", "DELETE"):
        assert open_to_monitors(method, *others) == []


def test_a_scope_includes_others_but_a_monitors_neither_an_agents_nor_the_other_way_round():
    assert [*map(includes, SCOPES.values())] == [
        ["agent"],
        ["agent", "trainer"],
        ["monitor"],
        ["agent", "trainer", "monitor", "admin"],
    ]
    assert includes(scope_of(["agent", "monitor", "stranger"])) == ["agent", "monitor"]
    assert scope_of(["admin", "agent", "monitor"]) is Scope.ADMIN
    assert scope_of([]) is Scope.NONE
    with pytest.raises(TypeError):
        _ = Scope.MONITOR >= Scope.TRAINER  # a monitor must not pass for a trainer by being further down a list


def includes(scope):
    return [name for name, one in SCOPES.items() if one in scope]


@pytest.mark.parametrize("words", ["agent", "trainer", "monitor", "admin", "agent,monitor", "trainer,monitor"])
def test_a_scope_is_told_as_it_is_written(words):
    assert scope_of(words.split(",")).words == words


def test_tokens_are_read_line_by_line():
    text = f"# the lab\nlab trainer {TOKEN}\n\n  lab\tagent {'u' * 22}  \nroot agent,admin {'v' * 40}==\r\n"
    assert parse_tokens(text) == [
        NamedToken("lab", Scope.TRAINER, TOKEN),
        NamedToken("lab", Scope.AGENT, "u" * 22),
        NamedToken("root", Scope.ADMIN, "v" * 40 + "=="),
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("lab trainer", "2 words"),
        (TOKEN, "1 words"),
        (f"lab trainer {TOKEN} more", "4 words"),
        (f"lab, trainer {TOKEN}", "name"),
        (f"la/b trainer {TOKEN}", "name"),
        (f"{'x' * 65} trainer {TOKEN}", "name"),
        (f"lab Trainer {TOKEN}", "scope"),
        (f"lab trainer, {TOKEN}", "scope"),
        (f"lab owner {TOKEN}", "scope"),
        ("lab trainer short", "at least 22"),
        (f"lab trainer {TOKEN}ü", "at least 22"),
        (f"lab trainer {TOKEN}=x", "at least 22"),
        (f"one agent {TOKEN}", "earlier line"),
    ],
)
def test_a_wrong_line_is_told_by_its_number_and_never_by_its_text(line, complaint):
    """L21."""
    with pytest.raises(TokenFault, match=complaint) as raised:
        parse_tokens(f"lab trainer {TOKEN}\n{line}\n")
    assert "line 2" in str(raised.value)
    assert TOKEN not in str(raised.value)
    assert "short" not in str(raised.value)


def test_a_token_does_not_show_itself():
    """L21."""
    (token,) = parse_tokens(f"lab trainer {TOKEN}")
    assert repr(token) == "<NamedToken lab trainer>"


@pytest.mark.parametrize(
    ("values", "token"),
    [
        ([], None),
        ([b"Bearer abc"], b"abc"),
        ([b"bearer  abc "], b"abc"),
        ([b"BEARER a.b-c_d~e+f/g=="], b"a.b-c_d~e+f/g=="),
    ],
)
def test_a_bearer_token_is_found(values, token):
    assert bearer_token([(b"host", b"x"), *((b"authorization", value) for value in values)]) == token


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        [b"Bearer a b"],
        [b"Basic YTpi"],
        [b"abc"],
        [b"Bearer " + b"x" * 20_000],
        [b"Bearer abc", b"Bearer abc"],
    ],
)
def test_any_other_authorization_is_refused_with_401(values):
    """L21."""
    with pytest.raises(HTTPRefusal) as raised:
        bearer_token([(b"authorization", value) for value in values])
    assert raised.value.status == 401


def test_a_refusal_says_what_is_missing_in_its_header():
    (bare,) = unauthorized("", "send one").headers
    assert bare == (b"www-authenticate", b'Bearer realm="muxsim"')
    (told,) = unauthorized("invalid_token", "not valid", "https://x/.well-known/y").headers
    assert told[1] == (
        b'Bearer realm="muxsim", error="invalid_token", error_description="not valid", '
        b'resource_metadata="https://x/.well-known/y"'
    )
    (less,) = forbidden(Scope.TRAINER).headers
    assert less[1] == b'Bearer realm="muxsim", error="insufficient_scope", scope="trainer"'
    either = forbidden(Scope.TRAINER, Scope.MONITOR, prefix="x:")
    assert "trainer, monitor or admin" in str(either)
    assert either.headers[0][1].endswith(b'scope="x:trainer"')
