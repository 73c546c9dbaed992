"""What a call has earned: the environment's own word for it, once, or null with the reason."""

from __future__ import annotations

import math
from itertools import count

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from muxsim.session.agent_view import AgentAttachment
from muxsim.session.control.control import META_KEY
from muxsim.session.control.ledger import Ledger, Unknown
from muxsim.spec import Limits
from session.fake_backend import fake_session
from session.test_control import STEP_PARTS, Lake, connect, control_of, step
from session.test_session import Client, life
from transports import messages
from transports.messages import member


class Game(Lake):
    """A lake whose calls earn what they say, and that answers them when the test tells it to."""

    def __init__(self):
        super().__init__()
        self.session = None
        self.under_way = []
        self.started = []
        self.holds = True
        self.slow = set()

    def call(self, request):
        self.under_way.append(request)
        self.started.append(msgspec.json.decode(member(request.params, "name")))
        if not self.holds:
            self.finish()

    def read(self, request):
        uri = msgspec.json.decode(member(request.params, "uri"))
        return None if uri in self.slow else super().read(request)

    def finish(self, at=0, *, failed=False):
        """The call that has been under way for longest has made its step."""
        request = self.under_way.pop(at)
        reward = member(request.params, "arguments", "reward")
        self.move(0.0 if reward is None else msgspec.json.decode(reward))
        self.session.seam.from_backend(messages.result(request.id, {"content": [], "isError": failed}))

    def move(self, reward):
        self.step += 1
        self.last = reward
        self.total += reward


def play(game, **spec):
    session, backend = fake_session(game.answers(), **spec)
    game.session = session
    return session, backend


def alone(*, lacking=frozenset(), **spec):
    """A game, its session, its one client, and what that is sent."""
    game = Game()
    game.lacking = lacking
    session, _ = play(game, **spec)
    return game, session, *connect(session)


def call(attachment, id, reward, *, asks=True):
    meta = {"_meta": {META_KEY: True}} if asks else {}
    params = {"name": str(id), "arguments": {"reward": reward}, **meta}
    attachment.receive(messages.request(id, "tools/call", params))


def answer_to(transport, id):
    [message] = [message for message, about in transport.sent if about == id and message.is_answer]
    return message


def reward_of(transport, id):
    return control_of(answer_to(transport, id))["reward"]


# ---- one after the other


async def test_scored_calls_of_a_session_are_made_one_after_the_other_whoever_sends_them():
    game = Game()
    session, _ = play(game)
    clients = [connect(session) for _ in range(3)]
    for id, (attachment, _) in enumerate(clients, 1):
        call(attachment, id, 10.0 * id)
    for id in (1, 2, 3):
        assert game.started == [str(number) for number in range(1, id + 1)], "in the order in which they were asked for"
        game.finish()
    assert [reward_of(transport, id) for id, (_, transport) in enumerate(clients, 1)] == [10.0, 20.0, 30.0]


async def test_two_calls_of_one_client_at_once_have_each_its_own_reward():
    game, _session, attachment, transport = alone()
    call(attachment, 1, 10.0)
    call(attachment, 2, 1.0)
    game.finish()
    game.finish()
    assert [reward_of(transport, 1), reward_of(transport, 2)] == [10.0, 1.0]


async def test_calls_that_nobody_scores_run_side_by_side():
    game, _session, attachment, _transport = alone()
    for id in (1, 2, 3):
        call(attachment, id, 1.0, asks=False)
    assert game.started == ["1", "2", "3"]
    for at in (2, 1, 0):
        game.finish(at)
    assert game.reads == []


async def test_a_scored_call_waits_for_those_before_it_and_is_not_credited_with_what_they_have_earned():
    game = Game()
    session, _ = play(game)
    (trainer, seen), (agent, _) = connect(session), connect(session, AgentAttachment)
    call(trainer, 1, 1.0)
    game.finish()
    call(agent, 1, 100.0)
    call(trainer, 2, 2.0)
    call(agent, 2, 1000.0)
    assert game.started == ["1", "1"]
    game.finish()
    assert game.started == ["1", "1", "2"]
    game.finish()
    game.finish()
    call(trainer, 3, 4.0)
    game.finish()
    assert [reward_of(seen, id) for id in (1, 2, 3)] == [1.0, 2.0, 4.0]


