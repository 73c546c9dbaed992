import dataclasses
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxsim.spec import (
    PLACEHOLDERS,
    EnvSpec,
    Launch,
    Limits,
    fill,
    fixed,
    literal,
    meant_placeholder,
    misspelt_placeholder,
    passed_variables,
)

VALUES = {"seed": "7", "session_id": "s-1", "workspace": "/w/1"}

braces_and_words = st.lists(
    st.sampled_from(["{", "}", "{{", "}}", "seed", "session_id", "workspace", "foo", '"a":1', " ", "-", "$"])
).map("".join)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{seed}", "7"),
        ("--seed={seed}", "--seed=7"),
        ("{seed}{seed}", "77"),
        ("{workspace}/log-{session_id}.txt", "/w/1/log-s-1.txt"),
        ("", ""),
        ("seed", "seed"),
        ("{}", "{}"),
        ("{", "{"),
        ("}{", "}{"),
        ("{foo}", "{foo}"),
        ("{ seed }", "{ seed }"),
        ("{seed:03}", "{seed:03}"),
        ("{seed", "{seed"),
        ('{"seed": {seed}}', '{"seed": 7}'),
        ('{"a":{"b":{}}}', '{"a":{"b":{}}}'),
        ('{"a":{"seed":{seed}}}', '{"a":{"seed":7}}'),
        ("{{seed}}", "{seed}"),
        ("{{workspace}}/{workspace}", "{workspace}//w/1"),
        ("{{session}}", "{session}"),
        ("{{foo}}", "{{foo}}"),
        ("{{ name }}", "{{ name }}"),
        ("{{seed}", "{7"),
        ("{seed}}", "7}"),
        ("${seed}", "$7"),
        ("{SEED}", "{SEED}"),
        ("{sëed}", "{sëed}"),
    ],
)
def test_placeholders_are_filled_in_and_other_braces_survive(text, filled):
    assert fill(text, VALUES) == filled


@given(st.text().filter(lambda text: not any(f"{{{name}}}" in text for name in VALUES)))
def test_a_text_without_placeholders_stays_as_it_is(text):
    assert fill(text, VALUES) == text


@given(braces_and_words)
def test_only_whole_placeholders_and_doubled_braces_around_what_may_be_meant_as_one_change_a_text(text):
    doubled = [word for word in re.findall(r"\{\{([A-Za-z][A-Za-z0-9_-]*)\}\}", text) if meant_placeholder(word)]
    if not doubled and not any("{" + name + "}" in text for name in PLACEHOLDERS):
        assert fill(text, VALUES) == text
    else:
        assert fill(text, VALUES) != text


@given(st.text() | braces_and_words | st.from_regex(r"(\{{0,3}(seed|sed|session|x)\}{0,3}/?)*", fullmatch=True))
def test_a_text_that_is_no_template_comes_out_as_it_is(text):
    assert fill(literal(text), VALUES) == text
    assert fixed(literal(text)) == text
    assert misspelt_placeholder(literal(text)) is None


@given(st.sampled_from(PLACEHOLDERS), braces_and_words)
def test_what_was_filled_in_is_not_filled_in_again(name, value):
    assert fill("<{" + name + "}>", {name: value}) == f"<{value}>"


@given(braces_and_words)
def test_doubled_braces_keep_a_placeholder(text):
    words = {"{" + name + "}": "{{" + name + "}}" for name in PLACEHOLDERS}
    lone = text.replace("{{", "").replace("}}", "")
    escaped = lone
    for word, doubled in words.items():
        escaped = escaped.replace(word, doubled)
    assert fill(escaped, VALUES) == lone


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{sed}", ("sed", "seed")),
        ("{seeed}", ("seeed", "seed")),
        ("{Seed}", ("Seed", "seed")),
        ("--x={SEED}", ("SEED", "seed")),
        ("{session}", ("session", "session_id")),
        ("{session-id}", ("session-id", "session_id")),
        ("{sessionid}/{seed}", ("sessionid", "session_id")),
        ("{work_space}", ("work_space", "workspace")),
        ("{workspaces}", ("workspaces", "workspace")),
        ("{seed}{session_id}{workspace}", None),
        ("{foo}", None),
        ("{speed}", None),
        ("{send}", None),
        ("{id}", None),
        ("{work}", None),
        ("{{session}}", None),
        ('{"session": 1}', None),
        ("{ session }", None),
    ],
)
def test_a_slip_of_a_placeholder_is_told_from_other_words(text, found):
    assert misspelt_placeholder(text) == found


@given(st.text(string.ascii_letters + "_-", min_size=1))
def test_a_word_means_a_placeholder_only_when_it_begins_like_one(word):
    meant = meant_placeholder(word)
    assert meant is None or word.lower().lstrip("_-")[0] == meant[0]


def spec(**fields):
    return EnvSpec(**{"name": "lake", "command": "/bin/server", **fields})


def launch(of, environ=None, seed=7):
    return of.launch(seed=seed, session_id="s-1", workspace="/w/1", environ=environ or {})


def test_a_launch_has_the_placeholders_filled_in_everywhere():
    started = launch(
        spec(
            command="{workspace}/bin/server",
            args=("--seed", "{seed}", '{"id":"{session_id}"}'),
            env={"HERE": "{workspace}", "{seed}": "name"},
            cwd="{workspace}/run",
        )
    )
    assert started.argv == ("/w/1/bin/server", "--seed", "7", '{"id":"s-1"}')
    assert started.cwd == "/w/1/run"
    assert started.env["HERE"] == "/w/1"
    assert started.env["{seed}"] == "name"


def test_seed_zero_is_a_seed():
    started = launch(spec(args=("{seed}",)), seed=0)
    assert started.argv == ("/bin/server", "0")
    assert started.env["MUXSIM_SEED"] == "0"


def test_a_backend_sees_only_the_allowed_variables_and_what_the_spec_names():
    environ = {
        "PATH": "/bin",
        "HOME": "/home/u",
        "LC_ALL": "C.UTF-8",
        "OPENAI_API_KEY": "secret",
        "GITHUB_TOKEN": "secret",
        "HTTPS_PROXY": "http://user:secret@proxy",
        "PYTHONPATH": "/elsewhere",
        "NODE_OPTIONS": "--inspect",
        "MUXSIM_TOKEN": "secret",
        "NPM_TOKEN": "secret",
    }
    started = launch(spec(env={"MODE": "quick"}), environ)
    assert started == Launch(
        argv=("/bin/server",),
        env={
            "PATH": "/bin",
            "HOME": "/home/u",
            "LC_ALL": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "MUXSIM_SEED": "7",
            "MUXSIM_WORKSPACE": "/w/1",
            "MODE": "quick",
        },
        cwd=".",
    )


def test_what_the_spec_names_wins_over_what_is_passed_on():
    started = launch(spec(env={"PATH": "/opt/bin", "PYTHONHASHSEED": "random"}), {"PATH": "/bin"})
    assert started.env["PATH"] == "/opt/bin"
    assert started.env["PYTHONHASHSEED"] == "random"


def test_the_session_id_reaches_only_a_backend_whose_spec_asks_for_it():
    assert "s-1" not in str(launch(spec()))
    assert launch(spec(env={"SESSION": "{session_id}"})).env["SESSION"] == "s-1"


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_no_variable_is_passed_on_with_another_value(environ):
    assert passed_variables(environ).items() <= environ.items()


def test_the_way_out_of_a_backend_fits_into_two_seconds():
    limits = Limits()
    assert limits.eof_timeout + limits.term_timeout < 2


def test_a_spec_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec().command = "other"
