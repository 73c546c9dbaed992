"""Where tokens come from, and who they say is calling. Rows are those of the table of faults."""

from __future__ import annotations

import math
import os
import time

import pytest

from muxsim.access import AuthSettings
from muxsim.errors import ConfigError
from muxsim.serve.auth.authenticator import Authenticator
from muxsim.serve.auth.callers import NOBODY, Caller, Scope, parse_tokens
from muxsim.serve.auth.failures import WINDOW, FailureLimit
from muxsim.serve.auth.tokens import open_auth, read_tokens_file
from transports.asgi import Call
from transports.http_rules import HTTPRefusal

ADA, BOB = "a" * 32, "b" * 32
LINES = f"ada trainer {ADA}\nbob agent {BOB}\n"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(LINES)
    path.chmod(0o600)
    return path


def test_without_a_table_there_is_no_authentication():
    assert open_auth(None, 1, {}) is None


def test_tokens_come_from_a_file_and_from_a_variable(file):
    settings = AuthSettings(tokens_file=str(file), tokens_env="TOKENS")
    auth = open_auth(settings, 1, {"TOKENS": f"root admin {'r' * 32}"})
    assert auth.known(ADA.encode()) == Caller("ada", Scope.TRAINER)
    assert auth.known(BOB.encode()) == Caller("bob", Scope.AGENT)
    assert auth.known(b"r" * 32) == Caller("root", Scope.ADMIN)
    assert repr(auth) == "<Authenticator 3 tokens>"


def test_the_variable_is_taken_out_of_the_environment():
    """L21: whatever muxsim starts later cannot inherit it."""
    environ = {"TOKENS": LINES, "PATH": "/bin"}
    open_auth(AuthSettings(tokens_env="TOKENS"), 1, environ)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o666, 0o602, 0o620, 0o601])
def test_a_file_that_others_may_use_is_refused(file, mode):
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"has mode {mode:04o}.*chmod 600") as raised:
        read_tokens_file(AuthSettings(tokens_file=str(file)))
    assert ADA not in str(raised.value)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_a_file_of_ones_own_or_ones_group_will_do(file, mode):
    file.chmod(mode)
    assert len(read_tokens_file(AuthSettings(tokens_file=str(file)))) == 2


def test_a_pipe_will_do():
    reading, writing = os.pipe()
    try:
        os.write(writing, LINES.encode())
        os.close(writing)
        assert len(read_tokens_file(AuthSettings(tokens_file=f"/dev/fd/{reading}"))) == 2
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "has no token"),
        (b"# nothing yet\n", "has no token"),
        (b"ada trainer\n", "line 1: must be"),
        (b"\xff\n", "is not UTF-8, see byte 0"),
        (f"ada trainer {ADA}\nbob agent {ADA}".encode(), "line 2: this token stands in an earlier line"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(file, content, complaint):
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint) as raised:
        read_tokens_file(AuthSettings(tokens_file=str(file)))
    assert str(raised.value).startswith(f"{file}: ")
    assert ADA not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="No such file") as raised:
        read_tokens_file(AuthSettings(tokens_file=str(tmp_path / "none")))
    assert "none: cannot be read" in str(raised.value)


def test_a_variable_that_is_not_set_is_named():
    with pytest.raises(ConfigError, match="the variable TOKENS is not set"):
        open_auth(AuthSettings(tokens_env="TOKENS"), 1, {})


def test_the_same_token_twice_is_refused(file):
    with pytest.raises(ConfigError, match="in the file and in the variable"):
        open_auth(AuthSettings(tokens_file=str(file), tokens_env="TOKENS"), 1, {"TOKENS": LINES})


# ---- other tokens later


def test_staged_tokens_take_the_place_of_the_files_and_the_variables_stay():
    auth = Authenticator(parse_tokens(LINES), FailureLimit(1), variable=parse_tokens(f"root admin {'r' * 32}"))
    forgotten = []
    auth.on_change(lambda: forgotten.append("all"))
    assert auth.use_staged() == ()
    auth.stage(parse_tokens(f"ada admin {ADA}\neve agent {'e' * 32}"))
    assert auth.known(BOB.encode()) is not None
    assert not forgotten
    assert auth.use_staged()
    assert forgotten == ["all"]
    assert auth.known(BOB.encode()) is None
    assert auth.known(ADA.encode()) == Caller("ada", Scope.ADMIN)
    assert auth.known(b"e" * 32).name == "eve"
    assert auth.known(b"r" * 32).name == "root"


# ---- who is calling


def authenticator(*, limit=3, verifier=None):
    return Authenticator(parse_tokens(LINES), FailureLimit(limit), verifier)


def call(*values, peer="10.0.0.1"):
    headers = [(b"host", b"x"), *((b"authorization", value.encode()) for value in values)]
    return Call({"headers": headers, "client": (peer, 1)}, None, None)


async def refusal_of(auth, *values, **options):
    with pytest.raises(HTTPRefusal) as raised:
        await auth.authenticate(call(*values, **options))
    return raised.value


async def test_a_token_tells_who_is_calling():
    auth = authenticator()
    assert await auth.authenticate(call(f"Bearer {ADA}")) == Caller("ada", Scope.TRAINER)
    assert await auth.authenticate(call(f"bearer {BOB}")) == Caller("bob", Scope.AGENT)


@pytest.mark.parametrize("value", [f"Bearer {ADA}x", f"Bearer {ADA[:-1]}", f"Bearer {ADA.upper()}", "Bearer ada", ADA])
async def test_any_other_token_is_refused_in_the_same_words(value):
    """L21."""
    refusal = await refusal_of(authenticator(), value)
    assert refusal.status == 401
    assert ADA[:-1] not in refusal.message
    assert refusal.headers[0][0] == b"www-authenticate"


