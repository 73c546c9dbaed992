"""The control plane beside a result, and out of an agent's sight."""

from __future__ import annotations

import msgspec
import pytest
import trio

from muxsim.session.agent_view import AgentAttachment
from muxsim.session.attachment import Attachment
from muxsim.session.control.control import META_KEY, ControlUnreadable
from session.fake_backend import fake_session
from transports import messages
from transports.memory import MemoryTransport
from transports.messages import Message, member

NO_TEMPLATES = {"resources/templates/list": lambda request: messages.result(request.id, {"resourceTemplates": []})}
STEP_PARTS = {"control://reward", "control://status", "control://info"}


class Lake:
    """A server that publishes its control plane as resources, and knows nothing of `_meta`."""

    def __init__(self) -> None:
        self.step = 0
        self.total = 0.0
        self.last = 0.0
        self.steps_per_call = 1
        self.fails = False
        self.reads: list[str] = []
        self.broken: set[str] = set()
        self.lacking: set[str] = set()
        self.lists_control = True
        self.not_there = lambda request, uri: messages.error(request.id, -32002, "Resource not found")

    def call(self, request: Message) -> Message:
        if not self.fails:
            for _ in range(self.steps_per_call):
                self.step += 1
                self.last = 0.5
                self.total += 0.5
        return messages.result(request.id, {"content": [], "isError": self.fails})

    def read(self, request: Message) -> Message:
        uri = msgspec.json.decode(member(request.params, "uri"))
        self.reads.append(uri)
        values = {
            "control://reward": {"reward": self.last, "step": self.step},
            "control://status": {
                "terminated": self.step > 2,
                "truncated": False,
                "step": self.step,
                "total_reward": self.total,
            },
            "control://info": {"luck": 1},
            "control://initial_state": {"observation": "S", "seed": 7},
        }
        if uri in self.broken:
            return messages.error(request.id, -32603, "the disk is on fire")
        if uri in self.lacking or uri not in values:
            return self.not_there(request, uri)
        return messages.result(
            request.id, {"contents": [{"uri": uri, "text": msgspec.json.encode(values[uri]).decode()}]}
        )

    def answers(self) -> dict:
        return {"tools/call": self.call, "resources/read": self.read, "resources/list": self.listed, **NO_TEMPLATES}

    def listed(self, request: Message) -> Message:
        uris = ["file:///map", *(["control://reward", "Control://status"] if self.lists_control else [])]
        return messages.result(
            request.id, {"resources": [{"uri": uri} for uri in uris], "_meta": {META_KEY: 1, "x": 2}}
        )


def connect(session, kind=Attachment):
    attachment, transport = kind(session, "memory"), MemoryTransport()
    attachment.connect(transport)
    session.attach(attachment)
    attachment.receive(messages.request(0, "initialize", {}))
    return attachment, transport


def step(attachment, id=1, asks=True):
    meta = {"_meta": {META_KEY: True}} if asks else {}
    attachment.receive(messages.request(id, "tools/call", {"name": "move", "arguments": {}, **meta}))


def control_of(message: Message):
    raw = member(message.members["result"], "_meta", META_KEY)
    return None if raw is None else msgspec.json.decode(raw)


async def test_a_result_carries_the_control_plane_when_its_call_asks_for_it():
    lake = Lake()
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    step(attachment)
    message, about = transport.sent[-1]
    assert about == 1
    assert control_of(message) == {
        "reward": 0.5,
        "terminated": False,
        "truncated": False,
        "step": 1,
        "info": {"luck": 1},
    }


async def test_nothing_is_read_for_a_call_that_does_not_ask():
    lake = Lake()
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    step(attachment, asks=False)
    assert control_of(transport.sent[-1][0]) is None
    assert lake.reads == []


async def test_a_spec_can_ask_for_every_call():
    lake = Lake()
    session, backend = fake_session(lake.answers(), control=True)
    attachment, transport = connect(session)
    step(attachment, asks=False)
    assert control_of(transport.sent[-1][0])["reward"] == 0.5
    assert member(backend.sent[-4].params, "_meta", META_KEY) is not None, "a server that can add it is asked to"


async def test_a_server_that_fills_the_meta_itself_costs_no_read():
    lake = Lake()
    own = {"reward": 3.0, "terminated": True, "truncated": False, "step": 9, "info": {}}
    answers = {
        **lake.answers(),
        "tools/call": lambda r: messages.result(r.id, {"content": [], "_meta": {META_KEY: own}}),
    }
    session, _ = fake_session(answers)
    attachment, transport = connect(session)
    step(attachment)
    assert control_of(transport.sent[-1][0]) == own
    assert lake.reads == []


async def test_a_call_of_several_steps_earns_their_sum_and_one_that_took_none_earns_nothing():
    lake = Lake()
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    rewards = []
    for id, steps in enumerate([1, 3, 0], 1):
        lake.steps_per_call = steps
        step(attachment, id)
        rewards.append(control_of(transport.sent[-1][0])["reward"])
    assert rewards == [0.5, 1.5, 0.0]


