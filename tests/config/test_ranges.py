"""Every number of a config lies between a least and a greatest value that can be meant."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxsim.access import ClientBounds
from muxsim.config import ServerSettings, load
from muxsim.errors import ConfigError
from muxsim.rollouts.play.options import RolloutOptions
from muxsim.spec import Confinement, EnvSpec, Limits
from muxsim.values import (
    CLIENT_KEYS,
    CONFINEMENT_KEYS,
    ENVIRONMENT_KEYS,
    LIMIT_KEYS,
    ROLLOUT_KEYS,
    SERVER_KEYS,
    Kind,
)

TABLES = {
    "server": {**SERVER_KEYS, **LIMIT_KEYS, **CONFINEMENT_KEYS},
    "server.clients.ada": CLIENT_KEYS,
    "environments.lake": ENVIRONMENT_KEYS,
}
NUMBERS = [
    (table, key) for table, keys in TABLES.items() for key, kind in keys.items() if isinstance(kind, Kind) and kind.span
]
ABSURD = {
    "nan": "nan",
    "infinite": "inf",
    "negative infinite": "-inf",
    "tiny": "1e-300",
    "huge": "1e308",
    "of four hundred digits": "1" + 400 * "0",
    "just past what can be meant": "1e16",
    "negative": "-1",
    "minus nothing": "-0.5",
    "a flag": "true",
    "a list": "[1]",
    "a table": "{ seconds = 1 }",
    "digits of another script": '"٣"',
    "a size of four hundred digits": '"1' + 400 * "0" + ' GiB"',
    "a share of four hundred digits": '"1' + 400 * "0" + '%"',
    "empty": '""',
}


def read(folder, table, key, text):
    """The config with this text for a key, if it is taken."""
    file = folder / "muxsim.toml"
    command = "[environments.lake]\ncommand = 'true'\n"
    file.write_text(
        f"{command}{key} = {text}\n" if table == "environments.lake" else f"{command}[{table}]\n{key} = {text}\n"
    )
    return load(file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranges")


def test_every_setting_that_is_a_number_has_a_least_and_a_greatest():
    spans = {key for _, key in NUMBERS}
    for table in (ServerSettings, Limits, Confinement, ClientBounds):
        for field in dataclasses.fields(table):
            if ("int" in str(field.type) or "float" in str(field.type)) and field.name != "network":
                assert field.name in spans


@pytest.mark.parametrize(("table", "key"), NUMBERS)
def test_what_nobody_can_mean_is_an_error_that_names_key_value_and_range(folder, table, key):
    kind = TABLES[table][key]
    for what, text in ABSURD.items():
        if what == "infinite" and "never" in kind.span and key != "memory_limit":
            assert read(folder, table, key, text)
            continue
        with pytest.raises(ConfigError) as refused:
            read(folder, table, key, text)
        words = str(refused.value)
        assert f"[{table}] {key}" in words, what
        assert f"must be {kind.wants}" in words, what
        assert len(words) < 500, what


@pytest.mark.parametrize(("table", "key"), NUMBERS)
def test_the_ends_of_the_range_that_is_told_are_taken_and_what_is_beyond_them_is_not(folder, table, key):
    ends = [
        end.strip() for end in TABLES[table][key].span.split(", ")[0 if key != "opens_per_second" else -1].split(" to ")
    ]
    for text in ends:
        assert read(folder, table, key, text)
    least, most = ends
    if not least.startswith('"'):
        with pytest.raises(ConfigError):
            read(folder, table, key, json.dumps(float(least) - 0.0005 if "." in least else int(least) - 1))
    if not most.startswith('"'):
        with pytest.raises(ConfigError):
            read(folder, table, key, str(int(most) + 1))


@pytest.mark.parametrize("defaults", [ServerSettings, Limits, Confinement])
def test_every_default_lies_in_its_range(defaults):
    keys = {**SERVER_KEYS, **LIMIT_KEYS, **CONFINEMENT_KEYS}
    for field in dataclasses.fields(defaults):
        kind = keys.get(field.name)
        if isinstance(kind, Kind) and kind.span and field.default is not None:
            assert kind.read(field.default) == field.default


@settings(max_examples=1000)
@given(st.sampled_from(NUMBERS), st.one_of(st.integers(), st.floats(), st.text(), st.booleans(), st.none()))
def test_whatever_a_number_is_given_it_is_finite_and_does_in_arithmetic_or_is_refused(where, value):
    table, key = where
    kind = TABLES[table][key]
    try:
        found = kind.read(value)
    except (ValueError, OverflowError):
        return
    if isinstance(found, int | float):
        assert math.isfinite(found)
        assert 0 <= found * 1000 < 2**63


MADE = {
    Limits: LIMIT_KEYS,
    Confinement: CONFINEMENT_KEYS,
    ServerSettings: SERVER_KEYS,
    ClientBounds: CLIENT_KEYS,
    RolloutOptions: ROLLOUT_KEYS,
    EnvSpec: ENVIRONMENT_KEYS,
}
OF_PROGRAMS = [
    (made, field.name)
    for made, keys in MADE.items()
    for field in dataclasses.fields(made)
    if isinstance(keys.get(field.name), Kind) and keys[field.name].span
]


def make(made, **settings):
    return made(name="lake", command="true", **settings) if made is EnvSpec else made(**settings)


@pytest.mark.parametrize(("made", "key"), OF_PROGRAMS, ids=lambda one: getattr(one, "__name__", one))
def test_what_a_program_makes_is_held_to_the_same_range_as_a_config(made, key):
    kind = MADE[made][key]
    for absurd in (math.nan, -1, 10**400, True, [1], "", "much"):
        with pytest.raises(ConfigError) as refused:
            make(made, **{key: absurd})
        assert key in str(refused.value)
        assert f"must be {kind.wants}" in str(refused.value)
    default = getattr(make(made), key)
    assert getattr(make(made, **{key: default}), key) == default


def test_a_program_may_say_a_size_and_a_time_in_the_words_of_a_config():
    assert Limits(max_line="1 MiB", idle_timeout="never") == Limits(max_line=2**20, idle_timeout=None)
    with pytest.raises(ConfigError):
        Limits(start_timeout=None)