async def test_every_token_is_compared_whichever_is_meant(monkeypatch):
    """L15: the time does not tell which token, or how much of it, was right."""
    compared = []
    monkeypatch.setattr("hmac.compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    auth = authenticator()
    for token in (ADA, BOB, "neither" * 5):
        compared.clear()
        auth.known(token.encode())
        assert len(compared) == 2
        assert all(len(one) == 32 for pair in compared for one in pair)


async def test_who_guesses_too_often_is_refused_unheard_and_who_was_here_before_goes_on():
    """L15."""
    auth = authenticator(limit=3)
    await auth.authenticate(call(f"Bearer {ADA}"))
    assert [(await refusal_of(auth, f"Bearer {n}")).status for n in range(5)] == [401, 401, 401, 429, 429]
    refusal = await refusal_of(auth, f"Bearer {BOB}")
    assert refusal.status == 429
    assert "server.max_failures" in refusal.message
    ((name, seconds),) = refusal.headers
    assert name == b"retry-after"
    assert 0 < int(seconds) <= WINDOW
    assert (await auth.authenticate(call(f"Bearer {ADA}"))).name == "ada"
    assert (await auth.authenticate(call(f"Bearer {BOB}", peer="10.0.0.2"))).name == "bob"


async def test_an_open_path_tells_a_guesser_nothing_either():
    """L15: /health has more to say to the admin."""
    auth = authenticator(limit=3)
    assert auth.glance(call()) is NOBODY
    assert auth.glance(call(f"Bearer {ADA}")).name == "ada"
    assert [auth.glance(call(f"Bearer {number}")) for number in range(3)] == [NOBODY] * 3
    assert auth.glance(call(f"Bearer {ADA}")) is NOBODY
    assert auth.glance(call(f"Bearer {ADA}", peer="10.0.0.2")).name == "ada"


async def test_a_request_without_a_token_is_no_guess():
    auth = authenticator(limit=1)
    assert [(await refusal_of(auth)).status for _ in range(5)] == [401] * 5
    assert (await auth.authenticate(call(f"Bearer {ADA}"))).name == "ada"


class Verifier:
    """Takes one token, and counts how often it is asked."""

    metadata_url = "https://x/.well-known/oauth-protected-resource"

    def __init__(self, seconds):
        self.seconds = seconds
        self.asked = 0

    async def verify(self, token):
        self.asked += 1
        return Caller("eve", Scope.AGENT, time.time() + self.seconds) if token == b"signed" else None


async def test_a_verified_token_is_remembered_until_it_expires():
    verifier = Verifier(seconds=60)
    auth = authenticator(verifier=verifier)
    assert auth.known(b"signed") is None
    caller = await auth.authenticate(call("Bearer signed"))
    assert await auth.authenticate(call("Bearer signed")) is caller
    assert verifier.asked == 1
    assert caller.expires < math.inf


async def test_a_verified_token_that_has_expired_is_verified_again():
    verifier = Verifier(seconds=-1)
    auth = authenticator(verifier=verifier)
    for _ in range(2):
        await auth.authenticate(call("Bearer signed"))
    assert verifier.asked == 2


async def test_verified_tokens_take_bounded_memory():
    class Generous:
        metadata_url = ""

        async def verify(self, token):
            return Caller(token.decode(), Scope.AGENT, time.time() + 60)

    auth = authenticator(verifier=Generous())
    for number in range(1100):
        await auth.authenticate(call(f"Bearer t{number}"))
    assert auth.known(b"t0") is None
    assert auth.known(b"t1099") is not None


async def test_a_refusal_tells_where_tokens_are_given_out():
    refusal = await refusal_of(authenticator(verifier=Verifier(1)), "Bearer forged")
    assert b'resource_metadata="https://x/.well-known/oauth-protected-resource"' in refusal.headers[0][1]


# ---- what is told of refused tokens


def told_by(auth):
    auth._tell = (told := []).append
    return told


async def test_of_refused_tokens_one_is_told_of_for_each_address_in_a_minute_and_all_are_counted():
    auth = authenticator(limit=1000)
    told = told_by(auth)
    for _ in range(3):
        await refusal_of(auth, "Bearer nobodys")
        await refusal_of(auth, "Bearer nobodys", peer="10.0.0.2")
    auth.glance(call("Bearer nobodys"))
    await refusal_of(auth)  # none at all is no refused token
    assert [(one.peer, one.again) for one in told if not one.again] == [("10.0.0.1", None), ("10.0.0.2", None)]
    assert [(one.reason, one.principal) for one in told] == [("unknown", None)] * 7
    assert "nobodys" not in str(told)


async def test_however_many_addresses_send_wrong_tokens_a_minute_has_no_more_lines_than_so_many():
    auth = authenticator()
    told = told_by(auth)
    for number in range(500):
        await refusal_of(auth, "Bearer nobodys", peer=f"10.0.{number // 250}.{number % 250}")
    assert [one.again for one in told] == [None] * 60 + [True] * 440


async def test_a_token_that_is_good_for_less_is_told_of_with_its_name_and_is_no_guess():
    auth = authenticator(limit=1)
    told = told_by(auth)
    caller = await auth.authenticate(call(f"Bearer {ADA}"))
    for _ in range(3):
        auth.fell_short(caller, call(f"Bearer {ADA}"))
    assert [(one.reason, one.principal, one.again) for one in told] == [
        ("scope", "ada", None),
        ("scope", "ada", True),
        ("scope", "ada", True),
    ]
    assert await auth.authenticate(call(f"Bearer {BOB}")) is not None
