"""One muxsim for the tests of a module, which each has to leave as it was, and one answer for each request."""

from __future__ import annotations

import pytest
import trio
from harness import muxsim_serve
from serve.conftest import Shared, environment
from serve.machine import descendants, eventually, has_zygote, own_descriptors
from serve.wire import Client, ask, shake_hands

LIMIT = 40
"""Seconds for anything that a test waits for; what has to be faster says so itself."""

BASE = environment("naughty", "--seed", "{seed}")


@pytest.fixture(autouse=True)
def _one_answer_for_each_request(monkeypatch):
    """Whatever a `serve.wire.Client` posts is answered once, under its own id, and by nothing after that."""
    post = Client.post

    async def watched(self, message, headers=()):
        answer = await post(self, message, headers)
        if isinstance(message, dict) and "method" in message and "id" in message and answer.status == 200:
            finals = [one for one in answer.messages if "method" not in one]
            assert [(one["id"], type(one["id"])) for one in finals] == [(message["id"], type(message["id"]))], finals
            assert answer.messages[-1] is not None
            assert "method" not in answer.messages[-1]
        return answer

    monkeypatch.setattr(Client, "post", watched)


@pytest.fixture(scope="module")
def module_muxsim(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    temporary = folder / "tmp"
    temporary.mkdir()
    config = getattr(request.module, "CONFIG", BASE)
    with muxsim_serve(folder, config, env={"TMPDIR": str(temporary)}) as running:
        guardian, *_ = descendants(running.process.pid)
        trio.run(_play_a_session, running.url)
        trio.run(eventually, lambda: has_zygote(running.process.pid), LIMIT)
        yield Shared(running, temporary, guardian, own_descriptors(running.process.pid))


@pytest.fixture
async def muxsim(module_muxsim):
    """The module's muxsim (`CONFIG`); afterwards it still works and holds nothing more than it did."""
    yield module_muxsim
    with trio.fail_after(LIMIT):
        for session in (await ask(module_muxsim.url, "GET", "/sessions")).json()["sessions"]:
            await ask(module_muxsim.url, "DELETE", f"/sessions/{session['id']}")
        await _play_a_session(module_muxsim.url)
    try:
        await eventually(lambda: not module_muxsim.leftovers())
    except trio.TooSlowError:
        raise AssertionError(f"left behind: {module_muxsim.leftovers()}") from None


async def _play_a_session(url):
    with trio.fail_after(LIMIT):
        client = await shake_hands(url, "/mcp?env=naughty")
        assert await client.text("say", text="hello") == "hello"
        assert (await client.delete()).status == 204