async def test_what_was_earned_before_cannot_be_read_so_the_reward_is_null_with_its_problem():
    game, _session, attachment, transport = alone()
    call(attachment, 1, 1.0)
    game.finish()
    call(attachment, 2, 1.0, asks=False)
    game.finish()
    game.broken = {"control://status"}
    call(attachment, 3, 1.0)
    game.broken = set()
    game.finish()
    control = control_of(answer_to(transport, 3))
    assert control["reward"] is None
    assert "before this one" in control["problem"]
    call(attachment, 4, 8.0)
    game.finish()
    assert reward_of(transport, 4) == 8.0


@pytest.mark.parametrize("how", ["cancelled", "detached", "cancelled by its program"])
async def test_a_call_that_is_given_up_lets_those_behind_it_go_on(how):
    game = Game()
    session, _backend = play(game)
    (first, _), (second, transport) = connect(session), connect(session)
    call(first, 1, 1.0)
    call(second, 1, 2.0)
    call(first, 2, 4.0)
    call(second, 2, 8.0)
    for id in (2, 1):  # the one that waits, then the one that runs
        if how == "cancelled":
            first.receive(messages.notification("notifications/cancelled", {"requestId": id}))
        elif how == "cancelled by its program":
            session.conversation.cancel(first, id)
    if how == "detached":
        session.detach(first)
    assert game.started == ["1", "1"], "the call that waited is never made"
    game.under_way.pop(0)  # it is not answered, and has made no step
    game.finish()
    game.finish()
    assert [reward_of(transport, 1), reward_of(transport, 2)] == [2.0, 8.0]


async def test_a_call_that_waits_can_be_taken_back_and_its_id_used_again():
    game = Game()
    session, backend = play(game)
    attachment, transport = connect(session)
    call(attachment, 1, 1.0)
    call(attachment, 2, 2.0)
    attachment.receive(messages.notification("notifications/cancelled", {"requestId": 2}))
    assert transport.withdrawn == [2]
    assert [message.method for message in backend.sent].count("notifications/cancelled") == 0
    call(attachment, 2, 4.0)
    game.finish()
    game.finish()
    assert reward_of(transport, 2) == 4.0


async def test_an_id_is_in_flight_from_its_call_to_the_answer_with_its_score():
    game, _session, attachment, transport = alone()
    call(attachment, 1, 1.0)
    call(attachment, 2, 2.0)
    for id in (1, 2):
        attachment.receive(messages.request(id, "ping"))
        refusal, about = transport.sent[-1]
        assert (messages.error_code(refusal), about) == (-32600, None)
    game.slow = {"control://info"}
    game.finish()
    attachment.receive(messages.request(1, "ping"))
    assert (messages.error_code(transport.sent[-1][0]), transport.sent[-1][1]) == (-32600, None)


async def test_a_call_out_of_time_lets_the_next_one_go_on_and_what_it_has_earned_is_not_the_next_ones(autojump_clock):
    async with life(Limits(call_timeout=10, idle_timeout=None)) as one:
        game = Game()
        game.session = one.session
        one.backend._answers |= game.answers()
        client = Client(one.session)
        call(client, 91, 64.0)
        await trio.sleep(9)
        call(client, 92, 2.0)
        await trio.sleep(2)
        assert game.started == ["91", "92"]
        assert messages.error_code(client.answers(91)[0]) == -32001
        late, request = game.under_way.pop(0), game.under_way[0]
        assert late is not request
        game.finish()
        assert control_of(client.answers(92)[0])["reward"] == 2.0


async def test_no_more_calls_wait_than_may_be_in_flight():
    game, _session, attachment, transport = alone(limits=Limits(max_in_flight=3))
    for id in range(1, 6):
        call(attachment, id, 1.0)
    assert [messages.error_code(answer_to(transport, id)) for id in (4, 5)] == [-32003, -32003]
    for _ in range(3):
        game.finish()
    assert [reward_of(transport, id) for id in (1, 2, 3)] == [1.0, 1.0, 1.0], (
        "those that wait keep no score from being read"
    )


async def test_the_end_of_a_session_answers_calls_that_wait_as_those_that_run():
    game, session, attachment, transport = alone()
    for id in (1, 2, 3):
        call(attachment, id, 1.0)
    session.end("deleted", "the session was deleted")
    for id in (1, 2, 3):
        assert "was deleted" in answer_to(transport, id).encode().decode()
    assert game.started == ["1"]


async def test_calls_of_a_server_without_a_control_plane_wait_for_nobody():
    game, _session, attachment, _transport = alone(lacking=STEP_PARTS)
    call(attachment, 1, 1.0)
    game.finish()
    for id in (2, 3):
        call(attachment, id, 1.0)
    assert game.started == ["1", "2", "3"]


