"""`muxsim rollout` and `replay` against a muxsim that asks for a token. Rows are those of the table of faults."""

from __future__ import annotations

import pytest
from harness import SERVERS, muxsim_serve

from .terminal import muxsim

pytestmark = pytest.mark.children

TRAINER, AGENT = "t" * 40, "a" * 40
CONFIG = (
    '[server.auth]\ntokens_file = "tokens"\n'
    f'[environments.scored]\ncommand = "python3"\nargs = ["-I", "-S", "{SERVERS / "scored.py"}"]\n'
)


@pytest.fixture
def url(tmp_path):
    folder = tmp_path / "served"
    (folder / "config").mkdir(parents=True)
    tokens = folder / "config" / "tokens"
    tokens.write_text(f"lab trainer {TRAINER}\nlab agent {AGENT}\n")
    tokens.chmod(0o600)
    with muxsim_serve(folder, CONFIG) as running:
        yield running.url


def rollout(folder, url, *options, **env):
    options = ("--env", "scored", "--rollouts", "2", "--max-steps", "3", "--output", "run", *options)
    return muxsim(folder, "rollout", "--url", url, *options, env=env)


@pytest.mark.fault("L21")
@pytest.mark.parametrize("options", [(), ("--transport", "sse")])
def test_the_token_of_a_variable_opens_the_way_and_stands_nowhere(tmp_path, url, options):
    """L21."""
    played = rollout(tmp_path, url, "--token-env", "LAB_TOKEN", *options, LAB_TOKEN=f"{TRAINER}\n")
    assert played.status == 0, played.stderr
    assert "2 episodes, 2 valid" in played.stdout
    replayed = muxsim(tmp_path, "replay", "run", env={"MUXSIM_TOKEN": TRAINER})
    assert replayed.status == 0, replayed.stderr
    written = [file.read_bytes().decode("utf-8", "replace") for file in (tmp_path / "run").rglob("*") if file.is_file()]
    said = [played.stdout, played.stderr, replayed.stdout, replayed.stderr]
    assert [text for text in (*written, *said) if TRAINER in text] == []


@pytest.mark.parametrize(
    ("options", "env", "complaint"),
    [
        ((), {}, "wants another token: this needs a header"),
        ((), {"MUXSIM_TOKEN": "w" * 40}, "wants another token: the token is not valid here"),
        ((), {"MUXSIM_TOKEN": f"{TRAINER} {TRAINER}"}, "the token has characters that no token has"),
        (
            ("--token-env", "NOBODY_SET_ME"),
            {"MUXSIM_TOKEN": TRAINER},
            "the variable NOBODY_SET_ME (--token-env) is not",
        ),
    ],
)
def test_without_a_good_token_it_ends_at_once_and_says_why(tmp_path, url, options, env, complaint):
    finished = rollout(tmp_path, url, *options, **env)
    assert finished.status == 2
    assert complaint in finished.complaint
    assert TRAINER not in finished.stderr
