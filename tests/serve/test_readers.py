"""Who may read an answer that goes on, as plain functions; and over HTTP with tokens that change."""

from __future__ import annotations

import math
import signal
from contextlib import suppress

import pytest
import trio
from harness import muxsim_serve
from hypothesis import given
from hypothesis import strategies as st

from muxsim.serve.auth.callers import ANYONE, Caller, Scope
from muxsim.serve.watch.readers import Readers
from transports.http_rules import HTTPRefusal

from .conftest import environment
from .machine import logged
from .test_watch import STREAM, watching
from .wire import ask, connect, open_session

HOME = "127.0.0.1"


def readers(most=64, now=lambda: 0.0):
    return Readers("feeds of the server", most, now)


def taken(places, caller, peer=HOME):
    """As many as this caller can have, and why it has no more."""
    found = []
    while True:
        try:
            found.append(places.admit(caller, peer))
        except HTTPRefusal as refusal:
            return found, refusal


async def test_no_principal_has_more_than_a_quarter_and_is_told_to_close_one():
    places = readers()
    found, refusal = taken(places, Caller("ada", Scope.TRAINER))
    assert len(found) == 16
    assert refusal.status == 429
    assert refusal.message == "16 feeds of the server are open for ada, as many as one principal may have: close one"
    with found.pop():
        pass
    assert len(taken(places, Caller("ada", Scope.TRAINER))[0]) == 1


@pytest.mark.parametrize("scope", [Scope.MONITOR, Scope.ADMIN, Scope.AGENT | Scope.MONITOR])
async def test_a_place_is_left_for_whoever_is_to_see_what_goes_on(scope):
    places = readers()
    held = [taken(places, Caller(f"trainer-{number}", Scope.TRAINER)) for number in range(9)]
    assert sum(len(found) for found, _ in held) == 56
    _, refusal = held[-1]
    assert (refusal.status, refusal.headers) == (503, [(b"retry-after", b"10")])
    assert "kept for tokens of the scopes monitor and admin" in refusal.message
    found, refusal = taken(places, Caller("root", scope))
    assert len(found) == 8
    assert "kept" not in refusal.message


async def test_without_tokens_nobody_is_told_from_anybody_else():
    found, refusal = taken(readers(), ANYONE)
    assert (len(found), refusal.status) == (64, 503)


async def test_a_reader_goes_on_until_the_tokens_change_or_its_own_expires():
    clock = [100.0]
    places = readers(now=lambda: clock[0])
    short, long = places.admit(Caller("ada", Scope.AGENT, 160.0), HOME), places.admit(Caller("bob", Scope.AGENT), HOME)
    assert (short.left, long.left) == (60.0, math.inf)
    assert short.goes_on
    clock[0] = 160.0
    assert (short.goes_on, long.goes_on) == (False, True)
    places.doubt()
    assert not long.goes_on
    assert places.admit(Caller("bob", Scope.AGENT), HOME).goes_on


CALLERS = [
    ANYONE,
    *(Caller(name, scope) for name in "abcdefgh" for scope in (Scope.AGENT, Scope.TRAINER, Scope.MONITOR, Scope.ADMIN)),
]


@pytest.mark.parametrize("most", [1, 3, 8, 64])
@given(steps=st.lists(st.one_of(st.sampled_from(CALLERS), st.integers(0, 30))))
async def test_whoever_comes_and_goes_there_are_never_more_than_may_be(most, steps):
    places, held = readers(most), []
    for step in steps:
        if isinstance(step, Caller):
            with suppress(HTTPRefusal):
                held.append(places.admit(step, HOME))
        elif held:
            with held.pop(step % len(held)):
                pass
        assert len(held) <= most
        assert bool(places) == bool(held)
        named = [one.caller.name for one in held if one.caller.name is not None]
        assert all(named.count(name) <= max(1, most // 4) for name in named)


# ---- with tokens that change

ADA, ROOT = "a" * 40, "r" * 40


@pytest.mark.children
async def test_who_reads_with_a_token_that_is_taken_out_of_use_is_read_to_no_more(tmp_path):
    (tokens := tmp_path / "tokens").write_text(f"ada trainer {ADA}\nroot admin {ROOT}\n")
    tokens.chmod(0o600)
    config = f"[server.auth]\ntokens_file = '{tokens}'\n" + environment("naughty")
    with muxsim_serve(tmp_path, config) as running:
        bearer = ("Authorization", f"Bearer {ROOT}")
        session = await open_session(running.url, [bearer], env="naughty")
        path = f"/sessions/{session['id']}/logs?follow=1"
        async with (
            connect(running.url) as connection,
            watching(running.url, "/watch", ROOT) as server,
            watching(running.url, f"/watch/sessions/{session['id']}", ROOT) as one,
        ):
            await server.event("snapshot")
            await one.event("session")
            await connection.send("GET", path, [bearer])
            assert (await connection.head())[0] == 200
            tokens.write_text(f"ada trainer {ADA}\nroot admin {'R' * 40}\n")
            running.process.send_signal(signal.SIGHUP)
            await logged(running, event="muxsim.reloaded", within=60)
            await ask(running.url, "DELETE", f"/sessions/{session['id']}", [("Authorization", f"Bearer {'R' * 40}")])
            with trio.fail_after(60):
                told = await connection.read_body()
                assert b"session.opening" in told
                assert b"session.ended" not in told
                for feed in (server, one):
                    with pytest.raises(AssertionError, match="the feed has ended"):
                        await feed.event("nothing of this name")
                    assert "ended" not in [type for type, _ in feed.told]
        assert (await ask(running.url, "GET", path, [STREAM, bearer])).status == 401