async def test_a_failed_call_has_no_reward_rather_than_the_last_one_again():
    lake = Lake()
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    step(attachment, 1)
    lake.fails = True
    step(attachment, 2)
    assert control_of(transport.sent[-1][0])["reward"] is None


async def test_a_reward_that_cannot_be_read_is_what_the_total_has_grown_by():
    lake = Lake()
    lake.broken = {"control://reward"}
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    step(attachment)
    control = control_of(transport.sent[-1][0])
    assert (control["reward"], control.get("problem")) == (0.5, None)


async def test_a_reward_that_cannot_be_read_is_null_with_its_reason_where_there_is_no_total():
    lake = Lake()
    lake.broken = {"control://reward"}
    lake.total = None
    lake.steps_per_call = 0
    lake.step = 1
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    step(attachment)
    control = control_of(transport.sent[-1][0])
    assert control["reward"] is None
    assert control["problem"] == "control://reward: the disk is on fire"
    assert control["terminated"] is False
    assert control["step"] == 1, "what could be read is kept"


async def test_a_server_without_a_control_plane_is_asked_once_and_its_results_pass_unchanged():
    lake = Lake()
    lake.lacking = STEP_PARTS
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    step(attachment, 1)
    step(attachment, 2)
    assert [control_of(message) for message, _ in transport.sent[-2:]] == [None, None]
    assert len(lake.reads) == 3


async def test_a_control_plane_that_was_there_and_is_gone_is_a_problem_and_no_end_is_known():
    lake = Lake()
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    step(attachment, 1)
    lake.broken = {f"control://{part}" for part in ("reward", "status", "info")}
    step(attachment, 2)
    control = control_of(transport.sent[-1][0])
    assert (control["reward"], control["terminated"], control["truncated"]) == (None, None, None)
    assert "control://status: the disk is on fire" in control["problem"]


async def test_an_environment_without_info_has_none_and_that_is_no_problem_until_it_had_some():
    lake = Lake()
    lake.lacking = {"control://info"}
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    step(attachment, 1)
    control = control_of(transport.sent[-1][0])
    assert (control["reward"], control["info"], "problem" in control) == (0.5, {}, False)
    lake.lacking = set()
    step(attachment, 2)
    lake.lacking = {"control://info"}
    step(attachment, 3)
    assert "control://info" in control_of(transport.sent[-1][0])["problem"]


async def test_a_part_that_is_missing_once_is_asked_for_again():
    lake = Lake()

    def read(request):
        answer = lake.read(request)
        lake.broken.discard(lake.reads[-1])
        return answer

    session, _ = fake_session({**lake.answers(), "resources/read": read})
    attachment, transport = connect(session)
    step(attachment, 1)
    lake.broken = {"control://reward", "control://status"}
    step(attachment, 2)
    control = control_of(transport.sent[-1][0])
    assert (control["reward"], control["terminated"], "problem" in control) == (0.5, False, False)


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ({"terminated": "no"}, "terminated is not true or false"),
        ({"truncated": 0}, "truncated is not true or false"),
        ({"step": "1"}, "step is not a whole number"),
        ({"step": 1.5}, "step is not a whole number"),
        ({"total_reward": "much"}, "total_reward is not a number"),
        ({"failed": 7}, "failed is not text"),
    ],
)
async def test_a_status_of_another_form_tells_nothing(status, problem):
    lake = Lake()

    def read(request):
        answer = lake.read(request)
        if lake.reads[-1] != "control://status":
            return answer
        return messages.result(request.id, {"contents": [{"text": msgspec.json.encode(status).decode()}]})

    session, _ = fake_session({**lake.answers(), "resources/read": read})
    attachment, transport = connect(session)
    step(attachment)
    control = control_of(transport.sent[-1][0])
    assert (control["reward"], None in (control["terminated"], control["truncated"])) == (None, True)
    assert problem in control["problem"]


async def test_a_reward_that_the_total_does_not_bear_out_is_no_reward():
    lake = Lake()
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    lake.total = 7.0
    step(attachment)
    control = control_of(transport.sent[-1][0])
    assert control["reward"] is None
    assert control["problem"] == "control://reward: 0.5, and by control://status the total has grown by 7.5"


async def test_an_environment_that_says_that_it_has_failed_says_so_beside_the_result():
    lake = Lake()

    def read(request):
        lake.read(request)
        value = {
            "terminated": False,
            "truncated": False,
            "step": 0,
            "total_reward": 0.0,
            "failed": "the server is gone",
        }
        return messages.result(request.id, {"contents": [{"text": msgspec.json.encode(value).decode()}]})

    session, _ = fake_session({**lake.answers(), "resources/read": read})
    attachment, transport = connect(session)
    step(attachment)
    assert control_of(transport.sent[-1][0])["failed"] == "the server is gone"


