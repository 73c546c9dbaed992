"""What is overheard of a session: only while somebody looks, within bounds, and without the session's noticing."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager

import pytest
from session.fake_backend import fake_session

from muxsim.observe.events import SessionEnded
from muxsim.runtime.boundary import open_boundary
from muxsim.serve.auth.callers import ANYONE, Caller, Scope
from muxsim.serve.watch import pictures
from muxsim.serve.watch.readers import Readers
from muxsim.serve.watch.records import Records
from muxsim.serve.watch.session_feed import Viewer, _news
from muxsim.session.agent_view import AgentAttachment
from muxsim.session.attachment import Attachment
from transports import messages
from transports.memory import MemoryTransport

READERS = Readers("feeds", 64, time.time)
AGENT = Viewer(READERS.admit(Caller("ada", Scope.AGENT), ""), {})
TRAINER = Viewer(READERS.admit(ANYONE, ""), {})
CALL = {"name": "look", "arguments": {}}


class Sessions:
    """Those that a test has."""

    on_begun = None

    def __init__(self):
        self.live = {}
        self.get = self.live.get


class House:
    def __init__(self, records, sessions):
        self.records = records
        self.sessions = sessions

    def session(self, answer=lambda request: messages.result(request.id, {"content": []}), view=Attachment):
        """A session that has answered once, and a client of it."""
        session, _ = fake_session({"tools/call": answer})
        client = view(session, "test")
        client.connect(MemoryTransport())
        session.attach(client)
        client.receive(messages.request(0, "initialize", {}))
        self.sessions.live[session.id] = session
        if self.sessions.on_begun is not None:
            self.sessions.on_begun(session)
        return session, client


@asynccontextmanager
async def house(history=0):
    told = []
    sessions = Sessions()
    async with open_boundary(lambda name, error: told.append(error)) as boundary:
        records = Records(sessions, history, time.time)
        records.use(boundary.part("dashboard", records.let_all_go))
        yield House(records, sessions)
    assert told == []


def events(pieces):
    """Names and data of encoded events."""
    blocks = b"".join(pieces).replace(b"\r\n", b"\n").split(b"\n\n")[:-1]
    fields = [dict(line.split(b": ", 1) for line in block.split(b"\n")) for block in blocks]
    return [(one[b"event"].decode(), json.loads(one[b"data"])) for one in fields]


def seen(record, viewer=TRAINER, position=0):
    return events(_news(viewer, record, position)[0])


async def test_the_seam_has_the_very_functions_of_who_stands_behind_it_but_while_somebody_looks():
    async with house() as here:
        session, client = here.session()
        before = session.seam.to_backend, session.seam.from_backend
        watched = here.records.watch(session)
        assert session.seam.to_backend != before[0]
        client.receive(messages.request(1, "tools/call", CALL))
        assert [name for name, _ in seen(watched.record)] == ["message", "message"]
        here.records.leave(watched)
        assert (session.seam.to_backend, session.seam.from_backend) == before
        assert session.control.on_scored is None
        assert here.records.of(session.id) is None


async def test_one_that_goes_leaves_the_others_looking():
    async with house() as here:
        session, client = here.session()
        first, second = here.records.watch(session), here.records.watch(session)
        here.records.leave(first)
        client.receive(messages.request(1, "tools/call", CALL))
        assert len(seen(second.record)) == 2


async def test_a_reader_who_is_too_slow_is_told_how_much_it_has_missed():
    async with house() as here:
        session, client = here.session()
        record = here.records.watch(session).record
        for number in range(1500):
            client.receive(messages.request(number + 1, "tools/call", CALL))
        (name, lost), *rest = seen(record)
        assert (name, lost["events"] + len(rest)) == ("lost", 3000)
        assert rest[-1][1]["n"] == 3000
        assert seen(record, position=record.end) == []


async def test_what_is_kept_has_a_bound_in_bytes_too():
    big = "x" * 10_000
    async with house() as here:
        session, client = here.session(lambda request: messages.result(request.id, {"content": big}))
        record = here.records.watch(session).record
        for number in range(1000):
            client.receive(messages.request(number + 1, "tools/call", CALL))
        assert record.size <= 8 * 2**20
        assert record.first > 0


async def test_the_last_calls_are_kept_while_nobody_looks_where_that_is_wanted():
    async with house(history=3) as here:
        session, client = here.session()
        for number in range(10):
            client.receive(messages.request(number + 1, "tools/call", CALL))
        record = here.records.of(session.id).record
        told = seen(record, position=record.first)
        assert [data["kind"] for _, data in told] == ["request", "result"] * 3
        session.end("deleted", "it was deleted")
        here.records(SessionEnded(session.id, "fake", 7, None, "deleted", "it was deleted", None, None, 1.0))
        here.sessions.live.clear()
        assert here.records.past(session.id).session is session


async def test_an_answer_of_which_nobody_knows_who_asked_is_kept_from_agents():
    asked = []
    async with house() as here:
        session, client = here.session(asked.append)
        client.receive(messages.request(1, "tools/call", CALL))
        record = here.records.watch(session).record
        session.seam.from_backend(messages.result(asked[0].id, {"content": ["s3cret"]}))
        *_, (_, answer) = seen(record)
        assert (answer["kind"], answer["method"]) == ("result", "tools/call")
        assert seen(record, AGENT) == []


async def test_an_agents_own_call_is_shown_to_agents_whenever_they_begin_to_look():
    asked = []
    async with house() as here:
        session, client = here.session(asked.append, AgentAttachment)
        client.receive(messages.request(1, "tools/call", CALL))
        record = here.records.watch(session).record
        session.seam.from_backend(messages.result(asked[0].id, {"content": []}))
        assert [data["kind"] for _, data in seen(record, AGENT)] == ["request", "result"]


async def test_what_another_client_asks_is_no_agents_business_nor_what_is_said_of_it():
    asked = []
    async with house() as here:
        session, client = here.session(asked.append)
        record = here.records.watch(session).record
        client.receive(messages.request(1, "tools/call", CALL))
        session.seam.from_backend(messages.notification("notifications/message", {"level": "info", "data": "s3cret"}))
        session.seam.from_backend(messages.request(1, "sampling/createMessage", {}))
        session.seam.from_backend(messages.result(asked[0].id, {"content": []}))
        assert len(seen(record)) == 4
        assert seen(record, AGENT) == []
        session.seam.from_backend(messages.notification("notifications/tools/list_changed"))
        assert len(seen(record, AGENT)) == 1


@pytest.mark.parametrize("control", [{"reward": 1.5}, {"reward": "much"}, [], "none", None, {"info": {"a": "b"}}])
async def test_what_stands_in_the_place_of_the_control_plane_may_be_anything(control):
    result = {"content": [], "_meta": {"muxsim/control": control}}
    async with house() as here:
        session, client = here.session(lambda request: messages.result(request.id, result), AgentAttachment)
        record = here.records.watch(session).record
        client.receive(messages.request(1, "tools/call", CALL))
        told = dict(seen(record))
        assert told["control"]["reward"] == (1.5 if control == {"reward": 1.5} else None)
        assert "muxsim/control" not in told["message"]["body"]
        assert [name for name, _ in seen(record, AGENT)] == ["message", "message"]


async def test_hostile_text_passes_as_json_text():
    text = "</script><img src=x onerror=alert(1)>\n\rdata: x\u2028\ud800"
    answer = lambda request: messages.decode(  # noqa: E731 - shorter than a function of its own
        b'{"jsonrpc":"2.0","id":%d,"result":{"content":%b}}' % (request.id, json.dumps(text).encode())
    )
    async with house() as here:
        session, client = here.session(answer)
        record = here.records.watch(session).record
        client.receive(messages.request(1, "tools/call", CALL))
        record.stderr(text)
        told = seen(record)
        assert [name for name, _ in told] == ["message", "message", "stderr"]
        assert json.loads(told[1][1]["body"]) == {"content": text.replace("\ud800", "\ufffd")}


async def test_what_calls_before_it_have_earned_nobody_knows_so_there_is_no_total():
    result = {"content": [], "_meta": {"muxsim/control": {"reward": 2, "terminated": False, "truncated": False}}}
    async with house() as here:
        session, client = here.session(lambda request: messages.result(request.id, result))
        first = here.records.watch(session)
        client.receive(messages.request(1, "tools/call", CALL))
        assert dict(seen(first.record))["control"]["total"] == 2
        here.records.leave(first)
        again = here.records.watch(session)
        client.receive(messages.request(2, "tools/call", CALL))
        told = dict(seen(again.record))["control"]
        assert (told["reward"], told["total"]) == (2, None)


async def test_images_that_are_next_to_nothing_are_bounded_by_what_they_take_here():
    images = [{"type": "image", "mimeType": "image/a", "data": "A"}] * 10_000
    async with house() as here:
        session, client = here.session(lambda request: messages.result(request.id, {"content": images}))
        record = here.records.watch(session).record
        for number in range(50):
            client.receive(messages.request(number + 1, "tools/call", CALL))
        assert len(record._images) <= 50 * pictures.MOST_PICTURES
        assert record._image_bytes >= len(record._images) * 1000


async def test_sessions_that_were_looked_at_until_their_end_leave_room_for_others():
    big = "x" * 10_000
    async with house(history=5) as here:
        looked_at = []
        for _ in range(20):
            session, client = here.session(lambda request: messages.result(request.id, {"content": big}))
            looked_at.append(here.records.watch(session))
            for number in range(500):
                client.receive(messages.request(number + 1, "tools/call", CALL))
            here.records(SessionEnded(session.id, "fake", 7, None, "deleted", "deleted", None, None, 1.0))
            del here.sessions.live[session.id]
        for watched in looked_at:
            here.records.leave(watched)
        session, _ = here.session()
        here.records(SessionEnded(session.id, "fake", 7, None, "deleted", "deleted", None, None, 1.0))
        here.sessions.live.clear()
        assert here.records.past(session.id) is not None
        assert here.records.past(looked_at[-1].session.id) is not None


@pytest.mark.parametrize("view", [Attachment, AgentAttachment])
async def test_who_begins_to_look_is_told_of_what_is_in_flight(view):
    async with house() as home:
        session, client = home.session(answer=lambda request: None, view=view)
        client.receive(messages.request("mine", "tools/call", CALL))
        record = home.records.watch(session).record
        (first,) = [
            told for name, told in seen(record, AGENT if view is AgentAttachment else TRAINER) if name == "message"
        ]
        assert (first["kind"], first["method"], first["attachment"]) == ("request", "tools/call", client.number)
        assert first["target"] == json.loads(first["body"])["name"] == "look"
        session.seam.from_backend(messages.result(int(first["id"]), {"content": []}))
        *_, (_, answer) = seen(record)
        assert (answer["id"], answer["attachment"], answer["method"]) == (first["id"], client.number, "tools/call")
        assert answer["seconds"] is None


@pytest.mark.parametrize("size", [5_000, 100_000, 5 * 2**20])
@pytest.mark.parametrize("view", [Attachment, AgentAttachment])
async def test_what_a_request_is_about_is_known_whatever_its_size_and_whenever_somebody_begins_to_look(size, view):
    long = {"arguments": {"text": "x" * size}, "name": "look"}
    viewer = AGENT if view is AgentAttachment else TRAINER
    async with house() as home:
        session, client = home.session(answer=lambda request: None, view=view)
        client.receive(messages.request("before", "tools/call", long))
        record = home.records.watch(session).record
        ((_, before),) = seen(record, viewer)
        assert (before["method"], before["target"], before["attachment"]) == ("tools/call", "look", client.number)
        assert (before["body"], before["cut"] > size) == ("", True)
        client.receive(messages.request("now", "tools/call", long))
        *_, (_, now) = seen(record)
        assert (now["target"], now["cut"] > 0) == ("look", size > 16 * 1024)
        session.seam.from_backend(messages.result(int(before["id"]), {"content": []}))
        *_, (_, answer) = seen(record, viewer)
        assert (answer["id"], answer["method"], answer["target"]) == (before["id"], "tools/call", None)


async def test_a_read_of_the_control_plane_in_flight_is_one_whatever_its_size():
    params = {"_meta": {"filler": "x" * 10_000}, "uri": "control://reward"}
    async with house() as home:
        sent = []
        session, client = home.session()
        session.seam.to_backend = sent.append
        client.receive(messages.request("mine", "resources/read", params))
        record = home.records.watch(session).record
        assert seen(record) == []
        contents = [{"uri": "control://reward", "text": '{"reward": 2}'}]
        session.seam.from_backend(messages.result(sent[0].id, {"contents": contents}))
        ((name, told),) = seen(record)
        assert (name, told["reward"]) == ("control", 2)


async def test_messages_and_images_are_numbered_on_when_somebody_looks_again():
    image = {"content": [{"type": "image", "mimeType": "image/png", "data": "AAAA"}]}
    async with house() as home:
        session, client = home.session(answer=lambda request: messages.result(request.id, image))
        numbers = []
        for number in (1, 2):
            watched = home.records.watch(session)
            client.receive(messages.request(number, "tools/call", CALL))
            told = seen(watched.record)
            numbers += [data["n"] for name, data in told if name == "message"]
            numbers += [data["image"]["number"] * 100 for name, data in told if name == "frame"]
            home.records.leave(watched)
        assert numbers == [1, 2, 100, 3, 4, 200]


async def test_what_muxsim_itself_has_in_flight_is_nobodys_business():
    async with house() as home:
        session, client = home.session(answer=lambda request: None)
        client.receive(messages.request("mine", "resources/read", {"uri": "control://reward"}))
        assert seen(home.records.watch(session).record) == []


async def test_what_is_kept_changes_for_sessions_that_are_made_from_then_on():
    async with house() as here:
        here.records.keep(2)
        session, client = here.session()
        client.receive(messages.request(1, "tools/call", CALL))
        watched = here.records.watch(session)
        assert len(seen(watched.record)) == 2
        here.records.keep(0)
        here.records.leave(watched)
        assert len(seen(watched.record)) == 2  # which was made while two were kept
        here.records(SessionEnded(session.id, "fake", 7, None, "deleted", "it was deleted", None, None, 1.0))
        later, client = here.session()
        client.receive(messages.request(1, "tools/call", CALL))
        assert seen(here.records.watch(later).record) == []