async def test_calls_that_waited_before_it_was_known_that_there_is_no_control_plane_wait_for_nobody_then():
    game, session, attachment, transport = alone(lacking=STEP_PARTS)
    for id in (1, 2, 3):
        call(attachment, id, 1.0)
    assert game.started == ["1"]
    game.finish()
    assert game.started == ["1", "2", "3"]
    game.finish(1)
    assert control_of(answer_to(transport, 3)) is None
    game.finish()
    assert not session.busy


@pytest.mark.parametrize("always", [False, True])
async def test_a_call_that_answers_what_a_scored_one_asks_does_not_wait_for_it_and_is_a_part_of_it(always):
    game = Game()
    session, _ = play(game, control=always)
    (attachment, transport), (other, _) = connect(session), connect(session)
    call(attachment, 1, 1.0)
    session.seam.from_backend(messages.request("q", "sampling/createMessage", {}))
    [asked_of] = [one for one in (attachment, other) if session.conversation.router.asks(one)]
    assert asked_of is attachment
    call(other, 2, 64.0, asks=False)
    call(attachment, 2, 2.0, asks=False)
    assert game.started == ["1", "2"], "nobody else's call is a part of it"
    game.finish(1)
    assert len(answers(transport, 2)) == 1
    attachment.receive(messages.result("q", {}))
    call(attachment, 3, 32.0, asks=False)
    assert game.started == ["1", "2"]
    game.finish()
    assert reward_of(transport, 1) == 3.0
    while game.under_way:
        game.finish()
    assert not session.busy


async def test_calls_of_a_server_that_fills_the_meta_itself_are_made_one_after_the_other_too():
    class Filling(Game):
        def finish(self, at=0, *, failed=False):
            request = self.under_way.pop(at)
            own = {"reward": msgspec.json.decode(member(request.params, "arguments", "reward"))}
            self.session.seam.from_backend(messages.result(request.id, {"content": [], "_meta": {META_KEY: own}}))

    game = Filling()
    session, _ = play(game)
    attachment, transport = connect(session)
    for id in (1, 2):
        call(attachment, id, 10.0 * id)
    assert game.started == ["1"]
    game.finish()
    game.finish()
    assert [reward_of(transport, id) for id in (1, 2)] == [10.0, 20.0]
    assert game.reads == []


async def test_many_calls_that_are_answered_at_once_are_no_deeper_than_one():
    game, _session, attachment, transport = alone(limits=Limits(max_in_flight=5000))
    for id in range(1, 3000):
        call(attachment, id, 1.0)
    game.holds = False
    game.finish()
    assert reward_of(transport, 2999) == 1.0


# ---- absent, or a problem of one call

NOT_THERE = [
    (-32002, "Resource not found"),
    (-32602, "Resource control://reward not found"),
    (-32601, "Method not found"),
    (0, "Unknown resource: control://reward"),
    (-32603, "No such resource"),
]


@pytest.mark.parametrize(("code", "text"), NOT_THERE)
async def test_only_the_servers_own_no_such_resource_means_that_there_is_no_control_plane(code, text):
    lake = Lake()
    lake.lacking = STEP_PARTS
    lake.lists_control = False
    lake.not_there = lambda request, uri: messages.error(request.id, code, text)
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    for id in (1, 2):
        step(attachment, id)
        assert control_of(transport.sent[-1][0]) is None
    assert len(lake.reads) == 3


@pytest.mark.parametrize(
    ("code", "text"), [(-32603, "the disk is on fire"), (-32003, "busy"), (-32001, "no answer"), (-32000, "gone")]
)
async def test_any_other_error_of_the_server_is_a_problem_of_that_call(code, text):
    lake = Lake()
    lake.lacking = STEP_PARTS
    lake.not_there = lambda request, uri: messages.error(request.id, code, text)
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    step(attachment, 1)
    control = control_of(transport.sent[-1][0])
    assert control["reward"] is None
    assert text in control["problem"]
    lake.lacking = set()
    step(attachment, 2)
    assert control_of(transport.sent[-1][0])["reward"] is not None


async def test_a_control_plane_that_was_there_once_is_never_absent():
    lake = Lake()
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    step(attachment, 1)
    lake.lacking = STEP_PARTS
    step(attachment, 2)
    control = control_of(transport.sent[-1][0])
    assert control["reward"] is None
    assert "not found" in control["problem"]


