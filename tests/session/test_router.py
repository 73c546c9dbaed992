import json
import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Raw

from muxsim.session.exchange import NOTHING
from muxsim.session.questions import NO_RECEIVER
from muxsim.session.router import Router
from transports import messages
from transports.errors import INVALID_REQUEST
from transports.messages import decode

PREFIX = "io.modelcontextprotocol/"
SUBSCRIPTION = f"{PREFIX}subscriptionId"
ENVELOPE = {f"{PREFIX}protocolVersion": "2026-07-28", f"{PREFIX}clientCapabilities": {}}
# JSON that is no request id, some of it no number in Python either.
NO_IDS = [Raw(b"1e400"), Raw(b"1" * 5000), Raw(b"-0.5"), True, None, [1], {"id": 1}]


def wire(message):
    """A message as it comes from outside: decoded from its bytes."""
    return decode(message.encode())


def request(id=1, method="tools/call", params=None):
    return wire(messages.request(id, method, params))


def notification(method, params=None):
    return wire(messages.notification(method, params))


def result(id, value=None):
    return wire(messages.result(id, {} if value is None else value))


def body(message):
    return json.loads(message.encode())


def router_of(*attachments):
    router = Router()
    for attachment in attachments:
        router.attach(attachment)
    return router


def ask(router, attachment, message):
    """Send a request and return what it is at the backend."""
    routed = router.from_client(attachment, message)
    assert not routed.to_clients
    [sent] = routed.to_backend
    return sent


def only(routed):
    """The one delivery there is, and nothing else."""
    assert not routed.to_backend
    assert not routed.withdrawn
    [delivery] = routed.to_clients
    return delivery


def to_backend(routed):
    """The one message for the backend, and nothing else."""
    assert not routed.to_clients
    [message] = routed.to_backend
    return message


# requests and their answers


def test_an_answer_goes_to_who_asked_under_their_own_id():
    router = router_of("a")
    sent = ask(router, "a", request(7))
    delivery = only(router.from_backend(result(sent.id, {"x": 1})))
    assert (delivery.attachment, delivery.about) == ("a", 7)
    assert delivery.message.encode() == b'{"jsonrpc":"2.0","id":7,"result":{"x":1}}'
    assert router.in_flight == 0


@pytest.mark.parametrize("code", [-32601, -32000, 1, -12345])
def test_an_error_is_an_answer_with_its_code_and_data_as_they_are(code):
    router = router_of("a")
    sent = ask(router, "a", request("x"))
    error = messages.error(sent.id, code, "no", {"why": Raw(b"1.0")})
    assert only(router.from_backend(wire(error))).message.encode() == (
        b'{"jsonrpc":"2.0","id":"x","error":{"code":%d,"message":"no","data":{"why":1.0}}}' % code
    )


def test_attachments_that_use_the_same_ids_each_get_their_own_answers():
    router = router_of("a", "b", "c")
    sent = {attachment: ask(router, attachment, request(1)) for attachment in "abc"}
    assert len({message.id for message in sent.values()}) == 3
    for attachment in "bca":
        delivery = only(router.from_backend(result(sent[attachment].id, {"for": attachment})))
        assert (delivery.attachment, delivery.about) == (attachment, 1)
        assert body(delivery.message)["result"] == {"for": attachment}


def test_a_number_and_its_text_are_two_ids():
    router = router_of("a")
    number, text = ask(router, "a", request(1)), ask(router, "a", request("1"))
    assert only(router.from_backend(result(text.id))).about == "1"
    delivery = only(router.from_backend(result(number.id)))
    assert delivery.about == 1
    assert type(delivery.about) is int


@pytest.mark.parametrize("spelling", ["0", "-0", "12345678901234567890", '"\\u0061"', '"a\\/b"', '""'])
def test_an_id_comes_back_as_it_was_spelled(spelling):
    router = router_of("a")
    sent = ask(router, "a", decode(f'{{"jsonrpc":"2.0","id":{spelling},"method":"m"}}'.encode()))
    answer = only(router.from_backend(result(sent.id))).message
    assert answer.encode() == f'{{"jsonrpc":"2.0","id":{spelling},"result":{{}}}}'.encode()
    sent = ask(router, "a", decode(f'{{"jsonrpc":"2.0","id":{spelling},"method":"m"}}'.encode()))
    [failed] = router.fail_all(-1, "gone").to_clients
    assert bytes(failed.message.members["id"]) == spelling.encode()


def test_a_request_reaches_the_backend_with_nothing_changed_but_its_id_C30():
    router = router_of("a")
    data = (
        b'{"method":"x/unknown", "extra" : [1.0], "id":"a","params":{"n":12345678901234567890,"_meta":{"k":1E2}},'
        b'"jsonrpc":"2.0"}'
    )
    sent = ask(router, "a", decode(data))
    before, after = messages.members_of(Raw(data)), messages.members_of(Raw(sent.encode()))
    assert list(before) == list(after)
    assert {**before, "id": None} == {**after, "id": None}


