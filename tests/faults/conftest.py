"""One muxsim for the tests of a module, which each has to leave as it was, and one answer for each request."""

from __future__ import annotations

import pytest
from harness import Collector
from serve.conftest import environment, muxsim, serve_many  # noqa: F401 - the fixture
from serve.wire import Client

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
def shared_muxsim(request, tmp_path_factory):
    """The module's muxsim (`CONFIG`)."""
    folder = tmp_path_factory.mktemp("faults")
    collector = Collector(folder)
    with serve_many(folder, getattr(request.module, "CONFIG", BASE), **collector.env) as shared:
        shared.collector = collector
        yield shared
    collector.close()
