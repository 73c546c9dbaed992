"""`muxsim.lock`: what is written is read again, and what is not a lock is named in one line."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxsim.config import load
from muxsim.config.lock import lock_file, read_lock, write_lock
from muxsim.errors import ConfigError
from muxsim.spec import Pins

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)
lines = st.lists(words.filter(lambda word: word.splitlines() == [word]), min_size=1).map(
    lambda all: "".join(f"{line}\n" for line in all)
)
documents = st.one_of(
    st.dictionaries(words, st.one_of(st.integers(-(2**53), 2**53), words, st.booleans()), min_size=1),
    st.lists(st.dictionaries(words, words), min_size=1),
).map(lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False))


@st.composite
def locks(draw):
    kinds = st.lists(st.sampled_from(["uv", "npm", "conda"]), unique=True, min_size=1)
    pins = st.one_of(lines.filter(lambda text: not text.lstrip().startswith(("[", "{"))), documents)
    return draw(
        st.dictionaries(
            words,
            kinds.flatmap(
                lambda names: st.tuples(
                    *(st.builds(Pins, st.just(name), st.lists(words).map(tuple), pins) for name in sorted(names))
                )
            ),
        )
    )


@settings(max_examples=30)
@given(locks())
def test_what_is_written_is_read_again_and_is_the_same_file_whatever_the_order(tmp_path_factory, locked):
    folder = tmp_path_factory.mktemp("lock")
    write_lock(folder / "one", locked)
    assert read_lock(folder / "one") == locked
    write_lock(folder / "other", dict(reversed(locked.items())))
    assert (folder / "one").read_bytes() == (folder / "other").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["one", "other"]


NO_LOCKS = {
    "torn": ('{"version": 1, "environ', "cannot be understood"),
    "no object": ("[]", "cannot be understood"),
    "not text": (b"\xff\xfe", "cannot be understood"),
    "deep": ("[" * 100_000, "cannot be understood"),
    "of a newer muxsim": ('{"version": 2}', "version: is 2, and this muxsim reads 1"),
    "of another program": ('{"lockfileVersion": 3}', "version: is null"),
    "with a key more": ('{"version": 1, "environments": {}, "more": 1}', "more"),
    "edited": (
        '{"version": 1, "environments": {"a": {"uv": {"terms": [], "pins": "mcp==1"}}}}',
        "[environments.a.uv] pins: must be what muxsim envs lock has written",
    ),
    "emptied": ('{"version": 1, "environments": {"a": {"uv": {"terms": [], "pins": []}}}}', "[environments.a.uv] pins"),
}


@pytest.mark.parametrize("case", NO_LOCKS)
def test_what_is_no_lock_is_named_with_what_to_do(tmp_path, case):
    data, fault = NO_LOCKS[case]
    config, file = tmp_path / "muxsim.toml", tmp_path / "muxsim.lock"
    config.write_text('[environments.a]\ncommand = "server.py"\n')
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(ConfigError) as caught:
        load(config)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert fault in message
    assert "muxsim envs lock" in message
    assert "\n" not in message


def test_a_config_has_what_its_lock_says_and_only_that_where_it_is_wanted_so(tmp_path):
    config = tmp_path / "muxsim.toml"
    config.write_text('[environments.a]\ncommand = "server.py"\n[environments.b]\ncommand = "server.py"\n')
    pins = (Pins("uv", ("mcp", "Python 3.11"), "mcp==1.2\n"),)
    write_lock(lock_file(config), {"a": pins, "gone": pins})
    assert [spec.dependencies.pins for spec in load(config).environments.values()] == [pins, ()]
    assert {spec.dependencies.locked for spec in load(config).environments.values()} == {False}
    assert {spec.dependencies.locked for spec in load(config, locked=True).environments.values()} == {True}


def test_a_lock_that_cannot_be_written_is_named_and_the_one_before_stays(tmp_path, monkeypatch):
    file = tmp_path / "muxsim.lock"
    write_lock(file, {"a": (Pins("uv", (), "mcp==1\n"),)})
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match="cannot be written: No space left on device"):
        write_lock(file, {})
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]