def test_requests_of_the_backend_start_at_an_id_that_is_no_falsehood():
    # A listen stream is named by its request's id, and clients test whether there is one.
    assert ask(router_of("a"), "a", request(0, "subscriptions/listen")).id


def test_an_id_that_is_in_flight_is_refused_and_the_first_request_lives_L25():
    router = router_of("a")
    sent = ask(router, "a", request(1))
    refused = only(router.from_client("a", request(1)))
    assert (refused.attachment, refused.about) == ("a", None)
    assert body(refused.message)["error"]["code"] == INVALID_REQUEST
    assert body(refused.message)["id"] == 1
    assert only(router.from_backend(result(sent.id))).about == 1


def test_an_id_may_be_used_again_once_it_is_answered():
    router = router_of("a")
    for _ in range(3):
        assert only(router.from_backend(result(ask(router, "a", request(1)).id))).about == 1


def test_an_answer_nobody_waits_for_is_dropped_C23_C24():
    router = router_of("a")
    sent = ask(router, "a", request(1))
    only(router.from_backend(result(sent.id)))
    for stray in (
        result(sent.id),
        result(str(sent.id)),
        result(999),
        result("x"),
        wire(messages.error(None, -32700, "what?")),
    ):
        assert router.from_backend(stray) == NOTHING
    assert router.answered == 1


@pytest.mark.parametrize("spelled", [str, float, lambda id: f"{id}.0", lambda id: f" {id} "])
def test_an_answer_to_the_number_of_a_request_is_its_answer_however_it_is_written(spelled):
    router = router_of("a")
    sent, other = ask(router, "a", request("x")), ask(router, "a", request(1))
    for stray in (result("x"), result("999"), result("")):
        assert router.from_backend(stray) == NOTHING
    answer = decode(json.dumps({"jsonrpc": "2.0", "id": spelled(sent.id), "result": {}}).encode())
    delivery = only(router.from_backend(answer))
    assert (delivery.about, delivery.message.id) == ("x", "x")
    assert router.from_backend(answer) == NOTHING
    assert only(router.from_backend(result(other.id))).about == 1


def test_a_call_in_flight_does_not_keep_a_large_payload():
    router = router_of("a")
    data = b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"progressToken":1},"filler":"%b"}}' % (b"x" * 5000)
    modern = b'{"jsonrpc":"2.0","id":2,"method":"m","params":{"_meta":%b,"filler":"%b"}}' % (
        json.dumps(ENVELOPE).encode(),
        b"x" * 5000,
    )
    for line in (data, modern):
        references = sys.getrefcount(line)
        ask(router, "a", decode(line))
        assert sys.getrefcount(line) == references
    assert router.in_flight == 2


BIG = b'"arguments":{"text":"' + b"x" * 5000 + b'"}'
HIDDEN = rb'"arguments":{"text":"%b\",\"name\":\"other\"}","name":"other"}' % (b"x" * 5000)