async def test_a_read_that_is_slow_once_is_a_problem_of_that_call_and_later_ones_carry_control(autojump_clock):
    async with life(Limits(idle_timeout=None)) as one:
        game = Game()
        game.session = one.session
        game.holds = False
        one.backend._answers |= game.answers()
        game.slow = STEP_PARTS
        client = Client(one.session)
        call(client, 91, 1.0)
        assert client.answers(91) == []
        await trio.sleep(11)
        control = control_of(client.answers(91)[0])
        assert control["reward"] is None
        assert "call_timeout" in control["problem"]
        game.slow = set()
        call(client, 92, 2.0)
        assert control_of(client.answers(92)[0])["reward"] == 3.0, (
            "what both have earned, since the last time it was known"
        )
        call(client, 93, 4.0)
        assert control_of(client.answers(93)[0])["reward"] == 4.0


async def test_a_read_that_muxsim_refuses_for_max_in_flight_goes_again_alone():
    game = Game()
    session, backend = play(game, limits=Limits(max_in_flight=3))
    attachment, transport = connect(session)
    for id in (71, 72):
        attachment.receive(messages.request(id, "prompts/list"))
    call(attachment, 1, 1.0)
    game.slow = {"control://reward"}  # it takes the last place
    game.finish()
    [reading] = [message for message in backend.sent if b"control://reward" in message.encode()]
    session.seam.from_backend(messages.result(reading.id, {"contents": [{"text": '{"reward": 1.0, "step": 1}'}]}))
    control = control_of(answer_to(transport, 1))
    assert (control["reward"], "problem" in control) == (1.0, False)
    game.slow = set()
    for listing in [message for message in backend.sent if message.method == "prompts/list"]:
        session.seam.from_backend(messages.result(listing.id, {"prompts": []}))
    call(attachment, 2, 2.0)
    game.finish()
    assert reward_of(transport, 2) == 2.0


@pytest.mark.parametrize("part", ["control://status", "control://reward"])
async def test_no_reward_is_credited_twice_when_a_part_cannot_be_read(part):
    lake = Lake()
    session, _ = fake_session(lake.answers())
    attachment, transport = connect(session)
    rewards = []
    for id, broken in enumerate([set(), {part}, set(), set()], 1):
        lake.broken = broken
        step(attachment, id)
        rewards.append(control_of(transport.sent[-1][0])["reward"])
    assert sum(reward for reward in rewards if reward is not None) <= lake.total
    assert rewards == [0.5, *([None, 1.0] if part == "control://status" else [0.5, 0.5]), 0.5]


async def test_an_end_that_is_no_truth_value_is_a_problem_and_not_known():
    lake = Lake()
    read = lake.read

    def odd(request):
        if b"status" in bytes(request.params):
            text = '{"terminated": "false", "step": 1, "total_reward": 0.5}'
            return messages.result(request.id, {"contents": [{"text": text}]})
        return read(request)

    session, _ = fake_session({**lake.answers(), "resources/read": odd})
    attachment, transport = connect(session)
    step(attachment)
    control = control_of(transport.sent[-1][0])
    assert control["terminated"] is None
    assert "terminated" in control["problem"]


@pytest.mark.parametrize(
    "text", ["[" * 5000, '{"reward": 1e999}', '{"reward": NaN}', "", '"x"', "{}", '{"reward": "1"}']
)
async def test_whatever_stands_in_a_resource_the_result_comes(text):
    lake = Lake()
    contents = messages.result(0, {"contents": [{"text": text}]}).members["result"]
    session, _ = fake_session({**lake.answers(), "resources/read": lambda r: messages.result(r.id, contents)})
    attachment, transport = connect(session)
    step(attachment)
    control = control_of(transport.sent[-1][0])
    assert control["reward"] is None
    assert control["problem"]


async def test_what_muxsim_reads_for_itself_takes_no_request_of_the_servers():
    game = Game()
    session, _ = play(game)
    (player, heard), _ = connect(session), connect(session)
    player.receive(messages.request(50, "prompts/list"))
    call(player, 1, 1.0)
    game.slow = STEP_PARTS
    game.finish()
    session.seam.from_backend(messages.request("s", "sampling/createMessage", {}))
    message, about = heard.sent[-1]
    assert (message.method, about) == ("sampling/createMessage", 50)


# ---- the counts alone


class Episode:
    """The truth: what each call has earned, and the counts as a server publishes them."""

    def __init__(self):
        self.step, self.total, self.last = 0, 0.0, 0.0

    def play(self, rewards):
        for reward in rewards:
            self.step, self.total, self.last = self.step + 1, self.total + reward, reward
        return sum(rewards)

    @property
    def status(self):
        return {"step": self.step, "total_reward": self.total}


REWARDS = st.lists(st.integers(-8, 8).map(float), max_size=3)