async def test_a_call_says_that_the_tools_have_changed_since_its_client_listed_them():
    lake = Lake()
    session, _ = fake_session({**lake.answers(), "tools/list": lambda request: messages.result(request.id, {})})
    attachment, transport = connect(session)
    attachment.receive(messages.request(90, "tools/list"))
    step(attachment, 1)
    session.seam.from_backend(messages.notification("notifications/tools/list_changed"))
    step(attachment, 2)
    step(attachment, 3)
    attachment.receive(messages.request(91, "tools/list"))
    step(attachment, 4)
    answers = [message for message, about in transport.sent if about in (1, 2, 3, 4)]
    news = [member(one.members["result"], "_meta", "muxsim/tools_changed") is not None for one in answers]
    assert news == [False, True, True, False]


async def test_a_result_waits_for_its_control_plane_and_comes_when_the_backend_dies_first():
    lake = Lake()
    session, _ = fake_session({**lake.answers(), "resources/read": lambda request: None})
    attachment, transport = connect(session)
    step(attachment)
    assert [about for _, about in transport.sent] == [0]
    session.end("backend_exited", "the backend exited with status 3")
    message, about = transport.sent[-1]
    assert about == 1
    assert control_of(message)["reward"] is None
    assert "the backend exited with status 3" in control_of(message)["problem"]


async def test_each_part_can_be_read_by_itself():
    lake = Lake()
    session, _ = fake_session(lake.answers())
    connect(session)
    assert await session.control.read("initial_state", {}, 1) == {"observation": "S", "seed": 7}
    lake.broken = {"control://info"}
    with pytest.raises(ControlUnreadable, match="the disk is on fire"):
        await session.control.read("info", {}, 1)


async def test_a_part_that_is_late_is_unreadable(autojump_clock: trio.testing.MockClock):
    session, backend = fake_session({"resources/read": lambda request: None})
    connect(session)
    with pytest.raises(ControlUnreadable, match="no answer within 5 s"):
        await session.control.read("status", {}, 5)
    assert backend.sent[-1].method == "notifications/cancelled"


async def test_an_agent_sees_no_control_plane_in_results_lists_and_resources():
    lake = Lake()
    session, backend = fake_session(lake.answers())
    attachment, transport = connect(session, AgentAttachment)
    step(attachment)
    assert control_of(transport.sent[-1][0]) is None
    assert lake.reads == [], "the wish is struck out before it reaches the backend"
    assert member(backend.sent[-1].params, "_meta", META_KEY) is None

    attachment.receive(messages.request(2, "resources/list", {}))
    listed = msgspec.json.decode(transport.sent[-1][0].members["result"])
    assert listed == {"resources": [{"uri": "file:///map"}], "_meta": {"x": 2}}


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("resources/read", {"uri": "control://reward"}),
        ("resources/read", {"uri": " CONTROL://reward"}),
        ("resources/subscribe", {"uri": "control://status"}),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": "control://{part}"}}),
    ],
)
async def test_an_agent_is_told_that_there_is_no_such_resource(method, params):
    session, backend = fake_session(Lake().answers())
    attachment, transport = connect(session, AgentAttachment)
    sent = len(backend.sent)
    attachment.receive(messages.request(5, method, params))
    message, about = transport.sent[-1]
    assert (messages.error_code(message), about) == (-32002, 5)
    assert len(backend.sent) == sent


async def test_an_escaped_uri_is_the_same_uri():
    session, _ = fake_session(Lake().answers())
    attachment, transport = connect(session, AgentAttachment)
    attachment.receive(
        messages.decode(
            b'{"jsonrpc":"2.0","id":5,"method":"resources/read","params":{"uri":"control:\\/\\/rew\\u0061rd"}}'
        )
    )
    assert messages.error_code(transport.sent[-1][0]) == -32002


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","id":5,"method":"resources/read","method":"x","params":{}}',
        b'{"jsonrpc":"2.0","id":5,"method":"resources/read","params":{"uri":"control://reward","uri":"a://b"}}',
        b'{"jsonrpc":"2.0","id":5,"method":"x","params":{"_meta":{"muxsim/control":true},"_meta":{}}}',
        b'{"jsonrpc":"2.0","id":5,"method":"x","params":{"_meta":{"muxsim/control":true,"muxsim/control":false}}}',
    ],
)
async def test_an_agent_cannot_hide_a_wish_behind_a_name_given_twice(line):
    """Some backends would heed the first of the two."""
    session, backend = fake_session(Lake().answers())
    attachment, _ = connect(session, AgentAttachment)
    attachment.receive(messages.decode(line))
    sent = backend.sent[-1].encode()
    assert b"control" not in sent
    assert b"resources/read" not in sent or b"a://b" in sent


async def test_an_agent_is_not_notified_of_control_plane_resources():
    session, _ = fake_session(Lake().answers())
    _, transport = connect(session, AgentAttachment)
    for uri in ("control://status", "file:///map"):
        session.seam.from_backend(messages.notification("notifications/resources/updated", {"uri": uri}))
    assert [msgspec.json.decode(member(message.params, "uri")) for message, _ in transport.sent[1:]] == ["file:///map"]
