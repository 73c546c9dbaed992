import json

from event_source import Event, EventSource, read_events
from hypothesis import example, given
from hypothesis import strategies as st

from transports import messages
from transports.sse_codec import PING, encode_event

text = st.text(st.characters(exclude_categories=["Cs"]))
event_ids = st.from_regex(r"\A[0-9]*-[0-9]+\Z")
values = st.dictionaries(text, text | st.integers() | st.lists(text))


@given(st.lists(st.tuples(values, event_ids), max_size=5))
@example([({"text": "\u2028 \u2029 \x85 \x0b \x0c \x1e"}, "1-1")])
@example([({"text": "\r\n: no comment\n\ndata: none\nid: 9"}, "1-1")])
def test_messages_come_out_of_a_conforming_reader_as_they_went_in(sent):
    lines = [(messages.notification("n", value).encode(), id) for value, id in sent]
    stream = b"".join(encode_event(line, id=id) for line, id in lines)
    assert read_events(stream) == [Event(line.decode(), "message", id) for line, id in lines]


@given(values, st.integers(1, 7))
def test_a_reader_that_gets_a_few_bytes_at_a_time_sees_the_same(value, size):
    stream = PING + encode_event(messages.result(1, value).encode(), id="1-1") + PING
    source = EventSource()
    for start in range(0, len(stream), size):
        source.receive_data(stream[start : start + size])
    assert [json.loads(event.data)["result"] for event in source.events] == [value]
    assert source.comments == [" ping", " ping"]


def test_a_ping_is_a_comment_that_no_reader_dispatches():
    assert read_events(PING) == []


def test_an_event_without_an_id_leaves_the_last_one_as_it_was():
    source = EventSource()
    source.receive_data(encode_event(b"1", id="7-1") + encode_event(b"2"))
    assert source.last_id == "7-1"


def test_the_priming_event_has_an_id_a_retry_and_an_empty_data_line():
    source = EventSource()
    source.receive_data(encode_event(b"", id="1-0", retry_ms=1000))
    assert source.events == [Event("", "message", "1-0")]
    assert source.retry == 1000


def test_an_event_may_have_another_name():
    assert read_events(encode_event(b"/messages?sessionId=1", event=b"endpoint")) == [
        Event("/messages?sessionId=1", "endpoint")
    ]