@given(st.lists(st.tuples(REWARDS, st.sampled_from(["scored", "unread", "passed over"]), st.booleans())))
def test_what_is_credited_is_what_was_earned_and_never_more(calls):
    """Calls that could not be read are in the next one's difference; those that nobody scores are in nobody's."""
    episode, ledger, unread = Episode(), Ledger(), 0.0
    for rewards, kind, failed in calls:
        if kind == "passed over":
            episode.play(rewards)
            ledger.age()
            continue
        if ledger.stale:
            ledger.begin(episode.status)
            unread = 0.0
        truth = episode.play(rewards)
        if kind == "unread":
            unread += truth
            continue
        earned = ledger.earned(episode.status, episode.last, failed=failed, crowded=False)
        if earned is None:
            assert failed
            assert truth + unread == 0.0
        else:
            assert earned == truth + unread
        unread = 0.0


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"step": 3}, "total_reward"),
        ({"step": -1, "total_reward": 1.0}, "went back"),
        ({"step": 4, "total_reward": math.nextafter(math.inf, 0)}, "out of range"),
    ],
)
def test_what_the_counts_do_not_tell_is_not_made_up(status, why):
    ledger = Ledger()
    ledger.begin({"step": 1, "total_reward": -math.nextafter(math.inf, 0)})
    with pytest.raises(Unknown, match=why):
        ledger.earned(status, 1.0, failed=False, crowded=False)


def test_steps_of_a_call_that_was_given_up_are_not_the_next_ones():
    ledger, steps = Ledger(), count(1)
    ledger.begin({"step": 0, "total_reward": 0.0})
    assert ledger.earned({"step": next(steps), "total_reward": 1.0}, 1.0, failed=False, crowded=True) == 1.0
    with pytest.raises(Unknown, match="given up"):
        ledger.earned({"step": 3, "total_reward": 9.0}, 1.0, failed=False, crowded=True)


def test_a_server_that_counts_nothing_has_its_last_reward_taken_unless_the_call_failed():
    ledger = Ledger()
    assert ledger.earned({}, 2.0, failed=False, crowded=False) == 2.0
    assert ledger.earned({}, 2.0, failed=True, crowded=False) is None


async def test_steps_that_a_call_makes_after_it_was_given_up_are_not_those_of_the_call_after_the_next():
    game = Game()
    session, _ = play(game)
    (leaving, _), (staying, seen) = connect(session), connect(session)
    call(leaving, 1, 2.0, asks=False)
    session.detach(leaving)
    call(staying, 2, 16.0)
    game.finish(1)
    game.finish()
    call(staying, 3, 64.0)
    game.finish()
    assert [reward_of(seen, id) for id in (2, 3)] == [16.0, 64.0]


# ---- turns, whatever happens to whom

HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.booleans()),
        st.tuples(st.just("finish"), st.integers(0, 5)),
        st.tuples(st.just("cancel"), st.integers(0, 5)),
        st.tuples(st.just("leave"), st.integers(0, 1)),
    ),
    max_size=30,
)


@given(HAPPENINGS)
def test_whatever_happens_each_call_is_answered_or_given_up_and_no_reward_is_anothers(happenings):
    trio.run(_whatever, happenings)


async def _whatever(happenings):
    await trio.lowlevel.checkpoint()
    game, ids = Game(), count(1)
    session, _ = play(game, limits=Limits(max_in_flight=1000))
    clients = [connect(session) for _ in range(2)]
    asked, cancelled, gone = {}, set(), set()
    for what, which in happenings:
        if what == "ask":
            id = next(ids)
            if id % 2 in gone:
                continue
            asked[id] = which
            call(clients[id % 2][0], id, float(2**id), asks=which)
        elif what == "finish" and game.under_way:
            game.finish(which % len(game.under_way))
        elif what == "cancel" and asked:
            id = list(asked)[which % len(asked)]
            if not answers(clients[id % 2][1], id):
                cancelled.add(id)
            clients[id % 2][0].receive(messages.notification("notifications/cancelled", {"requestId": id}))
        elif what == "leave" and which not in gone:
            gone.add(which)
            session.detach(clients[which][0])
    while game.under_way:
        game.finish()
    for id, scored in asked.items():
        given = answers(clients[id % 2][1], id)
        if id in cancelled or id % 2 in gone:
            assert len(given) <= 1
        else:
            assert len(given) == 1
        if scored and given:
            control = control_of(given[0])
            assert control["reward"] in (None, float(2**id))
            assert control["reward"] is not None or cancelled or gone, "only what was given up makes it doubtful"
    assert not session.busy


def answers(transport, id):
    return [message for message, about in transport.sent if about == id and message.is_answer]