@pytest.mark.parametrize(
    ("params", "target"),
    [
        (b'{"name":"look",%b}' % BIG, "look"),
        (b'{ "name" : "look" , %b}' % BIG, "look"),
        (b'{%b,"name":"look"}' % BIG, "look"),
        (b'{%b , "name" : "look" }' % BIG, "look"),
        (b'{"_meta":{},"name":"look",%b}' % BIG, "look"),
        (b'{"_meta":{},%b,"name":"look","task":{}}' % BIG, "look"),
        (rb'{"_meta":{},"name":"l\u00f6ok",%b}' % BIG, "l\u00f6ok"),
        (b'{"name":"look",%b}' % HIDDEN, "look"),
        (b'{%b,"name":"look"}' % HIDDEN, "look"),
        (b"{%b}" % HIDDEN, ""),
        (b'{"uri":"file:///a",%b}' % BIG, ""),
        (b'{%b,"name":7}' % BIG, ""),
        (b'{%b,"name":"%b"}' % (BIG, b"n" * 5000), "n" * 1024),
    ],
)
def test_what_a_large_call_is_about_is_its_own_tool_wherever_that_stands(params, target):
    router = router_of("a")
    ask(router, "a", decode(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}' % params))
    (exchange,) = router.exchanges()
    assert exchange.left_out > 5000
    assert body(exchange.asked).get("params", {"name": ""})["name"] == target


# progress


def progress(token, **more):
    return notification("notifications/progress", {"progressToken": token, "progress": 1.0, **more})


@pytest.mark.parametrize("token", [1, 0, "1", "progress-test-1", ""])
def test_progress_comes_back_under_the_clients_own_token(token):
    router = router_of("a", "b")
    params = {"name": "t", "_meta": {"progressToken": token, "other": Raw(b"1.0")}}
    sent = {attachment: ask(router, attachment, request(5, params=params)) for attachment in "ab"}
    tokens = {attachment: body(message)["params"]["_meta"]["progressToken"] for attachment, message in sent.items()}
    assert len(set(tokens.values())) == 2
    assert b'"other":1.0' in sent["a"].encode()
    for attachment in "ba":
        delivery = only(router.from_backend(progress(tokens[attachment], message="x")))
        assert (delivery.attachment, delivery.about) == (attachment, 5)
        assert body(delivery.message)["params"] == {"progressToken": token, "progress": 1.0, "message": "x"}
        assert b'"progress":1.0' in delivery.message.encode()


def test_progress_that_nobody_asked_for_is_dropped():
    router = router_of("a")
    silent = ask(router, "a", request(1))
    asked = ask(router, "a", request(2, params={"_meta": {"progressToken": "t"}}))
    token = body(asked)["params"]["_meta"]["progressToken"]
    for stray in [progress(silent.id), progress(999), progress("t"), progress(""), *map(progress, NO_IDS)]:
        assert router.from_backend(stray) == NOTHING
    assert body(only(router.from_backend(progress(str(token)))).message)["params"]["progressToken"] == "t"
    assert router.from_backend(notification("notifications/progress")) == NOTHING
    only(router.from_backend(result(asked.id)))
    assert router.from_backend(progress(token)) == NOTHING


@pytest.mark.parametrize(
    "params",
    [
        {"arguments": {"_meta": {"progressToken": 1}, "progressToken": 2}},
        {"progressToken": 1},
        {"_meta": {"nested": {"progressToken": 1}}},
        {"_meta": ["progressToken"]},
        ["progressToken"],
        {"text": '"progressToken"'},
    ],
)
def test_what_only_looks_like_a_progress_token_is_left_alone(params):
    router = router_of("a")
    message = request(1, params=params)
    assert bytes(ask(router, "a", message).params) == bytes(message.params)


# cancellation by the client


def cancelled(id, **more):
    return notification("notifications/cancelled", {"requestId": id, **more})


def test_a_cancellation_reaches_the_backend_with_the_backends_id_L3():
    router = router_of("a", "b")
    mine, other = ask(router, "a", request("x")), ask(router, "b", request("x"))
    routed = router.from_client("a", cancelled("x", reason="bored", extra=Raw(b"1.0")))
    assert routed.withdrawn == (("a", "x"),)
    assert not routed.to_clients
    [sent] = routed.to_backend
    assert body(sent)["params"] == {"requestId": mine.id, "reason": "bored", "extra": 1.0}
    assert b'"extra":1.0' in sent.encode()
    assert router.in_flight == 1
    assert only(router.from_backend(result(other.id))).attachment == "b"


def test_no_answer_comes_to_a_cancelled_request_even_if_the_backend_sends_one_L3():
    router = router_of("a")
    sent = ask(router, "a", request(1))
    router.from_client("a", cancelled(1))
    assert router.from_backend(result(sent.id)) == NOTHING
    assert router.answered == 1


def test_a_cancelled_id_may_be_used_again_at_once():
    router = router_of("a")
    first = ask(router, "a", request(1))
    router.from_client("a", cancelled(1))
    second = ask(router, "a", request(1))
    assert router.from_backend(result(first.id)) == NOTHING
    assert only(router.from_backend(result(second.id))).about == 1


def test_nobody_cancels_what_is_not_theirs_or_not_there():
    router = router_of("a", "b")
    sent = ask(router, "a", request(1))
    assert router.from_client("b", cancelled(1)) == NOTHING
    for stray in [cancelled("x"), cancelled(2), cancelled(sent.id + 1), notification("notifications/cancelled")]:
        assert router.from_client("a", stray) == NOTHING
    for no_id in NO_IDS:
        assert router.from_client("a", cancelled(no_id)) == NOTHING
    assert only(router.from_backend(result(sent.id))).about == 1


def test_progress_of_a_cancelled_request_is_dropped():
    router = router_of("a")
    sent = ask(router, "a", request(1, params={"_meta": {"progressToken": 1}}))
    router.from_client("a", cancelled(1))
    assert router.from_backend(progress(body(sent)["params"]["_meta"]["progressToken"])) == NOTHING


def test_a_cancelled_handshake_is_still_answered():
    router = router_of("a")
    sent = ask(router, "a", initialize())
    assert body(to_backend(router.from_client("a", cancelled(0))))["params"]["requestId"] == sent.id
    assert only(router.from_backend(result(sent.id))).about == 0


def test_giving_up_a_request_tells_the_backend_and_drops_its_answer():
    router = router_of("a")
    sent = ask(router, "a", request(1))
    notice = to_backend(router.cancel("a", 1))
    assert notice.method == "notifications/cancelled"
    assert body(notice)["params"]["requestId"] == sent.id
    assert "_meta" not in body(notice)["params"]
    assert router.cancel("a", 1) == NOTHING
    assert router.in_flight == 0
    assert router.from_backend(result(sent.id)) == NOTHING


def test_a_cancellation_of_a_2026_request_carries_its_envelope():
    router = router_of()
    params = {"_meta": {**ENVELOPE, "progressToken": 1, "mine": 2}}
    sent = ask(router, "a", request(1, params=params))
    notice = to_backend(router.detach("a", cancel=True))
    assert body(notice)["params"]["requestId"] == sent.id
    assert body(notice)["params"]["_meta"] == ENVELOPE


def test_however_many_requests_are_cancelled_only_some_are_remembered():
    router = router_of("a")
    many = 2000
    ids = []
    for number in range(many):
        ids.append(ask(router, "a", request(number)).id)
        router.from_client("a", cancelled(number))
    assert router.in_flight == router.calls == 0
    assert len(router._exchanges) < many / 2
    for id in ids:
        assert router.from_backend(result(id)) == NOTHING
    assert len(router._exchanges) == 0
    assert 0 < router.answered < many


# requests of the backend


def sampling(id="s1"):
    return request(id, "sampling/createMessage", {"n": Raw(b"1.0")})


def test_a_request_of_the_backend_goes_to_the_newest_request_in_flight_as_it_is():
    router = router_of("a", "b", "c")
    ask(router, "a", request(1))
    ask(router, "b", request(2))
    delivery = only(router.from_backend(sampling()))
    assert (delivery.attachment, delivery.about) == ("b", 2)
    assert delivery.message.encode() == sampling().encode()


def test_with_nothing_in_flight_a_request_of_the_backend_goes_to_who_came_last():
    router = router_of("a", "b")
    only(router.from_backend(result(ask(router, "a", request(1)).id)))
    delivery = only(router.from_backend(sampling()))
    assert (delivery.attachment, delivery.about) == ("b", None)


def test_a_request_of_the_backend_does_not_go_to_a_listen_stream_or_a_cancelled_request():
    router = router_of("a", "b")
    ask(router, "a", request(1))
    ask(router, "b", request(2, "subscriptions/listen"))
    ask(router, "b", request(3))
    router.from_client("b", cancelled(3))
    assert only(router.from_backend(sampling())).attachment == "a"


def test_with_nobody_attached_the_backend_gets_an_error():
    router = router_of()
    error = to_backend(router.from_backend(sampling()))
    assert body(error)["id"] == "s1"
    assert body(error)["error"]["code"] == NO_RECEIVER


@pytest.mark.parametrize(("given", "used"), [(1, "1"), ("1", 1)])
def test_where_only_one_request_can_be_meant_a_number_and_its_text_are_one_id(given, used):
    router = router_of("a")
    ask(router, "a", request(given))
    [to_the_backend] = router.from_client("a", cancelled(used)).to_backend
    assert body(to_the_backend)["params"]["requestId"] == 1
    only(router.from_backend(sampling(given)))
    assert to_backend(router.from_client("a", result(used))).id == given
    only(router.from_backend(sampling(given)))
    told = only(router.from_backend(cancelled(used)))
    assert body(told.message)["params"]["requestId"] == given


def test_where_a_number_and_its_text_are_both_in_flight_each_is_itself():
    router = router_of("a")
    numbers = {id: ask(router, "a", request(id)).id for id in (1, "1")}
    for id in (1, "1"):
        [to_the_backend] = router.from_client("a", cancelled(id)).to_backend
        assert body(to_the_backend)["params"]["requestId"] == numbers[id]
    for id in (1, "1"):
        only(router.from_backend(sampling(id)))
    for id in ("1", 1):
        assert to_backend(router.from_client("a", result(id))).id == id


@pytest.mark.parametrize("id", [1, "1", 0, ""])
def test_only_who_was_asked_can_answer_the_backend_and_only_once(id):
    router = router_of("a", "b")
    ask(router, "a", request(1))
    assert only(router.from_backend(sampling(id))).attachment == "a"
    answer = result(id, {"n": Raw(b"1.0")})
    wrong_type = result("x" if isinstance(id, int) else 99)
    assert router.from_client("b", answer) == NOTHING
    assert router.from_client("a", wrong_type) == NOTHING
    assert to_backend(router.from_client("a", answer)).encode() == answer.encode()
    assert router.from_client("a", answer) == NOTHING
    assert router.from_client("a", wire(messages.error(None, -1, ""))) == NOTHING


def test_a_request_that_the_backend_cancels_is_cancelled_where_it_went():
    router = router_of("a", "b")
    ask(router, "a", request(1))
    router.from_backend(sampling("s1"))
    delivery = only(router.from_backend(cancelled("s1", reason="late")))
    assert delivery.attachment == "a"
    assert body(delivery.message)["params"] == {"requestId": "s1", "reason": "late"}
    assert router.from_client("a", result("s1")) == NOTHING
    for no_id in NO_IDS:
        assert router.from_backend(cancelled(no_id)) == NOTHING
    assert router.from_backend(cancelled("s1")) == NOTHING


# notifications of the backend

LIST_CHANGED = ["notifications/tools/list_changed", "notifications/prompts/list_changed"]
UPDATED = ["notifications/resources/list_changed", "notifications/resources/updated"]


@pytest.mark.parametrize("method", LIST_CHANGED + UPDATED)
def test_what_changed_is_told_to_everybody(method):
    router = router_of("a", "b")
    ask(router, "a", request(1))
    message = notification(method, {"uri": "x"})
    routed = router.from_backend(message)
    assert [(one.attachment, one.about) for one in routed.to_clients] == [("a", None), ("b", None)]
    assert {one.message.encode() for one in routed.to_clients} == {message.encode()}


def log(text="x"):
    return notification("notifications/message", {"level": "info", "data": text})


@pytest.mark.parametrize("message", [log(), notification("notifications/x/unknown", {"a": Raw(b"1.0")})])
def test_what_does_not_say_whose_it_is_belongs_to_the_newest_request(message):
    router = router_of("a", "b")
    ask(router, "b", request(1))
    ask(router, "a", request(2))
    delivery = only(router.from_backend(message))
    assert (delivery.attachment, delivery.about) == ("a", 2)
    assert delivery.message.encode() == message.encode()


@pytest.mark.parametrize("message", [log(), notification("notifications/x/unknown")])
def test_with_nothing_in_flight_it_goes_to_everybody(message):
    router = router_of("a", "b")
    routed = router.from_backend(message)
    assert [(one.attachment, one.about) for one in routed.to_clients] == [("a", None), ("b", None)]


def test_with_nobody_there_it_goes_to_nobody():
    assert router_of().from_backend(log()).to_clients == ()


def modern(id, *, logs=False, method="tools/call", **params):
    meta = ENVELOPE | ({f"{PREFIX}logLevel": "info"} if logs else {})
    return request(id, method, {**params, "_meta": meta})


def test_a_2026_request_gets_log_messages_only_if_it_asked_for_them():
    router = router_of("old")
    ask(router, "old", request(1))
    ask(router, "asked", modern(2, logs=True))
    ask(router, "did not", modern(3))
    assert only(router.from_backend(log())).attachment == "asked"
    assert only(router.from_backend(notification("notifications/x/unknown"))).attachment == "did not"
    router.detach("asked", cancel=True)
    assert only(router.from_backend(log())).attachment == "old"


def test_log_messages_that_no_2026_request_wants_go_to_none_of_them():
    router = router_of()
    ask(router, "did not", modern(1))
    assert router.from_backend(log()).to_clients == ()


# subscriptions


@pytest.mark.parametrize("id", [1, 0, "1", "listen", ""])
def test_a_listen_stream_is_named_by_the_clients_own_id_to_the_client(id):
    router = router_of()
    sent = {name: ask(router, name, modern(id, method="subscriptions/listen")) for name in "ab"}
    for name in "ba":
        for method in ("notifications/subscriptions/acknowledged", "notifications/tools/list_changed"):
            meta = {SUBSCRIPTION: sent[name].id, "other": Raw(b"1.0")}
            delivery = only(router.from_backend(notification(method, {"x": 1, "_meta": meta})))
            assert (delivery.attachment, delivery.about, delivery.message.method) == (name, id, method)
            assert body(delivery.message)["params"] == {"x": 1, "_meta": {SUBSCRIPTION: id, "other": 1.0}}
            assert type(body(delivery.message)["params"]["_meta"][SUBSCRIPTION]) is type(id)
            assert b'"other":1.0' in delivery.message.encode()
    ended = only(router.from_backend(result(sent["a"].id, {"_meta": {SUBSCRIPTION: sent["a"].id}, "y": Raw(b"1.0")})))
    assert body(ended.message) == {"jsonrpc": "2.0", "id": id, "result": {"_meta": {SUBSCRIPTION: id}, "y": 1.0}}
    assert b'"y":1.0' in ended.message.encode()


def test_a_listen_stream_is_in_flight_but_no_call():
    router = router_of("a")
    ask(router, "a", modern(1, method="subscriptions/listen"))
    ask(router, "a", modern(2))
    assert (router.in_flight, router.calls) == (2, 1)


def test_what_is_for_a_subscription_that_is_not_there_goes_to_nobody():
    router = router_of("old")
    sent = ask(router, "a", modern(1, method="subscriptions/listen"))
    gone = ask(router, "b", modern(1, method="subscriptions/listen"))
    router.detach("b", cancel=True)
    for subscription in [gone.id, 999, str(sent.id + 9), "x", *NO_IDS[:-4], True, [1], {"id": 1}]:
        message = notification("notifications/tools/list_changed", {"_meta": {SUBSCRIPTION: subscription}})
        assert router.from_backend(message) == NOTHING


# one handshake for all


def initialize(id=0, name="c"):
    return request(id, "initialize", {"clientInfo": {"name": name}})


INITIALIZED = notification("notifications/initialized")
CAPABILITIES = {"capabilities": {"n": Raw(b"1.0")}}


def test_the_first_handshake_goes_through_as_it_is():
    router = router_of("a")
    assert router.initialize_result is None
    sent = ask(router, "a", initialize())
    assert bytes(sent.params) == bytes(initialize().params)
    assert only(router.from_backend(result(sent.id, CAPABILITIES))).about == 0
    assert to_backend(router.from_client("a", INITIALIZED)) is INITIALIZED
    assert bytes(router.initialize_result) == b'{"capabilities":{"n":1.0}}'


def shaken(*attachments):
    """A router whose backend has shaken hands with the first of these."""
    router = router_of(*attachments)
    router.from_backend(result(ask(router, attachments[0], initialize()).id, CAPABILITIES))
    router.from_client(attachments[0], INITIALIZED)
    return router


def test_later_handshakes_get_the_same_result_and_never_reach_the_backend():
    router = shaken("a", "b")
    delivery = only(router.from_client("b", initialize("h")))
    assert (delivery.attachment, delivery.about) == ("b", "h")
    assert delivery.message.encode() == b'{"jsonrpc":"2.0","id":"h","result":{"capabilities":{"n":1.0}}}'
    assert router.from_client("b", INITIALIZED) == NOTHING
    assert router.in_flight == 0


def test_handshakes_that_come_while_the_first_is_under_way_wait_for_its_result():
    router = router_of("a", "b", "c")
    sent = ask(router, "a", initialize(1))
    assert router.from_client("b", initialize(1)) == NOTHING
    assert router.from_client("c", initialize("1")) == NOTHING
    routed = router.from_backend(result(sent.id, CAPABILITIES))
    assert not routed.to_backend
    assert [(one.attachment, one.about) for one in routed.to_clients] == [("a", 1), ("b", 1), ("c", "1")]
    assert {bytes(one.message.members["result"]) for one in routed.to_clients} == {b'{"capabilities":{"n":1.0}}'}


def test_after_a_handshake_that_failed_the_next_one_in_line_tries():
    router = router_of("a", "b", "c")
    sent = ask(router, "a", initialize(1))
    router.from_client("b", initialize(2, "b"))
    router.from_client("c", initialize(3, "c"))
    routed = router.from_backend(wire(messages.error(sent.id, -32602, "no")))
    assert [(one.attachment, one.message.kind.value) for one in routed.to_clients] == [("a", "error")]
    [retried] = routed.to_backend
    assert body(retried)["params"] == {"clientInfo": {"name": "b"}}
    routed = router.from_backend(result(retried.id, CAPABILITIES))
    assert [(one.attachment, one.about) for one in routed.to_clients] == [("b", 2), ("c", 3)]


def test_after_a_handshake_that_failed_alone_the_same_client_may_try_again():
    router = router_of("a", "b")
    sent = ask(router, "a", initialize())
    only(router.from_backend(wire(messages.error(sent.id, -32602, "no"))))
    again = ask(router, "b", initialize())
    assert only(router.from_backend(result(again.id))).attachment == "b"


def test_the_first_client_may_shake_hands_again_L24():
    router = shaken("a")
    again = ask(router, "a", initialize())
    assert only(router.from_backend(result(again.id, {"again": True}))).about == 0
    assert to_backend(router.from_client("a", INITIALIZED)).method == "notifications/initialized"


def test_the_handshake_goes_on_when_the_client_that_began_it_has_gone():
    router = router_of("a", "b")
    sent = ask(router, "a", initialize())
    router.from_client("b", initialize(1))
    assert router.detach("a", cancel=True) == NOTHING
    assert only(router.from_backend(result(sent.id, CAPABILITIES))).attachment == "b"


def test_the_handshake_is_completed_by_whoever_is_there_when_the_first_has_gone():
    router = router_of("a")
    only(router.from_backend(result(ask(router, "a", initialize()).id)))
    router.detach("a", cancel=False)
    router.attach("b")
    only(router.from_client("b", initialize()))
    assert to_backend(router.from_client("b", INITIALIZED)) is INITIALIZED
    assert router.from_client("b", INITIALIZED) == NOTHING


def test_the_handshake_is_not_completed_by_a_client_that_still_waits_for_its_result():
    router = router_of("a", "b")
    sent = ask(router, "a", initialize())
    router.from_client("b", initialize())
    assert router.from_client("b", INITIALIZED) == NOTHING
    router.from_backend(result(sent.id))
    assert to_backend(router.from_client("a", INITIALIZED)) is INITIALIZED
    assert router.from_client("b", INITIALIZED) == NOTHING


@pytest.mark.parametrize("answer", ["result", "error"])
def test_a_client_that_went_while_it_waited_for_the_handshake_gets_nothing(answer):
    router = router_of("a", "b", "c")
    sent = ask(router, "a", initialize())
    router.from_client("b", initialize(1))
    router.from_client("c", initialize(2))
    router.detach("b", cancel=False)
    if answer == "result":
        routed = router.from_backend(result(sent.id))
        assert [one.attachment for one in routed.to_clients] == ["a", "c"]
        return
    routed = router.from_backend(wire(messages.error(sent.id, -1, "no")))
    assert [one.attachment for one in routed.to_clients] == ["a"]
    [retried] = routed.to_backend
    assert only(router.from_backend(result(retried.id))).attachment == "c"
    assert router.in_flight == 0


def test_a_failure_of_the_session_answers_those_who_wait_for_the_handshake():
    router = router_of("a", "b")
    ask(router, "a", initialize(1))
    router.from_client("b", initialize("2"))
    routed = router.fail_all(-32000, "gone")
    assert [(one.attachment, one.about) for one in routed.to_clients] == [("a", 1), ("b", "2")]


# going away


def test_calls_of_a_client_that_has_gone_go_on_and_their_answers_are_dropped():
    router = router_of("a", "b")
    mine, other = ask(router, "a", request(1)), ask(router, "b", request(1))
    assert router.detach("a", cancel=False) == NOTHING
    assert router.attachments == 1
    assert router.from_backend(result(mine.id)) == NOTHING
    assert only(router.from_backend(result(other.id))).attachment == "b"
    assert router.answered == 2


def test_calls_of_a_client_whose_going_cancels_are_cancelled_one_by_one_L2():
    router = router_of("b")
    sent = [ask(router, "a", request(id)) for id in (1, 2)]
    ask(router, "b", request(1))
    router.from_client("a", cancelled(2))
    routed = router.detach("a", cancel=True)
    assert [body(message)["params"]["requestId"] for message in routed.to_backend] == [sent[0].id]
    assert router.in_flight == 1
    assert router.detach("a", cancel=True) == NOTHING


def test_the_backend_is_told_that_who_it_asked_has_gone():
    router = router_of("a")
    router.from_backend(sampling("s1"))
    error = to_backend(router.detach("a", cancel=False))
    assert (body(error)["id"], body(error)["error"]["code"]) == ("s1", NO_RECEIVER)
    assert router.from_client("a", result("s1")) == NOTHING


def test_nothing_is_sent_to_a_client_that_has_gone():
    router = router_of("a")
    sent = ask(router, "a", request(1, params={"_meta": {"progressToken": 1}}))
    router.detach("a", cancel=False)
    token = body(sent)["params"]["_meta"]["progressToken"]
    for message in (progress(token), log(), notification("notifications/tools/list_changed")):
        assert router.from_backend(message).to_clients == ()
    assert to_backend(router.from_backend(sampling())).kind.value == "error"


# the end


def test_when_the_backend_is_gone_every_request_in_flight_gets_one_error_C1():
    router = router_of("a", "b")
    sent = ask(router, "a", request(1))
    ask(router, "a", request("1"))
    ask(router, "b", request(1))
    ask(router, "b", request(2))
    router.from_client("b", cancelled(2))
    router.from_backend(sampling())
    routed = router.fail_all(-32000, "the backend has ended", {"exit_status": 3})
    assert not routed.to_backend
    assert [(one.attachment, one.about) for one in routed.to_clients] == [("a", 1), ("a", "1"), ("b", 1)]
    assert body(routed.to_clients[1].message) == {
        "jsonrpc": "2.0",
        "id": "1",
        "error": {"code": -32000, "message": "the backend has ended", "data": {"exit_status": 3}},
    }
    assert router.in_flight == 0
    assert router.fail_all(-32000, "again").to_clients == ()
    assert router.from_backend(result(sent.id)) == NOTHING
    assert router.from_client("b", result("s1")) == NOTHING


def test_an_answer_that_could_not_be_read_fails_its_request_alone_C14():
    router = router_of("a")
    sent = ask(router, "a", request("x"))
    ask(router, "a", request("y"))
    delivery = only(router.fail_backend_id(sent.id, -32700, "unreadable"))
    assert (delivery.about, body(delivery.message)["error"]["code"]) == ("x", -32700)
    for stray in (sent.id, str(sent.id), 999, "x"):
        assert router.fail_backend_id(stray, -32700, "unreadable") == NOTHING
    assert router.in_flight == 1


def test_a_handshake_whose_answer_could_not_be_read_has_failed():
    router = router_of("a", "b")
    sent = ask(router, "a", initialize())
    router.from_client("b", initialize(1))
    routed = router.fail_backend_id(sent.id, -32700, "unreadable")
    assert [one.attachment for one in routed.to_clients] == ["a"]
    assert len(routed.to_backend) == 1


def test_a_router_shows_what_it_holds():
    router = router_of("a", "b")
    ask(router, "a", request(1))
    assert repr(router) == "<Router 2 attachments, 1 in flight>"


# anything, in any order

CLIENTS = ["a", "b", "c"]
ids = st.sampled_from([0, 1, "1", "x"])


class AnyTraffic(RuleBasedStateMachine):
    """Clients with few ids and a backend with its own will: each request has one answer, or was given up."""

    def __init__(self):
        super().__init__()
        self.router = Router()
        self.here = set()
        self.waiting = {}
        self.given_up = set()
        self.asked = {}
        self.next_question = 0

    def at_backend(self, data):
        return data.draw(st.sampled_from(sorted(self.waiting)))

    @rule(client=st.sampled_from(CLIENTS))
    def attach(self, client):
        self.router.attach(client)
        self.here.add(client)

    @precondition(lambda self: self.here)
    @rule(data=st.data(), id=ids, token=st.none() | ids)
    def ask(self, data, id, token):
        client = data.draw(st.sampled_from(sorted(self.here)))
        params = {"from": client} if token is None else {"from": client, "_meta": {"progressToken": token}}
        routed = self.router.from_client(client, request(id, params=params))
        if any(key == (client, id) and type(key[1]) is type(id) for key, _, _ in self.waiting.values()):
            refused = only(routed)
            assert refused.attachment == client
            assert body(refused.message)["error"]["code"] == INVALID_REQUEST
            return
        sent = to_backend(routed)
        assert sent.id not in self.waiting
        assert sent.id not in self.given_up
        ours = body(sent)["params"].get("_meta", {}).get("progressToken")
        self.waiting[sent.id] = ((client, id), token, ours)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), fails=st.booleans())
    def answer(self, data, fails):
        backend_id = self.at_backend(data)
        (client, id), _, _ = self.waiting.pop(backend_id)
        answer = wire(messages.error(backend_id, -1, "no")) if fails else result(backend_id, {"for": client})
        delivery = only(self.router.from_backend(answer))
        assert (delivery.attachment, delivery.about, delivery.message.id) == (client, id, id)
        assert type(delivery.about) is type(delivery.message.id) is type(id)
        assert fails or body(delivery.message)["result"] == {"for": client}
        self.given_up.add(backend_id)

    @precondition(lambda self: self.given_up)
    @rule(data=st.data())
    def answer_again_or_too_late(self, data):
        backend_id = data.draw(st.sampled_from(sorted(self.given_up)))
        assert self.router.from_backend(result(backend_id)) == NOTHING

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def progress(self, data):
        backend_id = self.at_backend(data)
        (client, id), theirs, ours = self.waiting[backend_id]
        routed = self.router.from_backend(progress(backend_id if ours is None else ours))
        if ours is None:
            assert routed == NOTHING
            return
        delivery = only(routed)
        assert (delivery.attachment, delivery.about) == (client, id)
        assert body(delivery.message)["params"]["progressToken"] == theirs

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data):
        backend_id = self.at_backend(data)
        (client, id), _, _ = self.waiting.pop(backend_id)
        routed = self.router.from_client(client, cancelled(id))
        assert routed.withdrawn == ((client, id),)
        [sent] = routed.to_backend
        assert body(sent)["params"]["requestId"] == backend_id
        self.given_up.add(backend_id)

    @precondition(lambda self: self.here)
    @rule(data=st.data(), cancel=st.booleans())
    def detach(self, data, cancel):
        client = data.draw(st.sampled_from(sorted(self.here)))
        routed = self.router.detach(client, cancel=cancel)
        self.here.discard(client)
        lost = {backend_id for backend_id, ((owner, _), _, _) in self.waiting.items() if owner == client}
        unanswered = {question for question, owner in self.asked.items() if owner == client}
        notices = [message for message in routed.to_backend if message.method]
        assert {body(message)["params"]["requestId"] for message in notices} == (lost if cancel else set())
        assert {message.id for message in routed.to_backend if not message.method} == unanswered
        assert routed.to_clients == ()
        for backend_id in lost:
            del self.waiting[backend_id]
        for question in unanswered:
            del self.asked[question]
        self.given_up |= lost

    @rule()
    def ask_a_client(self):
        self.next_question += 1
        routed = self.router.from_backend(sampling(self.next_question))
        if not self.here:
            assert to_backend(routed).id == self.next_question
            return
        delivery = only(routed)
        assert delivery.attachment in self.here
        assert delivery.message.id == self.next_question
        self.asked[self.next_question] = delivery.attachment

    @precondition(lambda self: self.asked and self.here)
    @rule(data=st.data())
    def answer_the_backend(self, data):
        question = data.draw(st.sampled_from(sorted(self.asked)))
        client = data.draw(st.sampled_from(sorted(self.here)))
        routed = self.router.from_client(client, result(question))
        if self.asked[question] == client:
            assert to_backend(routed).id == question
            del self.asked[question]
        else:
            assert routed == NOTHING

    @rule()
    def say_something_to_all(self):
        routed = self.router.from_backend(notification("notifications/tools/list_changed"))
        assert {delivery.attachment for delivery in routed.to_clients} == self.here

    @rule()
    def lose_the_backend(self):
        routed = self.router.fail_all(-1, "gone")
        answered = [(one.attachment, one.about, type(one.about)) for one in routed.to_clients]
        assert sorted(map(repr, answered)) == sorted(
            repr((client, id, type(id))) for (client, id), _, _ in self.waiting.values()
        )
        self.given_up |= set(self.waiting)
        self.waiting.clear()
        self.asked.clear()

    @invariant()
    def nothing_is_in_flight_but_what_somebody_waits_for(self):
        assert self.router.in_flight == self.router.calls == len(self.waiting)
        assert self.router.attachments == len(self.here)


TestAnyTraffic = AnyTraffic.TestCase
TestAnyTraffic.settings = settings(max_examples=60, stateful_step_count=60)
